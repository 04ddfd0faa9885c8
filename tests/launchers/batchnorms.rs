//! Batch norm's kernels against plain loops.

use udass_raw::device::{Grid, kernels};

use crate::norms::{C, ROWS, statistics};
use crate::{GRID, Host, close};

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
    kernels::BatchnormPartial {
        x: &x,
        means: &mut means,
        deviations: &mut deviations,
        rows: ROWS,
        channels: C,
    }
    .launch(device, blocks)
    .unwrap();
    let (mut mean, mut inverse) = (host.room(&[C]), host.room(&[C]));
    let (mut running_mean, old_mean) = host.reals(&[C]);
    let (mut running_var, old_var) = host.positive(&[C]);
    let mut tracked = host.upload(&[1], &[41.0]);
    kernels::BatchnormStatistics {
        means: &means,
        deviations: &deviations,
        mean: &mut mean,
        inv_std: &mut inverse,
        running_mean: &mut running_mean,
        running_var: &mut running_var,
        tracked: Some(&mut tracked),
        parts: 3,
        rows: ROWS,
        channels: C,
        momentum,
        eps,
    }
    .launch(device, GRID)
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

    // One channel is zero throughout: its ReLU passes no gradient.
    let [(_, mut ws), (_, mut bs)] = [(); 2].map(|()| host.reals(&[C]));
    (ws[5], bs[5]) = (0.0, 0.0);
    let (weight, bias) = (host.upload(&[C], &ws), host.upload(&[C], &bs));
    let (dy, dys) = host.reals(&[ROWS, C]);
    let normal = |i: usize| (xs[i] - stats[i % C].0) * stats[i % C].1;
    for relu in [false, true] {
        let value = |i: usize| normal(i) * ws[i % C] + bs[i % C];
        let mut y = host.room(&[ROWS, C]);
        kernels::BatchnormForward {
            x: &x,
            mean: &mean,
            inv_std: &inverse,
            weight: &weight,
            bias: &bias,
            y: &mut y,
            rows: ROWS,
            channels: C,
            relu,
        }
        .launch(device, GRID)
        .unwrap();
        let rectified = |i: usize| if relu { value(i).max(0.0) } else { value(i) };
        close("y", &host.read(&y), &(0..ROWS * C).map(rectified).collect::<Vec<_>>());

        let (mut sums, mut products) = (host.room(&[parts, C]), host.room(&[parts, C]));
        kernels::BatchnormGradientPartial {
            x: &x,
            dy: &dy,
            mean: &mean,
            inv_std: &inverse,
            weight: &weight,
            bias: &bias,
            sums: &mut sums,
            products: &mut products,
            rows: ROWS,
            channels: C,
            relu,
        }
        .launch(device, blocks)
        .unwrap();
        let (mut sum, mut product) = (host.room(&[C]), host.room(&[C]));
        let (mut dweight, before_w) = host.reals(&[C]);
        let (mut dbias, before_b) = host.reals(&[C]);
        kernels::BatchnormGradientFinal {
            sums: &sums,
            products: &products,
            sum: &mut sum,
            product: &mut product,
            dweight: Some(&mut dweight),
            dbias: Some(&mut dbias),
            parts: 3,
            channels: C,
        }
        .launch(device, GRID)
        .unwrap();
        let g = |i: usize| if relu && value(i) <= 0.0 { 0.0 } else { dys[i] };
        let total = |c: usize| (0..ROWS).map(|r| g(r * C + c)).sum::<f64>();
        let along = |c: usize| (0..ROWS).map(|r| g(r * C + c) * normal(r * C + c)).sum::<f64>();
        close("dbias", &host.read(&dbias), &of(&|c| before_b[c] + total(c)));
        close("dweight", &host.read(&dweight), &of(&|c| before_w[c] + along(c)));
        for train in [false, true] {
            let mut dx = host.room(&[ROWS, C]);
            kernels::BatchnormBackward {
                x: &x,
                dy: &dy,
                mean: &mean,
                inv_std: &inverse,
                weight: &weight,
                bias: &bias,
                sum: &sum,
                product: &product,
                dx: &mut dx,
                rows: ROWS,
                channels: C,
                train,
                relu,
            }
            .launch(device, GRID)
            .unwrap();
            let share = f64::from(train) / ROWS as f64;
            let derivative = |i: usize| {
                let c = i % C;
                ws[c] * stats[c].1 * (g(i) - share * (total(c) + normal(i) * along(c)))
            };
            close("dx", &host.read(&dx), &(0..ROWS * C).map(derivative).collect::<Vec<_>>());
        }
    }
}

