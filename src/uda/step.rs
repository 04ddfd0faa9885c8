//! One iteration: source loss, feature distance, pseudo-labels, mixing, masked consistency, update.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config::{Config, Masked, Method};
use crate::data::Batch;
use crate::device::{Device, Readback, Replays};
use crate::nn::{Dropping, Features, Pass, Segmentor, Statistics, Supervision};
use crate::ops::augment::{Augmentation, augment, block_mask, blur};
use crate::ops::mix::{self, Candidates, Labelled, Layer, Mix, RareColours, RareCrops};
use crate::ops::{self, Confidence, ImageNormalizer, PseudoLabels, commit};
use crate::optimizer::Optimizer;
use crate::params::Weights;
use crate::tape::Tape;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

use super::batch::{BatchRoom, DeviceBatch, Templates};
use super::inputs::{PassKind, StepInputs, UploadedInputs, mask_cells};
use super::mix::half_of_each;

/// Sees intermediate results by name: tests compare them, dumps keep them.
pub type Probe<'a> = &'a mut dyn FnMut(&str, &Tensor) -> Result<()>;

/// Everything a run keeps on the device from one iteration to the next.
pub struct Learner {
    pub device: Device,
    pub config: Config,
    pub network: Segmentor,
    pub student: Weights,
    /// None for a method without pseudo-labels.
    pub teacher: Option<Weights>,
    /// The frozen backbone that features are kept close to.
    pub imagenet: Option<Weights>,
    pub optimizer: Optimizer,
    pub templates: Templates,
    /// Set by the first loss or gradient that is not finite; state then stays as it was.
    pub failed: Tensor,
    normalizer: ImageNormalizer,
    rare_colours: RareColours,
    /// 256: 1 for the classes that the feature distance compares.
    thing_classes: Tensor,
    inputs: UploadedInputs,
    room: BatchRoom,
    /// [`MOST_TERMS`] numbers of the last step.
    logged: Tensor,
    replays: Rc<RefCell<Replays<Kind, Vec<Named>>>>,
}

/// More than an iteration logs.
const MOST_TERMS: usize = 32;

/// All that the work of an iteration depends on beside the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    ClassMix,
    FourWays,
}

/// A logged number's name, and what it is multiplied by.
type Named = (String, f32);

/// A logged number, on the device until the step is over.
struct Term {
    name: String,
    value: Tensor,
    scale: f32,
}

/// An iteration that was asked for, and may still run.
pub struct Underway {
    terms: Rc<Vec<Named>>,
    failed: Readback,
    logged: Readback,
    /// Whose templates there were before it.
    templates: Option<u64>,
}

impl Underway {
    /// Whether its report is there without waiting.
    pub fn is_over(&self) -> Result<bool> {
        self.logged.is_there()
    }
}

/// What an iteration reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Losses and accuracies by the reference's names, and `pseudo_label.weight`.
    pub terms: Vec<(String, f32)>,
    /// Nothing was updated: a loss or gradient is not finite.
    pub failed: bool,
}

/// What the student learns from in one of an iteration's passes.
struct Lesson {
    kind: PassKind,
    /// Before the names of what is logged.
    name: &'static str,
    of: Labelled,
    /// Of the losses.
    scale: f32,
}

/// Losses and logged numbers of the iteration under way.
struct Iteration<'a, 'p> {
    learner: &'a Learner,
    terms: Vec<Term>,
    probe: Option<Probe<'p>>,
}

