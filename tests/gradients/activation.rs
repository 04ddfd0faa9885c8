use crate::check::{Case, check};
use udass_raw::ops;

#[test]
fn sums_with_and_without_a_rectifier() {
    let case = Case { inputs: &[&[3, 5, 7], &[3, 5, 7]], ..Default::default() };
    for relu in [false, true] {
        check(&case, |tape, x, _| Ok(vec![ops::add(tape, &x[0], &x[1], relu)?]));
        // As in a residual stream, sums are used again, and both terms may be the same tensor.
        check(&case, |tape, x, _| {
            let once = ops::add(tape, &x[0], &x[1], relu)?;
            let twice = ops::add(tape, &once, &x[0], relu)?;
            Ok(vec![ops::add(tape, &twice, &twice, relu)?, once])
        });
    }
}
