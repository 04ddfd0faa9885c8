//! Tests work that is captured once and replayed.

use udass_raw::device::{Device, GraphCache, Types};
use udass_raw::ops;
use udass_raw::tensor::{DType, Tensor};
use udass_raw::{Error, Result};

use crate::stand_in::StandIn;

const N: usize = 100;

fn gpu() -> (StandIn, Device) {
    let gpu = StandIn::new();
    let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
    (gpu, device)
}

/// Computes `sum += x` through memory that the work itself allocates.
fn add(device: &Device, x: &Tensor, sum: &mut Tensor) -> Result<()> {
    let mut doubled = device.zeros(&[N], DType::F32)?;
    ops::add_scaled(device, x, 2.0, &mut doubled)?;
    ops::add_scaled(device, &doubled, 0.5, sum)
}

#[test]
fn what_lies_at_the_same_addresses_may_change_between_replays() {
    let (gpu, device) = gpu();
    let mut x = device.zeros(&[N], DType::F32).unwrap();
    let mut sum = device.zeros(&[N], DType::F32).unwrap();
    let mut replays = GraphCache::new(&device, true);
    let mut asked = 0;
    for i in 0..6 {
        device.write(&mut x, &[i as f32; N]).unwrap();
        let known = replays.run("add", || {
            asked += 1;
            add(&device, &x, &mut sum).map(|()| asked)
        });
        assert_eq!(*known.unwrap(), (i + 1).min(2), "what the host learned when it was asked for");
    }
    assert_eq!(asked, 2, "once to warm up, once to record");
    assert_eq!(gpu.counts().replayed, 5);
    assert_eq!(device.read::<f32>(&sum).unwrap(), [15.0; N]);
}

#[test]
fn a_host_asks_every_time() {
    let device = Device::host(1).unwrap();
    let mut replays = GraphCache::new(&device, true);
    let mut asked = 0;
    for _ in 0..4 {
        let work = || -> Result<()> {
            asked += 1;
            Ok(())
        };
        replays.run((), work).unwrap();
    }
    assert_eq!(asked, 4);
}

#[test]
fn work_that_cannot_be_recorded_is_told_and_harms_nothing() {
    let (gpu, device) = gpu();
    let x = ops::full(&device, &[N], 1.0).unwrap();
    let mut sum = device.zeros(&[N], DType::F32).unwrap();
    let wrong: [(&str, &dyn Fn() -> Result<()>); 3] = [
        ("an upload during graph capture", &|| device.upload(&[1], &[1f32]).map(drop)),
        ("a read during graph capture", &|| device.read::<f32>(&x).map(drop)),
        ("failed by itself", &|| Err(Error::Training("failed by itself".into()))),
    ];
    for (problem, wrong) in wrong {
        let mut replays = GraphCache::new(&device, true);
        replays.run((), || add(&device, &x, &mut sum)).unwrap();
        let told = replays.run((), || {
            add(&device, &x, &mut sum)?;
            wrong()
        });
        let told = told.unwrap_err().to_string();
        assert!(told.contains(problem), "{told}");
        // None of the failed capture ran, and it can be retried.
        replays.run((), || add(&device, &x, &mut sum)).unwrap();
    }
    assert_eq!(gpu.counts().replayed, 3);
    assert_eq!(device.read::<f32>(&sum).unwrap(), [6.0; N]);
}

#[test]
fn a_tensor_that_outlives_its_work_is_told() {
    let (_, device) = gpu();
    let mut replays = GraphCache::new(&device, true);
    let mut kept = Vec::new();
    let mut keep = |tensor: Result<Tensor>| tensor.map(|tensor| kept.push(tensor));
    replays.run((), || keep(ops::full(&device, &[N], 1.0))).unwrap();
    let told = replays.run((), || Ok(())).unwrap_err().to_string();
    assert!(told.contains("of a step's memory are still allocated"), "{told}");
    kept.clear();
    replays.run((), || Ok(())).unwrap();
    // Tensors that must outlive the work are allocated with `persistent`, which works from the first
    // run on.
    let mut replays = GraphCache::new(&device, true);
    let mut keep = |tensor: Result<Tensor>| tensor.map(|tensor| kept.push(tensor));
    replays.run((), || keep(device.persistent(|| ops::full(&device, &[N], 1.0)))).unwrap();
    replays.run((), || Ok(())).unwrap();
    assert_eq!(device.read::<f32>(&kept[0]).unwrap(), [1.0; N]);
}
