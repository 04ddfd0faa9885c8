//! The CPU: kernels run solo, their blocks spread over a thread pool; products go to the `gemm`
//! crate, convolutions to one product per row and tap.

mod convolution;
mod launch;
mod product;

use std::alloc::{Layout, alloc, dealloc};
use std::cell::RefCell;

use super::backend::{Backend, Convolution, Product};
use super::launch::{Arg, Grid, Kernel, Level, Types};
use crate::{Error, Result};

/// Elements of elementwise work that are worth handing to another core.
const ELEMENTS_PER_BLOCK: usize = 8 << 10;
const PAGE: usize = 4096;

pub(super) struct Host {
    threads: usize,
    /// None where the thread that made the device is itself part of the pool.
    pool: Option<rayon::ThreadPool>,
    level: Level,
    chunks: RefCell<Vec<(u64, Layout)>>,
}

impl Host {
    pub fn new(threads: usize) -> Result<Host> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = if threads == 0 { cores } else { threads };
        let build = |builder: rayon::ThreadPoolBuilder| {
            let pool = builder.num_threads(threads).build();
            pool.map_err(|e| Error::device(format!("cannot start {threads} threads: {e}")))
        };
        // The calling thread works too, which saves a hand-over per launch. It can belong to one
        // pool only: a second device made on the same thread hands its work over.
        let pool = if rayon::current_thread_index().is_none() {
            std::mem::forget(build(rayon::ThreadPoolBuilder::new().use_current_thread())?);
            None
        } else if rayon::current_num_threads() == threads {
            None
        } else {
            Some(build(rayon::ThreadPoolBuilder::new())?)
        };
        Ok(Host { threads, pool, level: best_level(), chunks: RefCell::default() })
    }

    /// Runs `work` where its parallel parts use this device's threads.
    fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

/// The widest instruction set that this processor has and the kernels were built for.
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
        format!("host, {} thread(s), instruction set {:?}", self.threads, self.level)
    }

    fn reserve(&self, bytes: usize) -> Result<u64> {
        let layout = Layout::from_size_align(bytes, PAGE)
            .map_err(|_| Error::device(format!("{bytes} bytes cannot be allocated")))?;
        // SAFETY: the layout's size is not zero; null is handled.
        let address = unsafe { alloc(layout) } as u64;
        if address == 0 {
            return Err(Error::device(format!("the system has no {} MiB left", bytes >> 20)));
        }
        self.chunks.borrow_mut().push((address, layout));
        Ok(address)
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: address and length are a tensor's, within memory that `reserve` gave out.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0, bytes) };
        Ok(())
    }

    fn copy_in(&self, address: u64, data: &[u8]) -> Result<()> {
        // SAFETY: as above; `data` is outside the arena.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), address as *mut u8, data.len()) };
        Ok(())
    }

    fn copy_out(&self, address: u64, data: &mut [u8]) -> Result<()> {
        // SAFETY: as above.
        unsafe {
            std::ptr::copy_nonoverlapping(address as *const u8, data.as_mut_ptr(), data.len())
        };
        Ok(())
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: both are tensors' ranges; they may be the same.
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
        launch::launch(self, kernel, types, grid, args)
    }

    fn product(&self, product: &Product) -> Result<()> {
        let parallelism = gemm::Parallelism::Rayon(self.threads);
        self.install(|| product::product(product, parallelism))
    }

    fn convolution(&self, convolution: &Convolution) -> Result<()> {
        self.install(|| convolution::convolution(convolution))
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn blocks_for(&self, n: usize) -> usize {
        n.div_ceil(ELEMENTS_PER_BLOCK)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for (address, layout) in self.chunks.borrow_mut().drain(..) {
            // SAFETY: from `alloc` with this layout; every tensor keeps the device alive, so none
            // is left.
            unsafe { dealloc(address as *mut u8, layout) };
        }
    }
}
