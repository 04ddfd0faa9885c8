//! Tests kernels with one fault each: it must be found and reported with kernel, thread and line.

use std::sync::LazyLock;

use emulator::{Build, Error, Launch, Library, Problem, Value, Violation};

use crate::built;

struct Libraries {
    emulator: Library,
    reference: Library,
}

static FAULTS: LazyLock<Libraries> = LazyLock::new(|| Libraries {
    emulator: built::library("faults", Build::Emulated),
    reference: built::library("faults", Build::Ordered),
});

const THREADS: usize = 64;

/// Runs a kernel in two blocks of 64 threads, with shared memory for one number per thread, and
/// returns the fault that was found.
fn result(kernel: &str, seed: u64) -> Result<(), Error> {
    let mut x = [1.0f32; THREADS];
    let mut y = [0.0f32; THREADS];
    let x = match kernel {
        "null_pointer" => Value::Null,
        _ => built::pointer("x", &mut x, false),
    };
    let values = vec![x, built::pointer("y", &mut y, true), Value::Word(THREADS as u64)];
    let shared = if kernel == "past_dynamic_shared" { 4 * THREADS - 4 } else { 64 };
    let blocks = if kernel.contains("block") { 2 } else { 1 };
    let launch = Launch { kernel, values, blocks, shared, bf16: false };
    emulator::watch(&FAULTS.emulator, &launch, THREADS, seed)
}

/// Returns the line of a kernel in faults.cu that contains `text`.
fn line_of(kernel: &str, text: &str) -> String {
    let source = include_str!("kernels/faults.cu");
    let start = source.find(&format!("KERNEL({kernel},")).unwrap();
    let at = start + source[start..].find(text).unwrap();
    format!("faults.cu:{}", source[..at].lines().count())
}

/// Runs 200 schedules; each must find the fault at a line that contains `text`.
fn found(kernel: &str, text: &str, expected: impl Fn(&Problem) -> bool) -> Violation {
    let line = line_of(kernel, text);
    let mut first = None;
    for seed in 0..200 {
        let Err(Error::Violation(violation)) = result(kernel, seed) else {
            panic!("{kernel}: nothing found with seed {seed}");
        };
        assert!(expected(&violation.problem), "{kernel}: {violation}");
        assert_eq!(violation.kernel, kernel);
        assert!(violation.lines.contains(&line), "{violation}\nis not at {line}");
        first.get_or_insert(violation);
    }
    *first.unwrap()
}

#[test]
fn a_right_kernel_passes() {
    for seed in 0..50 {
        result("no_fault", seed).unwrap();
    }
}

#[test]
fn a_missing_barrier() {
    let race =
        |problem: &Problem| matches!(problem, Problem::Race { name, .. } if name == "turned");
    let unwritten =
        |problem: &Problem| matches!(problem, Problem::Unwritten { name, .. } if name == "turned");
    found("missing_barrier", "turned[thread_count()", |p| race(p) || unwritten(p));
}

#[test]
fn a_barrier_that_not_all_reach() {
    let diverged = |problem: &Problem| matches!(problem, Problem::Divergence { .. });
    let violation = found("barrier_for_some", "barrier()", diverged);
    let told = violation.to_string();
    assert!(
        told.contains("waits at a barrier with 63 of 64 threads; thread 5 has exited"),
        "{told}"
    );
    found("two_barriers", "barrier()", diverged);
}

#[test]
fn shared_memory_that_nothing_wrote() {
    let violation = found("unwritten", "y[thread_index()]", |problem| {
        *problem == Problem::Unwritten { name: "some".into(), element: 0 }
    });
    assert_eq!(violation.thread, 0);
}

#[test]
fn accesses_out_of_bounds() {
    let outside = |what: &'static str| move |problem: &Problem| matches!(problem, Problem::OutOfBounds { what: w, .. } if w == what);
    found("past_the_end", "x[thread_index()", outside("0 bytes past the end of `x`"));
    found("before_the_start", "y[thread_index()", outside("4 bytes before `y`"));
    found("past_shared", "few[thread_index()]", |problem| {
        matches!(problem, Problem::Beyond { index: 31.. })
    });
    found(
        "past_dynamic_shared",
        "shared_memory()",
        outside("0 bytes past the end of `shared_memory()`"),
    );
    found(
        "null_pointer",
        "x[thread_index()",
        |problem| matches!(problem, Problem::OutOfBounds { what, .. } if what.contains("far from any")),
    );
    found("past_its_own_array", "own[i]", |problem| *problem == Problem::Beyond { index: 4 });
    found("writes_an_input", "const_cast", |problem| {
        *problem == Problem::ReadOnly { name: "x".into() }
    });
}

#[test]
fn threads_that_touch_the_same_word() {
    let race = |name: &'static str| move |problem: &Problem| matches!(problem, Problem::Race { name: n, .. } if n == name);
    found("same_output", "y[0]", race("y"));
    // Either access of the race may come second.
    let kernel = "reads_a_neighbors_output";
    for seed in 0..200 {
        let Err(Error::Violation(violation)) = result(kernel, seed) else { panic!("{seed}") };
        assert!(race("y")(&violation.problem), "{violation}");
        let at = |text| violation.lines.contains(&line_of(kernel, text));
        assert!(at("float before") || at("y[thread_index()] ="), "{violation}");
    }
    found("blocks_share_an_output", "y[thread_index()]", race("y"));
    found("reads_another_blocks_output", "y[block_index()", race("y"));
}

#[test]
fn packs_at_odd_addresses() {
    found("misaligned_pack", "load_pack(x + 1)", |problem| {
        matches!(problem, Problem::Misaligned { bytes: 16, .. })
    });
}

#[test]
fn lanes_and_copies_out_of_step() {
    found("lanes_stay_away", "shuffled", |problem| {
        matches!(problem, Problem::Exchange { waiting: 7, lanes: 32, .. })
    });
    let early = |problem: &Problem| {
        *problem == Problem::InFlight { name: "shared_memory()".into(), element: 0 }
    };
    found("reads_before_the_wait", "y[0]", early);
    found("waits_for_too_little", "y[1]", |problem| {
        *problem == Problem::InFlight { name: "shared_memory()".into(), element: 4 }
    });
    found("copy_without_barrier", "copy[thread_index()", |problem| {
        matches!(
            problem,
            Problem::Race { .. } | Problem::InFlight { .. } | Problem::Unwritten { .. }
        )
    });
}

#[test]
fn a_block_that_does_not_end() {
    let Err(Error::Violation(violation)) = result("endless", 0) else { panic!() };
    assert_eq!(violation.problem, Problem::Endless);
}

#[test]
fn a_result_that_depends_on_the_number_of_threads() {
    let (mut x, mut y) = ([1.5f32; 3], [0.0f32; 3]);
    let values =
        vec![built::pointer("x", &mut x, false), built::pointer("y", &mut y, true), Value::Word(3)];
    let launch = built::launch("wrong_sum", values, 0);
    let problem = emulator::compare(&FAULTS.emulator, &FAULTS.reference, &launch, 3, 0);
    let told = problem.unwrap_err().to_string();
    assert!(told.starts_with("wrong_sum: `y`[0] is 3e0"), "{told}");
    assert!(told.contains("(3 of 3 elements differ)"), "{told}");
}
