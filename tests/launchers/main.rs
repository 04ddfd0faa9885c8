//! Every kernel called by its launcher against a plain loop, with numbers that are all different: a
//! swapped pair shows.

mod attention;
mod counts;
mod depthwise;
mod elementwise;
mod host;
mod images;
mod logits;
mod maps;
mod mix;
mod norms;
mod products;
mod windows;

use std::path::Path;

use udass_raw::device::{Device, kernels};
use udass_raw::tensor::DType;

pub use host::{GRID, Host, at, close, each, gelu, gelu_slope, jittered, taps, uniform_of};

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
    let problem = told(kernels::add(device, GRID, &reals, &bytes, &mut y, 0, 4));
    assert_eq!(problem, "add: `y` must be F64, is U8[4]");
    let mut y = host.room_for_bytes(&[4]);
    let problem = told(kernels::fill(device, GRID, &mut y, 1.0, 4));
    assert_eq!(problem, "fill: `y` must be F64, is U8[4]");
    assert_eq!(host.read_bytes(&y), [77; 4], "nothing ran");
    let extent = Some(&reals);
    let problem =
        told(kernels::normalize(device, GRID, &bytes, extent, &reals, &reals, &mut y, 1, 2, 2));
    assert_eq!(problem, "normalize: `extent` must be I32, is F64[4]");
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
fn every_kernel_is_called_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/launchers");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // Here nothing that is launched is compared.
    let cases = files.filter(|path| !path.ends_with("main.rs"));
    let text: String = cases.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let names = kernels::ALL.iter().map(|kernel| kernel.name);
    let missed: Vec<&str> =
        names.filter(|name| !text.contains(&format!("kernels::{name}("))).collect();
    assert!(missed.is_empty(), "not called: {}", missed.join(", "));
}
