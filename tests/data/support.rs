//! Small data sets made up for a test.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use udass_raw::{
    config::Config,
    data::{labels::Plane, resize::Size},
};

pub fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A PNG in memory, as the `png` crate writes it; a palette of 256 greys where one is needed.
pub fn png(size: [u32; 2], color: png::ColorType, depth: png::BitDepth, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size[0], size[1]);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        // Colours unlike their indices, so that an expanded palette shows.
        encoder.set_palette((0..=255u8).flat_map(|i| [255 - i, i / 2, 7]).collect::<Vec<_>>());
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

pub fn grey(size: [u32; 2], data: &[u8]) -> Vec<u8> {
    png(size, png::ColorType::Grayscale, png::BitDepth::Eight, data)
}

pub fn palette(size: [u32; 2], data: &[u8]) -> Vec<u8> {
    png(size, png::ColorType::Indexed, png::BitDepth::Eight, data)
}

/// An RGB picture whose pixel says where it is: x, y, and a number of the picture's own.
pub fn located([width, height]: [u32; 2], number: u8) -> Vec<u8> {
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, number]));
    let pixels: Vec<u8> = pixels.collect();
    png([width, height], png::ColorType::Rgb, png::BitDepth::Eight, &pixels)
}

pub fn plane([width, height]: [usize; 2], data: Vec<u8>) -> Plane {
    assert_eq!(data.len(), width * height);
    Plane { size: Size::new(width, height), data }
}

/// A GTA and a Cityscapes folder below one temporary folder.
pub struct Sets {
    pub folder: TempDir,
}

impl Sets {
    pub fn new() -> Self {
        Sets { folder: tempfile::tempdir().unwrap() }
    }

    pub fn gta(&self) -> PathBuf {
        self.folder.path().join("gta")
    }

    pub fn cityscapes(&self) -> PathBuf {
        self.folder.path().join("cityscapes")
    }

    /// `images/<number>.png` and a palette label of these *label ids*.
    pub fn add_gta(&self, number: u8, size: [u32; 2], label_ids: &[u8]) {
        let name = format!("{number:05}.png");
        write(&self.gta().join("images").join(&name), &located(size, number));
        write(&self.gta().join("labels").join(&name), &palette(size, label_ids));
    }

    pub fn add_cityscapes(&self, split: &str, number: u8, size: [u32; 2], label_ids: &[u8]) {
        let stem = format!("ulm/ulm_{number:06}_000019");
        let root = self.cityscapes();
        let image = root.join("leftImg8bit").join(split).join(format!("{stem}_leftImg8bit.png"));
        write(&image, &located(size, number));
        let label = root.join("gtFine").join(split).join(format!("{stem}_gtFine_labelIds.png"));
        write(&label, &grey(size, label_ids));
    }

    /// Five source images of 40 x 24 with four classes in bands and a rare one (label id 17, train
    /// id 5) in the corner of the last, and three target images of 48 x 24; prepared.
    pub fn bands() -> Self {
        let sets = Sets::new();
        for number in 0..5u8 {
            let ids = [7, 8, 11, 21];
            let label: Vec<u8> = (0..40 * 24)
                .map(|i| match (i % 40, i / 40) {
                    (x, y) if number == 4 && x < 6 && y < 6 => 17,
                    (x, _) => ids[(x / 10 + number as usize) % 4],
                })
                .collect();
            sets.add_gta(number, [40, 24], &label);
        }
        for number in 0..3 {
            sets.add_cityscapes("train", number, [48, 24], &[7; 48 * 24]);
        }
        let gta = udass_raw::data::layouts::find("gta").unwrap();
        udass_raw::data::prepare::prepare(gta, &sets.gta(), &|_, _| {}).unwrap();
        sets
    }

    /// A configuration for crops of 16 from these folders: everything drawn, long tail from
    /// iteration 3 on.
    pub fn config(&self) -> Config {
        let mut config: Config = toml::from_str(CONFIG).unwrap();
        config.source.root = self.gta();
        config.target.root = self.cityscapes();
        config
    }
}

const CONFIG: &str = r#"
seed = 1
method = "quadmix"
device = { kind = "host", precision = "f32", deterministic = true, threads = 1 }
source = { layout = "gta", root = "", fit = [60, 36] }
target = { layout = "cityscapes", root = "", fit = [48, 24] }
network = { backbone = "mit_b0", head = "daformer", classes = 19, channels = 32, drop_path = 0.0, dropout = 0.0, hrda = { enabled = true, detail_crop = 8, divisible = 8, detail_loss = 0.1 } }
teacher = { alpha = 0.999 }
pseudo_label = { threshold = 0.968, confident = 0.9, margins = [2, 5, 3, 1] }
augment = { jitter_threshold = 0.2, jitter_strength = 0.2, blur_threshold = 0.5, blur_sigma = [0.15, 1.15] }
mask = { block = 8, ratio = 0.7, weight = 1.0 }
feature_distance = { enabled = false, weight = 0.005, classes = [6, 7], min_share = 0.75 }
schedule = { warmup = 10, warmup_ratio = 1e-6, end = 100 }
run = { max_iters = 10, checkpoint_interval = 5, keep = 1, eval_interval = 0, out = "" }
eval = { fit = [48, 24], window = 0, stride = 0, batch = 1 }
weights = { init = "random" }

[data]
crop = 16
batch = 2
flip = 0.5
max_class_share = 0.75
crop_attempts = 10
workers = 2
prefetch = 2
toy = ""

[rare_class_sampling]
enabled = true
temperature = 0.01
min_pixels = 20
min_crop_ratio = 0.5
attempts = 10

[quadmix]
start = 3
classes = [2, 5, 8]
min_pixels = 10
resize = [36, 20]
released_colours = true
released_exclusion = true

[optimizer]
lr = 6e-5
betas = [0.9, 0.999]
eps = 1e-8
weight_decay = 0.01
rules = []
"#;
