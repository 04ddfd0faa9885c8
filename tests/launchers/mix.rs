//! Mixing: which classes a label holds, which are chosen, and the pasting of their pixels.

use udass_raw::device::{Grid, kernels};

use crate::{GRID, Host, at, close, each};

#[test]
fn label_presence() {
    let host = Host::double();
    let images = 3;
    // The last part is shorter than the others, has no pixels at all, or is as long.
    for (parts, pixels) in [(5, 333), (4, 5), (4, 8), (1, 40)] {
        let (_, mut all) = host.bytes(&[images, pixels], 40);
        all.iter_mut().filter(|v| **v == 7).for_each(|v| *v = 255);
        let label = host.device.upload(&[images, pixels], &all).unwrap();
        let mut present = host.room_for_bytes(&[images, parts, 256]);
        let grid = Grid::blocks(images * parts);
        let (p, n) = (parts as i64, pixels as i64);
        kernels::label_presence(&host.device, grid, &label, &mut present, p, n).unwrap();
        let mut expected = vec![0; images * parts * 256];
        for [image, pixel] in each([images, pixels]) {
            let part = image * parts + pixel / pixels.div_ceil(parts);
            expected[part * 256 + all[image * pixels + pixel] as usize] = 1;
        }
        assert_eq!(host.read_bytes(&present), expected, "{parts} parts of {pixels} pixels");
    }
}

#[test]
fn class_mask() {
    let host = Host::double();
    let [b, n] = [3, 37];
    let (label, labels) = host.bytes(&[b, n], 256);
    for below in [2, 1] {
        // Then tables that choose nothing.
        let (table, chosen) = host.bytes(&[b, 256], below);
        let (confident, sure) = host.bytes(&[b, n], 3);
        for with in [None, Some(&confident)] {
            let mut mask = host.room_for_bytes(&[b, n]);
            kernels::class_mask(&host.device, GRID, &label, &table, with, &mut mask, 3, 37)
                .unwrap();
            let expected: Vec<u8> = (0..b * n)
                .map(|i| match with.is_some() && sure[i] == 0 {
                    true => 0,
                    false => chosen[i / n * 256 + labels[i] as usize],
                })
                .collect();
            assert_eq!(expected.contains(&1), below == 2);
            assert_eq!(host.read_bytes(&mask), expected);
        }
    }
}

