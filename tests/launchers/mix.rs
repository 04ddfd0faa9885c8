//! Mixing: which classes a label contains, which are chosen, and the image composed from their
//! pixels.

use udass_raw::device::{Grid, kernels};
use udass_raw::tensor::Tensor;

use crate::{GRID, Host, close, each, jittered};

#[test]
fn presence_of_values() {
    let host = Host::double();
    let images = 3;
    // The last part is shorter than the others, has no pixels at all, or is as long.
    for (parts, pixels) in [(5, 333), (4, 5), (4, 8), (1, 40)] {
        let (_, mut all) = host.bytes(&[images, pixels], 40);
        all.iter_mut().filter(|v| **v == 7).for_each(|v| *v = 255);
        let label = host.device.upload(&[images, pixels], &all).unwrap();
        let mut counts = host.ints(&vec![9; images * parts * 256]);
        let grid = Grid::blocks(images * parts);
        kernels::CountValues { label: &label, counts: &mut counts, parts, pixels }
            .launch(&host.device, grid)
            .unwrap();
        let mut expected = vec![0; images * parts * 256];
        for [image, pixel] in each([images, pixels]) {
            let part = image * parts + pixel / pixels.div_ceil(parts);
            expected[part * 256 + all[image * pixels + pixel] as usize] += 1;
        }
        let counted = host.device.read::<i32>(&counts).unwrap();
        assert_eq!(counted, expected, "{parts} parts of {pixels} pixels");

        let mut present = host.room_for_bytes(&[images, 256]);
        kernels::ValuePresence { counts: &counts, present: &mut present, parts, images: 3 }
            .launch(&host.device, GRID)
            .unwrap();
        let mut flags = vec![0; images * 256];
        for [image, pixel] in each([images, pixels]) {
            flags[image * 256 + all[image * pixels + pixel] as usize] = 1;
        }
        assert_eq!(host.read_bytes(&present), flags, "{parts} parts of {pixels} pixels");
    }
}

/// Optional parts of a mixed image.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// The weights of the base image (0) or of a layer (1, 2).
    Weight(usize),
    Layer(usize),
    Confident(usize),
    Crops,
    Reversed,
    Jitter,
    Switch,
}
use Part::*;

const PARTS: [Part; 11] = [
    Weight(0),
    Layer(1),
    Weight(1),
    Confident(1),
    Layer(2),
    Weight(2),
    Confident(2),
    Crops,
    Reversed,
    Jitter,
    Switch,
];

/// A layer's tensors and their values on the host.
struct Layered {
    image: (Tensor, Vec<f64>),
    label: (Tensor, Vec<u8>),
    weight: (Tensor, Vec<f64>),
    table: (Tensor, Vec<u8>),
    confident: (Tensor, Vec<u8>),
}

impl Layered {
    /// `values`: number of distinct labels, counted down from 255; `chosen`: upper bound of the
    /// tables' entries.
    fn new(host: &Host, [b, n]: [usize; 2], values: u64, chosen: u64) -> Layered {
        let label: Vec<u8> = host.bytes(&[b, n], values).1.iter().map(|v| 255 - v).collect();
        Layered {
            image: host.reals(&[b, n, 3]),
            label: (host.device.upload(&[b, n], &label).unwrap(), label),
            weight: host.reals(&[b, n]),
            table: host.bytes(&[b, 256], chosen),
            confident: host.bytes(&[b, n], 3),
        }
    }
}

#[test]
fn mix() {
    let host = Host::double();
    // All parts, none, all but one, and each one with the parts that it requires.
    let but = |part| PARTS.into_iter().filter(|&other| other != part).collect();
    let alone = |part| match part {
        Weight(0) => vec![part],
        Weight(l) | Confident(l) => vec![Layer(l), part],
        Reversed => vec![Crops, part],
        Switch => vec![Jitter, part],
        _ => vec![part],
    };
    let mut sets = vec![PARTS.to_vec(), Vec::new()];
    sets.extend(PARTS.map(but));
    sets.extend(PARTS.map(alone));
    for parts in &sets {
        mixed(&host, [3, 37], 256, 3, parts);
    }
    // A single image; tables that choose nothing; no labeled pixels.
    for (size, values, chosen) in [([1, 5], 4, 3), ([3, 11], 256, 1), ([3, 11], 1, 2)] {
        mixed(&host, size, values, chosen, &PARTS);
    }
}

