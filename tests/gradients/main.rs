//! Every op's backward against central differences, in double precision, at odd sizes.

mod check;

mod activation;
<<<<<<< HEAD
mod attention;
mod batchnorm;
mod conv;
mod depthwise;
mod layernorm;
=======
mod cross_entropy;
mod feature_distance;
mod hrda;
>>>>>>> loss
mod linear;
mod resize;
