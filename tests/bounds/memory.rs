//! Tensors that this machine has no memory for.

use udass_raw::Error;
use udass_raw::device::Device;
use udass_raw::tensor::DType;

#[test]
fn the_host_refuses_what_the_machine_does_not_have() {
    let device = Device::host(1).unwrap();
    let total = device.total_memory().unwrap().expect("Linux tells");
    let all = device.alloc(&[total], DType::U8);
    let Err(Error::OutOfMemory(told)) = all else { panic!("{all:?}") };
    assert!(told.contains("MiB left for this process"), "{told}");
    // Twice a part that would fit once, of which the first is used.
    let mut kept = Vec::new();
    let refused = (0..1_000_000).find_map(|_| match device.alloc(&[1 << 30], DType::U8) {
        Ok(tensor) => {
            kept.push(tensor);
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(refused, Some(Error::OutOfMemory(_))), "{refused:?}");
    assert!(kept.len() << 30 < total, "{} GiB of {total} bytes", kept.len());
    // What was given back is there again.
    drop(kept);
    device.zeros(&[1 << 20], DType::U8).unwrap();
}
