//! Models as programs use them: opened from one file, and shared between threads.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use udass_raw::checkpoint::files;
use udass_raw::checkpoint::state::{self, Position};
use udass_raw::config::Config;
use udass_raw::device::Device;
use udass_raw::model::{
    DeviceKind, DeviceOutput, FilePrecision, Image, Kind, Model, Network, Options, Output,
    PixelFormat, export,
};
use udass_raw::run::eval::trained::Trained;
use udass_raw::run::train::initial_state;
use udass_raw::{Error, Result};

const NAMES: [&str; 4] = ["sea", "land", "buoy", "boat"];
const SIZE: [usize; 2] = [96, 64];

fn config() -> Config {
    let sets = [
        "dataset.names=[\"sea\", \"land\", \"buoy\", \"boat\"]",
        "dataset.colors=[\"#000080\", \"#808000\", \"#ff0000\", \"#ffffff\"]",
        "network.classes=4",
        "source.layout=files",
        "source.files.images=street/*.png",
        "source.files.labels=marks/*.png",
        "target.layout=files",
        "target.files.images=unseen/*.png",
        "target.files.val_images=seen/*.png",
        "target.files.val_labels=seen_marks/*.png",
        "quadmix.enabled=false",
        "feature_distance.enabled=false",
        "rare_class_sampling.enabled=false",
        "network.channels=32",
        "weights.init=random",
        "eval.window=64",
        "eval.stride=32",
        "device.kind=host",
    ];
    Config::load("toy_vit", &sets.map(String::from)).unwrap()
}

/// A checkpoint with random weights.
fn checkpoint() -> &'static Path {
    static MADE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let device = Device::host(1).unwrap();
        let mut training = initial_state::build(&config(), &device, None).unwrap();
        state::save(&path, &mut training, &Position::default(), None).unwrap();
        (folder, path)
    });
    path
}

fn exported(folder: &TempDir, precision: FilePrecision) -> PathBuf {
    let path = folder.path().join(format!("{precision:?}.safetensors"));
    export(checkpoint(), Network::Student, precision, &path).unwrap();
    path
}

fn options() -> Options {
    let mut options = Options::default();
    (options.device, options.threads) = (DeviceKind::Host, 2);
    options
}

fn open(path: &Path) -> Model {
    Model::open(path, &options()).unwrap()
}

/// Pixels of a picture with something in it.
fn rgb() -> Vec<u8> {
    let byte = |i: usize| (i * i / 97 + 5 * i) as u8;
    (0..3 * SIZE[0] * SIZE[1]).map(byte).collect()
}

fn image(rgb: &[u8]) -> Image<'_> {
    Image::new(rgb, PixelFormat::Rgb, SIZE[0], SIZE[1]).unwrap()
}

fn logits(model: &Model, images: &[Image]) -> Vec<f32> {
    let mut logits = vec![0.0; images.len() * SIZE[0] * SIZE[1] * NAMES.len()];
    model.segment(images, Output::Logits(&mut logits), None).unwrap();
    logits
}

#[test]
fn a_model_is_what_its_file_says_wherever_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = exported(&folder, FilePrecision::F32);
    let model = open(&path);
    let names: Vec<&str> = model.classes().iter().map(|class| &*class.name).collect();
    assert_eq!(names, NAMES);
    assert_eq!(model.classes()[2].color, [255, 0, 0]);
    assert_eq!(model.image_size(), config().eval.resize);
    assert!(model.device().contains("host, 2 thread(s)"), "{}", model.device());
    // The whole checkpoint is the same network, as is the file in memory.
    let rgb = rgb();
    let expected = logits(&model, &[image(&rgb)]);
    assert_eq!(logits(&open(checkpoint()), &[image(&rgb)]), expected);
    let in_memory = Model::from_bytes(std::fs::read(&path).unwrap(), &options()).unwrap();
    assert_eq!(logits(&in_memory, &[image(&rgb)]), expected);
    // So does the engine of `eval` and `predict`.
    let file = files::open(checkpoint()).unwrap();
    let config = config();
    let trained = Trained::load(&config, &file, Network::Student, &()).unwrap();
    let same = trained.predictor(&config.eval).logits(&rgb, SIZE[0], SIZE[1]).unwrap();
    assert_eq!(trained.device().read_f32(&same).unwrap(), expected);
}

