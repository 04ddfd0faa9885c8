//! Fused upsampling of logits in cross-entropy and pseudo-labels, and the feature distance.

use udass_raw::device::constants::upsample::HOST_LANES;
use udass_raw::device::{Grid, kernels};

use crate::{GRID, Host, at, close, each, taps};

const B: usize = 2;
const H: usize = 5;
const W: usize = 7;
const C: usize = 3;
const HEIGHT: usize = 11;
const WIDTH: usize = 13;
const RATIO_Y: f64 = H as f64 / HEIGHT as f64;
const RATIO_X: f64 = W as f64 / WIDTH as f64;
/// Pixels per run, which does not divide the width, and room for the cells below it.
const RUN: usize = 6;
const CELLS: usize = 8;

fn grid() -> Grid {
    GRID.shared(((CELLS + RUN) * HOST_LANES + 4 * RUN) * 8 + 4 * RUN)
}

/// Upsamples the logits and computes the softmax of every pixel.
fn softmax(logits: &[f64]) -> Vec<f64> {
    let mut all = Vec::new();
    for [i, y, x] in each([B, HEIGHT, WIDTH]) {
        let mut z = [0.0; C];
        for (ty, wy) in taps(y, RATIO_Y, H) {
            for (tx, wx) in taps(x, RATIO_X, W) {
                for (c, z) in z.iter_mut().enumerate() {
                    *z += wy * wx * logits[at([B, H, W, C], [i, ty, tx, c])];
                }
            }
        }
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        all.extend(z.map(|z| z.exp() / sum));
    }
    all
}

#[test]
fn cross_entropy() {
    let host = Host::double();
    let device = &host.device;
    let (_, mut values) = host.reals(&[B, H, W, C]);
    // In the second image, the first class is as likely as the last.
    values.chunks_mut(C).skip(H * W).for_each(|z| z[2] = z[0]);
    let logits = host.upload(&[B, H, W, C], &values);
    let (_, mut labels) = host.bytes(&[B, HEIGHT, WIDTH], 4);
    // A quarter is unlabeled, and one label is out of range.
    labels.iter_mut().filter(|label| **label == 3).for_each(|label| *label = 255);
    labels[17] = 9;
    let label = device.upload(&[B, HEIGHT, WIDTH], &labels).unwrap();
    let (weight, ws) = host.positive(&[B, HEIGHT, WIDTH]);
    let shares = softmax(&values);
    let rows = B * HEIGHT;
    let (mut wanted_partial, mut wanted_slope) = (Vec::new(), Vec::new());
    let mut partial = host.room(&[rows, 3]);
    let mut row_gradient = host.room(&[B, HEIGHT, W, C]);
    for [weighted, differentiated] in [[0, 1], [1, 0], [0, 0], [1, 1]] {
        partial = host.room(&[rows, 3]);
        kernels::CrossEntropyRows {
            logits: &logits,
            labels: &label,
            weight: (weighted == 1).then_some(&weight),
            partial: &mut partial,
            row_gradient: (differentiated == 1).then_some(&mut row_gradient),
            batch: 2,
            height: 5,
            width: 7,
            channels: 3,
            out_height: 11,
            out_width: 13,
            ratio_y: RATIO_Y,
            ratio_x: RATIO_X,
            run: RUN,
            cells: CELLS,
        }
        .launch(device, grid())
        .unwrap();

        (wanted_partial, wanted_slope) = (vec![0.0; rows * 3], vec![0.0; rows * W * C]);
        for [r, x] in each([rows, WIDTH]) {
            let pixel = r * WIDTH + x;
            let (label, p) = (labels[pixel] as usize, &shares[pixel * C..][..C]);
            if label >= C {
                wanted_partial[3 * r + 2] += (label != 255) as u8 as f64;
                continue;
            }
            let by = if weighted == 1 { ws[pixel] } else { 1.0 };
            wanted_partial[3 * r] -= by * p[label].ln();
            // Among equals, the first class is predicted.
            let hit = (0..C).all(|c| p[c] < p[label] || (p[c] == p[label] && c >= label));
            wanted_partial[3 * r + 1] += hit as u8 as f64;
            for (cell, share) in taps(x, RATIO_X, W) {
                for c in 0..C {
                    let gradient = p[c] - (c == label) as u8 as f64;
                    wanted_slope[(r * W + cell) * C + c] += share * by * gradient;
                }
            }
        }
        close("partial", &host.read(&partial), &wanted_partial);
        if differentiated == 1 {
            close("slope", &host.read(&row_gradient), &wanted_slope);
        }
    }

    let one = || host.room(&[1]);
    let (mut value, mut accuracy, mut unknown) = (one(), one(), one());
    kernels::CrossEntropyFinal {
        partial: &partial,
        value: &mut value,
        accuracy: &mut accuracy,
        unknown: &mut unknown,
        rows: 22,
        pixels: 286,
    }
    .launch(device, Grid::blocks(1))
    .unwrap();
    let total = |k: usize| wanted_partial.iter().skip(k).step_by(3).sum::<f64>();
    close("value", &host.read(&value), &[total(0) / 286.0]);
    close("accuracy", &host.read(&accuracy), &[100.0 * total(1) / 286.0]);
    assert_eq!(host.read(&unknown), [1.0]);

    let row = W * C;
    let mut gradient = host.room(&[B, H, row]);
    kernels::CrossEntropyGather {
        row_gradient: &row_gradient,
        gradient: &mut gradient,
        batch: 2,
        height: 5,
        out_height: 11,
        row: 21,
        ratio_y: RATIO_Y,
        scale: 0.3,
    }
    .launch(device, GRID)
    .unwrap();
    let mut expected = vec![0.0; B * H * row];
    for [i, y, k] in each([B, HEIGHT, row]) {
        for (cell, share) in taps(y, RATIO_Y, H) {
            expected[(i * H + cell) * row + k] +=
                0.3 * share * wanted_slope[(i * HEIGHT + y) * row + k];
        }
    }
    close("gradient", &host.read(&gradient), &expected);

    let (upstream, n) = (host.upload(&[1], &[0.7]), B * H * row);
    for accumulate in [false, true] {
        let (mut dx, before) = host.reals(&[n]);
        kernels::CrossEntropyBackward {
            gradient: &gradient,
            upstream: &upstream,
            dx: &mut dx,
            accumulate,
            elements: n,
        }
        .launch(device, GRID)
        .unwrap();
        let kept = |i: usize| f64::from(accumulate) * before[i];
        let wanted: Vec<f64> = (0..n).map(|i| kept(i) + 0.7 * expected[i]).collect();
        close("cross_entropy_backward", &host.read(&dx), &wanted);
    }
}

