//! Tests the device's memory: transfers through pinned slots, and running out of memory.

use udass_raw::Error;
use udass_raw::checkpoint::files;
use udass_raw::checkpoint::state::{self, Position};
use udass_raw::checkpoint::weights::Network;
use udass_raw::data::loader::Loader;
use udass_raw::device::cuda::Driver;
use udass_raw::device::{Device, Types};
use udass_raw::run::build;
use udass_raw::run::eval::inference::Predictor;
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
fn only_lack_of_memory_is_told_as_such() {
    let gpu = StandIn::new();
    let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
    gpu.break_down();
    match device.alloc(&[4 << 20], DType::U8) {
        Err(Error::Device(problem)) => {
            assert_eq!(problem, "allocate: an illegal address was accessed before");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_is_reserved_as_it_is_needed() {
    let gpu = StandIn::with_memory(4 << 30);
    let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
    let taken = |gpu: &StandIn| (4 << 30) - gpu.memory().unwrap().free;
    let mut held = Vec::new();
    for i in 1..=256usize {
        held.push(device.alloc(&[5 << 20], DType::U8).unwrap());
        let (used, reserved) = (device.memory().used, device.memory().reserved);
        assert_eq!(taken(&gpu), reserved);
        // The next quarter, the first segment, and at each end of a segment less than a tensor.
        assert!(reserved <= used / 4 * 5 + (64 << 20) + (i << 19), "{reserved} for {used}");
    }
    // A tensor larger than the next segment gets its own.
    held.push(device.alloc(&[1 << 30], DType::U8).unwrap());
}

#[test]
fn many_small_segments_make_room_for_a_large_one() {
    let gpu = StandIn::with_memory(256 << 20);
    let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
    let small = |device: &Device| device.alloc(&[10 << 20], DType::U8).unwrap();
    let mut held: Vec<_> = (0..20).map(|_| small(&device)).collect();
    let kept = held.pop().unwrap();
    assert!(device.alloc(&[150 << 20], DType::U8).is_err());
    drop(held);
    device.alloc(&[150 << 20], DType::U8).unwrap();
    assert_eq!((256 << 20) - gpu.memory().unwrap().free, device.memory().reserved);
    drop(kept);
    // What work in progress uses is not released under it.
    let held: Vec<_> = (0..20).map(|_| device.zeros(&[10 << 20], DType::U8).unwrap()).collect();
    drop(held);
    device.zeros(&[200 << 20], DType::U8).unwrap();
}

#[test]
fn a_limit_of_memory_holds() {
    let gpu = StandIn::with_memory(4 << 30);
    let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
    assert_eq!(device.total_memory().unwrap(), Some(4 << 30));
    device.set_memory_limit(Some(100 << 20));
    let held = device.alloc(&[60 << 20], DType::U8).unwrap();
    let problem = match device.alloc(&[60 << 20], DType::U8) {
        Err(Error::OutOfMemory(problem)) => problem,
        other => panic!("{other:?}"),
    };
    assert!(problem.contains("MiB are left of the device's memory limit"), "{problem}");
    let small = device.alloc(&[30 << 20], DType::U8).unwrap();
    assert!((4 << 30) - gpu.memory().unwrap().free <= 100 << 20);
    device.set_memory_limit(None);
    device.alloc(&[60 << 20], DType::U8).unwrap();
    drop((held, small));
}

#[test]
fn everything_that_runs_out_of_memory_gives_advice() {
    let config = config_with("toy_vit", &[]);
    let on = |total: usize| {
        let gpu = StandIn::with_memory(total);
        (Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap(), gpu)
    };
    let told = |result: udass_raw::Result<()>| match result {
        Err(Error::OutOfMemory(problem)) => problem,
        other => panic!("{other:?}"),
    };
    // Creating a training state.
    let problem = told(initial_state::build(&config, &on(1 << 20).0, None).map(drop));
    assert!(problem.contains("Less memory is needed with network.activation"), "{problem}");
    // Predicting, and loading weights for it.
    let (device, gpu) = on(1 << 30);
    let training = initial_state::build(&config, &device, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let mut training = training;
    state::save(&path, &mut training, &Position::default(), None).unwrap();
    let file = files::open(&path).unwrap();
    let small = on(1 << 20).0;
    let loaded = build::trained(&config, &small, &file, Network::Student).map(drop);
    let problem = told(loaded);
    assert!(problem.contains("Less memory is needed with eval.batch"), "{problem}");
    drop(training);
    let (network, weights) = build::trained(&config, &device, &file, Network::Student).unwrap();
    let predictor = Predictor::new(&device, &network, &weights, &config.eval).unwrap();
    let (width, height) = (128, 64);
    let rgb = vec![7; width * height * 3];
    predictor.logits(&rgb, width, height).unwrap();
    device.set_memory_limit(Some(device.memory().reserved));
    let (width, height) = (width * 64, height * 64);
    let problem = told(predictor.logits(&vec![7; width * height * 3], width, height).map(drop));
    let parts = ["cannot allocate", "memory limit", "Less memory is needed with", "eval.resize"];
    for part in parts {
        assert!(problem.contains(part), "{part} in: {problem}");
    }
    assert_eq!(problem.matches("Less memory is needed").count(), 1);
    drop(gpu);
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
