//! Class statistics and contrast losses.

use udass_raw::device::{Grid, kernels};

use crate::{GRID, Host, at, close, each};

const CLASSES: usize = 4;

/// Labels of which some are no class.
fn labels(host: &Host, cells: usize) -> Vec<u8> {
    let known = |v: u8| if v > CLASSES as u8 { 255 } else { v };
    host.bytes(&[cells], CLASSES as u64 + 2).1.into_iter().map(known).collect()
}

/// An odd number of channels, and one that is a multiple of a pack.
const SIZES: [[usize; 2]; 3] = [[23, 7], [23, 16], [3, 64]];

#[test]
fn l2_normalize() {
    let host = Host::double();
    for [rows, channels] in SIZES {
        let (x, xs) = host.reals(&[rows, channels]);
        let (mut y, mut norms) = (host.room(&[rows, channels]), host.room(&[rows]));
        // Between the norms, so that some rows are divided by it instead.
        let least = (channels as f64 / 3.0).sqrt();
        kernels::L2Normalize { x: &x, y: &mut y, norms: &mut norms, rows, channels, least }
            .launch(&host.device, GRID)
            .unwrap();
        let length = |r: usize| xs[r * channels..][..channels].iter().map(|x| x * x).sum::<f64>();
        let lengths: Vec<f64> = (0..rows).map(|r| length(r).sqrt()).collect();
        let by = |r: usize| lengths[r].max(least);
        let units: Vec<f64> = (0..xs.len()).map(|i| xs[i] / by(i / channels)).collect();
        close("y", &host.read(&y), &units);
        close("norms", &host.read(&norms), &lengths);

        let (dy, dys) = host.reals(&[rows, channels]);
        for accumulate in [false, true] {
            let (mut dx, before) = host.reals(&[rows, channels]);
            kernels::L2NormalizeBackward {
                y: &y,
                norms: &norms,
                dy: &dy,
                dx: &mut dx,
                accumulate,
                rows,
                channels,
                least,
            }
            .launch(&host.device, GRID)
            .unwrap();
            let along = |r: usize| -> f64 {
                let row = r * channels..(r + 1) * channels;
                let dot = units[row.clone()].iter().zip(&dys[row]).map(|(y, dy)| y * dy).sum();
                if lengths[r] > least { dot } else { 0.0 }
            };
            let gradient = |i: usize| {
                let (r, kept) = (i / channels, if accumulate { before[i] } else { 0.0 });
                kept + (dys[i] - units[i] * along(r)) / by(r)
            };
            let expected: Vec<f64> = (0..xs.len()).map(gradient).collect();
            close("dx", &host.read(&dx), &expected);
        }
    }
}

#[test]
fn class_sums() {
    let host = Host::double();
    let (device, parts) = (&host.device, 6);
    for [rows, channels] in SIZES {
        let (x, xs) = host.reals(&[rows, channels]);
        let labels = labels(&host, rows);
        let on_device = device.upload(&[rows], &labels).unwrap();
        let (means, ms) = host.reals(&[CLASSES, channels]);
        let length = rows.div_ceil(parts);
        for centered in [false, true] {
            let mut partial = host.room(&[parts, CLASSES, channels]);
            kernels::ClassSums {
                x: &x,
                labels: &on_device,
                means: centered.then_some(&means),
                partial: &mut partial,
                rows,
                classes: CLASSES,
                channels,
            }
            .launch(device, Grid::blocks(parts))
            .unwrap();
            let mut expected = vec![0.0; parts * CLASSES * channels];
            for [r, c] in each([rows, channels]) {
                let k = labels[r] as usize;
                if k < CLASSES {
                    let value = xs[r * channels + c];
                    let off = value - ms[k * channels + c];
                    let place = at([parts, CLASSES, channels], [r / length, k, c]);
                    expected[place] += if centered { off * off } else { value };
                }
            }
            close("sums", &host.read(&partial), &expected);
        }
    }
}

