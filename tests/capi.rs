//! The C interface, called as C calls it: what is wrong is a status with a message, never a crash.
//! Needs `--features capi`. `.ci/run embed` compiles and runs the example in C.
#![cfg(feature = "capi")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::zeroed;
use std::path::Path;
use std::ptr::{null, null_mut};

use udass_raw::capi::values::*;
use udass_raw::capi::*;
use udass_raw::checkpoint::state::{self, Position};
use udass_raw::config::Config;
use udass_raw::device::Device;
use udass_raw::run::train::initial_state;

const SIDE: usize = 64;

fn c(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn last() -> String {
    // SAFETY: the function returns a string.
    unsafe { CStr::from_ptr(udass_last_error()) }.to_str().unwrap().into()
}

fn checkpoint(folder: &Path) -> CString {
    let sets = ["weights.init=random", "network.channels=32", "teacher.enabled=true"];
    let config = Config::load("toy_vit", &sets.map(String::from)).unwrap();
    let path = folder.join("checkpoint.safetensors");
    let device = Device::host(1).unwrap();
    let mut training = initial_state::build(&config, &device, None).unwrap();
    state::save(&path, &mut training, &Position::default(), None).unwrap();
    c(&path)
}

fn options() -> UdassOptions {
    // SAFETY: all bytes 0 are the defaults.
    let mut options: UdassOptions = unsafe { zeroed() };
    options.struct_size = size_of::<UdassOptions>() as u32;
    (options.device, options.threads) = (UDASS_DEVICE_HOST, 1);
    options
}

fn image(pixels: &[u8]) -> UdassImage {
    // SAFETY: all bytes 0 are the defaults.
    let mut image: UdassImage = unsafe { zeroed() };
    image.struct_size = size_of::<UdassImage>() as u32;
    (image.width, image.height) = (SIDE, SIDE);
    image.data[0] = pixels.as_ptr().cast();
    image
}

fn output(kind: u32, data: *mut c_void, length: usize) -> UdassOutput {
    let struct_size = size_of::<UdassOutput>() as u32;
    UdassOutput { struct_size, kind, data, length, memory: UDASS_MEMORY_HOST, reserved: 0 }
}

unsafe extern "C" fn hear(data: *mut c_void, message: *const c_char) {
    // SAFETY: `data` is the list that the test gave, and the message a string.
    unsafe {
        (*data.cast::<Vec<String>>()).push(CStr::from_ptr(message).to_str().unwrap().into());
    }
}

unsafe extern "C" fn stop(data: *mut c_void) -> c_int {
    // SAFETY: `data` is the answer that the test gave.
    unsafe { *data.cast::<c_int>() }
}

#[test]
fn a_program_in_c_segments_and_is_told_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = checkpoint(folder.path());
    let mut heard: Vec<String> = Vec::new();
    let mut options = options();
    options.log = Some(hear);
    options.log_data = (&raw mut heard).cast();
    let mut model = null_mut();
    // SAFETY: all pointers are valid, and lengths are those of the buffers, in this whole test,
    // unless they are null or the call is refused before it uses them.
    unsafe {
        use UdassStatus::*;
        assert_eq!(udass_model_open(path.as_ptr(), &options, &mut model), Ok, "{}", last());
        assert!(heard.iter().any(|text| text.starts_with("host, 1 thread")), "{heard:?}");
        assert_eq!(udass_model_class_count(model), 19);
        assert_eq!(CStr::from_ptr(udass_model_class_name(model, 0)), c"road");
        assert!(udass_model_class_name(model, 19).is_null());
        let mut rgb = [0; 3];
        assert_eq!(udass_model_class_color(model, 0, rgb.as_mut_ptr()), Ok);
        assert_eq!(rgb, [128, 64, 128]);
        assert_eq!(udass_model_class_color(model, 19, rgb.as_mut_ptr()), InvalidArgument);
        let (mut width, mut height, mut used) = (0, 0, 0);
        assert_eq!(udass_model_image_size(model, &mut width, &mut height), Ok);
        assert!(width > 0 && height > 0);
        assert_eq!(udass_model_memory(model, &mut used, null_mut(), null_mut()), Ok);
        assert!(used > 0);

        let pixels: Vec<u8> = (0..2 * SIDE * SIDE * 3).map(|i| (i * i / 31) as u8).collect();
        let mut labels = vec![255u8; 2 * SIDE * SIDE];
        let images = [image(&pixels), image(&pixels[SIDE * SIDE * 3..])];
        let to = output(UDASS_OUTPUT_LABELS, labels.as_mut_ptr().cast(), labels.len());
        let segment = |images: *const UdassImage, count, to: &UdassOutput| {
            udass_segment(model, images, count, to, None, null_mut())
        };
        assert_eq!(segment(images.as_ptr(), 2, &to), Ok, "{}", last());
        assert!(labels.iter().all(|&label| label < 19));
        let mut shares = vec![0f32; 19 * SIDE * SIDE];
        let numbers = output(UDASS_OUTPUT_PROBABILITIES, shares.as_mut_ptr().cast(), shares.len());
        assert_eq!(segment(images.as_ptr(), 1, &numbers), Ok, "{}", last());
        let sums = shares.chunks_exact(19).map(|pixel| pixel.iter().sum::<f32>());
        assert!(sums.into_iter().all(|sum| (sum - 1.0).abs() < 1e-5));

        // Each of these is refused with a message that says why.
        let refused = |status: UdassStatus, part: &str| {
            assert_ne!(status, Ok, "{part}");
            assert!(last().contains(part), "{part} in: {}", last());
        };
        refused(segment(null(), 1, &to), "images is null");
        refused(segment(images.as_ptr(), 0, &to), "no images");
        refused(segment(images.as_ptr(), 1, &to), "a buffer of 8192 elements");
        refused(udass_segment(null(), images.as_ptr(), 2, &to, None, null_mut()), "model is null");
        refused(
            udass_segment(model, images.as_ptr(), 2, null(), None, null_mut()),
            "output is null",
        );
        let nothing = output(UDASS_OUTPUT_LABELS, null_mut(), labels.len());
        refused(segment(images.as_ptr(), 2, &nothing), "output: data is null");
        let crooked = shares.as_mut_ptr().byte_add(1).cast();
        let crooked = output(UDASS_OUTPUT_LOGITS, crooked, 19 * SIDE * SIDE - 1);
        refused(segment(images.as_ptr(), 1, &crooked), "misaligned");
        let wrong = |change: &dyn Fn(&mut UdassImage)| {
            let mut wrong = images[0];
            change(&mut wrong);
            segment(&wrong, 1, &to)
        };
        refused(wrong(&|image| image.format = 77), "77 is no format");
        refused(wrong(&|image| image.memory = 9), "9 is no memory");
        refused(wrong(&|image| image.width = 0), "image");
        refused(wrong(&|image| image.height = usize::MAX), "image");
        refused(wrong(&|image| image.width = usize::MAX), "image");
        refused(wrong(&|image| image.stride = 5), "image");
        refused(wrong(&|image| image.data[0] = null()), "image: data is null");
        refused(wrong(&|image| image.format = UDASS_FORMAT_PLANES), "image: data is null");
        refused(wrong(&|image| image.struct_size = 0), "struct_size, is 0");
        let mut answer: c_int = 1;
        let asked = (&raw mut answer).cast();
        let stopped = udass_segment(model, images.as_ptr(), 2, &to, Some(stop), asked);
        assert_eq!(stopped, Cancelled);
        answer = 0;
        let going_on = udass_segment(model, images.as_ptr(), 2, &to, Some(stop), asked);
        assert_eq!(going_on, Ok, "{answer}: {}", last());
        // Other threads have messages of their own.
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(last(), "")).join().unwrap());
        udass_model_free(model);
        udass_model_free(null_mut());
    }
}

