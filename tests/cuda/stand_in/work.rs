//! Calls that are enqueued on a stream, and the memory they access.

use std::ops::Range;

use udass_raw::Result;
use udass_raw::device::cuda::Launch;
use udass_raw::device::{Arithmetic, Convolution, LibraryOp, Matmul, Matrix};
use udass_raw::tensor::DType;

use super::memory::Side;

#[derive(Clone)]
pub struct Call {
    /// Used in messages.
    pub name: String,
    pub work: Work,
    pub touches: Vec<Touch>,
    /// Guard zones after the tensors that the call writes.
    pub guards: Vec<Range<u64>>,
}

#[derive(Clone)]
pub enum Work {
    Copy {
        from: u64,
        to: u64,
        bytes: usize,
    },
    Fill {
        address: u64,
        bytes: usize,
        value: u8,
    },
    Launch(Launch),
    LibraryOp {
        op: LibraryOp,
        algorithm: usize,
        ticks: u64,
    },
    /// Waits until another stream has run this many of its calls.
    Hold {
        queue: usize,
        until: u64,
    },
}

/// Memory that a call reads or writes.
#[derive(Clone, Copy, Debug)]
pub struct Touch {
    pub side: Side,
    pub address: u64,
    pub bytes: usize,
    pub written: bool,
    /// Set during a capture: the tensor is older than the capture.
    pub kept: bool,
}

impl Touch {
    pub fn new(side: Side, address: u64, bytes: usize, written: bool) -> Touch {
        Touch { side, address, bytes, written, kept: false }
    }

    pub fn end(&self) -> u64 {
        self.address + self.bytes as u64
    }

    pub fn overlaps(&self, other: &Touch) -> bool {
        self.address < other.end() && other.address < self.end()
    }
}

impl Call {
    pub fn new(name: &str, work: Work, touches: Vec<Touch>) -> Call {
        Call { name: name.into(), work, touches, guards: Vec::new() }
    }

    /// Ticks on the GPU's clock.
    pub fn ticks(&self) -> u64 {
        match self.work {
            Work::LibraryOp { ticks, .. } => ticks,
            _ => 1,
        }
    }

    /// Returns whether the order of the two calls matters.
    pub fn conflicts(&self, other: &Call) -> bool {
        self.touches.iter().any(|mine| {
            let ordered = |theirs: &Touch| mine.written || theirs.written;
            other.touches.iter().any(|theirs| ordered(theirs) && mine.overlaps(theirs))
        })
    }
}

impl Work {
    pub fn perform(&self, arithmetic: &Arithmetic) -> Result<()> {
        // SAFETY: the accesses were checked when the call was enqueued: they are in memory that
        // stays mapped even after it is freed. A launch's arguments come from its generated
        // launcher, which follows the signature.
        unsafe {
            match self {
                Work::Copy { from, to, bytes } => {
                    std::ptr::copy_nonoverlapping(*from as *const u8, *to as *mut u8, *bytes);
                    Ok(())
                }
                Work::Fill { address, bytes, value } => {
                    std::ptr::write_bytes(*address as *mut u8, *value, *bytes);
                    Ok(())
                }
                Work::Launch(launch) => {
                    let words: Vec<u64> = launch.arguments.iter().map(|a| a.word).collect();
                    arithmetic.launch(launch.kernel, launch.types, launch.grid, &words)
                }
                Work::LibraryOp { op, .. } => arithmetic.compute(op),
                Work::Hold { .. } => Ok(()),
            }
        }
    }
}

/// Writes to memory that the caller has checked.
pub fn write(to: u64, data: &[u8]) {
    // SAFETY: the caller found the range in a mapped allocation.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to as *mut u8, data.len()) };
}

/// Reads from memory that the caller has checked.
pub fn read(from: u64, data: &mut [u8]) {
    // SAFETY: the caller found the range in a mapped allocation.
    unsafe { std::ptr::copy_nonoverlapping(from as *const u8, data.as_mut_ptr(), data.len()) };
}

pub fn touched_by(launch: &Launch) -> Vec<Touch> {
    let pointers = launch.arguments.iter().filter_map(|argument| {
        let bytes = argument.bytes?;
        Some(Touch::new(Side::Device, argument.word, bytes, argument.written))
    });
    pointers.collect()
}

/// Returns the call's name and everything that it accesses except its workspace.
pub fn told_of(op: &LibraryOp) -> (&'static str, Vec<Touch>) {
    match op {
        LibraryOp::Matmul(product) => ("product", touched_in(product)),
        LibraryOp::Convolution(convolution) => ("convolution", touched_around(convolution)),
    }
}

fn touched_in(product: &Matmul) -> Vec<Touch> {
    let Matmul { out, a, b, bias, row_sums, .. } = product;
    let touch = |address, elements: usize, dtype: DType, written| {
        Touch::new(Side::Device, address, elements * dtype.bytes(), written)
    };
    let matrix = |m: &Matrix, written| touch(m.address, m.span(), m.dtype, written);
    let mut touches = vec![matrix(a, false), matrix(b, false), matrix(out, true)];
    touches.extend(bias.map(|at| touch(at, out.cols, out.dtype, false)));
    touches.extend(row_sums.map(|at| touch(at, out.rows, out.dtype, true)));
    touches
}

fn touched_around(c: &Convolution) -> Vec<Touch> {
    let (addresses, elements) = ([c.x, c.w, c.y], c.elements());
    let touch = |i: usize| {
        let bytes = elements[i] * c.dtype.bytes();
        Touch::new(Side::Device, addresses[i], bytes, i == c.written())
    };
    (0..3).map(touch).collect()
}
