//! The driver of NVIDIA's GPUs, through cudarc's bindings. Thin: what is decided is decided above.

mod code;
mod convolution;
mod graph;
mod libraries;
mod product;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::path::PathBuf;
use std::ptr::null_mut;

use cudarc::cublaslt::sys as cublaslt;
use cudarc::cudnn::sys as cudnn;
use cudarc::driver::sys;

use super::driver::{Driver, Event, Graph, Launch, Memory, Stream, Way};
use crate::device::job::Job;
use crate::device::precision::{Precision, Types};
use crate::{Error, Result};

use code::Code;
use convolution::Convolutions;
use product::Products;

/// Dynamic shared memory that a kernel may use without asking for more: 48 KiB are its own, arrays
/// of a fixed size included.
const USUAL_SHARED: usize = 32 << 10;

pub struct Nvidia {
    // Dropped before the context is released.
    products: Products,
    convolutions: Convolutions,
    code: Code,
    functions: RefCell<HashMap<(&'static str, Types), Function>>,
    events: RefCell<Vec<sys::CUevent>>,
    /// Beside the one of all work.
    streams: RefCell<Vec<sys::CUstream>>,
    graphs: RefCell<Vec<[*mut c_void; 2]>>,
    deterministic: bool,
    multiprocessors: usize,
    gpu: Gpu,
}

#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that was asked for.
    shared: usize,
}

/// A GPU's context and the stream of all work.
struct Gpu {
    context: sys::CUcontext,
    device: sys::CUdevice,
    stream: sys::CUstream,
    /// Whether context and stream are this driver's to give back.
    owned: bool,
}

fn check(status: sys::CUresult, call: &str) -> Result<()> {
    if status == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let text = |get: unsafe fn(sys::CUresult, *mut *const std::ffi::c_char) -> sys::CUresult| {
        let mut text = std::ptr::null();
        // SAFETY: the driver answers with a static string, or leaves null for an unknown error.
        unsafe {
            let _ = get(status, &mut text);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    };
    let name = text(sys::cuGetErrorName).unwrap_or_else(|| format!("{status:?}"));
    let what = text(sys::cuGetErrorString).unwrap_or_default();
    Err(Error::device(format!("{call}: {what} ({name})")))
}

/// What runs of it still ends well: the driver lets go of it then. A failure leaves it to the
/// process's end.
fn destroy([executable, graph]: [*mut c_void; 2]) {
    // SAFETY: both are `end_capture`'s, given up once.
    unsafe {
        let _ = sys::cuGraphExecDestroy(executable.cast());
        let _ = sys::cuGraphDestroy(graph.cast());
    }
}

/// Where what takes time to find out is kept, if anywhere.
fn cache() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("udass-raw"))
}

/// Whether there is a driver and a GPU.
pub fn is_present() -> Result<bool> {
    if !libraries::driver()? {
        return Ok(false);
    }
    let mut count = 0;
    // SAFETY: the library is there and has both functions.
    unsafe {
        match sys::cuInit(0) {
            sys::CUresult::CUDA_ERROR_NO_DEVICE => return Ok(false),
            status => check(status, "cuInit")?,
        }
        check(sys::cuDeviceGetCount(&mut count), "cuDeviceGetCount")?;
    }
    Ok(count > 0)
}

impl Nvidia {
    /// The first GPU that is visible (CUDA_VISIBLE_DEVICES), in its primary context.
    pub fn new(precision: Precision, deterministic: bool) -> Result<Nvidia> {
        if !libraries::driver()? {
            return Err(libraries::missing_driver());
        }
        if !is_present()? {
            return Err(Error::device(
                "device.kind: the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES may hide it); \
                 `--device host` computes without",
            ));
        }
        libraries::CUBLASLT.check()?;
        libraries::CUDNN.check()?;
        let (mut device, mut context) = (0, null_mut());
        // SAFETY: out-pointers to locals; the driver is initialised.
        unsafe {
            check(sys::cuDeviceGet(&mut device, 0), "cuDeviceGet")?;
            let retained = sys::cuDevicePrimaryCtxRetain(&mut context, device);
            check(retained, "cuDevicePrimaryCtxRetain")?;
        }
        let mut gpu = Gpu { context, device, stream: null_mut(), owned: true };
        gpu.stream = gpu.another_stream()?;
        Self::on(gpu, precision, deterministic)
    }

