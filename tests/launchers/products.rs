//! Matmuls against a plain loop: few and many rows, each operand as stored and transposed.

use udass_raw::device::MatrixView;
use udass_raw::ops;
use udass_raw::params::Param;

use crate::{Host, close};

#[test]
fn products_of_every_layout() {
    let host = Host::double();
    for (rows, inner, cols) in [(1, 1, 1), (1, 40, 7), (3, 17, 50), (32, 9, 33), (33, 20, 5)] {
        let (a, left) = host.reals(&[rows, inner]);
        let (a_turned, left_turned) = host.reals(&[inner, rows]);
        let (b, right) = host.reals(&[inner, cols]);
        let (b_turned, right_turned) = host.reals(&[cols, inner]);
        for case in 0..8 {
            let [of_a, of_b, accumulate] = [case & 1, case & 2, case & 4].map(|bit| bit != 0);
            let (mut out, before) = host.reals(&[rows, cols]);
            let expected: Vec<f64> = (0..rows * cols)
                .map(|at| {
                    let (i, j) = (at / cols, at % cols);
                    let x = |k| if of_a { left_turned[k * rows + i] } else { left[i * inner + k] };
                    let y =
                        |k| if of_b { right_turned[j * inner + k] } else { right[k * cols + j] };
                    let sum: f64 = (0..inner).map(|k| x(k) * y(k)).sum();
                    if accumulate { before[at] + sum } else { sum }
                })
                .collect();
            let left = if of_a { MatrixView::of(&a_turned).t() } else { MatrixView::of(&a) };
            let right = if of_b { MatrixView::of(&b_turned).t() } else { MatrixView::of(&b) };
            ops::matmul(&host.device, &mut out, left, right, accumulate).unwrap();
            let what = format!("{rows}x{inner}x{cols}, case {case}");
            close(&what, &host.device.read::<f64>(&out).unwrap(), &expected);
        }
    }
}

#[test]
fn products_with_bias() {
    let host = Host::double();
    for (rows, inner, cols) in [(1, 3, 4), (5, 2, 1), (200, 7, 9)] {
        let ((a, left), (b, right)) = (host.reals(&[rows, inner]), host.reals(&[inner, cols]));
        let (bias, biases) = host.reals(&[cols]);
        let bias = Param::new(bias, None);
        let mut out = host.room(&[rows, cols]);
        let (a, b) = (MatrixView::of(&a), MatrixView::of(&b));
        ops::matmul_with_bias(&host.device, &mut out, a, b, Some(&bias)).unwrap();
        let expected: Vec<f64> = (0..rows * cols)
            .map(|at| {
                let (i, j) = (at / cols, at % cols);
                (0..inner).map(|k| left[i * inner + k] * right[k * cols + j]).sum::<f64>()
                    + biases[j]
            })
            .collect();
        close(&format!("{rows}x{inner}x{cols}"), &host.read(&out), &expected);
    }
}
