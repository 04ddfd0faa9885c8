//! Tests that the comparator rejects wrong results: every golden test relies on it.

mod support;

use serde_json::{Map, json};
use support::cases::{Case, Entry, Stats, Storage};
use support::compare::{AdamStep, Steps, Tolerance, compare, compare_scalar, stats};
use support::precision::Error;
use support::report::{Failure, Report};

const REL: f64 = 1e-4;
const SHAPE: [usize; 4] = [2, 3, 4, 5];

/// Numbers of both signs without symmetry, none of them near zero.
fn tensor() -> Vec<f64> {
    let values = support::formula::image("comparator", SHAPE.iter().product());
    values.iter().map(|&v| f64::from(v) + 0.1f64.copysign(f64::from(v))).collect()
}

fn close() -> Tolerance {
    Tolerance::Close { rel_l2: Some(REL), max_abs: 2.0 * REL, steps: None }
}

fn entry(storage: Storage, tolerance: Tolerance, values: &[f64]) -> Entry {
    let (shape, dtype) = (SHAPE.to_vec(), "float32".into());
    Entry { shape, dtype, storage, stats: Some(stats(values)), tolerance }
}

/// Returns what a given storage mode keeps of a tensor.
fn kept(storage: Storage, values: &[f64]) -> Vec<f64> {
    match storage {
        Storage::Whole => values.to_vec(),
        Storage::Strided { stride } => values.iter().copied().step_by(stride).collect(),
        Storage::StatsOnly => Vec::new(),
    }
}

fn verdict(storage: Storage, tolerance: Tolerance, got: &[f64]) -> Result<f64, String> {
    let want = tensor();
    compare(&entry(storage, tolerance, &want), &kept(storage, &want), got, None)
}

const STORAGES: [Storage; 3] = [Storage::Whole, Storage::Strided { stride: 7 }, Storage::StatsOnly];

fn tolerances() -> [Tolerance; 5] {
    [
        close(),
        Tolerance::Close { rel_l2: None, max_abs: 2.0 * REL, steps: None },
        Tolerance::Exact,
        Tolerance::Agreement { share: 0.999 },
        Tolerance::Nearly { max: 1e-3, share: 0.99 },
    ]
}

fn every(mut check: impl FnMut(Storage, Tolerance)) {
    for storage in STORAGES {
        for tolerance in tolerances() {
            check(storage, tolerance);
        }
    }
}

#[track_caller]
fn must_fail(damage: &str, change: impl Fn(&mut Vec<f64>)) {
    every(|storage, tolerance| {
        let mut got = tensor();
        change(&mut got);
        let verdict = verdict(storage, tolerance.clone(), &got);
        assert!(verdict.is_err(), "{damage} passes {storage:?} with {tolerance:?}");
    });
}

#[test]
fn the_same_tensor_passes() {
    every(|storage, tolerance| {
        assert_eq!(verdict(storage, tolerance, &tensor()), Ok(0.0), "{storage:?}");
    });
}

#[test]
fn nan_fails_wherever_it_stands() {
    for i in [0, 1, 119] {
        must_fail("a NaN", |got| got[i] = f64::NAN);
    }
    must_fail("all NaN", |got| got.fill(f64::NAN));
}

#[test]
fn infinities_fail() {
    must_fail("an infinity", |got| got[1] = f64::INFINITY);
    must_fail("a negative infinity", |got| got[119] = f64::NEG_INFINITY);
}

#[test]
fn what_is_not_finite_fails_on_the_stored_side_too() {
    every(|storage, tolerance| {
        let want = tensor();
        let mut kept = kept(storage, &want);
        let Some(first) = kept.first_mut() else { return };
        *first = f64::NAN;
        let same: Vec<f64> = std::iter::once(f64::NAN).chain(want[1..].to_vec()).collect();
        let entry = entry(storage, tolerance, &want);
        assert!(compare(&entry, &kept, &same, None).is_err());
        assert!(compare(&entry, &kept, &want, None).is_err());
    });
}

