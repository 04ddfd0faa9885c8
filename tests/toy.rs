//! Tests the toy world: what it writes, that it is identical on every machine, and what it rejects.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use udass_raw::data::labels::{CITYSCAPES_IDS, LabelFile, SYNTHIA_IDS};
use udass_raw::data::toy::{Domain, Split, ToyWorld};
use udass_raw::observer::Observer;

/// Raw label ids of the 19 classes.
const CLASSES: [u8; 19] =
    [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33];
/// Ids without a class: unlabeled and the ego vehicle.
const VOID: [u8; 2] = [0, 1];

const SPLITS: [(Domain, Split); 4] = [
    (Domain::Source, Split::Train),
    (Domain::Source, Split::Val),
    (Domain::Target, Split::Train),
    (Domain::Target, Split::Val),
];

/// Counts the steps that are reported, out of 13.
#[derive(Default)]
struct Calls(AtomicUsize);

impl Observer for Calls {
    fn begin(&self, _: usize, _: usize) {}

    fn advance(&self, done: usize, total: usize, _: &str) {
        assert!((1..=13).contains(&done) && total == 13);
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn message(&self, _: &str) {}
}

fn small() -> ToyWorld {
    ToyWorld {
        source_size: (120, 66),
        target_size: (128, 64),
        source_train: 4,
        source_val: 2,
        target_train: 4,
        target_val: 3,
        gap: 1.0,
        ..ToyWorld::default()
    }
}

fn write(world: &ToyWorld, dir: &Path) {
    world.write(dir, &()).unwrap();
}

/// Returns every file below `dir` by name.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_path_buf();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

struct Png {
    size: (u32, u32),
    color: png::ColorType,
    palette: Option<Vec<u8>>,
    data: Vec<u8>,
}

/// Decodes a PNG as stored, without expanding palette indices.
fn read_png(path: &Path) -> Png {
    let mut reader =
        png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut data).unwrap();
    let info = reader.info();
    assert_eq!(info.bit_depth, png::BitDepth::Eight);
    Png {
        size: (info.width, info.height),
        color: info.color_type,
        palette: info.palette.as_ref().map(|p| p.to_vec()),
        data,
    }
}

#[test]
fn same_bytes_on_any_number_of_threads() {
    let run = |threads: usize| {
        let dir = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| write(&small(), dir.path()));
        contents(dir.path())
    };
    let one = run(1);
    // Source training images are written in two layouts.
    assert_eq!(one.len(), 2 * (13 + 4) + 1);
    assert!(one == run(1), "two runs differ");
    assert!(one == run(3), "one thread and three threads differ");
}

/// Fails when a code change alters the images: `VERSION` must then be incremented, so that a folder
/// of old images is not taken for a new one. Also checks that machines produce the same bits.
#[test]
fn pictures_are_those_of_this_version() {
    let world = small();
    let mut all = Vec::new();
    for (domain, split) in SPLITS {
        let (rgb, label) = world.draw(domain, split, 1);
        all.extend(rgb);
        all.extend(label);
    }
    assert_eq!(fnv(&all), PICTURES);
}

const PICTURES: u64 = 14_585_955_254_320_919_194;

