//! Training batches, prepared by worker threads ahead of their use.
//!
//! Crops are chosen from the label: class, file, position, flip and every retry are settled before
//! an image is decoded. Of the image, only the rows above the lower edge of the crop are decoded,
//! and only the pixels of the crop are scaled. Each batch is a function of the configuration and
//! the iteration alone.

use std::path::{Path, PathBuf};

use crate::{
    config::Config,
    data::{
        batch::{BadFile, Batch, Crops, PAD_RGB, RareCrops},
        classes::IGNORE,
        crops::{Counter, pad, random_window, varied_window},
        decode::{self, load_rows},
        inventory::Inventory,
        layouts::{self, Pair, Split},
        photometric,
        prefetch::{Prefetcher, Task},
        resize::{
            Size, Window, cv_bilinear, cv_bilinear_rows, cv_nearest_map, flip_horizontally,
            pil_bilinear, pil_bilinear_rows, pil_nearest_map, valid_mask,
        },
        sampling::{CLASS_STATS, FilesByClass, RareClassSampler, SAMPLES_WITH_CLASS},
    },
    device::group::{Place, Slots},
    error::{Error, Result, both},
    rng::{Draw, Purpose},
};

/// Attempts to find a file and crop for one long-tail paste before giving up. Even if only one crop
/// in a hundred holds enough of its class, fewer than one paste in 20 000 fails.
const RARE_ATTEMPTS: u64 = 1000;
/// Bit position of the replacement number in the attempt number of a draw. The bits below it count
/// redraws of a crop; the bits above it count replacements of unreadable files.
const REPLACEMENT: u32 = 32;
/// Replacements for one crop before giving up.
const REPLACEMENTS: u64 = 1000;

/// Training batches in iteration order.
pub struct Loader {
    batches: Prefetcher<Batches>,
    note: Option<String>,
    inventory: Inventory,
}

impl Loader {
    /// Lists the datasets and starts to prepare the batches from `start_iteration` on.
    ///
    /// Without a teacher (`teacher.enabled`) the target part of every batch is empty.
    ///
    /// # Errors
    /// A folder, label or statistics file is missing, or the data cannot satisfy the configuration.
    pub fn new(config: &Config, start_iteration: u64) -> Result<Self> {
        Self::sharing(config, start_iteration, Place::ALONE)
    }

    /// Prepares a process's share of the batches, with its share of the machine's cores.
    ///
    /// # Errors
    /// Those of [`new`](Self::new); also if the processes cannot share a batch equally.
    pub fn sharing(config: &Config, start_iteration: u64, place: Place) -> Result<Self> {
        let ahead = config.data.prefetch;
        let threads = match config.data.workers {
            0 => place.cores(),
            threads => threads,
        };
        let (batches, note) = Batches::new(config, place.slots(config.data.batch)?)?;
        let inventory = batches.inventory();
        let batches = Prefetcher::new(batches, start_iteration, threads, ahead)?;
        Ok(Loader { batches, note, inventory })
    }

    /// Returns the files that batches are made of.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Returns what the user should know about the dataset, if there is anything.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Returns the next batch, waiting until it is ready.
    ///
    /// # Errors
    /// A file of the batch is damaged; the error names it. The next call continues with the batch
    /// after it.
    #[allow(clippy::should_implement_trait, reason = "never ends, so not an iterator's next")]
    pub fn next(&mut self) -> Result<Batch> {
        self.batches.next().unwrap_or_else(|| Err(Error::config("iterations are used up")))
    }
}

struct Batches {
    config: Config,
    /// The images of each domain that are loaded.
    slots: Slots,
    pairs: Vec<Pair>,
    sampler: Option<RareClassSampler>,
    targets: Vec<PathBuf>,
    rare: Option<RareFiles>,
}

/// The files of the source, and how they are drawn.
struct Source {
    pairs: Vec<Pair>,
    sampler: Option<RareClassSampler>,
    rare: Option<RareFiles>,
    note: Option<String>,
}

impl Source {
    fn new(config: &Config) -> Result<Self> {
        let (root, classes) = (&config.source.root, config.network.classes);
        let source = layouts::Domain::new(&config.source, classes)?;
        let (pairs, note) = source.labeled(root, Split::Train)?;
        let (sampling, quadmix) = (config.rare_class_sampling.enabled, config.quadmix.enabled);
        let (mut sampler, mut rare) = (None, None);
        if sampling || quadmix {
            source.check_statistics(root)?;
            let files = FilesByClass::read(root, &pairs, classes)?;
            if sampling {
                sampler = Some(RareClassSampler::new(&config.rare_class_sampling, root, &files)?);
            }
            if quadmix {
                rare = Some(RareFiles::new(config, &files, &pairs)?);
            }
        }
        Ok(Source { pairs, sampler, rare, note })
    }
}