#[test]
fn batchnorm_of_fewer_rows_than_fill_the_parts() {
    let host = Host::double();
    let device = &host.device;
    // Five rows in parts of two leave the last part empty.
    let (rows, parts, momentum, eps) = (5, 4, 0.3, 0.125);
    let (x, xs) = host.reals(&[rows, C]);
    let (mut means, mut deviations) = (host.room(&[parts, C]), host.room(&[parts, C]));
    let blocks = Grid::blocks(parts);
    kernels::BatchnormPartial {
        x: &x,
        means: &mut means,
        deviations: &mut deviations,
        rows: 5,
        channels: C,
    }
    .launch(device, blocks)
    .unwrap();
    let (mut mean, mut inverse) = (host.room(&[C]), host.room(&[C]));
    let (mut running_mean, old_mean) = host.reals(&[C]);
    let (mut running_var, old_var) = host.positive(&[C]);
    kernels::BatchnormStatistics {
        means: &means,
        deviations: &deviations,
        mean: &mut mean,
        inv_std: &mut inverse,
        running_mean: &mut running_mean,
        running_var: &mut running_var,
        tracked: None,
        parts: 4,
        rows: 5,
        channels: C,
        momentum,
        eps,
    }
    .launch(device, GRID)
    .unwrap();
    let stats: Vec<(f64, f64)> =
        (0..C).map(|c| statistics(xs.iter().skip(c).step_by(C).copied(), eps)).collect();
    let of = |f: &dyn Fn(usize) -> f64| (0..C).map(f).collect::<Vec<f64>>();
    close("mean", &host.read(&mean), &of(&|c| stats[c].0));
    close("inv_std", &host.read(&inverse), &of(&|c| stats[c].1));
    let moved = |old: f64, new: f64| old + momentum * (new - old);
    close("running_mean", &host.read(&running_mean), &of(&|c| moved(old_mean[c], stats[c].0)));
    let variance = |c: usize| (1.0 / stats[c].1.powi(2) - eps) * 5.0 / 4.0;
    close("running_var", &host.read(&running_var), &of(&|c| moved(old_var[c], variance(c))));

    let mut of_running = host.room(&[C]);
    kernels::BatchnormInverse {
        variance: &running_var,
        inv_std: &mut of_running,
        channels: C,
        eps,
    }
    .launch(device, GRID)
    .unwrap();
    let expected = of(&|c| 1.0 / (moved(old_var[c], variance(c)) + eps).sqrt());
    close("batchnorm_inverse", &host.read(&of_running), &expected);

    let (sums, ss) = host.reals(&[parts, C]);
    let (products, ps) = host.reals(&[parts, C]);
    let column = |x: &[f64], c: usize| x.iter().skip(c).step_by(C).sum::<f64>();
    for [weighted, biased] in [[true, false], [false, true], [false, false]] {
        let (mut sum, mut product) = (host.room(&[C]), host.room(&[C]));
        let (mut dweight, mut dbias) = (host.room(&[C]), host.room(&[C]));
        kernels::BatchnormGradientFinal {
            sums: &sums,
            products: &products,
            sum: &mut sum,
            product: &mut product,
            dweight: weighted.then_some(&mut dweight),
            dbias: biased.then_some(&mut dbias),
            parts: 4,
            channels: C,
        }
        .launch(device, GRID)
        .unwrap();
        close("sum", &host.read(&sum), &of(&|c| column(&ss, c)));
        close("product", &host.read(&product), &of(&|c| column(&ps, c)));
    }
}

/// As above, for the other reductions over parts; the last twenty parts have no rows.
#[test]
fn batchnorm_of_many_parts() {
    let host = Host::double();
    let device = &host.device;
    let (rows, parts, momentum, eps) = (150, 70, 0.3, 0.125);
    for channels in [12, 16] {
        let (x, xs) = host.reals(&[rows, channels]);
        let partial = || host.room(&[parts, channels]);
        let (mut means, mut deviations) = (partial(), partial());
        let blocks = Grid::blocks(parts);
        kernels::BatchnormPartial {
            x: &x,
            means: &mut means,
            deviations: &mut deviations,
            rows: 150,
            channels,
        }
        .launch(device, blocks)
        .unwrap();
        let room = || host.room(&[channels]);
        let (mut mean, mut inverse) = (room(), room());
        let (mut running_mean, _) = host.reals(&[channels]);
        let (mut running_var, _) = host.positive(&[channels]);
        kernels::BatchnormStatistics {
            means: &means,
            deviations: &deviations,
            mean: &mut mean,
            inv_std: &mut inverse,
            running_mean: &mut running_mean,
            running_var: &mut running_var,
            tracked: None,
            parts: 70,
            rows: 150,
            channels,
            momentum,
            eps,
        }
        .launch(device, GRID)
        .unwrap();
        let of = |f: &dyn Fn(usize) -> f64| (0..channels).map(f).collect::<Vec<f64>>();
        let stats = |c: usize| statistics(xs.iter().skip(c).step_by(channels).copied(), eps);
        close("mean", &host.read(&mean), &of(&|c| stats(c).0));
        close("inv_std", &host.read(&inverse), &of(&|c| stats(c).1));

        let (sums, ss) = host.reals(&[parts, channels]);
        let (products, ps) = host.reals(&[parts, channels]);
        let (mut sum, mut product) = (room(), room());
        kernels::BatchnormGradientFinal {
            sums: &sums,
            products: &products,
            sum: &mut sum,
            product: &mut product,
            dweight: None,
            dbias: None,
            parts: 70,
            channels,
        }
        .launch(device, GRID)
        .unwrap();
        let column = |x: &[f64], c: usize| x.iter().skip(c).step_by(channels).sum::<f64>();
        close("sum", &host.read(&sum), &of(&|c| column(&ss, c)));
        close("product", &host.read(&product), &of(&|c| column(&ps, c)));
    }
}
