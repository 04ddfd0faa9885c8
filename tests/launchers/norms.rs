//! Norms, drop-path and sums.

use udass_raw::device::group::Slots;
use udass_raw::device::{Grid, kernels};

use crate::{GRID, Host, close, each, uniform_of};

/// Mean of a row, and 1/√(variance + eps).
pub fn statistics(values: impl Iterator<Item = f64> + Clone, eps: f64) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

pub const ROWS: usize = 23;
pub const C: usize = 37;

/// Shared memory for sums over rows, for as many thread groups as a block may have.
fn team_sums(c: usize) -> usize {
    8 * 2 * c * size_of::<f64>()
}

/// Rows, channels and rows per sample: rows that fit the lanes' registers and larger ones; fewer
/// rows than thread groups, and fewer channels than lanes.
const LAYERS: [[usize; 3]; 11] = [
    [ROWS, C, 5],
    [ROWS, 64, 5],
    [3, 32, 1],
    [31, 5, 31],
    [1, 1, 1],
    [9, 128, 3],
    [19, 160, 7],
    [5, 256, 2],
    [13, 320, 13],
    [2, 512, 1],
    [7, 96, 2],
];

/// The samples are images 2 and 3 of 7, of as many passes as there are.
const SLOTS: Slots = Slots { first: 2, count: 2, all: 7 };

fn slot_of(sample: usize) -> u64 {
    (sample / SLOTS.count * SLOTS.all + SLOTS.first + sample % SLOTS.count) as u64
}

#[test]
fn layernorm_with_drop_path() {
    let host = Host::double();
    let device = &host.device;
    let (stream, rate, eps) = (11, 0.3, 0.125);
    let key = device.upload(&[1], &[7u64]).unwrap();
    for [rows, c, sample_rows] in LAYERS {
        let shape = [rows, c];
        let (x, xs) = host.reals(&shape);
        let (branch, bs) = host.reals(&shape);
        let (gamma, gs) = host.reals(&[c]);
        let (beta, betas) = host.reals(&[c]);
        let (mut sum, mut y) = (host.room(&shape), host.room(&shape));
        let mut stats = host.room(&[rows, 2]);
        kernels::LayernormForward {
            x: &x,
            branch: Some(&branch),
            key: Some(&key),
            gamma: &gamma,
            beta: &beta,
            sum: Some(&mut sum),
            y: Some(&mut y),
            wide: None,
            stats: Some(&mut stats),
            stream,
            rate,
            eps,
            sample_rows,
            first_slot: SLOTS.first,
            slots: SLOTS.count,
            all_slots: SLOTS.all,
            rows,
            channels: c,
        }
        .launch(device, GRID)
        .unwrap();
        let factor = |r: usize| {
            let dropped = uniform_of(7, 11, slot_of(r / sample_rows)) < rate;
            if dropped { 0.0 } else { 1.0 / (1.0 - rate) }
        };
        if rows == ROWS {
            assert!((0..rows).any(|r| factor(r) == 0.0) && (0..rows).any(|r| factor(r) > 0.0));
        }
        let of = |f: &dyn Fn(usize) -> f64| (0..rows * c).map(f).collect::<Vec<f64>>();
        let s = of(&|i| xs[i] + factor(i / c) * bs[i]);
        close("sum", &host.read(&sum), &s);
        let per_row: Vec<(f64, f64)> =
            s.chunks(c).map(|row| statistics(row.iter().copied(), eps)).collect();
        let flat: Vec<f64> = per_row.iter().flat_map(|&(mean, inverse)| [mean, inverse]).collect();
        close("stats", &host.read(&stats), &flat);
        let normal = |i: usize| (s[i] - per_row[i / c].0) * per_row[i / c].1;
        close("y", &host.read(&y), &of(&|i| normal(i) * gs[i % c] + betas[i % c]));

        let (dy, dys) = host.reals(&shape);
        let (ds, dss) = host.reals(&shape);
        let (mut dx, mut partial) = (host.room(&shape), host.room(&[3, 2, c]));
        let mut dbranch = host.room(&shape);
        kernels::LayernormBackward {
            s: &sum,
            dy: Some(&dy),
            dwide: None,
            ds: Some(&ds),
            key: Some(&key),
            gamma: &gamma,
            stats: &stats,
            dx: &mut dx,
            dbranch: Some(&mut dbranch),
            partial: &mut partial,
            stream,
            rate,
            sample_rows,
            first_slot: SLOTS.first,
            slots: SLOTS.count,
            all_slots: SLOTS.all,
            rows,
            channels: c,
        }
        .launch(device, Grid::blocks(3).shared(team_sums(c)))
        .unwrap();
        let g = |i: usize| dys[i] * gs[i % c];
        let expected = of(&|i| {
            let row = i / c * c..(i / c + 1) * c;
            let plain = row.clone().map(g).sum::<f64>() / c as f64;
            let along = row.map(|j| g(j) * normal(j)).sum::<f64>() / c as f64;
            dss[i] + (g(i) - plain - normal(i) * along) * per_row[i / c].1
        });
        close("dx", &host.read(&dx), &expected);
        let scaled = of(&|i| factor(i / c) * expected[i]);
        if (0..rows).any(|r| factor(r) > 0.0) {
            close("dbranch", &host.read(&dbranch), &scaled);
        } else {
            assert_eq!(host.read(&dbranch), scaled);
        }
        let (mut dgamma, before_g) = host.reals(&[c]);
        let (mut dbeta, before_b) = host.reals(&[c]);
        let grid = GRID.shared(team_sums(c));
        kernels::LayernormWeights {
            partial: &partial,
            dgamma: &mut dgamma,
            dbeta: &mut dbeta,
            parts: 3,
            channels: c,
        }
        .launch(device, grid)
        .unwrap();
        let summed = |before: &[f64], f: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let column = |k: usize| (0..rows).map(|r| f(r * c + k)).sum::<f64>();
            (0..c).map(|k| before[k] + column(k)).collect()
        };
        close("dgamma", &host.read(&dgamma), &summed(&before_g, &|i| dys[i] * normal(i)));
        close("dbeta", &host.read(&dbeta), &summed(&before_b, &|i| dys[i]));
    }
}

