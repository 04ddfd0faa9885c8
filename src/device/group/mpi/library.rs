//! An MPI library, loaded at run time: where it is found, and how its constants are written.
//!
//! Three binary interfaces are in use, which differ in the values of handles and constants: Open
//! MPI's, MPICH's (Intel MPI and Cray MPI have it too), and the standard one of MPI 5.0 (chapter 20).
//! Handles are pointers in the first and the last and `int`s in MPICH's; as arguments of a call, all
//! are one register, of which MPICH reads the lower half.

use std::env;
use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::Library;

use crate::{Error, Result};

/// The variable with the folders in which the library is looked for first.
pub const FOLDERS: &str = "UDASS_MPI_LIBRARIES";
/// Bytes that MPI_Get_library_version may write at most, in any of the interfaces.
const LONGEST_VERSION: usize = 8192;

/// How a library writes handles and constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    OpenMpi,
    Mpich,
    Standard,
}

type Handle = usize;

/// The functions that are called.
struct Functions {
    init: unsafe extern "C" fn(*mut c_int, *mut c_void, c_int, *mut c_int) -> c_int,
    initialized: unsafe extern "C" fn(*mut c_int) -> c_int,
    finalized: unsafe extern "C" fn(*mut c_int) -> c_int,
    finalize: unsafe extern "C" fn() -> c_int,
    abort: unsafe extern "C" fn(Handle, c_int) -> c_int,
    rank: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    size: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    version: unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int,
    all_to_all: Exchange,
    all_gather: Exchange,
}

/// MPI_Alltoall and MPI_Allgather: what is sent and received, each with its count and type.
type Exchange =
    unsafe extern "C" fn(*const c_void, c_int, Handle, *mut c_void, c_int, Handle, Handle) -> c_int;

/// A loaded library.
pub struct Loaded {
    functions: Functions,
    world: Handle,
    byte: Handle,
    funneled: c_int,
    path: PathBuf,
    /// MPI cannot be initialized a second time, so the library is never unloaded.
    _library: std::mem::ManuallyDrop<Library>,
}

impl Loaded {
    /// Loads the first library that can be used: in the folders of [`FOLDERS`], next to the
    /// `mpiexec` on PATH, or where the system looks.
    ///
    /// # Errors
    /// [`Error::Device`] if there is none, with what was wrong with the first one.
    pub fn find() -> Result<Loaded> {
        let open_mpi = env::var_os("OMPI_COMM_WORLD_SIZE").is_some();
        let names: &[&str] = match open_mpi {
            true => &["libmpi.so.40", "libmpi.so"],
            false => {
                &["libmpi_abi.so.1", "libmpi_abi.so.0", "libmpi.so.12", "libmpi.so.40", "libmpi.so"]
            }
        };
        let mut problem = None;
        for folder in folders() {
            for name in names {
                let path = match &folder {
                    Some(folder) => folder.join(name),
                    None => PathBuf::from(name),
                };
                if folder.is_some() && !path.exists() {
                    continue;
                }
                match Self::load(&path) {
                    Ok(loaded) => return Ok(loaded),
                    // That the system knows no such library is no news.
                    Err(error) if folder.is_some() => problem = problem.or(Some(error)),
                    Err(_) => {}
                }
            }
        }
        Err(problem.unwrap_or_else(|| {
            let names = names.join(", ");
            Error::device(format!(
                "there is no MPI library ({names}), through which processes train together on the \
                 host device: install Open MPI or MPICH, or name the folder of the one that \
                 `mpiexec` belongs to in {FOLDERS}"
            ))
        }))
    }

    fn load(path: &Path) -> Result<Loaded> {
        let problem = |e: &dyn std::fmt::Display| Error::device(format!("{}: {e}", path.display()));
        // SAFETY: the initializers of MPI libraries have no preconditions.
        let library = unsafe { Library::new(path) }.map_err(|e| problem(&e))?;
        // SAFETY: the functions have these types in every interface, as said above of handles.
        let functions = unsafe { functions(&library) }.map_err(|e| problem(&e))?;
        let (interface, world, byte) = handles(path, &library);
        let funneled = match interface {
            Interface::Standard => 1024,
            _ => 1,
        };
        let library = std::mem::ManuallyDrop::new(library);
        Ok(Loaded { functions, world, byte, funneled, path: path.into(), _library: library })
    }

    /// Starts MPI, unless this process has done so before, and returns rank and size.
    pub fn start(&self) -> Result<(usize, usize)> {
        let Functions { init, initialized, finalized, rank, size, .. } = &self.functions;
        let (mut started, mut ended, mut level) = (0, 0, 0);
        // SAFETY: the pointers are to live numbers; MPI_Init may be called once, from the thread that
        // makes all further calls.
        unsafe {
            self.succeeded("MPI_Initialized", initialized(&mut started))?;
            self.succeeded("MPI_Finalized", finalized(&mut ended))?;
            if ended != 0 {
                return Err(Error::device("MPI has ended in this process and cannot start again"));
            }
            if started == 0 {
                let null = std::ptr::null_mut();
                let code = init(null, null.cast(), self.funneled, &mut level);
                self.succeeded("MPI_Init_thread", code)?;
            }
            let (mut here, mut all) = (0, 0);
            self.succeeded("MPI_Comm_rank", rank(self.world, &mut here))?;
            self.succeeded("MPI_Comm_size", size(self.world, &mut all))?;
            Ok((here as usize, all as usize))
        }
    }

