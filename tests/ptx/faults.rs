//! The block emulator's kernels with one fault each, as nvcc compiles them: each must be found and
//! reported with kernel and line.

use emulator::Value;
use ptx::{Error, Problem};

use crate::built;

const THREADS: usize = 64;
const SOURCE: &str = include_str!("../emulator/kernels/faults.cu");

fn outside(problem: &Problem, place: &str) -> bool {
    matches!(problem, Problem::OutOfBounds { place: found, .. } if found.contains(place))
}

fn race(problem: &Problem, of: &str) -> bool {
    matches!(problem, Problem::Race { name, .. } if name == of)
}

fn diverges(problem: &Problem) -> bool {
    matches!(problem, Problem::Divergence { .. })
}

fn in_flight(problem: &Problem) -> bool {
    matches!(problem, Problem::InFlight { .. })
}

/// Which rule it breaks.
type Expected = fn(&Problem) -> bool;

/// Kernels, the text of a line that breaks a rule, and which rule.
const FAULTS: [(&str, &str, Expected); 18] = [
    ("missing_barrier", "turned[thread_count()", |p| {
        race(p, "turned") || matches!(p, Problem::Unwritten { .. })
    }),
    ("barrier_for_some", "barrier()", diverges),
    ("two_barriers", "barrier()", diverges),
    ("unwritten", "y[thread_index()]", |p| {
        *p == Problem::Unwritten { name: "some".into(), offset: 0 }
    }),
    ("past_the_end", "x[thread_index()", |p| outside(p, "0 bytes past the end of `x`")),
    ("before_the_start", "y[thread_index()", |p| outside(p, "4 bytes before `y`")),
    ("past_shared", "few[thread_index()]", |p| outside(p, "byte 124 of shared `few`")),
    ("past_dynamic_shared", "shared_memory()", |p| outside(p, "byte 252 of shared")),
    ("null_pointer", "x[thread_index()", |p| outside(p, "far from any argument")),
    ("writes_an_input", "const_cast", |p| *p == Problem::ReadOnly { name: "x".into() }),
    ("same_output", "y[0]", |p| race(p, "y")),
    ("blocks_share_an_output", "y[thread_index()]", |p| race(p, "y")),
    ("reads_another_blocks_output", "y[block_index()", |p| race(p, "y")),
    ("misaligned_pack", "load_pack(x + 1)", |p| matches!(p, Problem::Misaligned { bytes: 16, .. })),
    ("lanes_stay_away", "shuffled", |p| *p == Problem::MissingLanes { mask: !0, present: 0x7F }),
    ("reads_before_the_wait", "y[0]", in_flight),
    ("waits_for_too_little", "y[1]", in_flight),
    ("endless", "while", |p| *p == Problem::Endless),
];

fn result(programs: &[ptx::Program], kernel: &str) -> Result<(), Error> {
    let (mut x, mut y) = ([1.0f32; THREADS], [0.0f32; THREADS]);
    let x = match kernel {
        "null_pointer" => Value::Null,
        _ => built::pointer("x", &mut x, false),
    };
    let values = [x, built::pointer("y", &mut y, true), Value::Word(THREADS as u64)];
    let shared = if kernel == "past_dynamic_shared" { 4 * THREADS as u32 - 4 } else { 64 };
    let blocks = if kernel.contains("block") { 2 } else { 1 };
    let symbol = format!("{kernel}_f32");
    let program = programs.iter().find(|program| *program.name == *symbol).unwrap();
    built::execute(program, &values, [blocks, THREADS as u32, shared])
}

#[test]
fn each_fault_is_found_at_its_line() {
    let Some(programs) = built::programs("faults") else { return };
    result(&programs, "no_fault").unwrap();
    for (kernel, text, expected) in FAULTS {
        let Err(Error::Fault(fault)) = result(&programs, kernel) else {
            panic!("{kernel}: nothing found");
        };
        assert!(expected(&fault.problem), "{fault}");
        assert_eq!(fault.kernel, format!("{kernel}_f32"));
        let start = SOURCE.find(&format!("KERNEL({kernel},")).unwrap();
        let at = start + SOURCE[start..].find(text).unwrap();
        let line = format!("faults.cu:{}", SOURCE[..at].lines().count());
        assert!(fault.lines.contains(&line), "{fault}\nis not at {line}");
    }
}

#[test]
fn either_access_of_a_race_may_come_second() {
    let Some(programs) = built::programs("faults") else { return };
    for kernel in ["reads_a_neighbors_output", "copy_without_barrier"] {
        let Err(Error::Fault(fault)) = result(&programs, kernel) else { panic!("{kernel}") };
        let found = matches!(
            &fault.problem,
            Problem::Race { .. } | Problem::InFlight { .. } | Problem::Unwritten { .. }
        );
        assert!(found, "{fault}");
    }
}
