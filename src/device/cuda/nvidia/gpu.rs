//! A GPU's context: how it is made current, its properties and its memory.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use cudarc::driver::sys;

use super::libraries;
use crate::device::cuda::driver::Memory;
use crate::{Error, Result};

/// A GPU's context and its main stream.
pub struct Gpu {
    context: sys::CUcontext,
    device: sys::CUdevice,
    pub stream: sys::CUstream,
    /// Whether this driver must release the context and the stream.
    owned: bool,
}

pub fn check(status: sys::CUresult, call: &str) -> Result<()> {
    if status == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let text = |get: unsafe fn(sys::CUresult, *mut *const c_char) -> sys::CUresult| {
        let mut text = std::ptr::null();
        // SAFETY: the driver returns a static string, or leaves null for an unknown error.
        unsafe {
            let _ = get(status, &mut text);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    };
    let name = text(sys::cuGetErrorName).unwrap_or_else(|| format!("{status:?}"));
    let what = text(sys::cuGetErrorString).unwrap_or_default();
    Err(Error::device(format!("{call}: {what} ({name})")))
}

/// Returns whether there is a driver and a GPU.
pub fn is_present() -> Result<bool> {
    if !libraries::driver()? {
        return Ok(false);
    }
    let mut count = 0;
    // SAFETY: `libraries::driver` found the library with both functions.
    unsafe {
        match sys::cuInit(0) {
            sys::CUresult::CUDA_ERROR_NO_DEVICE => return Ok(false),
            status => check(status, "cuInit")?,
        }
        check(sys::cuDeviceGetCount(&mut count), "cuDeviceGetCount")?;
    }
    Ok(count > 0)
}

impl Gpu {
    /// Opens the first visible GPU (CUDA_VISIBLE_DEVICES) in its primary context.
    pub fn first() -> Result<Gpu> {
        if !libraries::driver()? {
            return Err(libraries::missing_driver());
        }
        if !is_present()? {
            return Err(Error::device(
                "device.kind: the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES may hide it); \
                 `--device host` runs without one",
            ));
        }
        libraries::CUBLASLT.check()?;
        libraries::CUDNN.check()?;
        let (mut device, mut context) = (0, null_mut());
        // SAFETY: the out-pointers refer to locals, and the driver is initialized.
        unsafe {
            check(sys::cuDeviceGet(&mut device, 0), "cuDeviceGet")?;
            let retained = sys::cuDevicePrimaryCtxRetain(&mut context, device);
            check(retained, "cuDevicePrimaryCtxRetain")?;
        }
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
        let context: sys::CUcontext = context.cast();
        let mut device = 0;
        // SAFETY: the caller guarantees that the context is live; the out-pointer refers to a
        // local.
        unsafe {
            check(sys::cuCtxSetCurrent(context), "cuCtxSetCurrent")?;
            check(sys::cuCtxGetDevice(&mut device), "cuCtxGetDevice")?;
        }
        Ok(Gpu { context, device, stream: stream.cast(), owned: false })
    }

    pub fn name(&self) -> String {
        let mut name = [0 as c_char; 256];
        // SAFETY: the driver writes a terminated string of at most 256 bytes.
        unsafe {
            let _ = sys::cuDeviceGetName(name.as_mut_ptr(), 256, self.device);
            CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
        }
    }

    /// Makes the context current: other code in the process may have changed the current one.
    pub fn enter(&self) -> Result<()> {
        // SAFETY: the context outlives this.
        check(unsafe { sys::cuCtxSetCurrent(self.context) }, "cuCtxSetCurrent")
    }

    fn attribute(&self, attribute: sys::CUdevice_attribute) -> Result<c_int> {
        let mut value = 0;
        // SAFETY: the out-pointer refers to a local.
        let status = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, self.device) };
        check(status, "cuDeviceGetAttribute")?;
        Ok(value)
    }

    /// Creates a stream that does not synchronize with the default stream.
    pub fn another_stream(&self) -> Result<sys::CUstream> {
        self.enter()?;
        let mut stream = null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the out-pointer refers to a local.
        check(unsafe { sys::cuStreamCreate(&mut stream, flags) }, "cuStreamCreate")?;
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

    pub fn memory(&self) -> Result<Memory> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the out-pointers refer to locals.
        check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, "cuMemGetInfo")?;
        Ok(Memory { free, total })
    }

    pub fn allocate(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        let mut address = 0;
        // The driver refuses allocations during a capture unless the mode is relaxed. That is safe
        // here: the memory stays where it is.
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the pointers refer to locals; the mode applies to this thread and is restored.
        let status = unsafe {
            check(sys::cuThreadExchangeStreamCaptureMode(&mut mode), "cuThreadExchange…")?;
            let status = sys::cuMemAlloc_v2(&mut address, bytes);
            check(sys::cuThreadExchangeStreamCaptureMode(&mut mode), "cuThreadExchange…")?;
            status
        };
        check(status, &format!("the GPU has less than {} MiB free", bytes >> 20))?;
        Ok(address)
    }

    pub fn free(&self, address: u64) -> Result<()> {
        self.enter()?;
        // SAFETY: the address comes from `allocate` and is freed once.
        check(unsafe { sys::cuMemFree_v2(address) }, "cuMemFree")
    }

    pub fn allocate_host(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        let mut address = null_mut();
        // SAFETY: the out-pointer refers to a local.
        let status = unsafe { sys::cuMemHostAlloc(&mut address, bytes, 0) };
        check(status, &format!("cannot allocate {} MiB of pinned memory", bytes >> 20))?;
        Ok(address as u64)
    }

    pub fn free_host(&self, address: u64) -> Result<()> {
        self.enter()?;
        // SAFETY: the address comes from `allocate_host` and is freed once.
        check(unsafe { sys::cuMemFreeHost(address as *mut c_void) }, "cuMemFreeHost")
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: nothing else uses the stream or this reference to the context; if a call
            // fails, they last until the process ends.
            unsafe {
                if !self.stream.is_null() {
                    let _ = sys::cuStreamDestroy_v2(self.stream);
                }
                let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
            }
        }
    }
}