#[test]
fn names_sizes_and_pixel_formats_are_those_of_the_data_sets() {
    let world = small();
    let dir = tempfile::tempdir().unwrap();
    write(&world, dir.path());
    let mut expected = vec!["toy.json".to_string()];
    for (root, count) in [("gta", 4), ("gta_val", 2)] {
        for i in 1..=count {
            expected.push(format!("{root}/images/{i:05}.png"));
            expected.push(format!("{root}/labels/{i:05}.png"));
        }
    }
    for i in 0..4 {
        expected.push(format!("synthia/RGB/{i:07}.png"));
        expected.push(format!("synthia/GT/LABELS/{i:07}.png"));
    }
    for (split, frames) in [
        (
            "train",
            ["altdorf_000000", "altdorf_000001", "birkenau_000000", "cranach_000000"].as_slice(),
        ),
        ("val", ["dornfeld_000000", "dornfeld_000001", "eulenburg_000000"].as_slice()),
    ] {
        for frame in frames {
            let city = frame.split('_').next().unwrap();
            let stem = format!("{split}/{city}/{frame}_000019");
            expected.push(format!("cityscapes/leftImg8bit/{stem}_leftImg8bit.png"));
            expected.push(format!("cityscapes/gtFine/{stem}_gtFine_labelIds.png"));
        }
    }
    let expected: BTreeSet<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
    let found: BTreeSet<PathBuf> = contents(dir.path()).into_keys().collect();
    assert_eq!(found, expected);

    for (name, path) in expected.iter().map(|p| (p.to_string_lossy(), dir.path().join(p))) {
        if !name.ends_with(".png") || name.starts_with("synthia/GT") {
            continue;
        }
        let file = read_png(&path);
        assert_eq!(file.size, if name.contains("city") { (128, 64) } else { (120, 66) });
        if name.contains("/labels/") {
            assert_eq!(file.color, png::ColorType::Indexed, "{name}");
            let palette = file.palette.unwrap();
            assert_eq!(palette[3 * 7..3 * 8], [128, 64, 128], "road's color");
            assert_eq!(palette[3 * 33..3 * 34], [119, 11, 32], "bicycle's color");
        } else if name.contains("labelIds") {
            assert_eq!(file.color, png::ColorType::Grayscale, "{name}");
        } else {
            assert_eq!(file.color, png::ColorType::Rgb, "{name}");
            continue;
        }
        let strange = file.data.iter().find(|id| !CLASSES.contains(id) && !VOID.contains(id));
        assert_eq!(strange, None, "{name}");
    }
    let (_, label) = world.draw(Domain::Source, Split::Train, 2);
    assert_eq!(read_png(&dir.path().join("gta/labels/00003.png")).data, label);

    // SYNTHIA's files have the same image, and the same classes except for the three that it lacks.
    let [ours, theirs] = ["gta/images/00003.png", "synthia/RGB/0000002.png"]
        .map(|name| read_png(&dir.path().join(name)).data);
    assert_eq!(ours, theirs);
    let path = dir.path().join("synthia/GT/LABELS/0000002.png");
    let reader = png::Decoder::new(BufReader::new(File::open(&path).unwrap())).read_info().unwrap();
    let stored = (reader.info().color_type, reader.info().bit_depth);
    assert_eq!(stored, (png::ColorType::Rgb, png::BitDepth::Sixteen));
    let synthia = LabelFile { path, ids: SYNTHIA_IDS.clone() }.load().unwrap();
    let lacking = [22, 27, 31];
    let expected: Vec<u8> = label
        .iter()
        .map(|&id| CITYSCAPES_IDS.get(id.into()).filter(|_| !lacking.contains(&id)).unwrap_or(255))
        .collect();
    assert_eq!(synthia.data, expected);
    assert!(label.iter().any(|id| lacking.contains(id)), "nothing was left out");
}

#[test]
fn eleven_pictures_of_any_split_hold_every_class() {
    for seed in [1, 2, 3] {
        let world = ToyWorld { seed, ..ToyWorld::default() };
        for (domain, split) in SPLITS {
            let mut pixels = [0usize; 256];
            for index in 0..11 {
                for id in world.draw(domain, split, index).1 {
                    pixels[usize::from(id)] += 1;
                }
            }
            for class in CLASSES {
                let n = pixels[usize::from(class)];
                assert!(n >= 300, "seed {seed} {domain:?} {split:?}: {n} pixels of id {class}");
            }
        }
    }
}

#[test]
fn no_two_pictures_share_a_layout() {
    // Both domains have the same size; otherwise no two images could be equal.
    let world = ToyWorld { source_size: (128, 64), target_size: (128, 64), ..ToyWorld::default() };
    let mut seen = BTreeMap::new();
    for (domain, split) in SPLITS {
        for index in 0..15 {
            let (_, label) = world.draw(domain, split, index);
            if let Some(other) = seen.insert(label, (domain, split, index)) {
                panic!("{other:?} and {:?} have the same label map", (domain, split, index));
            }
        }
    }
    let other = ToyWorld { seed: 2, ..world.clone() };
    let (domain, split) = SPLITS[0];
    assert_ne!(other.draw(domain, split, 0), world.draw(domain, split, 0));
}