#[test]
fn layernorm_weights_of_many_parts() {
    let host = Host::double();
    for [parts, c] in [[40, 3], [70, 32], [1, 9]] {
        let (partial, ps) = host.reals(&[parts, 2, c]);
        let (mut dgamma, before_g) = host.reals(&[c]);
        let (mut dbeta, before_b) = host.reals(&[c]);
        let grid = GRID.shared(team_sums(c));
        kernels::LayernormWeights {
            partial: &partial,
            dgamma: &mut dgamma,
            dbeta: &mut dbeta,
            parts,
            channels: c,
        }
        .launch(&host.device, grid)
        .unwrap();
        let column = |k: usize| ps.iter().skip(k).step_by(2 * c).sum::<f64>();
        let of = |before: &[f64], k: usize| -> Vec<f64> {
            (0..c).map(|i| before[i] + column(k + i)).collect()
        };
        close("dgamma", &host.read(&dgamma), &of(&before_g, 0));
        close("dbeta", &host.read(&dbeta), &of(&before_b, c));
    }
}

#[test]
fn layernorm_without_what_is_optional() {
    layernorm_of_less(C);
    layernorm_of_less(32);
}

fn layernorm_of_less(c: usize) {
    let host = Host::double();
    let device = &host.device;
    let (eps, shape) = (0.125, [ROWS, c]);
    let (x, xs) = host.reals(&shape);
    let (branch, bs) = host.reals(&shape);
    let (gamma, gs) = host.reals(&[c]);
    let (beta, betas) = host.reals(&[c]);
    let (dy, dys) = host.reals(&shape);
    let key = device.upload(&[1], &[7u64]).unwrap();
    // First without a residual; then with a residual that is never dropped, because there is no key
    // or the rate is 0.
    for (branched, key, rate) in
        [(false, None, 0.3), (false, Some(&key), 0.3), (true, None, 0.3), (true, Some(&key), 0.0)]
    {
        let (mut sum, mut wide) = (host.room(&shape), host.room(&shape));
        let mut stats = host.room(&[ROWS, 2]);
        for measured in [true, false] {
            wide = host.room(&shape);
            kernels::LayernormForward {
                x: &x,
                branch: branched.then_some(&branch),
                key,
                gamma: &gamma,
                beta: &beta,
                sum: branched.then_some(&mut sum),
                y: None,
                wide: Some(&mut wide),
                stats: measured.then_some(&mut stats),
                stream: 11,
                rate,
                eps,
                sample_rows: 5,
                first_slot: 0,
                slots: 1,
                all_slots: 1,
                rows: ROWS,
                channels: c,
            }
            .launch(device, GRID)
            .unwrap();
        }
        let s: Vec<f64> =
            (0..ROWS * c).map(|i| xs[i] + if branched { bs[i] } else { 0.0 }).collect();
        let per_row: Vec<(f64, f64)> =
            (0..ROWS).map(|r| statistics(s[r * c..(r + 1) * c].iter().copied(), eps)).collect();
        let flat: Vec<f64> = per_row.iter().flat_map(|&(mean, inverse)| [mean, inverse]).collect();
        close("stats", &host.read(&stats), &flat);
        if branched {
            close("sum", &host.read(&sum), &s);
        }
        let normal = |i: usize| (s[i] - per_row[i / c].0) * per_row[i / c].1;
        let of = |f: &dyn Fn(usize) -> f64| (0..ROWS * c).map(f).collect::<Vec<f64>>();
        close("wide", &host.read(&wide), &of(&|i| normal(i) * gs[i % c] + betas[i % c]));

        let stream = if branched { &sum } else { &x };
        let (mut dx, mut partial) = (host.room(&shape), host.room(&[6, 2, c]));
        // The sixth part has no rows, since ROWS is split into chunks of 4.
        let parts = Grid::blocks(6).shared(team_sums(c));
        let mut dbranch = host.room(&shape);
        kernels::LayernormBackward {
            s: stream,
            dy: None,
            dwide: Some(&dy),
            ds: None,
            key,
            gamma: &gamma,
            stats: &stats,
            dx: &mut dx,
            dbranch: branched.then_some(&mut dbranch),
            partial: &mut partial,
            stream: 11,
            rate,
            sample_rows: 5,
            first_slot: 0,
            slots: 1,
            all_slots: 1,
            rows: ROWS,
            channels: c,
        }
        .launch(device, parts)
        .unwrap();
        let g = |i: usize| dys[i] * gs[i % c];
        let derivative = |i: usize| {
            let row = i / c * c..(i / c + 1) * c;
            let plain = row.clone().map(g).sum::<f64>() / c as f64;
            let along = row.map(|j| g(j) * normal(j)).sum::<f64>() / c as f64;
            (g(i) - plain - normal(i) * along) * per_row[i / c].1
        };
        close("dx", &host.read(&dx), &of(&derivative));
        let parts = host.read(&partial);
        let summed = |k: usize| -> f64 { parts.iter().skip(k).step_by(2 * c).sum() };
        let expected = |k: usize| -> f64 {
            let rows = (0..ROWS).map(|r| r * c + k % c);
            rows.map(|i| if k < c { dys[i] * normal(i) } else { dys[i] }).sum()
        };
        let all = |f: &dyn Fn(usize) -> f64| (0..2 * c).map(f).collect::<Vec<f64>>();
        close("partial", &all(&summed), &all(&expected));

        if branched {
            assert_eq!(host.read(&dbranch), host.read(&dx));
        }
    }
}

