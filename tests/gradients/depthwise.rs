use crate::check::{Case, check, numbers};
use udass_raw::device::Device;
use udass_raw::ops;
use udass_raw::params::Param;
use udass_raw::tape::Tape;

#[test]
fn depthwise() {
    let case = Case { inputs: &[&[3, 5, 7, 3]], params: &[&[3, 3, 3], &[3]], ..Default::default() };
    check(&case, |tape, x, p| Ok(vec![ops::depthwise(tape, &x[0], &p[0], Some(&p[1]), 1)?]));
}

#[test]
fn depthwise_dilated() {
    let case = Case { inputs: &[&[1, 11, 9, 6]], params: &[&[3, 3, 6]], ..Default::default() };
    for dilation in [2, 3, 4, 12] {
        check(&case, |tape, x, p| Ok(vec![ops::depthwise(tape, &x[0], &p[0], None, dilation)?]));
    }
}

#[test]
fn depthwise_of_an_input_used_twice() {
    let params: &[&[usize]] = &[&[3, 3, 2], &[3, 3, 2]];
    let case = Case { inputs: &[&[1, 6, 13, 2]], params, ..Default::default() };
    check(&case, |tape, x, p| {
        let a = ops::depthwise(tape, &x[0], &p[0], None, 1)?;
        let b = ops::depthwise(tape, &x[0], &p[1], None, 2)?;
        Ok(vec![a, b])
    });
}

#[test]
fn depthwise_gelu() {
    let case =
        Case { inputs: &[&[3, 5, 21, 5]], params: &[&[3, 3, 5], &[5]], ..Default::default() };
    check(&case, |tape, x, p| Ok(vec![ops::depthwise_gelu(tape, &x[0], &p[0], Some(&p[1]))?]));
}

#[test]
fn depthwise_gelu_where_it_is_flat() {
    let (inputs, params): (&[&[usize]], &[&[usize]]) = (&[&[1, 3, 6, 5]], &[&[3, 3, 5], &[5]]);
    let case = Case { inputs, params, map: |x| 3.0 * x };
    check(&case, |tape, x, p| Ok(vec![ops::depthwise_gelu(tape, &x[0], &p[0], Some(&p[1]))?]));
}

#[test]
fn depthwise_gelu_without_bias_of_whole_strips() {
    let case = Case { inputs: &[&[1, 9, 18, 16]], params: &[&[3, 3, 16]], ..Default::default() };
    check(&case, |tape, x, p| Ok(vec![ops::depthwise_gelu(tape, &x[0], &p[0], None)?]));
}

/// Computes the forward pass with plain loops.
fn naive(x: &[f64], w: &[f64], b: &[f64], [n, h, width, c]: [usize; 4], d: usize) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    for (i, y) in y.iter_mut().enumerate() {
        let (ch, column, row, sample) =
            (i % c, i / c % width, i / c / width % h, i / c / width / h);
        *y = b[ch];
        for tap in 0..9 {
            let (r, s) = (row + tap / 3 * d, column + tap % 3 * d);
            if (d..h + d).contains(&r) && (d..width + d).contains(&s) {
                *y += x[((sample * h + r - d) * width + s - d) * c + ch] * w[tap * c + ch];
            }
        }
    }
    assert_eq!(y.len(), n * h * width * c);
    y
}