#[test]
fn zeros_fail() {
    must_fail("all zeros", |got| got.fill(0.0));
}

#[test]
fn a_flipped_sign_fails() {
    must_fail("every sign flipped", |got| got.iter_mut().for_each(|v| *v = -*v));
}

#[test]
fn one_flipped_sign_fails() {
    // Element 0 is stored under every stride; where no element is stored, its sign changes the
    // mean.
    must_fail("one sign flipped", |got| got[0] = -got[0]);
}

#[test]
fn a_shifted_row_fails() {
    let shifted = |got: &mut Vec<f64>| got[..5].rotate_right(1);
    for tolerance in tolerances() {
        for storage in [Storage::Whole, Storage::Strided { stride: 7 }] {
            let mut got = tensor();
            shifted(&mut got);
            assert!(verdict(storage, tolerance.clone(), &got).is_err(), "{storage:?}");
        }
    }
    // A whole map shifted by one row brings in new numbers, which change the statistics as well.
    must_fail("a shifted map", |got| {
        got.copy_within(..115, 5);
        got[..5].fill(0.5);
    });
}

#[test]
fn channels_in_the_wrong_place_fail() {
    let [b, c, h, w] = SHAPE;
    let want = tensor();
    let mut nhwc = Vec::new();
    for image in 0..b {
        for place in 0..h * w {
            nhwc.extend((0..c).map(|ch| want[(image * c + ch) * h * w + place]));
        }
    }
    for storage in [Storage::Whole, Storage::Strided { stride: 7 }] {
        assert!(verdict(storage, close(), &nhwc).is_err(), "{storage:?}");
    }
}

#[test]
fn ten_tolerances_off_fails_and_half_a_tolerance_passes() {
    let scaled = |by: f64| tensor().iter().map(|v| v * by).collect::<Vec<f64>>();
    for storage in STORAGES {
        assert!(verdict(storage, close(), &scaled(1.0 + 10.0 * REL)).is_err(), "{storage:?}");
        assert!(verdict(storage, close(), &scaled(1.0 - 10.0 * REL)).is_err(), "{storage:?}");
        let used = verdict(storage, close(), &scaled(1.0 + 0.5 * REL)).unwrap();
        assert!((0.4..0.7).contains(&used), "{storage:?}: {used}");
    }
}

#[test]
fn one_element_off_fails_by_the_largest_difference() {
    let mut got = tensor();
    got[7] += 3.0 * REL;
    let loose = Tolerance::Close { rel_l2: Some(1.0), max_abs: 2.0 * REL, steps: None };
    for storage in [Storage::Whole, Storage::Strided { stride: 7 }] {
        assert!(verdict(storage, loose.clone(), &got).unwrap_err().contains("max |a-b|"));
    }
}

#[test]
fn damage_between_the_stored_elements_shows_in_the_statistics() {
    let mut got = tensor();
    got[1] = 40.0;
    let problem = verdict(Storage::Strided { stride: 7 }, close(), &got).unwrap_err();
    assert!(problem.contains("mean"), "{problem}");
    let mut got = tensor();
    got.swap(1, 2);
    got[1] = -got[1];
    assert!(verdict(Storage::Strided { stride: 7 }, close(), &got).is_err());
}

