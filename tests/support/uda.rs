//! The random numbers of the stored training iterations, by purpose.
//!
//! A case lists every number that an iteration drew, in the order of the calls. This is that
//! order, and what each number feeds (B images in a batch):
//!
//! Both phases:
//!
//! 1. `random.uniform`: jitter number of the mixed images, on if > color_jitter_probability
//! 2. `random.uniform`: blur number of the mixed images, on if > 0.5
//! 3. `hr_crop_box`: detail box of the source pass
//!
//! Before QuadMix:
//!
//! 4. `np.random.choice` × B: classes of image i, as positions among the classes of the batch
//! 5. per image `ColorJitter` if on, sigma if on: augmentation of mixed image i
//! 6. `hr_crop_box`: detail box of `mix`
//!
//! With QuadMix:
//!
//! 4. `np.random.choice` × B: source classes S of image i, as positions among the template label's
//!    classes
//! 5. `random.sample`: the two rare classes, in the order of pasting, common to all images
//! 6. `np.random.choice` × B: target classes T of image i, as positions among what S leaves of the
//!    template pseudo-label's classes; a failed attempt is followed by one for a single class
//! 7. for T2SS, then T2ST, for each image: for each rare class file, x1, y1 of the rare crop (file
//!    and crop again while it is rejected), then `ColorJitter` if on, sigma if on
//! 8. `hr_crop_box`: detail box of `mix_tss`
//! 9. `hr_crop_box`: detail box of `mix_tst`
//!
//! Both phases:
//!
//! 10. `random.uniform`, `random.uniform`: jitter and blur numbers of the masked images
//! 11. `ColorJitter` if on, sigma if on: one call for all images, with factors per image, one order
//!     and one sigma
//! 12. `torch.rand(mask grid)`: block mask, kept where > mask_ratio
//! 13. `hr_crop_box`: detail box of `masked`

use serde::Deserialize;
use serde_json::Value;

use super::cases::{Case, Outcome};

/// The first iteration with QuadMix, and the one at which the teacher is a copy of the student, in
/// the variant (GTA, transformer) that all cases use.
pub const QUAD_FROM: u64 = 6000;
pub const TEACHER_COPY: u64 = 4000;

const BLUR_ABOVE: f64 = 0.5;

/// y1, y2, x1, x2 in pixels of the image.
pub type DetailBox = [usize; 4];

/// Positions drawn without replacement from a sorted list of `n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub n: usize,
    pub positions: Vec<usize>,
}

impl Choice {
    /// Returns uniform numbers that make a sequential draw pick these positions: the k-th takes
    /// element ⌊u·(n−k)⌋ of those that are left, in ascending order.
    pub fn uniforms(&self) -> Vec<f64> {
        let draw = |(k, &position): (usize, &usize)| {
            let before = self.positions[..k].iter().filter(|&&p| p < position).count();
            ((position - before) as f64 + 0.5) / (self.n - k) as f64
        };
        self.positions.iter().enumerate().map(draw).collect()
    }

    /// Returns the chosen elements of the sorted list.
    pub fn of(&self, list: &[u8]) -> Vec<u8> {
        self.positions.iter().map(|&p| list[p]).collect()
    }
}

/// Factors per image, and the order (0 brightness, 1 contrast, 2 saturation, 3 hue).
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Jitter {
    #[serde(rename = "brightness_factor")]
    pub brightness: Vec<f32>,
    #[serde(rename = "contrast_factor")]
    pub contrast: Vec<f32>,
    #[serde(rename = "saturation_factor")]
    pub saturation: Vec<f32>,
    #[serde(rename = "hue_factor")]
    pub hue: Vec<f32>,
    pub order: [u8; 4],
}

/// The draws of one augmentation call; absent parts were off.
#[derive(Clone, Debug, PartialEq)]
pub struct Augment {
    pub jitter: Option<Jitter>,
    pub sigma: Option<f64>,
}

/// The two numbers that decide whether jitter and blur are on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Switches {
    pub jitter: f64,
    pub blur: f64,
    pub jitter_on: bool,
    pub blur_on: bool,
}

/// The crop of a rare-class image that was pasted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RareCrop {
    pub class: u8,
    pub file: String,
    pub x: usize,
    pub y: usize,
    /// Number of crops that were rejected before.
    pub rejected: usize,
}

