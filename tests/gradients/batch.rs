use crate::check::{Case, check, numbers};
use crate::double;
use udass_raw::ops;
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

#[test]
fn split_gradients() {
    let case = Case { inputs: &[&[4, 5, 8]], ..Default::default() };
    for samples in [&[1, 3][..], &[2, 2], &[1, 2, 1], &[4]] {
        check(&case, |tape, x, _| {
            let mut parts = ops::split(tape, &x[0], samples)?;
            parts[0] = ops::add(tape, &parts[0], &parts[0], false)?;
            Ok(parts)
        });
    }
    // Only one part reaches the loss, and the whole has another consumer.
    for part in 0..3 {
        check(&case, |tape, x, _| {
            let mut parts = ops::split(tape, &x[0], &[1, 2, 1])?;
            Ok(vec![ops::add(tape, &x[0], &x[0], false)?, parts.swap_remove(part)])
        });
        check(&case, |tape, x, _| Ok(vec![ops::split(tape, &x[0], &[1, 2, 1])?.swap_remove(part)]));
    }
}

#[test]
fn split_undoes_stack() {
    let device = double();
    let samples = [2, 1, 3];
    let parts: Vec<Tensor> = (samples.iter().enumerate())
        .map(|(i, &n)| device.upload(&[n, 8], &numbers(i as u64 + 1, 8 * n)).unwrap())
        .collect();
    let all = ops::stack(&device, &parts).unwrap();
    assert_eq!(all.shape(), [6, 8]);
    let again = ops::split(&Tape::inference(&device), &all, &samples).unwrap();
    assert_eq!(again.len(), parts.len());
    for (part, of) in again.iter().zip(&parts) {
        assert_eq!(part.shape(), of.shape());
        assert_eq!(device.read::<f64>(part).unwrap(), device.read::<f64>(of).unwrap());
    }
}

#[test]
fn what_is_no_batch_is_told() {
    let device = double();
    let x = ops::full(&device, &[2, 8], 1.0).unwrap();
    let other = ops::full(&device, &[2, 4], 1.0).unwrap();
    assert!(ops::stack(&device, &[x.clone(), other.clone()]).is_err());
    assert!(ops::stack(&device, &[]).is_err());
    let tape = Tape::inference(&device);
    // Every sample must be in a part, no part may be empty, and parts must be aligned.
    for (x, samples) in [(&x, &[0, 2][..]), (&x, &[2, 1]), (&x, &[1]), (&x, &[]), (&other, &[1, 1])]
    {
        assert!(ops::split(&tape, x, samples).is_err(), "{samples:?} of {x:?}");
    }
}