#[test]
fn options_of_other_versions_are_understood_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = checkpoint(folder.path());
    let open = |options: *const UdassOptions| {
        let mut model = null_mut();
        // SAFETY: the path and the place for the model are valid, and the options as large as they
        // say.
        unsafe {
            let status = udass_model_open(path.as_ptr(), options, &mut model);
            assert_eq!(model.is_null(), status != UdassStatus::Ok);
            udass_model_free(model);
            status
        }
    };
    // An earlier version, which ended after `threads`.
    let mut early = options();
    early.struct_size = 20;
    early.network = 99;
    assert_eq!(open(&early), UdassStatus::Ok, "{}", last());
    // A later one, whose new field has its default, or not.
    #[repr(C)]
    struct Later(UdassOptions, u64);
    let mut later = Later(options(), 0);
    later.0.struct_size = size_of::<Later>() as u32;
    assert_eq!(open((&raw const later).cast()), UdassStatus::Ok, "{}", last());
    later.1 = 1;
    assert_eq!(open((&raw const later).cast()), UdassStatus::InvalidArgument);
    assert!(last().contains("does not have"), "{}", last());
    for size in [0, 4, 7, u32::MAX] {
        let mut wrong = options();
        wrong.struct_size = size;
        assert_eq!(open(&wrong), UdassStatus::InvalidArgument, "{size}");
    }
    let changes: [fn(&mut UdassOptions); 6] = [
        |options| options.device = 9,
        |options| options.precision = 9,
        |options| options.network = 9,
        |options| options.cache = UDASS_CACHE_FOLDER,
        |options| options.window = -2,
        |options| (options.window, options.window_step) = (64, -1),
    ];
    for change in changes {
        let mut wrong = options();
        change(&mut wrong);
        assert_eq!(open(&wrong), UdassStatus::InvalidArgument, "{}", last());
    }
}

