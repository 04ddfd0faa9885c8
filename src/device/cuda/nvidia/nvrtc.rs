//! Kernels compiled from their sources by NVRTC at first use, and cached on disk.

use std::ffi::{CString, c_int};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use cudarc::nvrtc::sys as nvrtc;
use sha2::{Digest, Sha256};

use super::embedded::built;
use super::libraries;
use crate::device::precision::Types;
use crate::device::sources::{HEADERS, SOURCES};
use crate::file;
use crate::hex::hex;
use crate::{Error, Result};

/// Standard headers that NVRTC lacks.
const STANDARD: [(&str, &str); 2] = [
    (
        "stdint.h",
        "#pragma once\ntypedef signed char int8_t; typedef short int16_t; typedef int int32_t; \
         typedef long int64_t; typedef unsigned char uint8_t; typedef unsigned short uint16_t; \
         typedef unsigned int uint32_t; typedef unsigned long uint64_t;\n",
    ),
    ("math.h", "#pragma once\n"),
];

pub fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|e| Error::device(format!("{text:?}: {e}")))
}

/// Returns the machine code of a kernel file for a GPU, from the folder `cache` or from NVRTC.
pub fn code(
    file: &str,
    types: Types,
    capability: (c_int, c_int),
    cache: Option<PathBuf>,
) -> Result<Vec<u8>> {
    libraries::NVRTC.check()?;
    let source = SOURCES
        .iter()
        .find(|(name, _)| *name == file)
        .ok_or_else(|| Error::device(format!("kernels/{file} is not embedded in this program")))?;
    let options = options(built(types)?.0, capability);
    let kept = cache.map(|folder| folder.join(key(source.1, &options)));
    if let Some(code) = kept.as_ref().and_then(|path| file::read(path, MAX_CODE).ok()) {
        return Ok(code);
    }
    let code = compile(&format!("kernels/{file}"), source.1, &options)?;
    // The cache is optional: if this fails, the next process compiles again.
    if let Some(path) = kept {
        let _ = keep(&path, &code);
    }
    Ok(code)
}

/// Compiles a file that is not one of the program's own. The result is not kept.
pub fn foreign(
    file: &str,
    source: &str,
    types: Types,
    capability: (c_int, c_int),
) -> Result<Vec<u8>> {
    libraries::NVRTC.check()?;
    compile(file, source, &options(built(types)?.0, capability))
}

/// Maximum size of a compiled kernel in bytes.
const MAX_CODE: u64 = 64 << 20;

/// Writes a temporary file and renames it, so that nobody reads half of it.
fn keep(path: &Path, code: &[u8]) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    let aside = path.with_extension(format!("{}", std::process::id()));
    file::create_temporary(&aside)?.write_all(code)?;
    std::fs::rename(&aside, path)
}