#[test]
fn a_relu_keeps_what_is_no_number() {
    let host = Host::double();
    let (_, mut xs) = host.reals(&[ROWS, C]);
    xs[3 * C + 4] = f64::NAN;
    let x = host.upload(&[ROWS, C], &xs);
    let [mean, inverse, weight, bias] = [(); 4].map(|()| host.positive(&[C]).0);
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
        relu: true,
    }
    .launch(&host.device, GRID)
    .unwrap();
    let broken = |(i, y): (usize, &f64)| y.is_nan() == (i == 3 * C + 4);
    assert!(host.read(&y).iter().enumerate().all(broken));
}

#[test]
fn column_sums() {
    let host = Host::double();
    // Scalar columns; then vector packs, with more parts than are summed at once.
    for (rows, columns, parts) in [(ROWS, C, 3), (150, 12, 70), (150, 16, 70)] {
        let (x, xs) = host.reals(&[rows, columns]);
        let mut partial = host.room(&[parts, columns]);
        kernels::ColumnSumsPartial { x: &x, partial: &mut partial, rows, channels: columns }
            .launch(&host.device, Grid::blocks(parts))
            .unwrap();
        let (mut sums, mut expected) = host.reals(&[columns]);
        kernels::ColumnSumsFinal { partial: &partial, sums: &mut sums, parts, channels: columns }
            .launch(&host.device, GRID)
            .unwrap();
        each([rows, columns]).for_each(|[r, c]| expected[c] += xs[r * columns + c]);
        close("column sums", &host.read(&sums), &expected);
    }
}
