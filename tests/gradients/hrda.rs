use crate::check::{Case, check};
use udass_raw::ops::{self, DetailBox};

/// Checks the gradient of the fused logits with respect to context, detail and attention.
fn fuse(context: &[usize], detail: &[usize], place: Option<([i32; 4], usize)>) {
    fuse_by(2, context, detail, place);
}

fn fuse_by(factor: usize, context: &[usize], detail: &[usize], place: Option<([i32; 4], usize)>) {
    let case = Case { inputs: &[context, detail, context], ..Default::default() };
    check(&case, |tape, x, _| {
        let place = place.map(|(pixels, stride)| DetailBox {
            pixels: tape.device().upload(&[4], &pixels).unwrap(),
            stride,
        });
        Ok(vec![ops::hrda_fuse(tape, &x[0], &x[1], &x[2], factor, place.as_ref())?.logits])
    });
}

#[test]
fn without_a_box() {
    fuse(&[1, 3, 5, 3], &[1, 6, 10, 3], None);
}

/// Inputs so large that some attention rounds to 0 or 1 in single precision.
#[test]
fn with_attention_that_is_sure() {
    let (low, high): (&[usize], &[usize]) = (&[1, 3, 5, 3], &[1, 6, 10, 3]);
    let case = Case { inputs: &[low, high, low], map: |x| 300.0 * x, ..Default::default() };
    check(&case, |tape, x, _| Ok(vec![ops::hrda_fuse(tape, &x[0], &x[1], &x[2], 2, None)?.logits]));
}

#[test]
fn with_contexts_of_other_scales() {
    fuse_by(1, &[1, 4, 5, 3], &[1, 4, 5, 3], None);
    fuse_by(1, &[2, 4, 5, 3], &[2, 2, 3, 3], Some(([8, 16, 4, 16], 4)));
    fuse_by(4, &[1, 2, 3, 3], &[1, 8, 12, 3], None);
    fuse_by(4, &[3, 2, 3, 2], &[3, 4, 5, 2], Some(([0, 16, 16, 36], 4)));
}

#[test]
fn with_a_box_on_whole_cells() {
    fuse(&[3, 5, 7, 5], &[3, 6, 4, 5], Some(([8, 32, 16, 32], 4)));
}

/// At stride 8, the box is aligned to the fused grid's cells but not to the context's.
#[test]
fn with_a_box_that_cuts_the_contexts_cells() {
    fuse(&[3, 5, 7, 3], &[3, 5, 6, 3], Some(([8, 48, 24, 72], 8)));
}

#[test]
fn with_a_box_in_the_last_corner() {
    fuse(&[1, 4, 4, 2], &[1, 4, 4, 2], Some(([16, 32, 16, 32], 4)));
}
