//! Whole iterations of the method: a single one, or a chain.
//!
//! The reference updates the teacher at the start of an iteration; here the update belongs to the
//! end of the previous one. The first iteration's update is therefore done by hand, and the teacher
//! that an iteration leaves is compared with the next one's.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use udass_raw::config::Config;
use udass_raw::data::resize::{Rows, Size, Window, pil_nearest};
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::ops;
use udass_raw::ops::mix::{Labeled, RareCrops};
use udass_raw::optimizer::{AdamWSettings, Optimizer, UpdateNumbers, teacher_alpha};
use udass_raw::params::Weights;
use udass_raw::tensor::{DType, Tensor};
use udass_raw::uda::batch::DeviceBatch;
use udass_raw::uda::inputs::{MAX_CLASSES, StepInputs, Switches};
use udass_raw::uda::state::TrainingState;
use udass_raw::uda::trace::Trace;

use super::host::pil_bilinear;
use super::layout::{compare_map, to_reference, upload_image};
use super::networks::{fill, network_config};
use super::said;
use super::steps::{compare_norms, norms, one, row};
use super::training::{compare_buffers, compare_gradients};
use crate::support::cases::{Case, Outcome};
use crate::support::formula;
use crate::support::report::Report;
use crate::support::uda::{
    Augment, Choice, Iteration, Mix, QUAD_FROM, QuadImage, TEACHER_COPY, UdaDraws, iterations,
};

/// Raw ids of Cityscapes and GTA, indexed by training id.
const RAW: [u8; 19] = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33];

/// The configuration under which a case was recorded.
fn config_of(case: &Case) -> Outcome<Config> {
    let arch: String = case.read(&["arch"])?;
    let [detail, _]: [usize; 2] = case.read(&["hr_crop"])?;
    let mut config = Config::load("gta_vit", &[]).map_err(said)?;
    config.network = network_config(&arch, Some(detail));
    config.data.batch = case.read(&["batch"])?;
    config.data.crop = case.read(&["size"])?;
    config.mask.block = case.read(&["mask_block"])?;
    config.mask.ratio = case.read(&["uda", "mask_generator", "mask_ratio"])?;
    config.mask.weight = case.read(&["uda", "mask_lambda"])?;
    config.teacher.ema_decay = case.read(&["uda", "alpha"])?;
    config.pseudo_label.threshold = case.read(&["uda", "pseudo_threshold"])?;
    config.feature_distance.weight = case.read(&["uda", "imnet_feature_dist_lambda"])?;
    config.feature_distance.classes = case.read(&["uda", "imnet_feature_dist_classes"])?;
    config.feature_distance.min_share =
        case.read(&["uda", "imnet_feature_dist_scale_min_ratio"])?;
    config.quadmix.start = QUAD_FROM;
    config.mix.released_unlabeled = true;
    config.quadmix.released_colors = true;
    config.quadmix.released_exclusion = true;
    if case.config.pointer("/optimizer/type").is_some() {
        config.optimizer.lr = case.read(&["optimizer", "lr"])?;
        config.optimizer.betas = case.read(&["optimizer", "betas"])?;
        config.optimizer.eps = case.read(&["optimizer", "eps"])?;
        config.optimizer.weight_decay = case.read(&["optimizer", "weight_decay"])?;
    }
    Ok(config)
}

/// A case being run.
struct Run<'a, 'r> {
    report: &'a mut Report<'r>,
    device: &'a Device,
    case: &'r Case,
    config: Config,
    training: TrainingState,
}

impl<'a, 'r> Run<'a, 'r> {
    fn new(
        report: &'a mut Report<'r>,
        device: &'a Device,
        config: Config,
        first: u64,
    ) -> Outcome<Self> {
        let case = report.case();
        let scale = case.weight_scale()?;
        let network = Segmentor::new(&config.network).map_err(said)?;
        let spec = network.spec().clone();
        let student = fill(device, &spec, true, "", &scale)?;
        let imagenet = fill(device, &spec, false, "imnet_model.", &scale)?;
        let mut teacher = fill(device, &spec, false, "ema_model.", &scale)?;
        let mut copy = student.clone();
        let alpha = match first {
            TEACHER_COPY => 0.0,
            _ => teacher_alpha(config.teacher.ema_decay, first),
        };
        update_teacher(device, &mut copy, &mut teacher, alpha)?;
        let mut training =
            TrainingState::new(device, &config, network, student, Some(imagenet)).map_err(said)?;
        training.teacher = Some(teacher);
        Ok(Run { report, device, case, config, training })
    }

