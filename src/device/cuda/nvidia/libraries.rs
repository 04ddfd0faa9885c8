//! NVIDIA's libraries, found and checked before any call. What is called is the library that was
//! checked: cudarc, whose declarations say what each function takes, would open it once more by its
//! bare name, find whatever the system has under it, and panic if something is missing.

use std::env;
use std::ffi::c_int;
use std::path::PathBuf;
use std::sync::OnceLock;

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
    /// Set by the first check that succeeds.
    loaded: OnceLock<Loaded>,
}

/// A library that can be used. It stays loaded until the process ends.
struct Loaded {
    library: libloading::Library,
    /// The address of each of its functions, in the order of the list.
    addresses: Vec<usize>,
}

/// The oldest CUDA version that a driver must support, counted as 1000·major + 10·minor.
const OLDEST: c_int = 12080;
/// Environment variable with folders to search first, separated by colons.
pub const FOLDERS: &str = "UDASS_CUDA_LIBRARIES";

pub static DRIVER: Library = Library {
    name: "cuda",
    functions: &[
        "cuCtxGetDevice",
        "cuCtxPopCurrent_v2",
        "cuCtxPushCurrent_v2",
        "cuDeviceGet",
        "cuDeviceGetAttribute",
        "cuDeviceGetCount",
        "cuDeviceGetName",
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
        "cuStreamIsCapturing",
        "cuStreamSynchronize",
        "cuStreamWaitEvent",
        "cuThreadExchangeStreamCaptureMode",
    ],
    version: None,
    remedy: "install an NVIDIA driver for CUDA 12.8 or later (570 or later)",
    loaded: OnceLock::new(),
};

pub static CUBLASLT: Library = Library {
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
    loaded: OnceLock::new(),
};

pub static CUDNN: Library = Library {
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
    loaded: OnceLock::new(),
};

pub static NVRTC: Library = Library {
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
    loaded: OnceLock::new(),
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
        let library = self.loaded.get().map(|loaded| &loaded.library);
        let version = library.and_then(|library| self.version_of(library));
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

    /// Finds the library, checks its version and every function that will be called, and keeps it
    /// loaded. The first library that can be used is taken.
    ///
    /// # Errors
    /// The error says what is wrong with the first library that was found, or that there is none.
    pub fn check(&self) -> Result<()> {
        match self.load()? {
            true => Ok(()),
            false => Err(self.missing()),
        }
    }

    /// Does the same as [`check`](Self::check), and returns whether there is such a library at all.
    fn load(&self) -> Result<bool> {
        if self.loaded.get().is_some() {
            return Ok(true);
        }
        let mut first_problem = None;
        let named = cudarc::get_lib_name_candidates(self.name).into_iter().map(PathBuf::from);
        for path in self.in_folders()?.into_iter().chain(named) {
            // SAFETY: the initializers of NVIDIA's libraries have no preconditions.
            let Ok(library) = (unsafe { libloading::Library::new(&path) }) else { continue };
            match self.usable(&library) {
                Ok(addresses) => {
                    let _ = self.loaded.set(Loaded { library, addresses });
                    return Ok(true);
                }
                Err(problem) => first_problem = first_problem.or(Some(problem)),
            }
        }
        first_problem.map_or(Ok(false), Err)
    }

    /// Returns the library's files in the folders named by [`FOLDERS`].
    fn in_folders(&self) -> Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for folder in env::var_os(FOLDERS).iter().flat_map(env::split_paths) {
            let files = std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, "read", e))?;
            let mut found: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
            found.sort();
            let is = |path: &&PathBuf, start: &str| {
                path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(start))
            };
            // NVRTC opens its builtins by name alone, so they must be loaded already.
            let builtins = format!("lib{}-builtins.so", self.name);
            found.iter().filter(|path| is(path, &builtins)).for_each(keep_loaded);
            let start = format!("lib{}.so", self.name);
            all.extend(found.iter().filter(|path| is(path, &start)).cloned());
        }
        Ok(all)
    }

    /// Returns the addresses of the functions of a library that can be used.
    fn usable(&self, library: &libloading::Library) -> Result<Vec<usize>> {
        self.check_version(library)?;
        let address = |function: &&'static str| {
            // SAFETY: the symbol is looked up and not used.
            let found = unsafe { library.get::<*const ()>(function.as_bytes()) };
            found
                .map(|symbol| *symbol as usize)
                .map_err(|_| self.too_old(&format!("lib{} has no {function}", self.name)))
        };
        self.functions.iter().map(address).collect()
    }

    fn check_version(&self, library: &libloading::Library) -> Result<()> {
        if self.name == DRIVER.name {
            return check_driver(library);
        }
        let Some((function, oldest)) = self.version else { return Ok(()) };
        match self.version_of(library) {
            Some(version) if version >= oldest => Ok(()),
            Some(version) => {
                Err(self.too_old(&format!("lib{} is version {}", self.name, version / 10_000)))
            }
            None => Err(self.too_old(&format!("lib{} has no {function}", self.name))),
        }
    }

    fn version_of(&self, library: &libloading::Library) -> Option<usize> {
        let (function, _) = self.version?;
        // SAFETY: the functions that report versions have had this signature from the start.
        unsafe {
            type Version = unsafe extern "C" fn() -> usize;
            library.get::<Version>(function.as_bytes()).ok().map(|version| version())
        }
    }

    fn missing(&self) -> Error {
        Error::device(format!(
            "device.kind: lib{} was not found (set LD_LIBRARY_PATH or {FOLDERS} to its folder); \
             {}. `--device host` runs without a GPU",
            self.name, self.remedy
        ))
    }

    fn too_old(&self, problem: &str) -> Error {
        Error::device(format!(
            "device.kind: {problem}, so it is too old: {}. `--device host` runs without a GPU",
            self.remedy
        ))
    }

    /// Returns the address of one of the library's functions.
    ///
    /// # Panics
    /// Panics if the library was not checked or its list lacks the function, which are mistakes in
    /// this program.
    pub fn address(&self, function: &str) -> usize {
        let index = self.functions.iter().position(|listed| *listed == function);
        let address = self.loaded.get().zip(index).map(|(loaded, i)| loaded.addresses[i]);
        address.unwrap_or_else(|| panic!("{function} of lib{} was not checked", self.name))
    }
}

fn keep_loaded(path: &PathBuf) {
    // SAFETY: the initializers of NVIDIA's libraries have no preconditions.
    unsafe { libloading::Library::new(path) }.into_iter().for_each(std::mem::forget);
}

fn check_driver(library: &libloading::Library) -> Result<()> {
    let mut version = 0;
    // SAFETY: the function has had this signature since CUDA 2.2.
    let status = unsafe {
        type Version = unsafe extern "C" fn(*mut c_int) -> c_int;
        // Without this function it lacks others, too.
        let Ok(function) = library.get::<Version>(b"cuDriverGetVersion") else { return Ok(()) };
        function(&mut version)
    };
    match status == 0 && version >= OLDEST {
        true => Ok(()),
        false => Err(Error::device(format!(
            "device.kind: the NVIDIA driver is too old: it supports CUDA {}.{}; {}. `--device \
             host` runs without a GPU",
            version / 1000,
            version % 1000 / 10,
            DRIVER.remedy
        ))),
    }
}

/// Returns whether there is a driver.
///
/// # Errors
/// Fails if the driver is too old.
pub fn driver() -> Result<bool> {
    DRIVER.load()
}

pub fn missing_driver() -> Error {
    DRIVER.missing()
}
