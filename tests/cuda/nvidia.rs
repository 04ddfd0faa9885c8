//! Tests the driver for NVIDIA GPUs on libraries that compute nothing (stub/*.c), each in a process
//! of its own: which library is called, what is current in the caller's thread, and what is told of
//! errors.

use std::path::Path;
use std::process::Command;

use libloading::Library;
use tempfile::{TempDir, tempdir};
use udass_raw::Error;
use udass_raw::device::{Device, MatrixView, Precision};
use udass_raw::ops;
use udass_raw::params::Param;
use udass_raw::tensor::DType;

use super::library::add_library;

/// Builds all four libraries. NVRTC is called where the tests were built without nvcc.
fn libraries() -> TempDir {
    let folder = tempdir().unwrap();
    add_library(folder.path(), "cuda", include_str!("stub/cuda.c"));
    add_library(folder.path(), "cublasLt", include_str!("stub/cublasLt.c"));
    add_library(folder.path(), "cudnn", include_str!("stub/cudnn.c"));
    add_library(folder.path(), "nvrtc", include_str!("stub/nvrtc.c"));
    folder
}

/// Runs one of the functions below in a process that finds the libraries in `folder`, and those in
/// `first` before them.
fn run(scenario: &str, folder: &Path, first: Option<&Path>, blocking: bool) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["nvidia::child_on_stub_libraries", "--exact", "--ignored", "--nocapture"]);
    command.env("SCENARIO", scenario).env("LD_LIBRARY_PATH", folder);
    command.env("XDG_CACHE_HOME", folder).env_remove("UDASS_CUDA_LIBRARIES");
    command.env_remove("CUDA_LAUNCH_BLOCKING");
    first.map(|first| command.env("UDASS_CUDA_LIBRARIES", first));
    if blocking {
        command.env("CUDA_LAUNCH_BLOCKING", "1");
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "the scenario did not run");
}

#[test]
#[ignore = "started by the tests of the driver"]
fn child_on_stub_libraries() {
    match std::env::var("SCENARIO").unwrap().as_str() {
        "contexts" => contexts(),
        "fault" => fault(false),
        "blocked fault" => fault(true),
        "memory" => memory(),
        "bias" => bias(),
        "version" => version(),
        "capture" => capture(),
        other => panic!("{other}"),
    }
}

/// Calls a function of a stub library with a number, and returns its number.
fn stub(library: &str, function: &str, argument: usize) -> usize {
    // SAFETY: the stub's functions take one number or none and return one or nothing.
    unsafe {
        let library = Library::new(format!("lib{library}.so")).unwrap();
        let symbol = library.get::<unsafe extern "C" fn(usize) -> usize>(function.as_bytes());
        let result = symbol.unwrap()(argument);
        std::mem::forget(library);
        result
    }
}

fn cuda(function: &str) -> usize {
    stub("cuda", function, 0) & u32::MAX as usize
}

#[test]
fn a_primary_context_is_retained_once_and_the_callers_stays_current() {
    run("contexts", libraries().path(), None, false);
}

fn contexts() {
    const CALLERS: usize = 0xCA11;
    stub("cuda", "cuCtxPushCurrent_v2", CALLERS);
    let as_before = |after: &str| {
        let now = (cuda("stub_context"), cuda("stub_depth"));
        assert_eq!(now, (CALLERS, 1), "current after {after}");
    };
    for _ in 0..3 {
        let device = Device::cuda_at(1, Precision::F32, true).unwrap();
        as_before("creating a device");
        assert!(device.describe().contains("second stub"), "{}", device.describe());
        as_before("describing it");
        let x = device.upload(&[2], &[1f32, 2.0]).unwrap();
        as_before("an upload");
        let mut y = device.zeros(&[2], DType::F32).unwrap();
        ops::add_scaled(&device, &x, 1.0, &mut y).unwrap();
        as_before("a launch");
        assert_eq!(device.read::<f32>(&x).unwrap(), [1.0, 2.0]);
        as_before("a read");
        device.synchronize().unwrap();
        as_before("a wait");
        drop((x, y, device));
        as_before("dropping it");
    }
    assert_eq!(cuda("stub_retained"), 1);
    // SAFETY: the stub takes any handles.
    let device = unsafe {
        let (context, stream) = (0x2000 as *mut _, 0x3000 as *mut _);
        Device::cuda_in(context, stream, Precision::F32, true).unwrap()
    };
    as_before("entering a context");
    drop(device);
    as_before("leaving it");
    let told = Device::cuda_at(2, Precision::F32, true).err().unwrap().to_string();
    assert!(told.contains("there is no GPU 2: 2 can be seen, counted from 0"), "{told}");
    as_before("an error");
}

