//! Every op's backward against central differences, in double precision, at odd sizes.

mod check;

mod activation;
mod cross_entropy;
mod feature_distance;
mod hrda;
mod linear;
