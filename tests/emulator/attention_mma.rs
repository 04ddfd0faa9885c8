//! Tensor-core attention, forward and backward, against sums in double precision. The bounds follow
//! from the rounding: weights and gradients are rounded to operands (relative error u), results to
//! their storage type, and sums of n products are in single precision (error of n + 4 units of
//! 2^-24).

use half::bf16;
use udass_raw::device::{Device, Types};
use udass_raw::ops;
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

use crate::case::numbers;
use crate::prover;

struct Sizes {
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    size: usize,
}

/// Numbers that the operand type represents exactly.
fn operands(types: Types, seed: u64, n: usize) -> Vec<f64> {
    let exact = |x: f64| match types {
        Types::Bf16 => bf16::from_f64(x).to_f64(),
        _ => f64::from(f32::from_bits((x as f32).to_bits() & 0xFFFF_E000)),
    };
    numbers(seed, n).into_iter().map(|x| exact(2.0 * x)).collect()
}

fn upload(device: &Device, shape: &[usize], values: &[f64]) -> Tensor {
    let single: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    match device.operand() {
        udass_raw::tensor::DType::Bf16 => {
            let halves: Vec<bf16> = single.iter().map(|&x| bf16::from_f32(x)).collect();
            device.upload(shape, &halves).unwrap()
        }
        _ => device.upload_real(shape, &single).unwrap(),
    }
}

fn within(name: &str, got: &[f32], expected: &[f64], bound: &[f64]) {
    for (i, ((&got, &expected), &bound)) in got.iter().zip(expected).zip(bound).enumerate() {
        let off = (f64::from(got) - expected).abs();
        assert!(
            off <= bound,
            "{name}[{i}]: {got}, expected {expected} within {bound:.1e}, off {off:.1e}"
        );
    }
}

fn check(types: Types, threads: usize, s: &Sizes) {
    let device = prover::watched(types, threads);
    let &Sizes { batch, queries, keys, heads, size } = s;
    let c = heads * size;
    let (n, m) = (batch * queries * c, batch * keys * 2 * c);
    let (qs, kvs) = (operands(types, 1, n), operands(types, 2, m));
    let dys = operands(types, 3, n);
    let tape = Tape::recording(&device);
    let q = tape.leaf(&upload(&device, &[batch, queries, c], &qs));
    let kv = tape.leaf(&upload(&device, &[batch, keys, 2 * c], &kvs));
    let y = ops::attention_mma(&tape, &q, &kv, heads).unwrap();
    let ys: Vec<f32> = device.read_f32(&y).unwrap();
    let dy = upload(&device, y.shape(), &dys);
    let mut gradients = tape.backward(vec![(&y, dy)]).unwrap();
    let dq = device.read_f32(&gradients.of(&q).unwrap()).unwrap();
    let dkv = device.read_f32(&gradients.of(&kv).unwrap()).unwrap();

    // Relative error of a rounded operand, and of a stored result.
    let u: f64 = if types == Types::Bf16 { 2f64.powi(-8) } else { 2f64.powi(-11) };
    let stored = if types == Types::Bf16 { u } else { 2f64.powi(-24) };
    let sum_of = |n: usize| (n + 4) as f64 * 2f64.powi(-24);
    let scale = 1.0 / (size as f64).sqrt();
    let (mut wanted_y, mut y_bound) = (vec![0.0; n], vec![0.0; n]);
    let (mut wanted_dq, mut dq_bound) = (vec![0.0; n], vec![0.0; n]);
    let (mut wanted_dkv, mut dkv_bound) = (vec![0.0; m], vec![0.0; m]);
    for b in 0..batch {
        for (head, row) in (0..heads).flat_map(|h| (0..queries).map(move |row| (h, row))) {
            let query = (b * queries + row) * c + head * size;
            let key = |k: usize| (b * keys + k) * 2 * c + head * size;
            let value = |k: usize| key(k) + c;
            let dot = |a: &[f64], at: usize, b: &[f64], bt: usize| -> [f64; 2] {
                let products = (0..size).map(|i| a[at + i] * b[bt + i]);
                [products.clone().sum(), products.map(f64::abs).sum()]
            };
            let scores: Vec<[f64; 2]> =
                (0..keys).map(|k| dot(&qs, query, &kvs, key(k)).map(|x| x * scale)).collect();
            let high = scores.iter().fold(f64::MIN, |high, s| high.max(s[0]));
            let total: f64 = scores.iter().map(|s| (s[0] - high).exp()).sum();
            // A weight's error comes from its score and the largest one, and from exp and its
            // argument.
            let off = scores.iter().fold(0.0, |most: f64, s| most.max(s[1]));
            let e = 2.0 * sum_of(size + keys) * (off + 1.0) + 2f64.powi(-20);
            let weight = |k: usize| (scores[k][0] - high).exp() / total;
            for i in 0..size {
                let at = query + i;
                for k in 0..keys {
                    let part = weight(k) * kvs[value(k) + i];
                    wanted_y[at] += part;
                    y_bound[at] += (u + e + sum_of(keys)) * part.abs();
                }
                y_bound[at] += stored * (wanted_y[at].abs() + y_bound[at]);
            }
            let shifts = (0..size).map(|i| f64::from(ys[query + i]) * dys[query + i]);
            let (shift, shift_size) =
                (shifts.clone().sum::<f64>(), shifts.map(f64::abs).sum::<f64>());
            for k in 0..keys {
                let [back, back_size] = dot(&dys, query, &kvs, value(k));
                let derivative = weight(k) * (back - shift);
                let slope_off = (u + e) * derivative.abs()
                    + weight(k) * sum_of(size) * (back_size + shift_size);
                let weight_off = (u + e) * weight(k);
                for i in 0..size {
                    let sums = sum_of(keys.max(queries));
                    let add =
                        |list: &mut [f64], bound: &mut [f64], at, x: f64, off: f64, by: f64| {
                            list[at] += x * by;
                            bound[at] += (off + sums * x.abs()) * by.abs();
                        };
                    let (qi, ki) = (qs[query + i] * scale, kvs[key(k) + i] * scale);
                    add(&mut wanted_dq, &mut dq_bound, query + i, derivative, slope_off, ki);
                    add(&mut wanted_dkv, &mut dkv_bound, key(k) + i, derivative, slope_off, qi);
                    let dyi = dys[query + i];
                    add(&mut wanted_dkv, &mut dkv_bound, value(k) + i, weight(k), weight_off, dyi);
                }
            }
        }
    }
    for (wanted, bound) in [(&wanted_dq, &mut dq_bound), (&wanted_dkv, &mut dkv_bound)] {
        for (x, bound) in wanted.iter().zip(bound.iter_mut()) {
            *bound += stored * (x.abs() + *bound) + f64::from(f32::MIN_POSITIVE);
        }
    }
    within("y", &ys, &wanted_y, &y_bound);
    within("dq", &dq, &wanted_dq, &dq_bound);
    within("dkv", &dkv, &wanted_dkv, &dkv_bound);
}

