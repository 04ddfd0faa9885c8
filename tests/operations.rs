//! Tests that benches/kernels measures what iterations do: every kernel, and nearly all of an
//! iteration's work at its actual sizes.

#[allow(dead_code)]
#[path = "../benches/kernels/cases/mod.rs"]
mod cases;

use std::collections::{BTreeMap, BTreeSet};

use cases::{Bed, PRESETS};
use udass_raw::config::Config;
use udass_raw::device::profile::{Call, Work};
use udass_raw::device::{Device, Precision, kernels};
use udass_raw::run::profile::Synthetic;

/// Bytes that take about as long as one FLOP on the hardware that this runs on.
const BYTES_PER_FLOP: f64 = 0.1;

/// The operation and its size. A kernel's size is its largest tensor's element count and last
/// dimension, so that tokens B,N,C and a map B,H,W,C are the same.
type Key = (String, Vec<usize>);

fn key(work: &Work) -> Key {
    let sizes = work.shape().split('x').filter_map(|n| n.parse().ok()).collect::<Vec<usize>>();
    let sizes = match work {
        Work::Kernel(_) => vec![sizes.iter().product(), sizes.last().copied().unwrap_or(0)],
        _ => sizes,
    };
    (work.name(), sizes)
}

/// Returns the operations that a preset's cases call.
fn asked(preset: &'static str, precision: Precision) -> BTreeSet<Key> {
    let dry = Bed::dry(precision, 0);
    let calls = cases::of(preset).into_iter().flat_map(|case| case.asks(&dry).1.calls);
    calls.map(|call| key(&call.work)).collect()
}

/// Returns the calls of one iteration.
fn iteration(config: &Config, quadmix: bool) -> Vec<Call> {
    let mut config = config.clone();
    // Pretends that there are ImageNet weights, which turns on the feature distance.
    config.weights.init = "weights".into();
    config.quadmix.enabled = quadmix;
    let device = Device::dry(Precision::F32);
    let mut training = Synthetic::new(&device, &config).unwrap();
    device.profile(|| training.step().unwrap()).unwrap().1.calls
}

#[test]
fn every_kernel_is_measured() {
    let mut measured = BTreeSet::new();
    for (preset, ..) in PRESETS {
        for precision in [Precision::F32, Precision::Bf16] {
            measured.extend(asked(preset, precision).into_iter().map(|(name, _)| name));
        }
    }
    let all = kernels::ALL.iter().map(|kernel| kernel.name);
    let missed: Vec<&str> = all.filter(|&name| !measured.contains(name)).collect();
    assert!(missed.is_empty(), "no case of benches/kernels launches {}", missed.join(", "));
}

#[test]
fn cases_are_what_iterations_do() {
    // Before QuadMix starts, an iteration is MIC's.
    for (preset, quadmix) in
        [("gta_vit", true), ("gta_cnn", true), ("b0_128", false), ("r50_128", false)]
    {
        let config = cases::config(preset);
        let asked = asked(preset, Precision::F32);
        let names: BTreeSet<&str> = asked.iter().map(|(name, _)| name.as_str()).collect();
        let (mut all, mut covered) = (0.0, 0.0);
        let (mut missed, mut unknown) = (BTreeMap::new(), BTreeSet::new());
        for call in iteration(&config, quadmix) {
            let (name, sizes) = key(&call.work);
            if matches!(call.work, Work::Memory(_)) {
                continue;
            }
            if !names.contains(name.as_str()) {
                unknown.insert(format!("{name} {sizes:?}"));
            }
            // These two scopes run the student's layers on other batches.
            if ["teacher", "imagenet"].contains(&call.place.scope) {
                continue;
            }
            let cost = call.bytes.max(BYTES_PER_FLOP * call.flops);
            all += cost;
            match asked.contains(&(name.clone(), sizes.clone())) {
                true => covered += cost,
                false => *missed.entry((name, sizes)).or_insert(0.0) += cost,
            }
        }
        assert!(unknown.is_empty(), "{preset}: no case launches {unknown:?}");
        let mut missed: Vec<_> = missed.into_iter().collect();
        missed.sort_by(|a, b| b.1.total_cmp(&a.1));
        let share = covered / all;
        missed.iter_mut().for_each(|(_, cost)| *cost /= all);
        missed.truncate(12);
        println!("{preset}: {:.2} % of the work; not {missed:?}", 100.0 * share);
        assert!(share > 0.999, "{preset}: cases are {share} of an iteration, without {missed:?}");
    }
}

#[test]
fn small_cases_run() {
    let device = Device::host(0).unwrap();
    let bed = Bed::new(&device, Precision::F32, 0);
    for preset in ["b0_128", "r50_128", "sepico_128"] {
        for case in cases::of(preset) {
            let mut run = case.prepare(&bed);
            (run.once)();
            (run.once)();
        }
    }
}
