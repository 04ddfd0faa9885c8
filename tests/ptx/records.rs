//! Verdicts on launches. The cases run in a process of their own, which appends a line for each
//! launch to a file; the tests of the kernels read it.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};
use udass_raw::device::Types;

use crate::programs::name_of;

/// Names the file of the process that runs the cases.
pub const RECORDS: &str = "PTX_RECORDS";

/// All launches of a kernel in one precision.
#[derive(Default)]
pub struct Verdict {
    pub launches: u64,
    /// What is wrong with the first launches that failed.
    pub problems: Vec<String>,
    /// Sums of what they executed, as in `ptx::Statistics::json`.
    pub statistics: Value,
}

/// Appends a launch to the records of this process.
pub fn append(kernel: &str, types: Types, result: &Result<ptx::Statistics, String>) {
    let path = std::env::var_os(RECORDS).unwrap();
    let mut line = match result {
        Ok(statistics) => {
            json!({ "kernel": kernel, "types": name_of(types), "statistics": statistics.json() })
        }
        Err(problem) => json!({ "kernel": kernel, "types": name_of(types), "problem": problem }),
    }
    .to_string();
    line.push('\n');
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    // One call, so that lines of several threads do not mix.
    file.write_all(line.as_bytes()).unwrap();
}

/// Sums up the records by kernel and types.
pub fn read(text: &str) -> BTreeMap<(String, String), Verdict> {
    let mut verdicts: BTreeMap<(String, String), Verdict> = BTreeMap::new();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let word = |key: &str| record[key].as_str().unwrap().to_string();
        let verdict = verdicts.entry((word("kernel"), word("types"))).or_default();
        verdict.launches += 1;
        match record["problem"].as_str() {
            Some(problem) => verdict.problems.push(problem.into()),
            None => add(&mut verdict.statistics, &record["statistics"]),
        }
    }
    verdicts
}

/// Adds numbers, at any depth.
fn add(sum: &mut Value, other: &Value) {
    match other {
        Value::Object(fields) => {
            if !sum.is_object() {
                *sum = json!({});
            }
            for (key, value) in fields {
                add(&mut sum[key], value);
            }
        }
        other => *sum = json!(sum.as_u64().unwrap_or(0) + other.as_u64().unwrap_or(0)),
    }
}

/// Returns what each kernel executed in all cases, by types and kernel.
pub fn json(verdicts: &BTreeMap<(String, String), Verdict>) -> String {
    let mut all = json!({});
    for ((kernel, types), verdict) in verdicts {
        all[types][kernel] = verdict.statistics.clone();
    }
    format!("{all:#}\n")
}
