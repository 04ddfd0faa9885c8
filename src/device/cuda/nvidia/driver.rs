//! The driver for NVIDIA GPUs, through cudarc's bindings. It is thin: decisions are made in the
//! backend above.

use std::cell::RefCell;
use std::ffi::c_void;
use std::path::PathBuf;
use std::ptr::null_mut;

use cudarc::cublaslt::sys as cublaslt;
use cudarc::cudnn::sys as cudnn;
use cudarc::driver::sys;

use super::cache::Cache;
use super::code::Code;
use super::convolution::Convolutions;
use super::faults;
use super::gpu::{Entered, Gpu, check};
use super::matmul::Matmuls;
use crate::device::cuda::driver::{Algorithm, Driver, Event, Graph, Launch, Memory, Stream};
use crate::device::library_op::LibraryOp;
use crate::device::precision::Precision;
use crate::{Error, Result};

pub struct Nvidia {
    // Freed before the context is released.
    products: Matmuls,
    convolutions: Convolutions,
    code: Code,
    events: RefCell<Vec<sys::CUevent>>,
    /// Streams other than the main one.
    streams: RefCell<Vec<sys::CUstream>>,
    graphs: RefCell<Vec<[*mut c_void; 2]>>,
    precision: Precision,
    deterministic: bool,
    multiprocessors: usize,
    cache: Cache,
    gpu: Gpu,
}

impl Nvidia {
    /// Opens a visible GPU (CUDA_VISIBLE_DEVICES) in its primary context.
    pub fn new(
        index: usize,
        precision: Precision,
        deterministic: bool,
        cache: &Cache,
    ) -> Result<Nvidia> {
        Self::on(Gpu::open(index)?, precision, deterministic, cache)
    }

    /// Uses the GPU of an existing context; all work is submitted to `stream`.
    ///
    /// # Safety
    /// Both are live handles (`CUcontext`, `CUstream`) that outlive the driver.
    pub unsafe fn existing(
        context: *mut c_void,
        stream: *mut c_void,
        precision: Precision,
        deterministic: bool,
        cache: &Cache,
    ) -> Result<Nvidia> {
        // SAFETY: the caller guarantees that both handles are live and outlive the driver.
        let gpu = unsafe { Gpu::existing(context, stream)? };
        Self::on(gpu, precision, deterministic, cache)
    }

    fn on(gpu: Gpu, precision: Precision, deterministic: bool, cache: &Cache) -> Result<Nvidia> {
        let capability = gpu.capability()?;
        if capability < (8, 0) {
            let (major, minor) = capability;
            return Err(Error::device(format!(
                "device.kind: the GPU has compute capability {major}.{minor}; 8.0 or later is \
                 needed. `--device host` runs without a GPU"
            )));
        }
        Ok(Nvidia {
            products: Matmuls::new(&gpu, precision, deterministic)?,
            convolutions: Convolutions::new(&gpu, precision, deterministic)?,
            precision,
            deterministic,
            multiprocessors: gpu.multiprocessors()?,
            code: Code::new(capability, cache.path().map(|folder| folder.join("kernels"))),
            cache: cache.clone(),
            events: RefCell::default(),
            streams: RefCell::default(),
            graphs: RefCell::default(),
            gpu,
        })
    }

    /// Makes the stream's context current until the first result is dropped; the second is the
    /// stream's handle.
    fn enter(&self, stream: Stream) -> Result<(Entered, sys::CUstream)> {
        Ok((self.gpu.enter()?, stream.0 as sys::CUstream))
    }
}

