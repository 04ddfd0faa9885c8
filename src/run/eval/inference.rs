//! Sliding-window inference: applies a network to windows of images and averages their logits.

use std::rc::Rc;

use super::captured::Captured;
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

/// The pixels of an image as inference takes them.
#[derive(Clone, Copy)]
pub enum Pixels<'a> {
    /// RGB bytes, H,W,3.
    Bytes(&'a [u8]),
    /// RGB from 0 to 255, H,W,3.
    Reals(&'a [f32]),
    /// RGB bytes on the device, H,W,3.
    OnDevice(&'a Tensor),
}

impl Pixels<'_> {
    fn len(&self) -> usize {
        match self {
            Pixels::Bytes(bytes) => bytes.len(),
            Pixels::Reals(reals) => reals.len(),
            Pixels::OnDevice(tensor) => tensor.len(),
        }
    }
}

/// A network with the settings of its sliding-window inference.
pub struct Predictor<'a> {
    device: &'a Device,
    network: &'a Segmentor,
    weights: &'a Weights,
    config: &'a EvalConfig,
    kept: Rc<Kept>,
    stop: Option<&'a dyn Fn() -> bool>,
}

/// What stays on the device between images.
pub(super) struct Kept {
    normalizer: ImageNormalizer,
    /// None to submit the work anew each time.
    captured: Option<Captured>,
}

impl Kept {
    /// Uploads the constants. With `captures`, work that recurs becomes a graph where the device
    /// has graphs; the network and its weights must then be the same in every call.
    pub fn new(device: &Device, captures: bool) -> Result<Kept> {
        let captured = captures.then(|| Captured::new(device));
        Ok(Kept { normalizer: ImageNormalizer::new(device)?, captured })
    }
}

