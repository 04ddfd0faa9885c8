//! Hand-written CUDA kernels and a minimal runtime that train and evaluate unsupervised
//! domain-adaptive semantic segmentation (UDASS / QuadMix) without libtorch.
//!
//! The program `udass-raw` is a thin layer over [`run`]. In a program of your own, a trained network
//! segments a picture on the GPU, or on the CPU where there is none:
//!
//! ```no_run
//! use udass_raw::config::Config;
//! use udass_raw::run::inference::Predictor;
//! use udass_raw::run::tensor_file::TensorFile;
//! use udass_raw::run::{build, weights::Network};
//!
//! # let (rgb, width, height) = (vec![0u8; 3], 1, 1);
//! let config = Config::load("gta_vit", &[])?;
//! let device = build::device(&config)?;
//! let file = TensorFile::open("gta_vit.safetensors")?;
//! let (network, weights) = build::trained(&config, &device, &file, Network::Student)?;
//! let predictor = Predictor::new(&device, &network, &weights, &config.eval)?;
//! // `rgb`: the picture's bytes, row by row.
//! let logits = predictor.logits(&rgb, width, height)?;
//! let classes: Vec<u8> = device.read(&predictor.classes(&logits, (height, width))?)?;
//! # Ok::<(), udass_raw::Error>(())
//! ```
//!
//! A program with a CUDA context, a stream and memory of its own keeps them: all work goes to that
//! stream, and nothing here waits for it.
//!
//! ```no_run
//! # use std::ffi::c_void;
//! use udass_raw::device::{Device, Precision};
//! use udass_raw::nn::{Pass, Segmentor, Statistics};
//! use udass_raw::params::Weights;
//! use udass_raw::tape::Tape;
//! use udass_raw::tensor::DType;
//!
//! # fn segment(context: *mut c_void, stream: *mut c_void) -> udass_raw::Result<()> {
//! // SAFETY: both handles outlive the device and its tensors.
//! let device = unsafe { Device::cuda_in(context, stream, Precision::Bf16, true)? };
//! # Ok(()) }
//! /// `image`: the address of 1,1024,2048,3 normalised numbers; `result`: that of room for
//! /// 1,256,512,19 logits.
//! fn logits(
//!     device: &Device,
//!     network: &Segmentor,
//!     weights: &Weights,
//!     image: u64,
//!     result: u64,
//! ) -> udass_raw::Result<()> {
//!     // SAFETY: so many numbers lie there, and others touch them in the stream's order alone.
//!     let image = unsafe { device.tensor_at(image, &[1, 1024, 2048, 3], DType::F32)? };
//!     let mut result = unsafe { device.tensor_at(result, &[1, 256, 512, 19], DType::F32)? };
//!     let tape = Tape::inference(device);
//!     let pass = Pass { tape: &tape, weights, statistics: Statistics::Running, dropping: None };
//!     device.copy(&network.logits(&pass, &image)?, &mut result)
//! }
//! ```

pub mod config;
pub mod data;
pub mod device;
pub mod dtype;
pub mod error;
pub mod nn;
pub mod ops;
pub mod optimizer;
pub mod params;
pub mod rng;
pub mod run;
pub mod tape;
pub mod tensor;
pub mod uda;

pub use error::{Error, Result};