impl Learner {
    /// `student`, `imagenet`: loaded or initialised. The teacher starts as the student is.
    pub fn new(
        device: &Device,
        config: &Config,
        network: Segmentor,
        student: Weights,
        imagenet: Option<Weights>,
    ) -> Result<Learner> {
        let teacher = match config.method {
            Method::SourceOnly => None,
            _ => {
                let mut teacher = Weights::new(device, network.spec(), false)?;
                teacher.copy_values(device, &student)?;
                device.copy(&student.buffers, &mut teacher.buffers)?;
                Some(teacher)
            }
        };
        let mut things = vec![0u8; 256];
        for &class in &config.feature_distance.classes {
            things[class as usize] = 1;
        }
        let normalizer = ImageNormalizer::new(device)?;
        let rare_colours = if config.quadmix.released_colours {
            let gain = device.upload_real(&[3], &[1.0 / 255.0; 3])?;
            RareColours { gain, reversed: true }
        } else {
            RareColours { gain: normalizer.inverse_std.clone(), reversed: false }
        };
        Ok(Learner {
            optimizer: Optimizer::new(device, &student, (&config.optimizer).into(), |name| {
                config.optimizer.multipliers(name)
            })?,
            templates: Templates::new(device, config)?,
            failed: device.zeros(&[1], DType::I32)?,
            normalizer,
            rare_colours,
            thing_classes: device.upload(&[256], &things)?,
            inputs: UploadedInputs::new(device, &StepInputs::draw(config, 0))?,
            room: BatchRoom::new(device, config)?,
            logged: device.empty(&[MOST_TERMS])?,
            replays: Rc::new(RefCell::new(Replays::new(device, config.device.graph))),
            device: device.clone(),
            config: config.clone(),
            network,
            student,
            teacher,
            imagenet,
        })
    }

    /// Uploads a batch and normalises it, in the place of the one before: a learner has room for one.
    pub fn upload(&mut self, batch: &Batch) -> Result<DeviceBatch> {
        self.room.fill(&self.device, &self.normalizer, batch)
    }

    /// As [`upload`](Self::upload), of a batch that lies on the device already: at addresses that
    /// stay the same an iteration can be replayed.
    pub fn take(&mut self, batch: &DeviceBatch) -> Result<DeviceBatch> {
        self.room.copy(&self.device, batch)
    }

    /// Runs one iteration and updates everything, unless a number is not finite.
    pub fn step(
        &mut self,
        batch: &DeviceBatch,
        inputs: &StepInputs,
        probe: Option<Probe>,
    ) -> Result<Report> {
        let underway = self.begin(batch, inputs, probe)?;
        self.report(underway)
    }

    /// Asks for an iteration without waiting for it. The next can be asked for meanwhile: should
    /// this one fail, that one keeps nothing either.
    pub fn begin(
        &mut self,
        batch: &DeviceBatch,
        inputs: &StepInputs,
        probe: Option<Probe>,
    ) -> Result<Underway> {
        let device = self.device.clone();
        self.inputs.upload(&device, inputs)?;
        let kind = self.kind(batch, inputs.iteration);
        let terms = match probe {
            None if self.room.holds(batch) => {
                let replays = self.replays.clone();
                replays.borrow_mut().run(kind, || self.iterate(batch, kind, None))
            }
            probe => self.iterate(batch, kind, probe).map(Rc::new),
        };
        let recorded = self.replays.borrow().are_recorded();
        let terms = terms.map_err(|e| with_less_memory(e, &self.config, recorded))?;
        let failed = device.fetch(&self.failed)?;
        let logged = device.fetch(&self.logged.slice(0, &[terms.len()])?)?;
        let templates = self.templates.iteration.replace(inputs.iteration);
        Ok(Underway { terms, failed, logged, templates })
    }

    /// Waits for an iteration. When it failed, the state is the one before it, whatever was asked for
    /// since.
    pub fn report(&mut self, underway: Underway) -> Result<Report> {
        let Underway { terms, failed, logged, templates } = underway;
        let failed = failed.wait::<i32>()?[0] != 0;
        if failed {
            self.templates.iteration = templates;
        }
        let values = logged.wait_f32()?;
        let scaled = terms.iter().zip(values).map(|((name, scale), x)| (name.clone(), x * scale));
        Ok(Report { terms: scaled.collect(), failed })
    }

    /// Templates are those of the iteration before; a run's first has none, and mixes two ways.
    fn kind(&self, batch: &DeviceBatch, iteration: u64) -> Kind {
        let four_ways = self.config.method == Method::Quadmix
            && batch.rare.is_some()
            && iteration >= self.config.quadmix.start.max(1)
            && iteration.checked_sub(1) == self.templates.iteration;
        if four_ways { Kind::FourWays } else { Kind::ClassMix }
    }

