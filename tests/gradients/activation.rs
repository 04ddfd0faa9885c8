use crate::check::{Case, check};
use udass_raw::ops;

#[test]
fn gelu() {
    let case = Case { inputs: &[&[3, 5, 7]], map: |x| 4.0 * x, ..Default::default() };
    check(&case, |tape, x, _| Ok(vec![ops::gelu(tape, &x[0])?]));
}

#[test]
fn gelu_where_it_is_flat() {
    let case = Case { inputs: &[&[11, 13]], map: |x| 16.0 * x, ..Default::default() };
    check(&case, |tape, x, _| Ok(vec![ops::gelu(tape, &x[0])?]));
}
