//! Norms, drop-path, sums, the feature distance and the optimiser.

use udass_raw::device::{Grid, kernels};

use crate::{GRID, Host, close, each, uniform_of};

/// Means over a row, and 1/√(variance + eps).
fn statistics(values: impl Iterator<Item = f64> + Clone, eps: f64) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

const ROWS: usize = 23;
const C: usize = 37;

#[test]
fn layernorm_with_drop_path() {
    let host = Host::double();
    let device = &host.device;
    let (stream, rate, eps, sample_rows) = (11, 0.3, 0.125, 5);
    let shape = [ROWS, C];
    let (x, xs) = host.reals(&shape);
    let (branch, bs) = host.reals(&shape);
    let (gamma, gs) = host.reals(&[C]);
    let (beta, betas) = host.reals(&[C]);
    let key = device.upload(&[1], &[7u64]).unwrap();
    let (mut sum, mut y, mut stats) = (host.room(&shape), host.room(&shape), host.room(&[ROWS, 2]));
    kernels::layernorm_forward(
        device,
        GRID,
        &x,
        Some(&branch),
        Some(&key),
        &gamma,
        &beta,
        Some(&mut sum),
        Some(&mut y),
        None,
        Some(&mut stats),
        stream,
        rate,
        eps,
        5,
        23,
        37,
    )
    .unwrap();
    let factor = |r: usize| {
        if uniform_of(7, 11, (r / sample_rows) as u64) < rate { 0.0 } else { 1.0 / (1.0 - rate) }
    };
    assert!((0..ROWS).any(|r| factor(r) == 0.0) && (0..ROWS).any(|r| factor(r) > 0.0));
    let s: Vec<f64> = (0..ROWS * C).map(|i| xs[i] + factor(i / C) * bs[i]).collect();
    close("sum", &host.read(&sum), &s);
    let per_row: Vec<(f64, f64)> =
        (0..ROWS).map(|r| statistics(s[r * C..(r + 1) * C].iter().copied(), eps)).collect();
    let flat: Vec<f64> = per_row.iter().flat_map(|&(mean, inverse)| [mean, inverse]).collect();
    close("stats", &host.read(&stats), &flat);
    let normal = |i: usize| (s[i] - per_row[i / C].0) * per_row[i / C].1;
    let expected: Vec<f64> = (0..ROWS * C).map(|i| normal(i) * gs[i % C] + betas[i % C]).collect();
    close("y", &host.read(&y), &expected);

    let (dy, dys) = host.reals(&shape);
    let (ds, dss) = host.reals(&shape);
    let (mut dx, mut partial) = (host.room(&shape), host.room(&[3, 2, C]));
    kernels::layernorm_backward(
        device,
        Grid::blocks(3),
        &sum,
        Some(&dy),
        None,
        Some(&ds),
        &gamma,
        &stats,
        &mut dx,
        &mut partial,
        23,
        37,
    )
    .unwrap();
    let g = |i: usize| dys[i] * gs[i % C];
    let expected: Vec<f64> = (0..ROWS * C)
        .map(|i| {
            let row = i / C * C..(i / C + 1) * C;
            let plain = row.clone().map(g).sum::<f64>() / C as f64;
            let along = row.map(|j| g(j) * normal(j)).sum::<f64>() / C as f64;
            dss[i] + (g(i) - plain - normal(i) * along) * per_row[i / C].1
        })
        .collect();
    close("dx", &host.read(&dx), &expected);
    let (mut dgamma, before_g) = host.reals(&[C]);
    let (mut dbeta, before_b) = host.reals(&[C]);
    kernels::layernorm_weights(device, GRID, &partial, &mut dgamma, &mut dbeta, 3, 37).unwrap();
    let summed = |c: usize, f: &dyn Fn(usize) -> f64| (0..ROWS).map(|r| f(r * C + c)).sum::<f64>();
    let expected: Vec<f64> =
        (0..C).map(|c| before_g[c] + summed(c, &|i| dys[i] * normal(i))).collect();
    close("dgamma", &host.read(&dgamma), &expected);
    let expected: Vec<f64> = (0..C).map(|c| before_b[c] + summed(c, &|i| dys[i])).collect();
    close("dbeta", &host.read(&dbeta), &expected);

    let mut dbranch = host.room(&shape);
    kernels::drop_path_backward(
        device,
        GRID,
        &ds,
        Some(&key),
        &mut dbranch,
        stream,
        rate,
        5,
        23,
        37,
    )
    .unwrap();
    let expected: Vec<f64> = (0..ROWS * C).map(|i| factor(i / C) * dss[i]).collect();
    close("drop_path_backward", &host.read(&dbranch), &expected);
}

