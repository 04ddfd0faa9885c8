use crate::check::{Case, check};
use udass_raw::ops;
use udass_raw::tape::Tape;

fn l2_normalize(shape: &[usize]) {
    let case = Case { inputs: &[shape], ..Default::default() };
    check(&case, |tape, x, _| Ok(vec![ops::l2_normalize(tape, &x[0])?]));
}

#[test]
fn odd_channels() {
    l2_normalize(&[1, 3, 5, 7]);
}

#[test]
fn more_channels_than_a_warp() {
    l2_normalize(&[3, 2, 3, 96]);
}

#[test]
fn features_that_are_used_twice_collect_both_gradients() {
    let case = Case { inputs: &[&[1, 2, 3, 5]], ..Default::default() };
    check(&case, |tape, x, _| {
        Ok(vec![ops::l2_normalize(tape, &x[0])?, ops::l2_normalize(tape, &x[0])?])
    });
}

/// A vector of zeros stays one, and its gradient is what PyTorch's `normalize` has.
#[test]
fn a_vector_without_length_is_divided_by_the_least() {
    let device = udass_raw::device::Device::host_f64().unwrap();
    let tape = Tape::recording(&device);
    let x = tape.leaf(&device.upload(&[2, 3], &[0.0f64, 0.0, 0.0, 3.0, 0.0, 4.0]).unwrap());
    let y = ops::l2_normalize(&tape, &x).unwrap();
    assert_eq!(device.read::<f64>(&y).unwrap()[..3], [0.0; 3]);
    let seed = device.upload(&[2, 3], &[1.0f64, 2.0, 3.0, 3.0, 0.0, 4.0]).unwrap();
    let mut gradients = tape.backward(vec![(&y, seed)]).unwrap();
    let dx = device.read::<f64>(&gradients.of(&x).unwrap()).unwrap();
    for (i, wanted) in [1e12, 2e12, 3e12].into_iter().enumerate() {
        assert!((dx[i] / wanted - 1.0).abs() < 1e-12, "{dx:?}");
    }
    // A gradient along the vector changes its length alone.
    assert!(dx[3..].iter().all(|g| g.abs() < 1e-12), "{dx:?}");
}