/// Mixes `b` images of `n` pixels and compares them with plain loops.
fn mixed(host: &Host, [b, n]: [usize; 2], values: u64, chosen: u64, parts: &[Part]) {
    let has = |part| parts.contains(&part);
    let layers: [Layered; 3] = std::array::from_fn(|_| Layered::new(host, [b, n], values, chosen));
    let (rgb, colors) = host.bytes(&[b, 2, n, 3], 256);
    let (crop_label, crops) = host.bytes(&[b, 2, n], 5);
    let classes = [2u8, 1];
    let on_device = host.device.upload(&[2], &classes).unwrap();
    let (_, gains) = host.positive(&[3]);
    let gains: Vec<f64> = gains.iter().map(|gain| gain / 255.0).collect();
    let (factors, f) = host.positive(&[b, 4]);
    let orders = &[3, 0, -1, 2, 2, 1, 0, 3, -1, 3, 1, 0][..4 * b];
    let switches = host.ints(&[has(Switch) as i32, 1 - has(Switch) as i32]);
    // Means and deviations that bring the colors into [0, 1].
    let (_, means) = host.positive(&[3]);
    let means: Vec<f64> = means.iter().map(|mean| mean + 1.0).collect();
    let (std, stds) = host.positive(&[3]);
    let unit = 0.2;

    let (mut image, mut weight) = (host.room(&[b, n, 3]), host.room(&[b, n]));
    let mut label = host.room_for_bytes(&[b, n]);
    let [under, lower, upper] = &layers;
    kernels::Mix {
        under: &under.image.0,
        under_label: &under.label.0,
        under_weight: has(Weight(0)).then_some(&under.weight.0),
        lower: has(Layer(1)).then_some(&lower.image.0),
        lower_label: has(Layer(1)).then_some(&lower.label.0),
        lower_weight: has(Weight(1)).then_some(&lower.weight.0),
        lower_table: has(Layer(1)).then_some(&lower.table.0),
        lower_confident: has(Confident(1)).then_some(&lower.confident.0),
        upper: has(Layer(2)).then_some(&upper.image.0),
        upper_label: has(Layer(2)).then_some(&upper.label.0),
        upper_weight: has(Weight(2)).then_some(&upper.weight.0),
        upper_table: has(Layer(2)).then_some(&upper.table.0),
        upper_confident: has(Confident(2)).then_some(&upper.confident.0),
        rgb: has(Crops).then_some(&rgb),
        crop_label: has(Crops).then_some(&crop_label),
        classes: has(Crops).then_some(&on_device),
        gain: has(Crops).then_some(&host.upload(&[3], &gains)),
        factors: has(Jitter).then_some(&factors),
        order: has(Jitter).then_some(&host.ints(orders)),
        switches: has(Jitter).then_some(&switches),
        mean: &host.upload(&[3], &means),
        std: &std,
        image: &mut image,
        label: &mut label,
        weight: &mut weight,
        reversed: has(Reversed),
        unit,
        batch: b,
        pixels: n,
    }
    .launch(&host.device, GRID)
    .unwrap();

    let (mut pixels, mut labels, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for [i, p] in each([b, n]) {
        let at = i * n + p;
        let covers = |l: &usize| {
            let layer = &layers[*l];
            has(Layer(*l))
                && layer.table.1[i * 256 + layer.label.1[at] as usize] != 0
                && (!has(Confident(*l)) || layer.confident.1[at] != 0)
        };
        let seen = [2, 1].into_iter().find(covers).unwrap_or(0);
        let layer = &layers[seen];
        let mut color = [0, 1, 2].map(|c| layer.image.1[3 * at + c]);
        let mut value = layer.label.1[at];
        for (k, class) in classes.into_iter().enumerate() {
            let from = (2 * i + k) * n + p;
            if has(Crops) && crops[from] == class {
                let channel = |c| 3 * from + if has(Reversed) { 2 - c } else { c };
                color = [0, 1, 2].map(|c| (colors[channel(c)] as f64 - means[c]) * gains[c]);
                value = class;
            }
        }
        if has(Jitter) && has(Switch) {
            let rgb = [0, 1, 2].map(|c| (color[c] * stds[c] + means[c]) * unit);
            let rgb = jittered(rgb, &f[4 * i..], &orders[4 * i..][..4]);
            color = [0, 1, 2].map(|c| (rgb[c] / unit - means[c]) / stds[c]);
        }
        pixels.extend(color);
        labels.push(value);
        weights.push(if has(Weight(seen)) { layer.weight.1[at] } else { 1.0 });
    }
    close("image", &host.read(&image), &pixels);
    assert_eq!(host.read_bytes(&label), labels);
    close("weight", &host.read(&weight), &weights);
}

/// The values that are flagged in any of the rows of 256 flags, except those in `without`.
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
    let [b, most, values] = [3, 131, 233];
    let mut flags = vec![0u8; b * 256];
    let (_, noise) = host.bytes(&[b, 256], 12);
    flags.iter_mut().zip(&noise).for_each(|(flag, &n)| *flag = (n == 0) as u8);
    let present = host.device.upload(&[b, 256], &flags).unwrap();
    let (_, raw) = host.reals(&[b, most]);
    let u: Vec<f64> = raw.iter().map(|x| (x + 1.0) / 2.0).collect();
    let uniforms = host.upload(&[b, most], &u);
    let mut table = host.room_for_bytes(&[b, 256]);
    let one = Grid::blocks(1);
    let listed = |rows: &[u8], without: &[i32]| -> Vec<usize> {
        listed(rows, without).into_iter().filter(|&v| v < values).collect()
    };
    let device = &host.device;
    kernels::ChooseHalf {
        present: &present,
        uniforms: &uniforms,
        table: &mut table,
        values: 233,
        whole: 3,
        batch: 3,
        most: 131,
    }
    .launch(device, one)
    .unwrap();
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
    let rows = |i: usize| &flags[i * 256..][..256];
    // Avoids values that are present, so that avoiding them changes the choice.
    let avoided: Vec<i32> =
        (0..b).flat_map(|i| listed(rows(i), &[])[..2].to_vec()).map(|v| v as i32).collect();
    let avoid = host.ints(&avoided);
    for positions in [false, true] {
        let mut chosen = host.ints(&[9; 6]);
        kernels::ChooseTwo {
            present: &present,
            uniforms: &uniforms,
            avoid: Some(&avoid),
            table: &mut table,
            chosen: Some(&mut chosen),
            positions,
            values: 233,
            batch: 3,
        }
        .launch(&host.device, one)
        .unwrap();
        let (mut expected, mut handed_on) = (vec![0u8; b * 256], Vec::new());
        for i in 0..b {
            let all = listed(rows(i), &avoided[2 * i..2 * i + 2]);
            let mut list = all.clone();
            for j in 0..2 {
                let value = take(&mut list, u[2 * i + j]);
                expected[i * 256 + value] = 1;
                let rank = all.iter().position(|&v| v == value).unwrap();
                handed_on.push(if positions { rank } else { value } as i32);
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
    // None, one, two and three values; 255 is a value like any other.
    let values: [&[usize]; 4] = [&[], &[255], &[0, 19], &[3, 4, 255]];
    let mut flags = vec![0u8; b * 256];
    for (row, values) in flags.chunks_mut(256).zip(values) {
        values.iter().for_each(|&v| row[v] = 1);
    }
    let present = device.upload(&[b, 256], &flags).unwrap();
    // A uniform of 1 takes the last value, as if it were just below 1.
    let uniforms = host.upload(&[b, most], &[1.0, 0.0, 1.0, 1.0, 0.5, 1.0, 0.9, 0.5]);
    let marked = |rows: [&[usize]; 4]| {
        let mut table = vec![0u8; b * 256];
        for (row, values) in table.chunks_mut(256).zip(rows) {
            values.iter().for_each(|&v| row[v] = 1);
        }
        table
    };
    // One value is avoided in each of the last two rows.
    let avoid = host.ints(&[-1, -1, -1, -1, 0, -1, -1, 255]);
    let all: [&[usize]; 4] = [&[], &[255], &[0, 19], &[255, 4]];
    let rest: [&[usize]; 4] = [&[], &[255], &[19], &[3, 4]];
    let labeled: [&[usize]; 4] = [&[], &[], &[0, 19], &[4, 3]];
    for (avoid, positions, values, rows, handed_on) in [
        (None, false, 256, all, [-1, -1, 255, -1, 19, 0, 255, 4]),
        (None, true, 256, all, [-1, -1, 0, -1, 1, 0, 2, 1]),
        (None, false, 255, labeled, [-1, -1, -1, -1, 19, 0, 4, 3]),
        (Some(&avoid), false, 256, rest, [-1, -1, 255, -1, 19, -1, 4, 3]),
        (Some(&avoid), true, 256, rest, [-1, -1, 0, -1, 0, -1, 1, 0]),
    ] {
        for asked in [true, false] {
            let mut table = host.room_for_bytes(&[b, 256]);
            let mut chosen = host.ints(&[9; 8]);
            kernels::ChooseTwo {
                present: &present,
                uniforms: &uniforms,
                avoid,
                table: &mut table,
                chosen: asked.then_some(&mut chosen),
                positions,
                values,
                batch: 4,
            }
            .launch(device, one)
            .unwrap();
            assert_eq!(host.read_bytes(&table), marked(rows));
            let wanted = if asked { handed_on } else { [9; 8] };
            assert_eq!(device.read::<i32>(&chosen).unwrap(), wanted);
        }
    }

    // Half of the five values that occur in any image, rounded up.
    let uniforms =
        host.upload(&[b, 3], &[1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.3, 0.6, 0.9]);
    let mut table = host.room_for_bytes(&[b, 256]);
    kernels::ChooseHalf {
        present: &present,
        uniforms: &uniforms,
        table: &mut table,
        values: 256,
        whole: 4,
        batch: 4,
        most: 3,
    }
    .launch(device, one)
    .unwrap();
    let expected = marked([&[255, 19, 4], &[0, 3, 4], &[4, 19, 3], &[3, 19, 255]]);
    assert_eq!(host.read_bytes(&table), expected);
    // Half of the four of them that are labels.
    kernels::ChooseHalf {
        present: &present,
        uniforms: &uniforms,
        table: &mut table,
        values: 255,
        whole: 4,
        batch: 4,
        most: 3,
    }
    .launch(device, one)
    .unwrap();
    assert_eq!(host.read_bytes(&table), marked([&[19, 4], &[0, 3], &[4, 3], &[3, 4]]));
}
