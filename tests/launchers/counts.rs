//! Counts over labels: the confusion matrix, majority votes, and boxes.

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

#[test]
fn ignore_unweighted() {
    let host = Host::double();
    let (label, labels) = host.bytes(&[101], 256);
    let weights: Vec<f64> = host.reals(&[101]).1.into_iter().map(|w| w.max(0.0)).collect();
    let weight = host.upload(&[101], &weights);
    let mut to = host.room_for_bytes(&[101]);
    kernels::IgnoreUnweighted { label: &label, weight: &weight, to: &mut to, elements: 101 }
        .launch(&host.device, GRID)
        .unwrap();
    let kept = |(label, weight): (&u8, &f64)| if *weight == 0.0 { 255 } else { *label };
    let expected: Vec<u8> = labels.iter().zip(&weights).map(kept).collect();
    assert!(expected != labels);
    assert_eq!(host.read_bytes(&to), expected);
}

#[test]
fn boxes() {
    let host = Host::double();
    let device = &host.device;
    let [batch, many, parts, height, width] = [3, 4, 5, 11, 13];
    // The last image has a single class and unlabeled pixels.
    let mut labels = host.bytes(&[batch, height, width], 4).1;
    labels.iter_mut().filter(|v| **v == 3).for_each(|v| *v = 255);
    let last = (batch - 1) * height * width;
    labels[last..].iter_mut().filter(|v| **v != 255).for_each(|v| *v = 2);
    let label = device.upload(&[batch, height, width], &labels).unwrap();
    let corners = [[0, 0], [4, 6], [2, 3], [4, 0]];
    let edges = |[y, x]: [i32; 2]| [y, y + 7, x, x + 7];
    let drawn: Vec<[i32; 4]> =
        (0..batch * many).map(|i| edges(corners[(i * 3 + i / many) % many])).collect();
    let boxes = host.ints(drawn.as_flattened());
    let mut counts = host.ints(&vec![9; batch * many * parts * 256]);
    kernels::CountInBoxes {
        label: &label,
        boxes: &boxes,
        counts: &mut counts,
        batch,
        many,
        parts,
        height,
        width,
    }
    .launch(device, Grid::blocks(batch * many * parts))
    .unwrap();
    let inside = |i: usize, rows: std::ops::Range<usize>| {
        let [y1, _, x1, x2] = drawn[i].map(|edge| edge as usize);
        let mut found = [0i32; 256];
        for (y, x) in rows.flat_map(|y| (x1..x2).map(move |x| (y, x))) {
            found[labels[at([batch, height, width], [i / many, y1 + y, x])] as usize] += 1;
        }
        found
    };
    let expected: Vec<i32> = each([batch * many, parts])
        .flat_map(|[i, p]| inside(i, 7 * p / parts..7 * (p + 1) / parts))
        .collect();
    assert_eq!(device.read::<i32>(&counts).unwrap(), expected);

    for max_share in [0.75, 0.4] {
        let mut scores = host.room(&[batch * many]);
        kernels::ScoreBoxes {
            counts: &counts,
            scores: &mut scores,
            boxes: batch * many,
            parts,
            max_share,
        }
        .launch(device, GRID)
        .unwrap();
        let score = |i: usize| {
            let found = inside(i, 0..7);
            let (total, most) =
                (found[..255].iter().sum::<i32>(), found[..255].iter().max().unwrap());
            let classes = found[..255].iter().filter(|&&n| n > 0).count();
            let balanced = classes > 1 && f64::from(*most) / f64::from(total) < max_share;
            let logs = found[..255].iter().filter(|&&n| n > 1).map(|&n| f64::from(n).ln()).sum();
            if balanced { logs } else { 0.0 }
        };
        let expected: Vec<f64> = (0..batch * many).map(score).collect();
        crate::close("scores", &host.read(&scores), &expected);
        let mut place = host.ints(&vec![0; batch * 4]);
        kernels::ChooseBox { scores: &scores, boxes: &boxes, place: &mut place, batch, many }
            .launch(device, GRID)
            .unwrap();
        let best = |image: usize| {
            let of = image * many..(image + 1) * many;
            let most = expected[of.clone()].iter().copied().fold(f64::MIN, f64::max);
            of.into_iter().find(|&i| (expected[i] - most).abs() < 1e-9).unwrap()
        };
        let wanted: Vec<i32> = (0..batch).flat_map(|image| drawn[best(image)]).collect();
        assert_eq!(device.read::<i32>(&place).unwrap(), wanted);
    }
}