    /// Returns the path and version of the library in one line.
    pub fn describe(&self) -> String {
        let mut text = vec![0u8; LONGEST_VERSION];
        let mut length = 0;
        // SAFETY: the text is as long as any interface wants.
        let code = unsafe { (self.functions.version)(text.as_mut_ptr().cast(), &mut length) };
        let text = if code == 0 { &text[..(length as usize).min(LONGEST_VERSION)] } else { &[] };
        let text = String::from_utf8_lossy(text);
        let first = text.lines().next().unwrap_or_default().trim_matches(['\0', ' ']);
        let version: String = first.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("{version} ({})", self.path.display())
    }

    /// Sends the k-th of `size` parts of `from` to process k, and receives one from each.
    pub fn all_to_all(&self, from: &[u8], to: &mut [u8], size: usize) -> Result<()> {
        self.exchange("MPI_Alltoall", self.functions.all_to_all, from, to, from.len() / size)
    }

    /// Sends `from` to every process, and receives that of each.
    pub fn all_gather(&self, from: &[u8], to: &mut [u8]) -> Result<()> {
        self.exchange("MPI_Allgather", self.functions.all_gather, from, to, from.len())
    }

    fn exchange(
        &self,
        name: &str,
        call: Exchange,
        from: &[u8],
        to: &mut [u8],
        bytes: usize,
    ) -> Result<()> {
        let count = c_int::try_from(bytes)
            .map_err(|_| Error::device(format!("{name}: {bytes} bytes at once")))?;
        let (byte, world) = (self.byte, self.world);
        let (source, target) = (from.as_ptr().cast(), to.as_mut_ptr().cast());
        // SAFETY: both hold as many bytes as the counts say, and MPI has started.
        let code = unsafe { call(source, count, byte, target, count, byte, world) };
        self.succeeded(name, code)
    }

    fn succeeded(&self, name: &str, code: c_int) -> Result<()> {
        match code {
            0 => Ok(()),
            code => Err(Error::device(format!("{}: {name} failed ({code})", self.path.display()))),
        }
    }

    /// Ends all processes.
    pub fn abort(&self) {
        // SAFETY: MPI has started. The call does not return in most implementations.
        unsafe { (self.functions.abort)(self.world, 1) };
    }

    /// Ends MPI, after which nothing may be exchanged.
    pub fn finish(&self) {
        // SAFETY: MPI has started, and this is its last call.
        unsafe { (self.functions.finalize)() };
    }
}

/// Returns the folders to look in; None is where the system looks.
fn folders() -> Vec<Option<PathBuf>> {
    let split = |name: &str| -> Vec<PathBuf> {
        env::var_os(name).iter().flat_map(env::split_paths).collect()
    };
    let own = split(FOLDERS).into_iter();
    let launcher = split("PATH").into_iter().find(|folder| folder.join("mpiexec").exists());
    let beside = launcher.iter().filter_map(|bin| bin.parent()).map(|prefix| prefix.join("lib"));
    own.chain(beside).map(Some).chain([None]).collect()
}

/// Looks all functions up.
unsafe fn functions(library: &Library) -> Result<Functions, libloading::Error> {
    // SAFETY: the caller guarantees the types.
    unsafe {
        Ok(Functions {
            init: *library.get(b"MPI_Init_thread\0")?,
            initialized: *library.get(b"MPI_Initialized\0")?,
            finalized: *library.get(b"MPI_Finalized\0")?,
            finalize: *library.get(b"MPI_Finalize\0")?,
            abort: *library.get(b"MPI_Abort\0")?,
            rank: *library.get(b"MPI_Comm_rank\0")?,
            size: *library.get(b"MPI_Comm_size\0")?,
            version: *library.get(b"MPI_Get_library_version\0")?,
            all_to_all: *library.get(b"MPI_Alltoall\0")?,
            all_gather: *library.get(b"MPI_Allgather\0")?,
        })
    }
}

/// Returns a library's interface, and its MPI_COMM_WORLD and MPI_BYTE.
fn handles(path: &Path, library: &Library) -> (Interface, Handle, Handle) {
    // Open MPI's handles are the addresses of these.
    let address = |name: &[u8]| {
        // SAFETY: only the address of the symbol is taken.
        unsafe { library.get::<*const c_void>(name) }.ok().map(|symbol| *symbol as usize)
    };
    let of_open_mpi = (address(b"ompi_mpi_comm_world\0"), address(b"ompi_mpi_byte\0"));
    if let (Some(world), Some(byte)) = of_open_mpi {
        return (Interface::OpenMpi, world, byte);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.starts_with("libmpi_abi") {
        true => (Interface::Standard, 0x101, 0x247),
        false => (Interface::Mpich, 0x4400_0000, 0x4c00_010d),
    }
}