    /// The work of an iteration. Nothing in it comes from the host or waits for the device, and what
    /// it reads and leaves lies where it always does, so that it can be recorded.
    fn iterate(
        &mut self,
        batch: &DeviceBatch,
        kind: Kind,
        probe: Option<Probe>,
    ) -> Result<Vec<Named>> {
        let device = self.device.clone();
        for weights in std::iter::once(&mut self.student).chain(&mut self.teacher) {
            device.copy(&weights.buffers, &mut weights.pending)?;
            if let Some(grads) = &mut weights.grads {
                device.zero(grads)?;
            }
        }
        let mut iteration = Iteration { learner: self, terms: Vec::new(), probe };
        let pseudo = iteration.run(batch, kind)?;
        let Iteration { terms, .. } = iteration;
        self.finish(batch, pseudo, terms)
    }

    /// The update, and everything else that becomes the next iteration's state.
    fn finish(
        &mut self,
        batch: &DeviceBatch,
        pseudo: Option<PseudoLabels>,
        terms: Vec<Term>,
    ) -> Result<Vec<Named>> {
        let device = &self.device;
        for (i, term) in terms.iter().enumerate() {
            device.copy(&term.value, &mut self.logged.slice(i, &[1])?)?;
        }
        let logged = self.logged.slice(0, &[terms.len()])?;
        ops::flag_not_finite(device, &logged, &mut self.failed)?;
        if let Some(grads) = &self.student.grads {
            ops::flag_not_finite(device, grads, &mut self.failed)?;
        }
        let numbers = &self.inputs.update;
        let (student, teacher) = (&mut self.student, self.teacher.as_mut());
        device.scope("optimizer", || {
            self.optimizer.update(device, student, teacher, numbers, &self.failed)
        })?;
        for weights in std::iter::once(&mut self.student).chain(&mut self.teacher) {
            commit(device, &weights.pending, &mut weights.buffers, &self.failed)?;
        }
        if let Some(pseudo) = pseudo {
            self.templates.replace(device, batch, pseudo, &self.failed)?;
        }
        Ok(terms.into_iter().map(|term| (term.name, term.scale)).collect())
    }
}

impl Lesson {
    fn new(kind: PassKind, name: &'static str, of: Labelled, scale: f32) -> Lesson {
        Lesson { kind, name, of, scale }
    }

    fn pass<'a>(&self, learner: &'a Learner, tape: &'a Tape) -> Pass<'a> {
        let dropping = Dropping { key: learner.inputs.drop_key.clone(), pass: self.kind as usize };
        let (weights, statistics) = (&learner.student, Statistics::Batch);
        Pass { tape, weights, statistics, dropping: Some(dropping) }
    }

    fn supervision<'a>(&'a self, learner: &'a Learner) -> Supervision<'a> {
        Supervision {
            image: &self.of.image,
            label: &self.of.label,
            weight: self.of.weight.as_ref(),
            detail_box: &learner.inputs.detail_boxes[self.kind as usize],
        }
    }
}

impl Iteration<'_, '_> {
    fn run(&mut self, batch: &DeviceBatch, kind: Kind) -> Result<Option<PseudoLabels>> {
        let config = &self.learner.config;
        let mut lessons = vec![Lesson::new(PassKind::Source, "", batch.source.clone(), 1.0)];
        if config.method == Method::SourceOnly {
            return self.learn(lessons).map(|()| None);
        }
        let pseudo = self.pseudo_labels(batch)?;
        let target = Labelled {
            image: batch.target.clone(),
            label: pseudo.label.clone(),
            weight: Some(pseudo.weight.clone()),
        };
        self.learner.device.clone().scope("mix", || {
            match &batch.rare {
                Some(rare) if kind == Kind::FourWays => {
                    lessons.extend(self.quad_mix(batch, &target, rare)?);
                }
                _ => lessons.push(self.class_mix(batch, &target)?),
            }
            if matches!(config.method, Method::Mic | Method::Quadmix) {
                lessons.push(self.masked(&batch.source, &target)?);
            }
            Ok::<_, Error>(())
        })?;
        self.learn(lessons)?;
        Ok(Some(pseudo))
    }