/// Returns the cache file's name: a hash of everything that determines the result, which is the
/// source, all headers, the types, the GPU and the compiler.
fn key(source: &str, options: &[String]) -> String {
    let mut hash = Sha256::new();
    for text in std::iter::once(source).chain(HEADERS.iter().map(|(_, text)| *text)) {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the out-pointers refer to locals, and `NVRTC.check` found the function.
    let _ = unsafe { call!(NVRTC, nvrtc::nvrtcVersion(&mut major, &mut minor)) };
    hash.update(format!("{options:?} {major}.{minor}"));
    let digest = hex(&hash.finalize()[..16]);
    format!("{digest}.cubin")
}

fn options(types: &str, (major, minor): (c_int, c_int)) -> [String; 4] {
    [
        format!("--gpu-architecture=sm_{major}{minor}"),
        "-std=c++17".into(),
        format!("-DUDASS_{}", types.to_uppercase()),
        // Generic lambdas in a kernel have no `__device__`: nvcc infers it, NVRTC needs this
        // option.
        "-default-device".into(),
    ]
}

fn compile(file: &str, source: &str, options: &[String]) -> Result<Vec<u8>> {
    let fail = |call: &str, result: nvrtc::nvrtcResult| match result {
        nvrtc::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        other => Err(Error::device(format!("{file}: {call}: {other:?}"))),
    };
    let headers = || HEADERS.iter().chain(&STANDARD);
    let names: Vec<CString> = headers().map(|(name, _)| c_string(name)).collect::<Result<_>>()?;
    let texts: Vec<CString> = headers().map(|(_, text)| c_string(text)).collect::<Result<_>>()?;
    let pointers = |all: &[CString]| all.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
    let (names, texts) = (pointers(&names), pointers(&texts));
    let (text, name) = (c_string(source)?, c_string(file)?);
    let options: Vec<CString> =
        options.iter().map(|option| c_string(option)).collect::<Result<_>>()?;
    let options = pointers(&options);
    let mut program = null_mut();
    // SAFETY: every pointer refers to a string or an array that outlives the calls, and buffers
    // have the sizes that the library reported.
    unsafe {
        let made = call!(
            NVRTC,
            nvrtc::nvrtcCreateProgram(
                &mut program,
                text.as_ptr(),
                name.as_ptr(),
                names.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            )
        );
        fail("nvrtcCreateProgram", made)?;
        let compiled = call!(
            NVRTC,
            nvrtc::nvrtcCompileProgram(program, options.len() as c_int, options.as_ptr())
        );
        let mut size = 0;
        let result = if compiled == nvrtc::nvrtcResult::NVRTC_SUCCESS {
            call!(NVRTC, nvrtc::nvrtcGetCUBINSize(program, &mut size));
            let mut code = vec![0u8; size];
            fail(
                "nvrtcGetCUBIN",
                call!(NVRTC, nvrtc::nvrtcGetCUBIN(program, code.as_mut_ptr().cast())),
            )
            .map(|()| code)
        } else {
            call!(NVRTC, nvrtc::nvrtcGetProgramLogSize(program, &mut size));
            let mut log = vec![0u8; size.max(1)];
            call!(NVRTC, nvrtc::nvrtcGetProgramLog(program, log.as_mut_ptr().cast()));
            let log = String::from_utf8_lossy(&log).into_owned();
            fail(&format!("nvrtcCompileProgram\n{log}\n"), compiled).map(|()| Vec::new())
        };
        call!(NVRTC, nvrtc::nvrtcDestroyProgram(&mut program));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This needs NVRTC (its folder in UDASS_CUDA_LIBRARIES) but no GPU.
    #[test]
    fn every_kernel_file_compiles_at_run_time_and_is_kept() {
        if let Err(absent) = libraries::NVRTC.check() {
            println!("skipped: {absent}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let cache = || Some(folder.path().to_path_buf());
        for types in [Types::F32, Types::Bf16] {
            for (file, _) in SOURCES {
                let code = code(file, types, (8, 0), cache()).unwrap();
                assert!(code.starts_with(b"\x7fELF"), "{file}");
                assert_eq!(self::code(file, types, (8, 0), cache()).unwrap(), code, "{file}");
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2 * SOURCES.len());
    }

    /// So does a file of one's own, with the program's headers.
    #[test]
    fn a_foreign_file_compiles_or_says_why_not() {
        if libraries::NVRTC.check().is_err() {
            return;
        }
        let start = "#include \"columns.cuh\"\nKERNEL(fill, real* y, real value, int64_t n) {";
        let of = |body: &str| foreign("my.cu", &format!("{start}{body}}}"), Types::F32, (8, 0));
        assert!(of("GRID_LOOP(i, n) y[i] = value;").unwrap().starts_with(b"\x7fELF"));
        let told = of("nonsense;").unwrap_err().to_string();
        assert!(told.contains("my.cu(2)") && told.contains("nonsense"), "{told}");
    }

    #[test]
    fn a_key_tells_sources_types_and_gpus_apart() {
        if libraries::NVRTC.check().is_err() {
            return;
        }
        let of = |source, types, capability| key(source, &options(types, capability));
        let first = of("a", "f32", (8, 0));
        for other in [("b", "f32", (8, 0)), ("a", "bf16", (8, 0)), ("a", "f32", (9, 0))] {
            assert_ne!(first, of(other.0, other.1, other.2));
        }
    }
}
