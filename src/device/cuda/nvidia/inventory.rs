//! What this machine has for the CUDA device: driver, libraries, GPUs and caches, for bug reports.

use std::ffi::{CStr, c_char, c_int};
use std::fs;
use std::path::Path;

use cudarc::driver::sys;

use super::embedded::{ARCHS, built};
use super::gpu::count;
use super::{cache, libraries};
use crate::device::precision::Types;

/// Returns a label and a text for everything that was found or is missing. Nothing here is an error:
/// a problem is reported as the text of what it concerns.
pub fn inventory() -> Vec<(String, String)> {
    let mut lines = vec![("kernels".to_string(), kernels())];
    lines.push(("driver".into(), driver()));
    lines.extend(gpus());
    let libraries = [&libraries::CUBLASLT, &libraries::CUDNN, &libraries::NVRTC];
    lines.extend(libraries.map(|library| (format!("lib{}", library.name()), library.describe())));
    if let Some(folder) = cache::folder() {
        for name in ["kernels", "autotune"] {
            lines.push((format!("cache of {name}"), folder_size(&folder.join(name))));
        }
    }
    lines
}

fn kernels() -> String {
    match built(Types::F32) {
        Ok((_, code)) if !code.is_empty() => format!(
            "machine code for compute capability {ARCHS} and PTX for 8.0 and later embedded"
        ),
        _ => "compiled by NVRTC at first use (no nvcc at build time)".into(),
    }
}

fn driver() -> String {
    match libraries::driver() {
        Ok(true) => {
            let mut version = 0;
            // SAFETY: the driver was found to have this function; the out-pointer is to a local.
            unsafe {
                let _ = call!(DRIVER, sys::cuDriverGetVersion(&mut version));
            }
            let path = libraries::DRIVER.path().unwrap_or_default();
            format!("supports CUDA {}.{}  {path}", version / 1000, version % 1000 / 10)
        }
        Ok(false) => "none".into(),
        Err(problem) => problem.to_string(),
    }
}

fn gpus() -> Vec<(String, String)> {
    match count() {
        Ok(0) => vec![("GPUs".into(), "none".into())],
        Ok(count) => {
            (0..count as c_int).map(|index| (format!("GPU {index}"), gpu(index))).collect()
        }
        Err(problem) => vec![("GPUs".into(), problem.to_string())],
    }
}

fn gpu(index: c_int) -> String {
    use sys::CUdevice_attribute as A;
    let (mut device, mut name) = (0, [0 as c_char; 256]);
    // SAFETY: the driver is initialized, writes a terminated name of at most 256 bytes, and the
    // out-pointers are to locals.
    unsafe {
        let _ = call!(DRIVER, sys::cuDeviceGet(&mut device, index));
        let _ = call!(DRIVER, sys::cuDeviceGetName(name.as_mut_ptr(), 256, device));
        let attribute = |which| {
            let mut value = 0;
            let _ = call!(DRIVER, sys::cuDeviceGetAttribute(&mut value, which, device));
            value
        };
        format!(
            "{}, compute capability {}.{}, {} multiprocessors, {} KiB of L2 cache",
            CStr::from_ptr(name.as_ptr()).to_string_lossy(),
            attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
            attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
            attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
            attribute(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE) >> 10,
        )
    }
}

fn folder_size(folder: &Path) -> String {
    let sizes: Vec<u64> = (fs::read_dir(folder).into_iter().flatten().flatten())
        .filter_map(|entry| entry.metadata().ok().map(|file| file.len()))
        .collect();
    let total = sizes.iter().sum::<u64>() as f64 / f64::from(1 << 20);
    format!("{}: {} files, {total:.1} MiB", folder.display(), sizes.len())
}
