//! Seconds of earlier versions of kernels (benches/lab) beside today's, in turns, at sizes that
//! training `gta_vit` has, or `gta_cnn` where that one does not run a kernel. How to run:
//! benches/record.rs; on the host alone, in single precision.

#[allow(dead_code)]
mod record;
#[allow(dead_code)]
#[path = "lab/versions.rs"]
mod versions;

use std::cell::OnceCell;
use std::rc::Rc;

use serde_json::{Map, Value, json};
use udass_raw::device::Device;
use udass_raw::ops::Conv;

use record::{Amount, Case};
use versions::{Bench, Op, Version};

/// Of each version, where the command line says nothing else.
const SAMPLES: usize = 15;
/// Of the detail crop's network: MiT-B5's first stage, the decoder, ResNet's stem. Of whole
/// pictures: their context, windows over them and what is mixed.
const OPS: [(&str, Op); 14] = [
    (
        "2x16384 queries, 256 keys, 64 channels",
        Op::Attention { batch: 2, heads: 1, queries: 16384, keys: 256, channels: 64 },
    ),
    (
        "2x128x128x1024, dilated by 6",
        Op::Depthwise { batch: 2, side: 128, channels: 1024, dilation: 6 },
    ),
    ("2x128x128x256", Op::DepthwiseGelu { batch: 2, side: 128, channels: 256 }),
    ("32768x256", Op::Gelu { rows: 32768, channels: 256 }),
    ("2x16384x64", Op::AddLayernorm { batch: 2, tokens: 16384, channels: 64, rate: 0.1 }),
    ("2x128x128x256", Op::BatchNorm { batch: 2, side: 128, channels: 256 }),
    ("32768x256", Op::Linear { rows: 32768, channels: 64, out: 256 }),
    (
        "2x128x128x64, 8x8 taps, stride 8",
        Op::Conv {
            batch: 2,
            side: 128,
            channels: 64,
            out: 64,
            kernel: 8,
            geometry: Conv { stride: 8, padding: 0, dilation: 1 },
        },
    ),
    ("2x1024x1024x3 to 512x512", Op::Resize { batch: 2, side: 1024, channels: 3, to: 512 }),
    ("2x16x16x256 to 128x128", Op::ResizeConcat { batch: 2, side: 16, channels: 256, to: 128 }),
    ("2x256x256x64", Op::MaxPool { batch: 2, side: 256, channels: 64 }),
    (
        "9 windows of 512x512 on 2x256x256x19",
        Op::WindowAverage { batch: 2, side: 1024, window: 512, stride: 4, channels: 19 },
    ),
    ("2x1024x1024", Op::Presence { batch: 2, side: 1024 }),
    ("2x1024x1024x3", Op::Jitter { batch: 2, side: 1024 }),
];

fn main() {
    let threads = record::threads();
    let device = Device::host(threads).unwrap();
    let today = Bench::new(threads);
    let versions: Vec<(Version, Bench)> =
        versions::all().into_iter().map(|v| (v.clone(), today.with(&v))).collect();
    let mut groups = Vec::new();
    for (size, op) in &OPS {
        if !std::env::args().any(|arg| arg == "--cases") {
            check(op, &today, &versions);
        }
        for kernel in op.kernels() {
            let mut folders: Vec<&str> = (versions.iter())
                .filter(|(version, _)| version.stands_for(kernel))
                .map(|(version, _)| version.folder())
                .collect();
            folders.dedup();
            groups.extend(folders.iter().map(|f| group(f, kernel, size, op, &today, &versions)));
        }
    }
    record::in_turns("lab", &device, groups, SAMPLES);
}

/// A folder's versions of a kernel in their order, and today's.
fn group(
    folder: &str,
    kernel: &'static str,
    size: &str,
    op: &Op,
    today: &Bench,
    versions: &[(Version, Bench)],
) -> Vec<Case> {
    let earlier = (versions.iter())
        .filter(|(version, _)| version.folder() == folder && version.stands_for(kernel))
        .map(|(version, bench)| (version.what(), bench));
    // One launch for all of them, made when it is their turn.
    let launch = Rc::new(OnceCell::new());
    let case = |(what, bench): (&str, &Bench)| {
        let options: Map<String, Value> = [
            ("folder".into(), json!(folder)),
            ("kernel".into(), json!(kernel)),
            ("size".into(), json!(size)),
            ("version".into(), json!(what)),
        ]
        .into_iter()
        .collect();
        let (launch, op) = (launch.clone(), op.clone());
        let (bench, today) = (bench.clone(), today.clone());
        Case {
            name: format!("{folder}/{what} {kernel}"),
            options,
            amount: Amount::Iterations,
            warmup: 0,
            setup: Box::new(move || -> record::Run {
                launch.get_or_init(|| today.launch_of(kernel, &op).unwrap());
                let (launch, bench) = (launch.clone(), bench.clone());
                Box::new(move || bench.again(&launch.get().unwrap().0))
            }),
        }
    };
    earlier.chain([("today", today)]).map(case).collect()
}

/// Times are worth nothing where the results differ.
fn check(op: &Op, today: &Bench, versions: &[(Version, Bench)]) {
    let (exact, (wanted, _)) = (op.exactly(), today.run(op));
    for (version, bench) in versions {
        if op.kernels().iter().any(|kernel| version.stands_for(kernel)) {
            let agreed = versions::agree(&exact, &wanted, &bench.run(op).0);
            agreed.unwrap_or_else(|problem| panic!("{}, {op:?}: {problem}", version.name));
        }
    }
}