#[test]
fn the_same_picture_in_any_format_has_the_same_logits() {
    let model = open(checkpoint());
    let (rgb, [width, height]) = (rgb(), SIZE);
    let expected = logits(&model, &[image(&rgb)]);
    let pixels = || rgb.chunks_exact(3);
    let same = |image: Result<Image>, what: &str| {
        assert!(logits(&model, &[image.unwrap()]) == expected, "{what}");
    };
    let bgr: Vec<u8> = pixels().flat_map(|p| [p[2], p[1], p[0]]).collect();
    same(Image::new(&bgr, PixelFormat::Bgr, width, height), "BGR");
    let bgra: Vec<u8> = pixels().flat_map(|p| [p[2], p[1], p[0], 7]).collect();
    same(Image::new(&bgra, PixelFormat::Bgra, width, height), "BGRA");
    let stride = 3 * width + 13;
    let rows = rgb.chunks_exact(3 * width).flat_map(|row| [row, &[9; 13]].concat());
    let apart: Vec<u8> = rows.collect();
    same(Image::with_stride(&apart, PixelFormat::Rgb, width, height, stride), "a stride");
    let plane = |at: usize| pixels().map(|p| f32::from(p[at])).collect::<Vec<f32>>();
    let planes = [plane(0), plane(1), plane(2)];
    let planes = planes.each_ref().map(Vec::as_slice);
    same(Image::planes(planes, width, height, width), "planes");
    // SAFETY: on the CPU, the device's memory is this process's, and the pixels outlive the call.
    let there = unsafe { Image::on_device(rgb[..].as_ptr().addr() as u64, width, height) };
    same(there, "memory of the device");
}

#[test]
fn labels_and_probabilities_follow_from_the_logits() {
    let model = open(checkpoint());
    let rgb = rgb();
    let expected = logits(&model, &[image(&rgb)]);
    let labels = model.labels(&image(&rgb)).unwrap();
    let mut shares = vec![0.0; expected.len()];
    model.segment(&[image(&rgb)], Output::Probabilities(&mut shares), None).unwrap();
    let pixels = expected.chunks_exact(4).zip(shares.chunks_exact(4)).zip(&labels);
    for ((logits, shares), &label) in pixels {
        let most = logits.iter().copied().fold(f32::MIN, f32::max);
        assert_eq!(logits[usize::from(label)], most);
        let sum: f32 = logits.iter().map(|x| (x - most).exp()).sum();
        for (logit, share) in logits.iter().zip(shares) {
            assert!(((logit - most).exp() / sum - share).abs() < 1e-6);
        }
    }
    // The same in memory of the device, which is this process's here.
    let mut there = (vec![9u8; labels.len()], vec![0f32; shares.len()], vec![0f32; shares.len()]);
    let addresses = [
        (Kind::Labels, there.0.as_mut_ptr().expose_provenance(), labels.len()),
        (Kind::Probabilities, there.1.as_mut_ptr().expose_provenance(), shares.len()),
        (Kind::Logits, there.2.as_mut_ptr().expose_provenance(), shares.len()),
    ];
    for (kind, address, length) in addresses {
        // SAFETY: the buffers have these lengths and are not accessed before the calls return.
        let output = unsafe { DeviceOutput::new(kind, address as u64, length) }.unwrap();
        model.segment(&[image(&rgb)], Output::OnDevice(output), None).unwrap();
    }
    assert!(there == (labels, shares, expected));
}

#[test]
fn a_batch_is_its_images() {
    let model = open(checkpoint());
    let (one, mut other) = (rgb(), rgb());
    other.reverse();
    let both = logits(&model, &[image(&one), image(&other)]);
    let alone = [&one, &other].map(|rgb| logits(&model, &[image(rgb)])).concat();
    // Batches of another size may sum in another order.
    assert!(both.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-4));
    assert_ne!(both[..both.len() / 2], both[both.len() / 2..]);
}

#[test]
fn half_the_size_is_nearly_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let whole = exported(&folder, FilePrecision::F32);
    let rgb = rgb();
    let expected = logits(&open(&whole), &[image(&rgb)]);
    let range = expected.iter().fold(0f32, |range, x| range.max(x.abs()));
    for (precision, tolerance) in [(FilePrecision::Bf16, 0.03), (FilePrecision::F16, 0.004)] {
        let half = exported(&folder, precision);
        let size = |path: &Path| path.metadata().unwrap().len() as f64;
        assert!(size(&half) < 0.55 * size(&whole), "{precision:?}");
        let numbers = logits(&open(&half), &[image(&rgb)]);
        let off = numbers.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(0.0 < off && off < tolerance * range, "{precision:?}: {off} of {range}");
        // What was rounded once is not rounded again.
        let again = folder.path().join("again.safetensors");
        export(&half, Network::Student, precision, &again).unwrap();
        assert!(std::fs::read(again).unwrap() == std::fs::read(half).unwrap());
    }
}