#[test]
fn class_means() {
    let host = Host::double();
    let (device, channels, parts) = (&host.device, 7, 3);
    let numbers: Vec<i32> = (0..parts * 256).map(|i| (i * 7 % 11) as i32).collect();
    let mut counts = device.upload(&[CLASSES], &[9i64; CLASSES]).unwrap();
    let partial = host.ints(&numbers);
    kernels::ClassCounts { partial: &partial, counts: &mut counts, parts, classes: CLASSES }
        .launch(device, GRID)
        .unwrap();
    let of = |k: usize| (0..parts).map(|p| i64::from(numbers[p * 256 + k])).sum::<i64>();
    let wanted: Vec<i64> = (0..CLASSES).map(of).collect();
    assert_eq!(device.read::<i64>(&counts).unwrap(), wanted);

    let (sums, ss) = host.reals(&[CLASSES, channels]);
    let amounts = [3i64, 0, 1, 1 << 40];
    let counts = device.upload(&[CLASSES], &amounts).unwrap();
    let mut means = host.room(&[CLASSES, channels]);
    kernels::ClassMeans {
        sums: &sums,
        counts: &counts,
        means: &mut means,
        classes: CLASSES,
        channels,
    }
    .launch(device, GRID)
    .unwrap();
    let mean = |i: usize| match amounts[i / channels] {
        0 => 0.0,
        n => ss[i] / n as f64,
    };
    close("means", &host.read(&means), &(0..ss.len()).map(mean).collect::<Vec<_>>());
}

#[test]
fn merge_class_statistics() {
    let host = Host::double();
    let (device, channels) = (&host.device, 7);
    let shape = [CLASSES, channels];
    let (counts, amounts) = ([3i64, 0, 5, 2], [0i64, 4, 1 << 40, 9]);
    let (means, ms) = host.reals(&shape);
    let (squares, ss) = host.positive(&shape);
    let (mut mean, mean0) = host.reals(&shape);
    let (mut variance, variance0) = host.positive(&shape);
    let mut amount = device.upload(&[CLASSES], &amounts).unwrap();
    let counted = device.upload(&[CLASSES], &counts).unwrap();
    kernels::MergeClassStatistics {
        means: &means,
        squares: &squares,
        counts: &counted,
        mean: &mut mean,
        variance: &mut variance,
        amount: &mut amount,
        classes: CLASSES,
        channels,
    }
    .launch(device, GRID)
    .unwrap();
    let merged = |i: usize| {
        let k = i / channels;
        let w = counts[k] as f64 / (counts[k] + amounts[k]) as f64;
        let own = ss[i] / counts[k].max(1) as f64;
        let apart = (mean0[i] - ms[i]) * (mean0[i] - ms[i]);
        let spread = variance0[i] * (1.0 - w) + own * w + w * (1.0 - w) * apart;
        (mean0[i] * (1.0 - w) + ms[i] * w, spread)
    };
    let (m, v): (Vec<f64>, Vec<f64>) = (0..ms.len()).map(merged).unzip();
    close("mean", &host.read(&mean), &m);
    close("variance", &host.read(&variance), &v);
    let wanted: Vec<i64> = counts.iter().zip(amounts).map(|(n, before)| n + before).collect();
    assert_eq!(device.read::<i64>(&amount).unwrap(), wanted);
}

#[test]
fn bank() {
    let host = Host::double();
    let (device, channels, length) = (&host.device, 7, 3);
    let (counts, before) = ([4i64, 0, 1, 2], [1i64, 2, 3, 8]);
    let counted = device.upload(&[CLASSES], &counts).unwrap();
    let mut pushed = device.upload(&[CLASSES], &before).unwrap();
    let (means, ms) = host.reals(&[CLASSES, channels]);
    let (mut vectors, mut expected) = host.reals(&[CLASSES, length, channels]);
    kernels::PushClassMeans {
        means: &means,
        counts: &counted,
        bank: &mut vectors,
        pushed: &mut pushed,
        classes: CLASSES,
        length,
        channels,
    }
    .launch(device, GRID)
    .unwrap();
    let mut after = before;
    for k in 0..CLASSES {
        if counts[k] > 0 {
            let place = (k * length + before[k] as usize % length) * channels;
            expected[place..place + channels].copy_from_slice(&ms[k * channels..][..channels]);
            after[k] += 1;
        }
    }
    close("bank", &host.read(&vectors), &expected);
    assert_eq!(device.read::<i64>(&pushed).unwrap(), after);

    let mut centers = host.room(&[CLASSES, channels]);
    kernels::BankCenters {
        bank: &vectors,
        pushed: &pushed,
        centers: &mut centers,
        classes: CLASSES,
        length,
        channels,
    }
    .launch(device, GRID)
    .unwrap();
    let center = |[k, c]: [usize; 2]| {
        let held = (after[k] as usize).min(length);
        let sum: f64 = (0..held).map(|m| expected[(k * length + m) * channels + c]).sum();
        sum / held as f64
    };
    let wanted: Vec<f64> = each([CLASSES, channels]).map(center).collect();
    close("centers", &host.read(&centers), &wanted);
}

