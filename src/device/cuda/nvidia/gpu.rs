//! A GPU's context: how it is made current, its properties and its memory.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::null_mut;
use std::sync::Mutex;

use cudarc::driver::sys;

use super::{faults, libraries};
use crate::device::cuda::driver::Memory;
use crate::{Error, Result};

/// A GPU's context and its main stream.
pub struct Gpu {
    context: sys::CUcontext,
    device: sys::CUdevice,
    pub stream: sys::CUstream,
    /// Whether this driver must destroy the stream.
    owned: bool,
}

/// The primary contexts that this process uses, by GPU, as addresses. Each is retained once and
/// never released: releasing the last reference destroys it, and the next device would spend up to
/// a second on a new one.
static PRIMARY: Mutex<BTreeMap<sys::CUdevice, usize>> = Mutex::new(BTreeMap::new());

/// While this lives, a GPU's context is the current one of this thread; afterwards the caller's is
/// again.
pub struct Entered(PhantomData<*const ()>);

impl Drop for Entered {
    fn drop(&mut self) {
        let mut context = null_mut();
        // SAFETY: `enter` has pushed the context, and the out-pointer refers to a local.
        let _ = unsafe { call!(DRIVER, sys::cuCtxPopCurrent_v2(&mut context)) };
    }
}