/// Destroys a graph. The driver lets a replay in progress finish first. If this fails, the graph
/// lasts until the process ends.
fn destroy([executable, graph]: [*mut c_void; 2]) {
    // SAFETY: both handles come from `end_capture` and are destroyed once.
    unsafe {
        let _ = call!(DRIVER, sys::cuGraphExecDestroy(executable.cast()));
        let _ = call!(DRIVER, sys::cuGraphDestroy(graph.cast()));
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        // Whatever cannot be destroyed lasts until the process ends.
        let _entered = self.gpu.enter();
        self.products.free();
        self.convolutions.free();
        self.graphs.get_mut().drain(..).for_each(destroy);
        // SAFETY: this driver created each of them, and no work is in progress: the device waited
        // for it.
        unsafe {
            for event in self.events.get_mut().drain(..) {
                let _ = call!(DRIVER, sys::cuEventDestroy_v2(event));
            }
            for stream in self.streams.get_mut().drain(..) {
                let _ = call!(DRIVER, sys::cuStreamDestroy_v2(stream));
            }
        }
        self.code.unload();
    }
}

impl Driver for Nvidia {
    fn describe(&self) -> String {
        let name = self.gpu.name();
        // SAFETY: `Gpu` checked that the libraries have these functions.
        let (cublas, cudnn) = unsafe {
            (
                call!(CUBLASLT, cublaslt::cublasLtGetVersion()),
                call!(CUDNN, cudnn::cudnnGetVersion()),
            )
        };
        let precision = self.precision;
        let chance = if self.deterministic { "" } else { ", not deterministic" };
        format!("cuda, {name}, {precision:?}{chance}, cuBLASLt {cublas}, cuDNN {cudnn}")
    }

    fn kept(&self) -> Option<PathBuf> {
        self.cache.path().map(|folder| folder.join("autotune"))
    }

    fn memory(&self) -> Result<Memory> {
        self.gpu.memory()
    }

    fn multiprocessors(&self) -> Option<usize> {
        Some(self.multiprocessors)
    }

    fn last_cache(&self) -> Option<usize> {
        self.gpu.last_cache().ok().filter(|&bytes| bytes > 0)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.gpu.allocate(bytes)
    }

