use crate::check::{Case, check, numbers};
use crate::double;
use udass_raw::ops;
use udass_raw::tape::Tape;

#[test]
fn split_gradients() {
    let case = Case { inputs: &[&[3, 5, 8]], ..Default::default() };
    for first in [1, 2] {
        check(&case, |tape, x, _| {
            let (a, b) = ops::split(tape, &x[0], first)?;
            Ok(vec![ops::gelu(tape, &a)?, b])
        });
        // One part reaches no loss; and the whole is read elsewhere too.
        check(&case, |tape, x, _| {
            let (a, _) = ops::split(tape, &x[0], first)?;
            Ok(vec![a])
        });
        check(&case, |tape, x, _| {
            let (_, b) = ops::split(tape, &x[0], first)?;
            Ok(vec![ops::gelu(tape, &x[0])?, b])
        });
    }
}

#[test]
fn split_undoes_stack() {
    let device = double();
    let a = device.upload(&[2, 8], &numbers(1, 16)).unwrap();
    let b = device.upload(&[1, 8], &numbers(2, 8)).unwrap();
    let both = ops::stack(&device, &a, &b).unwrap();
    assert_eq!(both.shape(), [3, 8]);
    let (first, second) = ops::split(&Tape::inference(&device), &both, 2).unwrap();
    for (part, of) in [(first, a), (second, b)] {
        assert_eq!(part.shape(), of.shape());
        assert_eq!(device.read::<f64>(&part).unwrap(), device.read::<f64>(&of).unwrap());
    }
}

#[test]
fn what_is_no_batch_is_told() {
    let device = double();
    let x = device.full(&[2, 8], 1.0).unwrap();
    let other = device.full(&[2, 4], 1.0).unwrap();
    assert!(ops::stack(&device, &x, &other).is_err());
    let tape = Tape::inference(&device);
    // No part is empty, and both are aligned.
    for (x, first) in [(&x, 0), (&x, 2), (&x, 3), (&other, 1)] {
        assert!(ops::split(&tape, x, first).is_err(), "{first} of {x:?}");
    }
}