/// In single precision, with rows that are whole vectors and rows that are not.
#[test]
fn depthwise_is_the_sum_over_taps() {
    let device = Device::host(2).unwrap();
    for (shape, d) in [
        ([2, 9, 23, 48], 1),
        ([1, 30, 41, 272], 6),
        ([1, 5, 7, 32], 12),
        ([1, 26, 40, 16], 18),
        ([2, 7, 6, 19], 1),
        ([1, 1, 1, 16], 1),
    ] {
        let [_, _, _, c] = shape;
        let (x, w, b) = (numbers(1, shape.iter().product()), numbers(2, 9 * c), numbers(3, c));
        let up = |shape: &[usize], x: &[f64]| {
            device.upload(shape, &x.iter().map(|&x| x as f32).collect::<Vec<_>>()).unwrap()
        };
        let param = |shape: &[usize], x: &[f64]| Param::new(up(shape, x), None);
        let (wp, bp) = (param(&[3, 3, c], &w), param(&[c], &b));
        let tape = Tape::inference(&device);
        let y = ops::depthwise(&tape, &up(&shape, &x), &wp, Some(&bp), d).unwrap();
        let expected = naive(&x, &w, &b, shape, d);
        let close = |y: &[f32], expected: &[f64]| {
            for (i, (&y, e)) in y.iter().zip(expected).enumerate() {
                assert!((y as f64 - e).abs() < 2e-6, "{shape:?}, {d}: {i}: {y} instead of {e}");
            }
        };
        close(&device.read_f32(&y).unwrap(), &expected);
        if d == 1 {
            let y = ops::depthwise_gelu(&tape, &up(&shape, &x), &wp, Some(&bp)).unwrap();
            // Double precision, which the launchers' cases check against plain arithmetic.
            let double = Device::host_f64().unwrap();
            let wide = |shape: &[usize], x: &[f64]| double.upload(shape, x).unwrap();
            let wide_w = Param::new(wide(&[3, 3, c], &w), None);
            let wide_b = Param::new(wide(&[c], &b), None);
            let tape = Tape::inference(&double);
            let expected =
                ops::depthwise_gelu(&tape, &wide(&shape, &x), &wide_w, Some(&wide_b)).unwrap();
            close(&device.read_f32(&y).unwrap(), &double.read::<f64>(&expected).unwrap());
        }
    }
}

/// Compares gradients in single precision, with rows of whole vectors, with double precision, where
/// finite differences check them.
#[test]
fn precisions_agree() {
    let (shape, c) = ([2, 10, 37, 32], 32);
    let (x, w, dy) = (numbers(1, 2 * 370 * c), numbers(2, 9 * c), numbers(3, 2 * 370 * c));
    for dilation in [0, 1, 3] {
        let run = |device: &Device| -> Vec<f32> {
            let up = |shape: &[usize], x: &[f64]| {
                let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
                device.upload_real(shape, &x).unwrap()
            };
            let zeros = |shape: &[usize]| Some(device.zeros(shape, device.real()).unwrap());
            let tape = Tape::recording(device);
            let x = tape.leaf(&up(&shape, &x));
            let wp = Param::new(up(&[3, 3, c], &w), zeros(&[3, 3, c]));
            let bp = Param::new(up(&[c], &w[..c]), zeros(&[c]));
            let y = match dilation {
                0 => ops::depthwise_gelu(&tape, &x, &wp, Some(&bp)),
                d => ops::depthwise(&tape, &x, &wp, Some(&bp), d),
            }
            .unwrap();
            let mut gradients = tape.backward(vec![(&y, up(&shape, &dy))]).unwrap();
            let mut all = device.read_f32(&gradients.of(&x).unwrap()).unwrap();
            for p in [wp, bp] {
                all.extend(device.read_f32(&p.grad.unwrap()).unwrap());
            }
            all
        };
        let single = run(&Device::host(2).unwrap());
        let double = run(&Device::host_f64().unwrap());
        for (i, (s, d)) in single.iter().zip(&double).enumerate() {
            assert!((s - d).abs() <= 2e-5, "dilation {dilation}, {i}: {s} instead of {d}");
        }
    }
}

#[test]
fn a_wrong_shape_is_an_error() {
    let device = Device::host(1).unwrap();
    let x = device.empty(&[1, 4, 4, 6]).unwrap();
    let param = |shape: &[usize]| Param::new(device.empty(shape).unwrap(), None);
    let tape = Tape::inference(&device);
    assert!(ops::depthwise(&tape, &x, &param(&[3, 3, 6]), None, 1).is_ok());
    assert!(ops::depthwise(&tape, &x, &param(&[3, 3, 6]), None, 0).is_err());
    assert!(ops::depthwise(&tape, &x, &param(&[3, 3, 5]), None, 1).is_err());
    assert!(ops::depthwise_gelu(&tape, &x, &param(&[3, 3, 6]), Some(&param(&[5]))).is_err());
}