    fn batch(&self) -> usize {
        self.config.data.batch
    }

    fn side(&self) -> usize {
        self.config.data.crop
    }

    /// B,H,W: the shape of every map of the case.
    fn shape(&self) -> [usize; 3] {
        [self.batch(), self.side(), self.side()]
    }

    fn formula_image(&self, name: &str) -> Outcome<Tensor> {
        let shape = [self.batch(), 3, self.side(), self.side()];
        let values = formula::image(&self.case.input(name), shape.iter().product());
        upload_image(self.device, shape, &values)
    }

    fn stored_map(&mut self, key: &str) -> Outcome<Tensor> {
        let values = self.report.input_bytes(key)?;
        self.device.upload(&self.shape(), &values).map_err(said)
    }

    fn bytes(&self, map: &Tensor) -> Outcome<Vec<u8>> {
        self.device.read(map).map_err(said)
    }

    /// Scales and crops the rare-class images of T2SS and T2ST as they were drawn.
    fn rare(&mut self, draws: &UdaDraws) -> Outcome<Option<[RareCrops; 2]>> {
        let Mix::Quad(mix) = &draws.mix else { return Ok(None) };
        let [width, height]: [usize; 2] = self.case.read(&["rand_mixer", "resize_wh"])?;
        let classes: [u8; 2] =
            mix.rare_classes.clone().try_into().map_err(|_| "not two rare classes")?;
        let [b, s, _] = self.shape();
        let mut side = |images: &[QuadImage]| -> Outcome<RareCrops> {
            let (mut rgb, mut label) = (Vec::new(), Vec::new());
            for crop in images.iter().flat_map(|image| &image.rare) {
                let key = format!("src/{}", crop.file);
                let &[h, w] = self.case.entry(&format!("{key}/rawlabel"))?.shape.as_slice() else {
                    return Err(format!("{key}/rawlabel is no map"));
                };
                let picture = self.report.input_bytes(&format!("{key}/rgb"))?;
                let ids = self.report.input_bytes(&format!("{key}/rawlabel"))?;
                let (from, to) = (Size::new(w, h), Size::new(width, height));
                let window = Window { x: crop.x, y: crop.y, width: s, height: s };
                rgb.extend(pil_bilinear(Rows::whole(from, 3, &picture), to, window));
                let ids = pil_nearest(Rows::whole(from, 1, &ids), to, window);
                let train = |id: u8| RAW.iter().position(|&r| r == id).map_or(255, |t| t as u8);
                label.extend(ids.into_iter().map(train));
            }
            Ok(RareCrops {
                rgb: self.device.upload(&[b, 2, s, s, 3], &rgb).map_err(said)?,
                label: self.device.upload(&[b, 2, s, s], &label).map_err(said)?,
                classes: self.device.upload(&[2], &classes).map_err(said)?,
            })
        };
        Ok(Some([side(&mix.tss)?, side(&mix.tst)?]))
    }

    /// Runs an iteration and returns the intermediate results by their trace names.
    fn step(
        &mut self,
        iteration: &Iteration,
        number: u64,
        source: Labeled,
        target: Tensor,
        valid: Tensor,
    ) -> Outcome<Stages> {
        let rare = self.rare(&iteration.draws)?;
        let batch = DeviceBatch { source, target, valid, rare };
        let alpha = teacher_alpha(self.config.teacher.ema_decay, iteration.local_iter + 1);
        let settings = (&self.config.optimizer).into();
        let update = UpdateNumbers::new(&settings, iteration.rates[0], number, alpha);
        let inputs = step_inputs(iteration, self.batch(), update);
        self.training.load(&batch).map_err(said)?;
        let mut seen = BTreeMap::new();
        let mut keep = |name: &str, tensor: &Tensor| {
            let mut copy = self.device.alloc(tensor.shape(), tensor.dtype())?;
            self.device.copy(tensor, &mut copy)?;
            seen.insert(name.replacen('.', "/", 1), copy);
            Ok(())
        };
        let report = self.training.step_with(&inputs, Trace::to(&mut keep)).map_err(said)?;
        if report.failed {
            return Err("the step met a number that is not finite".into());
        }
        let terms = report.terms.into_iter().map(|(k, v)| (k, f64::from(v))).collect();
        Ok(Stages { seen, terms })
    }

