//! Every op's backward against central differences, in double precision, at odd sizes.

mod check;

mod activation;
mod batchnorm;
mod conv;
mod linear;
mod resize;
