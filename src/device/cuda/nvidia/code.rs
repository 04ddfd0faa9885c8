//! Kernel machine code on a GPU: embedded if nvcc was present at build time, otherwise compiled at
//! first use.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::path::PathBuf;
use std::ptr::null_mut;

use cudarc::driver::sys;

use super::embedded::built;
use super::gpu::check;
use super::nvrtc::{self, c_string};
use crate::device::launch::Kernel;
use crate::device::precision::Types;
use crate::{Error, Result};

/// Dynamic shared memory in bytes that a kernel may use without opting in to more. By default it
/// has 48 KiB, arrays of a fixed size included.
const USUAL_SHARED: usize = 32 << 10;

pub(super) struct Code {
    capability: (c_int, c_int),
    /// The folder that keeps what NVRTC compiles.
    cache: Option<PathBuf>,
    /// Loaded modules, by file in kernels/.
    modules: RefCell<HashMap<(&'static str, Types), sys::CUmodule>>,
    /// Loaded modules of kernels that bring their own source.
    foreign: RefCell<Vec<sys::CUmodule>>,
    /// Functions, by the address of the kernel's description.
    functions: RefCell<HashMap<(*const Kernel, Types), Function>>,
}

#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory in bytes that the function may use.
    shared: usize,
}

impl Code {
    pub fn new(capability: (c_int, c_int), cache: Option<PathBuf>) -> Code {
        let (modules, foreign, functions) = Default::default();
        Code { capability, cache, modules, foreign, functions }
    }

    /// Returns a kernel that may use `shared` bytes of dynamic shared memory.
    pub fn function(
        &self,
        kernel: &'static Kernel,
        types: Types,
        shared: usize,
    ) -> Result<sys::CUfunction> {
        let mut functions = self.functions.borrow_mut();
        let key = (std::ptr::from_ref(kernel), types);
        let function = match functions.get_mut(&key) {
            Some(function) => function,
            None => {
                let handle = self.load_function(kernel, types)?;
                functions.entry(key).or_insert(Function { handle, shared: USUAL_SHARED })
            }
        };
        if shared > function.shared {
            let attribute =
                sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was loaded in this context and its module stays loaded.
            let set = unsafe {
                call!(DRIVER, sys::cuFuncSetAttribute(function.handle, attribute, shared as c_int))
            };
            check(set, &format!("{shared} bytes of shared memory for {}", kernel.name))?;
            function.shared = shared;
        }
        Ok(function.handle)
    }

    fn load_function(&self, kernel: &Kernel, types: Types) -> Result<sys::CUfunction> {
        let module = match kernel.source {
            None => self.module(kernel.file, types)?,
            Some(source) => {
                let code = nvrtc::foreign(kernel.file, source, types, self.capability)?;
                let module = self.load(kernel.file, &code)?;
                self.foreign.borrow_mut().push(module);
                module
            }
        };
        let name = c_string(&format!("{}_{}", kernel.name, built(types)?.0))?;
        let mut function = null_mut();
        // SAFETY: the out-pointer refers to a local, and the module stays loaded.
        let status = unsafe {
            call!(DRIVER, sys::cuModuleGetFunction(&mut function, module, name.as_ptr()))
        };
        check(status, kernel.name)?;
        Ok(function)
    }

    fn module(&self, file: &'static str, types: Types) -> Result<sys::CUmodule> {
        let key = (file, types);
        if let Some(module) = self.modules.borrow().get(&key) {
            return Ok(*module);
        }
        let embedded = built(types)?.1.iter().find(|(name, _)| *name == file);
        let compiled = || nvrtc::code(file, types, self.capability, self.cache.clone());
        let module = match embedded {
            None => self.load(file, &compiled()?)?,
            // The driver may be older than the compiler of the embedded code, and NVRTC as old as
            // the driver.
            Some((_, code)) => self.load(file, code).or_else(|embedded| {
                let code = compiled().map_err(|_| embedded)?;
                self.load(file, &code)
            })?,
        };
        self.modules.borrow_mut().insert(key, module);
        Ok(module)
    }

    fn load(&self, file: &str, code: &[u8]) -> Result<sys::CUmodule> {
        let mut module = null_mut();
        // SAFETY: the out-pointer refers to a local; the driver copies the code, whose headers
        // state its size.
        let status =
            unsafe { call!(DRIVER, sys::cuModuleLoadData(&mut module, code.as_ptr().cast())) };
        check(status, &format!("loading kernels/{file}")).map_err(|e| {
            let (major, minor) = self.capability;
            Error::device(format!(
                "{e}. If the NVIDIA driver is older than the compiler that built the kernels \
                 (CUDA 13 needs 580 or later), or the program has no code for compute capability \
                 {major}.{minor}, install a newer driver, or NVRTC of the driver's own version"
            ))
        })?;
        Ok(module)
    }

    pub fn unload(&mut self) {
        let own = self.modules.get_mut().drain().map(|(_, module)| module);
        for module in own.chain(self.foreign.get_mut().drain(..)) {
            // SAFETY: the module was loaded by `load`, and none of its kernels is running any more.
            let _ = unsafe { call!(DRIVER, sys::cuModuleUnload(module)) };
        }
    }
}
