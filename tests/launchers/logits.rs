//! Logits read as if they were upsampled: cross-entropy and pseudo-labels.

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
/// Pixels of a run, not a part of the width, and room for the cells under it.
const RUN: i64 = 6;
const CELLS: i64 = 8;

fn grid() -> Grid {
    // Channels are padded to 16: kernels/upsample.cuh.
    let (run, cells) = (RUN as usize, CELLS as usize);
    GRID.shared(((cells + run) * 16 + 4 * run) * 8 + 4 * run)
}

/// Softmax of every pixel, upsampled before.
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
    let (logits, values) = host.reals(&[B, H, W, C]);
    let (_, mut labels) = host.bytes(&[B, HEIGHT, WIDTH], 4);
    // A fourth is unlabelled, one label is no class.
    labels.iter_mut().filter(|label| **label == 3).for_each(|label| *label = 255);
    labels[17] = 9;
    let label = device.upload(&[B, HEIGHT, WIDTH], &labels).unwrap();
    let (weight, ws) = host.positive(&[B, HEIGHT, WIDTH]);
    let rows = B * HEIGHT;
    let (mut partial, mut slope) = (host.room(&[rows, 3]), host.room(&[B, HEIGHT, W, C]));
    kernels::cross_entropy_rows(
        device,
        grid(),
        &logits,
        &label,
        Some(&weight),
        &mut partial,
        Some(&mut slope),
        2,
        5,
        7,
        3,
        11,
        13,
        RATIO_Y,
        RATIO_X,
        RUN,
        CELLS,
    )
    .unwrap();

    let shares = softmax(&values);
    let (mut wanted_partial, mut wanted_slope) = (vec![0.0; rows * 3], vec![0.0; rows * W * C]);
    for [r, x] in each([rows, WIDTH]) {
        let pixel = r * WIDTH + x;
        let (label, p) = (labels[pixel] as usize, &shares[pixel * C..][..C]);
        if label >= C {
            wanted_partial[3 * r + 2] += (label != 255) as u8 as f64;
            continue;
        }
        wanted_partial[3 * r] -= ws[pixel] * p[label].ln();
        wanted_partial[3 * r + 1] += p.iter().all(|&other| other <= p[label]) as u8 as f64;
        for (cell, share) in taps(x, RATIO_X, W) {
            for c in 0..C {
                let gradient = p[c] - (c == label) as u8 as f64;
                wanted_slope[(r * W + cell) * C + c] += share * ws[pixel] * gradient;
            }
        }
    }
    close("partial", &host.read(&partial), &wanted_partial);
    close("slope", &host.read(&slope), &wanted_slope);

    let one = || host.room(&[1]);
    let (mut value, mut accuracy, mut unknown) = (one(), one(), one());
    kernels::cross_entropy_final(
        device,
        Grid::blocks(1),
        &partial,
        &mut value,
        &mut accuracy,
        &mut unknown,
        22,
        286,
    )
    .unwrap();
    let total = |k: usize| wanted_partial.iter().skip(k).step_by(3).sum::<f64>();
    close("value", &host.read(&value), &[total(0) / 286.0]);
    close("accuracy", &host.read(&accuracy), &[100.0 * total(1) / 286.0]);
    assert_eq!(host.read(&unknown), [1.0]);

    let row = W * C;
    let mut gradient = host.room(&[B, H, row]);
    kernels::cross_entropy_gather(device, GRID, &slope, &mut gradient, 2, 5, 11, 21, RATIO_Y, 0.3)
        .unwrap();
    let mut expected = vec![0.0; B * H * row];
    for [i, y, k] in each([B, HEIGHT, row]) {
        for (cell, share) in taps(y, RATIO_Y, H) {
            expected[(i * H + cell) * row + k] +=
                0.3 * share * wanted_slope[(i * HEIGHT + y) * row + k];
        }
    }
    close("gradient", &host.read(&gradient), &expected);
}

#[test]
fn classify() {
    let host = Host::double();
    let (logits, values) = host.reals(&[B, H, W, C]);
    let pixels = [B, HEIGHT, WIDTH];
    let mut label = host.room_for_bytes(&pixels);
    let (mut probability, mut confident) = (host.room(&pixels), host.room_for_bytes(&pixels));
    let mut counts = host.room(&[B * HEIGHT]);
    let (confident_from, counted_from) = (0.45, 0.5);
    kernels::classify_rows(
        &host.device,
        grid(),
        &logits,
        &mut label,
        Some(&mut probability),
        Some(&mut confident),
        Some(&mut counts),
        2,
        5,
        7,
        3,
        11,
        13,
        RATIO_Y,
        RATIO_X,
        RUN,
        CELLS,
        confident_from,
        counted_from,
    )
    .unwrap();
    let shares = softmax(&values);
    let likely: Vec<f64> =
        shares.chunks(C).map(|p| p.iter().copied().fold(0.0, f64::max)).collect();
    close("probability", &host.read(&probability), &likely);
    let classes: Vec<u8> = (shares.chunks(C).zip(&likely))
        .map(|(p, top)| p.iter().position(|share| share == top).unwrap() as u8)
        .collect();
    assert_eq!(host.read_bytes(&label), classes);
    let sure: Vec<u8> = likely.iter().map(|&p| (p >= confident_from) as u8).collect();
    assert!(sure.contains(&0) && sure.contains(&1));
    assert_eq!(host.read_bytes(&confident), sure);
    let counted: Vec<f64> = likely
        .chunks(WIDTH)
        .map(|row| row.iter().filter(|&&p| p >= counted_from).count() as f64)
        .collect();
    close("counts", &host.read(&counts), &counted);
}
