//! Parameters of a toy world, and the folders that it is written to.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::dice::{Dice, hash};
use super::files::{Pixels, write_png};
use super::look::Look;
use super::render::{Air, render};
use super::sensor::Sensor;
use super::street::street;
use crate::error::{Error, Result};
use crate::file::atomic::{remove_leftovers_of_dead_processes, replace};
use crate::file::{self, MAX_TEXT};
use crate::observer::Observer;

/// File that is created last: the folder contains a complete world with these parameters.
pub(super) const MARKER: &str = "toy.json";
/// File that is written first and renamed to [`MARKER`] at the end: the world may be incomplete.
const UNFINISHED: &str = "toy.unfinished.json";
/// Format version. It must change whenever the images change, so that an old world is not mistaken
/// for a new one.
const VERSION: u32 = 1;

const TRAIN_CITIES: [&str; 3] = ["altdorf", "birkenau", "cranach"];
const VAL_CITIES: [&str; 2] = ["dornfeld", "eulenburg"];

/// Domain of an image, which determines its look and format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The source: labels and format of GTA; sharp and saturated images.
    Source,
    /// The target: labels and format of Cityscapes; hazy, noisy and faded images.
    Target,
}

/// Split of a domain. No two splits share a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Training split.
    Train,
    /// Validation split.
    Val,
}

/// Parameters of a toy world. Sizes are `(width, height)` in pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToyWorld {
    /// Seed of all random draws.
    pub seed: u64,
    /// Difference in look between source and target, from 0 (none) to 2. A network trained on the
    /// source alone (65 mIoU there) reaches 48 mIoU on the target at 1.2, and 42 at 1.4.
    pub gap: f32,
    /// Size of source images.
    pub source_size: (usize, usize),
    /// Size of target images.
    pub target_size: (usize, usize),
    /// Number of source training images.
    pub source_train: usize,
    /// Number of source validation images.
    pub source_val: usize,
    /// Number of target training images.
    pub target_train: usize,
    /// Number of target validation images.
    pub target_val: usize,
}

impl Default for ToyWorld {
    fn default() -> Self {
        ToyWorld {
            seed: 1,
            gap: 1.4,
            source_size: (240, 132),
            target_size: (256, 128),
            source_train: 200,
            source_val: 40,
            target_train: 200,
            target_val: 40,
        }
    }
}

/// One image of the world and its files.
struct Frame {
    domain: Domain,
    split: Split,
    index: usize,
    image: PathBuf,
    label: PathBuf,
    /// Image and label of the same scene in the format of SYNTHIA.
    synthia: Option<[PathBuf; 2]>,
}

impl Frame {
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.image, &self.label].into_iter().chain(self.synthia.iter().flatten())
    }
}

#[derive(Serialize, Deserialize, PartialEq)]
struct Marker {
    version: u32,
    world: ToyWorld,
}

impl ToyWorld {
    /// Returns a world at the real sizes (GTA 1914×1052, Cityscapes 2048×1024), with few images.
    pub fn full() -> Self {
        ToyWorld {
            source_size: (1914, 1052),
            target_size: (2048, 1024),
            source_train: 24,
            source_val: 12,
            target_train: 24,
            target_val: 12,
            ..Self::default()
        }
    }

    /// Returns the total number of images.
    pub fn len(&self) -> usize {
        self.source_train + self.source_val + self.target_train + self.target_val
    }

    /// Returns whether the world has no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of images in one split. A split of at least 11 images contains every
    /// class.
    pub fn count(&self, domain: Domain, split: Split) -> usize {
        match (domain, split) {
            (Domain::Source, Split::Train) => self.source_train,
            (Domain::Source, Split::Val) => self.source_val,
            (Domain::Target, Split::Train) => self.target_train,
            (Domain::Target, Split::Val) => self.target_val,
        }
    }

