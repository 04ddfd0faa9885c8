//! Safe calls that go wrong: each is refused, and none reaches memory that is not its own. The file
//! contains no `unsafe`, so whatever happens here can happen in any program.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use udass_raw::config::Config;
use udass_raw::device::{Device, GraphCache, Grid, MatrixView, Precision, StagingBuffers, kernels};
use udass_raw::nn::Segmentor;
use udass_raw::ops::{self, Windows};
use udass_raw::params::Weights;
use udass_raw::run::eval::inference::Predictor;
use udass_raw::tensor::{DType, Tensor};
use udass_raw::{Error, Result};

fn host() -> Device {
    Device::host(1).unwrap()
}

fn filled(device: &Device, shape: &[usize], value: f32) -> Tensor {
    ops::full(device, shape, value).unwrap()
}

#[track_caller]
fn refused<T>(result: Result<T>, part: &str) {
    let Err(error) = result else { panic!("accepted, instead of: … {part} …") };
    let told = error.to_string();
    assert!(told.contains(part), "{told}");
}

#[test]
fn a_launch_checks_lengths_and_grid() {
    let device = host();
    let (mut a, b) = (filled(&device, &[64], 1.0), filled(&device, &[64], 2.0));
    for elements in [128, 1 << 40, usize::MAX] {
        let fill = kernels::Fill { y: &mut a, value: 7.0, elements };
        assert!(fill.launch(&device, device.elements(4)).is_err(), "{elements} elements");
    }
    for blocks in [i64::MAX, 0, -1, i64::MIN] {
        let grid = Grid { blocks, ..Grid::blocks(1) };
        let fill = kernels::Fill { y: &mut a, value: 7.0, elements: 64 };
        refused(fill.launch(&device, grid), "blocks of 256 threads");
    }
    let threads = Grid::blocks(1).threads(1 << 20);
    let fill = kernels::Fill { y: &mut a, value: 7.0, elements: 64 };
    refused(fill.launch(&device, threads), "threads");
    assert_eq!(device.read::<f32>(&a).unwrap(), [1.0; 64]);
    assert_eq!(device.read::<f32>(&b).unwrap(), [2.0; 64]);
}

#[test]
fn slices_and_shapes_that_overflow_are_refused() {
    let device = host();
    let t = filled(&device, &[4], 1.0);
    let most = usize::MAX;
    let (n, far) = (1usize << 61, 1usize << 44);
    let wrong: [(usize, &[usize]); 8] = [
        (most - 3, &[4]),
        (most - 1, &[4]),
        (most / 4 * 3, &[most - most / 4 * 3 + 1]),
        (n.wrapping_neg(), &[n]),
        (far.wrapping_neg(), &[far]),
        (0, &[1 << 32, 1 << 32]),
        (0, &[most, 2]),
        (0, &[0, most, 2]),
    ];
    for (start, shape) in wrong {
        refused(t.slice(start, shape), "slice");
    }
    refused(t.slice(1, &[4]), "slice");
    let empty = device.zeros(&[0], DType::F32).unwrap();
    refused(empty.reshape(&[1 << 32, 1 << 32]), "reshape");
    for shape in
        [&[1usize << 62][..], &[1 << 32, 1 << 32], &[1 << 40, 1 << 40], &[most], &[0, most]]
    {
        for device in [&device, &Device::dry(Precision::F32)] {
            let told = device.alloc(shape, DType::F32).unwrap_err();
            assert!(matches!(told, Error::OutOfMemory(_)), "{shape:?}: {told}");
        }
    }
    assert_eq!([t.dim(0), t.dim(1), t.dim(-1), t.dim(-2), t.dim(isize::MIN)], [4, 1, 4, 1, 1]);
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    let (device, other, dry) = (host(), host(), Device::dry(Precision::F32));
    let mut mine = filled(&device, &[2, 2], 1.0);
    for mut foreign in [filled(&other, &[2, 2], 5.0), dry.alloc(&[2, 2], DType::F32).unwrap()] {
        const WHY: &str = "another device";
        refused(device.read::<f32>(&foreign), WHY);
        refused(device.read_f32(&foreign), WHY);
        refused(device.fetch(&foreign), WHY);
        refused(device.zero(&mut foreign), WHY);
        refused(device.write(&mut foreign, &[0f32; 4]), WHY);
        refused(device.copy(&foreign, &mut mine), WHY);
        refused(device.copy(&mine, &mut foreign), WHY);
        refused(ops::fill(&device, &mut foreign, 0.0), WHY);
        refused(ops::add_scaled(&device, &foreign, 1.0, &mut mine), WHY);
        let (a, b) = (MatrixView::of(&foreign), MatrixView::of(&foreign));
        refused(ops::matmul(&device, &mut mine, a, b, false), WHY);
    }
    assert_eq!(device.read::<f32>(&mine).unwrap(), [1.0; 4]);
    // A tensor keeps its device; another one never takes its identity.
    let t = filled(&device, &[4], 3.0);
    drop(device);
    for _ in 0..64 {
        refused(host().read::<f32>(&t), "another device");
    }
}

