//! The time that a call is expected to take.

use super::counts::{KernelCounts, Table};
use super::machine::Machine;
use crate::device::profile::{Call, Launch, Work};
use crate::device::{Precision, Types};
use crate::{Error, Result};

/// Bytes of a sector, the unit of traffic between caches.
const SECTOR: f64 = 32.0;

/// A GPU, the precision that it computes in, and what the kernels execute.
pub struct Model {
    /// The GPU.
    pub machine: Machine,
    precision: Precision,
    counts: KernelCounts,
}

/// What bounds a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The issue of instructions.
    Issue,
    /// The second-level cache.
    SecondLevel,
    /// The device's memory.
    Memory,
    /// Multiplications, of matmuls, convolutions and attention on tensor cores.
    Products,
    /// The link to the host.
    Host,
}

impl Limit {
    /// Returns the name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Issue => "issue",
            Limit::SecondLevel => "second-level cache",
            Limit::Memory => "memory",
            Limit::Products => "products",
            Limit::Host => "host",
        }
    }
}

/// The expected time of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// Seconds, with those that every call takes.
    pub seconds: f64,
    /// What bounds it.
    pub limit: Limit,
    /// Whether it runs beside other calls: the upload of the next batch.
    pub overlaps: bool,
}

impl Model {
    /// Creates the model of a GPU by its name in the data file.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name.
    pub fn new(name: &str, precision: Precision) -> Result<Model> {
        let (machine, counts) = (Machine::named(name)?, KernelCounts::new(Table::read()?)?);
        Ok(Model { machine, precision, counts })
    }

    /// Returns the time that a call is expected to take.
    ///
    /// # Errors
    /// [`Error::Config`] for a kernel that the data file does not have.
    pub fn expected(&self, call: &Call) -> Result<Expected> {
        let machine = &self.machine;
        let memory = (call.bytes / machine.memory, Limit::Memory);
        let products = |rate: f64| (call.flops / rate, Limit::Products);
        let rate = machine.products.at(self.precision);
        let (work, limit) = match &call.work {
            Work::Matmul { .. } | Work::Convolution { .. } => longest(&[memory, products(rate)]),
            Work::Memory("send" | "write" | "read") => (call.bytes / machine.host, Limit::Host),
            Work::Memory(_) => memory,
            Work::Kernel(launch) => match self.tensor_core_rate(launch) {
                Some(rate) => longest(&[memory, products(rate)]),
                None => {
                    let [issue, second_level] = self.kernel(launch)?;
                    longest(&[memory, issue, second_level])
                }
            },
        };
        let overlaps = matches!(call.work, Work::Memory("send"));
        Ok(Expected { seconds: work + machine.call, limit, overlaps })
    }

    /// Returns the rate of attention on tensor cores; `None` for other kernels.
    fn tensor_core_rate(&self, launch: &Launch) -> Option<f64> {
        let rates = match launch.kernel.name {
            "attention_mma_forward" => self.machine.attention_forward,
            "attention_mma_queries" | "attention_mma_keys" => self.machine.attention_backward,
            _ => return None,
        };
        Some(rates.at(self.precision))
    }

    /// Returns the times that a kernel takes to issue its instructions and to move its sectors.
    fn kernel(&self, launch: &Launch) -> Result<[(f64, Limit); 2]> {
        let types = match self.precision {
            Precision::F32 | Precision::Tf32 => Types::F32,
            Precision::Bf16 => Types::Bf16,
        };
        let counts = self.counts.of(launch, types).ok_or_else(|| {
            let name = launch.kernel.name;
            Error::config(format!("kernels.toml: nothing is known of such a launch of {name}"))
        })?;
        // Blocks that are fewer than the multiprocessors leave some without work.
        let busy = (launch.grid.blocks as f64 / self.machine.multiprocessors as f64).min(1.0);
        let issue = counts.instructions / (self.machine.issue() * busy);
        let sectors = SECTOR * (counts.loads + counts.stores);
        let second_level = sectors / (self.machine.second_level * busy);
        Ok([(issue, Limit::Issue), (second_level, Limit::SecondLevel)])
    }
}

fn longest(times: &[(f64, Limit)]) -> (f64, Limit) {
    let longer = |a: (f64, Limit), b: &(f64, Limit)| if b.0 > a.0 { *b } else { a };
    times.iter().fold((0.0, Limit::Memory), longer)
}