    /// What the teacher sees in the target images.
    fn pseudo_labels(&mut self, batch: &DeviceBatch) -> Result<PseudoLabels> {
        let learner = self.learner;
        let Some(teacher) = &learner.teacher else {
            return Err(Error::config("this method has no teacher"));
        };
        let tape = Tape::inference(&learner.device);
        // The released teacher stays in train mode: batch statistics, nothing dropped.
        let pass =
            Pass { tape: &tape, weights: teacher, statistics: Statistics::Batch, dropping: None };
        let logits =
            learner.device.scope("teacher", || learner.network.logits(&pass, &batch.target))?;
        self.show("teacher/logits", &logits)?;
        let settings = &learner.config.pseudo_label;
        let [_, height, width, _] = batch.target.bhwc("pseudo_labels")?;
        let confidence =
            Confidence { counted: settings.threshold as f64, confident: settings.confident as f64 };
        let probed = self.probe.is_some();
        let (device, valid) = (&learner.device, Some(&batch.valid));
        let size = (height, width);
        let pseudo = ops::pseudo_labels(device, &logits, size, valid, confidence, probed)?;
        self.log("pseudo_label.weight", &pseudo.share, 1.0);
        self.show("teacher/label", &pseudo.label)?;
        if let Some(probability) = &pseudo.probability {
            self.show("teacher/max_prob", probability)?;
        }
        self.show("teacher/weight", &pseudo.weight)?;
        Ok(pseudo)
    }

    /// Half of the source's classes over the target.
    fn class_mix(&self, batch: &DeviceBatch, target: &Labelled) -> Result<Lesson> {
        let Learner { device, inputs, .. } = self.learner;
        let candidates = self.candidates();
        let table = mix::choose_half(device, &batch.source.label, &inputs.class_mix, candidates)?;
        let half = Layer { of: &batch.source, table: &table, confident: None };
        let mixed = Mix { under: target, layers: [Some(half), None], rare: None };
        Ok(Lesson::new(PassKind::Mixed, "mix.", self.mix(mixed, 0)?, 1.0))
    }

    /// Template classes over both domains, then long-tail classes over those.
    fn quad_mix(
        &mut self,
        batch: &DeviceBatch,
        target: &Labelled,
        rare: &[RareCrops; 2],
    ) -> Result<[Lesson; 2]> {
        let Learner { device, inputs, templates, normalizer, rare_colours, config, .. } =
            self.learner;
        let positions = config.quadmix.released_exclusion;
        let (of_source, of_target) = (&inputs.template_source, &inputs.template_target);
        let candidates = self.candidates();
        let label = &templates.source.label;
        let (table, chosen) =
            mix::choose_two(device, label, of_source, candidates, None, positions)?;
        let lower = Layer { of: &templates.source, table: &table, confident: None };
        let label = &templates.target.label;
        let (table, _) =
            mix::choose_two(device, label, of_target, candidates, Some(&chosen), false)?;
        let confident = Some(&templates.confident);
        let upper = Layer { of: &templates.target, table: &table, confident };
        self.show("quad/table", &table)?;
        let names = ["tss", "tst"];
        let mut over = |i: usize, under: &Labelled| {
            if self.probe.is_some() {
                let background = Mix { under, layers: [Some(lower), None], rare: None };
                let background = mix::mix(device, normalizer, background, None)?;
                self.show_labelled(&format!("quad/{}/background_", names[i]), &background)?;
            }
            let (layers, rare) = ([Some(lower), Some(upper)], Some((&rare[i], rare_colours)));
            self.mix(Mix { under, layers, rare }, i)
        };
        let (mixed, mixed_target) = (over(0, &batch.source)?, over(1, target)?);
        Ok([
            Lesson::new(PassKind::Mixed, "mix_tss.", mixed, 0.5),
            Lesson::new(PassKind::MixedTarget, "mix_tst.", mixed_target, 0.5),
        ])
    }