    /// Writes the world to `dir`:
    ///
    /// ```text
    /// gta/images/00001.png, gta/labels/00001.png               source, training
    /// synthia/RGB/0000000.png, synthia/GT/LABELS/0000000.png   the same in SYNTHIA's format
    /// gta_val/images/00001.png, gta_val/labels/00001.png       source, validation
    /// cityscapes/leftImg8bit/{train,val}/<city>/<city>_000000_000019_leftImg8bit.png
    /// cityscapes/gtFine/{train,val}/<city>/<city>_000000_000019_gtFine_labelIds.png
    /// toy.json                                                 the parameters
    /// ```
    ///
    /// Labels are raw ids: palette indices in `gta`, gray values in `cityscapes`, and the first of
    /// three 16-bit channels in `synthia`, which has 16 of the classes. Files of a previous run are
    /// kept, so an interrupted run continues where it stopped and a complete world costs nothing.
    /// `observer` receives the number of finished images and the total, from any thread.
    ///
    /// # Errors
    /// The parameters are invalid, `dir` contains anything other than this world, or a file cannot
    /// be written.
    pub fn write(&self, dir: &Path, observer: &dyn Observer) -> Result<()> {
        self.check()?;
        self.claim(dir)?;
        let frames = self.frames(dir);
        let mut folders = BTreeSet::new();
        for frame in &frames {
            for path in frame.files() {
                folders.extend(path.parent().map(Path::to_path_buf));
            }
        }
        for folder in &folders {
            create_dir(folder)?;
            remove_leftovers_of_dead_processes(folder)?;
        }
        let done = AtomicUsize::new(0);
        frames.par_iter().try_for_each(|frame| {
            if !frame.files().all(|file| file.is_file()) {
                self.draw_to(frame)?;
            }
            observer.advance(done.fetch_add(1, Ordering::Relaxed) + 1, frames.len(), "");
            Ok(())
        })?;
        let (from, to) = (dir.join(UNFINISHED), dir.join(MARKER));
        if from.exists() {
            std::fs::rename(&from, &to).map_err(|e| Error::io(&to, "create", e))?;
        }
        Ok(())
    }

    /// Generates one image: RGB (`3·w·h`) and raw label ids (`w·h`).
    pub fn draw(&self, domain: Domain, split: Split, index: usize) -> (Vec<u8>, Vec<u8>) {
        let size = self.size(domain);
        let gap = if domain == Domain::Target { 0.5 * self.gap } else { 0.0 };
        let look = Look { gap };
        let place = 2 * u64::from(domain == Domain::Target) + u64::from(split == Split::Val);
        let dice = Dice::new(hash(hash(self.seed, place), index as u64));
        let aspect = size.0 as f32 / size.1 as f32;
        let scene = street(&look, aspect, index, domain == Domain::Target, &dice);
        let air = Air { color: [0.76, 0.74, 0.71], density: look.between(0.0, 0.40) };
        let canvas = render(&scene.prims, &scene.camera, &look, air, size);
        let label = canvas.label.clone();
        let rgb = Sensor::new(&look, &mut dice.child(9)).expose(canvas);
        (rgb, label)
    }

    fn size(&self, domain: Domain) -> (usize, usize) {
        match domain {
            Domain::Source => self.source_size,
            Domain::Target => self.target_size,
        }
    }

    fn draw_to(&self, frame: &Frame) -> Result<()> {
        let size = self.size(frame.domain);
        let (rgb, label) = self.draw(frame.domain, frame.split, frame.index);
        let ids = match frame.domain {
            Domain::Source => Pixels::Palette,
            Domain::Target => Pixels::Gray,
        };
        if let Some([to_image, to_label]) = &frame.synthia {
            write_png(to_label, size, Pixels::Synthia, &label)?;
            write_png(to_image, size, Pixels::Rgb, &rgb)?;
        }
        write_png(&frame.label, size, ids, &label)?;
        write_png(&frame.image, size, Pixels::Rgb, &rgb)
    }

