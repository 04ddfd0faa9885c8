//! A complete segmentation network: backbone and head, at a single scale or at HRDA's two scales
//! (Hoyer et al. 2022b).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::config::{NetworkConfig, ScaleAttention};
use crate::device::Device;
use crate::ops::{self, DetailBox, Loss, Windows};
use crate::params::Spec;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::layers::Pass;
use super::parts::{Backbone, Head, Role};
use super::projection::{Projected, ProjectionHead};

/// The name of the projection head, which follows all other parameters.
pub const PROJECTION: &str = "auxiliary_head";
/// The dropout stream of the class head, after the streams of the backbone's blocks.
const HEAD_SITE: usize = 900;
/// The dropout stream of HRDA's attention head.
const ATTENTION_SITE: usize = 901;

/// A segmentation network. It holds the structure and parameter list; the weights are passed in
/// with each [`Pass`].
pub struct Segmentor {
    pub(super) backbone: Backbone,
    pub(super) head: Head,
    pub(super) hrda: Option<Hrda>,
    projection: Option<ProjectionHead>,
    spec: Rc<Spec>,
    classes: usize,
}

pub(super) struct Hrda {
    /// Predicts per-class weights of detail against context from the context features; `None`
    /// weights both equally.
    pub(super) attention: Option<Head>,
    pub(super) detail_crop: usize,
    /// The distance between detail windows.
    pub(super) step: usize,
    /// How many times smaller the context image is.
    pub(super) factor: usize,
    detail_loss: f32,
    /// The detail windows for each image size (height, width) seen so far.
    windows: RefCell<HashMap<(usize, usize), Rc<Windows>>>,
}

/// The input and targets of a training pass.
pub struct Supervision<'a> {
    /// The normalized image, B,H,W,3.
    pub image: &'a Tensor,
    /// The train ids, B,H,W.
    pub label: &'a Tensor,
    /// The loss weight of each pixel, B,H,W; `None` means 1 everywhere.
    pub weight: Option<&'a Tensor>,
    /// The detail crop as y1, y2, x1, x2 (i32 on the device); unused without HRDA.
    pub detail_box: &'a Tensor,
}

/// The backbone's features for a training pass.
pub struct Features {
    /// The features of the context image, which is the whole image without HRDA.
    pub context: [Tensor; 4],
    /// The features of the detail crop; `None` without HRDA.
    pub detail: Option<[Tensor; 4]>,
}

impl Features {
    /// Returns the same features as leaves of `tape`, which collects their gradients.
    pub fn leaves(&self, tape: &Tape) -> Features {
        let leaves = |maps: &[Tensor; 4]| maps.each_ref().map(|x| tape.leaf(x));
        Features { context: leaves(&self.context), detail: self.detail.as_ref().map(leaves) }
    }

    /// Returns all feature maps, those of the context first.
    pub fn maps(&self) -> impl Iterator<Item = &Tensor> {
        self.context.iter().chain(self.detail.iter().flatten())
    }
}

/// The losses and logits of a training pass.
pub struct Output {
    /// Each loss with its weight in the total, the main loss first.
    pub losses: Vec<(Loss, f32)>,
    /// The logits, by the reference's names; with HRDA these are fused_seg, lr_seg (already
    /// multiplied by 1−attention) and hr_seg.
    pub logits: Vec<(&'static str, Tensor)>,
}

/// The outputs of an inference pass.
pub struct Parts {
    /// The resulting logits, B,H/s,W/s,classes for a stride of s.
    pub fused: Tensor,
    /// The intermediate results of HRDA; `None` without HRDA.
    pub hrda: Option<HrdaParts>,
}

/// The intermediate results from which HRDA computes its logits.
pub struct HrdaParts {
    /// The context image.
    pub small: Tensor,
    /// The logits of the context image.
    pub low: Tensor,
    /// The attention after the sigmoid.
    pub attention: Tensor,
    /// The detail windows as y1, y2, x1, x2.
    pub boxes: Vec<[usize; 4]>,
    /// The logits of the detail windows, window-major.
    pub cropped: Tensor,
    /// The average of the window logits over the whole image.
    pub high: Tensor,
}

impl Segmentor {
    /// Builds the network that the configuration describes.
    ///
    /// # Errors
    /// Returns a configuration error if a backbone or head is unknown.
    pub fn new(config: &NetworkConfig) -> Result<Segmentor> {
        let mut spec = Spec::default();
        let backbone = Backbone::new(&mut spec, "backbone", config)?;
        let mut head = |prefix: &str, role, site| {
            Head::new(&mut spec, prefix, backbone.widths(), config, role, site)
        };
        let (head, hrda) = if config.hrda.enabled {
            let decoder = head("decode_head.head", Role::Classes, HEAD_SITE)?;
            let hrda = Hrda {
                attention: match config.hrda.attention {
                    ScaleAttention::Learned => {
                        let name = "decode_head.scale_attention";
                        Some(head(name, Role::Attention, ATTENTION_SITE)?)
                    }
                    ScaleAttention::Average => None,
                },
                detail_crop: config.hrda.detail_crop,
                factor: config.hrda.factor(),
                step: config.hrda.detail_crop / if config.hrda.overlap { 2 } else { 1 },
                detail_loss: config.hrda.detail_loss,
                windows: RefCell::default(),
            };
            (decoder, Some(hrda))
        } else {
            (head("decode_head", Role::Classes, HEAD_SITE)?, None)
        };
        let projection = (config.projection > 0).then(|| {
            let of = match &backbone {
                Backbone::Mit(_) => Projected::All,
                Backbone::ResNet(_) => Projected::Last,
            };
            ProjectionHead::new(&mut spec, PROJECTION, backbone.widths(), of, config.projection)
        });
        let (spec, classes) = (Rc::new(spec), config.classes);
        Ok(Segmentor { backbone, head, hrda, projection, spec, classes })
    }