/// The files that contain each long-tail class, by position in `quadmix.classes`.
struct RareFiles {
    by_position: Vec<Vec<u32>>,
}

/// One crop of a batch.
struct Crop {
    rgb: Vec<u8>,
    label: Vec<u8>,
    valid: Vec<u8>,
    extent: [u32; 2],
    file: PathBuf,
    /// Unreadable files that were drawn before this one.
    skipped: Vec<BadFile>,
}

enum Kind {
    Source,
    Target,
    Rare,
}

impl Batches {
    /// Lists the files, and returns what the user should know about them.
    fn new(config: &Config, slots: Slots) -> Result<(Self, Option<String>)> {
        check(config)?;
        let classes = config.network.classes;
        let targets = match config.learns_from_target() {
            false => Ok(Vec::new()),
            true => layouts::Domain::new(&config.target, classes)
                .and_then(|target| target.images(&config.target.root, Split::Train)),
        };
        let (source, targets) = both(Source::new(config), targets)?;
        let Source { pairs, sampler, rare, note } = source;
        Ok((Batches { config: config.clone(), slots, pairs, sampler, targets, rare }, note))
    }

    fn inventory(&self) -> Inventory {
        let (source, target) = (&self.config.source.root, &self.config.target.root);
        let mut inventory = Inventory::default();
        inventory.add("source images", source, self.pairs.iter().map(|pair| pair.image.as_path()));
        let labels = self.pairs.iter().map(|pair| pair.label.path.as_path());
        inventory.add("source labels", source, labels);
        inventory.add("target images", target, self.targets.iter().map(PathBuf::as_path));
        if self.sampler.is_some() || self.rare.is_some() {
            let statistics = [CLASS_STATS, SAMPLES_WITH_CLASS].map(|name| source.join(name));
            inventory.add("source statistics", source, statistics.iter().map(PathBuf::as_path));
        }
        inventory
    }

    fn draw(&self, iteration: u64, purpose: Purpose, slot: usize, attempt: u64) -> Draw {
        Draw::new(self.config.seed, iteration, purpose, slot as u64, attempt)
    }

    fn crop_size(&self) -> Size {
        Size::new(self.config.data.crop, self.config.data.crop)
    }

    fn target_size(&self) -> Size {
        let [width, height] = self.config.target_size();
        Size::new(width, height)
    }

    fn mixes_rare(&self, iteration: u64) -> Option<&RareFiles> {
        self.rare.as_ref().filter(|_| iteration >= self.config.quadmix.start)
    }

    fn kinds(&self, iteration: u64) -> [(Kind, usize); 3] {
        let batch = self.slots.count;
        let targets = if self.targets.is_empty() { 0 } else { batch };
        let rare = if self.mixes_rare(iteration).is_some() { 4 * batch } else { 0 };
        [(Kind::Source, batch), (Kind::Target, targets), (Kind::Rare, rare)]
    }

    /// Returns the slot in the whole batch of the `part`-th crop of a kind that is loaded. Rare crops
    /// are ordered by kind of mixed image, image and class.
    fn slot(&self, kind: &Kind, part: usize) -> usize {
        let Slots { first, count, all } = self.slots;
        match kind {
            Kind::Rare => {
                let (mixed, rest) = (part / (2 * count), part % (2 * count));
                2 * (mixed * all + first) + rest
            }
            _ => first + part,
        }
    }

    /// Returns the indices of the source and target image for a `slot` of the batch when images are
    /// not drawn by class. Every epoch goes through all combinations in a different order.
    fn paired(&self, iteration: u64, slot: usize) -> (usize, usize) {
        let targets = self.targets.len().max(1) as u64;
        let combinations = self.pairs.len() as u64 * targets;
        let index = iteration * self.config.data.batch as u64 + slot as u64;
        let (epoch, index) = (index / combinations, index % combinations);
        let order = self.draw(0, Purpose::PairOrder, epoch as usize, 0);
        let pair = order.permuted(index, combinations);
        ((pair / targets) as usize, (pair % targets) as usize)
    }

    /// Calls `make` with replacement numbers 0, 1, … until its file can be read. `make` repeats all
    /// draws from that number, so the result depends on the files alone.
    fn replacing(&self, make: impl Fn(u64) -> Result<Crop>) -> Result<Crop> {
        let mut skipped = Vec::new();
        for replacement in 0.. {
            match make(replacement) {
                Ok(crop) => return Ok(Crop { skipped, ..crop }),
                // After this many draws from a few bad files, there can be no other files.
                Err(e) if replacement >= REPLACEMENTS => return Err(e),
                Err(e) => self.skip(&mut skipped, e)?,
            }
        }
        Err(Error::config("replacements are used up"))
    }

