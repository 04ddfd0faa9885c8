//! A whole network: backbone and decoder, on one scale or on HRDA's two (Hoyer et al. 2022b).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::config::NetworkConfig;
use crate::device::Device;
use crate::ops::{self, DetailBox, Loss, Windows};
use crate::params::Spec;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::layers::Pass;
use super::parts::{Backbone, Head, Role};

/// Random streams of the two heads' dropouts, behind those of the backbone's blocks.
const HEAD_SITE: usize = 900;
const ATTENTION_SITE: usize = 901;

pub struct Segmentor {
    backbone: Backbone,
    head: Head,
    hrda: Option<Hrda>,
    spec: Rc<Spec>,
}

struct Hrda {
    /// Class-wise weights of detail against context, from context features.
    attention: Head,
    detail_crop: usize,
    detail_loss: f32,
    /// Windows of the detail scale, by the height and width of images seen so far.
    windows: RefCell<HashMap<(usize, usize), Rc<Windows>>>,
}

/// What a training pass learns from.
pub struct Supervision<'a> {
    /// B,H,W,3, normalised.
    pub image: &'a Tensor,
    /// B,H,W train ids.
    pub label: &'a Tensor,
    /// B,H,W; none: every pixel counts 1.
    pub weight: Option<&'a Tensor>,
    /// y1, y2, x1, x2 of the detail crop, i32 on the device. Unused without HRDA.
    pub detail_box: &'a Tensor,
}

/// What a backbone makes of a training pass's image.
pub struct Features {
    /// Of the context image: of the whole image without HRDA.
    pub context: [Tensor; 4],
    pub detail: Option<[Tensor; 4]>,
}

impl Features {
    /// The same, gradients collected from here on.
    pub fn leaves(&self, tape: &Tape) -> Features {
        let leaves = |maps: &[Tensor; 4]| maps.each_ref().map(|x| tape.leaf(x));
        Features { context: leaves(&self.context), detail: self.detail.as_ref().map(leaves) }
    }

    pub fn maps(&self) -> impl Iterator<Item = &Tensor> {
        self.context.iter().chain(self.detail.iter().flatten())
    }
}

/// The losses of a training pass and their share in its total, the main one first.
pub struct Output {
    pub losses: Vec<(Loss, f32)>,
    /// Logits by the reference's names: fused, lr_seg (times 1 - attention) and hr_seg of HRDA.
    pub logits: Vec<(&'static str, Tensor)>,
}

/// The parts of an inference pass; `fused` is its result, B,H/s,W/s,classes, s being the stride.
pub struct Parts {
    pub fused: Tensor,
    pub hrda: Option<HrdaParts>,
}

/// What HRDA's result was fused from.
pub struct HrdaParts {
    /// Context image, its logits, and the attention after the sigmoid.
    pub small: Tensor,
    pub low: Tensor,
    pub attention: Tensor,
    /// Windows of the detail scale (y1, y2, x1, x2), their logits window-major, and their average.
    pub boxes: Vec<[usize; 4]>,
    pub cropped: Tensor,
    pub high: Tensor,
}

impl Segmentor {
    pub fn new(config: &NetworkConfig) -> Result<Segmentor> {
        let mut spec = Spec::default();
        let backbone = Backbone::new(&mut spec, "backbone", config)?;
        let mut head = |prefix: &str, role, site| {
            Head::new(&mut spec, prefix, backbone.widths(), config, role, site)
        };
        let (head, hrda) = if config.hrda.enabled {
            let decoder = head("decode_head.head", Role::Classes, HEAD_SITE)?;
            let hrda = Hrda {
                attention: head("decode_head.scale_attention", Role::Attention, ATTENTION_SITE)?,
                detail_crop: config.hrda.detail_crop,
                detail_loss: config.hrda.detail_loss,
                windows: RefCell::default(),
            };
            (decoder, Some(hrda))
        } else {
            (head("decode_head", Role::Classes, HEAD_SITE)?, None)
        };
        Ok(Segmentor { backbone, head, hrda, spec: Rc::new(spec) })
    }

    pub fn spec(&self) -> &Rc<Spec> {
        &self.spec
    }

    pub fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    /// Pixels of the image per cell of the logits, along a side.
    pub fn stride(&self) -> usize {
        self.head.stride()
    }

    /// The image that features for the feature distance are taken from: HRDA's context.
    pub fn context(&self, pass: &Pass, image: &Tensor) -> Result<Tensor> {
        match self.hrda {
            Some(_) => halved(pass, image),
            None => Ok(image.clone()),
        }
    }

    /// What the backbone makes of the images of training passes, all of one tape.
    pub fn features(&self, passes: &[(Pass, &Supervision)]) -> Result<Vec<Features>> {
        let mut inputs = Vec::new();
        for (pass, s) in passes {
            let Some(hrda) = &self.hrda else {
                inputs.push((pass.clone(), s.image.clone()));
                continue;
            };
            // Running statistics move in this order: context before detail.
            inputs.push((pass.part(0), halved(pass, s.image)?));
            inputs.push((pass.part(1), hrda.detail(pass, s, s.image)?));
        }
        let mut levels = self.backbone.forward_each(inputs)?.into_iter();
        let missing = || Error::shape("features", "an image has no features");
        let mut next = || levels.next().ok_or_else(missing);
        (passes.iter())
            .map(|_| {
                let context = next()?;
                let detail = self.hrda.as_ref().map(|_| next()).transpose()?;
                Ok(Features { context, detail })
            })
            .collect()
    }