#[test]
fn paste() {
    let host = Host::double();
    for n in [11, 111] {
        // The last mask is empty; what is not 0 pastes.
        for below in [3, 1] {
            let (mask, masked) = host.bytes(&[n], below);
            let (over, above) = host.reals(&[n, 3]);
            let (under, beneath) = host.reals(&[n, 3]);
            let (over_label, above_label) = host.bytes(&[n], 256);
            let (under_label, beneath_label) = host.bytes(&[n], 256);
            let (over_weight, above_weight) = host.reals(&[n]);
            let (under_weight, beneath_weight) = host.reals(&[n]);
            for [a, b] in each([2, 2]) {
                let (mut out, mut weight) = (host.room(&[n, 3]), host.room(&[n]));
                let mut label = host.room_for_bytes(&[n]);
                kernels::paste(
                    &host.device,
                    GRID,
                    &mask,
                    &over,
                    &over_label,
                    (a == 1).then_some(&over_weight),
                    &under,
                    &under_label,
                    (b == 1).then_some(&under_weight),
                    &mut out,
                    &mut label,
                    &mut weight,
                    n as i64,
                )
                .unwrap();
                let top = |i: usize| masked[i] != 0;
                let of = |n: usize, f: &dyn Fn(usize) -> f64| (0..n).map(f).collect::<Vec<f64>>();
                let pixels = of(3 * n, &|i| if top(i / 3) { above[i] } else { beneath[i] });
                close("image", &host.read(&out), &pixels);
                let weights = of(n, &|i| match (top(i), a, b) {
                    (true, 1, _) => above_weight[i],
                    (false, _, 1) => beneath_weight[i],
                    _ => 1.0,
                });
                close("weight", &host.read(&weight), &weights);
                let labels = (0..n).map(|i| if top(i) { above_label[i] } else { beneath_label[i] });
                assert_eq!(host.read_bytes(&label), labels.collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn paste_rare() {
    let host = Host::double();
    let [b, n] = [3, 11];
    let (rgb, colours) = host.bytes(&[b, 2, n, 3], 256);
    let (crop_label, crops) = host.bytes(&[b, 2, n], 3);
    let classes = [2u8, 1];
    let on_device = host.device.upload(&[2], &classes).unwrap();
    let (shift, shifts) = host.reals(&[3]);
    let (gain, gains) = host.reals(&[3]);
    for reversed in [0, 1] {
        let (mut image, mut pixels) = host.reals(&[b, n, 3]);
        let (mut label, mut labels) = host.bytes(&[b, n], 250);
        kernels::paste_rare(
            &host.device,
            GRID,
            &rgb,
            &crop_label,
            &on_device,
            &shift,
            &gain,
            &mut image,
            &mut label,
            reversed,
            3,
            11,
        )
        .unwrap();
        for [i, k, p] in each([b, 2, n]) {
            let from = at([b, 2, n], [i, k, p]);
            if crops[from] != classes[k] {
                continue;
            }
            labels[i * n + p] = classes[k];
            for c in 0..3 {
                let channel = if reversed == 1 { 2 - c } else { c };
                let value = colours[3 * from + channel] as f64;
                pixels[3 * (i * n + p) + c] = (value - shifts[c]) * gains[c];
            }
        }
        close("paste_rare", &host.read(&image), &pixels);
        assert_eq!(host.read_bytes(&label), labels);
    }
}

/// Values that any of some rows of 256 flags hold, without some.
fn listed(rows: &[u8], without: &[i32]) -> Vec<usize> {
    (0..256)
        .filter(|&v| rows.chunks(256).any(|row| row[v] != 0) && !without.contains(&(v as i32)))
        .collect()
}

fn take(list: &mut Vec<usize>, u: f64) -> usize {
    list.remove((u * list.len() as f64) as usize)
}

#[test]
fn choices_of_classes() {
    let host = Host::double();
    let [b, parts, most, values] = [3, 5, 131, 233];
    // Few values in each part, so that parts and images differ.
    let mut flags = vec![0u8; b * parts * 256];
    let (_, noise) = host.bytes(&[b, parts, 256], 60);
    flags.iter_mut().zip(&noise).for_each(|(flag, &n)| *flag = (n == 0) as u8);
    let present = host.device.upload(&[b, parts, 256], &flags).unwrap();
    let (_, raw) = host.reals(&[b, most]);
    let u: Vec<f64> = raw.iter().map(|x| (x + 1.0) / 2.0).collect();
    let uniforms = host.upload(&[b, most], &u);
    let mut table = host.room_for_bytes(&[b, 256]);
    let one = Grid::blocks(1);
    let listed = |rows: &[u8], without: &[i32]| -> Vec<usize> {
        listed(rows, without).into_iter().filter(|&v| v < values).collect()
    };
    let device = &host.device;
    kernels::choose_half(device, one, &present, &uniforms, &mut table, 233, 3, 5, 131).unwrap();
    let mut expected = vec![0u8; b * 256];
    for i in 0..b {
        let mut list = listed(&flags, &[]);
        let n = list.len();
        assert!(n > 20 && n.div_ceil(2) < most);
        (0..n.div_ceil(2)).for_each(|j| expected[i * 256 + take(&mut list, u[i * most + j])] = 1);
    }
    assert_eq!(host.read_bytes(&table), expected);

    let (_, raw) = host.reals(&[b, 2]);
    let u: Vec<f64> = raw.iter().map(|x| (x + 1.0) / 2.0).collect();
    let uniforms = host.upload(&[b, 2], &u);
    let rows = |i: usize| &flags[i * parts * 256..][..parts * 256];
    // Values that are there, so that avoiding them changes what is drawn.
    let avoided: Vec<i32> =
        (0..b).flat_map(|i| listed(rows(i), &[])[..2].to_vec()).map(|v| v as i32).collect();
    let avoid = host.ints(&avoided);
    for positions in [0, 1] {
        let mut chosen = host.ints(&[9; 6]);
        kernels::choose_two(
            &host.device,
            one,
            &present,
            &uniforms,
            Some(&avoid),
            &mut table,
            Some(&mut chosen),
            positions,
            233,
            3,
            5,
        )
        .unwrap();
        let (mut expected, mut handed_on) = (vec![0u8; b * 256], Vec::new());
        for i in 0..b {
            let all = listed(rows(i), &avoided[2 * i..2 * i + 2]);
            let mut list = all.clone();
            for j in 0..2 {
                let value = take(&mut list, u[2 * i + j]);
                expected[i * 256 + value] = 1;
                let rank = all.iter().position(|&v| v == value).unwrap();
                handed_on.push(if positions == 1 { rank } else { value } as i32);
            }
        }
        assert_eq!(host.read_bytes(&table), expected);
        assert_eq!(host.device.read::<i32>(&chosen).unwrap(), handed_on);
    }
}

#[test]
fn choices_of_few_classes() {
    let host = Host::double();
    let device = &host.device;
    let (b, most, one) = (4, 2, Grid::blocks(1));
    // None, one, two and three values; 255 is one as any other.
    let values: [&[usize]; 4] = [&[], &[255], &[0, 19], &[3, 4, 255]];
    let mut flags = vec![0u8; b * 256];
    for (row, values) in flags.chunks_mut(256).zip(values) {
        values.iter().for_each(|&v| row[v] = 1);
    }
    let present = device.upload(&[b, 1, 256], &flags).unwrap();
    // A number of 1 takes the last, as if it were just below.
    let uniforms = host.upload(&[b, most], &[1.0, 0.0, 1.0, 1.0, 0.5, 1.0, 0.9, 0.5]);
    let marked = |rows: [&[usize]; 4]| {
        let mut table = vec![0u8; b * 256];
        for (row, values) in table.chunks_mut(256).zip(rows) {
            values.iter().for_each(|&v| row[v] = 1);
        }
        table
    };
    // One value is avoided, and then none.
    let avoid = host.ints(&[-1, -1, -1, -1, 0, -1, -1, 255]);
    let all: [&[usize]; 4] = [&[], &[255], &[0, 19], &[255, 4]];
    let rest: [&[usize]; 4] = [&[], &[255], &[19], &[3, 4]];
    let labelled: [&[usize]; 4] = [&[], &[], &[0, 19], &[4, 3]];
    for (avoid, positions, values, rows, handed_on) in [
        (None, 0, 256, all, [-1, -1, 255, -1, 19, 0, 255, 4]),
        (None, 1, 256, all, [-1, -1, 0, -1, 1, 0, 2, 1]),
        (None, 0, 255, labelled, [-1, -1, -1, -1, 19, 0, 4, 3]),
        (Some(&avoid), 0, 256, rest, [-1, -1, 255, -1, 19, -1, 4, 3]),
        (Some(&avoid), 1, 256, rest, [-1, -1, 0, -1, 0, -1, 1, 0]),
    ] {
        for asked in [true, false] {
            let mut table = host.room_for_bytes(&[b, 256]);
            let mut chosen = host.ints(&[9; 8]);
            kernels::choose_two(
                device,
                one,
                &present,
                &uniforms,
                avoid,
                &mut table,
                asked.then_some(&mut chosen),
                positions,
                values,
                4,
                1,
            )
            .unwrap();
            assert_eq!(host.read_bytes(&table), marked(rows));
            let wanted = if asked { handed_on } else { [9; 8] };
            assert_eq!(device.read::<i32>(&chosen).unwrap(), wanted);
        }
    }

    // Half of the five values of all, rounded up.
    let uniforms =
        host.upload(&[b, 3], &[1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.3, 0.6, 0.9]);
    let mut table = host.room_for_bytes(&[b, 256]);
    kernels::choose_half(device, one, &present, &uniforms, &mut table, 256, 4, 1, 3).unwrap();
    let expected = marked([&[255, 19, 4], &[0, 3, 4], &[4, 19, 3], &[3, 19, 255]]);
    assert_eq!(host.read_bytes(&table), expected);
    // And of the four that are labels.
    kernels::choose_half(device, one, &present, &uniforms, &mut table, 255, 4, 1, 3).unwrap();
    assert_eq!(host.read_bytes(&table), marked([&[19, 4], &[0, 3], &[4, 3], &[3, 4]]));
}