    /// Records an unreadable file.
    ///
    /// # Errors
    /// Returns `error` if it names no file, or if the crop has already skipped `data.max_bad_files`
    /// files.
    fn skip(&self, skipped: &mut Vec<BadFile>, error: Error) -> Result<()> {
        let Some(path) = error.path().map(Path::to_path_buf) else { return Err(error) };
        let known = skipped.iter().any(|bad| bad.path == path);
        if !known {
            if skipped.len() >= self.config.data.max_bad_files {
                return Err(error);
            }
            skipped.push(BadFile { path, problem: error.to_string() });
        }
        Ok(())
    }

    fn source(&self, iteration: u64, slot: usize, replacement: u64) -> Result<Crop> {
        let (data, rcs) = (&self.config.data, &self.config.rare_class_sampling);
        let draw = |purpose, attempt| {
            self.draw(iteration, purpose, slot, (replacement << REPLACEMENT) + attempt)
        };
        let (wanted, position) = match &self.sampler {
            Some(sampler) => {
                let drawn =
                    sampler.draw(draw(Purpose::SourceClass, 0), draw(Purpose::SourceFile, 0));
                (Some(drawn.0), drawn.1)
            }
            None if replacement > 0 => (None, draw(Purpose::SourceFile, 0).below(self.pairs.len())),
            None => (None, self.paired(iteration, slot).0),
        };
        let Pair { image, label: file } = &self.pairs[position];
        let label = file.load()?;
        let resized = label.size.fitted(self.config.source.resize);
        let counter = Counter::new(
            &label,
            cv_nearest_map(label.size.width, resized.width, 0..resized.width),
            cv_nearest_map(label.size.height, resized.height, 0..resized.height),
        );
        let enough = rcs.min_pixels as f64 * rcs.min_crop_ratio;
        // Chooses the crop, and the attempt that found it, for an image of this size.
        let choose = |size: Size| {
            let fitted = size.fitted(self.config.source.resize);
            let cropped = |attempt| {
                let mut draw = draw(Purpose::SourceCrop, attempt);
                let (share, redraws) = (data.max_class_share, data.crop_attempts);
                varied_window(&counter, fitted, data.crop, share, redraws, &mut draw)
            };
            let (mut attempt, (mut window, mut held)) = (0, cropped(0));
            if let Some(class) = wanted.filter(|_| rcs.min_crop_ratio > 0.0) {
                while attempt < rcs.attempts as u64 && held[class as usize] as f64 <= enough {
                    attempt += 1;
                    (window, held) = cropped(attempt);
                }
            }
            (fitted, window, attempt)
        };
        // The choice is made while the image's size is only expected. As in the reference, a label
        // of another size is resized by itself, cropped where the image is, and padded.
        let mut chosen = choose(label.size);
        let decoded = load_rows(image, |size| {
            if size != label.size {
                chosen = choose(size);
            }
            Ok(cv_bilinear_rows(size, chosen.0, chosen.1))
        })?;
        let (fitted, window, attempt) = chosen;
        let flip = draw(Purpose::SourceFlip, attempt).chance(data.flip);
        let mut rgb = cv_bilinear(decoded.rows(), fitted, window);
        if data.photometric_distortion {
            photometric::distort(&mut rgb, &mut draw(Purpose::Photometric, attempt));
        }
        Ok(self.finish(rgb, Some(counter.crop(window)), None, window, flip, image))
    }

    fn target(&self, iteration: u64, slot: usize, replacement: u64) -> Result<Crop> {
        let draw = |purpose| self.draw(iteration, purpose, slot, replacement << REPLACEMENT);
        let position = match &self.sampler {
            None if replacement == 0 => self.paired(iteration, slot).1,
            _ => draw(Purpose::TargetFile).below(self.targets.len()),
        };
        let image = &self.targets[position];
        let place = |size: Size| {
            let fitted = size.fitted(self.config.target.resize);
            let Size { width, height } = fitted;
            let window = match self.config.class_balanced_crop.enabled {
                true => Window { x: 0, y: 0, width, height },
                false => {
                    random_window(fitted, self.config.data.crop, &mut draw(Purpose::TargetCrop))
                }
            };
            (fitted, window)
        };
        let decoded = load_rows(image, |size| {
            let (fitted, window) = place(size);
            Ok(cv_bilinear_rows(size, fitted, window))
        })?;
        let (fitted, window) = place(decoded.size);
        let rgb = cv_bilinear(decoded.rows(), fitted, window);
        let margins = self.config.pseudo_label.margins;
        let valid = valid_mask(margins, fitted, fitted, window);
        let flip = draw(Purpose::TargetFlip).chance(self.config.data.flip);
        Ok(self.finish(rgb, None, Some(valid), window, flip, image))
    }

