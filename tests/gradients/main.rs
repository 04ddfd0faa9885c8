//! Every op's backward against central differences, in double precision, at odd sizes.

mod check;

mod activation;
mod attention;
mod depthwise;
mod linear;
mod resize;