    fn free(&self, address: u64) -> Result<()> {
        self.gpu.free(address)
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64> {
        self.gpu.allocate_host(bytes)
    }

    fn free_host(&self, address: u64) -> Result<()> {
        self.gpu.free_host(address)
    }

    fn write_host(&self, to: u64, data: &[u8]) -> Result<()> {
        // SAFETY: `to` is in pinned memory with room for the data, and no copy reads it meanwhile.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to as *mut u8, data.len()) };
        Ok(())
    }

    fn read_host(&self, from: u64, data: &mut [u8]) -> Result<()> {
        // SAFETY: `from` is in pinned memory, and the copies that wrote it were waited for.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, data.as_mut_ptr(), data.len()) };
        Ok(())
    }

    fn stream(&self) -> Result<Stream> {
        Ok(Stream(self.gpu.stream as u64))
    }

    fn side_stream(&self) -> Result<Stream> {
        let stream = self.gpu.another_stream()?;
        self.streams.borrow_mut().push(stream);
        Ok(Stream(stream as u64))
    }

    fn copy_in(&self, stream: Stream, from_host: u64, to: u64, bytes: usize) -> Result<()> {
        let (_entered, stream) = self.enter(stream)?;
        // SAFETY: both ranges are live; the host's is pinned and not written until it has been
        // read.
        let status = unsafe {
            call!(DRIVER, sys::cuMemcpyHtoDAsync_v2(to, from_host as *const c_void, bytes, stream))
        };
        check(status, "copy to the GPU")
    }

    fn copy_out(&self, stream: Stream, from: u64, to_host: u64, bytes: usize) -> Result<()> {
        let (_entered, stream) = self.enter(stream)?;
        // SAFETY: both ranges are live; the host's is pinned and not read until it has been
        // written.
        let status = unsafe {
            call!(DRIVER, sys::cuMemcpyDtoHAsync_v2(to_host as *mut c_void, from, bytes, stream))
        };
        check(status, "copy from the GPU")
    }

    fn copy(&self, stream: Stream, from: u64, to: u64, bytes: usize) -> Result<()> {
        let (_entered, stream) = self.enter(stream)?;
        // SAFETY: both ranges are live tensors'.
        check(unsafe { call!(DRIVER, sys::cuMemcpyDtoDAsync_v2(to, from, bytes, stream)) }, "copy")
    }

    fn zero(&self, stream: Stream, address: u64, bytes: usize) -> Result<()> {
        let (_entered, stream) = self.enter(stream)?;
        // SAFETY: the range is a live tensor's.
        check(unsafe { call!(DRIVER, sys::cuMemsetD8Async(address, 0, bytes, stream)) }, "zero")
    }

    fn launch(&self, stream: Stream, launch: &Launch) -> Result<()> {
        let name = launch.kernel.name;
        let (_entered, stream) = self.enter(stream)?;
        let function = self.code.function(launch.kernel, launch.types, launch.grid.shared)?;
        let words: Vec<u64> = launch.arguments.iter().map(|argument| argument.word).collect();
        let mut pointers: Vec<*mut c_void> =
            words.iter().map(|word| word as *const u64 as *mut c_void).collect();
        let grid = launch.grid;
        let blocks = u32::try_from(grid.blocks).map_err(|_| {
            Error::device(format!("{name}: {} blocks exceed the limit of a grid", grid.blocks))
        })?;
        // SAFETY: the launcher was generated from the kernel's signature, so there are as many
        // values as parameters, each as wide as the low bytes of its word; the driver copies them
        // during the call.
        let status = unsafe {
            call!(
                DRIVER,
                sys::cuLaunchKernel(
                    function,
                    blocks,
                    1,
                    1,
                    grid.threads,
                    1,
                    1,
                    grid.shared as u32,
                    stream,
                    pointers.as_mut_ptr(),
                    null_mut(),
                )
            )
        };
        check(status, name)?;
        faults::launched(name);
        Ok(())
    }

    fn rounds_operands(&self) -> bool {
        self.precision != Precision::F32
    }

    fn algorithms(&self, op: &LibraryOp) -> Result<Vec<Algorithm>> {
        let _entered = self.gpu.enter()?;
        match op {
            LibraryOp::Matmul(product) => self.products.algorithms(product),
            LibraryOp::Convolution(convolution) => self.convolutions.algorithms(convolution),
        }
    }

    fn compute(
        &self,
        stream: Stream,
        op: &LibraryOp,
        algorithm: usize,
        workspace: u64,
    ) -> Result<()> {
        let (_entered, stream) = self.enter(stream)?;
        match op {
            LibraryOp::Matmul(product) => {
                self.products.run(stream, product, algorithm, workspace)?;
                faults::launched("a matmul");
            }
            LibraryOp::Convolution(c) => {
                self.convolutions.run(stream, c, algorithm, workspace)?;
                faults::launched("a convolution");
            }
        }
        Ok(())
    }

    fn event(&self) -> Result<Event> {
        let _entered = self.gpu.enter()?;
        let mut event = null_mut();
        let flags = sys::CUevent_flags_enum::CU_EVENT_DEFAULT as u32;
        // SAFETY: the out-pointer refers to a local.
        check(unsafe { call!(DRIVER, sys::cuEventCreate(&mut event, flags)) }, "cuEventCreate")?;
        self.events.borrow_mut().push(event);
        Ok(Event(event as u64))
    }

    fn record(&self, stream: Stream, event: Event) -> Result<()> {
        let (_entered, stream) = self.enter(stream)?;
        // SAFETY: this driver created the event, and the stream is live.
        check(
            unsafe { call!(DRIVER, sys::cuEventRecord(event.0 as sys::CUevent, stream)) },
            "cuEventRecord",
        )
    }

    fn hold(&self, stream: Stream, event: Event) -> Result<()> {
        let (_entered, stream) = self.enter(stream)?;
        // SAFETY: this driver created the event, and the stream is live.
        let status =
            unsafe { call!(DRIVER, sys::cuStreamWaitEvent(stream, event.0 as sys::CUevent, 0)) };
        check(status, "cuStreamWaitEvent")
    }

    fn passed(&self, event: Event) -> Result<bool> {
        let _entered = self.gpu.enter()?;
        // SAFETY: this driver created the event.
        match unsafe { call!(DRIVER, sys::cuEventQuery(event.0 as sys::CUevent)) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            status => check(status, "cuEventQuery").map(|()| true),
        }
    }

    fn wait(&self, event: Event) -> Result<()> {
        let _entered = self.gpu.enter()?;
        // SAFETY: this driver created the event.
        let status = unsafe { call!(DRIVER, sys::cuEventSynchronize(event.0 as sys::CUevent)) };
        check(status, "cuEventSynchronize")
    }

    fn elapsed(&self, from: Event, to: Event) -> Result<f64> {
        let _entered = self.gpu.enter()?;
        let (from, to) = (from.0 as sys::CUevent, to.0 as sys::CUevent);
        let mut milliseconds = 0.0;
        // SAFETY: this driver created both events, and the out-pointer refers to a local.
        let status =
            unsafe { call!(DRIVER, sys::cuEventElapsedTime_v2(&mut milliseconds, from, to)) };
        check(status, "cuEventElapsedTime")?;
        Ok(f64::from(milliseconds) * 1e-3)
    }

    fn synchronize(&self, stream: Stream) -> Result<()> {
        let (_entered, stream) = self.enter(stream)?;
        // SAFETY: the stream is live.
        check(unsafe { call!(DRIVER, sys::cuStreamSynchronize(stream)) }, "cuStreamSynchronize")?;
        if stream == self.gpu.stream {
            faults::finished();
        }
        Ok(())
    }

    /// CUDA cannot capture a default stream: null, or one of the two handles (1 and 2) that stand
    /// for it.
    fn records(&self) -> bool {
        self.gpu.stream as u64 > 2
    }

    fn is_captured(&self, stream: Stream) -> Result<bool> {
        if !self.records() {
            return Ok(false);
        }
        let (_entered, stream) = self.enter(stream)?;
        let mut state = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: the out-pointer refers to a local, and the stream is live.
        let status = unsafe { call!(DRIVER, sys::cuStreamIsCapturing(stream, &mut state)) };
        check(status, "cuStreamIsCapturing")?;
        Ok(state != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    fn begin_capture(&self, stream: Stream) -> Result<()> {
        let (_entered, stream) = self.enter(stream)?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is live.
        check(
            unsafe { call!(DRIVER, sys::cuStreamBeginCapture_v2(stream, mode)) },
            "cuStreamBeginCapture",
        )
    }

    fn end_capture(&self, stream: Stream) -> Result<Graph> {
        let (_entered, stream) = self.enter(stream)?;
        let (mut graph, mut executable) = (null_mut(), null_mut());
        // SAFETY: the out-pointers refer to locals, and the stream is live.
        unsafe {
            check(
                call!(DRIVER, sys::cuStreamEndCapture(stream, &mut graph)),
                "cuStreamEndCapture",
            )?;
            let status = call!(DRIVER, sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0));
            check(status, "cuGraphInstantiate")?;
        }
        self.graphs.borrow_mut().push([executable.cast(), graph.cast()]);
        Ok(Graph(executable as u64))
    }

    fn replay(&self, stream: Stream, graph: Graph) -> Result<()> {
        let (_entered, stream) = self.enter(stream)?;
        // SAFETY: the graph comes from `end_capture` and was not discarded.
        let graph = graph.0 as sys::CUgraphExec;
        check(unsafe { call!(DRIVER, sys::cuGraphLaunch(graph, stream)) }, "cuGraphLaunch")?;
        faults::launched("a CUDA graph");
        Ok(())
    }

    fn discard(&self, graph: Graph) {
        // Whatever cannot be destroyed lasts until the process ends.
        let _entered = self.gpu.enter();
        let mut graphs = self.graphs.borrow_mut();
        let Some(at) = graphs.iter().position(|[executable, _]| *executable as u64 == graph.0)
        else {
            return;
        };
        destroy(graphs.swap_remove(at));
    }
}