    /// Returns the positions in `quadmix.classes` of the two long-tail classes of an iteration.
    fn rare_positions(&self, iteration: u64) -> [usize; 2] {
        let count = self.config.quadmix.classes.len();
        self.draw(iteration, Purpose::RareClasses, 0, 0).two_of(count)
    }

    fn rare(&self, iteration: u64, slot: usize, files: &RareFiles) -> Result<Crop> {
        let quadmix = &self.config.quadmix;
        let position = self.rare_positions(iteration)[slot % 2];
        let (class, files) = (quadmix.classes[position], &files.by_position[position]);
        let to = Size::new(quadmix.resize[0], quadmix.resize[1]);
        let mut skipped = Vec::new();
        for attempt in 0..RARE_ATTEMPTS {
            let mut draw = self.draw(iteration, Purpose::RareCrop, slot, attempt);
            let pair = &self.pairs[files[draw.below(files.len())] as usize];
            let Pair { image, label: file } = pair;
            let label = match file.load() {
                Ok(label) => label,
                Err(e) => {
                    self.skip(&mut skipped, e)?;
                    continue;
                }
            };
            let counter = Counter::new(
                &label,
                pil_nearest_map(label.size.width, to.width, 0..to.width),
                pil_nearest_map(label.size.height, to.height, 0..to.height),
            );
            let window = random_window(to, self.config.data.crop, &mut draw);
            if counter.count(window)[class as usize] as u64 <= quadmix.min_pixels {
                continue;
            }
            let decoded = load_rows(image, |size| Ok(pil_bilinear_rows(size, to, window)));
            let decoded = match decoded {
                Ok(decoded) => decoded,
                Err(e) => {
                    self.skip(&mut skipped, e)?;
                    continue;
                }
            };
            let rgb = pil_bilinear(decoded.rows(), to, window);
            let crop = self.finish(rgb, Some(counter.crop(window)), None, window, false, image);
            return Ok(Crop { skipped, ..crop });
        }
        let problem = format!(
            "none of {RARE_ATTEMPTS} long-tail crops held more than {} pixels of class {class}: \
             lower quadmix.min_pixels, or remove the class from quadmix.classes",
            quadmix.min_pixels
        );
        Err(Error::data(&self.config.source.root, problem))
    }

    /// Flips the crop and then pads it on the right and below, in the order of the reference.
    /// `label` holds the width of its rows, which is that of the window unless the label is smaller
    /// than its image.
    fn finish(
        &self,
        mut rgb: Vec<u8>,
        label: Option<(Vec<u8>, usize)>,
        valid: Option<Vec<u8>>,
        window: Window,
        flip: bool,
        file: &Path,
    ) -> Crop {
        // Only the target has pixels that count.
        let to = if valid.is_some() { self.target_size() } else { self.crop_size() };
        let Window { width, height, .. } = window;
        if flip {
            flip_horizontally(&mut rgb, width, 3);
        }
        let plane = |plane: Option<(Vec<u8>, usize)>, fill: u8| {
            let Some((mut plane, width)) = plane else { return Vec::new() };
            if flip {
                flip_horizontally(&mut plane, width, 1);
            }
            pad(plane, width, to, [fill])
        };
        let valid = valid.map(|valid| (valid, width));
        Crop {
            label: plane(label, IGNORE),
            valid: plane(valid, 0),
            rgb: pad(rgb, width, to, PAD_RGB),
            extent: [width as u32, height as u32],
            file: file.to_owned(),
            skipped: Vec::new(),
        }
    }
}