    fn check(&self) -> Result<()> {
        for (name, (w, h)) in [("source_size", self.source_size), ("target_size", self.target_size)]
        {
            let sane = (32..=8192).contains(&w) && (32..=8192).contains(&h);
            if !sane || w < h || w > 4 * h {
                return Err(Error::config(format!(
                    "toy world: {name} {w}×{h} is not possible: sides must be 32 to 8192 pixels, \
                     the width 1 to 4 times the height"
                )));
            }
        }
        if !(0.0..=2.0).contains(&self.gap) {
            return Err(Error::config(format!("toy world: gap {} is not in 0..2", self.gap)));
        }
        if self.is_empty() {
            return Err(Error::config("toy world: the number of images is 0"));
        }
        Ok(())
    }

    /// Checks that `dir` is empty or belongs to this world, and leaves a marker in it.
    fn claim(&self, dir: &Path) -> Result<()> {
        create_dir(dir)?;
        for name in [MARKER, UNFINISHED] {
            let path = dir.join(name);
            if !path.exists() {
                continue;
            }
            let text = file::read_text(&path, MAX_TEXT).map_err(|e| Error::io(&path, "read", e))?;
            let marker: Marker = serde_json::from_str(&text).map_err(|e| {
                Error::data(
                    &path,
                    format!("is not a toy world's marker ({e}); choose another folder"),
                )
            })?;
            if marker != self.marker() {
                return Err(Error::data(
                    dir,
                    format!(
                        "contains a toy world with other parameters (see {name}); choose another \
                         folder or delete this one"
                    ),
                ));
            }
            return Ok(());
        }
        remove_leftovers_of_dead_processes(dir)?;
        let mut entries = std::fs::read_dir(dir).map_err(|e| Error::io(dir, "read", e))?;
        if let Some(entry) = entries.next() {
            let entry = entry.map_err(|e| Error::io(dir, "read", e))?;
            return Err(Error::data(
                dir,
                format!(
                    "contains '{}' and no {MARKER}, so it is not a toy world; choose an empty \
                     folder",
                    entry.file_name().to_string_lossy()
                ),
            ));
        }
        let path = dir.join(UNFINISHED);
        let text = serde_json::to_string_pretty(&self.marker())
            .map_err(|e| Error::io(&path, "write", e.into()))?;
        replace(&path, |file| file.write_all((text + "\n").as_bytes()))
    }

    fn marker(&self) -> Marker {
        Marker { version: VERSION, world: self.clone() }
    }

    fn frames(&self, dir: &Path) -> Vec<Frame> {
        let mut frames = Vec::with_capacity(self.len());
        for split in [Split::Train, Split::Val] {
            let root = dir.join(if split == Split::Train { "gta" } else { "gta_val" });
            for index in 0..self.count(Domain::Source, split) {
                let name = format!("{:05}.png", index + 1);
                let (image, label) =
                    (root.join("images").join(&name), root.join("labels").join(&name));
                let synthia = (split == Split::Train).then(|| {
                    let name = format!("{index:07}.png");
                    ["RGB", "GT/LABELS"].map(|folder| dir.join("synthia").join(folder).join(&name))
                });
                frames.push(Frame { domain: Domain::Source, split, index, image, label, synthia });
            }
            let (folder, cities) = match split {
                Split::Train => ("train", TRAIN_CITIES.as_slice()),
                Split::Val => ("val", VAL_CITIES.as_slice()),
            };
            let root = dir.join("cityscapes");
            for index in 0..self.count(Domain::Target, split) {
                let city = cities[index % cities.len()];
                let stem = format!("{city}_{:06}_000019", index / cities.len());
                let at = |kind: &str, ending: &str| {
                    root.join(kind).join(folder).join(city).join(format!("{stem}_{ending}.png"))
                };
                let (image, label) =
                    (at("leftImg8bit", "leftImg8bit"), at("gtFine", "gtFine_labelIds"));
                let (domain, synthia) = (Domain::Target, None);
                frames.push(Frame { domain, split, index, image, label, synthia });
            }
        }
        frames
    }
}

fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| Error::io(path, "create", e))
}