    /// The GPU of a context that is there already; all work goes to `stream`.
    ///
    /// # Safety
    /// Both are live handles (`CUcontext`, `CUstream`) that outlive the driver.
    pub unsafe fn existing(
        context: *mut c_void,
        stream: *mut c_void,
        precision: Precision,
        deterministic: bool,
    ) -> Result<Nvidia> {
        if !libraries::driver()? {
            return Err(libraries::missing_driver());
        }
        libraries::CUBLASLT.check()?;
        libraries::CUDNN.check()?;
        let context: sys::CUcontext = context.cast();
        let mut device = 0;
        // SAFETY: the caller's.
        unsafe {
            check(sys::cuCtxSetCurrent(context), "cuCtxSetCurrent")?;
            check(sys::cuCtxGetDevice(&mut device), "cuCtxGetDevice")?;
        }
        let stream = stream.cast();
        let gpu = Gpu { context, device, stream, owned: false };
        Self::on(gpu, precision, deterministic)
    }

    fn on(gpu: Gpu, precision: Precision, deterministic: bool) -> Result<Nvidia> {
        let capability = gpu.capability()?;
        if capability < (8, 0) {
            let (major, minor) = capability;
            return Err(Error::device(format!(
                "device.kind: the GPU has compute capability {major}.{minor}; 8.0 or later is \
                 needed. `--device host` computes without"
            )));
        }
        Ok(Nvidia {
            products: Products::new(&gpu, precision, deterministic)?,
            convolutions: Convolutions::new(&gpu, precision, deterministic)?,
            deterministic,
            multiprocessors: gpu.multiprocessors()?,
            code: Code::new(capability),
            functions: RefCell::default(),
            events: RefCell::default(),
            streams: RefCell::default(),
            graphs: RefCell::default(),
            gpu,
        })
    }

    fn function(&self, launch: &Launch) -> Result<sys::CUfunction> {
        let (kernel, shared) = (launch.kernel, launch.grid.shared);
        let mut functions = self.functions.borrow_mut();
        let key = (kernel.name, launch.types);
        let function = match functions.get_mut(&key) {
            Some(function) => function,
            None => {
                let handle = self.code.function(kernel, launch.types)?;
                functions.entry(key).or_insert(Function { handle, shared: USUAL_SHARED })
            }
        };
        if shared > function.shared {
            let attribute =
                sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was loaded in this context.
            let set =
                unsafe { sys::cuFuncSetAttribute(function.handle, attribute, shared as c_int) };
            check(set, &format!("{shared} bytes of shared memory for {}", kernel.name))?;
            function.shared = shared;
        }
        Ok(function.handle)
    }

    /// The stream's handle, in the context that it belongs to.
    fn enter(&self, stream: Stream) -> Result<sys::CUstream> {
        self.gpu.enter()?;
        Ok(stream.0 as sys::CUstream)
    }
}

impl Gpu {
    /// Somebody else in the process may have made another context current.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as this.
        check(unsafe { sys::cuCtxSetCurrent(self.context) }, "cuCtxSetCurrent")
    }

    fn attribute(&self, attribute: sys::CUdevice_attribute) -> Result<c_int> {
        let mut value = 0;
        // SAFETY: an out-pointer to a local.
        let status = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, self.device) };
        check(status, "cuDeviceGetAttribute")?;
        Ok(value)
    }

    /// One that other work in the context does not wait for.
    fn another_stream(&self) -> Result<sys::CUstream> {
        self.enter()?;
        let mut stream = null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: an out-pointer to a local.
        check(unsafe { sys::cuStreamCreate(&mut stream, flags) }, "cuStreamCreate")?;
        Ok(stream)
    }

    fn capability(&self) -> Result<(c_int, c_int)> {
        use sys::CUdevice_attribute as A;
        Ok((
            self.attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            self.attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ))
    }

    fn multiprocessors(&self) -> Result<usize> {
        use sys::CUdevice_attribute as A;
        let count = self.attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        Ok(count.max(1) as usize)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        let mut address = 0;
        // Refused within a capture unless it is said to be meant: the memory stays where it is.
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: pointers to locals; the mode is this thread's, and is put back.
        let status = unsafe {
            check(sys::cuThreadExchangeStreamCaptureMode(&mut mode), "cuThreadExchange…")?;
            let status = sys::cuMemAlloc_v2(&mut address, bytes);
            check(sys::cuThreadExchangeStreamCaptureMode(&mut mode), "cuThreadExchange…")?;
            status
        };
        check(status, &format!("the GPU has no {} MiB left", bytes >> 20))?;
        Ok(address)
    }

    fn free(&self, address: u64) -> Result<()> {
        self.enter()?;
        // SAFETY: the address is one of `allocate`, given back once.
        check(unsafe { sys::cuMemFree_v2(address) }, "cuMemFree")
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: nothing else holds them; a failure leaves them to the process's end.
            unsafe {
                if !self.stream.is_null() {
                    let _ = sys::cuStreamDestroy_v2(self.stream);
                }
                let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
            }
        }
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        // Failures leave things to the process's end.
        let _ = self.gpu.enter();
        self.products.free();
        self.convolutions.free();
        self.graphs.get_mut().drain(..).for_each(destroy);
        // SAFETY: each was made by this driver, and nothing is under way: the device waited.
        unsafe {
            for event in self.events.get_mut().drain(..) {
                let _ = sys::cuEventDestroy_v2(event);
            }
            for stream in self.streams.get_mut().drain(..) {
                let _ = sys::cuStreamDestroy_v2(stream);
            }
        }
        self.code.unload();
    }
}

