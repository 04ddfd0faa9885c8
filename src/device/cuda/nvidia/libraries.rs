//! NVIDIA's libraries, found and checked before any call: cudarc panics if a library or one of its
//! functions is missing.

use std::env;
use std::ffi::c_int;
use std::path::PathBuf;

use crate::{Error, Result};

/// A library and the functions of it that are called.
pub struct Library {
    /// The name in `lib{name}.so`.
    name: &'static str,
    functions: &'static [&'static str],
    /// The function that returns its version (10000·major and more), and the oldest version
    /// supported.
    version: Option<(&'static str, usize)>,
    /// Advice for when it is missing or too old.
    remedy: &'static str,
}

/// The oldest CUDA version that a driver must support, counted as 1000·major + 10·minor.
const OLDEST: c_int = 12080;
/// Environment variable with folders to search first, separated by colons.
pub const FOLDERS: &str = "UDASS_CUDA_LIBRARIES";

pub const DRIVER: Library = Library {
    name: "cuda",
    functions: &[
        "cuCtxSetCurrent",
        "cuCtxGetDevice",
        "cuDeviceGet",
        "cuDeviceGetAttribute",
        "cuDeviceGetCount",
        "cuDeviceGetName",
        "cuDevicePrimaryCtxRelease_v2",
        "cuDevicePrimaryCtxRetain",
        "cuDriverGetVersion",
        "cuEventCreate",
        "cuEventDestroy_v2",
        "cuEventElapsedTime_v2",
        "cuEventQuery",
        "cuEventRecord",
        "cuEventSynchronize",
        "cuFuncSetAttribute",
        "cuGetErrorName",
        "cuGetErrorString",
        "cuGraphDestroy",
        "cuGraphExecDestroy",
        "cuGraphInstantiateWithFlags",
        "cuGraphLaunch",
        "cuInit",
        "cuLaunchKernel",
        "cuMemAlloc_v2",
        "cuMemFreeHost",
        "cuMemFree_v2",
        "cuMemGetInfo_v2",
        "cuMemHostAlloc",
        "cuMemcpyDtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuMemcpyHtoDAsync_v2",
        "cuMemsetD8Async",
        "cuModuleGetFunction",
        "cuModuleLoadData",
        "cuModuleUnload",
        "cuStreamBeginCapture_v2",
        "cuStreamCreate",
        "cuStreamDestroy_v2",
        "cuStreamEndCapture",
        "cuStreamSynchronize",
        "cuStreamWaitEvent",
        "cuThreadExchangeStreamCaptureMode",
    ],
    version: None,
    remedy: "install an NVIDIA driver for CUDA 12.8 or later (570 or later)",
};

pub const CUBLASLT: Library = Library {
    name: "cublasLt",
    functions: &[
        "cublasLtCreate",
        "cublasLtDestroy",
        "cublasLtGetVersion",
        "cublasLtMatmul",
        "cublasLtMatmulAlgoConfigGetAttribute",
        "cublasLtMatmulAlgoGetHeuristic",
        "cublasLtMatmulDescCreate",
        "cublasLtMatmulDescDestroy",
        "cublasLtMatmulDescSetAttribute",
        "cublasLtMatmulPreferenceCreate",
        "cublasLtMatmulPreferenceDestroy",
        "cublasLtMatmulPreferenceSetAttribute",
        "cublasLtMatrixLayoutCreate",
        "cublasLtMatrixLayoutDestroy",
    ],
    version: Some(("cublasLtGetVersion", 120_000)),
    remedy: "install cuBLAS 12 or later (the CUDA toolkit, or `pip install nvidia-cublas`)",
};

pub const CUDNN: Library = Library {
    name: "cudnn",
    functions: &[
        "cudnnBackendCreateDescriptor",
        "cudnnBackendDestroyDescriptor",
        "cudnnBackendExecute",
        "cudnnBackendFinalize",
        "cudnnBackendGetAttribute",
        "cudnnBackendSetAttribute",
        "cudnnCreate",
        "cudnnDestroy",
        "cudnnGetVersion",
        "cudnnSetStream",
    ],
    version: Some(("cudnnGetVersion", 90_000)),
    remedy: "install cuDNN 9 (NVIDIA's packages, or `pip install nvidia-cudnn-cu13`)",
};

pub const NVRTC: Library = Library {
    name: "nvrtc",
    functions: &[
        "nvrtcCompileProgram",
        "nvrtcCreateProgram",
        "nvrtcDestroyProgram",
        "nvrtcGetCUBIN",
        "nvrtcGetCUBINSize",
        "nvrtcGetProgramLog",
        "nvrtcGetProgramLogSize",
        "nvrtcVersion",
    ],
    version: None,
    remedy: "this program was built without nvcc, so it compiles its kernels at first use: \
             install NVRTC (the CUDA toolkit, or `pip install nvidia-cuda-nvrtc`), or build with \
             nvcc",
};

impl Library {
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Describes the library for people: its version and path, or why it cannot be used.
    pub fn describe(&self) -> String {
        if let Err(problem) = self.check() {
            return problem.to_string();
        }
        let version = self.open().ok().flatten().and_then(|library| self.version_of(&library));
        let version = version.map_or(String::new(), |version| format!("version {version}  "));
        format!("{version}{}", self.path().unwrap_or_default())
    }

