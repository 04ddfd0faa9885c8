//! Shared by the tests: the fill formula, the stored cases, and the comparison with them.

// Each test program uses only a part of this.
#![allow(dead_code)]

pub mod cases;
pub mod compare;
pub mod families;
pub mod formula;
pub mod hsv;
pub mod precision;
pub mod report;
pub mod uda;

use udass_raw::device::{Device, Precision};

/// Returns the device that `UDASS_DEVICE` (host, cuda) and `UDASS_PRECISION` (f32, tf32, bf16)
/// select; by default the host in single precision.
pub fn test_device() -> Result<(Device, Precision), String> {
    let variable = |name: &str, usual: &str| std::env::var(name).unwrap_or(usual.into());
    let precision = match variable("UDASS_PRECISION", "f32").as_str() {
        "f32" => Precision::F32,
        "tf32" => Precision::Tf32,
        "bf16" => Precision::Bf16,
        other => return Err(format!("UDASS_PRECISION: {other}")),
    };
    let device = match variable("UDASS_DEVICE", "host").as_str() {
        "host" => Device::host_in(0, precision),
        "cuda" => Device::cuda(precision, true),
        other => return Err(format!("UDASS_DEVICE: {other}")),
    };
    Ok((device.map_err(|e| e.to_string())?, precision))
}
