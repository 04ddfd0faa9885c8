//! Collectives of the host device, over MPI.
//!
//! MPI may add in any order. Here each process receives its part of everybody's numbers, adds them in
//! the order of the ranks, and sends the means to all: the result has the same bits with every
//! implementation, every network, and every time.

mod library;

use std::cell::RefCell;

use bytemuck::{Pod, cast_slice, cast_slice_mut};

use library::Loaded;

use super::{Collectives, Launched, Launcher, Place};
use crate::dtype::DType;
use crate::{Error, Result};

/// Bytes of numbers that each process adds at a time.
const PART: usize = 4 << 20;
/// Bytes that each process sends to all at a time. MPI counts in 31 bits.
const PIECE: usize = 256 << 20;

/// The processes that an MPI launcher started.
pub struct Mpi {
    library: Loaded,
    place: Place,
    scratch: RefCell<Scratch>,
}

/// Memory to send from and to receive into.
#[derive(Default)]
struct Scratch {
    sent: Vec<u64>,
    received: Vec<u64>,
    means: Vec<u64>,
}

impl Mpi {
    /// Joins the group that this process was started in. All calls must come from the calling thread.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no MPI library; [`Error::Config`] if it is not the launcher's.
    pub fn join(launched: &Launched) -> Result<Mpi> {
        let library = Loaded::find()?;
        let (rank, size) = library.start()?;
        let Launched { place, by } = *launched;
        if (rank, size) == (place.rank, place.size) {
            return Ok(Mpi { library, place, scratch: RefCell::default() });
        }
        let library = library.describe();
        let advice = match by {
            Launcher::Torchrun => {
                "processes on the host device exchange through MPI: start them with `mpiexec -n N` \
                 instead of torchrun"
                    .to_string()
            }
            _ => format!(
                "name the folder of the library that the launcher belongs to in {}",
                library::FOLDERS
            ),
        };
        Err(Error::config(format!(
            "this is process {} of {}, but {library} knows {size}: {advice}",
            place.rank, place.size
        )))
    }

    /// Describes the library.
    pub fn describe(&self) -> String {
        self.library.describe()
    }

    fn mean<T: Number>(&self, numbers: &mut [T]) -> Result<()> {
        let size = self.place.size;
        let most = PART / size_of::<T>();
        let mut scratch = self.scratch.borrow_mut();
        for piece in numbers.chunks_mut(most * size) {
            // The last process may have less to add, or nothing.
            let share = piece.len().div_ceil(size);
            let Scratch { sent, received, means } = &mut *scratch;
            let [sent, received] = [sent, received].map(|all| take::<T>(all, share * size));
            let means = take::<T>(means, share);
            sent[..piece.len()].copy_from_slice(piece);
            self.library.all_to_all(cast_slice(sent), cast_slice_mut(received), size)?;
            means.copy_from_slice(&received[..share]);
            for other in received.chunks(share).skip(1) {
                means.iter_mut().zip(other).for_each(|(sum, x)| *sum = sum.plus(*x));
            }
            means.iter_mut().for_each(|sum| *sum = sum.over(size));
            self.library.all_gather(cast_slice(means), cast_slice_mut(received))?;
            piece.copy_from_slice(&received[..piece.len()]);
        }
        Ok(())
    }
}

/// Returns the first `n` numbers of a buffer, which grows to hold them.
fn take<T: Pod>(buffer: &mut Vec<u64>, n: usize) -> &mut [T] {
    let words = (n * size_of::<T>()).div_ceil(size_of::<u64>());
    if buffer.len() < words {
        buffer.resize(words, 0);
    }
    &mut cast_slice_mut(buffer.as_mut_slice())[..n]
}

trait Number: Pod {
    fn plus(self, other: Self) -> Self;
    fn over(self, count: usize) -> Self;
}

impl Number for f32 {
    fn plus(self, other: f32) -> f32 {
        self + other
    }

    fn over(self, count: usize) -> f32 {
        self / count as f32
    }
}

impl Number for f64 {
    fn plus(self, other: f64) -> f64 {
        self + other
    }

    fn over(self, count: usize) -> f64 {
        self / count as f64
    }
}

impl Collectives for Mpi {
    fn place(&self) -> Place {
        self.place
    }

    fn all_reduce_mean(&self, address: u64, elements: usize, dtype: DType) -> Result<()> {
        // SAFETY: the range is a tensor's on the host device, and the caller holds no other
        // reference to it. Tensors are aligned to more than their elements' size.
        unsafe {
            match dtype {
                DType::F32 => {
                    self.mean(std::slice::from_raw_parts_mut(address as *mut f32, elements))
                }
                DType::F64 => {
                    self.mean(std::slice::from_raw_parts_mut(address as *mut f64, elements))
                }
                other => Err(Error::shape("all_reduce_mean", format!("of {other:?}"))),
            }
        }
    }

    fn all_gather(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        let size = self.place.size;
        // SAFETY: both ranges are tensors' on the host device and do not overlap.
        let (from, to) = unsafe {
            let from = std::slice::from_raw_parts(from as *const u8, bytes);
            (from, std::slice::from_raw_parts_mut(to as *mut u8, bytes * size))
        };
        if bytes <= PIECE {
            return self.library.all_gather(from, to);
        }
        let mut all = vec![0; PIECE * size];
        for (piece, from) in from.chunks(PIECE).enumerate() {
            let n = from.len();
            self.library.all_gather(from, &mut all[..n * size])?;
            for (rank, part) in all[..n * size].chunks(n).enumerate() {
                let start = rank * bytes + piece * PIECE;
                to[start..start + n].copy_from_slice(part);
            }
        }
        Ok(())
    }

    fn abort(&self) {
        self.library.abort();
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        match std::thread::panicking() {
            // The others would wait for this process until somebody ends them.
            true => self.library.abort(),
            false => self.library.finish(),
        }
    }
}
