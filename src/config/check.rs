//! Checks that every value of a configuration is in range.

use std::collections::HashSet;

use super::dataset::{FilesConfig, LabelValue};
use super::device::{MemoryLimit, is_device};
use super::schema::{Config, DataConfig, Masked, NetworkConfig};

/// Layouts of datasets. All but the last have Cityscapes' classes.
pub const LAYOUTS: [&str; 6] = ["gta", "synthia", "cityscapes", "acdc", "dark_zurich", FILES];
/// The layout that the section `files` describes.
pub const FILES: &str = "files";
const CLASSES: usize = 19;
const LAUNCHERS: [&str; 5] = ["auto", "none", "torchrun", "mpi", "slurm"];
/// Longest accepted side in pixels; an image of that width and height has the most pixels that are
/// decoded.
const MAX_SIDE: u64 = 1 << 14;
/// Most pixels of a batch, which the host holds as bytes before the device does.
const MAX_BATCH_PIXELS: u64 = 1 << 28;
/// Most pixels of all batches prepared ahead.
const MAX_AHEAD_PIXELS: u64 = 1 << 31;
/// Largest number of images in a batch, of threads, and of batches prepared ahead.
const MAX_COUNT: u64 = 1 << 10;
/// Widest accepted decoder.
const MAX_CHANNELS: u64 = 1 << 13;
/// Most convolutions that `dlv2` sums, and the largest of their dilations.
const MAX_DILATIONS: usize = 16;
const MAX_DILATION: usize = 256;
/// Most vectors of a class in the bank; `MOST_MEMORIES` of the kernels.
const MAX_MEMORIES: u64 = 256;
/// Largest number of tries; each may take as long as an image.
const MAX_ATTEMPTS: u64 = 10_000;
const BACKBONES: [&str; 8] =
    ["mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5", "resnet50_v1c", "resnet101_v1c"];

/// Returns everything that is out of range: the key, and what was expected.
pub(super) fn problems(config: &Config) -> Vec<(String, String)> {
    let mut check = Check { problems: Vec::new() };
    check.domains(config);
    check.data(config);
    check.network(config);
    check.method(config);
    check.optimizer(config);
    check.run(config);
    check.problems
}

struct Check {
    problems: Vec<(String, String)>,
}

impl Check {
    /// Records the problem `expected …, got …` unless `good`.
    fn that(&mut self, good: bool, key: &str, expected: impl Into<String>, got: impl ToString) {
        if !good {
            let message = format!("expected {}, got {}", expected.into(), got.to_string());
            self.problems.push((key.into(), message));
        }
    }

    fn one_of(&mut self, key: &str, value: &str, known: &[&str]) {
        self.that(known.contains(&value), key, known.join(" or "), format!("\"{value}\""));
    }

    /// Requires a value within `low..=high`, which excludes NaN.
    fn between(&mut self, key: &str, value: impl Into<f64>, low: f64, high: f64) {
        let value = value.into();
        let expected = format!("a number from {low} to {high}");
        self.that(value >= low && value <= high, key, expected, shown(value));
    }

    fn share(&mut self, key: &str, value: impl Into<f64>) {
        self.between(key, value, 0.0, 1.0);
    }

    /// Requires a share of less than 1.
    fn below_one(&mut self, key: &str, value: impl Into<f64>) {
        let value = value.into();
        self.that((0.0..1.0).contains(&value), key, "at least 0 and less than 1", shown(value));
    }

    fn positive(&mut self, key: &str, value: impl Into<f64>) {
        let value = value.into();
        self.that(value > 0.0 && value.is_finite(), key, "a number above 0", shown(value));
    }

    fn not_negative(&mut self, key: &str, value: impl Into<f64>) {
        let value = value.into();
        self.that(value >= 0.0 && value.is_finite(), key, "a number, 0 or more", shown(value));
    }

    fn at_least(&mut self, key: &str, value: u64, least: u64) {
        self.that(value >= least, key, format!("at least {least}"), value);
    }

    fn counted(&mut self, key: &str, value: usize, least: u64, most: u64) {
        let value = value as u64;
        self.at_least(key, value, least);
        self.that(value <= most, key, format!("at most {most}"), value);
    }

    fn multiple(&mut self, key: &str, value: usize, of: usize, why: &str) {
        let good = value > 0 && value.is_multiple_of(of);
        self.that(good, key, format!("a multiple of {of} ({why})"), value);
        if good {
            self.that(value as u64 <= MAX_SIDE, key, format!("at most {MAX_SIDE}"), value);
        }
    }