/// Everything that turns a background into one QuadMix image.
#[derive(Clone, Debug, PartialEq)]
pub struct QuadImage {
    pub rare: Vec<RareCrop>,
    pub augment: Augment,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClassMix {
    /// One per image.
    pub classes: Vec<Choice>,
    pub augment: Vec<Augment>,
    pub detail: DetailBox,
}

#[derive(Clone, Debug, PartialEq)]
pub struct QuadMix {
    /// One per image.
    pub source: Vec<Choice>,
    pub rare_classes: Vec<u8>,
    /// One per image; `None` where the pseudo-label had no class left.
    pub target: Vec<Option<Choice>>,
    /// One per image, on the mixed source (T2SS) and on the mixed target (T2ST).
    pub tss: Vec<QuadImage>,
    pub tst: Vec<QuadImage>,
    pub tss_detail: DetailBox,
    pub tst_detail: DetailBox,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Mix {
    Class(ClassMix),
    Quad(QuadMix),
}

/// All draws of one iteration.
#[derive(Clone, Debug, PartialEq)]
pub struct UdaDraws {
    pub switches: Switches,
    pub source_detail: DetailBox,
    pub mix: Mix,
    pub masked_switches: Switches,
    pub masked_augment: Augment,
    /// Shape and values of the block mask's grid: B,1,rows,columns.
    pub grid_shape: [usize; 4],
    pub grid: Vec<f32>,
    pub masked_detail: DetailBox,
}

/// One iteration of a `uda` case.
#[derive(Clone, Debug)]
pub struct Iteration {
    pub local_iter: u64,
    /// Learning rates of the base and of the head parameters.
    pub rates: [f64; 2],
    pub draws: UdaDraws,
}

/// All draws of one of SePiCo's iterations.
#[derive(Clone, Debug, PartialEq)]
pub struct SepicoDraws {
    pub switches: Switches,
    /// B·10: those of the first image come first.
    pub boxes: Vec<[i32; 4]>,
    /// Of each domain's batch.
    pub source: Augment,
    pub target: Augment,
    /// One per image.
    pub classes: Vec<Choice>,
    pub mixed: Vec<Augment>,
}

impl SepicoDraws {
    /// Returns the draws of each iteration of a case.
    pub fn of(case: &Case) -> Outcome<Vec<SepicoDraws>> {
        let batch: usize = case.read(&["batch"])?;
        let settings = Settings { batch, jitter_above: 0.2, rare_files: Vec::new() };
        let all: Vec<Vec<Draw>> = case.read(&["draws"])?;
        let one = |draws: &Vec<Draw>| {
            let mut at = Cursor { draws, next: 0 };
            let switches = at.switches(&settings)?;
            let mut boxes = Vec::new();
            while at.peek().is_some_and(|draw| draw.kind == "box") {
                boxes.push(at.value("box")?);
            }
            let (source, target) = (at.augment(switches, batch)?, at.augment(switches, batch)?);
            let classes = (0..batch).map(|_| at.choice()).collect::<Outcome<_>>()?;
            let mixed = (0..batch).map(|_| at.augment(switches, 1)).collect::<Outcome<_>>()?;
            if at.next != draws.len() {
                return Err(format!("{} numbers are left over", draws.len() - at.next));
            }
            Ok(SepicoDraws { switches, boxes, source, target, classes, mixed })
        };
        all.iter().map(one).collect()
    }
}

/// The settings under which a case's draws were made.
struct Settings {
    batch: usize,
    jitter_above: f64,
    rare_files: Vec<(u8, Vec<String>)>,
}

/// Returns the iterations of a `uda` case: one, or the three of a chain.
pub fn iterations(case: &Case) -> Outcome<Vec<Iteration>> {
    let rare_files = match case.config.pointer("/rand_mixer/ids").and_then(Value::as_object) {
        Some(ids) => ids.iter().map(|(class, files)| {
            let class = class.parse().map_err(|_| format!("rare class {class:?}"))?;
            let files = Vec::deserialize(files).map_err(|e| format!("rare files: {e}"))?;
            Ok((class, files))
        }),
        None => return read_iterations(case, Vec::new()),
    };
    let rare_files = rare_files.collect::<Outcome<_>>()?;
    read_iterations(case, rare_files)
}

fn read_iterations(case: &Case, rare_files: Vec<(u8, Vec<String>)>) -> Outcome<Vec<Iteration>> {
    let settings = Settings {
        batch: case.read(&["batch"])?,
        jitter_above: case.read(&["uda", "color_jitter_probability"])?,
        rare_files,
    };
    let one = |local_iter: u64, rates, draws: &[Draw], t: usize| {
        let draws = UdaDraws::parse(&settings, local_iter, draws)
            .map_err(|e| format!("draws of iteration {t}: {e}"))?;
        Ok(Iteration { local_iter, rates, draws })
    };
    if case.config.get("local_iters").is_none() {
        let rate: f64 = case.read(&["optimizer", "lr"])?;
        let draws: Vec<Draw> = case.read(&["draws"])?;
        return Ok(vec![one(case.read(&["local_iter"])?, [rate, 10.0 * rate], &draws, 0)?]);
    }
    let iters: Vec<u64> = case.read(&["local_iters"])?;
    let rates: Vec<[f64; 2]> = case.read(&["lr_and_head_lr"])?;
    let draws: Vec<Vec<Draw>> = case.read(&["draws"])?;
    if iters.len() != rates.len() || iters.len() != draws.len() {
        return Err("local_iters, lr_and_head_lr and draws differ in length".into());
    }
    (0..iters.len()).map(|t| one(iters[t], rates[t], &draws[t], t)).collect()
}

#[derive(Deserialize)]
struct Draw {
    kind: String,
    value: Value,
    #[serde(default)]
    args: Value,
}

/// Consumes draws in order; each must be of the expected kind.
struct Cursor<'a> {
    draws: &'a [Draw],
    next: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<&'a Draw> {
        self.draws.get(self.next)
    }