    /// The file that the library was loaded from, where the system lists what is mapped.
    pub fn path(&self) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let name = format!("/lib{}.so", self.name);
        let paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
        paths.into_iter().find(|path| path.contains(&name)).map(str::to_string)
    }

    fn version_of(&self, library: &libloading::Library) -> Option<usize> {
        let (function, _) = self.version?;
        // SAFETY: the functions that report versions have had this signature from the start.
        unsafe {
            type Version = unsafe extern "C" fn() -> usize;
            library.get::<Version>(function.as_bytes()).ok().map(|version| version())
        }
    }

    /// Opens the library and checks every function that will be called, and its version.
    pub fn check(&self) -> Result<()> {
        let library = self.open()?.ok_or_else(|| self.missing())?;
        self.check_functions(&library)?;
        self.check_version(&library)?;
        // Keep it loaded: cudarc opens it again.
        std::mem::forget(library);
        Ok(())
    }

    fn check_version(&self, library: &libloading::Library) -> Result<()> {
        let Some((function, oldest)) = self.version else { return Ok(()) };
        // SAFETY: both libraries have had this signature since their first version.
        let version = unsafe {
            type Version = unsafe extern "C" fn() -> usize;
            library.get::<Version>(function.as_bytes()).map(|version| version())
        };
        let problem = match version {
            Ok(version) if version >= oldest => return Ok(()),
            Ok(version) => format!("is version {}", version / 10_000),
            Err(_) => format!("has no {function}"),
        };
        let Library { name, remedy, .. } = self;
        Err(Error::device(format!(
            "device.kind: lib{name} {problem}, so it is too old: {remedy}. `--device host` runs \
             without a GPU"
        )))
    }

    fn missing(&self) -> Error {
        Error::device(format!(
            "device.kind: lib{} was not found (set LD_LIBRARY_PATH or {FOLDERS} to its folder); \
             {}. `--device host` runs without a GPU",
            self.name, self.remedy
        ))
    }

    fn check_functions(&self, library: &libloading::Library) -> Result<()> {
        for function in self.functions {
            // SAFETY: the symbol is looked up and not used.
            if unsafe { library.get::<*const ()>(function.as_bytes()) }.is_err() {
                let Library { name, remedy, .. } = self;
                return Err(Error::device(format!(
                    "device.kind: lib{name} has no {function}, so it is too old: {remedy}. \
                     `--device host` runs without a GPU"
                )));
            }
        }
        Ok(())
    }

    /// Searches the folders named first, then tries the names that cudarc uses.
    fn open(&self) -> Result<Option<libloading::Library>> {
        for folder in env::var_os(FOLDERS).iter().flat_map(env::split_paths) {
            let files = std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, "read", e))?;
            let start = format!("lib{}.so", self.name);
            let more = format!("lib{}-builtins.so", self.name);
            let mut found: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
            let named = |path: &PathBuf, start: &str| {
                path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(start))
            };
            found.sort();
            // NVRTC opens its builtins by name alone, so they must be loaded already.
            found.iter().filter(|path| named(path, &more)).for_each(|path| {
                // SAFETY: the initializers of NVIDIA's libraries have no preconditions.
                unsafe { libloading::Library::new(path) }.into_iter().for_each(std::mem::forget);
            });
            let library = found.iter().filter(|path| named(path, &start)).find_map(|path| {
                // SAFETY: the initializers of NVIDIA's libraries have no preconditions.
                unsafe { libloading::Library::new(path) }.ok()
            });
            if library.is_some() {
                return Ok(library);
            }
        }
        // SAFETY: the initializers of NVIDIA's libraries have no preconditions.
        let open = |name: String| unsafe { libloading::Library::new(name) }.ok();
        Ok(cudarc::get_lib_name_candidates(self.name).into_iter().find_map(open))
    }
}

/// Returns whether there is a driver.
///
/// # Errors
/// Fails if the driver is too old.
pub fn driver() -> Result<bool> {
    let Some(library) = DRIVER.open()? else { return Ok(false) };
    let mut version = 0;
    // SAFETY: the function has had this signature since CUDA 2.2.
    let status = unsafe {
        type Version = unsafe extern "C" fn(*mut c_int) -> c_int;
        match library.get::<Version>(b"cuDriverGetVersion") {
            Ok(function) => function(&mut version),
            Err(_) => return DRIVER.check_functions(&library).map(|()| false),
        }
    };
    if status != 0 || version < OLDEST {
        return Err(Error::device(format!(
            "device.kind: the NVIDIA driver is too old: it supports CUDA {}.{}; {}. `--device \
             host` runs without a GPU",
            version / 1000,
            version % 1000 / 10,
            DRIVER.remedy
        )));
    }
    DRIVER.check_functions(&library)?;
    // Keep it loaded: cudarc opens it again.
    std::mem::forget(library);
    Ok(true)
}

pub fn missing_driver() -> Error {
    DRIVER.missing()
}
