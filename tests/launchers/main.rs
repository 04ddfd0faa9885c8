//! Calls every kernel through its launcher and compares it with a plain loop. All numbers are
//! distinct, so that swapped arguments are noticed.

mod attention;
mod batchnorms;
mod contrast;
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

use udass_raw::device::{Device, Grid, kernels};
use udass_raw::tensor::{DType, Tensor};

pub use host::{GRID, Host, at, close, each, gelu, gelu_derivative, jittered, taps, uniform_of};

/// The device that runs the cases.
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

    let mut z = host.room(&[4]);
    let add = kernels::Add { x: &reals, y: &bytes, z: &mut z, relu: false, elements: 4 };
    assert_eq!(told(add.launch(device, GRID)), "add: `y` must be F64, is U8[4]");
    let mut y = host.room_for_bytes(&[4]);
    let fill = kernels::Fill { y: &mut y, value: 1.0, elements: 4 };
    assert_eq!(told(fill.launch(device, GRID)), "fill: `y` must be F64, is U8[4]");
    assert_eq!(host.read_bytes(&y), [77; 4], "nothing ran");
    let extent = Some(&reals);
    let (mean, inverse_std, x) = (&reals, &reals, &bytes);
    let (batch, height, width) = (1, 2, 2);
    let y = &mut y;
    let normalize = kernels::Normalize { x, extent, mean, inverse_std, y, batch, height, width };
    let problem = told(normalize.launch(device, GRID));
    assert_eq!(problem, "normalize: `extent` must be I32, is F64[4]");
    let key = device.alloc(&[1], DType::I64).unwrap();
    let mask = &mut host.room(&[4]);
    let mask = kernels::ChannelMask {
        key: &key,
        mask,
        batch: 2,
        channels: 2,
        probability: 0.5,
        stream: 0,
        first_slot: 0,
        slots: 1,
        all_slots: 1,
    };
    let problem = told(mask.launch(device, GRID));
    assert_eq!(problem, "channel_mask: `key` must be U64, is I64[1]");

    // A single-precision tensor does not pass for a double-precision one.
    let x = device.upload(&[4], &[0f32; 4]).unwrap();
    let downcast = kernels::Downcast { x: &x, y: &mut host.room(&[4]), elements: 4 };
    assert_eq!(told(downcast.launch(device, GRID)), "downcast: `x` must be F64, is F32[4]");
    let elsewhere = Device::host(1).unwrap().upload(&[4], &[0f32; 4]).unwrap();
    let downcast = kernels::Downcast { x: &elsewhere, y: &mut host.room(&[4]), elements: 4 };
    let problem = told(downcast.launch(device, GRID));
    assert_eq!(problem, "downcast: F32[4] is in the memory of another device");
}

#[test]
fn a_launcher_refuses_a_wrong_size_and_says_which_is_right() {
    let host = Host::double();
    let device = &host.device;
    let told = |result: udass_raw::Result<()>| result.unwrap_err().to_string();
    let (x, _) = host.reals(&[5, 3]);
    let (mask, _) = host.reals(&[12]);
    let scale = |batch, pixels, y: &mut Tensor| {
        let (x, mask, accumulate) = (&x, &mask, false);
        told(
            kernels::ScaleChannels { x, mask, y, accumulate, batch, pixels, channels: 3 }
                .launch(device, GRID),
        )
    };
    let mut y = host.room(&[15]);
    let problem = scale(5, 1, &mut y);
    assert_eq!(problem, "scale_channels: `mask` holds 12 elements, not 5x3=15");
    let problem = scale(4, 1, &mut y);
    assert_eq!(problem, "scale_channels: `x` holds 15 elements, not 4x1x3=12");
    let problem = scale(usize::MAX / 2, 3, &mut y);
    assert_eq!(
        problem,
        "scale_channels: `x` has no size: the launch's sizes contradict each other"
    );
    let problem = scale(usize::MAX, 0, &mut y);
    assert_eq!(problem, format!("scale_channels: `batch` is {}", usize::MAX));

    let parts = |parts: usize, blocks| {
        let (mean, deviations) = (&mut host.room(&[parts, 3]), &mut host.room(&[parts, 3]));
        kernels::BatchnormPartial { x: &x, means: mean, deviations, rows: 5, channels: 3 }
            .launch(device, Grid::blocks(blocks))
    };
    parts(2, 2).unwrap();
    let problem = told(parts(2, 7));
    assert_eq!(problem, "batchnorm_partial: `means` holds 6 elements, not 7x3=21");
}

#[test]
fn every_kernel_is_called_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/launchers");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // This file launches kernels without checking their results.
    let cases = files.filter(|path| !path.ends_with("main.rs"));
    let text: String = cases.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let launcher = |name: &str| -> String {
        let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
        name.split('_').map(capital).collect()
    };
    let names = kernels::ALL.iter().map(|kernel| kernel.name);
    let called = |name: &&str| text.contains(&format!("kernels::{} {{", launcher(name)));
    let missed: Vec<&str> = names.filter(|name| !called(name)).collect();
    assert!(missed.is_empty(), "not called: {}", missed.join(", "));
}
