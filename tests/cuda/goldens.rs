//! Runs all stored cases of the reference on the stand-in, at every precision.

use std::time::Instant;

use udass_raw::device::Precision;

use crate::stand_in;
use crate::support::cases::{folder, read_folder};
use crate::support::families::family_of;
use crate::support::report::Report;

/// Cases with products whose errors in PyTorch are not known at lower precision, because
/// benches/pytorch does not train with SePiCo.
const UNKNOWN: &[&str] = &[
    "pub_sepico_proj_cnn",
    "pub_sepico_proj_mit",
    "pub_sepico_uda_dist",
    "pub_sepico_uda_dist_now",
    "pub_sepico_uda_r50_proto",
];

/// Checks the cases against their own tolerances or, at lower precision, against PyTorch's errors.
/// Where rounding flips a ReLU, the double-precision check of the gradients is left to the host's
/// tests.
fn hold(precision: Precision) {
    let device = stand_in::device_in(precision);
    let mut wrong = Vec::new();
    for case in &read_folder(&folder()).unwrap() {
        if precision != Precision::F32 && UNKNOWN.contains(&case.name.as_str()) {
            continue;
        }
        let start = Instant::now();
        let mut report = Report::at(case, precision).unwrap();
        (family_of(&case.name).unwrap().runner)(&mut report, &device).unwrap();
        let verdict = report.close();
        let flips_alone = verdict.failures.iter().all(|failure| failure.flip);
        let holds = verdict.failures.is_empty() || precision == Precision::F32 && flips_alone;
        println!("{} {:.1} s: {verdict}", case.name, start.elapsed().as_secs_f64());
        if !holds {
            wrong.push(case.name.clone());
        }
    }
    assert!(wrong.is_empty(), "{precision:?}: {wrong:?}");
}

#[test]
fn in_single_precision() {
    hold(Precision::F32);
}

#[test]
fn in_tf32() {
    hold(Precision::Tf32);
}

#[test]
fn in_bf16() {
    hold(Precision::Bf16);
}