/// Σ_j e^z_j, and e^z_j as a share of it.
fn softmax(z: &[f64]) -> (f64, Vec<f64>) {
    let total: f64 = z.iter().map(|z| z.exp()).sum();
    (total, z.iter().map(|z| z.exp() / total).collect())
}

#[test]
fn regularizer() {
    let host = Host::double();
    let (device, temperature) = (&host.device, 0.5);
    for [_, channels] in SIZES {
        for counts in [[3i64, 0, 5, 2], [0; 4]] {
            let (sums, ss) = host.reals(&[CLASSES, channels]);
            let (means, ms) = host.reals(&[CLASSES, channels]);
            let counted = device.upload(&[CLASSES], &counts).unwrap();
            let (mut value, mut pull, mut labeled) =
                (host.room(&[1]), host.room(&[channels]), host.room(&[1]));
            kernels::ContrastRegularizer {
                sums: &sums,
                counts: &counted,
                means: &means,
                value: &mut value,
                pull: &mut pull,
                labeled: &mut labeled,
                classes: CLASSES,
                channels,
                temperature,
            }
            .launch(device, Grid::blocks(1))
            .unwrap();
            let n = counts.iter().sum::<i64>() as f64;
            assert_eq!(host.read(&labeled), [n]);
            if n == 0.0 {
                assert_eq!(host.read(&value), [0.0]);
                assert_eq!(host.read(&pull), vec![0.0; channels]);
                continue;
            }
            let of = |x: &[f64], k: usize, c: usize| x[k * channels + c];
            let mean: Vec<f64> = (0..channels)
                .map(|c| (0..CLASSES).map(|k| of(&ss, k, c)).sum::<f64>() / n)
                .collect();
            let z = |k: usize| (0..channels).map(|c| mean[c] * of(&ms, k, c)).sum::<f64>();
            let z: Vec<f64> = (0..CLASSES).map(|k| z(k) / temperature).collect();
            let (_, s) = softmax(&z);
            let scale = CLASSES as f64 * (CLASSES as f64).ln();
            let wanted = s.iter().map(|s| s.ln()).sum::<f64>() / scale;
            close("value", &host.read(&value), &[wanted]);
            let toward = |c: usize| -> f64 {
                (0..CLASSES).map(|k| (1.0 - CLASSES as f64 * s[k]) * of(&ms, k, c)).sum()
            };
            let wanted: Vec<f64> =
                (0..channels).map(|c| toward(c) / (scale * temperature * n)).collect();
            close("pull", &host.read(&pull), &wanted);
        }
    }
}

#[test]
fn rows() {
    let host = Host::double();
    let (device, temperature, weight) = (&host.device, 0.5, 0.75);
    for [rows, channels] in SIZES {
        let (q, qs) = host.reals(&[rows, channels]);
        let (means, ms) = host.reals(&[CLASSES, channels]);
        let (variances, vs) = host.positive(&[CLASSES, channels]);
        let (pull, ps) = host.reals(&[channels]);
        let ids = labels(&host, rows);
        let on_device = device.upload(&[rows], &ids).unwrap();
        let (labeled, upstream) = (host.upload(&[1], &[5.0]), host.upload(&[1], &[1.25]));
        for (with_variances, accumulate) in [(false, true), (true, false)] {
            let mut loss = host.room(&[rows]);
            let (mut dq, before) = host.reals(&[rows, channels]);
            kernels::ContrastRows {
                q: &q,
                labels: &on_device,
                means: &means,
                variances: with_variances.then_some(&variances),
                pull: &pull,
                labeled: &labeled,
                upstream: Some(&upstream),
                loss: Some(&mut loss),
                dq: Some(&mut dq),
                temperature,
                weight,
                accumulate,
                rows,
                classes: CLASSES,
                channels,
            }
            .launch(device, GRID)
            .unwrap();
            let share = |k: usize, c: usize| match with_variances {
                true => vs[k * channels + c] / temperature,
                false => 0.0,
            };
            let (mut losses, mut gradients) = (vec![0.0; rows], vec![0.0; rows * channels]);
            for r in 0..rows {
                let own = |c: usize| qs[r * channels + c];
                let near = |k: usize, half: f64| -> f64 {
                    let term = |c: usize| {
                        own(c) * ms[k * channels + c] + half * own(c) * own(c) * share(k, c)
                    };
                    (0..channels).map(term).sum::<f64>() / temperature
                };
                let label = ids[r] as usize;
                let kept = |c: usize| if accumulate { before[r * channels + c] } else { 0.0 };
                if label >= CLASSES {
                    (0..channels).for_each(|c| gradients[r * channels + c] = kept(c));
                    continue;
                }
                let z: Vec<f64> = (0..CLASSES).map(|k| near(k, 0.5)).collect();
                let (total, p) = softmax(&z);
                losses[r] = total.ln() - near(label, 0.0);
                for c in 0..channels {
                    let toward: f64 = (0..CLASSES)
                        .map(|k| p[k] * (ms[k * channels + c] + own(c) * share(k, c)))
                        .sum();
                    let own = (toward - ms[label * channels + c]) / (5.0 * temperature);
                    gradients[r * channels + c] = kept(c) + 1.25 * (own + weight * ps[c]);
                }
            }
            close("loss", &host.read(&loss), &losses);
            close("dq", &host.read(&dq), &gradients);
        }
    }
}

