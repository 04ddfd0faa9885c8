//! What a model gives, and where to.

use crate::{Error, Result};

/// What to compute for each pixel, and the buffer for it: B,H,W for class indices and B,H,W,classes
/// for numbers, without gaps.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output<'a> {
    /// The index of the most likely class.
    Labels(&'a mut [u8]),
    /// The probability of each class: the softmax of the logits.
    Probabilities(&'a mut [f32]),
    /// The network's numbers for each class, before any softmax, averaged over the windows.
    Logits(&'a mut [f32]),
    /// One of these in the device's memory.
    OnDevice(DeviceOutput),
}

/// What to compute for each pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// See [`Output::Labels`].
    Labels,
    /// See [`Output::Probabilities`].
    Probabilities,
    /// See [`Output::Logits`].
    Logits,
}

/// A buffer in the memory of the model's device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceOutput {
    pub(super) kind: Kind,
    pub(super) address: u64,
    pub(super) length: usize,
}

impl DeviceOutput {
    /// Takes a buffer of `length` elements (bytes, or numbers in single precision) in the memory of
    /// the model's GPU. On the CPU, this is an address in the memory of the process.
    ///
    /// # Errors
    /// [`Error::Shape`] if the address is 0 or not a multiple of the elements' size, or memory
    /// cannot be as large.
    ///
    /// # Safety
    /// The buffer holds as many elements, and nothing else accesses it until the call that fills it
    /// returns and its work on the model's stream is finished.
    pub unsafe fn new(kind: Kind, address: u64, length: usize) -> Result<DeviceOutput> {
        let size = if kind == Kind::Labels { 1 } else { size_of::<f32>() };
        let bytes = length.checked_mul(size).filter(|&bytes| bytes <= isize::MAX as usize);
        if address == 0 || !address.is_multiple_of(size as u64) || bytes.is_none() {
            let problem = format!("{length} elements of {size} bytes at {address:#x}");
            return Err(Error::shape("output", problem));
        }
        Ok(DeviceOutput { kind, address, length })
    }
}

impl Output<'_> {
    /// Returns what to compute.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Output::Labels(_) => Kind::Labels,
            Output::Probabilities(_) => Kind::Probabilities,
            Output::Logits(_) => Kind::Logits,
            Output::OnDevice(output) => output.kind,
        }
    }

    /// Refuses a buffer that does not hold exactly the result for these images.
    pub(super) fn check(&self, images: usize, size: [usize; 2], classes: usize) -> Result<()> {
        let held = match self {
            Output::Labels(buffer) => buffer.len(),
            Output::Probabilities(buffer) | Output::Logits(buffer) => buffer.len(),
            Output::OnDevice(output) => output.length,
        };
        let each = if self.kind() == Kind::Labels { 1 } else { classes };
        let factors = [images, size[0], size[1], each];
        let wanted = factors.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        if wanted == Some(held) {
            return Ok(());
        }
        let [width, height] = size;
        let kind = self.kind();
        Err(model_error(format!(
            "a buffer of {held} elements for {kind:?} of {images} x {width}x{height} x {each}"
        )))
    }
}

pub(super) fn model_error(problem: String) -> Error {
    Error::shape("segment", problem)
}

/// Turns logits, `classes` for each pixel, into probabilities.
pub(super) fn softmax(logits: &mut [f32], classes: usize) {
    for pixel in logits.chunks_exact_mut(classes.max(1)) {
        let most = pixel.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        pixel.iter_mut().for_each(|logit| *logit = (*logit - most).exp());
        let sum: f32 = pixel.iter().sum();
        pixel.iter_mut().for_each(|share| *share /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_1_and_do_not_overflow() {
        let mut logits = [0.0, 0.0, 1000.0, -1000.0, 3.0f32.ln(), 0.0];
        softmax(&mut logits, 2);
        let wanted = [0.5, 0.5, 1.0, 0.0, 0.75, 0.25];
        for (share, wanted) in logits.iter().zip(wanted) {
            assert!((share - wanted).abs() < 1e-6, "{logits:?}");
        }
    }

    #[test]
    fn a_buffer_holds_exactly_the_result() {
        let (mut bytes, mut reals) = ([0; 12], [0.0; 24]);
        assert!(Output::Labels(&mut bytes).check(2, [3, 2], 5).is_ok());
        assert!(Output::Labels(&mut bytes).check(1, [3, 2], 5).is_err());
        assert!(Output::Labels(&mut bytes).check(1, [usize::MAX, 2], 5).is_err());
        assert!(Output::Logits(&mut reals).check(2, [3, 2], 2).is_ok());
        assert!(Output::Probabilities(&mut reals).check(2, [3, 2], 3).is_err());
        // SAFETY: nothing is written: the values are only looked at.
        let at = |kind, address, length| unsafe { DeviceOutput::new(kind, address, length) };
        assert!(at(Kind::Labels, 0, 1).is_err());
        assert!(at(Kind::Logits, 2, 1).is_err());
        assert!(at(Kind::Logits, 4, usize::MAX / 2).is_err());
        assert!(at(Kind::Labels, 3, 1).is_ok());
    }
}
