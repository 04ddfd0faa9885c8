use crate::check::{Case, check};
use udass_raw::device::group::Slots;
use udass_raw::ops::{self, DropPath, Norm};
use udass_raw::params::Param;

fn norm(p: &[Param]) -> Norm {
    Norm { weight: p[0].clone(), bias: p[1].clone(), eps: 1e-6 }
}

#[test]
fn layernorm() {
    let case = Case { inputs: &[&[3, 5, 7]], params: &[&[7], &[7]], ..Default::default() };
    check(&case, |tape, x, p| Ok(vec![ops::layernorm(tape, &x[0], &norm(p))?]));
}

#[test]
fn layernorm_of_more_rows_than_a_part() {
    let case = Case { inputs: &[&[1, 131, 3]], params: &[&[3], &[3]], ..Default::default() };
    check(&case, |tape, x, p| Ok(vec![ops::layernorm_stream(tape, &x[0], &norm(p))?]));
}

#[test]
fn residual_both_outputs_used() {
    let case =
        Case { inputs: &[&[3, 5, 7], &[3, 5, 7]], params: &[&[7], &[7]], ..Default::default() };
    check(&case, |tape, x, p| {
        let (s, y) = ops::add_layernorm(tape, &x[0], &x[1], None, &norm(p))?;
        Ok(vec![s, y])
    });
}

#[test]
fn residual_with_drop_path() {
    let case =
        Case { inputs: &[&[9, 5, 3], &[9, 5, 3]], params: &[&[3], &[3]], ..Default::default() };
    check(&case, |tape, x, p| {
        let key = tape.device().upload(&[1], &[77u64])?;
        let drop = DropPath { rate: 0.4, key, stream: 5, slots: Slots::whole(1) };
        let (s, y) = ops::add_layernorm(tape, &x[0], &x[1], Some(drop), &norm(p))?;
        Ok(vec![s, y])
    });
}

#[test]
fn residual_only_the_norm_used() {
    let case =
        Case { inputs: &[&[1, 5, 7], &[1, 5, 7]], params: &[&[7], &[7]], ..Default::default() };
    check(&case, |tape, x, p| Ok(vec![ops::add_layernorm(tape, &x[0], &x[1], None, &norm(p))?.1]));
}

#[test]
fn residual_only_the_stream_used() {
    let case =
        Case { inputs: &[&[3, 2, 7], &[3, 2, 7]], params: &[&[7], &[7]], ..Default::default() };
    check(&case, |tape, x, p| {
        let key = tape.device().upload(&[1], &[77u64])?;
        let drop = DropPath { rate: 0.4, key, stream: 5, slots: Slots::whole(1) };
        Ok(vec![ops::add_layernorm(tape, &x[0], &x[1], Some(drop), &norm(p))?.0])
    });
}

/// One channel, as many as lanes, one more, and more than the lanes hold in registers.
#[test]
fn residuals_of_widths() {
    for c in [1, 32, 33, 160] {
        let (shape, params): ([usize; 3], _) = ([3, 1, c], [[c]; 2]);
        let case = Case {
            inputs: &[&shape, &shape],
            params: &[&params[0], &params[1]],
            ..Default::default()
        };
        check(&case, |tape, x, p| {
            let key = tape.device().upload(&[1], &[77u64])?;
            let drop = DropPath { rate: 0.4, key, stream: 5, slots: Slots::whole(1) };
            let (s, y) = ops::add_layernorm(tape, &x[0], &x[1], Some(drop), &norm(p))?;
            Ok(vec![s, y])
        });
    }
}

#[test]
fn layernorm_in_registers_of_more_rows_than_teams() {
    let case = Case { inputs: &[&[1, 83, 32]], params: &[&[32], &[32]], ..Default::default() };
    check(&case, |tape, x, p| {
        let y = ops::layernorm(tape, &x[0], &norm(p))?;
        Ok(vec![y, ops::layernorm_stream(tape, &x[0], &norm(p))?])
    });
}
