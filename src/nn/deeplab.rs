//! DeepLabV2's head (Chen et al. 2017): classifiers with different dilations, summed.

use crate::Result;
use crate::ops::{self, Conv};
use crate::params::{Init, Spec};
use crate::tensor::Tensor;

use super::layers::{Convolution, Pass};

/// 3×3 convolutions from the last feature straight to the classes; no norm, no dropout.
pub struct DeepLabHead {
    branches: Vec<Convolution>,
}

impl DeepLabHead {
    /// `width`: channels of the last feature.
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
                let (geometry, init) = (Conv::same(3, dilation), Init::Normal(0.01));
                Convolution::new(spec, &name, [width, classes], 3, geometry, true, init)
            })
            .collect();
        DeepLabHead { branches }
    }

    /// Logits of the last feature's size.
    pub fn forward(&self, pass: &Pass, [.., last]: &[Tensor; 4]) -> Result<Tensor> {
        let mut outputs = self.branches.iter().map(|branch| branch.forward(pass, last));
        let first = outputs.next().unwrap_or_else(|| {
            Err(crate::Error::config("network.dilations: at least one is needed"))
        })?;
        let sum = outputs.try_fold(first, |sum, next| ops::add(pass.tape, &sum, &next?, false))?;
        ops::widen(pass.tape, &sum)
    }
}