impl Driver for Nvidia {
    fn describe(&self) -> String {
        let mut name = [0 as std::ffi::c_char; 256];
        // SAFETY: the driver writes a string of at most as many bytes.
        let name = unsafe {
            let _ = sys::cuDeviceGetName(name.as_mut_ptr(), 256, self.gpu.device);
            CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
        };
        // SAFETY: the libraries were found to have these functions.
        let (cublas, cudnn) = unsafe { (cublaslt::cublasLtGetVersion(), cudnn::cudnnGetVersion()) };
        let precision = self.products.precision;
        let chance = if self.deterministic { "" } else { ", not deterministic" };
        format!("cuda, {name}, {precision:?}{chance}, cuBLASLt {cublas}, cuDNN {cudnn}")
    }

    fn kept(&self) -> Option<PathBuf> {
        cache().map(|folder| folder.join("ways"))
    }

    fn memory(&self) -> Result<Memory> {
        self.gpu.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: out-pointers to locals.
        check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, "cuMemGetInfo")?;
        Ok(Memory { free, total })
    }

    fn multiprocessors(&self) -> Option<usize> {
        Some(self.multiprocessors)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.gpu.allocate(bytes)
    }

    fn free(&self, address: u64) -> Result<()> {
        self.gpu.free(address)
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64> {
        self.gpu.enter()?;
        let mut address = null_mut();
        // SAFETY: an out-pointer to a local.
        let status = unsafe { sys::cuMemHostAlloc(&mut address, bytes, 0) };
        check(status, &format!("no {} MiB of pinned memory", bytes >> 20))?;
        Ok(address as u64)
    }

    fn free_host(&self, address: u64) -> Result<()> {
        self.gpu.enter()?;
        // SAFETY: the address is one of `allocate_host`, given back once.
        check(unsafe { sys::cuMemFreeHost(address as *mut c_void) }, "cuMemFreeHost")
    }

    fn write_host(&self, to: u64, data: &[u8]) -> Result<()> {
        // SAFETY: `to` lies in pinned memory with as much room, which nothing reads meanwhile.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to as *mut u8, data.len()) };
        Ok(())
    }

    fn read_host(&self, from: u64, data: &mut [u8]) -> Result<()> {
        // SAFETY: as above; what wrote it was waited for.
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
        let stream = self.enter(stream)?;
        // SAFETY: both ranges are live, the host's is pinned and left alone until it was read.
        let status =
            unsafe { sys::cuMemcpyHtoDAsync_v2(to, from_host as *const c_void, bytes, stream) };
        check(status, "copy to the GPU")
    }

    fn copy_out(&self, stream: Stream, from: u64, to_host: u64, bytes: usize) -> Result<()> {
        let stream = self.enter(stream)?;
        // SAFETY: as above.
        let status =
            unsafe { sys::cuMemcpyDtoHAsync_v2(to_host as *mut c_void, from, bytes, stream) };
        check(status, "copy from the GPU")
    }

    fn copy(&self, stream: Stream, from: u64, to: u64, bytes: usize) -> Result<()> {
        let stream = self.enter(stream)?;
        // SAFETY: both are tensors' ranges.
        check(unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, stream) }, "copy")
    }

    fn zero(&self, stream: Stream, address: u64, bytes: usize) -> Result<()> {
        let stream = self.enter(stream)?;
        // SAFETY: a tensor's range.
        check(unsafe { sys::cuMemsetD8Async(address, 0, bytes, stream) }, "zero")
    }

    fn launch(&self, stream: Stream, launch: &Launch) -> Result<()> {
        let name = launch.kernel.name;
        let stream = self.enter(stream)?;
        let function = self.function(launch)?;
        let words: Vec<u64> = launch.arguments.iter().map(|argument| argument.word).collect();
        let mut pointers: Vec<*mut c_void> =
            words.iter().map(|word| word as *const u64 as *mut c_void).collect();
        let grid = launch.grid;
        let blocks = u32::try_from(grid.blocks)
            .map_err(|_| Error::device(format!("{name}: {} blocks are too many", grid.blocks)))?;
        // SAFETY: the launcher was generated from the kernel's signature, so there are as many
        // values as parameters, each as wide as its word's low bytes; the driver copies them now.
        let status = unsafe {
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
        };
        check(status, name)
    }

    fn rounds_operands(&self) -> bool {
        self.products.precision != Precision::F32
    }

    fn ways(&self, job: &Job) -> Result<Vec<Way>> {
        self.gpu.enter()?;
        match job {
            Job::Product(product) => self.products.ways(product),
            Job::Convolution(convolution) => self.convolutions.ways(convolution),
        }
    }

    fn compute(&self, stream: Stream, job: &Job, way: usize, workspace: u64) -> Result<()> {
        let stream = self.enter(stream)?;
        match job {
            Job::Product(product) => self.products.run(stream, product, way, workspace),
            Job::Convolution(c) => self.convolutions.run(stream, c, way, workspace),
        }
    }

    fn event(&self) -> Result<Event> {
        self.gpu.enter()?;
        let mut event = null_mut();
        let flags = sys::CUevent_flags_enum::CU_EVENT_DEFAULT as u32;
        // SAFETY: an out-pointer to a local.
        check(unsafe { sys::cuEventCreate(&mut event, flags) }, "cuEventCreate")?;
        self.events.borrow_mut().push(event);
        Ok(Event(event as u64))
    }

    fn record(&self, stream: Stream, event: Event) -> Result<()> {
        let stream = self.enter(stream)?;
        // SAFETY: both are this driver's.
        check(unsafe { sys::cuEventRecord(event.0 as sys::CUevent, stream) }, "cuEventRecord")
    }

    fn hold(&self, stream: Stream, event: Event) -> Result<()> {
        let stream = self.enter(stream)?;
        // SAFETY: both are this driver's.
        let status = unsafe { sys::cuStreamWaitEvent(stream, event.0 as sys::CUevent, 0) };
        check(status, "cuStreamWaitEvent")
    }

    fn passed(&self, event: Event) -> Result<bool> {
        self.gpu.enter()?;
        // SAFETY: the event is this driver's.
        match unsafe { sys::cuEventQuery(event.0 as sys::CUevent) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            status => check(status, "cuEventQuery").map(|()| true),
        }
    }

    fn wait(&self, event: Event) -> Result<()> {
        self.gpu.enter()?;
        // SAFETY: the event is this driver's.
        let status = unsafe { sys::cuEventSynchronize(event.0 as sys::CUevent) };
        check(status, "cuEventSynchronize")
    }

    fn elapsed(&self, from: Event, to: Event) -> Result<f64> {
        let (from, to) = (from.0 as sys::CUevent, to.0 as sys::CUevent);
        let mut milliseconds = 0.0;
        // SAFETY: both events are this driver's; an out-pointer to a local.
        let status = unsafe { sys::cuEventElapsedTime_v2(&mut milliseconds, from, to) };
        check(status, "cuEventElapsedTime")?;
        Ok(f64::from(milliseconds) * 1e-3)
    }

    fn synchronize(&self, stream: Stream) -> Result<()> {
        let stream = self.enter(stream)?;
        // SAFETY: the stream is this driver's.
        check(unsafe { sys::cuStreamSynchronize(stream) }, "cuStreamSynchronize")
    }

    /// CUDA captures no default stream: null, or one of the two that stand for it.
    fn records(&self) -> bool {
        self.gpu.stream as u64 > 2
    }

    fn begin_capture(&self, stream: Stream) -> Result<()> {
        let stream = self.enter(stream)?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is this driver's.
        check(unsafe { sys::cuStreamBeginCapture_v2(stream, mode) }, "cuStreamBeginCapture")
    }

    fn end_capture(&self, stream: Stream) -> Result<Graph> {
        let stream = self.enter(stream)?;
        let (mut graph, mut executable) = (null_mut(), null_mut());
        // SAFETY: out-pointers to locals; the stream is this driver's.
        unsafe {
            check(sys::cuStreamEndCapture(stream, &mut graph), "cuStreamEndCapture")?;
            let status = sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0);
            check(status, "cuGraphInstantiate")?;
        }
        self.graphs.borrow_mut().push([executable.cast(), graph.cast()]);
        Ok(Graph(executable as u64))
    }

    fn replay(&self, stream: Stream, graph: Graph) -> Result<()> {
        let stream = self.enter(stream)?;
        // SAFETY: the graph is one of `end_capture` that was not discarded.
        check(unsafe { sys::cuGraphLaunch(graph.0 as sys::CUgraphExec, stream) }, "cuGraphLaunch")
    }

    fn discard(&self, graph: Graph) {
        let mut graphs = self.graphs.borrow_mut();
        let Some(at) = graphs.iter().position(|[executable, _]| *executable as u64 == graph.0)
        else {
            return;
        };
        destroy(graphs.swap_remove(at));
    }
}
