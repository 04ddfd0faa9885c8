//! The CPU backend: kernels run as serial CPU builds with their blocks spread over a thread pool;
//! matmuls use the `gemm` crate, and convolutions are split into matmuls.

use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

use memmap2::{MmapMut, MmapOptions};

use super::tasks::each;
use super::workers::Workers;
use super::{convolution, foreign, launch, matmul, rounded};
use crate::device::backend::Backend;
use crate::device::launch::{Arg, Grid, Kernel, Launcher, Level};
use crate::device::library_op::{LibraryOp, Matmul};
use crate::device::precision::{Precision, Types};
use crate::file::{MAX_TEXT, read_text};
use crate::memory::{Memory, SMALL};
use crate::{Error, Result};

/// Number of elements that are worth handing to another core in elementwise work.
const ELEMENTS_PER_BLOCK: usize = 8 << 10;
/// Bytes that a thread clears at a time. One core alone reaches only a part of the memory's
/// bandwidth.
const BYTES_PER_TASK: usize = 1 << 20;
/// Memory that tensors may take until what is left is looked up again.
const STEP: usize = SMALL;
/// Address space reserved at once if the system does not report its memory size.
const USUAL_MEMORY: usize = 16 << 30;

pub struct Host {
    /// Runs the kernels in place of this device, if present.
    launcher: Option<Box<dyn Launcher>>,
    pub(super) workers: Workers,
    pub(super) level: Level,
    precision: Precision,
    /// Unmapped when the device is dropped; every tensor keeps the device alive.
    segments: RefCell<Vec<Segment>>,
    /// What the machine had left when the device was created, in bytes.
    memory: usize,
    /// Origin of the marks, which are in nanoseconds.
    start: Instant,
}

/// Reserved address space, of which tensors have used the lower part.
struct Segment {
    map: MmapMut,
    /// Bytes that a tensor has occupied at some time, which the system has to keep, and the part of
    /// them for which there was found to be memory.
    used: usize,
    granted: usize,
}

impl Host {
    pub fn new(
        threads: usize,
        precision: Precision,
        launcher: Option<Box<dyn Launcher>>,
    ) -> Result<Host> {
        let workers = Workers::new(threads)?;
        let (level, segments, start) = (best_level(), RefCell::default(), Instant::now());
        Ok(Host { launcher, workers, level, precision, segments, memory: spare(), start })
    }
}

/// Returns the bytes that the machine has left for tensors.
fn spare() -> usize {
    Memory::now().map_or(usize::MAX, Memory::spare)
}

/// Returns the widest instruction set that this processor supports and the kernels were built for.
fn best_level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            return Level::V4;
        }
        if has!("avx2") && has!("fma") && has!("bmi2") && has!("f16c") {
            return Level::V3;
        }
    }
    Level::Base
}

impl Backend for Host {
    fn describe(&self) -> String {
        let precision = match self.precision {
            Precision::F32 => String::new(),
            other => format!(", {other:?}"),
        };
        let (threads, level) = (self.workers.count, self.level);
        format!("host, {threads} thread(s), instruction set {level:?}{precision}")
    }

    /// Reserves address space; pages are committed as they are touched.
    fn reserve(&self, bytes: usize) -> Result<u64> {
        let map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon();
        let mut map = map.map_err(|e| {
            let problem = format!("the system has less than {} MiB free ({e})", bytes >> 20);
            Error::OutOfMemory(problem)
        })?;
        let address = map.as_mut_ptr() as u64;
        self.segments.borrow_mut().push(Segment { map, used: 0, granted: 0 });
        Ok(address)
    }

    /// The machine's whole memory: within one segment all free neighbors merge, so that a teacher's
    /// few large tensors fit where a student's many small ones were.
    fn segment(&self, _: usize) -> usize {
        Memory::now().map_or(USUAL_MEMORY, |memory| memory.total)
    }

    fn total_memory(&self) -> Result<Option<usize>> {
        Ok(Memory::now().map(|memory| memory.total))
    }

    fn room(&self) -> Option<usize> {
        let held: usize = self.segments.borrow().iter().map(|segment| segment.used).sum();
        Some(spare().saturating_add(held))
    }

