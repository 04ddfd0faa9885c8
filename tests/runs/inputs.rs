//! Tests the random inputs of an iteration: ranges, distributions, and that they are a function of
//! seed and iteration.

use std::collections::{HashMap, HashSet};

use udass_raw::config::Config;
use udass_raw::uda::inputs::{MAX_CLASSES, PASSES, StepInputs, mask_cells};

use crate::support::config;

fn draws(config: &Config, count: u64) -> impl Iterator<Item = StepInputs> + '_ {
    (0..count).map(|iteration| StepInputs::draw(config, iteration, 0))
}

#[test]
fn inputs_are_a_function_of_seed_and_iteration() {
    let config = config(&[]);
    let forward: Vec<_> = draws(&config, 6).collect();
    for i in [3, 0, 5, 3] {
        assert_eq!(StepInputs::draw(&config, i, 0), forward[i as usize]);
    }
    // No random input is shared by two iterations or by two seeds.
    let other = StepInputs::draw(&Config { seed: 2, ..config.clone() }, 3, 0);
    for different in [&forward[4], &other] {
        let same = &forward[3];
        assert_ne!(same.drop_key, different.drop_key);
        assert_ne!(same.detail_boxes, different.detail_boxes);
        assert_ne!(same.class_mix, different.class_mix);
        assert_ne!(same.template_source, different.template_source);
        assert_ne!(same.template_target, different.template_target);
        assert_ne!(same.augment, different.augment);
        assert_ne!(same.mask_grid, different.mask_grid);
    }
    assert_eq!(other.update, forward[3].update, "schedules know no seed");
    let keys: HashSet<u64> = draws(&config, 1000).map(|inputs| inputs.drop_key).collect();
    assert_eq!(keys.len(), 1000);
}

#[test]
fn shapes_follow_the_batch_and_images_have_draws_of_their_own() {
    let config = config(&["data.batch=3", "mask.block=16"]);
    let inputs = StepInputs::draw(&config, 7, 0);
    assert_eq!(inputs.class_mix.len(), 3 * MAX_CLASSES);
    assert_eq!((inputs.template_source.len(), inputs.template_target.len()), (3, 3));
    assert_eq!(inputs.augment.len(), 15);
    assert_eq!(inputs.mask_grid.len(), 3 * 4 * 4);
    let rows: HashSet<Vec<u32>> = (inputs.class_mix.chunks(MAX_CLASSES))
        .map(|row| row.iter().map(|x| x.to_bits()).collect())
        .collect();
    assert_eq!(rows.len(), 3);
    let grids: HashSet<Vec<u32>> =
        inputs.mask_grid.chunks(16).map(|row| row.iter().map(|x| x.to_bits()).collect()).collect();
    assert_eq!(grids.len(), 3);
    let factors: HashSet<[u32; 4]> =
        inputs.augment.iter().map(|a| a.factors.map(f32::to_bits)).collect();
    assert_eq!(factors.len(), 15, "every image is jittered by factors of its own");
    assert_ne!(inputs.template_source, inputs.template_target);
}

#[test]
fn detail_boxes_fall_on_every_offset_but_the_last() {
    // 64 − 32 = 32: offsets 0, 8, 16, 24 and 32, of which the reference never draws the last.
    let config = config(&[]);
    let mut seen = [[[0u32; 5]; 2]; PASSES];
    let count = 4000;
    for inputs in draws(&config, count) {
        for (pass, [y1, y2, x1, x2]) in inputs.detail_boxes.into_iter().enumerate() {
            assert_eq!((y2 - y1, x2 - x1), (32, 32));
            assert!(y1 >= 0 && x1 >= 0 && y2 <= 64 && x2 <= 64);
            assert_eq!((y1 % 8, x1 % 8), (0, 0));
            seen[pass][0][y1 as usize / 8] += 1;
            seen[pass][1][x1 as usize / 8] += 1;
        }
    }
    // 1000 expected, standard deviation 27.
    for counts in seen.as_flattened() {
        assert!(counts[..4].iter().all(|n| n.abs_diff(1000) < 165), "{seen:?}");
        assert_eq!(counts[4], 0, "the last offset was drawn");
    }
    // Each direction and each pass has its own draws.
    let boxes: Vec<_> = draws(&config, 200).map(|inputs| inputs.detail_boxes).collect();
    assert!(boxes.iter().any(|b| b[0][0] != b[0][2]));
    for pass in 1..PASSES {
        assert!(boxes.iter().any(|b| b[0] != b[pass]), "pass {pass}");
    }
}