/// NaN must propagate, including the GPU's canonical NaN, which has all bits set.
#[test]
fn what_is_no_number_stays_none() {
    let device = prover::watched(Types::F32, 32);
    for bits in [0x7FFF_FFFF, 0xFFFF_FFFF, 0x7FC0_0000] {
        let mut numbers = vec![1.0; 32];
        numbers[5] = f32::from_bits(bits);
        let q = device.upload_real(&[1, 1, 32], &numbers).unwrap();
        let kv = device.upload_real(&[1, 2, 64], &[0.5; 128]).unwrap();
        let y = ops::attention_mma(&Tape::inference(&device), &q, &kv, 1).unwrap();
        assert!(device.read_f32(&y).unwrap().iter().all(|y| y.is_nan()), "{bits:x}");
    }
}

#[test]
fn what_is_rounded_explains_what_differs() {
    let cases = [
        Sizes { batch: 1, queries: 70, keys: 67, heads: 2, size: 32 },
        Sizes { batch: 2, queries: 37, keys: 130, heads: 1, size: 64 },
        Sizes { batch: 3, queries: 1, keys: 1, heads: 1, size: 32 },
        // Sizes that are whole tiles.
        Sizes { batch: 1, queries: 64, keys: 128, heads: 1, size: 32 },
    ];
    let single_only = prover::single_only();
    for types in [Types::F32, Types::Bf16] {
        if single_only && types == Types::Bf16 {
            continue;
        }
        for (threads, sizes) in [32, 64, 256].iter().flat_map(|t| cases.iter().map(move |s| (t, s)))
        {
            check(types, *threads, sizes);
        }
        // Keys that do not fit into shared memory at once, and are read twice for one warp's
        // queries.
        for threads in [32, 128] {
            check(types, threads, &Sizes { batch: 1, queries: 20, keys: 400, heads: 1, size: 64 });
        }
    }
}
