//! Every op's backward against central differences, in double precision, at odd sizes.

mod check;

mod activation;
mod attention;
mod batchnorm;
mod conv;
mod depthwise;
mod layernorm;
mod linear;
mod resize;