#[test]
fn batchnorm() {
    let host = Host::double();
    let device = &host.device;
    let (parts, momentum, eps) = (3, 0.3, 0.125);
    let (x, xs) = host.reals(&[ROWS, C]);
    let column = |c: usize| xs.iter().skip(c).step_by(C).copied();
    let stats: Vec<(f64, f64)> = (0..C).map(|c| statistics(column(c), eps)).collect();
    let blocks = Grid::blocks(parts);
    let (mut means, mut deviations) = (host.room(&[parts, C]), host.room(&[parts, C]));
    kernels::batchnorm_partial(device, blocks, &x, &mut means, &mut deviations, 23, 37).unwrap();
    let (mut mean, mut inverse) = (host.room(&[C]), host.room(&[C]));
    let (mut running_mean, old_mean) = host.reals(&[C]);
    let (mut running_var, old_var) = host.positive(&[C]);
    let mut tracked = host.upload(&[1], &[41.0]);
    kernels::batchnorm_statistics(
        device,
        GRID,
        &means,
        &deviations,
        &mut mean,
        &mut inverse,
        &mut running_mean,
        &mut running_var,
        Some(&mut tracked),
        3,
        23,
        37,
        momentum,
        eps,
    )
    .unwrap();
    let of = |f: &dyn Fn(usize) -> f64| (0..C).map(f).collect::<Vec<f64>>();
    close("mean", &host.read(&mean), &of(&|c| stats[c].0));
    close("inv_std", &host.read(&inverse), &of(&|c| stats[c].1));
    let moved = |c: usize| old_mean[c] + momentum * (stats[c].0 - old_mean[c]);
    close("running_mean", &host.read(&running_mean), &of(&moved));
    let variance = |c: usize| (1.0 / stats[c].1.powi(2) - eps) * ROWS as f64 / (ROWS - 1) as f64;
    let moved = |c: usize| old_var[c] + momentum * (variance(c) - old_var[c]);
    close("running_var", &host.read(&running_var), &of(&moved));
    assert_eq!(host.read(&tracked), [42.0]);

    let (weight, ws) = host.reals(&[C]);
    let (bias, bs) = host.reals(&[C]);
    let (dy, dys) = host.reals(&[ROWS, C]);
    let normal = |i: usize| (xs[i] - stats[i % C].0) * stats[i % C].1;
    for relu in [0, 1] {
        let value = |i: usize| normal(i) * ws[i % C] + bs[i % C];
        let mut y = host.room(&[ROWS, C]);
        kernels::batchnorm_forward(
            device, GRID, &x, &mean, &inverse, &weight, &bias, &mut y, 23, 37, relu,
        )
        .unwrap();
        let rectified = |i: usize| if relu == 1 { value(i).max(0.0) } else { value(i) };
        close("y", &host.read(&y), &(0..ROWS * C).map(rectified).collect::<Vec<_>>());

        let (mut sums, mut products) = (host.room(&[parts, C]), host.room(&[parts, C]));
        kernels::batchnorm_gradient_partial(
            device,
            blocks,
            &x,
            &dy,
            &mean,
            &inverse,
            &weight,
            &bias,
            &mut sums,
            &mut products,
            23,
            37,
            relu,
        )
        .unwrap();
        let (mut sum, mut product) = (host.room(&[C]), host.room(&[C]));
        let (mut dweight, before_w) = host.reals(&[C]);
        let (mut dbias, before_b) = host.reals(&[C]);
        kernels::batchnorm_gradient_final(
            device,
            GRID,
            &sums,
            &products,
            &mut sum,
            &mut product,
            Some(&mut dweight),
            Some(&mut dbias),
            3,
            37,
        )
        .unwrap();
        let g = |i: usize| if relu == 1 && value(i) <= 0.0 { 0.0 } else { dys[i] };
        let total = |c: usize| (0..ROWS).map(|r| g(r * C + c)).sum::<f64>();
        let along = |c: usize| (0..ROWS).map(|r| g(r * C + c) * normal(r * C + c)).sum::<f64>();
        close("dbias", &host.read(&dbias), &of(&|c| before_b[c] + total(c)));
        close("dweight", &host.read(&dweight), &of(&|c| before_w[c] + along(c)));
        for train in [0, 1] {
            let mut dx = host.room(&[ROWS, C]);
            kernels::batchnorm_backward(
                device, GRID, &x, &dy, &mean, &inverse, &weight, &bias, &sum, &product, &mut dx,
                23, 37, train, relu,
            )
            .unwrap();
            let share = train as f64 / ROWS as f64;
            let slope = |i: usize| {
                let c = i % C;
                ws[c] * stats[c].1 * (g(i) - share * (total(c) + normal(i) * along(c)))
            };
            close("dx", &host.read(&dx), &(0..ROWS * C).map(slope).collect::<Vec<_>>());
        }
    }
}

