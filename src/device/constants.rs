//! Constants shared by kernels and the Rust code that launches them, in one module for each kernel
//! file.

include!(concat!(env!("OUT_DIR"), "/constants.rs"));