    fn teacher(&self) -> Outcome<&Weights> {
        self.training.teacher.as_ref().ok_or_else(|| "there is no teacher".into())
    }

    /// Compares all parameters of a network under a prefix.
    fn compare_parameters(
        &mut self,
        prefix: &str,
        of: fn(&TrainingState) -> Option<&Weights>,
    ) -> Outcome {
        let weights = of(&self.training).ok_or("there is no such network")?;
        for (i, param) in weights.spec().params().iter().enumerate() {
            let values = weights.export(self.device, &weights.values, i).map_err(said)?;
            self.report.compare(&format!("{prefix}{}", param.name), &param.shape, &values);
        }
        Ok(())
    }

    /// Compares the student after its first update.
    fn compare_update(&mut self) -> Outcome {
        let student = &self.training.student;
        let grads = student.grads.as_ref().ok_or("the student has no gradients")?;
        for (i, param) in student.spec().params().iter().enumerate() {
            let values = student.export(self.device, &student.values, i).map_err(said)?;
            let gradient = student.export(self.device, grads, i).map_err(said)?;
            self.report.compare_step("param_after/", &param.name, &values, &gradient);
        }
        Ok(())
    }

    fn norms(&self, weights: &Weights, flat: &Tensor) -> Outcome<Vec<(String, f64)>> {
        norms(self.device, weights, flat)
    }

    fn compare_norms(&mut self, key: &str, norms: &[(String, f64)], names: &[String]) -> Outcome {
        compare_norms(self.report, key, norms, names)
    }

    /// Compares a map of labels, masks or weights, B,H,W.
    fn compare_plane(&mut self, key: &str, map: &Tensor) -> Outcome {
        match map.dtype() {
            DType::U8 => self.report.compare(key, &self.shape(), &self.bytes(map)?),
            _ => {
                let values = self.device.read_f32(map).map_err(said)?;
                self.report.compare(key, &self.shape(), &values);
            }
        }
        Ok(())
    }

    /// Compares the teacher's logits, which are stored at the image's size.
    fn compare_teacher_logits(&mut self, key: &str, stages: &Stages) -> Outcome {
        let tape = udass_raw::tape::Tape::inference(self.device);
        let size = (self.side(), self.side());
        let logits = ops::resize(&tape, stages.get("teacher/logits")?, size, None).map_err(said)?;
        compare_map(self.report, key, self.device, &logits)
    }
}

/// The results of an iteration besides its state.
struct Stages {
    seen: BTreeMap<String, Tensor>,
    terms: HashMap<String, f64>,
}

impl Stages {
    fn get(&self, name: &str) -> Outcome<&Tensor> {
        self.seen.get(name).ok_or_else(|| format!("the iteration did not show {name}"))
    }

    /// The total loss that a backward pass started from.
    fn total(&self, part: &str) -> f64 {
        let of = |name: &str| self.terms.get(&format!("{part}{name}")).copied().unwrap_or(f64::NAN);
        of("decode.loss_seg") + of("decode.hr.loss_seg")
    }
}

/// Computes teacher ← alpha·teacher + (1 − alpha)·student, with AdamW's kernel at learning rate 0.
fn update_teacher(
    device: &Device,
    student: &mut Weights,
    teacher: &mut Weights,
    alpha: f64,
) -> Outcome {
    let settings = AdamWSettings { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 };
    let optimizer = Optimizer::new(device, student, settings, |_| (1.0, 1.0));
    let mut optimizer = optimizer.map_err(said)?;
    let numbers = UpdateNumbers::new(&settings, 0.0, 1, alpha).to_array();
    let numbers = device.upload_real(&[numbers.len()], &numbers).map_err(said)?;
    let failed = device.zeros(&[1], DType::I32).map_err(said)?;
    optimizer.update(device, student, Some(teacher), &numbers, &failed).map_err(said)
}

