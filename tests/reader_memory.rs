//! Tests that every reader of files takes no more memory than is stated here, whatever the file
//! holds: the largest sum of what was allocated at one time. If there is no memory for a file's
//! bytes, that is an error that names the file.
//!
//! It is a program of its own because it counts the allocations of all its threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use udass_raw::checkpoint::identity::identify;
use udass_raw::checkpoint::tensor_file::TensorFile;
use udass_raw::config::Config;
use udass_raw::data::decode::load_rgb;
use udass_raw::data::labels::{LabelFile, SYNTHIA_IDS, TRAIN_IDS};
use udass_raw::run::train::log;

#[path = "support/jpeg.rs"]
mod jpeg;

use jpeg::progressive;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// Blocks of this many bytes are refused, unless it is 0.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() == REFUSED.load(SeqCst) {
            return std::ptr::null_mut();
        }
        PEAK.fetch_max(NOW.fetch_add(layout.size(), SeqCst) + layout.size(), SeqCst);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), SeqCst) + layout.size(), SeqCst);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), SeqCst);
        unsafe { System.dealloc(block, layout) }
    }

    // The default one allocates, copies and frees, which counts both blocks, as it should: the
    // system's may do so too.
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1 << 20;

/// Fails if reading takes more than `most` bytes.
#[track_caller]
fn within<R>(name: &str, most: usize, read: impl FnOnce() -> R) {
    let before = NOW.load(SeqCst);
    PEAK.store(before, SeqCst);
    let result = read();
    let taken = PEAK.load(SeqCst) - before;
    drop(result);
    println!("{name}: {:.2} of {:.2} MiB", taken as f64 / MIB as f64, most as f64 / MIB as f64);
    assert!(taken <= most, "{name} takes {taken} bytes, which are more than {most}");
}

fn png(path: &Path, side: u32, color: png::ColorType, bits: png::BitDepth, profile: bool) {
    let mut info = png::Info::with_size(side, side);
    (info.color_type, info.bit_depth) = (color, bits);
    if profile {
        // Compressed to a few kilobytes.
        info.icc_profile = Some(vec![0; 16 * MIB].into());
    }
    let file = fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::with_info(file, info).unwrap();
    if color == png::ColorType::Indexed {
        encoder.set_palette(vec![0; 3]);
    }
    if profile {
        encoder.add_ztxt_chunk("Comment".into(), " ".repeat(16 * MIB)).unwrap();
    }
    let row = info_row(side as usize, color, bits);
    encoder.write_header().unwrap().write_image_data(&vec![0; row * side as usize]).unwrap();
}

fn info_row(side: usize, color: png::ColorType, bits: png::BitDepth) -> usize {
    (side * color.samples() * bits as usize).div_ceil(8)
}

/// Images take the file and, for each pixel, 3 bytes (PNG), or 12 (JPEG, labels of 16 bits).
fn images(folder: &Path) {
    use png::{BitDepth, ColorType};
    let path = folder.join("image.png");
    for (color, bits) in [
        (ColorType::Rgb, BitDepth::Eight),
        (ColorType::Rgba, BitDepth::Sixteen),
        (ColorType::Grayscale, BitDepth::One),
        (ColorType::Indexed, BitDepth::Eight),
    ] {
        for (side, profile) in [(4096, false), (16, true)] {
            png(&path, side, color, bits, profile);
            let file = fs::metadata(&path).unwrap().len() as usize;
            let pixels = (side * side) as usize;
            let name = format!("PNG of {color:?} {bits:?}");
            within(&name, file + 3 * pixels + MIB, || load_rgb(&path).unwrap());
            let label = LabelFile { path: path.clone(), ids: TRAIN_IDS.clone() };
            within(&format!("label, {name}"), file + 12 * pixels + MIB, || label.load());
            let label = LabelFile { path: path.clone(), ids: SYNTHIA_IDS.clone() };
            within(&format!("label, {name}"), file + 12 * pixels + MIB, || label.load());
        }
    }
    let path = folder.join("image.jpg");
    let side = 2048;
    let pixels = vec![100; 3 * side * side];
    let file = fs::File::create(&path).unwrap();
    image::codecs::jpeg::JpegEncoder::new(file)
        .encode(&pixels, side as u32, side as u32, image::ExtendedColorType::Rgb8)
        .unwrap();
    drop(pixels);
    let file = fs::metadata(&path).unwrap().len() as usize;
    within("JPEG", 2 * file + 12 * side * side + MIB, || load_rgb(&path).unwrap());
    let bytes = progressive(side as u16, 3);
    fs::write(&path, &bytes).unwrap();
    let most = 2 * bytes.len() + 12 * side * side + MIB;
    within("progressive JPEG", most, || load_rgb(&path).unwrap());
}