#[test]
fn weights_of_another_device_are_refused() {
    let (device, other) = (host(), host());
    let config = Config::preset("toy_vit").unwrap();
    let network = Segmentor::new(&config.network).unwrap();
    let weights = Weights::new(&other, network.spec(), false).unwrap();
    let predictor = Predictor::new(&device, &network, &weights, &config.eval).unwrap();
    refused(predictor.logits(&[0; 64 * 64 * 3], 64, 64), "another device");
}

#[test]
fn a_dry_device_holds_no_numbers() {
    let dry = Device::dry(Precision::F32);
    let t = dry.zeros(&[4], DType::F32).unwrap();
    refused(dry.read::<f32>(&t), "dry");
    refused(host().read::<f32>(&t), "another device");
}

#[test]
fn matrices_stay_within_their_tensors() {
    let device = host();
    let small = filled(&device, &[2, 2], 1.0);
    refused(MatrixView::shaped(&small, 2048, 1 << 26), "matmul");
    refused(MatrixView::shaped(&small, usize::MAX, 2), "matmul");
    refused(MatrixView::of(&small).columns((1, 2)), "matmul");
    refused(MatrixView::of(&small).columns((usize::MAX, 2)), "matmul");
    let mut out = filled(&device, &[3, 3], 1.0);
    let (a, b) = (MatrixView::of(&small), MatrixView::of(&small));
    refused(ops::matmul(&device, &mut out, a, b, false), "matmul");
    let square = filled(&device, &[2, 2], 1.0);
    let mut same = square.clone();
    let (a, b) = (MatrixView::of(&square), MatrixView::of(&small));
    refused(ops::matmul(&device, &mut same, a, b, false), "part of an operand");
}

#[test]
fn clones_share_memory_and_nothing_else_does() {
    let device = host();
    let mut t = filled(&device, &[4], 1.0);
    let (clone, other) = (t.clone(), filled(&device, &[4], 2.0));
    device.zero(&mut t).unwrap();
    assert_eq!(device.read::<f32>(&clone).unwrap(), [0.0; 4]);
    assert_eq!(device.read::<f32>(&other).unwrap(), [2.0; 4]);
}

#[test]
fn buffers_of_other_lengths_are_refused() {
    let device = host();
    let mut staging = StagingBuffers::new(&device, &[(&[4], DType::U8)]).unwrap();
    refused(staging.upload(&[&[0; 5]], |_| Ok(())), "upload");
    let mut t = filled(&device, &[4], 1.0);
    refused(device.write(&mut t, &[0f32; 5]), "write");
    refused(device.write(&mut t, &[0u8; 16]), "write");
    refused(device.read::<u8>(&t), "read");
    refused(Windows::new(&device, (0, 4), (2, 2), (1, 1)), "windows");
    // A device without graphs runs the work each time.
    let mut cache = GraphCache::new(&device, true);
    assert_eq!(*cache.run((), || Ok(1)).unwrap(), 1);
}

