//! Everything that training keeps on the device from one iteration to the next.

use std::cell::RefCell;
use std::rc::Rc;

use crate::Result;
use crate::config::Config;
use crate::device::{Device, Replays};
use crate::nn::Segmentor;
use crate::ops::ImageNormalizer;
use crate::ops::mix::RareColours;
use crate::optimizer::Optimizer;
use crate::params::Weights;
use crate::tensor::{DType, Tensor};

use super::batch::BatchBuffers;
use super::inputs::{StepInputs, UploadedInputs};
use super::report::{MAX_TERMS, TermName};
use super::templates::Templates;

/// How target images are mixed. It is all that an iteration's work depends on besides the
/// configuration, so each has a CUDA graph of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mixing {
    ClassMix,
    QuadMix,
}

/// Networks, optimizer and buffers of a training run.
pub struct Learner {
    pub device: Device,
    pub config: Config,
    pub network: Segmentor,
    pub student: Weights,
    /// None for a method without pseudo-labels.
    pub teacher: Option<Weights>,
    /// The frozen backbone that the feature distance compares with.
    pub imagenet: Option<Weights>,
    pub optimizer: Optimizer,
    pub batch: BatchBuffers,
    pub templates: Templates,
    /// Set by the first loss or gradient that is not finite. From then on nothing else changes.
    pub failed: Tensor,
    pub(super) normalizer: ImageNormalizer,
    /// How long-tail crops are normalised.
    pub(super) crop_colours: RareColours,
    /// 256: 1 for the classes that the feature distance compares.
    pub(super) thing_classes: Tensor,
    pub(super) inputs: UploadedInputs,
    /// [`MAX_TERMS`] values: those of the last iteration's terms come first.
    pub(super) logged: Tensor,
    /// Shared, so that the work to be captured can borrow the state mutably.
    pub(super) graphs: Rc<RefCell<Replays<Mixing, Vec<TermName>>>>,
}

impl Learner {
    /// `student` and `imagenet` are loaded or initialised; the teacher starts as a copy of the
    /// student.
    pub fn new(
        device: &Device,
        config: &Config,
        network: Segmentor,
        student: Weights,
        imagenet: Option<Weights>,
    ) -> Result<Learner> {
        let teacher = match config.teacher.enabled {
            false => None,
            true => {
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
        let crop_colours = if config.quadmix.released_colors {
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
            crop_colours,
            thing_classes: device.upload(&[256], &things)?,
            inputs: UploadedInputs::new(device, &StepInputs::draw(config, 0))?,
            batch: BatchBuffers::new(device, config)?,
            logged: device.empty(&[MAX_TERMS])?,
            graphs: Rc::new(RefCell::new(Replays::new(device, config.device.cuda_graph))),
            device: device.clone(),
            config: config.clone(),
            network,
            student,
            teacher,
            imagenet,
        })
    }
}
