//! Tests the device's memory: transfers through pinned slots, and running out of memory.

use udass_raw::Error;
use udass_raw::data::loader::Loader;
use udass_raw::device::{Device, Types};
use udass_raw::run::train::initial_state;
use udass_raw::tensor::DType;

use crate::stand_in::{self, StandIn};
use crate::steps::config_with;

#[test]
fn transfers_larger_than_the_slots_that_they_go_through() {
    let device = stand_in::device(Types::F32);
    let numbers =
        |n: usize, seed: usize| -> Vec<i32> { (0..n).map(|i| (i * 31 + seed) as i32).collect() };
    // Most uploads take several chunks; the last chunk shares its slot with the next upload.
    let sizes = [10_000_000, 3, 5_000_001, 1, 9_000_000];
    let kept: Vec<_> = (sizes.iter().enumerate())
        .map(|(seed, &n)| device.upload(&[n], &numbers(n, seed)).unwrap())
        .collect();
    for (seed, (tensor, n)) in kept.iter().zip(sizes).enumerate() {
        assert!(device.read::<i32>(tensor).unwrap() == numbers(n, seed), "{n} numbers");
    }
}

#[test]
fn small_uploads_do_not_wait() {
    let gpu = StandIn::new();
    let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
    let kept: Vec<_> =
        (0..1000).map(|i| device.upload(&[3], &[i, i + 1, i + 2]).unwrap()).collect();
    assert_eq!(gpu.counts().synchronized, 0);
    assert_eq!(device.read::<i32>(&kept[567]).unwrap(), [567, 568, 569]);
    assert_eq!(gpu.counts().synchronized, 1);
}

#[test]
fn memory_that_runs_out_is_told_with_who_holds_it() {
    let gpu = StandIn::with_memory(64 << 20);
    let device = Device::cuda_through(Types::F32, Box::new(gpu)).unwrap();
    let held = device.scope("attention", || device.alloc(&[40 << 20], DType::U8)).unwrap();
    drop(device.alloc(&[6 << 20], DType::U8).unwrap());
    let problem = device.scope("teacher", || device.alloc(&[40 << 20], DType::U8));
    let problem = problem.unwrap_err().to_string();
    for part in [
        "are requested",
        "cannot allocate 40 MiB for teacher",
        "40 MiB are in use, the peak was 46 MiB (attention 40 MiB, other 6 MiB)",
    ] {
        assert!(problem.contains(part), "{part} in: {problem}");
    }
    drop(held);
    device.alloc(&[40 << 20], DType::U8).unwrap();
}

#[test]
fn a_step_that_does_not_fit_names_the_settings_with_which_it_does() {
    let train = |total: usize, more: &[&str]| {
        let larger = [
            "teacher.enabled=false",
            "mask.enabled=false",
            "quadmix.enabled=false",
            "data.crop=128",
            "network.hrda.detail_crop=64",
            "quadmix.resize=[256, 128]",
            "source.resize=[256, 140]",
            "target.resize=[256, 128]",
        ];
        let config = config_with("toy_vit", &[&larger, more].concat());
        let gpu = StandIn::with_memory(total);
        let device = Device::cuda_through(Types::F32, Box::new(gpu)).unwrap();
        let mut training = initial_state::build(&config, &device, None)?;
        let mut loader = Loader::new(&config, 0).unwrap();
        for iteration in 0..3 {
            training.step(&loader.next().unwrap(), iteration)?;
        }
        Ok::<_, Error>(device.memory())
    };
    let recompute = ["network.activation_checkpointing=true"];
    let whole = train(4 << 30, &[]).unwrap();
    let less = train(4 << 30, &recompute).unwrap();
    assert!(4 * (less.peak - less.used) < 3 * (whole.peak - whole.used), "{less:?}, {whole:?}");
    let total = (less.peak + whole.peak) / 2;
    let Err(Error::OutOfMemory(problem)) = train(total, &[]) else { panic!("it fits") };
    let parts = [
        "cannot allocate",
        "MiB for source: ",
        "network.activation_checkpointing = true (slower, the same numbers)",
        "device.cuda_graph = false (up to an eighth)",
        "data.batch = 1 instead of 2",
        "data.crop = 64 instead of 128, with network.hrda.detail_crop = 32",
    ];
    for part in parts {
        assert!(problem.contains(part), "{part} in: {problem}");
    }
    let Err(Error::OutOfMemory(problem)) = train(less.peak / 2, &recompute) else {
        panic!("it fits")
    };
    assert!(!problem.contains("network.activation_checkpointing"), "{problem}");
}
