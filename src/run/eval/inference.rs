//! Sliding-window inference: applies a network to windows of an image and averages their logits.

use super::memory::with_advice;
use crate::config::EvalConfig;
use crate::device::Device;
use crate::nn::{BatchNormMode, Pass, Segmentor};
use crate::ops::{self, ImageNormalizer, Windows};
use crate::params::Weights;
use crate::tape::Tape;
use crate::tensor::{DType, Tensor, elements_of};
use crate::{Error, Result};

/// HRDA needs sides that are multiples of this, so that the grids of its two scales meet.
pub const DIVISOR: usize = 32;
/// The smallest side that both of HRDA's scales support.
pub const SMALLEST: usize = 64;

/// A network with the settings of its sliding-window inference.
pub struct Predictor<'a> {
    device: &'a Device,
    network: &'a Segmentor,
    weights: &'a Weights,
    normalizer: ImageNormalizer,
    config: &'a EvalConfig,
}

impl<'a> Predictor<'a> {
    /// Creates a predictor. `weights` must belong to `network` and be on `device`.
    pub fn new(
        device: &'a Device,
        network: &'a Segmentor,
        weights: &'a Weights,
        config: &'a EvalConfig,
    ) -> Result<Predictor<'a>> {
        let normalizer = with_advice(ImageNormalizer::new(device), config)?;
        Ok(Predictor { device, network, weights, normalizer, config })
    }

    /// Returns the device.
    pub fn device(&self) -> &Device {
        self.device
    }

    /// Returns the logits of an image given as H,W,3 RGB bytes: 1,H,W,classes, before any softmax.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side is 0, or `rgb` has another length; [`Error::OutOfMemory`], with
    /// settings that need less; [`Error::NotFinite`] if a logit is not finite.
    pub fn logits(&self, rgb: &[u8], width: usize, height: usize) -> Result<Tensor> {
        let bytes = elements_of(&[height, width, 3]);
        if width == 0 || height == 0 || bytes != Some(rgb.len()) {
            let problem = format!("{} bytes for an image of {width}x{height}, RGB", rgb.len());
            return Err(Error::shape("predict", problem));
        }
        let checked = || {
            let logits = self.logits_in_memory(rgb, width, height)?;
            let mut failed = self.device.zeros(&[1], DType::I32)?;
            ops::flag_not_finite(self.device, &logits, &mut failed)?;
            Ok::<_, Error>((logits, self.device.read::<i32>(&failed)?))
        };
        let (logits, failed) = with_advice(checked(), self.config)?;
        if failed != [0] {
            let problem = "the network's logits are not finite, so they name no classes: other \
                           weights are needed (`udass-raw weights verify` checks a file)";
            return Err(Error::NotFinite(problem.into()));
        }
        Ok(logits)
    }

    fn logits_in_memory(&self, rgb: &[u8], width: usize, height: usize) -> Result<Tensor> {
        let device = self.device;
        // As in the reference, nothing is padded where a window fits: the last one moves back.
        let slides = |side: usize| self.config.window > 0 && side >= self.config.window;
        let padded = |side: usize| match self.network.is_hrda() && !slides(side) {
            true => side.next_multiple_of(DIVISOR).max(SMALLEST),
            false => side.max(SMALLEST),
        };
        let (w, h) = (padded(width), padded(height));
        let (window, step) = match self.config.window {
            0 => ((h, w), (h, w)),
            side => ((side, side), (self.config.stride, self.config.stride)),
        };
        let windows = Windows::new(device, (h, w), window, step)?;
        // The image, its windows and their logits, and its logits are held at once. Without room for
        // these alone, it is refused here and not after it has taken all memory.
        let (side, classes) = (windows.size(), self.network.classes());
        let (pixels, in_windows) = (w * h, windows.boxes().len() * side.0 * side.1);
        let coarse = in_windows / self.network.stride().pow(2);
        let values = 3 * pixels + 3 * in_windows + classes * (coarse + pixels);
        device.require(values * device.real().bytes())?;
        let mut bytes = vec![0u8; w * h * 3];
        for (to, from) in bytes.chunks_exact_mut(3 * w).zip(rgb.chunks_exact(3 * width)) {
            to[..3 * width].copy_from_slice(from);
        }
        let bytes = device.upload(&[1, h, w, 3], &bytes)?;
        let image = self.normalizer.normalize(device, &bytes, &[[width as u32, height as u32]])?;
        let crops = windows.crops(device, &image)?;
        let logits = windows.average(device, &self.in_batches(&crops)?, 1)?;
        if (w, h) == (width, height) {
            return Ok(logits);
        }
        let place = device.upload(&[4], &[0, height as i32, 0, width as i32])?;
        ops::crop(device, &logits, &place, (height, width), 1)
    }

    /// Scales logits to `size` (height, width) and returns the class of every pixel.
    pub fn classes(&self, logits: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        with_advice(ops::predict(self.device, logits, size), self.config)
    }

    /// Appends settings that need less to an out-of-memory error.
    pub(super) fn with_advice<R>(&self, result: Result<R>) -> Result<R> {
        with_advice(result, self.config)
    }

    /// Computes the logits of all windows, `eval.batch` windows at a time.
    fn in_batches(&self, crops: &Tensor) -> Result<Tensor> {
        let [count, h, w, _] = crops.bhwc("predict")?;
        let mut all: Option<Tensor> = None;
        let tape = Tape::inference(self.device);
        let pass = Pass {
            tape: &tape,
            weights: self.weights,
            batch_norm: BatchNormMode::Eval,
            dropout_rng: None,
        };
        let step = self.config.batch.max(1);
        for first in (0..count).step_by(step) {
            let n = step.min(count - first);
            let part = crops.slice(first * h * w * 3, &[n, h, w, 3])?;
            let logits = self.network.logits(&pass, &part)?;
            let [_, rows, columns, classes] = logits.bhwc("predict")?;
            let shape = [count, rows, columns, classes];
            let all = match &mut all {
                Some(all) => all,
                none => none.insert(self.device.empty(&shape)?),
            };
            let mut place = all.slice(first * rows * columns * classes, logits.shape())?;
            self.device.copy(&logits, &mut place)?;
        }
        all.ok_or_else(|| Error::shape("predict", "no windows"))
    }
}