/// Converts the recorded draws to an iteration's inputs.
fn step_inputs(iteration: &Iteration, batch: usize, update: UpdateNumbers) -> StepInputs {
    let Iteration { local_iter, draws, .. } = iteration;
    let none = Augment { jitter: None, sigma: None };
    let (mut mixed, mut target): (Vec<_>, Vec<_>) = (Vec::new(), vec![one(&none, 0); batch]);
    let pair = |choice: Option<&Choice>| {
        let row = row(choice, 2);
        [row[0], row[1]]
    };
    let mut class_mix = vec![0.5; batch * MAX_CLASSES];
    let mut template_source = vec![[0.5; 2]; batch];
    let mut template_target = vec![[0.5; 2]; batch];
    let details = match &draws.mix {
        Mix::Class(mix) => {
            mixed.extend(mix.augment.iter().map(|a| one(a, 0)));
            class_mix = mix.classes.iter().flat_map(|c| row(Some(c), MAX_CLASSES)).collect();
            [mix.detail, mix.detail]
        }
        Mix::Quad(mix) => {
            mixed.extend(mix.tss.iter().map(|image| one(&image.augment, 0)));
            target = mix.tst.iter().map(|image| one(&image.augment, 0)).collect();
            template_source = mix.source.iter().map(|c| pair(Some(c))).collect();
            template_target = mix.target.iter().map(|c| pair(c.as_ref())).collect();
            [mix.tss_detail, mix.tst_detail]
        }
    };
    let masked = (0..batch).map(|i| one(&draws.masked_augment, i));
    let unmixed = vec![one(&none, 0); 2 * batch];
    let detail = |b: [usize; 4]| b.map(|edge| edge as i32);
    let on = |s: crate::support::uda::Switches| Switches { jitter: s.jitter_on, blur: s.blur_on };
    StepInputs {
        iteration: *local_iter,
        update,
        late_update: update,
        drop_key: 0,
        detail_boxes: [
            detail(draws.source_detail),
            detail(details[0]),
            detail(details[1]),
            detail(draws.masked_detail),
            [0; 4],
        ],
        class_mix,
        template_source,
        template_target,
        switches: [on(draws.switches), on(draws.masked_switches)],
        augment: mixed.into_iter().chain(target).chain(masked).chain(unmixed).collect(),
        crop_boxes: Vec::new(),
        mask_grid: draws.grid.clone(),
    }
}

/// Compares every stage of a whole iteration.
pub fn single(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let config = config_of(case)?;
    let iteration = iterations(case)?.remove(0);
    let quad = matches!(iteration.draws.mix, Mix::Quad(_));
    let mut run = Run::new(report, device, config, iteration.local_iter)?;
    run.compare_parameters("ema/", |training| training.teacher.as_ref())?;
    let teacher = run.teacher()?;
    let norms = run.norms(teacher, &teacher.values)?;
    let names: Vec<String> = norms.iter().map(|(name, _)| name.clone()).collect();
    run.compare_norms("ema_after_update_l2", &norms, &names)?;
    if quad {
        run.fill_templates(iteration.local_iter - 1)?;
    }
    let frozen = run.training.imagenet.as_ref().ok_or("there is no ImageNet model")?;
    let batch_norm = device.read_f32(&frozen.buffers).map_err(said)?;

    let label = run.stored_map("in/label")?;
    let valid = run.stored_map("in/valid_pseudo_mask")?;
    let (image, target) = (run.formula_image("img")?, run.formula_image("target_img")?);
    let source = Labeled { image, label: label.clone(), weight: None };
    let stages = run.step(&iteration, 1, source, target, valid)?;

    run.compare_stages(&stages, quad)?;
    run.compare_feature_distance(&label)?;
    run.compare_losses(&stages, quad)?;
    let norm = compare_gradients(run.report, device, &run.training.student)?;
    let last = if quad { 4 } else { 3 };
    run.report.scalar(&format!("backward{last}/total_grad_norm_so_far"), norm);
    run.compare_update()?;
    run.compare_parameters("ema_next/", |training| training.teacher.as_ref())?;
    let teacher = run.training.teacher.as_ref().ok_or("there is no teacher")?;
    compare_buffers(run.report, device, &run.training.student, "bn/model.")?;
    compare_buffers(run.report, device, teacher, "bn/ema_model.")?;
    let frozen = run.training.imagenet.as_ref().ok_or("there is no ImageNet model")?;
    let unchanged = device.read_f32(&frozen.buffers).map_err(said)? == batch_norm;
    run.report.require("imnet_bn_unchanged", unchanged);
    run.compare_groups()?;
    Ok(())
}

