//! Every kernel that takes three numbers or more, called by its launcher with numbers that are all
//! different, against a plain loop: a swapped pair shows.

mod attention;
mod depthwise;
mod host;
mod images;
mod logits;
mod maps;
mod norms;
mod windows;

use std::path::Path;

use udass_raw::device::{Device, kernels};
use udass_raw::tensor::DType;

pub use host::{GRID, Host, at, close, each, taps, uniform_of};

/// Where the cases run.
pub fn double() -> Device {
    Device::host_f64().unwrap()
}

#[test]
fn a_launcher_refuses_a_wrong_type_and_names_it() {
    let host = Host::double();
    let device = &host.device;
    let (reals, _) = host.reals(&[4]);
    let (bytes, _) = host.bytes(&[4], 9);
    let told = |result: udass_raw::Result<()>| result.unwrap_err().to_string();

    let mut y = host.room(&[4]);
    let problem = told(kernels::add(device, GRID, &reals, &bytes, &mut y, 4));
    assert_eq!(problem, "add: `y` must be F64, is U8[4]");
    let mut y = host.room_for_bytes(&[4]);
    let problem = told(kernels::fill(device, GRID, &mut y, 1.0, 4));
    assert_eq!(problem, "fill: `y` must be F64, is U8[4]");
    assert_eq!(host.read_bytes(&y), [77; 4], "nothing ran");
    let problem =
        told(kernels::class_mask(device, GRID, &bytes, &bytes, Some(&reals), &mut y, 1, 4));
    assert_eq!(problem, "class_mask: `confident` must be U8, is F64[4]");
    let mut y = host.room(&[4]);
    let place = host.ints(&[0; 4]);
    let problem =
        told(kernels::crop_reals(device, GRID, &reals, &reals, &mut y, 1, 2, 2, 1, 2, 2, 1));
    assert_eq!(problem, "crop_reals: `place` must be I32, is F64[4]");
    let single = Device::host(1).unwrap();
    let narrow = single.upload(&[4], &[0f32; 4]).unwrap();
    let problem =
        told(kernels::crop_reals(device, GRID, &narrow, &place, &mut y, 1, 2, 2, 1, 2, 2, 1));
    assert_eq!(problem, "crop_reals: `x` must be F64, is F32[4]");
    let key = device.alloc(&[1], DType::I64).unwrap();
    let problem = told(kernels::channel_mask(device, GRID, &key, &mut y, 4, 0.5, 0));
    assert_eq!(problem, "channel_mask: `key` must be U64, is I64[1]");
}

#[test]
fn every_kernel_of_three_numbers_is_called_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read_all = |folder: &str, ending: &str| -> String {
        let entries = std::fs::read_dir(root.join(folder)).unwrap().map(|e| e.unwrap().path());
        let files = entries.filter(|path| path.extension().is_some_and(|e| e == ending));
        files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    };
    let tests = read_all("tests/launchers", "rs");
    let mut counted = 0;
    for line in read_all("kernels", "cu").lines() {
        let Some(signature) = line.strip_prefix("KERNEL(") else { continue };
        let name = signature.split(',').next().unwrap();
        let scalars = ["int64_t ", "int32_t ", "uint64_t ", "real "];
        let numbers: usize =
            scalars.iter().map(|kind| signature.matches(&format!(", {kind}")).count()).sum();
        if numbers >= 3 {
            counted += 1;
            assert!(tests.contains(&format!("kernels::{name}(")), "{name} is not called");
        }
    }
    assert!(counted > 30, "{counted} kernels");
}
