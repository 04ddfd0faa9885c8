//! The decode head of DeepLabV2 (Chen et al. 2017): classifiers with different dilations, summed.

use crate::Result;
use crate::ops::{self, Conv};
use crate::params::{Init, Spec};
use crate::tensor::Tensor;

use super::layers::{Convolution, Pass};

/// Parallel convolutions that map the last feature level straight to the classes, without norm or
/// dropout: 3×3, but 1×1 in a branch of dilation 1, as in the reference's `ASPPModule`.
pub struct DeepLabHead {
    pub(super) branches: Vec<Convolution>,
}

impl DeepLabHead {
    /// Adds the parameters of the head to `spec`. `width` is the number of channels of the last
    /// feature level.
    pub fn new(
        spec: &mut Spec,
        prefix: &str,
        width: usize,
        classes: usize,
        dilations: &[usize],
    ) -> DeepLabHead {
        let branches = (dilations.iter().enumerate())
            .map(|(i, &dilation)| {
                let name = format!("{prefix}.aspp_modules.{i}.conv");
                let kernel = if dilation == 1 { 1 } else { 3 };
                let (geometry, init) = (Conv::same(kernel, dilation), Init::Normal(0.01));
                Convolution::new(spec, &name, [width, classes], kernel, geometry, true, init)
            })
            .collect();
        DeepLabHead { branches }
    }

    /// Returns logits of the size of the last feature level.
    ///
    /// # Errors
    /// Returns a configuration error if the head was built without dilations.
    pub fn forward(&self, pass: &Pass, [.., last]: &[Tensor; 4]) -> Result<Tensor> {
        let mut outputs = self.branches.iter().map(|branch| branch.forward(pass, last));
        let first = outputs.next().unwrap_or_else(|| {
            Err(crate::Error::config("network.dilations: at least one is needed"))
        })?;
        let sum = outputs.try_fold(first, |sum, next| ops::add(pass.tape, &sum, &next?, false))?;
        ops::upcast(pass.tape, &sum)
    }
}
