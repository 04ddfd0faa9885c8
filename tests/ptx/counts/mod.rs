//! What each kernel executes, as a function of its launch: `src/run/profile/model/kernels.toml` is
//! held to what the interpreter counts, and written from it.
//!
//! The counts are those of iterations at their real sizes, of which a few blocks of each launch are
//! executed. The coefficients come from some sizes and are tested at another one.

mod fit;
mod launches;
mod machine;
mod measure;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use udass_raw::device::Types;
use udass_raw::device::profile::Launch;
use udass_raw::run::profile::model::{
    Coefficients, Counts, Entry, Expression, KernelCounts, Table, term_values,
};

use crate::kernels::skip;
use crate::nvcc;
use measure::Counted;

/// Names a variable that, if set, makes the test write the coefficients anew.
const RECORD: &str = "UDASS_RECORD_COUNTS";
/// Iterations that the coefficients come from: a preset and changes of it.
const RECORDED: [&[&str]; 7] = [
    &["gta_vit"],
    &["gta_cnn"],
    &["gta_vit", "data.crop=512", "network.hrda.detail_crop=256"],
    &["gta_cnn", "data.crop=512", "network.hrda.detail_crop=256"],
    &["toy_vit"],
    &["toy_cnn"],
    &["dacs"],
];
/// Iterations that they are tested on.
const TESTED: [&[&str]; 2] = [
    &["gta_vit", "data.crop=768", "network.hrda.detail_crop=384"],
    &["gta_cnn", "data.crop=768", "network.hrda.detail_crop=384"],
];
/// Instructions and sectors of a launch that takes about half a microsecond: what is fewer is
/// allowed to be off by more.
const FEW: [f64; 3] = [3e5, 3e4, 3e4];
/// Relative errors that the counts of a launch may have. How much a cache holds is no sum of terms.
const ALLOWED: [f64; 3] = [0.25, 0.65, 0.3];
/// Relative errors that the counts of an iteration may have.
const ALLOWED_OF_ALL: [f64; 3] = [0.03, 0.1, 0.03];
/// Kernels of attention in f32 whose terms are still too few: they are off by up to a third in
/// instructions, and by more in sectors.
const ROUGH: [&str; 2] = ["attention_backward", "attention_pack"];
/// Launches of each kernel that are tested: those that execute most.
const LAUNCHES: usize = 3;
/// Longest list of terms on a line.
const WIDTH: usize = 92;

/// Kernels whose time is that of their multiplications, at a stated rate.
fn is_counted(launch: &Launch) -> bool {
    !launch.kernel.name.starts_with("attention_mma_")
}

/// Returns the launches of an iteration.
fn launches_of(iteration: &[&str], types: Types) -> Vec<(Launch, usize)> {
    let precision = if types == Types::Bf16 { "bf16" } else { "f32" };
    let mut changes = vec![format!("device.precision={precision}")];
    changes.extend(iteration[1..].iter().map(|change| change.to_string()));
    let all = launches::of(iteration[0], &changes);
    all.into_iter().filter(|(launch, _)| is_counted(launch)).collect()
}

/// Returns instructions, loaded sectors and stored sectors.
fn three(counted: &Counted, machine: &BTreeMap<String, f64>) -> [f64; 3] {
    let weight = |class: &str| {
        *machine.get(class).unwrap_or_else(|| panic!("kernels.toml: [machine] has no {class}"))
    };
    let instructions = counted.executed.iter().map(|(class, count)| weight(class) * count).sum();
    [instructions, counted.loads, counted.stores]
}

fn of_counts(counts: Counts) -> [f64; 3] {
    [counts.instructions, counts.loads, counts.stores]
}

