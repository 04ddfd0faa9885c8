//! Loads libraries of kernels.

use std::ffi::c_void;
use std::ops::Range;
use std::path::Path;

use crate::block::ThreadBody;
use crate::compile::Build;
use crate::error::Error;
use crate::hooks::{HOOKS, Hooks};

/// A shared library of kernels of one flavor.
pub struct Library {
    library: libloading::Library,
    build: Build,
    /// Address range of the library in memory.
    pub(crate) bounds: Range<u64>,
}

/// The entry point of a kernel's reference, which runs a range of blocks.
pub(crate) type OrderedBody =
    unsafe extern "C" fn(args: *mut *mut c_void, launch: *const OrderedLaunch);

/// Mirrors `SerialLaunch` of `kernels/simt.cuh` in the build of the reference.
#[repr(C)]
pub(crate) struct OrderedLaunch {
    pub begin: i64,
    pub end: i64,
    pub count: i64,
    pub shared: *mut c_void,
    pub threads: i64,
}

impl Library {
    /// Loads a library and, for the block emulator, installs the hooks.
    ///
    /// # Errors
    /// Returns an error if the file cannot be loaded or lacks the functions of `runtime.cpp`.
    pub fn open(path: &Path, build: Build) -> Result<Library, Error> {
        let problem = |e: libloading::Error| Error::Library(format!("{}: {e}", path.display()));
        // SAFETY: the library contains only kernels and has no initializers.
        let library = unsafe { libloading::Library::new(path) }.map_err(problem)?;
        let mut bounds = 0..0;
        if build == Build::Emulated {
            // SAFETY: the types match emulator/runtime.cpp, and `HOOKS` is static.
            unsafe {
                let install: libloading::Symbol<unsafe extern "C" fn(*const Hooks)> =
                    library.get(b"emulator_install").map_err(problem)?;
                install(&HOOKS);
                let find: libloading::Symbol<unsafe extern "C" fn(*mut u64, *mut u64)> =
                    library.get(b"emulator_bounds").map_err(problem)?;
                find(&mut bounds.start, &mut bounds.end);
            }
        }
        Ok(Library { library, build, bounds })
    }

    fn symbol<F: Copy>(&self, kernel: &str) -> Result<F, Error> {
        let name = format!("{kernel}_{}", self.build.name());
        // SAFETY: `threads` and `ordered` check the flavor, which determines the type of the
        // symbol.
        let symbol = unsafe { self.library.get::<F>(name.as_bytes()) };
        symbol.map(|s| *s).map_err(|e| Error::Library(format!("{kernel}: {e}")))
    }

    pub(crate) fn threads(&self, kernel: &str) -> Result<ThreadBody, Error> {
        assert_eq!(self.build, Build::Emulated);
        self.symbol(kernel)
    }

    pub(crate) fn ordered(&self, kernel: &str) -> Result<OrderedBody, Error> {
        assert_eq!(self.build, Build::Ordered);
        self.symbol(kernel)
    }
}
