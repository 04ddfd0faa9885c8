//! Memory of the device: transfers through pinned slots, and its end.

use udass_raw::device::{Device, Types};
use udass_raw::tensor::DType;

use crate::stand_in::{self, StandIn};

#[test]
fn transfers_larger_than_the_slots_that_they_go_through() {
    let device = stand_in::device(Types::F32);
    let numbers =
        |n: usize, seed: usize| -> Vec<i32> { (0..n).map(|i| (i * 31 + seed) as i32).collect() };
    // Several pieces each, and a last one that shares its slot with what follows.
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
    let problem = device.alloc(&[40 << 20], DType::U8).unwrap_err().to_string();
    assert!(problem.contains("are asked for"), "{problem}");
    assert!(problem.contains("attention 40 MiB"), "{problem}");
    assert!(problem.contains("A smaller data.batch or data.crop needs less"), "{problem}");
    drop(held);
    device.alloc(&[40 << 20], DType::U8).unwrap();
}