impl Run<'_, '_> {
    /// Loads the previous iteration's batch, as the case states it.
    fn fill_templates(&mut self, iteration: u64) -> Outcome {
        let source = (self.formula_image("tmpl_img")?, self.stored_map("in/tmpl_label")?);
        let target = (self.formula_image("tmpl_target_img")?, self.stored_map("in/tmpl_plabel")?);
        let weight = self.report.input("in/tmpl_pseudo_weight")?;
        let weight = self.device.upload_real(&self.shape(), &weight).map_err(said)?;
        let confident = self.stored_map("in/tmpl_confident")?;
        let templates = &mut self.training.templates;
        templates.source = Labeled { image: source.0, label: source.1, weight: None };
        templates.target = Labeled { image: target.0, label: target.1, weight: Some(weight) };
        templates.confident = confident;
        templates.iteration = Some(iteration);
        Ok(())
    }

    /// Compares the inputs of each forward pass, the teacher's output, and QuadMix's intermediate
    /// results.
    fn compare_stages(&mut self, stages: &Stages, quad: bool) -> Outcome {
        let passes: &[&str] =
            if quad { &["src", "mix_tss", "mix_tst", "masked"] } else { &["src", "mix", "masked"] };
        for pass in passes {
            compare_map(
                self.report,
                &format!("{pass}/img"),
                self.device,
                stages.get(&format!("{pass}/img"))?,
            )?;
            for part in ["label", "weight"] {
                let key = format!("{pass}/{part}");
                if *pass != "src" || part == "label" {
                    self.compare_plane(&key, stages.get(&key)?)?;
                }
            }
        }
        self.compare_teacher_logits("teacher/logits", stages)?;
        self.compare_plane("teacher/plabel", stages.get("teacher/label")?)?;
        self.compare_plane("teacher/max_prob", stages.get("teacher/max_prob")?)?;
        let templates = &self.training.templates;
        let confident = templates.confident.clone();
        let (label, weight) = (templates.target.label.clone(), templates.target.weight.clone());
        self.compare_plane("teacher/confident", &confident)?;
        self.compare_plane("state/confident_tmpl", &confident)?;
        self.compare_plane("state/pseudo_label_tmpl", &label)?;
        self.compare_plane("state/pseudo_weight_tmpl", &weight.ok_or("templates have no weight")?)?;
        if quad { self.compare_quad(stages) } else { Ok(()) }
    }

    /// Compares the masks and backgrounds of each image of both mixes.
    fn compare_quad(&mut self, stages: &Stages) -> Outcome {
        let [b, h, w] = self.shape();
        // The pixels where the target's template is on top.
        let (of_image, table) = (h * w, self.bytes(stages.get("quad/table")?)?);
        let label = self.report.input_bytes("in/tmpl_plabel")?;
        let confident = self.report.input_bytes("in/tmpl_confident")?;
        let chosen = |i: usize| table[i / of_image * 256 + usize::from(label[i])];
        let masks: Vec<u8> = (0..b * of_image).map(|i| chosen(i) & confident[i]).collect();
        for side in ["tss", "tst"] {
            let of = |part: &str| stages.get(&format!("quad/{side}/background_{part}"));
            let (_, images) = to_reference(self.device, of("img")?)?;
            let labels = self.bytes(of("label")?)?;
            let weights = self.device.read_f32(of("weight")?).map_err(said)?;
            for i in 0..b {
                let key = |part: &str| format!("quad/{side}{i}/{part}");
                let (n, report) = (h * w, &mut *self.report);
                let range = i * n..(i + 1) * n;
                report.compare(&key("mask"), &[1, 1, h, w], &masks[range.clone()]);
                let image = &images[i * 3 * n..(i + 1) * 3 * n];
                report.compare(&key("background_img"), &[3, h, w], image);
                report.compare(&key("background_label"), &[h, w], &labels[range.clone()]);
                report.compare(&key("background_weight"), &[h, w], &weights[range]);
            }
        }
        Ok(())
    }

    /// Compares the label at the size of the deepest context features, and which of its classes
    /// count.
    fn compare_feature_distance(&mut self, label: &Tensor) -> Outcome {
        let shape = self.case.entry("fdist/gt_rescaled")?.shape.clone();
        let settings = &self.config.feature_distance;
        let scale = self.side() / shape[3];
        let small = ops::downscale_labels(self.device, label, scale, settings.min_share.into());
        let small = self.bytes(&small.map_err(said)?)?;
        self.report.compare("fdist/gt_rescaled", &shape, &small);
        let counts = |class: &u8| u8::from(settings.classes.contains(class));
        let mask: Vec<u8> = small.iter().map(counts).collect();
        self.report.compare("fdist/mask", &shape, &mask);
        Ok(())
    }

