//! Runs every stored case: `cargo test --release --test golden [NAME …]` runs those whose name
//! contains one of the names. `UDASS_GOLDEN=DIR` reads another folder of such cases.
//!
//! The cases decide what runs, not this program: a case of a family that it does not know fails,
//! and so does one of which a stored number was not compared.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use udass_raw::device::Device;

use support::cases::{Case, Outcome, folder, read_folder};
use support::families::{Ran, family_of};
use support::report::{Report, Verdict};

enum Result {
    Passed(Verdict),
    Failed(String),
    Skipped(String),
}

fn run(case: &Case, device: &Device) -> Outcome<Result> {
    let Some(family) = family_of(&case.name) else {
        return Err("no family of this name is known".into());
    };
    let Some(runner) = family.runner else {
        return Ok(Result::Skipped(format!("{} is not built yet", family.what)));
    };
    let mut report = Report::new(case)?;
    match runner(&mut report, device)? {
        Ran::Skipped(reason) => Ok(Result::Skipped(reason)),
        Ran::Whole => {
            let verdict = report.close();
            let failed = !verdict.failures.is_empty();
            Ok(if failed { Result::Failed(verdict.to_string()) } else { Result::Passed(verdict) })
        }
    }
}

fn main() -> ExitCode {
    // Flags are those of the standard harness and change nothing here, but for the listing.
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
    cases.retain(|case| names.is_empty() || names.iter().any(|n| case.name.contains(n.as_str())));
    if flags.iter().any(|f| *f == "--list") {
        cases.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let device = match Device::host(0) {
        Ok(device) => device,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    println!("{} cases of {}, on {}", cases.len(), folder.display(), device.describe());
    let [mut passed, mut failed, mut skipped] = [0, 0, 0];
    for case in &cases {
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| run(case, &device)))
            .unwrap_or_else(|_| Err("panicked".into()))
            .unwrap_or_else(Result::Failed);
        let (mark, text, count) = match result {
            Result::Passed(verdict) => ("ok  ", verdict.to_string(), &mut passed),
            Result::Failed(problem) => ("FAIL", problem, &mut failed),
            Result::Skipped(reason) => ("skip", reason, &mut skipped),
        };
        *count += 1;
        let seconds = start.elapsed().as_secs_f64();
        println!("{mark} {:<34} {seconds:>6.1} s  {text}", case.name);
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
