use crate::check::{Case, check};
use udass_raw::ops;

#[test]
fn linear() {
    let case = Case { inputs: &[&[3, 5, 7]], params: &[&[11, 7], &[11]], ..Default::default() };
    check(&case, |tape, x, p| Ok(vec![ops::linear(tape, &x[0], &p[0], Some(&p[1]))?]));
}

#[test]
fn linear_without_bias_of_many_rows() {
    let case = Case { inputs: &[&[1, 131, 3]], params: &[&[2, 3]], ..Default::default() };
    check(&case, |tape, x, p| Ok(vec![ops::linear(tape, &x[0], &p[0], None)?]));
}

#[test]
fn an_input_used_twice_collects_both_gradients() {
    let case = Case { inputs: &[&[2, 3, 4]], params: &[&[5, 4], &[5, 4]], ..Default::default() };
    check(&case, |tape, x, p| {
        let a = ops::linear(tape, &x[0], &p[0], None)?;
        let b = ops::linear(tape, &x[0], &p[1], None)?;
        Ok(vec![a, b])
    });
}