/// Turns a status into an error that says which call failed and, after the fault of a kernel, which
/// launches preceded it.
pub fn check(status: sys::CUresult, call: &str) -> Result<()> {
    if status == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let text = |text: *const c_char| {
        // SAFETY: the driver returns a static string, or leaves null for an unknown error.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    let (mut name, mut what) = (std::ptr::null(), std::ptr::null());
    // SAFETY: the out-pointers refer to locals.
    unsafe {
        let _ = call!(DRIVER, sys::cuGetErrorName(status, &mut name));
        let _ = call!(DRIVER, sys::cuGetErrorString(status, &mut what));
    }
    let name = text(name).unwrap_or_else(|| format!("{status:?}"));
    let what = text(what).unwrap_or_default();
    let advice = if faults::is_fault(status) { faults::advice() } else { String::new() };
    Err(Error::device(format!("{call}: {what} ({name}){advice}")))
}

/// Returns the number of visible GPUs; None without a driver.
fn visible() -> Result<Option<c_int>> {
    if !libraries::driver()? {
        return Ok(None);
    }
    let mut count = 0;
    // SAFETY: the out-pointer refers to a local.
    unsafe {
        match call!(DRIVER, sys::cuInit(0)) {
            sys::CUresult::CUDA_ERROR_NO_DEVICE => return Ok(Some(0)),
            status => check(status, "cuInit")?,
        }
        check(call!(DRIVER, sys::cuDeviceGetCount(&mut count)), "cuDeviceGetCount")?;
    }
    Ok(Some(count))
}

/// Returns the number of visible GPUs; 0 without a driver.
pub fn count() -> Result<usize> {
    Ok(visible()?.and_then(|count| usize::try_from(count).ok()).unwrap_or(0))
}

/// Returns the primary context of a GPU.
fn primary_context(device: sys::CUdevice) -> Result<sys::CUcontext> {
    // A panic elsewhere cannot leave the table half changed.
    let mut contexts = PRIMARY.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(context) = contexts.get(&device) {
        return Ok(*context as sys::CUcontext);
    }
    let mut context = null_mut();
    // SAFETY: the out-pointer refers to a local, and the driver is initialized.
    let retained = unsafe { call!(DRIVER, sys::cuDevicePrimaryCtxRetain(&mut context, device)) };
    check(retained, "cuDevicePrimaryCtxRetain")?;
    contexts.insert(device, context as usize);
    Ok(context)
}

impl Gpu {
    /// Opens a visible GPU (CUDA_VISIBLE_DEVICES) in its primary context.
    pub fn open(index: usize) -> Result<Gpu> {
        let count = visible()?.ok_or_else(libraries::missing_driver)?;
        if count == 0 {
            return Err(Error::device(
                "device.kind: the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES may hide it); \
                 `--device host` runs without one",
            ));
        }
        let index = c_int::try_from(index).ok().filter(|&i| i < count).ok_or_else(|| {
            Error::device(format!(
                "device.kind: there is no GPU {index}: {count} can be seen, counted from 0 \
                 (CUDA_VISIBLE_DEVICES may hide others)"
            ))
        })?;
        libraries::CUBLASLT.check()?;
        libraries::CUDNN.check()?;
        let mut device = 0;
        // SAFETY: the out-pointer refers to a local, and the driver is initialized.
        check(unsafe { call!(DRIVER, sys::cuDeviceGet(&mut device, index)) }, "cuDeviceGet")?;
        let context = primary_context(device)?;
        let mut gpu = Gpu { context, device, stream: null_mut(), owned: true };
        gpu.stream = gpu.another_stream()?;
        Ok(gpu)
    }

    /// Uses the GPU of an existing context; all work is submitted to `stream`.
    ///
    /// # Safety
    /// Both are live handles (`CUcontext`, `CUstream`) that outlive this.
    pub unsafe fn existing(context: *mut c_void, stream: *mut c_void) -> Result<Gpu> {
        if !libraries::driver()? {
            return Err(libraries::missing_driver());
        }
        libraries::CUBLASLT.check()?;
        libraries::CUDNN.check()?;
        let mut gpu =
            Gpu { context: context.cast(), device: 0, stream: stream.cast(), owned: false };
        let entered = gpu.enter()?;
        // SAFETY: the out-pointer refers to a local.
        let status = unsafe { call!(DRIVER, sys::cuCtxGetDevice(&mut gpu.device)) };
        check(status, "cuCtxGetDevice")?;
        drop(entered);
        Ok(gpu)
    }

    pub fn name(&self) -> String {
        let mut name = [0 as c_char; 256];
        // SAFETY: the driver writes a terminated string of at most 256 bytes.
        unsafe {
            let _ = call!(DRIVER, sys::cuDeviceGetName(name.as_mut_ptr(), 256, self.device));
            CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
        }
    }

    /// Makes the context current until the result is dropped. Other code in the process may use
    /// another one on this thread, and finds it current again afterwards.
    pub fn enter(&self) -> Result<Entered> {
        // SAFETY: the context outlives this.
        let status = unsafe { call!(DRIVER, sys::cuCtxPushCurrent_v2(self.context)) };
        check(status, "cuCtxPushCurrent").map(|()| Entered(PhantomData))
    }

    fn attribute(&self, attribute: sys::CUdevice_attribute) -> Result<c_int> {
        let mut value = 0;
        // SAFETY: the out-pointer refers to a local.
        let status =
            unsafe { call!(DRIVER, sys::cuDeviceGetAttribute(&mut value, attribute, self.device)) };
        check(status, "cuDeviceGetAttribute")?;
        Ok(value)
    }

    /// Creates a stream that does not synchronize with the default stream.
    pub fn another_stream(&self) -> Result<sys::CUstream> {
        let _entered = self.enter()?;
        let mut stream = null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the out-pointer refers to a local.
        check(unsafe { call!(DRIVER, sys::cuStreamCreate(&mut stream, flags)) }, "cuStreamCreate")?;
        Ok(stream)
    }

    pub fn capability(&self) -> Result<(c_int, c_int)> {
        use sys::CUdevice_attribute as A;
        Ok((
            self.attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            self.attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ))
    }

    pub fn multiprocessors(&self) -> Result<usize> {
        use sys::CUdevice_attribute as A;
        let count = self.attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        Ok(count.max(1) as usize)
    }

    pub fn last_cache(&self) -> Result<usize> {
        let bytes = self.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?;
        Ok(bytes.max(0) as usize)
    }

    pub fn memory(&self) -> Result<Memory> {
        let _entered = self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the out-pointers refer to locals.
        check(
            unsafe { call!(DRIVER, sys::cuMemGetInfo_v2(&mut free, &mut total)) },
            "cuMemGetInfo",
        )?;
        Ok(Memory { free, total })
    }

    pub fn allocate(&self, bytes: usize) -> Result<u64> {
        let _entered = self.enter()?;
        let mut address = 0;
        // The driver refuses allocations during a capture unless the mode is relaxed. That is safe
        // here: the memory stays where it is.
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the pointers refer to locals; the mode applies to this thread and is restored.
        let status = unsafe {
            check(
                call!(DRIVER, sys::cuThreadExchangeStreamCaptureMode(&mut mode)),
                "cuThreadExchange…",
            )?;
            let status = call!(DRIVER, sys::cuMemAlloc_v2(&mut address, bytes));
            check(
                call!(DRIVER, sys::cuThreadExchangeStreamCaptureMode(&mut mode)),
                "cuThreadExchange…",
            )?;
            status
        };
        match status {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let problem = format!("the GPU has less than {} MiB free", bytes >> 20);
                Err(Error::OutOfMemory(problem))
            }
            status => check(status, "cuMemAlloc").map(|()| address),
        }
    }

    pub fn free(&self, address: u64) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the address comes from `allocate` and is freed once.
        check(unsafe { call!(DRIVER, sys::cuMemFree_v2(address)) }, "cuMemFree")
    }

    pub fn allocate_host(&self, bytes: usize) -> Result<u64> {
        let _entered = self.enter()?;
        let mut address = null_mut();
        // SAFETY: the out-pointer refers to a local.
        let status = unsafe { call!(DRIVER, sys::cuMemHostAlloc(&mut address, bytes, 0)) };
        check(status, &format!("cannot allocate {} MiB of pinned memory", bytes >> 20))?;
        Ok(address as u64)
    }

    pub fn free_host(&self, address: u64) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the address comes from `allocate_host` and is freed once.
        check(unsafe { call!(DRIVER, sys::cuMemFreeHost(address as *mut c_void)) }, "cuMemFreeHost")
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.owned && !self.stream.is_null() {
            // SAFETY: nothing else uses the stream; if a call fails, it lasts until the process
            // ends.
            let _ = self
                .enter()
                .map(|_entered| unsafe { call!(DRIVER, sys::cuStreamDestroy_v2(self.stream)) });
        }
    }
}
