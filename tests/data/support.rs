//! Generates small datasets for tests.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use udass_raw::{
    Result,
    config::Config,
    data::{
        labels::{LabelFile, Plane, TRAIN_IDS},
        prepare::Prepared,
        resize::Size,
    },
};

pub fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Encodes a PNG in memory with the `png` crate; indexed images get a palette of 256 colors.
pub fn png(size: [u32; 2], color: png::ColorType, depth: png::BitDepth, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size[0], size[1]);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        // Colors differ from their indices, so that an expanded palette is noticed.
        encoder.set_palette((0..=255u8).flat_map(|i| [255 - i, i / 2, 7]).collect::<Vec<_>>());
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

pub fn gray(size: [u32; 2], data: &[u8]) -> Vec<u8> {
    png(size, png::ColorType::Grayscale, png::BitDepth::Eight, data)
}

pub fn palette(size: [u32; 2], data: &[u8]) -> Vec<u8> {
    png(size, png::ColorType::Indexed, png::BitDepth::Eight, data)
}

/// An RGB image whose pixels encode their position: x, y, and the image's own number.
pub fn located([width, height]: [u32; 2], number: u8) -> Vec<u8> {
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, number]));
    let pixels: Vec<u8> = pixels.collect();
    png([width, height], png::ColorType::Rgb, png::BitDepth::Eight, &pixels)
}

pub fn plane([width, height]: [usize; 2], data: Vec<u8>) -> Plane {
    assert_eq!(data.len(), width * height);
    Plane { size: Size::new(width, height), data }
}

/// Loads a label of train ids.
pub fn train_ids(path: &Path) -> Result<Plane> {
    LabelFile { path: path.into(), ids: TRAIN_IDS.clone() }.load()
}

/// A GTA and a Cityscapes folder in one temporary folder.
/// Returns the classes that occur, with their pixels.
pub fn pixels(prepared: &Prepared) -> Vec<(u8, u64)> {
    let occurring = prepared.classes.iter().filter(|count| count.images > 0);
    occurring.map(|count| (count.class, count.pixels)).collect()
}

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

    /// Writes `images/<number>.png` and a palette label with these *label ids*.
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
        write(&label, &gray(size, label_ids));
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
        udass_raw::data::prepare::prepare(gta, &sets.gta(), false, &()).unwrap();
        sets
    }

    /// A configuration for crops of 16 from these folders: every random feature is on, and the
    /// long-tail crops start at iteration 3.
    pub fn config(&self) -> Config {
        let mut config = Config::load("gta_vit", &[]).unwrap();
        (config.source.root, config.source.resize) = (self.gta(), [60, 36]);
        (config.target.root, config.target.resize) = (self.cityscapes(), [48, 24]);
        (config.data.crop, config.data.workers) = (16, 2);
        config.pseudo_label.margins = [2, 5, 3, 1];
        let rare = &mut config.rare_class_sampling;
        (rare.min_pixels, rare.min_crop_ratio) = (20, 0.5);
        let quadmix = &mut config.quadmix;
        (quadmix.start, quadmix.classes) = (3, vec![2, 5, 8]);
        (quadmix.min_pixels, quadmix.resize) = (10, [36, 20]);
        config.eval.resize = [48, 24];
        config
    }
}