#[test]
fn classify() {
    let host = Host::double();
    let (_, mut values) = host.reals(&[B, H, W, C]);
    // In the upper rows of the second image all classes are equally likely.
    values[H * W * C..][..2 * W * C].fill(0.25);
    let logits = host.upload(&[B, H, W, C], &values);
    let pixels = [B, HEIGHT, WIDTH];
    let shares = softmax(&values);
    let likely: Vec<f64> =
        shares.chunks(C).map(|p| p.iter().copied().fold(0.0, f64::max)).collect();
    let classes: Vec<u8> = (shares.chunks(C).zip(&likely))
        .map(|(p, top)| p.iter().position(|share| share == top).unwrap() as u8)
        .collect();
    // Which outputs are requested, and the thresholds; the second threshold is met exactly where
    // all classes are equally likely.
    for (asked, from, counted_from) in [
        ([true, true, true], 0.45, 0.5),
        ([true, true, true], 0.5, 1.0 / 3.0),
        ([true, true, false], 1.0 / 3.0, 0.4),
        ([true, false, false], 0.45, 0.5),
        ([false, true, false], 0.45, 0.5),
        ([false, false, true], 0.45, 0.5),
        ([false, false, false], 0.45, 0.5),
    ] {
        let mut label = host.room_for_bytes(&pixels);
        let (mut probability, mut confident) = (host.room(&pixels), host.room_for_bytes(&pixels));
        let mut counts = host.room(&[B * HEIGHT]);
        kernels::ClassifyRows {
            logits: &logits,
            label: &mut label,
            probability: asked[0].then_some(&mut probability),
            confident: asked[1].then_some(&mut confident),
            counts: asked[2].then_some(&mut counts),
            batch: 2,
            height: 5,
            width: 7,
            channels: 3,
            out_height: 11,
            out_width: 13,
            ratio_y: RATIO_Y,
            ratio_x: RATIO_X,
            run: RUN,
            cells: CELLS,
            confident_from: from,
            counted_from,
        }
        .launch(&host.device, grid())
        .unwrap();
        assert_eq!(host.read_bytes(&label), classes);
        if asked[0] {
            close("probability", &host.read(&probability), &likely);
        }
        let reached = |p: f64, from: f64| p >= from - 1e-12;
        if asked[1] {
            let sure: Vec<u8> = likely.iter().map(|&p| reached(p, from) as u8).collect();
            assert!(sure.contains(&1) && (from < 0.4 || sure.contains(&0)));
            assert_eq!(host.read_bytes(&confident), sure);
        }
        if asked[2] {
            let count = |row: &[f64]| row.iter().filter(|&&p| reached(p, counted_from)).count();
            let counted: Vec<f64> = likely.chunks(WIDTH).map(|row| count(row) as f64).collect();
            close("counts", &host.read(&counts), &counted);
        }
    }
}