#[test]
fn the_fault_of_a_kernel_names_the_launches_before_it_and_is_not_taken_for_lack_of_memory() {
    run("fault", libraries().path(), None, false);
    run("blocked fault", libraries().path(), None, true);
}

fn fault(blocking: bool) {
    let device = Device::cuda(Precision::F32, true).unwrap();
    let x = ops::full(&device, &[4], 1.0).unwrap();
    let mut y = device.zeros(&[4], DType::F32).unwrap();
    device.synchronize().unwrap();
    stub("cuda", "stub_fails_after", 2);
    ops::fill(&device, &mut y, 2.0).unwrap();
    let launched = ops::add_scaled(&device, &x, 1.0, &mut y);
    let told = match blocking {
        true => launched.unwrap_err().to_string(),
        false => {
            launched.unwrap();
            device.synchronize().unwrap_err().to_string()
        }
    };
    println!("{told}");
    assert!(told.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{told}");
    assert_eq!(told.starts_with("add_scaled: "), blocking, "{told}");
    assert_eq!(told.contains("With CUDA_LAUNCH_BLOCKING=1"), !blocking, "{told}");
    if !blocking {
        assert!(told.contains("The last launches before it were fill, add_scaled."), "{told}");
    }
    match device.alloc(&[1 << 29], DType::U8) {
        Err(Error::Device(told)) => assert!(told.contains("ILLEGAL_ADDRESS"), "{told}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lack_of_memory_is_told_as_such() {
    run("memory", libraries().path(), None, false);
}

fn memory() {
    stub("cuda", "stub_memory", 64 << 20);
    let device = Device::cuda(Precision::F32, true).unwrap();
    assert_eq!(device.total_memory().unwrap(), Some(64 << 20));
    match device.alloc(&[65 << 20], DType::U8) {
        Err(Error::OutOfMemory(told)) => {
            assert!(told.contains("the GPU has less than 65 MiB free"), "{told}");
        }
        other => panic!("{other:?}"),
    }
    device.alloc(&[60 << 20], DType::U8).unwrap();
}

#[test]
fn the_bias_is_known_when_the_library_is_asked_for_algorithms() {
    run("bias", libraries().path(), None, false);
}

fn bias() {
    let device = Device::cuda(Precision::Bf16, true).unwrap();
    let operand = |shape: &[usize]| device.zeros(shape, device.operand()).unwrap();
    let (a, b) = (operand(&[8, 16]), operand(&[16, 8]));
    let bias = Param::new(device.zeros(&[8], DType::F32).unwrap(), None);
    let mut out = device.zeros(&[8, 8], DType::F32).unwrap();
    let (a, b) = (MatrixView::of(&a), MatrixView::of(&b));
    ops::matmul_with_bias(&device, &mut out, a, b, Some(&bias)).unwrap();
    assert!(stub("cublasLt", "stub_asked_with_epilogue", 0) as u32 > 0);
    assert_eq!(stub("cublasLt", "stub_asked_without_bias", 0) as u32, 0);
}

#[test]
fn the_library_that_was_checked_is_called() {
    // The system's library is another version, under the name that cudarc tries first.
    let system = libraries();
    let other = include_str!("stub/cublasLt.c");
    let crash = "int cublasLtCreate(void** handle) { abort(); }";
    let create = other.lines().find(|line| line.starts_with("int cublasLtCreate(")).unwrap();
    let other = format!("#define VERSION 130099\n{}", other.replace(create, crash));
    let wanted = tempdir().unwrap();
    let file = |folder: &Path, name: &str| folder.join(format!("libcublasLt.so{name}"));
    std::fs::rename(file(system.path(), ""), file(wanted.path(), ".13")).unwrap();
    add_library(system.path(), "cublasLt", &other);
    run("version", system.path(), Some(wanted.path()), false);
}

fn version() {
    let device = Device::cuda(Precision::F32, true).unwrap();
    assert!(device.describe().contains("cuBLASLt 130100"), "{}", device.describe());
}

#[test]
fn a_capture_of_the_program_is_noticed() {
    run("capture", libraries().path(), None, false);
}

fn capture() {
    let device = Device::cuda(Precision::F32, true).unwrap();
    let x = device.zeros(&[4], DType::F32).unwrap();
    stub("cuda", "stub_capturing", 1);
    let told = device.read::<f32>(&x).unwrap_err().to_string();
    assert!(told.contains("a read during graph capture"), "{told}");
    stub("cuda", "stub_capturing", 0);
    device.read::<f32>(&x).unwrap();
}
