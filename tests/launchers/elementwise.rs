//! Elementwise kernels, the optimizer, and the flag that keeps a failed step from being committed.

use udass_raw::device::{Grid, kernels};

use crate::{GRID, Host, close};

/// Sizes that leave most of the grid's blocks without work, or just the last, or none.
const SIZES: [usize; 4] = [1, 10, 11, 333];

#[test]
fn fills_and_sums() {
    let host = Host::double();
    let device = &host.device;
    for n in SIZES {
        let (x, xs) = host.reals(&[n]);
        let (y, ys) = host.reals(&[n]);
        let of = |f: &dyn Fn(usize) -> f64| (0..n).map(f).collect::<Vec<f64>>();
        let mut z = host.room(&[n]);
        kernels::Add { x: &x, y: &y, z: &mut z, relu: false, elements: n }
            .launch(device, GRID)
            .unwrap();
        close("add", &host.read(&z), &of(&|i| xs[i] + ys[i]));
        kernels::Add { x: &x, y: &y, z: &mut z, relu: true, elements: n }
            .launch(device, GRID)
            .unwrap();
        assert_eq!(host.read(&z), of(&|i| (xs[i] + ys[i]).max(0.0)));
        kernels::ReluBackward { z: &x, dz: &y, dx: &mut z, elements: n }
            .launch(device, GRID)
            .unwrap();
        assert_eq!(host.read(&z), of(&|i| if xs[i] > 0.0 { ys[i] } else { 0.0 }));
        kernels::Downcast { x: &x, y: &mut z, elements: n }.launch(device, GRID).unwrap();
        assert_eq!(host.read(&z), xs);
        kernels::Upcast { x: &y, y: &mut z, accumulate: true, elements: n }
            .launch(device, GRID)
            .unwrap();
        assert_eq!(host.read(&z), of(&|i| xs[i] + ys[i]));
        kernels::Upcast { x: &y, y: &mut z, accumulate: false, elements: n }
            .launch(device, GRID)
            .unwrap();
        assert_eq!(host.read(&z), ys);
        kernels::Fill { y: &mut z, value: 0.7, elements: n }.launch(device, GRID).unwrap();
        assert_eq!(host.read(&z), vec![0.7; n]);
    }
    let (bias, bs) = host.reals(&[7]);
    let mut rows = host.room(&[11, 7]);
    let mut wide = host.room(&[11, 7]);
    for (y, wide) in [(Some(&mut rows), None), (None, Some(&mut wide))] {
        kernels::FillRows { bias: &bias, y, wide, rows: 11, channels: 7 }
            .launch(device, GRID)
            .unwrap();
    }
    assert_eq!(host.read(&rows), bs.repeat(11));
    assert_eq!(host.read(&wide), bs.repeat(11));
}

#[test]
fn numbers_that_are_not_finite_raise_the_flag() {
    let host = Host::double();
    let device = &host.device;
    for n in SIZES {
        let (_, finite) = host.reals(&[n]);
        let broken = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX];
        for (value, place) in broken.into_iter().flat_map(|value| [(value, 0), (value, n - 1)]) {
            let mut data = finite.clone();
            data[place] = value;
            let x = host.upload(&[n], &data);
            let mut bad = host.ints(&[9; 5]);
            kernels::NotFinitePartial { x: &x, bad: &mut bad, elements: n }
                .launch(device, GRID)
                .unwrap();
            let mut expected = vec![0; 5];
            expected[place / n.div_ceil(5)] = !value.is_finite() as i32;
            assert_eq!(device.read::<i32>(&bad).unwrap(), expected, "{value} at {place} of {n}");
        }
    }
    let one = Grid::blocks(1);
    for parts in [1, 5, 300] {
        for (raised, place) in [(0, None), (1, None), (0, Some(0)), (0, Some(parts - 1))] {
            let mut bad = vec![0; parts];
            place.into_iter().for_each(|place| bad[place] = 1);
            let bad = host.ints(&bad);
            let mut flag = host.ints(&[raised]);
            kernels::NotFiniteFinal { bad: &bad, flag: &mut flag, parts }
                .launch(device, one)
                .unwrap();
            let expected = (raised == 1 || place.is_some()) as i32;
            assert_eq!(device.read::<i32>(&flag).unwrap(), [expected], "{raised} {place:?}");
        }
    }
}