#[test]
fn a_logit_that_is_no_number_is_no_class() {
    let host = Host::double();
    for class in 0..C {
        let (_, mut values) = host.reals(&[B, H, W, C]);
        let cell = [1, 2, 3, class];
        values[at([B, H, W, C], cell)] = f64::NAN;
        let logits = host.upload(&[B, H, W, C], &values);
        let pixels = [B, HEIGHT, WIDTH];
        let (mut label, mut confident) =
            (host.room_for_bytes(&pixels), host.room_for_bytes(&pixels));
        let mut counts = host.room(&[B * HEIGHT]);
        kernels::ClassifyRows {
            logits: &logits,
            label: &mut label,
            probability: None,
            confident: Some(&mut confident),
            counts: Some(&mut counts),
            batch: 2,
            height: 5,
            width: 7,
            channels: 3,
            out_height: 11,
            out_width: 13,
            ratio_y: RATIO_Y,
            ratio_x: RATIO_X,
            run: RUN,
            cells: CELLS,
            confident_from: 0.0,
            counted_from: 0.0,
        }
        .launch(&host.device, grid())
        .unwrap();
        // All pixels that interpolate from the cell, with any weight.
        let reached = |[i, y, x]: [usize; 3]| {
            let of = |taps: [(usize, f64); 2], cell: usize| taps.iter().any(|tap| tap.0 == cell);
            i == 1 && of(taps(y, RATIO_Y, H), 2) && of(taps(x, RATIO_X, W), 3)
        };
        let broken: Vec<bool> = each(pixels).map(reached).collect();
        let labels = host.read_bytes(&label);
        assert!(labels.iter().zip(&broken).all(|(&label, &broken)| (label == 255) == broken));
        let sure: Vec<u8> = broken.iter().map(|&broken| !broken as u8).collect();
        assert_eq!(host.read_bytes(&confident), sure);
        let counted: Vec<f64> =
            sure.chunks(WIDTH).map(|row| row.iter().map(|&sure| sure as f64).sum()).collect();
        close("counts", &host.read(&counts), &counted);
    }
}

#[test]
fn pseudo_labels_weigh_by_the_share_that_is_confident() {
    let host = Host::double();
    let device = &host.device;
    let one = Grid::blocks(1);
    for (rows, pixels) in [(3, 37), (300, 4100), (1, 5)] {
        let (counts, cs) = host.positive(&[rows]);
        let mut share = host.room(&[1]);
        kernels::PseudoShare { counts: &counts, share: &mut share, rows, pixels }
            .launch(device, one)
            .unwrap();
        close("share", &host.read(&share), &[cs.iter().sum::<f64>() / pixels as f64]);
        let share = host.upload(&[1], &[0.7]);
        // A mask with bytes of 0 to 2, then an empty one.
        for below in [3, 1] {
            let (valid, seen) = host.bytes(&[pixels], below);
            for with in [None, Some(&valid)] {
                let mut weight = host.room(&[pixels]);
                kernels::PseudoWeight {
                    share: &share,
                    valid: with,
                    weight: &mut weight,
                    elements: pixels,
                }
                .launch(device, GRID)
                .unwrap();
                let zero = |i: usize| with.is_some() && seen[i] == 0;
                let expected: Vec<f64> =
                    (0..pixels).map(|i| if zero(i) { 0.0 } else { 0.7 }).collect();
                assert_eq!(host.read(&weight), expected);
            }
        }
    }
}

