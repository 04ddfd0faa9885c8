//! Counts over labels: the confusion matrix, and majority votes.

use udass_raw::device::{Grid, kernels};

use crate::{GRID, Host, at, each};

#[test]
fn confusion() {
    let host = Host::double();
    let device = &host.device;
    let (classes, parts) = (5, 6);
    let odd = classes * classes;
    // The second size leaves the last parts without pixels.
    for n in [501, 7, 1] {
        // Some labels and predictions are not a class, and some labels are ignored.
        let known = |v: u8| if v == 6 { 255 } else { v };
        let labels: Vec<u8> = host.bytes(&[n], 7).1.into_iter().map(known).collect();
        let said: Vec<u8> = host.bytes(&[n], 7).1.into_iter().map(known).collect();
        let (mut expected, length) = (vec![0; parts * (odd + 1)], n.div_ceil(parts));
        for (i, (&label, &said)) in labels.iter().zip(&said).enumerate() {
            let [label, said] = [label as usize, said as usize];
            if label != 255 {
                let counter = if label.max(said) < classes { label * classes + said } else { odd };
                expected[i / length * (odd + 1) + counter] += 1;
            }
        }
        let (said, labels) =
            (device.upload(&[n], &said).unwrap(), device.upload(&[n], &labels).unwrap());
        let mut partial = host.ints(&vec![9; parts * (odd + 1)]);
        kernels::ConfusionPartial {
            prediction: &said,
            labels: &labels,
            partial: &mut partial,
            classes,
            pixels: n,
        }
        .launch(device, Grid::blocks(parts))
        .unwrap();
        assert_eq!(device.read::<i32>(&partial).unwrap(), expected, "{n} pixels");

        let before: Vec<i64> = (0..=odd as i64).map(|k| (k - 3) << 33).collect();
        let mut counts = device.upload(&[odd + 1], &before).unwrap();
        kernels::ConfusionFinal {
            partial: &partial,
            counts: &mut counts,
            parts: 6,
            counters: odd + 1,
        }
        .launch(device, GRID)
        .unwrap();
        let total = |k: usize| expected.iter().skip(k).step_by(odd + 1).sum::<i32>() as i64;
        let wanted: Vec<i64> = (0..=odd).map(|k| before[k] + total(k)).collect();
        assert_eq!(device.read::<i64>(&counts).unwrap(), wanted);
    }
}

#[test]
fn downscale_labels() {
    let host = Host::double();
    let [b, h, w, scale] = [2, 17, 23, 5];
    let (sh, sw) = (h / scale, w / scale);
    // 255 is a value like any other; the last share is exactly that of 10 votes.
    for (values, share) in [([0, 1, 2], 0.41), ([3, 254, 255], 0.41), ([3, 254, 255], 10.0 / 25.0)]
    {
        let drawn = host.bytes(&[b, h, w], 3).1;
        let all: Vec<u8> = drawn.into_iter().map(|v| values[v as usize]).collect();
        let labels = host.device.upload(&[b, h, w], &all).unwrap();
        let mut small = host.room_for_bytes(&[b, sh, sw]);
        kernels::DownscaleLabels {
            labels: &labels,
            small: &mut small,
            batch: 2,
            height: 17,
            width: 23,
            scale: 5,
            min_share: share,
        }
        .launch(&host.device, GRID)
        .unwrap();
        let expected: Vec<u8> = each([b, sh, sw])
            .map(|[i, y, x]| {
                let mut votes = [0; 256];
                for [dy, dx] in each([scale, scale]) {
                    let pixel = [i, y * scale + dy, x * scale + dx];
                    votes[all[at([b, h, w], pixel)] as usize] += 1;
                }
                let most = *votes.iter().max().unwrap();
                let winner = votes.iter().position(|&v| v == most).unwrap();
                if (most as f64) / 25.0 < share { 255 } else { winner as u8 }
            })
            .collect();
        assert!(expected.contains(&255) && expected.iter().any(|&v| v < 255));
        assert_eq!(host.read_bytes(&small), expected);
    }
}
