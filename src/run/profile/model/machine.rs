//! The constants of the GPUs that times are expected for.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::rates::Rates;
use crate::device::Precision;
use crate::{Error, Result};

/// The data file. A constant changes only with a measurement on a card beside it.
const MACHINES: &str = include_str!("machines.toml");

/// A GPU.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The name on its data sheet.
    pub name: String,
    /// Number of multiprocessors.
    pub multiprocessors: usize,
    /// Clock of the multiprocessors, in Hz.
    pub clock: f64,
    /// Share of the issue slots, four in a clock of a multiprocessor, that memory-bound kernels fill.
    pub issue_share: f64,
    /// Bytes per second between device memory and the second-level cache.
    pub memory: f64,
    /// Bytes per second between the second-level cache and the multiprocessors.
    pub second_level: f64,
    /// Bytes per second between host and device.
    pub host: f64,
    /// Seconds that each call takes on top of its work.
    pub call: f64,
    /// FLOPs per second of matmuls and convolutions.
    pub products: Products,
    /// FLOPs per second of attention on tensor cores, in the forward pass.
    pub attention_forward: Products,
    /// FLOPs per second of attention on tensor cores, in the backward pass.
    pub attention_backward: Products,
    /// The peak rates of the data sheet, for the floor.
    peak: Peak,
}

/// FLOPs per second by the precision of the operands.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Products {
    f32: f64,
    tf32: f64,
    bf16: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peak {
    memory: f64,
    products: Products,
}

impl Products {
    /// Returns the rate at a precision.
    pub fn at(&self, precision: Precision) -> f64 {
        match precision {
            Precision::F32 => self.f32,
            Precision::Tf32 => self.tf32,
            Precision::Bf16 => self.bf16,
        }
    }
}

impl Machine {
    /// Returns the GPU that the data file has under this name.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name; it lists the known ones.
    pub fn named(name: &str) -> Result<Machine> {
        let mut machines = machines()?;
        let known = machines.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        machines.remove(name).ok_or_else(|| {
            Error::config(format!("--device-model: `{name}` is unknown; the choices are {known}"))
        })
    }

    /// Returns the peak rates of the data sheet.
    pub fn peak(&self, precision: Precision) -> Rates {
        Rates { memory: self.peak.memory, matrix: self.peak.products.at(precision) }
    }

    /// Instructions of warps per second on all multiprocessors.
    pub fn issue(&self) -> f64 {
        /// Schedulers of a multiprocessor, each of which issues an instruction in a clock.
        const SCHEDULERS: f64 = 4.0;
        self.multiprocessors as f64 * SCHEDULERS * self.clock * self.issue_share
    }
}

fn machines() -> Result<BTreeMap<String, Machine>> {
    toml::from_str(MACHINES).map_err(|e| Error::config(format!("machines.toml: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constant_is_within_the_peak() {
        for machine in machines().unwrap().into_values() {
            assert!(machine.memory < machine.peak.memory && machine.issue_share < 1.0);
            for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
                assert!(machine.products.at(precision) < machine.peak.products.at(precision));
            }
        }
        assert!(Machine::named("h201").unwrap_err().to_string().contains("a100, h100, h200"));
    }
}
