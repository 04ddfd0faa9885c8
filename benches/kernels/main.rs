//! Measures single operations, forward and forward + backward, at the sizes of an iteration of
//! `gta_vit` and `gta_cnn` and at small ones. benches/pytorch/ops.py runs the operations that exist
//! in PyTorch, with the same names and sizes. See benches/record.rs for how to run it.
//!
//! Each case cycles through as many sets of inputs as are needed, with their outputs, to fill the
//! last-level cache four times. Outputs are kept until their inputs are used again, so they move
//! through memory too. Bytes and FLOPs are those that the case's calls declare; `udass-raw profile`
//! reports the same numbers.

#[allow(dead_code)]
mod cases;
#[allow(dead_code)]
#[path = "../record.rs"]
mod record;

use cases::{Bed, Case, PRESETS};
use record::Work;
use serde_json::json;

/// How many times the inputs and outputs fill the last-level cache.
const ROTATIONS: usize = 4;

fn main() {
    let (device, precision) = (record::device(), record::precision());
    let rotate = ROTATIONS * last_cache();
    let dry = Bed::dry(precision, rotate);
    let all = PRESETS.iter().flat_map(|(preset, ..)| cases::of(preset));
    let all = all.chain(cases::rates(record::on_gpu()));
    let bed = std::rc::Rc::new(Bed::new(&device, precision, rotate));
    let measured = all.map(|case| measured(case, &dry, bed.clone())).collect();
    record::main("kernels", &device, measured);
}

fn measured(case: Case, dry: &Bed, bed: std::rc::Rc<Bed>) -> record::Case {
    let (run, profile) = case.asks(dry);
    let work = Work::of(&profile);
    let mut options = case.options();
    options.insert("input_sets".into(), json!(run.copies));
    options.insert("bytes_of_sets".into(), json!(run.bytes));
    record::Case {
        name: case.name(),
        options,
        work: Box::new(move || work),
        warmup: run.copies,
        setup: Box::new(move || case.prepare(&bed).once),
    }
}

/// Returns the size of the last-level cache in bytes.
fn last_cache() -> usize {
    /// `GPU` is the L2 cache of an H100 or H200; `USUAL` is assumed when the system does not report
    /// a size.
    const GPU: usize = 50 << 20;
    const USUAL: usize = 32 << 20;
    if record::on_gpu() {
        return GPU;
    }
    let text = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index3/size");
    let kib = text.ok().and_then(|text| text.trim().strip_suffix('K')?.parse::<usize>().ok());
    kib.map_or(USUAL, |kib| kib << 10)
}