    fn take(&mut self, kind: &str) -> Outcome<&'a Draw> {
        match self.peek() {
            Some(draw) if draw.kind == kind => {
                self.next += 1;
                Ok(draw)
            }
            Some(draw) => Err(format!("number {} is a {}, not a {kind}", self.next, draw.kind)),
            None => Err(format!("end after {}, before a {kind}", self.next)),
        }
    }

    fn value<T: for<'d> Deserialize<'d>>(&mut self, kind: &str) -> Outcome<T> {
        let draw = self.take(kind)?;
        T::deserialize(&draw.value).map_err(|e| format!("number {}: {e}", self.next - 1))
    }

    fn args<T: for<'d> Deserialize<'d>>(&self, draw: &Draw) -> Outcome<T> {
        T::deserialize(&draw.args).map_err(|e| format!("arguments before {}: {e}", self.next))
    }

    fn switches(&mut self, settings: &Settings) -> Outcome<Switches> {
        let jitter: f64 = self.value("random.uniform")?;
        let blur: f64 = self.value("random.uniform")?;
        let (jitter_on, blur_on) = (jitter > settings.jitter_above, blur > BLUR_ABOVE);
        Ok(Switches { jitter, blur, jitter_on, blur_on })
    }

    /// Reads a choice that may have failed for lack of elements.
    fn attempt(&mut self) -> Outcome<(usize, Option<Choice>)> {
        let draw = self.take("np.random.choice")?;
        let (n, k): (usize, usize) = self.args(draw)?;
        let positions: Option<Vec<usize>> =
            Deserialize::deserialize(&draw.value).map_err(|e| format!("choice: {e}"))?;
        let Some(positions) = positions else { return Ok((k, None)) };
        let fits = positions.len() == k && positions.iter().all(|&p| p < n);
        if !fits || (1..k).any(|i| positions[..i].contains(&positions[i])) {
            return Err(format!("{positions:?} is no choice of {k} among {n}"));
        }
        Ok((k, Some(Choice { n, positions })))
    }

    fn choice(&mut self) -> Outcome<Choice> {
        self.attempt()?.1.ok_or_else(|| format!("choice before {} failed", self.next))
    }

    /// Reads a choice of two classes; if that failed, of one; if that failed too, `None`.
    fn choice_or_fewer(&mut self) -> Outcome<Option<Choice>> {
        match self.attempt()? {
            (2, None) => Ok(self.attempt()?.1),
            (_, choice) => Ok(choice),
        }
    }

    fn augment(&mut self, switches: Switches, images: usize) -> Outcome<Augment> {
        let jitter: Option<Jitter> =
            switches.jitter_on.then(|| self.value("ColorJitter")).transpose()?;
        if let Some(j) = &jitter {
            let factors = [&j.brightness, &j.contrast, &j.saturation, &j.hue];
            if factors.iter().any(|f| f.len() != images) {
                return Err(format!("jitter before {} is not of {images} images", self.next));
            }
        }
        let sigma = switches.blur_on.then(|| self.value("np.random.uniform(sigma)")).transpose()?;
        Ok(Augment { jitter, sigma })
    }

    /// Reads the rare crops of one image. A crop that follows one of the same class replaces it,
    /// because that one was rejected. Classes are distinguished by the file lists that their crops
    /// are drawn from; if the next class has the same list, no crop is considered rejected.
    fn rare(&mut self, classes: &[u8], settings: &Settings) -> Outcome<Vec<RareCrop>> {
        let files = |class: u8| {
            let known = settings.rare_files.iter().find(|(c, _)| *c == class);
            known.map(|(_, files)| files).ok_or_else(|| format!("class {class} has no rare files"))
        };
        let mut out: Vec<RareCrop> = Vec::new();
        for (i, &class) in classes.iter().enumerate() {
            let own = files(class)?;
            let told_apart = files(classes[(i + 1) % classes.len()])? != own;
            let mut taken = self.rare_crop(class, own)?;
            while told_apart && self.next_sample_is_from(own) {
                let rejected = taken.rejected + 1;
                taken = RareCrop { rejected, ..self.rare_crop(class, own)? };
            }
            out.push(taken);
        }
        Ok(out)
    }

    fn next_sample_is_from(&self, files: &[String]) -> bool {
        let sample = self.peek().filter(|d| d.kind == "random.sample");
        let among = sample.and_then(|d| <(Vec<String>, usize)>::deserialize(&d.args).ok());
        among.is_some_and(|(among, _)| among == files)
    }

    fn rare_crop(&mut self, class: u8, files: &[String]) -> Outcome<RareCrop> {
        if !self.next_sample_is_from(files) {
            return Err(format!("number {} is no rare file of class {class}", self.next));
        }
        let mut file: [String; 1] = self.value("random.sample")?;
        // A file that could not be read is replaced before any crop is drawn.
        while self.next_sample_is_from(files) {
            file = self.value("random.sample")?;
        }
        let (x, y) = (self.value("random.randint")?, self.value("random.randint")?);
        let [file] = file;
        Ok(RareCrop { class, file, x, y, rejected: 0 })
    }

    fn quad_images(
        &mut self,
        settings: &Settings,
        switches: Switches,
        classes: &[u8],
    ) -> Outcome<Vec<QuadImage>> {
        let one = |_| {
            let rare = self.rare(classes, settings)?;
            Ok(QuadImage { rare, augment: self.augment(switches, 1)? })
        };
        (0..settings.batch).map(one).collect()
    }
}

