//! Checks every op's backward against central differences, in double precision, at odd sizes.

mod case;
mod check;

mod activation;
mod attention;
mod batch;
mod batchnorm;
mod contrast;
mod conv;
mod cross_entropy;
mod depthwise;
mod feature_distance;
mod hrda;
mod l2_normalize;
mod layernorm;
mod linear;
mod pool;
mod resize;

use udass_raw::device::Device;

/// The device that runs the cases.
pub fn double() -> Device {
    Device::host_f64().unwrap()
}
