//! Violations that the block emulator reports.

use std::ffi::c_void;
use std::fmt;

/// How a thread accesses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An atomic addition.
    Atomic,
}

/// A rule that a thread broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It accessed memory outside of every region.
    OutOfBounds {
        /// How it accessed memory.
        access: Access,
        /// The position relative to the nearest region.
        what: String,
    },
    /// It wrote a const argument.
    ReadOnly {
        /// Name of the argument.
        name: String,
    },
    /// Two accesses of an element are not ordered by a barrier.
    Race {
        /// The later access.
        access: Access,
        /// Name of the argument or array.
        name: String,
        /// Index of the element.
        element: usize,
        /// Who made the earlier access, and how.
        other: String,
    },
    /// It read shared memory that nothing wrote.
    Unwritten {
        /// Name of the array.
        name: String,
        /// Index of the element.
        element: usize,
    },
    /// It accessed the target of an asynchronous copy that was not waited for.
    InFlight {
        /// Name of the array.
        name: String,
        /// Index of the element.
        element: usize,
    },
    /// The index of an array declared in the source, shared or local to a thread, is out of range.
    Beyond {
        /// The index.
        index: i64,
    },
    /// The address of a vector access is not a multiple of its size.
    Misaligned {
        /// The address.
        address: u64,
        /// Size of the access.
        bytes: usize,
    },
    /// Not all threads of the block reached the same barrier.
    Divergence {
        /// Threads that wait at the barrier.
        waiting: usize,
        /// Threads of the block.
        threads: usize,
        /// Position of a thread that did not reach the barrier.
        elsewhere: String,
    },
    /// Not all lanes of a warp reached an exchange.
    Exchange {
        /// Index of the warp.
        warp: usize,
        /// Lanes that wait in the exchange.
        waiting: usize,
        /// Lanes of the warp.
        lanes: usize,
    },
    /// The block made so many accesses that it is assumed not to terminate.
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
                write!(f, "reads `{name}`[{element}] in shared memory, which was never written")
            }
            Problem::InFlight { name, element } => {
                write!(f, "touches `{name}`[{element}] before waiting for the copy to it")
            }
            Problem::Beyond { index } => {
                write!(f, "indexes element {index} of a shorter array")
            }
            Problem::Misaligned { address, bytes } => {
                write!(
                    f,
                    "accesses {bytes} bytes at {address:#x}, which is not a multiple of {bytes}"
                )
            }
            Problem::Divergence { waiting, threads, elsewhere } => {
                write!(f, "waits at a barrier with {waiting} of {threads} threads; {elsewhere}")
            }
            Problem::Exchange { warp, waiting, lanes } => {
                write!(f, "waits in an exchange of warp {warp} with {waiting} of {lanes} lanes")
            }
            Problem::Endless => write!(f, "does not terminate"),
        }
    }
}

/// A broken rule, and where it was detected.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Name of the kernel.
    pub kernel: String,
    /// The rule that was broken.
    pub problem: Problem,
    /// Index of the block.
    pub block: i64,
    /// Index of the thread.
    pub thread: usize,
    /// Source lines, innermost first.
    pub lines: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Violation { kernel, problem, block, thread, lines } = self;
        write!(f, "{kernel}, block {block}, thread {thread}: {problem}")?;
        lines.iter().try_for_each(|line| write!(f, "\n    at {line}"))
    }
}

/// Returns the source lines of a return address, inlined calls first.
pub fn lines_of(from: u64) -> Vec<String> {
    let mut lines = Vec::new();
    // The call precedes the return address.
    backtrace::resolve((from - 1) as *mut c_void, |symbol| {
        if let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) {
            let name = file.file_name().map_or_else(Default::default, |n| n.to_string_lossy());
            lines.push(format!("{name}:{line}"));
        }
    });
    lines
}