    /// What ClassMix and QuadMix choose from.
    fn candidates(&self) -> Candidates {
        match self.learner.config.mix.released_unlabelled {
            true => Candidates::All,
            false => Candidates::Labelled,
        }
    }

    /// Masked image consistency: clean images, partly hidden, against the same (pseudo-)labels.
    fn masked(&self, source: &Labelled, target: &Labelled) -> Result<Lesson> {
        let Learner { device, inputs, normalizer, config, .. } = self.learner;
        let clean = match config.mask.images {
            Masked::Target => target,
            Masked::Source => source,
            Masked::Both => &half_of_each(device, source, target)?,
        };
        let image = match config.mask.augment {
            true => augment(device, normalizer, &clean.image, &self.augmentation(1, 2)?)?,
            false => clean.image.clone(),
        };
        let cells = [mask_cells(config.data.crop, config.mask.block); 2];
        let image = block_mask(device, &image, &inputs.mask_grid, cells, config.mask.ratio)?;
        let masked = Labelled { image, ..clean.clone() };
        Ok(Lesson::new(PassKind::Masked, "masked.", masked, config.mask.weight))
    }

    /// A mixed image, augmented: see [`augmentation`](Self::augmentation).
    fn mix(&self, mix: Mix, call: usize) -> Result<Labelled> {
        let Learner { device, normalizer, .. } = self.learner;
        let augmentation = self.augmentation(0, call)?;
        let mut mixed = mix::mix(device, normalizer, mix, Some(&augmentation))?;
        blur(device, &mut mixed.image, &augmentation)?;
        Ok(mixed)
    }

    /// Jitter and blur as drawn. `group`: whose switches; `call`: whose factors, by batches.
    fn augmentation(&self, group: usize, call: usize) -> Result<Augmentation> {
        let Learner { inputs, config, .. } = self.learner;
        let b = config.data.batch;
        Ok(Augmentation {
            factors: inputs.factors.slice(call * b * 4, &[b, 4])?,
            order: inputs.orders.slice(call * b * 4, &[b, 4])?,
            sigma: inputs.sigmas.slice(call * b, &[b])?,
            switches: inputs.switches[group].clone(),
        })
    }

    /// Training passes of the student and their way back; gradients add to those there are.
    fn learn(&mut self, mut lessons: Vec<Lesson>) -> Result<()> {
        let Learner { config, network, .. } = self.learner;
        let join = config.network.join_passes && network.backbone().joins();
        let together = if join { lessons.len() } else { 1 };
        while !lessons.is_empty() {
            let now: Vec<Lesson> = lessons.drain(..together).collect();
            self.learn_together(&now)?;
        }
        Ok(())
    }

    /// Passes through the backbone together. Each then goes through the heads and back by itself, so
    /// that only one has its maps there, and the backbone's way back is one again.
    fn learn_together(&mut self, lessons: &[Lesson]) -> Result<()> {
        let learner = self.learner;
        let (device, network) = (&learner.device, &learner.network);
        let scope = if let [one] = lessons { one.kind.name() } else { "student" };
        device.scope(scope, || {
            let tape = Tape::recording(device);
            let supervisions = lessons.iter().map(|lesson| lesson.supervision(learner));
            let supervisions: Vec<Supervision> = supervisions.collect();
            let passes = lessons.iter().map(|lesson| lesson.pass(learner, &tape));
            let features = network.features(&passes.zip(&supervisions).collect::<Vec<_>>())?;
            let mut seeds = Vec::new();
            for ((lesson, features), s) in lessons.iter().zip(&features).zip(&supervisions) {
                device.scope(lesson.kind.name(), || {
                    let gradients = self.heads(lesson, features, s)?;
                    seeds.extend(
                        features.maps().zip(gradients).filter_map(|(x, dx)| Some((x, dx?))),
                    );
                    Ok::<_, Error>(())
                })?;
            }
            tape.backward(seeds).map(|_| ())
        })
    }