    /// Refuses a tensor on pages that were never used if there is no memory for them: the system
    /// would end the process when it writes there. What is left now does not count tensors that
    /// were not written yet, and what was left at first does not count the rest of the process, so
    /// both are looked at.
    fn on_alloc(&self, address: u64, bytes: usize) -> Result<()> {
        let mut segments = self.segments.borrow_mut();
        let used: usize = segments.iter().map(|segment| segment.used).sum();
        let holds = |segment: &&mut Segment| {
            let start = segment.map.as_ptr() as u64;
            (start..start + segment.map.len() as u64).contains(&address)
        };
        let Some(segment) = segments.iter_mut().find(holds) else { return Ok(()) };
        let end = (address - segment.map.as_ptr() as u64) as usize + bytes;
        if end > segment.granted {
            let wanted = end - segment.used;
            // A little more is granted at once, so that small tensors cost no look-up each.
            let left = spare().min(self.memory.saturating_sub(used));
            if wanted > left {
                let problem =
                    format!("the machine has only {} MiB left for this process", left >> 20);
                return Err(Error::OutOfMemory(problem));
            }
            segment.granted = end + STEP.min(left - wanted);
        }
        segment.used = segment.used.max(end);
        Ok(())
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        let clear = |first: usize| {
            let to = (address as usize + first) as *mut u8;
            // SAFETY: the range is a tensor's, within memory from `reserve`.
            unsafe { std::ptr::write_bytes(to, 0, BYTES_PER_TASK.min(bytes - first)) };
        };
        if bytes <= BYTES_PER_TASK {
            clear(0);
            return Ok(());
        }
        let tasks = bytes.div_ceil(BYTES_PER_TASK);
        self.workers.install(|| each(tasks, 1, |task| clear(task * BYTES_PER_TASK)))
    }

    fn copy_in(&self, address: u64, data: &[u8]) -> Result<()> {
        // SAFETY: the range is a tensor's, and `data` is outside the arena.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), address as *mut u8, data.len()) };
        Ok(())
    }

    fn copy_out(&self, address: u64, data: &mut [u8]) -> Result<()> {
        // SAFETY: the range is a tensor's, and `data` is outside the arena.
        unsafe {
            std::ptr::copy_nonoverlapping(address as *const u8, data.as_mut_ptr(), data.len())
        };
        Ok(())
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: both ranges are tensors'; `copy` allows them to overlap.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn launch(
        &self,
        kernel: &'static Kernel,
        types: Types,
        grid: Grid,
        args: &[Arg],
    ) -> Result<()> {
        match &self.launcher {
            Some(launcher) => launcher.launch(kernel, types, grid, args),
            None => {
                let words: Vec<u64> = args.iter().map(|arg| arg.word(types)).collect();
                launch::launch(&self.workers, self.level, kernel, types, grid, &words)
            }
        }
    }

    fn rounds_operands(&self) -> bool {
        self.precision != Precision::F32
    }

    /// Row sums are not supported: the caller computes them with a kernel.
    fn workspace(&self, op: &LibraryOp) -> Result<Option<usize>> {
        let sums_rows = matches!(op, LibraryOp::Matmul(Matmul { row_sums: Some(_), .. }));
        Ok((!sums_rows).then_some(0))
    }

    fn compute(&self, op: &LibraryOp, _: u64) -> Result<()> {
        let precision = self.precision;
        let is_rounded = |operands| rounded::is(operands, precision);
        self.workers.install(|| match op {
            LibraryOp::Matmul(p) if is_rounded(p.a.dtype) => rounded::matmul(p),
            LibraryOp::Matmul(p) => matmul::matmul(p),
            LibraryOp::Convolution(c) if is_rounded(c.dtype) => rounded::convolution(c),
            LibraryOp::Convolution(c) => convolution::convolution(c),
        })?
    }

    fn compile_kernel(
        &self,
        kernel: &'static Kernel,
        types: Types,
        file: &Path,
        text: String,
    ) -> Result<&'static Kernel> {
        foreign::compile(kernel, types, self.level, file, &text)
    }

    fn last_cache(&self) -> Option<usize> {
        let levels = ["index3", "index2"].into_iter();
        let mut sizes = levels.filter_map(|level| {
            let path = format!("/sys/devices/system/cpu/cpu0/cache/{level}/size");
            let text = read_text(Path::new(&path), MAX_TEXT).ok()?;
            text.trim().strip_suffix('K')?.parse::<usize>().ok()
        });
        sizes.next().map(|kib| kib << 10)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn install(&self, work: &mut (dyn FnMut() + Send)) -> Result<()> {
        self.workers.install(work)
    }

    fn mark(&self) -> Result<u64> {
        Ok(self.start.elapsed().as_nanos() as u64)
    }

    fn seconds(&self, mark: u64) -> Result<f64> {
        Ok(mark as f64 * 1e-9)
    }

    fn blocks_for(&self, n: usize) -> usize {
        let per_block = match &self.launcher {
            Some(launcher) => launcher.elements_per_block(),
            None => ELEMENTS_PER_BLOCK,
        };
        n.div_ceil(per_block)
    }
}