#[test]
fn what_the_model_says_of_launches_is_what_they_execute() {
    if nvcc::find().is_none() {
        return skip("the counts of launches");
    }
    if std::env::var_os(RECORD).is_some() {
        record();
    }
    let text = std::fs::read_to_string(path()).unwrap();
    let table: Table = toml::from_str(&text).unwrap();
    let machine = table.machine.clone();
    let model = KernelCounts::new(table).unwrap();
    let mut problems = String::new();
    for (iteration, types) in
        TESTED.iter().flat_map(|iteration| [(iteration, Types::F32), (iteration, Types::Bf16)])
    {
        let mut launches: Vec<(Launch, usize, [f64; 3])> = Vec::new();
        for (launch, calls) in launches_of(iteration, types) {
            match model.of(&launch, types) {
                Some(counts) => launches.push((launch, calls, of_counts(counts))),
                None => panic!("kernels.toml: nothing is known of {}", launch.kernel.name),
            }
        }
        let cost = |(_, calls, counts): &(Launch, usize, [f64; 3])| *calls as f64 * counts[0];
        launches.sort_by(|a, b| cost(b).total_cmp(&cost(a)));
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut sums = [[0.0f64; 3]; 2];
        for (launch, calls, modeled) in &launches {
            let before = seen.entry(launch.kernel.name).or_default();
            *before += 1;
            if *before > LAUNCHES || ROUGH.contains(&launch.kernel.name) {
                continue;
            }
            let counted = three(&measure::count(launch, types).unwrap(), &machine);
            for (what, (modeled, counted)) in modeled.iter().zip(counted).enumerate() {
                sums[0][what] += *calls as f64 * modeled;
                sums[1][what] += *calls as f64 * counted;
                let error = (modeled - counted).abs() / (counted + FEW[what]);
                if error > ALLOWED[what] {
                    let (name, shape) = (launch.kernel.name, launch.shape());
                    let of = ["instructions", "loads", "stores"][what];
                    let _ = writeln!(
                        problems,
                        "{name} {shape} in {types:?}: {modeled:.3e} {of} instead of {counted:.3e}"
                    );
                }
            }
        }
        for (what, (modeled, counted)) in sums[0].into_iter().zip(sums[1]).enumerate() {
            if (modeled - counted).abs() > ALLOWED_OF_ALL[what] * counted {
                let of = ["instructions", "loads", "stores"][what];
                let _ = writeln!(
                    problems,
                    "{iteration:?} in {types:?}: {modeled:.4e} {of} instead of {counted:.4e}"
                );
            }
        }
    }
    assert!(problems.is_empty(), "{RECORD}=1 counts anew; terms may be missing:\n{problems}");
}

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/run/profile/model/kernels.toml")
}

/// Terms' values and counts of a kernel's launches.
type Samples = (Vec<Vec<f64>>, Vec<[f64; 3]>);

/// Writes the coefficients of all terms anew.
fn record() {
    let text = std::fs::read_to_string(path()).unwrap();
    let mut table: Table = toml::from_str(&text).unwrap();
    let mut terms: BTreeMap<String, Vec<Expression>> = BTreeMap::new();
    for (name, entry) in &table.kernels {
        let parsed = entry.terms.iter().map(|term| Expression::parse(term).unwrap());
        terms.insert(name.clone(), parsed.collect());
    }
    for types in [Types::F32, Types::Bf16] {
        let mut samples: BTreeMap<&str, Samples> = BTreeMap::new();
        for (launch, _) in RECORDED.iter().flat_map(|iteration| launches_of(iteration, types)) {
            let name = launch.kernel.name;
            let known = terms.get(name).unwrap_or_else(|| panic!("{name} has no terms"));
            let values = term_values(known, &launch)
                .unwrap_or_else(|| panic!("a term of {name} names what a launch does not have"));
            let counted = measure::count(&launch, types).unwrap();
            let (rows, counts) = samples.entry(name).or_default();
            rows.push(values);
            counts.push(three(&counted, &table.machine));
        }
        for (name, (rows, counts)) in samples {
            let of = |what: usize| {
                let counts: Vec<f64> = counts.iter().map(|counts| counts[what]).collect();
                fit::fit(&rows, &counts, FEW[what])
            };
            let found = Coefficients { instructions: of(0), loads: of(1), stores: of(2) };
            let entry = table.kernels.get_mut(name).unwrap();
            match types {
                Types::Bf16 => entry.bf16 = found,
                _ => entry.f32 = found,
            }
        }
    }
    let head: Vec<&str> = text.lines().take_while(|line| !line.starts_with("[kernels")).collect();
    let mut new = format!("{}\n", head.join("\n"));
    for (name, entry) in &table.kernels {
        let _ = writeln!(new, "{}", shown(name, entry));
    }
    std::fs::write(path(), new.trim_end().to_string() + "\n").unwrap();
}

fn shown(name: &str, entry: &Entry) -> String {
    let rounded = |numbers: &[f64]| -> String {
        let digits = |x: &f64| format!("{}", format!("{x:.3e}").parse::<f64>().unwrap());
        numbers.iter().map(digits).collect::<Vec<_>>().join(", ")
    };
    let line = |name: &str, of: &Coefficients| {
        format!(
            "{name} = {{ instructions = [{}], loads = [{}], stores = [{}] }}\n",
            rounded(&of.instructions),
            rounded(&of.loads),
            rounded(&of.stores)
        )
    };
    let mut terms = format!("{:?}", entry.terms);
    if terms.len() > WIDTH {
        let lines: String = entry.terms.iter().map(|term| format!("    {term:?},\n")).collect();
        terms = format!("[\n{lines}]");
    }
    format!(
        "[kernels.{name}]\nterms = {terms}\n{}{}",
        line("f32", &entry.f32),
        line("bf16", &entry.bf16)
    )
}