impl RareFiles {
    /// Lists the files by class.
    ///
    /// # Errors
    /// [`Error::Data`] if no image has enough pixels of a class, which a run would otherwise notice
    /// when QuadMix starts.
    fn new(config: &Config, files: &FilesByClass, pairs: &[Pair]) -> Result<Self> {
        let list = &config.quadmix.classes;
        let [width, height] = config.quadmix.resize;
        let most = |class: u8| -> Result<(u64, u64)> {
            let Some((file, count)) = files.largest(class) else { return Ok((0, 0)) };
            let size = decode::size(&pairs[file as usize].label.path)?;
            let area = (size.width * size.height).max(1) as u64;
            Ok((count * (width * height) as u64 / area, count))
        };
        let holding = |&class: &u8| {
            let files = files.holding(class, 0);
            if files.is_empty() {
                let problem = format!(
                    "no image contains class {class} of quadmix.classes: remove it from the list"
                );
                return Err(Error::data(&config.source.root, problem));
            }
            let (most, count) = most(class)?;
            // Resizing to the nearest pixel changes the count by a little.
            if 2 * most < config.quadmix.min_pixels {
                let problem = format!(
                    "class {class} of quadmix.classes has at most {count} pixels in an image, some \
                     {most} after resizing, and quadmix.min_pixels = {}: lower it, or remove the \
                     class from the list",
                    config.quadmix.min_pixels
                );
                return Err(Error::data(&config.source.root, problem));
            }
            Ok(files)
        };
        Ok(RareFiles { by_position: list.iter().map(holding).collect::<Result<_>>()? })
    }
}

/// Rejects settings that would otherwise fail in the middle of a run.
fn check(config: &Config) -> Result<()> {
    let (data, quadmix) = (&config.data, &config.quadmix);
    for (key, value) in [
        ("data.crop", data.crop),
        ("data.batch", data.batch),
        ("source.resize", config.source.resize[0].min(config.source.resize[1])),
        ("target.resize", config.target.resize[0].min(config.target.resize[1])),
    ] {
        if value == 0 {
            return Err(Error::config(format!("{key} must be at least 1")));
        }
    }
    if !config.quadmix.enabled {
        return Ok(());
    }
    if quadmix.classes.len() < 2 {
        return Err(Error::config("quadmix.classes must list at least two classes"));
    }
    if quadmix.resize.iter().any(|&side| side < data.crop) {
        let ([width, height], crop) = (quadmix.resize, data.crop);
        let message = format!(
            "quadmix.resize = [{width}, {height}] is smaller than a crop (data.crop = {crop})"
        );
        return Err(Error::config(message));
    }
    Ok(())
}

impl Task for Batches {
    type Part = Crop;
    type Item = Batch;

    fn parts(&self, iteration: u64) -> Option<usize> {
        Some(self.kinds(iteration).iter().map(|k| k.1).sum())
    }

    fn part(&self, iteration: u64, mut part: usize) -> Result<Crop> {
        for (kind, count) in self.kinds(iteration) {
            if part < count {
                let slot = self.slot(&kind, part);
                return match (kind, self.mixes_rare(iteration)) {
                    (Kind::Source, _) => self.replacing(|n| self.source(iteration, slot, n)),
                    (Kind::Rare, Some(files)) => self.rare(iteration, slot, files),
                    _ => self.replacing(|n| self.target(iteration, slot, n)),
                };
            }
            part -= count;
        }
        Err(Error::config(format!("iteration {iteration} has no crop {part} left")))
    }

    fn join(&self, iteration: u64, parts: Vec<Crop>) -> Result<Batch> {
        let mut parts = parts.into_iter();
        let mut batch = Batch { iteration, ..Batch::default() };
        for (kind, count) in self.kinds(iteration) {
            if count == 0 {
                continue;
            }
            let mut taken: Vec<Crop> = parts.by_ref().take(count).collect();
            taken.iter_mut().for_each(|crop| batch.skipped.append(&mut crop.skipped));
            match kind {
                Kind::Source => batch.source = stack(taken, self.crop_size()),
                Kind::Target => {
                    batch.valid = concat(&taken, |c| &c.valid);
                    batch.target = stack(taken, self.target_size());
                }
                Kind::Rare => {
                    let list = &self.config.quadmix.classes;
                    let classes = self.rare_positions(iteration).map(|i| list[i]);
                    let crops = stack(taken, self.crop_size());
                    batch.rare = Some(RareCrops { classes, crops });
                }
            }
        }
        Ok(batch)
    }
}

fn concat(crops: &[Crop], field: impl Fn(&Crop) -> &Vec<u8>) -> Vec<u8> {
    let mut all = Vec::with_capacity(crops.iter().map(|c| field(c).len()).sum());
    crops.iter().for_each(|crop| all.extend_from_slice(field(crop)));
    all
}

fn stack(crops: Vec<Crop>, size: Size) -> Crops {
    Crops {
        batch: crops.len(),
        size,
        rgb: concat(&crops, |c| &c.rgb),
        label: concat(&crops, |c| &c.label),
        extent: crops.iter().map(|c| c.extent).collect(),
        files: crops.into_iter().map(|c| c.file).collect(),
    }
}