#[test]
fn images_of_a_wrong_size_are_refused() {
    let device = host();
    let config = Config::preset("toy_vit").unwrap();
    let network = Segmentor::new(&config.network).unwrap();
    let mut weights = Weights::new(&device, network.spec(), false).unwrap();
    weights.initialize(&device, 1).unwrap();
    let predictor = Predictor::new(&device, &network, &weights, &config.eval).unwrap();
    let rgb = vec![0u8; 128 * 64 * 3];
    // Half of the bytes, none, four channels instead of three, and no size at all.
    for (bytes, width, height) in [
        (12_288, 128, 64),
        (0, 128, 64),
        (128 * 64 * 3, 128, 63),
        (0, 0, 64),
        (0, 128, 0),
        (0, 0, 0),
        (3, usize::MAX, usize::MAX),
        (0, usize::MAX / 3 + 1, 1 << 62),
    ] {
        refused(predictor.logits(&rgb[..bytes], width, height), "bytes for an image");
    }
    let rgba = vec![0u8; 128 * 64 * 4];
    refused(predictor.logits(&rgba, 128, 64), "bytes for an image");
}

/// Returns the threads of this process by id.
fn threads() -> HashSet<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| task.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Returns how many threads of this process are named after the library.
fn workers() -> usize {
    let name = |id: &String| std::fs::read_to_string(format!("/proc/self/task/{id}/comm"));
    threads().iter().filter(|id| name(id).is_ok_and(|name| name.trim() == "udass-raw")).count()
}

/// Waits until there are this many: a thread takes its name once it runs, which may be after others
/// have done the work.
fn has_workers(count: usize) -> bool {
    let wait = || std::thread::sleep(std::time::Duration::from_millis(10));
    (0..1000).any(|_| {
        workers() == count || {
            wait();
            false
        }
    })
}

/// Other tests have workers of their own, so this runs as a process of its own.
#[test]
fn a_device_leaves_no_thread_and_the_programs_rayon_alone() {
    const ALONE: &str = "UDASS_SOUNDNESS_ALONE";
    const NAME: &str = "a_device_leaves_no_thread_and_the_programs_rayon_alone";
    if std::env::var_os(ALONE).is_none() {
        let program = std::env::current_exe().unwrap();
        let mut child = std::process::Command::new(program);
        let status = child.args(["--exact", NAME, "--nocapture"]).env(ALONE, "1").status().unwrap();
        assert!(status.success());
        return;
    }
    rayon::ThreadPoolBuilder::new().num_threads(5).build_global().unwrap();
    let used = || rayon::broadcast(|_| std::thread::current().id()).into_iter().collect();
    let before: HashSet<_> = used();
    assert_eq!((before.len(), workers()), (5, 0));
    for _ in 0..4 {
        let work = || {
            let device = Device::host(3).unwrap();
            let a = filled(&device, &[256, 256], 1.0);
            let mut y = device.empty(&[256, 256]).unwrap();
            let (left, right) = (MatrixView::of(&a), MatrixView::of(&a));
            ops::matmul(&device, &mut y, left, right, false).unwrap();
            assert_eq!(device.read::<f32>(&y).unwrap(), [256.0; 256 * 256]);
            assert!(has_workers(3), "{} workers", workers());
            let during: HashSet<_> = used();
            assert_eq!(during, before);
        };
        // On this thread, and on one that ends before the next.
        work();
        assert_eq!(workers(), 0, "threads are left");
        std::thread::scope(|scope| scope.spawn(work).join().unwrap());
        assert_eq!(workers(), 0, "threads are left");
    }
    let after: HashSet<_> = used();
    assert_eq!(after, before);
}
