//! What can be wrong with a kernel, in words.

use std::ffi::c_void;
use std::fmt;

/// What a thread does to a word of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Atomic,
}

/// What a thread did, or did not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    OutOfBounds {
        access: Access,
        what: String,
    },
    ReadOnly {
        name: String,
    },
    Race {
        access: Access,
        name: String,
        element: usize,
        other: String,
    },
    Unwritten {
        name: String,
        element: usize,
    },
    InFlight {
        name: String,
        element: usize,
    },
    /// An index of an array of the source: shared, or a thread's own.
    Beyond {
        index: i64,
    },
    Misaligned {
        address: u64,
        bytes: usize,
    },
    Divergence {
        waiting: usize,
        threads: usize,
        elsewhere: String,
    },
    Exchange {
        warp: usize,
        waiting: usize,
        lanes: usize,
    },
    Endless,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let verb = |access: &Access| match access {
            Access::Read => "reads",
            Access::Write => "writes",
            Access::Atomic => "adds to",
        };
        match self {
            Problem::OutOfBounds { access, what } => {
                write!(f, "{} out of bounds: {what}", verb(access))
            }
            Problem::ReadOnly { name } => write!(f, "writes `{name}`, which is const"),
            Problem::Race { access, name, element, other } => {
                write!(f, "{} `{name}`[{element}] and {other}, no barrier between", verb(access))
            }
            Problem::Unwritten { name, element } => {
                write!(f, "reads `{name}`[{element}] in shared memory, which nothing wrote")
            }
            Problem::InFlight { name, element } => {
                write!(f, "touches `{name}`[{element}] before waiting for the copy to it")
            }
            Problem::Beyond { index } => {
                write!(f, "takes number {index} of an array that has fewer")
            }
            Problem::Misaligned { address, bytes } => {
                write!(f, "accesses {bytes} bytes at {address:#x}, which is no multiple of it")
            }
            Problem::Divergence { waiting, threads, elsewhere } => {
                write!(f, "waits at a barrier with {waiting} of {threads} threads; {elsewhere}")
            }
            Problem::Exchange { warp, waiting, lanes } => {
                write!(f, "waits in an exchange of warp {warp} with {waiting} of {lanes} lanes")
            }
            Problem::Endless => write!(f, "does not come to an end"),
        }
    }
}

/// A problem, and where it showed.
#[derive(Clone, Debug)]
pub struct Violation {
    pub kernel: String,
    pub problem: Problem,
    pub block: i64,
    pub thread: usize,
    /// Source lines, the innermost first.
    pub lines: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Violation { kernel, problem, block, thread, lines } = self;
        write!(f, "{kernel}, block {block}, thread {thread}: {problem}")?;
        lines.iter().try_for_each(|line| write!(f, "\n    at {line}"))
    }
}

/// The source lines of a return address, inlined calls first.
pub fn lines_of(from: u64) -> Vec<String> {
    let mut lines = Vec::new();
    // The call stands before where it returns to.
    backtrace::resolve((from - 1) as *mut c_void, |symbol| {
        if let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) {
            let name = file.file_name().map_or_else(Default::default, |n| n.to_string_lossy());
            lines.push(format!("{name}:{line}"));
        }
    });
    lines
}