    fn side_pair(&mut self, key: &str, value: [usize; 2], least: usize) {
        let good = value.iter().all(|&side| (least..=MAX_SIDE as usize).contains(&side));
        let expected = format!("[width, height], each at least {least} and at most {MAX_SIDE}");
        self.that(good, key, expected, format!("{value:?}"));
    }

    fn class_list(&mut self, key: &str, list: &[u8], classes: usize, least: usize) {
        let expected = format!("at least {least} class(es)");
        self.that(list.len() >= least, key, expected, list.len());
        if let Some(bad) = list.iter().find(|&&class| class as usize >= classes) {
            self.that(false, key, format!("class ids below {classes} (network.classes)"), bad);
        }
    }

    fn domains(&mut self, c: &Config) {
        for (section, domain) in [("source", &c.source), ("target", &c.target)] {
            self.one_of(&format!("{section}.layout"), &domain.layout, &LAYOUTS);
            self.side_pair(&format!("{section}.resize"), domain.resize, 1);
            let given = !domain.root.as_os_str().is_empty();
            self.that(given, &format!("{section}.root"), "a folder", "\"\"");
            if domain.layout == FILES {
                self.files(c, section, &domain.files);
            } else if LAYOUTS.contains(&domain.layout.as_str()) {
                let name = &domain.layout;
                let expected =
                    format!("{CLASSES}, the number of classes of {section}.layout = \"{name}\"");
                let classes = c.network.classes == CLASSES;
                self.that(classes, "network.classes", expected, c.network.classes);
            }
        }
        self.classes(c);
        self.problems.dedup_by(|a, b| a.0 == b.0);
    }