#[test]
fn statistics_let_everything_pass_that_the_tolerance_lets_pass() {
    // The worst cases of each bound: all of the error in one element, and spread evenly.
    let want = tensor();
    let n = want.len() as f64;
    let room = 0.999 * (REL * stats(&want).l2).min(n.sqrt() * 2.0 * REL);
    let even: Vec<f64> = want.iter().map(|v| v + room / n.sqrt()).collect();
    let away: Vec<f64> = want.iter().map(|v| v + (room / n.sqrt()).copysign(*v)).collect();
    let peak = (0..want.len()).max_by(|&a, &b| want[a].abs().total_cmp(&want[b].abs())).unwrap();
    let mut single = want.clone();
    single[peak] += 0.999f64 * (2.0 * REL).copysign(want[peak]);
    for got in [even, away, single] {
        let whole = verdict(Storage::Whole, close(), &got);
        assert!(whole.is_ok(), "{whole:?}");
        for storage in STORAGES {
            let part = verdict(storage, close(), &got);
            // The stored elements alone may carry more than their share of the error.
            if storage != (Storage::Strided { stride: 7 }) {
                assert!(part.is_ok(), "{storage:?}: {part:?}");
            }
        }
    }
}

#[test]
fn noise_is_bounded_and_not_compared() {
    let tolerance = Tolerance::Noise { max_abs: 1e-6 };
    let stored = vec![3e-7; 120];
    for storage in STORAGES {
        let entry = entry(storage, tolerance.clone(), &stored);
        let check = |got: f64| compare(&entry, &kept(storage, &stored), &[got; 120], None);
        assert!(check(-9e-7).is_ok() && check(0.0).is_ok());
        assert!(check(2e-6).is_err() && check(f64::NAN).is_err());
    }
}

#[test]
fn nan_must_stand_where_nan_is_stored() {
    let tolerance = Tolerance::OrNan { max_abs: 1e-12 };
    let mut want = tensor();
    want[3] = f64::NAN;
    let entry = entry(Storage::Whole, tolerance, &tensor());
    let check = |got: &[f64]| compare(&entry, &want, got, None);
    assert!(check(&want).is_ok());
    assert!(check(&tensor()).is_err());
    let mut more = want.clone();
    more[4] = f64::NAN;
    assert!(check(&more).is_err());
    let mut off = want.clone();
    off[5] += 1e-9;
    assert!(check(&off).is_err());
    off[5] = f64::INFINITY;
    assert!(check(&off).is_err());
}

#[test]
fn a_share_of_elements_must_lie_within_the_stated_learning_rates() {
    let steps = Some(Steps { share: 0.98, rates: 0.02 });
    let tolerance = Tolerance::Close { rel_l2: None, max_abs: 2.1e-3, steps };
    let want = tensor();
    let entry = entry(Storage::Whole, tolerance, &want);
    let with = |count: usize, by: f64, unsettled: usize| {
        let mut got = want.clone();
        got[..count].iter_mut().for_each(|v| *v += by);
        let unsettled = (0..want.len()).map(|i| i < unsettled).collect();
        compare(&entry, &want, &got, Some(&AdamStep { rate: 1e-3, unsettled }))
    };
    assert!(with(2, 2e-3, 0).is_ok());
    assert!(with(3, 2e-3, 0).is_err());
    assert!(with(1, 3e-3, 0).is_err());
    assert!(compare(&entry, &want, &want, None).is_err(), "no rate is known");
    // The share does not apply to elements whose gradient is near zero, but the bound does.
    assert!(with(60, 2e-3, 58).is_ok());
    assert!(with(60, 2e-3, 57).is_err());
    assert!(with(60, 3e-3, 60).is_err());
}