    /// The rest of a training pass. With HRDA: (1 - d)·CE(fused) + d·CE(detail on its box), d the
    /// detail loss.
    pub fn losses(&self, pass: &Pass, features: &Features, s: &Supervision) -> Result<Output> {
        let tape = pass.tape;
        let (Some(hrda), Some(details)) = (&self.hrda, &features.detail) else {
            let logits = self.head.forward(pass, &features.context)?;
            let loss = ops::cross_entropy(tape, &logits, s.label, s.weight)?;
            return Ok(Output { losses: vec![(loss, 1.0)], logits: vec![("logits", logits)] });
        };
        let (context, detail) = (pass.part(0), pass.part(1));
        let low = self.head.forward(&context, &features.context)?;
        let high = self.head.forward(&detail, details)?;
        let attention = hrda.attention.forward(&context, &features.context)?;
        let place = DetailBox { pixels: s.detail_box.clone(), stride: self.stride() };
        let fused = ops::hrda_fuse(tape, &low, &high, &attention, Some(&place))?;
        let detail_weight = s.weight.map(|weight| hrda.detail(pass, s, weight)).transpose()?;
        let detail_label = hrda.detail(pass, s, s.label)?;
        let main = ops::cross_entropy(tape, &fused.logits, s.label, s.weight)?;
        let detail_loss = ops::cross_entropy(tape, &high, &detail_label, detail_weight.as_ref())?;
        let logits = vec![("fused_seg", fused.logits), ("lr_seg", fused.context), ("hr_seg", high)];
        Ok(Output {
            losses: vec![(main, 1.0 - hrda.detail_loss), (detail_loss, hrda.detail_loss)],
            logits,
        })
    }

    /// Logits of a whole image, a cell for each stride, the detail sliding over it: what the teacher
    /// and evaluation see. image: B,H,W,3, sides multiples of 32.
    pub fn logits(&self, pass: &Pass, image: &Tensor) -> Result<Tensor> {
        Ok(self.logits_in_parts(pass, image)?.fused)
    }

    pub fn logits_in_parts(&self, pass: &Pass, image: &Tensor) -> Result<Parts> {
        let Some(hrda) = &self.hrda else {
            let features = self.backbone.forward(pass, image)?;
            return Ok(Parts { fused: self.head.forward(pass, &features)?, hrda: None });
        };
        let device = pass.tape.device();
        let small = halved(pass, image)?;
        let windows = hrda.windows_over(device, image)?;
        let inputs = [small.clone(), windows.crops(device, image)?];
        let inputs = inputs.map(|image| (pass.clone(), image)).into();
        let [features, details] = <[_; 2]>::try_from(self.backbone.forward_each(inputs)?)
            .map_err(|_| Error::shape("logits", "an image has no features"))?;
        let low = self.head.forward(pass, &features)?;
        let cropped = self.head.forward(pass, &details)?;
        drop(details);
        let attention = hrda.attention.forward(pass, &features)?;
        let high = windows.average(device, &cropped, self.stride())?;
        let fused = ops::hrda_fuse(pass.tape, &low, &high, &attention, None)?;
        let hrda = HrdaParts {
            boxes: windows.boxes().to_vec(),
            small,
            low,
            attention: fused.attention,
            cropped,
            high,
        };
        Ok(Parts { fused: fused.logits, hrda: Some(hrda) })
    }
}

impl Hrda {
    /// What of an image, a label or weights lies in the detail crop.
    fn detail(&self, pass: &Pass, s: &Supervision, of: &Tensor) -> Result<Tensor> {
        let [_, height, width, _] = s.image.bhwc("detail")?;
        let size = (self.detail_crop.min(height), self.detail_crop.min(width));
        ops::crop(pass.tape.device(), of, s.detail_box, size, 1)
    }

    fn windows_over(&self, device: &Device, image: &Tensor) -> Result<Rc<Windows>> {
        let [_, height, width, _] = image.bhwc("detail windows")?;
        let mut kept = self.windows.borrow_mut();
        if let Some(windows) = kept.get(&(height, width)) {
            return Ok(windows.clone());
        }
        let (side, step) = (self.detail_crop, self.detail_crop / 2);
        let windows = device
            .lasting(|| Windows::new(device, (height, width), (side, side), (step, step)))
            .map(Rc::new)?;
        kept.insert((height, width), windows.clone());
        Ok(windows)
    }
}

/// The context image: bilinear at half the size.
fn halved(pass: &Pass, image: &Tensor) -> Result<Tensor> {
    let [_, height, width, _] = image.bhwc("halved")?;
    // Pixels carry no gradient, so nothing need be recorded.
    let tape = Tape::inference(pass.tape.device());
    ops::resize(&tape, image, (height / 2, width / 2), Some((0.5, 0.5)))
}
