//! The earlier versions of kernels in benches/lab still build, and compute what today's do.

#[allow(dead_code)]
#[path = "../benches/lab/versions.rs"]
mod versions;

use std::collections::BTreeSet;

use udass_raw::ops::Conv;

use versions::{Bench, Op, Version, agree};

/// Sizes that divide evenly by nothing: rows of strips and of single numbers, tiles that are not
/// full, several chunks of queries, maps of unequal size, taps that lie outside, samples dropped.
const OPS: [Op; 24] = [
    Op::Attention { batch: 2, heads: 2, queries: 300, keys: 130, channels: 40 },
    Op::Attention { batch: 1, heads: 3, queries: 31, keys: 7, channels: 32 },
    Op::Depthwise { batch: 2, side: 19, channels: 272, dilation: 3 },
    Op::Depthwise { batch: 1, side: 37, channels: 21, dilation: 1 },
    Op::DepthwiseGelu { batch: 2, side: 38, channels: 48 },
    Op::DepthwiseGelu { batch: 1, side: 5, channels: 13 },
    Op::Gelu { rows: 57, channels: 13 },
    Op::AddLayernorm { batch: 4, tokens: 97, channels: 45, rate: 0.5 },
    Op::AddLayernorm { batch: 1, tokens: 200, channels: 64, rate: 0.0 },
    Op::BatchNorm { batch: 2, side: 29, channels: 144 },
    Op::BatchNorm { batch: 1, side: 13, channels: 21 },
    Op::Linear { rows: 333, channels: 20, out: 75 },
    Op::Linear { rows: 200, channels: 9, out: 192 },
    Op::Conv {
        batch: 2,
        side: 37,
        channels: 12,
        out: 9,
        kernel: 3,
        geometry: Conv { stride: 2, padding: 1, dilation: 1 },
    },
    Op::Conv {
        batch: 1,
        side: 35,
        channels: 5,
        out: 7,
        kernel: 8,
        geometry: Conv { stride: 8, padding: 0, dilation: 1 },
    },
    Op::Conv {
        batch: 1,
        side: 23,
        channels: 3,
        out: 5,
        kernel: 3,
        geometry: Conv { stride: 3, padding: 2, dilation: 2 },
    },
    Op::Resize { batch: 2, side: 45, channels: 3, to: 21 },
    Op::ResizeConcat { batch: 2, side: 5, channels: 40, to: 17 },
    Op::ResizeConcat { batch: 1, side: 16, channels: 13, to: 9 },
    Op::MaxPool { batch: 2, side: 15, channels: 20 },
    Op::MaxPool { batch: 1, side: 8, channels: 7 },
    Op::WindowAverage { batch: 2, side: 44, window: 16, stride: 4, channels: 19 },
    Op::Presence { batch: 2, side: 67 },
    Op::Jitter { batch: 2, side: 29 },
];

#[test]
fn versions_compute_what_todays_kernels_do() {
    let today = Bench::new(2);
    let versions = versions::all();
    assert!(versions.len() > 20);
    let benches: Vec<Bench> = versions.iter().map(|version| today.with(version)).collect();
    let mut launched = vec![BTreeSet::new(); versions.len()];
    for op in &OPS {
        let (exact, (wanted, _)) = (op.exactly(), today.run(op));
        for ((version, bench), launched) in versions.iter().zip(&benches).zip(&mut launched) {
            if op.kernels().iter().any(|kernel| version.stands_for(kernel)) {
                let (results, counts) = bench.run(op);
                launched.extend(counts.into_keys());
                let agreed = agree(&exact, &wanted, &results);
                agreed.unwrap_or_else(|problem| panic!("{}, {op:?}: {problem}", version.name));
            }
        }
    }
    for (version, launched) in versions.iter().zip(launched) {
        let named: BTreeSet<&str> = version.kernels.iter().map(String::as_str).collect();
        assert_eq!(launched, named, "{}: these were launched of those that it names", version.name);
    }
    launches_can_be_made_again(&today, &versions, &benches);
}

/// What the bench times: launches of the versions' own kernels, on memory that is still there.
fn launches_can_be_made_again(today: &Bench, versions: &[Version], benches: &[Bench]) {
    for op in &OPS {
        for kernel in op.kernels() {
            let (launch, device) = today.launch_of(kernel, op).unwrap();
            let pairs = versions.iter().zip(benches);
            let of = pairs.filter(|(version, _)| version.stands_for(kernel));
            for bench in of.map(|(_, bench)| bench).chain([today]) {
                let mut written = launch.written();
                device.zero(&mut written).unwrap();
                bench.again(&launch);
                let numbers = launch.numbers(&device);
                assert!(numbers.iter().any(|&x| x != 0.0), "{kernel} wrote nothing");
            }
        }
        assert!(today.launch_of("adamw", op).is_none());
    }
}

#[test]
fn results_that_are_worse_do_not_agree() {
    let exact = vec![("y", vec![1.0, -2.0, 4.0])];
    let off = |by: f64| vec![("y", vec![1.0, -2.0 + by, 4.0])];
    assert!(agree(&exact, &off(1e-6), &off(-2.4e-6)).is_ok());
    for wrong in [off(3e-6), off(f64::NAN), off(f64::INFINITY), vec![("y", vec![1.0, -2.0])]] {
        assert!(agree(&exact, &off(1e-6), &wrong).is_err(), "{wrong:?}");
    }
    let zero = vec![("y", vec![0.0])];
    assert!(agree(&zero, &zero, &zero).is_err());
}
