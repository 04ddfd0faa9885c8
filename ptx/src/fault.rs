//! The rules that a thread can break.

use std::fmt;

/// How a thread accesses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A load through the read-only cache (`ld.global.nc`).
    ReadNonCoherent,
    /// A store.
    Write,
    /// An atomic operation.
    Atomic,
}

impl Access {
    /// Returns whether it only reads.
    pub fn reads(self) -> bool {
        matches!(self, Access::Read | Access::ReadNonCoherent)
    }

    fn verb(self) -> &'static str {
        match self {
            Access::Read => "reads",
            Access::ReadNonCoherent => "reads (.nc)",
            Access::Write => "writes",
            Access::Atomic => "updates",
        }
    }
}

/// A rule that a thread broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It accessed memory outside of every tensor or array.
    OutOfBounds {
        /// How it accessed memory.
        access: Access,
        /// Size of the access.
        bytes: u32,
        /// The position relative to the nearest tensor or array.
        place: String,
    },
    /// The address is not a multiple of the size of the access.
    Misaligned {
        /// The address.
        address: u64,
        /// Size of the access.
        bytes: u32,
    },
    /// It wrote an argument that the kernel declares const.
    ReadOnly {
        /// Name of the argument.
        name: String,
    },
    /// Two accesses of a word are not ordered by a barrier.
    Race {
        /// The later access.
        access: Access,
        /// Name of the tensor or array, and byte offset of the word.
        name: String,
        /// Byte offset of the word.
        offset: u64,
        /// Who made the earlier access, and how.
        other: String,
    },
    /// It read shared memory that nothing wrote.
    Unwritten {
        /// Name of the array.
        name: String,
        /// Byte offset of the word.
        offset: u64,
    },
    /// It accessed the target of an asynchronous copy that was not waited for.
    InFlight {
        /// Name of the array.
        name: String,
        /// Byte offset of the word.
        offset: u64,
    },
    /// Memory that the launch writes was read through the read-only cache.
    NonCoherent {
        /// The later access.
        access: Access,
        /// Name of the tensor.
        name: String,
        /// Byte offset of the word.
        offset: u64,
    },
    /// Not all threads of the block, or not all lanes of a warp, reached the same barrier.
    Divergence {
        /// Threads that wait at the barrier.
        waiting: u32,
        /// Threads that it is for.
        threads: u32,
        /// Position of a thread that did not reach it.
        elsewhere: String,
    },
    /// A warp operation whose mask names lanes that do not reach it, or lacks one that did.
    MissingLanes {
        /// The operation's mask.
        mask: u32,
        /// The lanes that reached it.
        present: u32,
    },
    /// A shuffle reads a lane that takes no part in it.
    AbsentLane {
        /// The lane that was read.
        lane: u32,
    },
    /// The launch executed so many instructions that it is assumed not to terminate.
    Endless,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Problem::OutOfBounds { access, bytes, place } => {
                write!(f, "{} {bytes} bytes out of bounds: {place}", access.verb())
            }
            Problem::Misaligned { address, bytes } => {
                write!(f, "accesses {bytes} bytes at {address:#x}, not a multiple of {bytes}")
            }
            Problem::ReadOnly { name } => write!(f, "writes `{name}`, which is const"),
            Problem::Race { access, name, offset, other } => {
                let verb = access.verb();
                write!(f, "{verb} `{name}` at byte {offset} and {other}, no barrier between")
            }
            Problem::Unwritten { name, offset } => {
                write!(f, "reads shared `{name}` at byte {offset}, which was never written")
            }
            Problem::InFlight { name, offset } => {
                write!(f, "touches `{name}` at byte {offset} before waiting for the copy to it")
            }
            Problem::NonCoherent { access, name, offset } => {
                let verb = access.verb();
                write!(
                    f,
                    "{verb} `{name}` at byte {offset}, which the launch reads with .nc and writes"
                )
            }
            Problem::Divergence { waiting, threads, elsewhere } => {
                write!(f, "waits at a barrier with {waiting} of {threads} threads; {elsewhere}")
            }
            Problem::MissingLanes { mask, present } => {
                write!(f, "warp operation for lanes {mask:#010x}, reached by {present:#010x}")
            }
            Problem::AbsentLane { lane } => {
                write!(f, "shuffles from lane {lane}, which takes no part")
            }
            Problem::Endless => f.write_str("does not terminate"),
        }
    }
}

/// A broken rule, and where it was detected.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Name of the kernel, with the suffix of its types.
    pub kernel: String,
    /// The rule that was broken.
    pub problem: Problem,
    /// Index of the block.
    pub block: u32,
    /// Index of the thread in its block.
    pub thread: u32,
    /// Source lines (`file:line`), the innermost of inlined functions first.
    pub lines: Vec<String>,
    /// Line of the PTX text.
    pub ptx_line: u32,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Fault { kernel, problem, block, thread, lines, ptx_line } = self;
        write!(f, "{kernel}, block {block}, thread {thread}: {problem}")?;
        lines.iter().try_for_each(|line| write!(f, "\n    at {line}"))?;
        write!(f, "\n    at line {ptx_line} of the PTX")
    }
}