#[test]
fn feature_distance() {
    const ROWS: usize = 23;
    const C: usize = 37;
    let host = Host::double();
    let device = &host.device;
    let (_, mut a) = host.reals(&[ROWS, C]);
    let (f2, b) = host.reals(&[ROWS, C]);
    // One row has distance 0, and one contains NaN.
    a[C..2 * C].copy_from_slice(&b[C..2 * C]);
    let one = Grid::blocks(1);
    for (masked, broken) in [(true, false), (true, true), (false, false)] {
        if broken {
            a[4 * C + 7] = f64::NAN;
        }
        let f1 = host.upload(&[ROWS, C], &a);
        let (_, mut labels) = host.bytes(&[ROWS], 4);
        (labels[1], labels[4], labels[6]) = (2, 255, 255);
        let label = device.upload(&[ROWS], &labels).unwrap();
        let mut classes = vec![0u8; 256];
        if masked {
            (classes[2], classes[3], classes[255]) = (1, 1, 7);
        }
        let flags = device.upload(&[256], &classes).unwrap();
        let mut distance = host.room(&[ROWS]);
        kernels::FeatureDistanceRows {
            f1: &f1,
            f2: &f2,
            labels: &label,
            classes: &flags,
            distance: &mut distance,
            rows: ROWS,
            channels: C,
        }
        .launch(device, GRID)
        .unwrap();
        let wanted: Vec<f64> = (0..ROWS)
            .map(|r| {
                let square = |c: usize| (a[r * C + c] - b[r * C + c]).powi(2);
                let norm = (0..C).map(square).sum::<f64>().sqrt();
                if classes[labels[r] as usize] == 0 { -1.0 } else { norm }
            })
            .collect();
        let got = host.read(&distance);
        assert_eq!(got[4].is_nan(), broken);
        let numbers = |x: &[f64]| x.iter().copied().filter(|x| !x.is_nan()).collect::<Vec<f64>>();
        close("distance", &numbers(&got), &numbers(&wanted));

        let (mut value, mut count) = (host.room(&[1]), host.room(&[1]));
        kernels::FeatureDistanceFinal {
            distance: &distance,
            value: &mut value,
            count: &mut count,
            rows: ROWS,
        }
        .launch(device, one)
        .unwrap();
        let of_mask: Vec<f64> = wanted.iter().copied().filter(|&x| x != -1.0).collect();
        assert_eq!(host.read(&count), [of_mask.len() as f64]);
        match (masked, broken) {
            (false, _) => assert_eq!(host.read(&value), [0.0]),
            (_, true) => assert!(host.read(&value)[0].is_nan()),
            (_, false) => {
                let mean = of_mask.iter().sum::<f64>() / of_mask.len() as f64;
                close("value", &host.read(&value), &[mean]);
            }
        }
    }
}

#[test]
fn feature_distance_backward() {
    const ROWS: usize = 23;
    const C: usize = 37;
    let host = Host::double();
    let (f1, a) = host.reals(&[ROWS, C]);
    let (f2, b) = host.reals(&[ROWS, C]);
    let mut distances: Vec<f64> =
        (0..ROWS).map(|r| if r % 3 == 0 { -1.0 } else { r as f64 }).collect();
    distances[1] = 0.0;
    let distance = host.upload(&[ROWS], &distances);
    let (count, upstream) = (host.upload(&[1], &[15.0]), host.upload(&[1], &[0.7]));
    for accumulate in [false, true] {
        let (mut df, before) = host.reals(&[ROWS, C]);
        kernels::FeatureDistanceBackward {
            f1: &f1,
            f2: &f2,
            distance: &distance,
            count: &count,
            upstream: &upstream,
            df1: &mut df,
            accumulate,
            rows: ROWS,
            channels: C,
        }
        .launch(&host.device, GRID)
        .unwrap();
        let expected: Vec<f64> = (0..ROWS * C)
            .map(|i| {
                let norm = distances[i / C];
                let row_gradient =
                    if norm <= 0.0 { 0.0 } else { 0.7 / (15.0 * norm) * (a[i] - b[i]) };
                f64::from(accumulate) * before[i] + row_gradient
            })
            .collect();
        close("feature_distance_backward", &host.read(&df), &expected);
    }
}
