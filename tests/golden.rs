//! Runs every stored case: `cargo test --release --test golden [-- NAME …]` runs those whose name
//! contains one of the names, or is one of them with `--exact`. `UDASS_GOLDEN=DIR` reads another folder of cases; `UDASS_DEVICE=cuda`
//! runs them on the GPU, and `UDASS_PRECISION=tf32` or `bf16` at that precision, with its own
//! tolerances (tests/support/precision.rs).
//!
//! The cases determine what runs, not this program: a case of an unknown family fails, and so does
//! a case with a stored number that was not compared.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use udass_raw::device::{Device, Precision};

use support::cases::{Case, Outcome, folder, read_folder};
use support::families::family_of;
use support::report::{Report, Verdict};
use support::test_device;

enum End {
    Passed(String),
    Failed(String),
}

/// Runs a case. A case that misses tolerances passes if the misses are explained by rounding that
/// flips the sign of a ReLU's input: they must be small and only affect gradients and what follows
/// from them, and the same kernels in double precision must meet every tolerance of the case.
fn run(case: &Case, device: &Device, precision: Precision, double: &Device) -> Outcome<End> {
    let verdict = run_on(case, device, precision)?;
    let missed = verdict.failures.len();
    if missed == 0 {
        return Ok(End::Passed(verdict.to_string()));
    }
    if precision != Precision::F32 || verdict.failures.iter().any(|failure| !failure.flip) {
        return Ok(End::Failed(verdict.to_string()));
    }
    let again = run_on(case, double, Precision::F32)?;
    if again.failures.is_empty() {
        Ok(End::Passed(format!("f64: {again}; f32: {missed} missed by rectifier flips")))
    } else {
        Ok(End::Failed(format!("f32: {verdict}\n   f64: {again}")))
    }
}

fn run_on(case: &Case, device: &Device, precision: Precision) -> Outcome<Verdict> {
    let Some(family) = family_of(&case.name) else {
        return Err("no family of this name is known".into());
    };
    let mut report = Report::at(case, precision)?;
    (family.runner)(&mut report, device)?;
    Ok(report.close())
}

fn main() -> ExitCode {
    // The flags of the standard test harness are accepted and ignored, except --list and --exact.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flags, names): (Vec<_>, Vec<_>) = arguments.iter().partition(|a| a.starts_with('-'));
    let folder = folder();
    let mut cases = match read_folder(&folder) {
        Ok(cases) => cases,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    let exact = flags.iter().any(|flag| *flag == "--exact");
    let is = |name: &String, case: &Case| match exact {
        true => case.name == *name,
        false => case.name.contains(name.as_str()),
    };
    cases.retain(|case| names.is_empty() || names.iter().any(|name| is(name, case)));
    if cases.is_empty() {
        eprintln!("no case is named {names:?}");
        return ExitCode::FAILURE;
    }
    if flags.iter().any(|f| *f == "--list") {
        cases.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let devices = test_device().and_then(|(device, precision)| {
        let double = Device::host_f64().map_err(|e| e.to_string())?;
        Ok((device, precision, double))
    });
    let (device, precision, double) = match devices {
        Ok(devices) => devices,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    println!("{} cases of {}, on {}", cases.len(), folder.display(), device.describe());
    let [mut passed, mut failed] = [0, 0];
    for case in &cases {
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| run(case, &device, precision, &double)))
            .unwrap_or_else(|_| Err("panicked".into()))
            .unwrap_or_else(End::Failed);
        let (mark, text, count) = match result {
            End::Passed(text) => ("ok  ", text, &mut passed),
            End::Failed(problem) => ("FAIL", problem, &mut failed),
        };
        *count += 1;
        let seconds = start.elapsed().as_secs_f64();
        println!("{mark} {:<34} {seconds:>6.1} s  {text}", case.name);
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