    /// Checks the names and colors of the classes.
    fn classes(&mut self, c: &Config) {
        let (names, colors) = (&c.dataset.names, &c.dataset.colors);
        let count = if names.is_empty() { CLASSES } else { names.len() };
        let (expected, key) = match names.is_empty() {
            true => (format!("{CLASSES} where dataset.names is empty"), "network.classes"),
            false => (format!("{count}, the length of dataset.names"), "network.classes"),
        };
        self.that(c.network.classes == count, key, expected, c.network.classes);
        let twice = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name));
        let unnamed = names.iter().find(|name| name.trim().is_empty());
        if let Some(name) = twice.map(|(_, name)| name).or(unnamed) {
            self.that(
                false,
                "dataset.names",
                "a distinct name for each class",
                format!("\"{name}\""),
            );
        }
        let fits = colors.is_empty() || colors.len() == count;
        let expected = format!("no colors, or {count}, one for each class");
        self.that(fits, "dataset.colors", expected, colors.len());
        if let Some(id) = colors.iter().find(|color| matches!(color, LabelValue::Id(_))) {
            self.that(false, "dataset.colors", "colors such as \"#804080\"", id);
        }
    }

    /// Checks the globs and label values of a domain with the layout `files`.
    fn files(&mut self, c: &Config, section: &str, files: &FilesConfig) {
        let key = |name: &str| format!("{section}.files.{name}");
        let source = section == "source";
        // Evaluation needs labels; adaptation alone does not.
        let evaluated = !source && c.run.eval_interval > 0;
        let learned = source || c.learns_from_target();
        for (name, glob, needed) in [
            ("images", &files.images, learned),
            ("labels", &files.labels, source),
            ("val_images", &files.val_images, evaluated),
            ("val_labels", &files.val_labels, evaluated),
        ] {
            let what = match name.starts_with("val_") {
                true => "a glob below the root, or run.eval_interval = 0 (no evaluation)",
                false => "a glob below the root, such as \"images/*.png\"",
            };
            self.that(!needed || !glob.is_empty(), &key(name), what, "\"\"");
        }
        let wildcards = |glob: &str| glob.replace("**", "*").matches(['*', '?']).count();
        for (name, images, labels) in [
            ("labels", &files.images, &files.labels),
            ("val_labels", &files.val_images, &files.val_labels),
        ] {
            let (held, wanted) = (wildcards(labels), wildcards(images));
            let good = images.is_empty() || labels.is_empty() || held == wanted;
            let expected = format!("as many wildcards as in the images' glob, {wanted}");
            self.that(good, &key(name), expected, held);
        }
        let ids = &files.ids;
        let fits = ids.is_empty() || ids.len() == c.network.classes;
        let expected =
            format!("an empty list, or a list of values for each of {} classes", c.network.classes);
        self.that(fits, &key("ids"), expected, ids.len());
        let color = |value: &LabelValue| matches!(value, LabelValue::Color(_));
        let mixed = ids.iter().flatten().any(color) && !ids.iter().flatten().all(color);
        self.that(!mixed, &key("ids"), "either ids or colors, not both", "both");
        let numbers = (0..c.network.classes as u16).map(LabelValue::Id);
        let own: Vec<LabelValue> = match ids.is_empty() {
            true => numbers.collect(),
            false => ids.iter().flatten().copied().collect(),
        };
        let mut seen = HashSet::new();
        if let Some(value) = own.iter().find(|value| !seen.insert(**value)) {
            self.that(false, &key("ids"), "each value at most once", format!("{value} twice"));
        }
        if let Some(value) = files.ignore.iter().find(|value| seen.contains(value)) {
            self.that(false, &key("ignore"), "values that belong to no class", value);
        }
    }

    fn data(&mut self, c: &Config) {
        let coarsest = coarsest(&c.network);
        let mut why = format!("the backbone's last stride is {coarsest}");
        if c.network.hrda.enabled {
            why = format!("HRDA scales the crop by {}, and {why}", c.network.hrda.context_scale);
        }
        self.multiple("data.crop", c.data.crop, side(&c.network), &why);
        let DataConfig { crop, batch, prefetch, .. } = c.data;
        let area = (crop as u64).saturating_pow(2);
        self.counted("data.batch", batch, 1, MAX_COUNT);
        self.counted("data.prefetch", prefetch, 0, MAX_COUNT);
        self.counted("data.workers", c.data.workers, 0, MAX_COUNT);
        self.one_of("parallel.launcher", &c.parallel.launcher, &LAUNCHERS);
        // Together they must fit even where each does.
        if batch as u64 <= MAX_COUNT && crop as u64 <= MAX_SIDE {
            let most = (MAX_BATCH_PIXELS / area.max(1)).max(1);
            let expected = format!("at most {most} images with data.crop = {crop}");
            self.that(batch as u64 <= most, "data.batch", expected, batch);
            let most = (MAX_AHEAD_PIXELS / (area * batch as u64).max(1)).max(1);
            let expected = format!("at most {most} batches of {batch} with data.crop = {crop}");
            let fits = prefetch as u64 <= most || prefetch as u64 > MAX_COUNT;
            self.that(fits, "data.prefetch", expected, prefetch);
        }
        self.counted("data.crop_attempts", c.data.crop_attempts, 0, MAX_ATTEMPTS);
        let attempts = c.rare_class_sampling.attempts;
        self.counted("rare_class_sampling.attempts", attempts, 0, MAX_ATTEMPTS);
        self.share("data.flip", c.data.flip);
        self.share("data.max_class_share", c.data.max_class_share);

        let temperature = c.rare_class_sampling.temperature;
        let expected = "a number above 0, or inf";
        self.that(temperature > 0.0, "rare_class_sampling.temperature", expected, temperature);
        self.not_negative(
            "rare_class_sampling.min_crop_ratio",
            c.rare_class_sampling.min_crop_ratio,
        );
        let wanted = c.rare_class_sampling.min_crop_ratio * c.rare_class_sampling.min_pixels as f64;
        let area = area as f64;
        if c.rare_class_sampling.enabled && wanted >= area {
            self.that(
                false,
                "rare_class_sampling.min_pixels",
                format!("times min_crop_ratio, less than the crop's {area} pixels"),
                wanted,
            );
        }
    }

    fn network(&mut self, c: &Config) {
        let kind = &c.device.kind;
        let expected = "auto or host or cuda or cuda:N";
        self.that(is_device(kind), "device.kind", expected, format!("\"{kind}\""));
        let limit = &c.device.memory_limit;
        let valid = limit.parse::<MemoryLimit>().is_ok();
        let got = format!("\"{limit}\"");
        self.that(valid, "device.memory_limit", MemoryLimit::EXPECTED, got);
        self.counted("device.threads", c.device.threads, 0, MAX_COUNT);
        self.one_of("device.precision", &c.device.precision, &["f32", "tf32", "bf16"]);
        let net = &c.network;
        self.one_of("network.backbone", &net.backbone, &BACKBONES);
        // SegFormer's head has no form for HRDA's attention, and DeepLab's logits are as coarse as
        // the backbone's last map.
        let heads: &[&str] = match (net.backbone.starts_with("resnet"), net.hrda.enabled) {
            (false, true) => &["daformer"],
            (false, false) => &["daformer", "segformer"],
            (true, true) => &["daformer", "dlv2"],
            (true, false) => &["daformer", "segformer", "dlv2"],
        };
        let expected = match net.hrda.enabled {
            true => format!("{} with {} and HRDA", heads.join(" or "), net.backbone),
            false => format!("{} with {}", heads.join(" or "), net.backbone),
        };
        let got = format!("\"{}\"", net.head);
        self.that(heads.contains(&net.head.as_str()), "network.head", expected, got);
        let known = |&dilation: &usize| (1..=MAX_DILATION).contains(&dilation);
        let few = (1..=MAX_DILATIONS).contains(&net.dilations.len());
        let dilations = few && net.dilations.iter().all(known);
        let expected = format!(
            "a list of numbers, each at least 1 and at most {MAX_DILATION}, and at most \
             {MAX_DILATIONS} of them"
        );
        let got = match few {
            true => format!("{:?}", net.dilations),
            false => format!("{} numbers", net.dilations.len()),
        };
        self.that(dilations, "network.dilations", expected, got);
        self.between("network.classes", net.classes as f64, 2.0, 254.0);
        self.counted("network.channels", net.channels, 1, MAX_CHANNELS);
        self.counted("network.projection", net.projection, 0, MAX_CHANNELS);
        self.below_one("network.drop_path", net.drop_path);
        self.below_one("network.dropout", net.dropout);
        let hrda = &net.hrda;
        let scale = hrda.context_scale;
        let known = [1.0, 0.5, 0.25].contains(&scale);
        self.that(known, "network.hrda.context_scale", "1, 0.5 or 0.25", scale);
        let stride = if net.head == "dlv2" { 8 } else { 4 };
        let why = format!("the head's stride of {stride} at a resolution of {scale}");
        let aligned = stride * hrda.factor();
        self.multiple("network.hrda.divisible", hrda.divisible, 8, "the head's stride");
        self.multiple("network.hrda.detail_crop", hrda.detail_crop, aligned, &why);
        let fits = hrda.detail_crop <= c.data.crop;
        let expected = format!("at most data.crop, {}", c.data.crop);
        self.that(fits, "network.hrda.detail_crop", expected, hrda.detail_crop);
        self.share("network.hrda.detail_loss", hrda.detail_loss);
        let init = !c.weights.init.is_empty();
        self.that(init, "weights.init", "a file, or \"random\"", "\"\"");
    }

    fn method(&mut self, c: &Config) {
        self.share("teacher.ema_decay", c.teacher.ema_decay);
        // Masked source images have labels of their own.
        let masks_target = c.mask.enabled && c.mask.images != Masked::Source;
        for (key, enabled) in [
            ("mask.enabled", masks_target),
            ("quadmix.enabled", c.quadmix.enabled),
            ("contrast.enabled", c.contrast.enabled),
            ("class_balanced_crop.enabled", c.class_balanced_crop.enabled),
        ] {
            if enabled && !c.teacher.enabled {
                let message = "is true, but it needs the teacher's pseudo-labels and \
                               teacher.enabled is false";
                self.problems.push((key.into(), message.into()));
            }
        }
        self.share("pseudo_label.threshold", c.pseudo_label.threshold);
        self.share("pseudo_label.confident", c.pseudo_label.confident);
        let [top, bottom, left, right] = c.pseudo_label.margins;
        let [width, height] = c.target.resize;
        let room = top.saturating_add(bottom) < height && left.saturating_add(right) < width;
        let expected =
            format!("margins that leave some rows and columns of target.resize, {width}x{height}");
        let margins = format!("{:?}", c.pseudo_label.margins);
        self.that(room, "pseudo_label.margins", expected, margins);

        self.share("augment.jitter_prob", c.augment.jitter_prob);
        self.between("augment.jitter_strength", c.augment.jitter_strength, 0.0, 0.5);
        self.share("augment.blur_prob", c.augment.blur_prob);
        let [low, high] = c.augment.blur_sigma;
        let sigma = low > 0.0 && low <= high && high.is_finite();
        let got = format!("[{low}, {high}]");
        self.that(sigma, "augment.blur_sigma", "[low, high] with 0 < low <= high", got);

        let block = (1..=c.data.crop).contains(&c.mask.block);
        let expected = format!("from 1 to data.crop, {}", c.data.crop);
        self.that(block, "mask.block", expected, c.mask.block);
        self.share("mask.ratio", c.mask.ratio);
        self.not_negative("mask.weight", c.mask.weight);

        let fd = &c.feature_distance;
        self.not_negative("feature_distance.weight", fd.weight);
        self.share("feature_distance.min_share", fd.min_share);
        // Without ImageNet weights the feature distance is off whatever the key says.
        if fd.enabled && c.weights.init != "random" {
            self.class_list("feature_distance.classes", &fd.classes, c.network.classes, 0);
        }

        self.contrast(c);
        // Without QuadMix its classes are not read, so any list will do.
        if c.quadmix.enabled {
            self.class_list("quadmix.classes", &c.quadmix.classes, c.network.classes, 2);
            self.side_pair("quadmix.resize", c.quadmix.resize, c.data.crop);
        }
    }

    fn contrast(&mut self, c: &Config) {
        let contrast = &c.contrast;
        self.between("contrast.temperature", contrast.temperature, 0.01, 1e6);
        self.not_negative("contrast.regularizer", contrast.regularizer);
        self.share("contrast.min_share", contrast.min_share);
        self.counted("contrast.memory", contrast.memory, 1, MAX_MEMORIES);
        if contrast.enabled && c.network.projection == 0 {
            let expected = "at least 1, since contrast.enabled is true";
            self.that(false, "network.projection", expected, 0);
        }
        let crop = &c.class_balanced_crop;
        self.counted("class_balanced_crop.boxes", crop.boxes, 1, MAX_COUNT);
        if crop.enabled {
            let [width, height] = c.target.resize;
            let expected = format!(
                "sides of at least data.crop, {}, with class_balanced_crop.enabled",
                c.data.crop
            );
            let good = width.min(height) >= c.data.crop;
            self.that(good, "target.resize", expected, format!("{:?}", c.target.resize));
        }
    }

    fn optimizer(&mut self, c: &Config) {
        let o = &c.optimizer;
        self.positive("optimizer.lr", o.lr);
        for beta in o.betas {
            self.below_one("optimizer.betas", beta);
        }
        self.positive("optimizer.eps", o.eps);
        self.not_negative("optimizer.weight_decay", o.weight_decay);
        for group in &o.param_groups {
            let named = !group.contains.is_empty();
            self.that(
                named,
                "optimizer.param_groups",
                "the part of a parameter's name in `contains`",
                "\"\"",
            );
            self.not_negative("optimizer.param_groups", group.lr_mult);
            self.not_negative("optimizer.param_groups", group.decay_mult);
        }
        self.share("schedule.warmup_ratio", c.schedule.warmup_ratio);
        let end = c.schedule.end;
        if end > 0 {
            let expected = format!("at most schedule.end, {end}");
            self.that(c.schedule.warmup <= end, "schedule.warmup", expected, c.schedule.warmup);
            let expected = format!(
                "at most schedule.end, {end}, where the learning rate reaches 0 (with schedule.end \
                 = 0 it follows run.max_iters)"
            );
            self.that(c.run.max_iters <= end, "run.max_iters", expected, c.run.max_iters);
        }
    }

    fn run(&mut self, c: &Config) {
        self.at_least("run.max_iters", c.run.max_iters, 1);
        self.at_least("run.checkpoint_interval", c.run.checkpoint_interval, 1);
        self.that(!c.run.out.as_os_str().is_empty(), "run.out", "a folder", "\"\"");
        self.side_pair("eval.resize", c.eval.resize, 1);
        self.counted("eval.batch", c.eval.batch, 1, MAX_COUNT);
        if c.eval.window > 0 {
            let stride = side(&c.network);
            let why = "data.crop, or 0 for the whole image";
            self.multiple("eval.window", c.eval.window, stride, why);
            // With a wrong window, no stride could be right.
            let good = (1..=c.eval.window).contains(&c.eval.stride);
            let good = good || !c.eval.window.is_multiple_of(stride);
            let expected = format!("from 1 to eval.window, {}", c.eval.window);
            self.that(good, "eval.stride", expected, c.eval.stride);
        }
    }
}

/// Returns the stride of the backbone's coarsest feature map, in pixels.
fn coarsest(network: &NetworkConfig) -> usize {
    if network.backbone.starts_with("resnet") { 8 } else { 32 }
}

/// Returns the number that the sides of an image must be multiples of to pass through the network
/// whole.
pub(super) fn side(network: &NetworkConfig) -> usize {
    coarsest(network) * if network.hrda.enabled { network.hrda.factor() } else { 1 }
}

/// Formats a number as a user would write it: 0.968, not the f64 nearest to its f32.
fn shown(value: f64) -> String {
    let narrow = value as f32;
    if f64::from(narrow) == value { narrow.to_string() } else { value.to_string() }
}
