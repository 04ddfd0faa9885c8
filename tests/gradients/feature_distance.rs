use crate::check::{Case, check};
use udass_raw::ops;
use udass_raw::tape::Tape;

#[test]
fn feature_distance() {
    let case = Case { inputs: &[&[3, 3, 5, 7]], ..Default::default() };
    check(&case, |tape, x, _| {
        let device = tape.device();
        // Values that the operand type represents exactly.
        let f2: Vec<f32> = (0..x[0].len()).map(|i| (i * 37 % 64) as f32 / 32.0 - 1.0).collect();
        let f2 = ops::to_operand(device, &device.upload_real(x[0].shape(), &f2)?)?;
        // Cells of 2×2 pixels, every third of them of a selected class.
        let labels: Vec<u8> = (0..3 * 6 * 10)
            .map(|i| if (i / 60 * 15 + i / 20 % 3 * 5 + i % 10 / 2) % 3 == 0 { 6 } else { 1 })
            .collect();
        let labels = device.upload(&[3, 6, 10], &labels)?;
        let mut classes = vec![0u8; 256];
        classes[6] = 1;
        let classes = device.upload(&[256], &classes)?;
        Ok(vec![ops::feature_distance(tape, &x[0], &f2, &labels, &classes, 0.75)?.value])
    });
}

/// Identical features and an empty mask both give gradients of exactly zero.
#[test]
fn no_distance_and_no_mask_give_no_gradient() {
    let device = udass_raw::device::Device::host_f64().unwrap();
    for (label, expected_count) in [(6u8, 4.0), (1, 0.0), (255, 0.0)] {
        let tape = Tape::recording(&device);
        let f1 = tape.leaf(&device.upload(&[1, 2, 2, 3], &[0.5f64; 12]).unwrap());
        let labels = device.upload(&[1, 4, 4], &[label; 16]).unwrap();
        let mut classes = vec![0u8; 256];
        classes[6] = 1;
        let classes = device.upload(&[256], &classes).unwrap();
        let f2 = if expected_count == 0.0 {
            device.zeros(f1.shape(), f1.dtype()).unwrap()
        } else {
            f1.detach()
        };
        let distance = ops::feature_distance(&tape, &f1, &f2, &labels, &classes, 0.75).unwrap();
        assert_eq!(device.read::<f64>(&distance.value).unwrap(), [0.0]);
        assert_eq!(device.read::<f64>(&distance.count).unwrap(), [expected_count]);
        let seed = device.upload(&[1], &[1.0f64]).unwrap();
        let mut gradients = tape.backward(vec![(&distance.value, seed)]).unwrap();
        let gradient = gradients.of(&f1).unwrap();
        assert_eq!(device.read::<f64>(&gradient).unwrap(), [0.0; 12]);
    }
}
