//! Training and evaluation of unsupervised domain-adaptive semantic segmentation (UDASS / QuadMix),
//! built on hand-written CUDA kernels and a minimal runtime, without libtorch.
//!
//! The `udass-raw` program is a thin layer over [`run`]. To segment images with a trained network in
//! your own program, on the GPU, or on the CPU if there is none, start at [`model`]:
//!
//! ```no_run
//! use udass_raw::model::{Image, Model, Options, PixelFormat};
//!
//! # let (rgb, width, height) = (vec![0u8; 3], 1, 1);
//! let model = Model::open("model.safetensors", &Options::default())?;
//! let classes = model.labels(&Image::new(&rgb, PixelFormat::Rgb, width, height)?)?;
//! # Ok::<(), udass_raw::Error>(())
//! ```
//!
//! A program that has its own CUDA context, stream and memory can keep using them: all work is
//! enqueued on that stream, and nothing here waits for it. [`Device::prepare`] makes the work ready
//! for a CUDA graph of the program's own.
//!
//! [`Device::prepare`]: device::Device::prepare
//!
//! ```no_run
//! # use std::ffi::c_void;
//! use udass_raw::device::{Device, Precision};
//! use udass_raw::nn::{BatchNormMode, Pass, Segmentor};
//! use udass_raw::params::Weights;
//! use udass_raw::tape::Tape;
//! use udass_raw::tensor::DType;
//!
//! # fn segment(context: *mut c_void, stream: *mut c_void) -> udass_raw::Result<()> {
//! // SAFETY: the context and the stream outlive the device and its tensors.
//! let device = unsafe { Device::cuda_in(context, stream, Precision::Bf16, true)? };
//! # Ok(()) }
//! /// `image` is the device address of a normalized image, 1,1024,2048,3, and `result` that of a
//! /// buffer for logits, 1,256,512,19.
//! fn logits(
//!     device: &Device,
//!     network: &Segmentor,
//!     weights: &Weights,
//!     image: u64,
//!     result: u64,
//! ) -> udass_raw::Result<()> {
//!     // SAFETY: the buffers have these sizes, and all other accesses are ordered by the stream.
//!     let image = unsafe { device.tensor_at(image, &[1, 1024, 2048, 3], DType::F32)? };
//!     let mut result = unsafe { device.tensor_at(result, &[1, 256, 512, 19], DType::F32)? };
//!     let tape = Tape::inference(device);
//!     let batch_norm = BatchNormMode::Eval;
//!     let pass = Pass { tape: &tape, weights, batch_norm, dropout_rng: None };
//!     device.copy(&network.logits(&pass, &image)?, &mut result)
//! }
//! ```

#![warn(missing_docs)]

#[cfg(feature = "capi")]
pub mod capi;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod device;
pub mod dtype;
pub mod error;
pub mod file;
mod hex;
mod memory;
pub mod model;
pub mod nn;
pub mod observer;
mod onnx;
pub mod ops;
pub mod optimizer;
pub mod params;
mod printable;
pub mod rng;
pub mod run;
pub mod tape;
pub mod tensor;
pub mod uda;

pub use error::{Error, Result};
pub use printable::printable;
