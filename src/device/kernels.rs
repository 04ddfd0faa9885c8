//! Launchers generated from the signatures in `kernels/*.cu`: one struct for each kernel, whose
//! fields are the kernel's arguments. An `int64_t` is a `usize` here: a size, a count or an offset.
#![allow(clippy::all)]

use std::ffi::c_void;

use super::handle::Device;
use super::launch::{Arg, Element, Grid, Kernel, Level, Serial, SerialLaunch};
use super::precision::Types;
use super::shapes::{Dim, Parameter, ParameterKind, Shape};
use crate::Result;
use crate::tensor::Tensor;

include!(concat!(env!("OUT_DIR"), "/launchers.rs"));
