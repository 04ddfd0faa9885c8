//! Results that an iteration reports: losses, accuracies, and whether it failed.

use crate::Result;
use crate::device::Device;
use crate::tensor::Tensor;

/// Maximum number of terms that an iteration reports.
pub(super) const MAX_TERMS: usize = 32;

/// The result of one iteration.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Losses and accuracies under the names of the reference, and `pseudo_label.weight`.
    pub terms: Vec<(String, f32)>,
    /// Whether a loss or gradient was not finite, in which case nothing was updated.
    pub failed: bool,
    /// Whether a process of the group was asked to stop ([`TrainingState::ask_to_stop`]) before it
    /// submitted the iteration.
    ///
    /// [`TrainingState::ask_to_stop`]: super::state::TrainingState::ask_to_stop
    pub stop: bool,
}

/// Name of a reported term, and the factor by which its value on the device is multiplied.
pub(super) type TermName = (String, f32);

/// Terms of the current iteration; their values are on the device.
#[derive(Default)]
pub(super) struct Terms(Vec<(TermName, Tensor)>);

impl Terms {
    /// Adds a term with the value `value · scale`.
    pub fn add(&mut self, name: impl Into<String>, value: &Tensor, scale: f32) {
        self.0.push(((name.into(), scale), value.detach()));
    }

    /// Copies the values to consecutive elements at the start of `to`, and returns that part.
    pub fn gather(&self, device: &Device, to: &Tensor) -> Result<Tensor> {
        for (i, (_, value)) in self.0.iter().enumerate() {
            device.copy(value, &mut to.slice(i, &[1])?)?;
        }
        to.slice(0, &[self.0.len()])
    }

    pub fn into_names(self) -> Vec<TermName> {
        self.0.into_iter().map(|(name, _)| name).collect()
    }
}