#[test]
fn image_files_are_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = c(&folder.path().join("labels.png"));
    // SAFETY: the buffers have these lengths, and the paths are strings.
    unsafe {
        let labels = [0u8, 1, 2, 3, 4, 5];
        let write =
            |width, height| udass_png_write_gray(path.as_ptr(), labels.as_ptr(), width, height);
        assert_eq!(write(3, 2), UdassStatus::Ok, "{}", last());
        for (width, height) in [(0, 2), (3, 0), (usize::MAX, 2), (usize::MAX, usize::MAX)] {
            assert_eq!(write(width, height), UdassStatus::InvalidArgument);
        }
        let mut pixels: UdassPixels = zeroed();
        assert_eq!(udass_image_read(path.as_ptr(), &mut pixels), UdassStatus::Ok, "{}", last());
        assert_eq!((pixels.width, pixels.height), (3, 2));
        let rgb = std::slice::from_raw_parts(pixels.rgb, 18);
        assert!(rgb.chunks_exact(3).zip(labels).all(|(rgb, label)| rgb == [label; 3]));
        udass_pixels_free(&mut pixels);
        assert!(pixels.rgb.is_null());
        udass_pixels_free(&mut pixels);
        udass_pixels_free(null_mut());
        assert_eq!(udass_image_read(null(), &mut pixels), UdassStatus::InvalidArgument);
        assert_eq!(udass_image_read(path.as_ptr(), null_mut()), UdassStatus::InvalidArgument);
        let missing = c(&folder.path().join("missing.png"));
        assert_ne!(udass_image_read(missing.as_ptr(), &mut pixels), UdassStatus::Ok);
        assert!(last().contains("missing.png"), "{}", last());
        let mut model = null_mut();
        let status = udass_model_open(path.as_ptr(), null(), &mut model);
        assert!(status != UdassStatus::Ok && model.is_null());
        let status = udass_model_open_bytes(null(), 8, null(), &mut model);
        assert_eq!(status, UdassStatus::InvalidArgument);
        assert_eq!(
            udass_model_open(path.as_ptr(), null(), null_mut()),
            UdassStatus::InvalidArgument
        );
    }
}
