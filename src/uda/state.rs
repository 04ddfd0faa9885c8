//! Training state on the device that persists between iterations.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config::Config;
use crate::device::group::Slots;
use crate::device::{Device, GraphCache};
use crate::nn::{PROJECTION, Segmentor};
use crate::ops::ImageNormalizer;
use crate::ops::mix::CropNormalization;
use crate::optimizer::Optimizer;
use crate::params::Weights;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

use super::averaged::Averaged;
use super::batch::BatchBuffers;
use super::contrast::Contrast;
use super::inputs::{StepInputs, UploadedInputs};
use super::report::TermName;
use super::templates::Templates;

/// What an iteration does. Apart from the configuration, it is the only thing that the work of an
/// iteration depends on, so each phase has its own CUDA graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Phase {
    pub mixing: Mixing,
    /// Whether there are contrast losses.
    pub contrast: bool,
}

/// Mixing method of an iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mixing {
    ClassMix,
    QuadMix,
}

/// Training state: networks, optimizer and buffers.
pub struct TrainingState {
    /// Device that everything runs on.
    pub device: Device,
    /// Configuration of the run.
    pub config: Config,
    /// Network architecture, shared by student and teacher.
    pub network: Segmentor,
    /// Weights of the student.
    pub student: Weights,
    /// Weights of the teacher; None for a method without pseudo-labels.
    pub teacher: Option<Weights>,
    /// Frozen ImageNet weights that the feature distance compares with; None if it is disabled.
    pub imagenet: Option<Weights>,
    /// Optimizer of the student.
    pub optimizer: Optimizer,
    /// Buffers of the current batch.
    pub batch: BatchBuffers,
    /// Images of the previous iteration, for QuadMix.
    pub templates: Templates,
    /// Class statistics; None without contrast.
    pub contrast: Option<Contrast>,
    /// Flag that the first loss or gradient that is not finite sets. From then on, no iteration
    /// changes the state.
    pub failed: Tensor,
    pub(super) normalizer: ImageNormalizer,
    /// Normalization of long-tail crops.
    pub(super) crop_normalization: CropNormalization,
    /// 256 values: 1 for the classes that the feature distance compares.
    pub(super) thing_classes: Tensor,
    pub(super) inputs: UploadedInputs,
    /// Gradients and terms as the processes of a group average them.
    pub(super) averaged: Averaged,
    /// This process's images of the batch.
    pub(super) slots: Slots,
    /// Whether this process was asked to stop.
    pub(super) stop: bool,
    /// Shared ownership, so that the captured work can borrow the state mutably.
    pub(super) graphs: Rc<RefCell<GraphCache<Phase, Vec<TermName>>>>,
}

impl TrainingState {
    /// Creates the training state. `student` and `imagenet` must be loaded or initialized; the
    /// teacher starts as a copy of the student.
    pub fn new(
        device: &Device,
        config: &Config,
        network: Segmentor,
        mut student: Weights,
        imagenet: Option<Weights>,
    ) -> Result<TrainingState> {
        let slots = device.place().slots(config.data.batch)?;
        if config.contrast.enabled && device.place().size > 1 {
            let problem = "contrast.enabled: class statistics are not shared by several processes \
                           yet; train in one process";
            return Err(Error::config(problem));
        }
        let mut teacher = match config.teacher.enabled {
            false => None,
            true => {
                let mut teacher = Weights::new(device, network.spec(), false)?;
                teacher.copy_values(device, &student)?;
                device.copy(&student.buffers, &mut teacher.buffers)?;
                Some(teacher)
            }
        };
        // Without a list, every position counts, unlabeled ones too.
        let classes = &config.feature_distance.classes;
        let mut things = vec![u8::from(classes.is_empty()); 256];
        classes.iter().for_each(|&class| things[class as usize] = 1);
        let normalizer = ImageNormalizer::new(device)?;
        let crop_normalization = if config.quadmix.released_colors {
            let gain = device.upload_real(&[3], &[1.0 / 255.0; 3])?;
            CropNormalization { gain, reversed: true }
        } else {
            CropNormalization { gain: normalizer.inverse_std.clone(), reversed: false }
        };
        let mut optimizer = Optimizer::new(device, &student, (&config.optimizer).into(), |name| {
            config.optimizer.multipliers(name)
        })?;
        if config.contrast.enabled {
            optimizer.delay(&student, PROJECTION)?;
        }
        Ok(TrainingState {
            optimizer,
            averaged: Averaged::new(device, &mut student, teacher.as_mut())?,
            templates: Templates::new(device, config, slots)?,
            contrast: Contrast::new(device, config)?,
            failed: device.zeros(&[1], DType::I32)?,
            normalizer,
            crop_normalization,
            thing_classes: device.upload(&[256], &things)?,
            inputs: UploadedInputs::new(device, &StepInputs::draw(config, 0, 0).of_slots(slots))?,
            batch: BatchBuffers::new(device, config)?,
            graphs: Rc::new(RefCell::new(GraphCache::new(device, config.device.cuda_graph))),
            device: device.clone(),
            config: config.clone(),
            network,
            student,
            teacher,
            imagenet,
            slots,
            stop: false,
        })
    }

    /// Returns this process's images of the batch.
    pub fn slots(&self) -> Slots {
        self.slots
    }

    /// Lets all processes of the group learn, with the report of the next iteration that is submitted,
    /// that this one was asked to stop.
    pub fn ask_to_stop(&mut self) {
        self.stop = true;
    }

    /// Draws the inputs of an iteration, for the images of all processes.
    pub fn draw(&self, iteration: u64) -> StepInputs {
        StepInputs::draw(&self.config, iteration, self.optimizer.first)
    }
}
