//! Compiles a kernel file with the host's C++ compiler at run time.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use libloading::Library;

use crate::device::launch::{Kernel, Level, Serial, SerialBody};
use crate::device::precision::Types;
use crate::device::sources::{HEADERS, SERIAL};
use crate::file::atomic::replace;
use crate::{Error, Result};

/// Compiles `text` for the instruction set that the program's own kernels run with.
pub(super) fn compile(
    kernel: &'static Kernel,
    types: Types,
    level: Level,
    file: &Path,
    text: &str,
) -> Result<&'static Kernel> {
    let build = (SERIAL.iter())
        .filter(|build| build.types == types && build.level <= level)
        .max_by_key(|build| build.level)
        .ok_or_else(|| Error::device(format!("no kernel was built for {types:?}")))?;
    let folder = Folder::new()?;
    for (name, text) in HEADERS {
        folder.write(name, text)?;
    }
    // Includes of the file's own folder come first.
    let source = folder.write("kernel.cu", &format!("#line 1 {:?}\n{text}", file.display()))?;
    let library = folder.0.join("kernel.so");
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"));
    let mut command = Command::new(&compiler);
    command.args(build.flags).arg("-shared").arg("-I");
    command.arg(file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    command.args(["-x", "c++"]).arg(&source).arg("-o").arg(&library);
    let output = command.output().map_err(|e| {
        Error::device(format!("{}: {e} (a C++17 compiler is needed)", compiler.display()))
    })?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(Error::data(file, format!("does not compile\n{}", told.trim_end())));
    }
    let body = load(&library, &format!("{}_{}", kernel.name, build.suffix))?;
    let serial = vec![Serial { types, level: build.level, body }];
    Ok(Box::leak(Box::new(Kernel {
        name: kernel.name,
        file: Box::leak(file.display().to_string().into_boxed_str()),
        line: 1,
        parameters: kernel.parameters,
        serial: Box::leak(serial.into_boxed_slice()),
        source: None,
    })))
}

/// Loads a kernel's body. The library stays loaded, since the body may be called at any time.
fn load(library: &Path, symbol: &str) -> Result<SerialBody> {
    let problem = |e: libloading::Error| Error::device(format!("{}: {e}", library.display()));
    // SAFETY: initializers of the library are those of the file, for which the caller of
    // `Device::compile_kernel` vouches.
    let library = unsafe { Library::new(library) }.map_err(problem)?;
    // SAFETY: the macro KERNEL defines the symbol with this type.
    let body = unsafe { library.get::<SerialBody>(symbol.as_bytes()) }.map(|body| *body);
    let body = body.map_err(problem)?;
    std::mem::forget(library);
    Ok(body)
}

/// A folder of this process alone, which is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("udass-raw-kernel-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // It must not exist yet, so that nobody else has put anything there.
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| Error::io(&path, "create", e))?;
        Ok(Folder(path))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        use std::io::Write;
        let path = self.0.join(name);
        replace(&path, |file| file.write_all(text.as_bytes()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in the system's folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
