//! Tests machines without an NVIDIA driver or with an unusable one: the program is asked to use the
//! GPU, with small shared libraries in place of NVIDIA's.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::{TempDir, tempdir};

use super::library::add_library;

/// Builds `lib{name}.so` from C source in a temporary folder.
fn library(name: &str, source: &str) -> TempDir {
    let folder = tempdir().unwrap();
    add_library(folder.path(), name, source);
    folder
}

/// Runs `udass-raw train` until it has opened the device, with `folder` as the only source of
/// NVIDIA libraries, and returns its error message.
fn told(folder: &Path, device: &str, precision: &str) -> String {
    let missing = folder.join("no.safetensors");
    let output: Output = Command::new(env!("CARGO_BIN_EXE_udass-raw"))
        .args(["train", "toy_vit", "--device", device, "--set", "data.toy=", "--set"])
        .arg(format!("device.precision={precision}"))
        .arg("--checkpoint")
        .arg(missing)
        .env("LD_LIBRARY_PATH", folder)
        .env_remove("UDASS_CUDA_LIBRARIES")
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Returns whether this machine has a driver of its own, which would be found instead.
fn has_driver() -> bool {
    // SAFETY: the library is only opened to see whether it exists; no symbol is used.
    ["libcuda.so", "libcuda.so.1"]
        .iter()
        .any(|name| unsafe { libloading::Library::new(*name) }.is_ok())
}

#[test]
fn without_a_driver() {
    if has_driver() {
        println!("skipped: this machine has a driver");
        return;
    }
    let folder = tempdir().unwrap();
    let said = told(folder.path(), "cuda", "f32");
    assert!(said.contains("libcuda was not found"), "{said}");
    assert!(said.contains("install an NVIDIA driver for CUDA 12.8 or later"), "{said}");
    assert!(said.contains("`--device host` runs without"), "{said}");
    // The host device gets further, up to the missing checkpoint.
    let said = told(folder.path(), "auto", "f32");
    assert!(said.contains("no.safetensors"), "{said}");
}

#[test]
fn a_driver_that_is_too_old() {
    let old = library("cuda", "int cuDriverGetVersion(int* v) { *v = 11040; return 0; }");
    for device in ["cuda", "auto"] {
        let said = told(old.path(), device, "f32");
        assert!(said.contains("the NVIDIA driver is too old: it supports CUDA 11.4"), "{said}");
        assert!(said.contains("install an NVIDIA driver for CUDA 12.8 or later"), "{said}");
    }
}

#[test]
fn a_driver_that_lacks_a_function() {
    let old = library("cuda", "int cuDriverGetVersion(int* v) { *v = 13000; return 0; }");
    let said = told(old.path(), "cuda", "f32");
    assert!(said.contains("libcuda has no cuCtxGetDevice, so it is too old"), "{said}");
    let none = library("cuda", "int nothing(void) { return 0; }");
    assert!(told(none.path(), "cuda", "f32").contains("libcuda has no cuCtxGetDevice"));
}

/// Returns C source for every function that is loaded from a library, except those in `but`; each
/// returns an error.
fn functions(start: &str, but: &[&str]) -> String {
    let list = include_str!("../../src/device/cuda/nvidia/libraries.rs");
    let of_library = |word: &&str| {
        let rest = word.strip_prefix(start).filter(|_| !word.contains(' '));
        rest.is_some_and(|rest| rest.starts_with(char::is_uppercase)) && !but.contains(word)
    };
    let names = list.split('"').filter(of_library);
    names.map(|name| format!("int {name}(void) {{ return 999; }}\n")).collect()
}

/// Builds a driver with every function that is loaded. `init` is what cuInit returns: 100 for no
/// GPU, 0 for one.
fn complete(init: i32) -> TempDir {
    let plain = functions("cu", &["cuInit", "cuDriverGetVersion", "cuDeviceGetCount"]);
    let source = format!(
        "int cuInit(unsigned f) {{ return {init}; }}\n\
         int cuDriverGetVersion(int* v) {{ *v = 13000; return 0; }}\n\
         int cuDeviceGetCount(int* n) {{ *n = 1; return 0; }}\n{plain}"
    );
    library("cuda", &source)
}

#[test]
fn a_driver_without_a_gpu() {
    let driver = complete(100);
    let said = told(driver.path(), "cuda", "f32");
    assert!(said.contains("the NVIDIA driver sees no GPU"), "{said}");
    let said = told(driver.path(), "auto", "f32");
    assert!(said.contains("no.safetensors"), "{said}");
}

#[test]
fn a_gpu_without_the_libraries() {
    let driver = complete(0);
    for device in ["cuda", "auto"] {
        let said = told(driver.path(), device, "bf16");
        assert!(said.contains("libcublasLt was not found"), "{said}");
        assert!(said.contains("pip install nvidia-cublas"), "{said}");
    }
}

/// cuBLAS and cuDNN: missing, without a required function, and too old.
#[test]
fn libraries_that_will_not_do() {
    let gpu = complete(0);
    let rounds = [
        ("cublasLt", "cublasLtCreate", "cublasLtGetVersion", 120_000, "install cuBLAS 12"),
        ("cudnn", "cudnnCreate", "cudnnGetVersion", 90_000, "install cuDNN 9"),
    ];
    for (name, function, version, oldest, remedy) in rounds {
        // SAFETY: the library is only opened to see whether it exists; no symbol is used.
        if unsafe { libloading::Library::new(format!("lib{name}.so")) }.is_ok() {
            println!("skipped: this machine has lib{name}");
            return;
        }
        let told = || {
            let said = told(gpu.path(), "cuda", "f32");
            assert!(said.contains(remedy) && said.contains("`--device host`"), "{said}");
            said
        };
        assert!(told().contains(&format!("lib{name} was not found")));
        let of_version = |n: usize| format!("unsigned long {version}(void) {{ return {n}; }}\n");
        add_library(
            gpu.path(),
            name,
            &(functions(name, &[function, version]) + &of_version(oldest)),
        );
        assert!(told().contains(&format!("lib{name} has no {function}, so it is too old")));
        add_library(gpu.path(), name, &(functions(name, &[version]) + &of_version(oldest - 1)));
        let major = (oldest - 1) / 10_000;
        assert!(told().contains(&format!("lib{name} is version {major}, so it is too old")));
        add_library(gpu.path(), name, &(functions(name, &[version]) + &of_version(oldest)));
    }
}

/// Compares the list of functions that is checked up front with the functions that the sources
/// call.
#[test]
fn every_function_that_is_called_is_looked_for_first() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/device/cuda/nvidia");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let list = folder.join("libraries.rs");
    let listed = read(&list);
    let mut called = std::collections::BTreeSet::new();
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    for file in files.filter(|file| *file != list) {
        let text = read(&file);
        for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
            let library = ["cublasLt", "cudnn", "nvrtc", "cu"].into_iter().any(|start| {
                let rest = word.strip_prefix(start);
                rest.is_some_and(|rest| rest.starts_with(char::is_uppercase))
            });
            let called_or_given = [format!("{word}("), format!("sys::{word})")];
            let function = library && !word.ends_with("_t");
            if function && called_or_given.iter().any(|form| text.contains(form)) {
                called.insert(word.to_string());
            }
        }
    }
    assert!(called.len() > 50, "{called:?}");
    let missed: Vec<_> = called.iter().filter(|f| !listed.contains(&format!("\"{f}\""))).collect();
    assert!(missed.is_empty(), "called without being looked for: {missed:?}");
}