impl UdaDraws {
    fn parse(settings: &Settings, local_iter: u64, draws: &[Draw]) -> Outcome<UdaDraws> {
        let mut at = Cursor { draws, next: 0 };
        let batch = settings.batch;
        let switches = at.switches(settings)?;
        let source_detail = at.value("hr_crop_box")?;
        let mix = if local_iter < QUAD_FROM {
            Mix::Class(ClassMix {
                classes: (0..batch).map(|_| at.choice()).collect::<Outcome<_>>()?,
                augment: (0..batch).map(|_| at.augment(switches, 1)).collect::<Outcome<_>>()?,
                detail: at.value("hr_crop_box")?,
            })
        } else {
            let source = (0..batch).map(|_| at.choice()).collect::<Outcome<_>>()?;
            let rare_classes: Vec<u8> = at.value("random.sample")?;
            let target = (0..batch).map(|_| at.choice_or_fewer()).collect::<Outcome<_>>()?;
            Mix::Quad(QuadMix {
                source,
                target,
                tss: at.quad_images(settings, switches, &rare_classes)?,
                tst: at.quad_images(settings, switches, &rare_classes)?,
                rare_classes,
                tss_detail: at.value("hr_crop_box")?,
                tst_detail: at.value("hr_crop_box")?,
            })
        };
        let masked_switches = at.switches(settings)?;
        let masked_augment = at.augment(masked_switches, batch)?;
        let nested: Vec<Vec<Vec<Vec<f32>>>> = at.value("torch.rand(mask grid)")?;
        let side = |list: &[Vec<f32>]| [list.len(), list.first().map_or(0, Vec::len)];
        let [rows, columns] = side(nested.first().and_then(|i| i.first()).map_or(&[], |g| g));
        let grid: Vec<f32> = nested.iter().flatten().flatten().flatten().copied().collect();
        let grid_shape = [nested.len(), 1, rows, columns];
        if nested.len() != batch || grid.len() != batch * rows * columns || grid.is_empty() {
            return Err(format!("mask grid is not {batch} images of one size"));
        }
        let masked_detail = at.value("hr_crop_box")?;
        if at.next != draws.len() {
            return Err(format!("{} numbers are left over", draws.len() - at.next));
        }
        Ok(UdaDraws {
            switches,
            source_detail,
            mix,
            masked_switches,
            masked_augment,
            grid_shape,
            grid,
            masked_detail,
        })
    }
}
