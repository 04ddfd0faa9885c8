//! Launchers generated from the signatures in `kernels/*.cu`.
#![allow(clippy::all)]

use std::ffi::c_void;

use super::handle::Device;
use super::launch::{Arg, Element, Grid, Kernel, Level, Solo, SoloLaunch};
use super::precision::Types;
use crate::Result;
use crate::tensor::Tensor;

include!(concat!(env!("OUT_DIR"), "/launchers.rs"));