#[test]
fn a_detail_as_large_as_the_crop_has_one_place() {
    for (sets, last) in [
        (&["network.hrda.detail_crop=64"][..], 0),
        (&["network.hrda.detail_crop=56"], 0),
        (&["network.hrda.detail_crop=48"], 8),
        (&["network.hrda.divisible=16"], 16),
        // The intended behavior: the crop can touch every edge.
        (&["network.hrda.released_offsets=false"], 32),
        (&["network.hrda.released_offsets=false", "network.hrda.detail_crop=48"], 16),
        (&["network.hrda.released_offsets=false", "network.hrda.detail_crop=64"], 0),
    ] {
        let config = config(sets);
        let drawn: HashSet<i32> = draws(&config, 300).map(|i| i.detail_boxes[0][0]).collect();
        let step = config.network.hrda.divisible;
        let expected: HashSet<i32> = (0..=last).step_by(step).collect();
        assert_eq!(drawn, expected, "{sets:?}");
    }
}

#[test]
fn the_mask_has_one_cell_a_block_halves_to_even() {
    let cases =
        [(1024, 64, 16), (64, 16, 4), (160, 64, 2), (224, 64, 4), (96, 64, 2), (64, 100, 1)];
    for (crop, block, cells) in cases {
        assert_eq!(mask_cells(crop, block), cells, "{crop} by {block}");
    }
    // 0.5 rounds to 0, but there is at least one cell.
    assert_eq!(mask_cells(32, 64), 1);
    assert_eq!(mask_cells(32, 1000), 1);
    let config = config(&["mask.block=25"]);
    let all: Vec<f32> = draws(&config, 500).flat_map(|inputs| inputs.mask_grid).collect();
    assert_eq!(all.len(), 500 * 2 * 3 * 3);
    assert!(all.iter().all(|u| (0.0..1.0).contains(u)));
    // The standard deviation is 0.005.
    let hidden = all.iter().filter(|&&u| u <= 0.7).count() as f32 / all.len() as f32;
    assert!((hidden - 0.7).abs() < 0.03, "{hidden} of the cells are hidden");
}

#[test]
fn factors_fill_their_ranges_and_switches_follow_their_thresholds() {
    let sets = ["augment.jitter_prob=0.8", "augment.blur_prob=0.5"];
    let config = config(&sets);
    let [mut low, mut high] = [[f32::MAX; 5], [f32::MIN; 5]];
    let mut on = [[0u32; 2]; 2];
    let mut apart = 0;
    for inputs in draws(&config, 2000) {
        for image in &inputs.augment {
            let [b, c, s, h] = image.factors;
            for (i, x) in [b, c, s, h, image.sigma].into_iter().enumerate() {
                low[i] = low[i].min(x);
                high[i] = high[i].max(x);
            }
        }
        for (group, switches) in inputs.switches.iter().enumerate() {
            on[group][0] += switches.jitter as u32;
            on[group][1] += switches.blur as u32;
        }
        apart += (inputs.switches[0] != inputs.switches[1]) as u32;
    }
    let ranges = [(0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.2, 0.2), (0.15, 1.15)];
    for (i, (from, to)) in ranges.into_iter().enumerate() {
        let room = (to - from) / 500.0;
        assert!(low[i] >= from - 1e-6 && low[i] < from + room, "{i}: {}", low[i]);
        assert!(high[i] <= to + 1e-6 && high[i] > to - room, "{i}: {}", high[i]);
    }
    // The standard deviations are 18 and 22.
    for [jitter, blur] in on {
        assert!(jitter.abs_diff(1600) < 110 && blur.abs_diff(1000) < 135, "{on:?}");
    }
    assert!(apart > 500, "mixed and masked images share their switches");
}

#[test]
fn the_four_steps_come_in_every_order_and_the_masked_images_share_one() {
    let config = config(&[]);
    let mut orders: HashMap<[i32; 4], usize> = HashMap::new();
    for inputs in draws(&config, 6000) {
        for image in &inputs.augment {
            let mut sorted = image.order;
            sorted.sort();
            assert_eq!(sorted, [0, 1, 2, 3]);
        }
        for image in &inputs.augment[..4] {
            *orders.entry(image.order).or_default() += 1;
        }
        // For batch size 2: mixed, mixed target, masked.
        let [.., a, b] = inputs.augment.as_slice() else { panic!("six images") };
        assert_eq!((a.order, a.sigma), (b.order, b.sigma));
        assert_ne!(a.factors, b.factors);
    }
    // Every order is equally likely: 1000 of each are expected, with a deviation of 31.
    assert_eq!(orders.len(), 24);
    for (order, count) in orders {
        assert!((850..1150).contains(&count), "{order:?}: {count}");
    }
}
