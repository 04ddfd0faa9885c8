//! Stored cases of the reference, on the stand-in.

use udass_raw::device::Types;

use crate::stand_in;
use crate::support::cases::{folder, read_folder};
use crate::support::families::family_of;
use crate::support::report::Report;

/// What stands in the names of the cases: the smallest of every family, and whole iterations.
const CASES: [&str; 8] = [
    "pub_adamw",
    "pub_backbone_mit_b0",
    "pub_backbone_r50",
    "pub_head_daformer_mit_b0",
    "pub_hrda_eval_mit_b0",
    "pub_piece_",
    "pub_train_mit_b0",
    "pub_uda_quad_aug",
];

/// Within the cases' own tolerances. Where rounding flips a rectifier, gradients are held to them in
/// double precision, which is the host's matter.
#[test]
fn stored_cases_hold() {
    let device = stand_in::device(Types::F32);
    let cases = read_folder(&folder()).unwrap();
    for marker in CASES {
        let cases: Vec<_> = cases.iter().filter(|case| case.name.contains(marker)).collect();
        assert!(!cases.is_empty(), "{marker}");
        for case in cases {
            let mut report = Report::new(case).unwrap();
            (family_of(&case.name).unwrap().runner)(&mut report, &device).unwrap();
            let verdict = report.close();
            assert!(
                verdict.failures.iter().all(|failure| failure.flip),
                "{}: {verdict}",
                case.name
            );
        }
    }
}