#[test]
fn threads_share_a_model_even_those_of_a_pool() {
    let model = open(checkpoint());
    let rgb = rgb();
    let expected = model.labels(&image(&rgb)).unwrap();
    std::thread::scope(|scope| {
        let call = || assert!(model.labels(&image(&rgb)).unwrap() == expected);
        (0..3).for_each(|_| drop(scope.spawn(call)));
    });
    // A thread that waits for the model must not begin another call of it meanwhile.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let calls = AtomicUsize::new(0);
    pool.scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|_| {
                assert!(model.labels(&image(&rgb)).unwrap() == expected);
                calls.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(calls.into_inner(), 6);
    // It may be opened on one thread, used on another and dropped on a third.
    let opened = std::thread::spawn(|| open(checkpoint())).join().unwrap();
    let used = std::thread::spawn(move || opened.labels(&image(&rgb)).map(|_| opened));
    drop(used.join().unwrap().unwrap());
}

#[test]
fn a_call_can_be_stopped_and_the_model_goes_on() {
    let model = open(checkpoint());
    let rgb = rgb();
    let mut labels = vec![0; SIZE[0] * SIZE[1]];
    let asked = AtomicUsize::new(0);
    let stop = || asked.fetch_add(1, Ordering::Relaxed) > 0;
    let mut options = options();
    options.batch = Some(1);
    let one_by_one = Model::open(checkpoint(), &options).unwrap();
    let stopped = one_by_one.segment(&[image(&rgb)], Output::Labels(&mut labels), Some(&stop));
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert_eq!(asked.into_inner(), 2);
    let expected = model.labels(&image(&rgb)).unwrap();
    assert!(one_by_one.labels(&image(&rgb)).unwrap() == expected);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let model = open(checkpoint());
    let (rgb, small) = (rgb(), [0; 3]);
    let mut labels = vec![0; SIZE[0] * SIZE[1]];
    let small = Image::new(&small, PixelFormat::Rgb, 1, 1).unwrap();
    for images in [&[][..], &[image(&rgb), small], &[small], &[image(&rgb), image(&rgb)]] {
        let told = model.segment(images, Output::Labels(&mut labels), None).unwrap_err();
        assert!(matches!(told, Error::Shape { .. }), "{told}");
    }
    // One pixel is an image too.
    assert_eq!(model.labels(&small).unwrap().len(), 1);
    for length in [0, 7, 8, 100, 5000] {
        let bytes = std::fs::read(checkpoint()).unwrap()[..length].to_vec();
        let Err(told) = Model::from_bytes(bytes, &options()) else { panic!("{length} bytes") };
        assert!(told.to_string().starts_with("model in memory: "), "{told}");
    }
    let mut wrong = options();
    wrong.windows = Some([64, 65]);
    assert!(matches!(Model::open(checkpoint(), &wrong), Err(Error::Config(_))));
    wrong.windows = None;
    wrong.memory_limit = Some(1 << 20);
    assert!(matches!(Model::open(checkpoint(), &wrong), Err(Error::OutOfMemory(_))));
    assert!(Model::open("/nowhere/model.safetensors", &options()).is_err());
    let itself = export(checkpoint(), Network::Student, FilePrecision::F32, checkpoint());
    assert!(matches!(itself, Err(Error::Weights { .. })));
}

/// The teacher of a checkpoint, and windows other than its configuration's.
#[test]
fn options_choose_network_and_windows() {
    let rgb = rgb();
    let expected = logits(&open(checkpoint()), &[image(&rgb)]);
    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = options();
        change(&mut options);
        logits(&Model::open(checkpoint(), &options).unwrap(), &[image(&rgb)])
    };
    assert_eq!(with(&|options| options.network = Some(Network::Student)), expected);
    assert_eq!(with(&|options| options.windows = Some([64, 32])), expected);
    assert_ne!(with(&|options| options.windows = Some([0, 0])), expected);
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = heard.clone();
    with(&|options| {
        let told = told.clone();
        options.log =
            Some(std::sync::Arc::new(move |text: &str| told.lock().unwrap().push(text.to_owned())));
    });
    assert!(heard.lock().unwrap().iter().any(|text| text.starts_with("host")));
}