    /// Returns the list of parameters and buffers.
    pub fn spec(&self) -> &Rc<Spec> {
        &self.spec
    }

    /// Returns the backbone.
    pub fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    /// Returns whether the network has HRDA's two scales.
    pub fn is_hrda(&self) -> bool {
        self.hrda.is_some()
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the image pixels per logit position along a side.
    pub fn stride(&self) -> usize {
        self.head.stride()
    }

    /// Returns the image from which the feature distance takes its features: HRDA's context image,
    /// or the image itself.
    pub fn context(&self, pass: &Pass, image: &Tensor) -> Result<Tensor> {
        match &self.hrda {
            Some(hrda) => hrda.context(pass, image),
            None => Ok(image.clone()),
        }
    }

    /// Returns the features of the images of training passes, all on one tape.
    pub fn features(&self, passes: &[(Pass, &Supervision)]) -> Result<Vec<Features>> {
        let mut inputs = Vec::new();
        for (pass, s) in passes {
            let Some(hrda) = &self.hrda else {
                inputs.push((pass.clone(), s.image.clone()));
                continue;
            };
            // Batch norms update their running statistics in this order: context before detail.
            inputs.push((pass.part(0), hrda.context(pass, s.image)?));
            inputs.push((pass.part(1), hrda.detail(pass, s, s.image)?));
        }
        let mut levels = self.backbone.forward_each(inputs)?.into_iter();
        let missing = || Error::shape("features", "the image is too small to have features");
        let mut next = || levels.next().ok_or_else(missing);
        (passes.iter())
            .map(|_| {
                let context = next()?;
                let detail = self.hrda.as_ref().map(|_| next()).transpose()?;
                Ok(Features { context, detail })
            })
            .collect()
    }

    /// Computes logits and losses from the features. With HRDA the losses are (1 - d)·CE(fused) +
    /// d·CE(detail on its box), where d is the weight of the detail loss.
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
        let attention = hrda.attention(&context, &features.context, &low)?;
        let place = DetailBox { pixels: s.detail_box.clone(), stride: self.stride() };
        let fused = ops::hrda_fuse(tape, &low, &high, &attention, hrda.factor, Some(&place))?;
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

    /// Returns the projected features that contrast losses compare, B,h,w,C of unit length.
    ///
    /// # Errors
    /// Returns a configuration error if the network has no projection head.
    pub fn projection(&self, pass: &Pass, features: &[Tensor; 4]) -> Result<Tensor> {
        let none = || Error::config("network.projection is 0: there is no projection head");
        self.projection.as_ref().ok_or_else(none)?.forward(pass, features)
    }

    /// Returns the logits of a whole image, one position per stride, as the teacher and evaluation
    /// use them. With HRDA the detail window slides over the image. `image` is B,H,W,3 with sides
    /// that are multiples of 32.
    pub fn logits(&self, pass: &Pass, image: &Tensor) -> Result<Tensor> {
        Ok(self.logits_in_parts(pass, image)?.fused)
    }

    /// Returns the result of [`logits`](Self::logits) with its intermediate results.
    pub fn logits_in_parts(&self, pass: &Pass, image: &Tensor) -> Result<Parts> {
        let Some(hrda) = &self.hrda else {
            let features = self.backbone.forward(pass, image)?;
            return Ok(Parts { fused: self.head.forward(pass, &features)?, hrda: None });
        };
        let device = pass.tape.device();
        let small = hrda.context(pass, image)?;
        let windows = hrda.windows_over(device, image)?;
        let inputs = [small.clone(), windows.crops(device, image)?];
        let inputs = inputs.map(|image| (pass.clone(), image)).into();
        let [features, details] = <[_; 2]>::try_from(self.backbone.forward_each(inputs)?)
            .map_err(|_| Error::shape("logits", "the image is too small to have features"))?;
        let low = self.head.forward(pass, &features)?;
        let cropped = self.head.forward(pass, &details)?;
        drop(details);
        let attention = hrda.attention(pass, &features, &low)?;
        let high = windows.average(device, &cropped, self.stride())?;
        let fused = ops::hrda_fuse(pass.tape, &low, &high, &attention, hrda.factor, None)?;
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
    /// Returns the logits of the attention for the context logits `low`.
    fn attention(&self, pass: &Pass, features: &[Tensor; 4], low: &Tensor) -> Result<Tensor> {
        match &self.attention {
            Some(head) => head.forward(pass, features),
            // The sigmoid of 0 is one half.
            None => pass.tape.device().zeros(low.shape(), low.dtype()),
        }
    }

    /// Returns the context image: bilinear downsampling.
    fn context(&self, pass: &Pass, image: &Tensor) -> Result<Tensor> {
        if self.factor == 1 {
            return Ok(image.clone());
        }
        let [_, height, width, _] = image.bhwc("context")?;
        let ratio = 1.0 / self.factor as f64;
        // Images need no gradient, so nothing has to be recorded.
        let tape = Tape::inference(pass.tape.device());
        let size = (height / self.factor, width / self.factor);
        ops::resize(&tape, image, size, Some((ratio, ratio)))
    }

    /// Crops an image, a label or weights to the detail box.
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
        let (side, step) = (self.detail_crop, self.step);
        let windows = device
            .persistent(|| Windows::new(device, (height, width), (side, side), (step, step)))
            .map(Rc::new)?;
        kept.insert((height, width), windows.clone());
        Ok(windows)
    }
}