    /// The losses that begin at features, and what they leave of gradients there.
    fn heads(
        &mut self,
        lesson: &Lesson,
        features: &Features,
        s: &Supervision,
    ) -> Result<Vec<Option<Tensor>>> {
        let Lesson { kind, name, of, scale } = lesson;
        let learner = self.learner;
        let device = &learner.device;
        self.show_labelled(if *kind == PassKind::Source { "src." } else { name }, of)?;
        let tape = Tape::recording(device);
        let features = features.leaves(&tape);
        let pass = lesson.pass(learner, &tape);
        let output = learner.network.losses(&pass, &features, s)?;
        let mut seeds = Vec::new();
        for ((loss, share), part) in output.losses.iter().zip(["decode.", "decode.hr."]) {
            // As the reference logs it: with HRDA's share, without the term's weight.
            self.log(&format!("{name}{part}loss_seg"), &loss.value, *share);
            self.log(&format!("{name}{part}acc_seg"), &loss.accuracy, 1.0);
            seeds.push((&loss.value, ops::full(device, &[1], share * scale)?));
        }
        let distance = match &learner.imagenet {
            Some(imagenet) if *kind == PassKind::Source => {
                Some(self.feature_distance(&pass, imagenet, of, &features.context[3])?)
            }
            _ => None,
        };
        if let Some(distance) = &distance {
            let weight = learner.config.feature_distance.weight;
            self.log("src.loss_imnet_feat_dist", distance, weight);
            seeds.push((distance, ops::full(device, &[1], weight)?));
        }
        drop(pass);
        let mut gradients = tape.backward(seeds)?;
        Ok(features.maps().map(|x| gradients.of(x)).collect())
    }

    /// The distance of the source's features to the ImageNet model's.
    fn feature_distance(
        &self,
        pass: &Pass,
        imagenet: &Weights,
        source: &Labelled,
        ours: &Tensor,
    ) -> Result<Tensor> {
        let Learner { device, network, thing_classes, config, .. } = self.learner;
        let tape = Tape::inference(device);
        let (statistics, dropping) = (Statistics::Running, None);
        let frozen = Pass { tape: &tape, weights: imagenet, statistics, dropping };
        let [.., theirs] = device.scope("imagenet", || {
            let context = network.context(&frozen, &source.image)?;
            network.backbone().forward(&frozen, &context)
        })?;
        let share = config.feature_distance.min_share as f64;
        let label = &source.label;
        ops::feature_distance(pass.tape, ours, &theirs, label, thing_classes, share)
            .map(|distance| distance.value)
    }

    fn log(&mut self, name: &str, value: &Tensor, scale: f32) {
        self.terms.push(Term { name: name.into(), value: value.detach(), scale });
    }

    fn show(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        match &mut self.probe {
            Some(probe) => probe(name, tensor),
            None => Ok(()),
        }
    }

    fn show_labelled(&mut self, prefix: &str, s: &Labelled) -> Result<()> {
        self.show(&format!("{prefix}img"), &s.image)?;
        self.show(&format!("{prefix}label"), &s.label)?;
        match &s.weight {
            Some(weight) => self.show(&format!("{prefix}weight"), weight),
            None => Ok(()),
        }
    }
}

/// Tells which settings need less, where memory ran out.
fn with_less_memory(error: Error, config: &Config, recorded: bool) -> Error {
    let Error::OutOfMemory(problem) = error else { return error };
    let (network, data) = (&config.network, &config.data);
    let mut settings = Vec::new();
    if network.join_passes && network.backbone.starts_with("mit") {
        settings.push("network.join_passes = false (slower)".to_string());
    }
    if !network.recompute {
        settings.push("network.recompute = true (slower, the same numbers)".to_string());
    }
    if recorded {
        settings.push("device.graph = false (up to an eighth)".to_string());
    }
    if data.batch > 1 {
        settings.push(format!("data.batch = {} instead of {}", data.batch / 2, data.batch));
    }
    let crop = format!("data.crop = {} instead of {}", data.crop / 128 * 64, data.crop);
    settings.push(match network.hrda.enabled {
        true => format!("{crop}, with network.hrda.detail_crop = {}", data.crop / 128 * 32),
        false => crop,
    });
    Error::OutOfMemory(format!("{problem}\n  Less is needed with {}", settings.join("; ")))
}