#[test]
fn commits() {
    let host = Host::double();
    let device = &host.device;
    for n in SIZES {
        let (from, new) = host.reals(&[n]);
        let (bytes, new_bytes) = host.bytes(&[n], 256);
        let new_counts: Vec<i64> = (0..n as i64).map(|i| (i + 1) << 33).collect();
        let counts = device.upload(&[n], &new_counts).unwrap();
        for failed in [0, 1] {
            let flag = host.ints(&[failed]);
            let old = vec![-7i64; n];
            let mut to = device.upload(&[n], &old).unwrap();
            kernels::CommitCounts { from: &counts, to: &mut to, failed: &flag, elements: n }
                .launch(device, GRID)
                .unwrap();
            let kept = if failed == 1 { &old } else { &new_counts };
            assert_eq!(&device.read::<i64>(&to).unwrap(), kept);
            let (mut to, old) = host.reals(&[n]);
            kernels::CommitReal { from: &from, to: &mut to, failed: &flag, elements: n }
                .launch(device, GRID)
                .unwrap();
            assert_eq!(host.read(&to), if failed == 1 { &old[..] } else { &new[..] });
            let (mut to, old) = host.bytes(&[n], 256);
            kernels::CommitBytes { from: &bytes, to: &mut to, failed: &flag, elements: n }
                .launch(device, GRID)
                .unwrap();
            assert_eq!(host.read_bytes(&to), if failed == 1 { &old[..] } else { &new_bytes[..] });
        }
    }
}

#[test]
fn adamw() {
    let host = Host::double();
    let [chunks, n] = [5, 11];
    let shape = [chunks, n];
    let (beta1, beta2, eps) = (0.7, 0.9, 0.05);
    let (mut p, p0) = host.reals(&shape);
    let (g, gs) = host.reals(&shape);
    let (mut m, m0) = host.reals(&shape);
    let (mut v, v0) = host.positive(&shape);
    let (mut teacher, t0) = host.reals(&shape);
    let (multipliers, rs) = host.positive(&[chunks, 2]);
    let [lr, decay, bias_correction1, bias_correction2, alpha] = [0.1, 0.3, 0.6, 0.4, 0.8];
    let schedule = host.upload(&[5], &[lr, decay, bias_correction1, bias_correction2, alpha]);
    let [mut p2, mut m2, mut v2] = [&p0, &m0, &v0].map(|x| host.upload(&shape, x));
    let [mut low_precision, mut teacher_low_precision] = [host.room(&shape), host.room(&shape)];
    for failed in [1, 0] {
        let flag = host.ints(&[failed]);
        kernels::Adamw {
            values: &mut p,
            grads: &g,
            exp_avg: &mut m,
            exp_avg_sq: &mut v,
            teacher: Some(&mut teacher),
            low_precision: Some(&mut low_precision),
            teacher_low_precision: Some(&mut teacher_low_precision),
            multipliers: &multipliers,
            schedule: &schedule,
            failed: &flag,
            beta1,
            rest1: 1.0 - beta1,
            beta2,
            rest2: 1.0 - beta2,
            eps,
            chunks: 5,
            chunk_size: 11,
        }
        .launch(&host.device, GRID)
        .unwrap();
        if failed == 1 {
            assert_eq!(host.read(&p), p0, "a failed step changes nothing");
            assert_eq!((host.read(&m), host.read(&v)), (m0.clone(), v0.clone()));
            assert_eq!(host.read(&teacher), t0);
            assert!(
                host.read(&low_precision)
                    .iter()
                    .chain(&host.read(&teacher_low_precision))
                    .all(|&x| x == 1e30)
            );
        }
    }
    kernels::Adamw {
        values: &mut p2,
        grads: &g,
        exp_avg: &mut m2,
        exp_avg_sq: &mut v2,
        teacher: None,
        low_precision: None,
        teacher_low_precision: None,
        multipliers: &multipliers,
        schedule: &schedule,
        failed: &host.ints(&[0]),
        beta1,
        rest1: 1.0 - beta1,
        beta2,
        rest2: 1.0 - beta2,
        eps,
        chunks: 5,
        chunk_size: 11,
    }
    .launch(&host.device, GRID)
    .unwrap();
    let of = |f: &dyn Fn(usize) -> f64| (0..chunks * n).map(f).collect::<Vec<f64>>();
    let m1 = of(&|i| beta1 * m0[i] + (1.0 - beta1) * gs[i]);
    let v1 = of(&|i| beta2 * v0[i] + (1.0 - beta2) * gs[i] * gs[i]);
    let p1 = of(&|i| {
        let rate = lr * rs[i / n * 2];
        let kept = p0[i] * (1.0 - rate * decay * rs[i / n * 2 + 1]);
        kept - rate / bias_correction1 * m1[i] / (v1[i].sqrt() / bias_correction2 + eps)
    });
    close("m", &host.read(&m), &m1);
    close("v", &host.read(&v), &v1);
    close("p", &host.read(&p), &p1);
    close("teacher", &host.read(&teacher), &of(&|i| alpha * t0[i] + (1.0 - alpha) * p1[i]));
    assert_eq!(host.read(&low_precision), host.read(&p));
    assert_eq!(host.read(&teacher_low_precision), host.read(&teacher));
    for (with, without) in [(&p, &p2), (&m, &m2), (&v, &v2)] {
        assert_eq!(host.read(with), host.read(without));
    }
}
