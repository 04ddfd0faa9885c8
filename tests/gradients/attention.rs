use crate::check::{Case, check, numbers};
use udass_raw::device::Device;
use udass_raw::ops;
use udass_raw::tape::Tape;
use udass_raw::tensor::DType;

fn gradients(batch: usize, queries: usize, keys: usize, heads: usize, size: usize) {
    let channels = heads * size;
    let (q, kv) = ([batch, queries, channels], [batch, keys, 2 * channels]);
    let case = Case { inputs: &[&q, &kv], map: |x| 2.0 * x, ..Default::default() };
    check(&case, |tape, x, _| Ok(vec![ops::attention(tape, &x[0], &x[1], heads)?]));
}

/// Covers the kernels of devices with low-precision operands, which double precision does not use.
#[test]
fn attention_of_the_tensor_cores() {
    for [batch, queries, keys, heads, size] in [[3, 5, 7, 2, 32], [1, 131, 66, 1, 64]] {
        let channels = heads * size;
        let (q, kv) = ([batch, queries, channels], [batch, keys, 2 * channels]);
        let case = Case { inputs: &[&q, &kv], map: |x| 2.0 * x, ..Default::default() };
        check(&case, |tape, x, _| {
            let exact = tape.device().real() == DType::F64;
            let attention = if exact { ops::attention_mma } else { ops::attention };
            Ok(vec![attention(tape, &x[0], &x[1], heads)?])
        });
    }
}

#[test]
fn attention_of_odd_sizes() {
    gradients(3, 5, 7, 2, 3);
}

#[test]
fn attention_over_several_tiles() {
    gradients(1, 67, 131, 1, 33);
}

#[test]
fn attention_over_several_chunks() {
    gradients(1, 161, 64, 2, 8);
}

/// Computes attention with a plain softmax over each row.
fn naive(q: &[f64], kv: &[f64], [b, n, m, heads, d]: [usize; 5]) -> Vec<f64> {
    let c = heads * d;
    let mut y = vec![0.0; b * n * c];
    for (i, row) in y.chunks_mut(d).enumerate() {
        let (head, query, sample) = (i % heads, i / heads, i / heads / n);
        let q = &q[query * c + head * d..][..d];
        let of =
            |key: usize, part: usize| &kv[((sample * m + key) * 2 + part) * c + head * d..][..d];
        let score = |key: usize| -> f64 {
            let products = q.iter().zip(of(key, 0)).map(|(a, b)| a * b);
            products.sum::<f64>() / (d as f64).sqrt()
        };
        let scores: Vec<f64> = (0..m).map(score).collect();
        let highest = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - highest).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (key, weight) in weights.iter().enumerate() {
            row.iter_mut().zip(of(key, 1)).for_each(|(y, v)| *y += weight / total * v);
        }
    }
    y
}

#[test]
fn attention_is_softmax_times_values() {
    let wide = Device::host_f64().unwrap();
    let single = Device::host(2).unwrap();
    for sizes in [[2, 70, 256, 2, 64], [1, 33, 65, 5, 32], [3, 1, 1, 1, 1], [1, 40, 100, 3, 7]] {
        let [b, n, m, heads, d] = sizes;
        let c = heads * d;
        // Scores reach about ±15, so that the running maximum changes.
        let q: Vec<f64> = numbers(1, b * n * c).iter().map(|x| 3.0 * x).collect();
        let kv: Vec<f64> = numbers(2, b * m * 2 * c).iter().map(|x| 3.0 * x).collect();
        let expected = naive(&q, &kv, sizes);
        let run = |device: &Device, q: &[f64], kv: &[f64]| -> Vec<f64> {
            let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
            let up = |shape: [usize; 3], x: &[f64]| match device.real() {
                DType::F64 => device.upload(&shape, x).unwrap(),
                _ => device.upload(&shape, &narrow(x)).unwrap(),
            };
            let (q, kv) = (up([b, n, c], q), up([b, m, 2 * c], kv));
            let y = ops::attention(&Tape::inference(device), &q, &kv, heads).unwrap();
            match device.real() {
                DType::F64 => device.read::<f64>(&y).unwrap(),
                _ => device.read_f32(&y).unwrap().iter().map(|&x| x as f64).collect(),
            }
        };
        for (device, tolerance) in [(&wide, 1e-12), (&single, 2e-5)] {
            let y = run(device, &q, &kv);
            for (i, (y, e)) in y.iter().zip(&expected).enumerate() {
                assert!((y - e).abs() <= tolerance, "{sizes:?}, element {i}: {y} instead of {e}");
            }
        }
    }
}

#[test]
fn a_wrong_shape_is_an_error() {
    let device = Device::host(1).unwrap();
    let q = device.empty(&[1, 4, 6]).unwrap();
    let kv = |shape: &[usize]| device.empty(shape).unwrap();
    let tape = Tape::inference(&device);
    assert!(ops::attention(&tape, &q, &kv(&[1, 4, 12]), 3).is_ok());
    assert!(ops::attention(&tape, &q, &kv(&[1, 4, 12]), 4).is_err());
    assert!(ops::attention(&tape, &q, &kv(&[1, 4, 6]), 3).is_err());
    assert!(ops::attention(&tape, &q, &kv(&[2, 4, 12]), 3).is_err());
}