#[test]
fn lower_precision_may_be_off_by_twice_what_pytorch_is_and_never_less_than_the_case_allows() {
    let error = |largest, element| Error { largest, middle: 0.0, element };
    let close = |rel_l2, max_abs| Tolerance::Close { rel_l2: Some(rel_l2), max_abs, steps: None };
    let own = close(1e-3, 1e-2);
    assert_eq!(error(2e-3, Some(3e-2)).allows(&own), close(4e-3, 6e-2));
    assert_eq!(error(4e-4, Some(4e-3)).allows(&own), own);
    assert_eq!(error(2e-3, None).allows(&own), close(4e-3, f64::INFINITY));
    let noise = |max_abs| Tolerance::Noise { max_abs };
    assert_eq!(error(2e-3, None).allows(&noise(1e-3)), noise(4e-3));
    let agreement = |share| Tolerance::Agreement { share };
    assert_eq!(error(0.125, None).allows(&agreement(0.999)), agreement(0.75));
    assert_eq!(error(0.125, None).allows(&Tolerance::Exact), agreement(0.75));
    assert_eq!(error(0.0, None).allows(&Tolerance::Exact), Tolerance::Exact);
    let steps = |share| Tolerance::Close {
        rel_l2: None,
        max_abs: 2.1e-3,
        steps: Some(Steps { share, rates: 0.02 }),
    };
    assert_eq!(error(0.125, None).allows(&steps(0.98)), steps(0.75));
}

#[test]
fn a_sample_is_measured_against_its_fair_share() {
    // The sample holds only small numbers of a tensor that is large elsewhere.
    let storage = Storage::Strided { stride: 10 };
    let full: Vec<f64> = (0..120).map(|i| if i % 10 == 0 { 1e-3 } else { 1.0 }).collect();
    let entry = entry(storage, close(), &full);
    let check = |by: f64| {
        let mut got = full.clone();
        got.iter_mut().step_by(10).for_each(|v| *v += by);
        compare(&entry, &kept(storage, &full), &got, None)
    };
    assert!(check(0.9 * REL).is_ok());
    assert!(check(1.1 * REL).unwrap_err().contains("l2"));
}

#[test]
fn lengths_must_agree() {
    let (want, short) = (tensor(), tensor()[1..].to_vec());
    let entry = entry(Storage::Whole, close(), &want);
    assert!(compare(&entry, &want, &short, None).is_err());
    assert!(compare(&entry, &short, &want, None).is_err());
    assert!(compare(&entry, &[], &[], None).is_err());
}

#[test]
fn scalars_fail_likewise() {
    assert!(compare_scalar(2.0, 2.0, 1e-5).is_ok());
    assert!(compare_scalar(2.0, 2.0 + 1e-5, 1e-5).is_ok());
    for wrong in [f64::NAN, f64::INFINITY, 0.0, -2.0, 2.0 * (1.0 + 1e-4)] {
        assert!(compare_scalar(2.0, wrong, 1e-5).is_err(), "{wrong}");
    }
    assert!(compare_scalar(0.0, 0.0, 1e-5).is_ok());
    assert!(compare_scalar(0.0, 1e-30, 1e-5).is_err());
    assert!(compare_scalar(f64::NAN, f64::NAN, 1e-5).is_err());
}

#[test]
fn every_wording_of_a_tolerance_is_read_as_written() {
    let parse = |tol, note| Tolerance::parse(&tol, note);
    assert_eq!(parse(json!(null), None), Ok(Tolerance::Input));
    assert_eq!(parse(json!("exact"), None), Ok(Tolerance::Exact));
    let agreement = Tolerance::Agreement { share: 0.995 };
    assert_eq!(parse(json!("agreement >= 0.995"), None), Ok(agreement.clone()));
    let fed = json!("agreement >= 0.995 (exact when fed the recorded teacher label)");
    assert_eq!(parse(fed, None), Ok(agreement));
    let nearly = json!("max |diff| <= 1, exact for >= 99%");
    assert_eq!(parse(nearly, None), Ok(Tolerance::Nearly { max: 1.0, share: 0.99 }));
    let or_nan = json!("max |diff| 1e-12, NaN where NaN");
    assert_eq!(parse(or_nan, None), Ok(Tolerance::OrNan { max_abs: 1e-12 }));
    let both = json!({"rel_l2": 1e-5, "max_abs": 2e-5});
    let close = |rel_l2, steps| Tolerance::Close { rel_l2, max_abs: 2e-5, steps };
    assert_eq!(parse(both, None), Ok(close(Some(1e-5), None)));
    let rates = json!({"max_abs": 2e-5, "note": "…: require >= 98% of elements within 0.02*lr"});
    let steps = Steps { share: 0.98, rates: 0.02 };
    assert_eq!(parse(rates, None), Ok(close(None, Some(steps))));
    let zero = Some("mathematically zero (round-off only): …");
    let noise = Tolerance::Noise { max_abs: 2e-5 };
    assert_eq!(parse(json!({"max_abs": 2e-5}), zero), Ok(noise));
    for unknown in [json!("roughly"), json!({"rel": 1}), json!(3), json!("agreement >= most")] {
        assert!(parse(unknown.clone(), None).is_err(), "{unknown}");
    }
    let vague = json!({"max_abs": 1, "note": "require most elements"});
    assert!(parse(vague, None).is_err());
}