fn zipped(pickle: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("data.pkl", pickle), ("data/0", &[0; 64])] {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A PyTorch file takes 512 MiB at most, and a small one in proportion.
fn pickles(folder: &Path) {
    let path = folder.join("file.pth");
    let of =
        |unit: &[u8], count: usize| [b"\x80\x02", unit.repeat(count).as_slice(), b"."].concat();
    let listed =
        |unit: &[u8], count: usize| [b"\x80\x02](", unit.repeat(count).as_slice(), b"e."].concat();
    let most = 2 * MIB;
    for (name, pickle) in [
        ("dictionaries", of(b"}", most - 8)),
        ("lists in a list", listed(b"]", most - 8)),
        ("filled dictionaries", of(b"}NNs", most / 3 - 8)),
        ("names", listed(b"cabcdefgh\nabcdefgh\n", 20 * MIB / 20)),
        ("objects", listed(b"cx\ny\n)R", most / 3 - 8)),
        ("texts", listed(b"U\x08abcdefgh", most - 8)),
        ("memo", of(b"Nr\x00\x00\x00\x00", most - 8)),
    ] {
        fs::write(&path, zipped(&pickle)).unwrap();
        drop(pickle);
        within(&format!("pickle of {name}"), 512 * MIB, || TensorFile::open(&path).is_ok());
    }
    let mut zip = zip::ZipWriter::new(std::io::BufWriter::new(fs::File::create(&path).unwrap()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for record in 0..(1 << 18) - 1 {
        zip.start_file(format!("{record}"), options).unwrap();
    }
    zip.finish().unwrap();
    within("zip of records", 512 * MIB, || TensorFile::open(&path).is_ok());
}

/// A safetensors file takes 24 times its header, of at most 100 MB, and its names are compared with
/// those of known networks.
fn safetensors(folder: &Path) {
    let path = folder.join("file.safetensors");
    let entry =
        |i: usize| format!("\"{i}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    let many: Vec<String> = (0..100_000).map(entry).collect();
    let strings: Vec<String> = (0..200_000).map(|i| format!("\"{i}\":\"\"")).collect();
    for (name, header) in [
        ("tensors", format!("{{{}}}", many.join(","))),
        ("strings", format!("{{\"__metadata__\":{{{}}}}}", strings.join(","))),
    ] {
        let length = (header.len() as u64).to_le_bytes();
        fs::write(&path, [&length, header.as_bytes()].concat()).unwrap();
        within(&format!("safetensors of {name}"), 24 * header.len() + MIB, || {
            TensorFile::open(&path).map(|file| identify(&file).is_ok())
        });
    }
}

/// A configuration takes 128 times its text, of at most 4 MiB, and a log 128 times its own.
fn texts(folder: &Path) {
    let path = folder.join("file.toml");
    let keys: String = (0..100_000).map(|i| format!("{i}=1\n")).collect();
    let lists = format!("a = [{}]\n", "[],".repeat(300_000));
    let tables = "[[a]]\n".repeat(100_000);
    for (name, text) in [("keys", keys), ("lists", lists), ("tables", tables)] {
        fs::write(&path, format!("base = \"toy_vit\"\n{text}")).unwrap();
        within(&format!("configuration of {name}"), 128 * text.len() + 2 * MIB, || {
            Config::load(path.to_str().unwrap(), &[]).is_ok()
        });
    }
    let path = folder.join("log.jsonl");
    let line = "{\"event\": \"iteration\", \"iteration\": 1, \"losses\": {\"a\": 1.5}}\n";
    let numbers = format!("[{}0]\n", "0,".repeat(500_000));
    let lists = format!("[{}[]]\n", "[],".repeat(300_000));
    let objects = format!("[{}{{}}]\n", "{\"\":0},".repeat(100_000));
    for (name, text) in [
        ("iterations", line.repeat(20_000)),
        ("numbers", numbers),
        ("lists", lists),
        ("objects", objects),
    ] {
        fs::write(&path, &text).unwrap();
        within(&format!("log of {name}"), 128 * text.len() + MIB, || log::read(&path).unwrap());
    }
}

/// Fails unless reading ends in an error that names the file if there is no block of `bytes` bytes.
#[track_caller]
fn lacking<R>(path: &Path, bytes: usize, read: impl Fn() -> udass_raw::Result<R>) {
    read().unwrap();
    REFUSED.store(bytes, SeqCst);
    let refused = read().map(drop);
    REFUSED.store(0, SeqCst);
    let told = refused.unwrap_err().to_string();
    let parts = [path.to_str().unwrap(), "cannot read", "memory"];
    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    read().unwrap();
}

/// The bytes of a file, the header of a safetensors file and the elements of a tensor. Their numbers
/// are such that nothing else has as many.
fn without_memory(folder: &Path) {
    let size = |path: &Path| fs::metadata(path).unwrap().len() as usize;
    let image = folder.join("lacking.png");
    image::RgbImage::from_fn(517, 311, |x, y| image::Rgb([x, y, x * y].map(|n| n as u8)))
        .save(&image)
        .unwrap();
    lacking(&image, size(&image), || load_rgb(&image));
    let label = folder.join("lacking_label.png");
    image::GrayImage::from_fn(517, 311, |x, y| image::Luma([(x * y % 19) as u8]))
        .save(&label)
        .unwrap();
    let labels = LabelFile { path: label.clone(), ids: TRAIN_IDS.clone() };
    lacking(&label, size(&label), || labels.load());
    let config = folder.join("lacking.toml");
    fs::write(&config, format!("base = \"toy_vit\"\n#{}\n", "x".repeat(123_457))).unwrap();
    lacking(&config, size(&config), || Config::load(config.to_str().unwrap(), &[]));
    let lines = folder.join("lacking.jsonl");
    fs::write(&lines, format!("{{\"a\": \"{}\"}}\n", "x".repeat(123_457))).unwrap();
    lacking(&lines, size(&lines), || log::read(&lines));
    let path = folder.join("lacking.safetensors");
    let count = 12_347;
    let [name, end] = ["n".repeat(7_919), (4 * count).to_string()];
    let header = format!(
        "{{\"{name}\":{{\"dtype\":\"F32\",\"shape\":[{count}],\"data_offsets\":[0,{end}]}}}}"
    );
    let length = (header.len() as u64).to_le_bytes();
    fs::write(&path, [&length, header.as_bytes(), &vec![0; 4 * count]].concat()).unwrap();
    lacking(&path, header.len(), || TensorFile::open(&path));
    let file = TensorFile::open(&path).unwrap();
    lacking(&path, 4 * count, || file.numbers(&name));
}

#[test]
fn every_reader_takes_no_more_memory_than_is_stated() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    images(folder.path());
    pickles(folder.path());
    safetensors(folder.path());
    texts(folder.path());
    without_memory(folder.path());
}