#[test]
fn the_gap_changes_the_target_alone_and_not_its_layout() {
    let near = ToyWorld { gap: 0.5, ..small() };
    let far = ToyWorld { gap: 1.0, ..small() };
    assert_eq!(
        near.draw(Domain::Source, Split::Train, 0),
        far.draw(Domain::Source, Split::Train, 0)
    );
    let (a, b) =
        (near.draw(Domain::Target, Split::Train, 0), far.draw(Domain::Target, Split::Train, 0));
    assert_eq!(a.1, b.1);
    assert_ne!(a.0, b.0);
}

#[test]
fn the_same_world_at_another_size() {
    let small = ToyWorld { target_size: (128, 64), ..ToyWorld::default() };
    let large = ToyWorld { target_size: (384, 192), ..ToyWorld::default() };
    let (_, a) = small.draw(Domain::Target, Split::Train, 0);
    let (_, b) = large.draw(Domain::Target, Split::Train, 0);
    let same = (0..64 * 128).filter(|i| a[*i] == b[(3 * (i / 128) + 1) * 384 + 3 * (i % 128) + 1]);
    let share = same.count() as f32 / (64.0 * 128.0);
    assert!(share > 0.95, "only {share} of the labels agree");
}

#[test]
fn a_complete_world_is_left_as_it_is_and_an_interrupted_one_completed() {
    let dir = tempfile::tempdir().unwrap();
    let world = small();
    write(&world, dir.path());
    let before = contents(dir.path());
    let image = dir.path().join("gta/images/00001.png");
    let modified = std::fs::metadata(&image).unwrap().modified().unwrap();
    // Files that a preparation step writes next to the labels must survive.
    let extra = dir.path().join("gta/labels/00001_labelTrainIds.png");
    std::fs::write(&extra, b"prepared").unwrap();
    write(&world, dir.path());
    assert_eq!(std::fs::metadata(&image).unwrap().modified().unwrap(), modified);
    assert_eq!(std::fs::read(&extra).unwrap(), b"prepared");
    std::fs::remove_file(&extra).unwrap();

    std::fs::rename(dir.path().join("toy.json"), dir.path().join("toy.unfinished.json")).unwrap();
    std::fs::remove_file(&image).unwrap();
    let calls = Calls::default();
    world.write(dir.path(), &calls).unwrap();
    assert_eq!(calls.0.into_inner(), 13);
    assert!(contents(dir.path()) == before, "the completed world differs");
}

#[test]
fn foreign_folders_and_other_worlds_are_refused() {
    let refused = |world: &ToyWorld, dir: &Path, word: &str| {
        let before = contents(dir);
        let message = world.write(dir, &()).unwrap_err().to_string();
        assert!(message.contains(word), "'{message}' does not say '{word}'");
        assert!(contents(dir) == before, "the folder was changed");
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "mine").unwrap();
    refused(&small(), dir.path(), "thesis.tex");

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("toy.json"), "{}").unwrap();
    refused(&small(), dir.path(), "toy.json");

    let dir = tempfile::tempdir().unwrap();
    let tiny =
        ToyWorld { source_train: 1, source_val: 0, target_train: 0, target_val: 0, ..small() };
    write(&tiny, dir.path());
    refused(&ToyWorld { seed: 7, ..tiny.clone() }, dir.path(), "other parameters");
    refused(&ToyWorld { gap: 0.9, ..tiny.clone() }, dir.path(), "other parameters");

    let empty = tempfile::tempdir().unwrap();
    refused(&ToyWorld { target_size: (128, 8), ..small() }, empty.path(), "target_size");
    refused(&ToyWorld { gap: f32::NAN, ..small() }, empty.path(), "gap");
    let none = ToyWorld { source_train: 0, ..tiny };
    refused(&none, empty.path(), "the number of images is 0");

    let file = empty.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(small().write(&file, &()).is_err());
}