#[test]
fn bank_rows() {
    let host = Host::double();
    let (device, temperature, weight, length) = (&host.device, 0.5, 0.75, 5);
    for [rows, channels] in SIZES {
        let (q, qs) = host.reals(&[rows, channels]);
        let (centers, cs) = host.reals(&[CLASSES, channels]);
        let (bank, bs) = host.reals(&[CLASSES, length, channels]);
        let (pull, ps) = host.reals(&[channels]);
        let pushed = [1i64, 3, 5, 17];
        let ids = labels(&host, rows);
        let on_device = device.upload(&[rows], &ids).unwrap();
        let (labeled, upstream) = (host.upload(&[1], &[5.0]), host.upload(&[1], &[1.25]));
        for accumulate in [false, true] {
            let mut loss = host.room(&[rows]);
            let (mut dq, before) = host.reals(&[rows, channels]);
            kernels::ContrastBankRows {
                q: &q,
                labels: &on_device,
                centers: &centers,
                bank: &bank,
                pushed: &device.upload(&[CLASSES], &pushed).unwrap(),
                pull: &pull,
                labeled: &labeled,
                upstream: Some(&upstream),
                loss: Some(&mut loss),
                dq: Some(&mut dq),
                temperature,
                weight,
                accumulate,
                rows,
                classes: CLASSES,
                length,
                channels,
            }
            .launch(device, GRID)
            .unwrap();
            let (mut losses, mut gradients) = (vec![0.0; rows], vec![0.0; rows * channels]);
            for r in 0..rows {
                let own = &qs[r * channels..][..channels];
                let near = |of: &[f64]| -> f64 {
                    (own.iter().zip(of).map(|(a, b)| a * b).sum::<f64>() / temperature).exp()
                };
                let label = ids[r] as usize;
                let kept = |c: usize| if accumulate { before[r * channels + c] } else { 0.0 };
                if label >= CLASSES {
                    (0..channels).for_each(|c| gradients[r * channels + c] = kept(c));
                    continue;
                }
                let center = |k: usize| &cs[k * channels..][..channels];
                let others: Vec<usize> = (0..CLASSES).filter(|&k| k != label).collect();
                let total: f64 = others.iter().map(|&k| near(center(k))).sum();
                let held = (pushed[label] as usize).min(length);
                let memory = |m: usize| &bs[(label * length + m) * channels..][..channels];
                let count = held as f64;
                losses[r] =
                    (0..held).map(|m| (1.0 + total / near(memory(m))).ln()).sum::<f64>() / count;
                for c in 0..channels {
                    let away: f64 =
                        others.iter().map(|&k| near(center(k)) / total * center(k)[c]).sum();
                    let of = |m: usize| {
                        let share = total / (near(memory(m)) + total);
                        share * (away - memory(m)[c])
                    };
                    let sum = (0..held).map(of).sum::<f64>() / count / (5.0 * temperature);
                    gradients[r * channels + c] = kept(c) + 1.25 * (sum + weight * ps[c]);
                }
            }
            close("loss", &host.read(&loss), &losses);
            close("dq", &host.read(&dq), &gradients);
        }
    }
}

#[test]
fn mean_over_the_labeled_rows() {
    let host = Host::double();
    let (loss, losses) = host.reals(&[23]);
    let regularizer = host.upload(&[1], &[0.5]);
    for (n, wanted) in [(7.0, losses.iter().sum::<f64>() / 7.0 + 0.75 * 0.5), (0.0, 0.0)] {
        let mut value = host.room(&[1]);
        kernels::ContrastFinal {
            loss: &loss,
            labeled: &host.upload(&[1], &[n]),
            regularizer: &regularizer,
            value: &mut value,
            weight: 0.75,
            rows: 23,
        }
        .launch(&host.device, Grid::blocks(1))
        .unwrap();
        let value = host.read(&value)[0];
        assert!((value - wanted).abs() < 1e-12, "{value}, not {wanted}");
    }
}