#[test]
fn column_sums() {
    let host = Host::double();
    let (x, xs) = host.reals(&[ROWS, C]);
    let mut partial = host.room(&[3, C]);
    kernels::column_sums_partial(&host.device, Grid::blocks(3), &x, &mut partial, 23, 37).unwrap();
    let (mut sums, mut expected) = host.reals(&[C]);
    kernels::column_sums_final(&host.device, GRID, &partial, &mut sums, 3, 37).unwrap();
    each([ROWS, C]).for_each(|[r, c]| expected[c] += xs[r * C + c]);
    close("column sums", &host.read(&sums), &expected);
}

#[test]
fn feature_distance_backward() {
    let host = Host::double();
    let (f1, a) = host.reals(&[ROWS, C]);
    let (f2, b) = host.reals(&[ROWS, C]);
    let distances: Vec<f64> = (0..ROWS).map(|r| if r % 3 == 0 { -1.0 } else { r as f64 }).collect();
    let distance = host.upload(&[ROWS], &distances);
    let (count, upstream) = (host.upload(&[1], &[15.0]), host.upload(&[1], &[0.7]));
    for accumulate in [0, 1] {
        let (mut df, before) = host.reals(&[ROWS, C]);
        kernels::feature_distance_backward(
            &host.device,
            GRID,
            &f1,
            &f2,
            &distance,
            &count,
            &upstream,
            &mut df,
            accumulate,
            23,
            37,
        )
        .unwrap();
        let expected: Vec<f64> = (0..ROWS * C)
            .map(|i| {
                let norm = distances[i / C];
                let slope = if norm <= 0.0 { 0.0 } else { 0.7 / (15.0 * norm) * (a[i] - b[i]) };
                accumulate as f64 * before[i] + slope
            })
            .collect();
        close("feature_distance_backward", &host.read(&df), &expected);
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
    let (rules, rs) = host.positive(&[chunks, 2]);
    let [lr, decay, correction1, correction2, alpha] = [0.1, 0.3, 0.6, 0.4, 0.8];
    let schedule = host.upload(&[5], &[lr, decay, correction1, correction2, alpha]);
    for failed in [1, 0] {
        let flag = host.ints(&[failed]);
        kernels::adamw(
            &host.device,
            GRID,
            &mut p,
            &g,
            &mut m,
            &mut v,
            Some(&mut teacher),
            &rules,
            &schedule,
            &flag,
            beta1,
            beta2,
            eps,
            5,
            11,
        )
        .unwrap();
        if failed == 1 {
            assert_eq!(host.read(&p), p0, "a failed step changes nothing");
            assert_eq!((host.read(&m), host.read(&v)), (m0.clone(), v0.clone()));
            assert_eq!(host.read(&teacher), t0);
        }
    }
    let of = |f: &dyn Fn(usize) -> f64| (0..chunks * n).map(f).collect::<Vec<f64>>();
    let m1 = of(&|i| beta1 * m0[i] + (1.0 - beta1) * gs[i]);
    let v1 = of(&|i| beta2 * v0[i] + (1.0 - beta2) * gs[i] * gs[i]);
    let p1 = of(&|i| {
        let rate = lr * rs[i / n * 2];
        let kept = p0[i] * (1.0 - rate * decay * rs[i / n * 2 + 1]);
        kept - rate / correction1 * m1[i] / (v1[i].sqrt() / correction2 + eps)
    });
    close("m", &host.read(&m), &m1);
    close("v", &host.read(&v), &v1);
    close("p", &host.read(&p), &p1);
    close("teacher", &host.read(&teacher), &of(&|i| alpha * t0[i] + (1.0 - alpha) * p1[i]));
}