/// A case that has only scalars, so that it needs no file.
fn scalar_case(scalars: &[(&str, Option<f64>)]) -> Case {
    let scalar = |tol_rel| support::cases::Scalar { value: 1.0, tol_rel, f64: None };
    Case {
        name: "x_piece_none".into(),
        what: String::new(),
        config: json!({}),
        extra: Map::new(),
        tensors: Vec::new(),
        scalars: scalars.iter().map(|(k, t)| (k.to_string(), scalar(*t))).collect(),
        file: None,
    }
}

#[test]
fn what_is_stored_but_not_compared_fails() {
    let case = scalar_case(&[
        ("loss", Some(1e-5)),
        ("backward2/loss", Some(1e-5)),
        ("backward2/total_grad_norm_so_far", Some(1e-5)),
        ("remark", None),
    ]);
    let mut report = Report::new(&case).unwrap();
    report.scalar("loss", 1.0);
    let failures = report.close().failures;
    let [Failure { what, problem, flip: false }] = failures.as_slice() else { panic!() };
    assert_eq!([what, problem], ["backward2/loss", "stored, but not compared"]);

    let mut report = Report::new(&case).unwrap();
    report.scalar("loss", 1.0);
    report.scalar("backward2/loss", 1.0);
    assert!(report.close().failures.is_empty());

    let mut report = Report::new(&case).unwrap();
    report.scalar("loss", 1.1);
    report.scalar("backward2/loss", f64::NAN);
    report.scalar("no such", 1.0);
    assert_eq!(report.close().failures.len(), 3);
}

#[test]
fn a_flip_explains_only_what_follows_gradients_and_little_of_that() {
    let keys = ["loss", "grad_norm_total", "it0/log/loss", "it1/log/loss", "it1/far", "it2/nan"];
    let case = scalar_case(&keys.map(|key| (key, Some(1e-5))));
    let mut report = Report::new(&case).unwrap();
    for key in keys {
        report.scalar(
            key,
            if key == "it2/nan" {
                f64::NAN
            } else if key == "it1/far" {
                1.1
            } else {
                1.01
            },
        );
    }
    report.require("it1/words", false);
    let failures = report.close().failures;
    let flips: Vec<&str> = failures.iter().filter(|f| f.flip).map(|f| f.what.as_str()).collect();
    assert_eq!(failures.len(), 7);
    assert_eq!(flips, ["grad_norm_total", "it1/log/loss"]);
    for exact in [Tolerance::Exact, Tolerance::Agreement { share: 0.9 }] {
        assert_eq!(exact.flipped(), None);
    }
}

#[test]
fn a_case_that_compares_nothing_fails() {
    let case = scalar_case(&[]);
    assert!(!Report::new(&case).unwrap().close().failures.is_empty());
}

#[test]
fn statistics_are_those_of_the_population() {
    let Stats { mean, std, l2, sum_abs, max_abs } = stats(&[1.0, -3.0]);
    assert_eq!([mean, std, l2, sum_abs, max_abs], [-1.0, 2.0, 10f64.sqrt(), 4.0, 3.0]);
}