    /// Compares the logged terms, and the total that each of the reference's backward passes
    /// started from.
    fn compare_losses(&mut self, stages: &Stages, quad: bool) -> Outcome {
        for (key, _) in &self.case.scalars {
            let Some(name) = key.strip_prefix("log/") else { continue };
            let term = stages.terms.get(name).copied();
            self.report.scalar(key, term.ok_or_else(|| format!("{name} is not logged"))?);
        }
        let distance = stages.terms.get("src.loss_imnet_feat_dist").copied().unwrap_or(f64::NAN);
        let mut totals = vec![stages.total(""), distance];
        if quad {
            totals.extend(["mix_tss.", "mix_tst."].map(|part| 0.5 * stages.total(part)));
        } else {
            totals.push(stages.total("mix."));
        }
        totals.push(stages.total("masked."));
        for (k, total) in totals.into_iter().enumerate() {
            self.report.scalar(&format!("backward{k}/loss"), total);
        }
        Ok(())
    }

    /// Compares the learning rate and weight decay of each of the student's parameters, by the
    /// first rule that matches its name.
    fn compare_groups(&mut self) -> Outcome {
        #[derive(Deserialize)]
        struct Group(f64, f64);
        let stored = self.case.extra.get("param_groups_lr_wd").ok_or("no parameter groups")?;
        let stored = HashMap::<String, Group>::deserialize(stored).map_err(|e| e.to_string())?;
        let config = &self.config.optimizer;
        for param in self.training.student.spec().params() {
            let name = format!("model.{}", param.name);
            let Group(lr, decay) =
                stored.get(&name).ok_or_else(|| format!("no group of {name}"))?;
            let (times_lr, times_decay) = config.multipliers(&param.name);
            self.report.number(&format!("rate of {name}"), *lr, config.lr * times_lr, 1e-12);
            let here = config.weight_decay * times_decay;
            self.report.number(&format!("decay of {name}"), *decay, here, 1e-12);
        }
        Ok(())
    }
}

/// Runs consecutive iterations, each on the state that the previous one left.
pub fn chain(report: &mut Report, device: &Device) -> Outcome {
    let case = report.case();
    let config = config_of(case)?;
    let all = iterations(case)?;
    let names: Vec<String> = case.read(&["param_order"])?;
    let mut run = Run::new(report, device, config, all[0].local_iter)?;
    for (t, iteration) in all.iter().enumerate() {
        let key = |name: &str| format!("it{t}/{name}");
        let teacher = run.teacher()?;
        let norms = run.norms(teacher, &teacher.values)?;
        run.compare_norms(&key("teacher_param_l2"), &norms, &names)?;
        let last = t + 1 == all.len();
        if last {
            run.compare_parameters(&key("teacher_param/"), |training| training.teacher.as_ref())?;
        }
        let (label, valid) = (run.stored_map(&key("label"))?, run.stored_map(&key("valid"))?);
        let image = run.formula_image(&format!("img{t}"))?;
        let target = run.formula_image(&format!("target_img{t}"))?;
        let source = Labeled { image, label, weight: None };
        let stages = run.step(iteration, t as u64 + 1, source, target, valid)?;

        run.compare_plane(&key("teacher_plabel"), stages.get("teacher/label")?)?;
        run.compare_teacher_logits(&key("teacher_logits"), &stages)?;
        let log = key("log/");
        for (name, _) in &case.scalars {
            let Some(term) = name.strip_prefix(&log) else { continue };
            let value = stages.terms.get(term).copied();
            run.report.scalar(name, value.ok_or_else(|| format!("{term} is not logged"))?);
        }
        let share = stages.terms.get("pseudo_label.weight").copied();
        let share = share.ok_or("the weight of pseudo-labels is not logged")?;
        run.report.scalar(&key("pseudo_weight_value"), share);
        let student = &run.training.student;
        let grads = student.grads.as_ref().ok_or("the student has no gradients")?;
        let (grads, values) = (run.norms(student, grads)?, run.norms(student, &student.values)?);
        run.compare_norms(&key("grad_l2"), &grads, &names)?;
        run.compare_norms(&key("student_param_l2"), &values, &names)?;
        if last {
            run.compare_parameters(&key("student_param/"), |training| Some(&training.student))?;
            let teacher = run.training.teacher.as_ref().ok_or("there is no teacher")?;
            compare_buffers(run.report, device, &run.training.student, &key("student_bn/"))?;
            compare_buffers(run.report, device, teacher, &key("teacher_bn/"))?;
        }
    }
    Ok(())
}