impl<'a> Predictor<'a> {
    /// Creates a predictor. `weights` must belong to `network` and be on `device`.
    pub fn new(
        device: &'a Device,
        network: &'a Segmentor,
        weights: &'a Weights,
        config: &'a EvalConfig,
    ) -> Result<Predictor<'a>> {
        let kept = Rc::new(with_advice(Kept::new(device, false), config)?);
        Ok(Self::with(device, network, weights, config, kept))
    }

    pub(super) fn with(
        device: &'a Device,
        network: &'a Segmentor,
        weights: &'a Weights,
        config: &'a EvalConfig,
        kept: Rc<Kept>,
    ) -> Predictor<'a> {
        Predictor { device, network, weights, config, kept, stop: None }
    }

    /// Ends later calls with [`Error::Cancelled`] when `stop` returns true. It is asked before each
    /// forward pass, of `eval.batch` windows.
    pub fn until(self, stop: &'a dyn Fn() -> bool) -> Predictor<'a> {
        Predictor { stop: Some(stop), ..self }
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
        self.batch_logits(&[Pixels::Bytes(rgb)], width, height)
    }

    /// Returns the logits of images of one size: B,H,W,classes, before any softmax.
    ///
    /// # Errors
    /// The same as for [`logits`](Self::logits); also if there are no images, and
    /// [`Error::Cancelled`].
    pub fn batch_logits(&self, images: &[Pixels], width: usize, height: usize) -> Result<Tensor> {
        let wrong = |problem: String| Err(Error::shape("predict", problem));
        if images.is_empty() {
            return wrong("there are no images".into());
        }
        let values = elements_of(&[height, width, 3]).filter(|&values| values > 0);
        for image in images {
            if values != Some(image.len()) {
                let problem =
                    format!("{} bytes for an image of {width}x{height}, RGB", image.len());
                return wrong(problem);
            }
        }
        let checked = || {
            let logits = self.logits_in_memory(images, width, height)?;
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

    /// Computes [`batch_logits`](Self::batch_logits), whatever their numbers: those of a dry device
    /// cannot be looked at.
    pub(crate) fn logits_in_memory(
        &self,
        images: &[Pixels],
        width: usize,
        height: usize,
    ) -> Result<Tensor> {
        let device = self.device;
        // As in the reference, nothing is padded where a window fits: the last one moves back.
        let slides = |side: usize| self.config.window > 0 && side >= self.config.window;
        let padded = |side: usize| match self.network.is_hrda() && !slides(side) {
            true => side.checked_next_multiple_of(DIVISOR).unwrap_or(usize::MAX).max(SMALLEST),
            false => side.max(SMALLEST),
        };
        let (w, h) = (padded(width), padded(height));
        let window = match self.config.window {
            0 => ((h, w), (h, w)),
            side => ((side, side), (self.config.stride, self.config.stride)),
        };
        let windows = Windows::new(device, (h, w), window.0, window.1)?;
        // The images, their windows and their logits, and their logits are held at once. Without
        // room for these alone, they are refused here and not after they have taken all memory.
        let (side, classes) = (windows.size(), self.network.classes());
        let needed = || {
            let product = |factors: &[usize]| elements_of(factors).filter(|&n| n < usize::MAX >> 8);
            let pixels = product(&[images.len(), w, h])?;
            let in_windows = product(&[images.len(), windows.boxes().len(), side.0, side.1])?;
            let coarse = in_windows / self.network.stride().pow(2);
            let values = 3 * (pixels + in_windows);
            classes.checked_mul(coarse + pixels)?.checked_add(values)?.checked_mul(8)
        };
        let problem = || Error::OutOfMemory(format!("an image of {width}x{height} is too large"));
        device.require(needed().ok_or_else(problem)? / 8 * device.real().bytes())?;
        let image = self.normalized(images, [width, height], [w, h])?;
        let crops = windows.crops(device, &image)?;
        drop(image);
        let logits = windows.average(device, &self.in_batches(&crops)?, 1)?;
        if (w, h) == (width, height) {
            return Ok(logits);
        }
        let place = device.upload(&[4], &[0, height as i32, 0, width as i32])?;
        ops::crop(device, &logits, &place, (height, width), 1)
    }

    /// Returns the network's input, B,h,w,3: normalized images of one size, padded with zeros at
    /// the right and at the bottom.
    fn normalized(
        &self,
        images: &[Pixels],
        [width, height]: [usize; 2],
        [w, h]: [usize; 2],
    ) -> Result<Tensor> {
        let device = self.device;
        let all = device.empty(&[images.len(), h, w, 3])?;
        let extent = device.upload(&[1, 2], &[width as i32, height as i32])?;
        for (index, pixels) in images.iter().enumerate() {
            let mut image = all.slice(index * h * w * 3, &[1, h, w, 3])?;
            let bytes = match pixels {
                Pixels::OnDevice(tensor) if (w, h) == (width, height) => {
                    tensor.reshape(&[1, h, w, 3])?
                }
                Pixels::OnDevice(tensor) => {
                    let bytes = device.zeros(&[1, h, w, 3], DType::U8)?;
                    for row in 0..height {
                        let mut to = bytes.slice(row * w * 3, &[width * 3])?;
                        device.copy(&tensor.slice(row * width * 3, &[width * 3])?, &mut to)?;
                    }
                    bytes
                }
                Pixels::Bytes(rgb) => {
                    let mut bytes = vec![0u8; w * h * 3];
                    for (to, from) in bytes.chunks_exact_mut(3 * w).zip(rgb.chunks_exact(3 * width))
                    {
                        to[..3 * width].copy_from_slice(from);
                    }
                    device.upload(&[1, h, w, 3], &bytes)?
                }
                Pixels::Reals(rgb) => {
                    let mut values = vec![0f32; w * h * 3];
                    let rows = values.chunks_exact_mut(3 * w).zip(rgb.chunks_exact(3 * width));
                    for (to, from) in rows {
                        ops::normalized(from).zip(to).for_each(|(value, to)| *to = value);
                    }
                    device.write_real(&mut image, &values)?;
                    continue;
                }
            };
            self.kept.normalizer.normalize_into(device, &bytes, Some(&extent), &mut image)?;
        }
        Ok(all)
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
        let forward = |x: &Tensor| self.network.logits(&pass, x);
        let step = self.config.batch.max(1);
        for first in (0..count).step_by(step) {
            if self.stop.is_some_and(|stop| stop()) {
                return Err(Error::Cancelled);
            }
            let n = step.min(count - first);
            let part = crops.slice(first * h * w * 3, &[n, h, w, 3])?;
            let logits = match &self.kept.captured {
                Some(captured) => captured.run(self.device, &part, &forward)?,
                None => forward(&part)?,
            };
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
