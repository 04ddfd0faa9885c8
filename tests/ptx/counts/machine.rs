//! The weights of the classes, by which counts of PTX become counts of machine code, against the
//! loops of machine code that `benches/gpu/loops.py` recorded.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use udass_raw::run::profile::model::Table;

const RECORD: &str = "benches/results/2026-12-01-loops-sm_90a.json";

#[derive(Deserialize)]
struct Record {
    loops: Vec<Loop>,
}

#[derive(Deserialize)]
struct Loop {
    kernel: String,
    /// Instructions by class.
    ptx: BTreeMap<String, f64>,
    /// Instructions by kind.
    machine: BTreeMap<String, f64>,
}

fn sum_of(loops: &[Loop], of: impl Fn(&Loop) -> f64) -> f64 {
    loops.iter().map(of).sum()
}

#[test]
fn weights_of_classes_make_machine_code_of_ptx() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORD);
    let record: Record = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let weights = Table::read().unwrap().machine;
    let loops = record.loops;
    assert!(loops.len() > 300);
    let weight = |class: &str| weights.get(class).unwrap_or_else(|| panic!("no weight of {class}"));
    let modeled = |l: &Loop| l.ptx.iter().map(|(class, n)| weight(class) * n).sum::<f64>();
    let machine = |l: &Loop| l.machine.values().sum::<f64>();

    // By class, where both name the same: accesses are one to one, and floats nearly so.
    let total = |names: [&str; 2]| {
        let of = |map: &BTreeMap<String, f64>, name: &str| map.get(name).copied().unwrap_or(0.0);
        let ptx = sum_of(&loops, |l| of(&l.ptx, names[0]) * weight(names[0]));
        ptx / sum_of(&loops, |l| of(&l.machine, names[1]))
    };
    for names in [
        ["global_load", "load_global"],
        ["global_store", "store_global"],
        ["shared_load", "load_shared"],
        ["shared_store", "store_shared"],
    ] {
        assert_eq!(total(names), 1.0, "{names:?}");
    }
    // Selects of floats are counted as such by one and as predicates by the other.
    let floats = total(["fp32", "float"]);
    assert!((0.8..1.1).contains(&floats), "{floats}");

    // All together, and loop by loop.
    let all = sum_of(&loops, modeled) / sum_of(&loops, machine);
    assert!((0.9..1.1).contains(&all), "{all}");
    let mut ratios: Vec<(f64, &str)> =
        loops.iter().map(|l| (modeled(l) / machine(l), l.kernel.as_str())).collect();
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let at = |share: f64| ratios[(share * (ratios.len() - 1) as f64) as usize];
    assert!((0.9..1.15).contains(&at(0.5).0), "{:?}", at(0.5));
    assert!(at(0.05).0 > 0.75 && at(0.95).0 < 1.45, "{:?} {:?}", at(0.05), at(0.95));
}
