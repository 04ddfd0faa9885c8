//! What each kernel executes, as a function of its launch: the data file that `tests/ptx` fills and
//! checks with the interpreter of PTX.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::expression::Expression;
use crate::device::Types;
use crate::device::profile::{Argument, Launch};
use crate::{Error, Result};

/// The data file.
const KERNELS: &str = include_str!("kernels.toml");

/// The data file's content.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Instructions of the machine for each of the PTX, by class.
    pub machine: BTreeMap<String, f64>,
    /// Each kernel's counts.
    pub kernels: BTreeMap<String, Entry>,
}

/// What a kernel executes: sums of terms, each times a coefficient.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Expressions over the launch: its scalar arguments, the number of elements of its tensors (0
    /// for an absent one), `blocks`, `threads`, `warps` (of all blocks), and `flops` if its grid
    /// states them.
    pub terms: Vec<String>,
    /// Coefficients in single precision.
    #[serde(default)]
    pub f32: Coefficients,
    /// Coefficients with bf16 storage.
    #[serde(default)]
    pub bf16: Coefficients,
}

/// Coefficients of an entry's terms; empty where no launch has been counted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coefficients {
    /// Instructions that warps issue, as machine code.
    pub instructions: Vec<f64>,
    /// Sectors of 32 bytes that loads take from the second-level cache.
    pub loads: Vec<f64>,
    /// Sectors that stores write.
    pub stores: Vec<f64>,
}

/// What one launch executes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Instructions that warps issue, as machine code.
    pub instructions: f64,
    /// Sectors of 32 bytes that loads take from the second-level cache.
    pub loads: f64,
    /// Sectors that stores write.
    pub stores: f64,
}

/// The table with its expressions parsed.
pub struct KernelCounts {
    kernels: BTreeMap<String, Parsed>,
}

struct Parsed {
    terms: Vec<Expression>,
    entry: Entry,
}

impl Table {
    /// Reads the data file.
    ///
    /// # Errors
    /// [`Error::Config`] if it is damaged.
    pub fn read() -> Result<Table> {
        toml::from_str(KERNELS).map_err(|e| Error::config(format!("kernels.toml: {e}")))
    }
}

impl Entry {
    /// Returns the coefficients at a precision, or else those at the other one, which are close.
    pub fn coefficients(&self, types: Types) -> &Coefficients {
        let (of, other) = match types {
            Types::F32 | Types::F64 => (&self.f32, &self.bf16),
            Types::Bf16 => (&self.bf16, &self.f32),
        };
        if of.instructions.is_empty() { other } else { of }
    }
}

impl KernelCounts {
    /// Parses a table.
    ///
    /// # Errors
    /// [`Error::Config`] for a mistake in an expression; it names the kernel.
    pub fn new(table: Table) -> Result<KernelCounts> {
        let parsed = |(name, entry): (String, Entry)| {
            let terms = entry.terms.iter().map(|term| Expression::parse(term));
            let terms = terms.collect::<std::result::Result<Vec<_>, _>>();
            let terms = terms.map_err(|e| Error::config(format!("kernels.toml: {name}: {e}")))?;
            Ok((name, Parsed { terms, entry }))
        };
        let kernels = table.kernels.into_iter().map(parsed).collect::<Result<_>>()?;
        Ok(KernelCounts { kernels })
    }

    /// Returns what a launch executes; `None` if the table does not know the kernel.
    pub fn of(&self, launch: &Launch, types: Types) -> Option<Counts> {
        let parsed = self.kernels.get(launch.kernel.name)?;
        let values = term_values(&parsed.terms, launch)?;
        let Coefficients { instructions, loads, stores } = parsed.entry.coefficients(types);
        let sum = |coefficients: &[f64]| -> f64 {
            coefficients.iter().zip(&values).map(|(a, b)| a * b).sum()
        };
        Some(Counts { instructions: sum(instructions), loads: sum(loads), stores: sum(stores) })
    }
}

/// Returns the values of terms for a launch; `None` if one names something that the launch does not
/// have.
pub fn term_values(terms: &[Expression], launch: &Launch) -> Option<Vec<f64>> {
    terms.iter().map(|term| term.value(&|name| named(launch, name))).collect()
}

/// Threads of a warp.
const WARP: u32 = 32;

fn named(launch: &Launch, name: &str) -> Option<f64> {
    let (blocks, threads) = (launch.grid.blocks as f64, launch.grid.threads);
    match name {
        "blocks" => return Some(blocks),
        "threads" => return Some(threads.into()),
        "flops" => return Some(launch.grid.flops as f64),
        "warps" => return Some(blocks * f64::from(threads.div_ceil(WARP))),
        _ => {}
    }
    let at = launch.kernel.parameters.iter().position(|parameter| parameter.name == name)?;
    Some(match launch.arguments.get(at)? {
        Argument::Tensor { shape, .. } => shape.iter().product::<usize>() as f64,
        Argument::Absent => 0.0,
        Argument::I64(x) => *x as f64,
        Argument::I32(x) => f64::from(*x),
        Argument::U64(x) => *x as f64,
        Argument::Real(x) => *x,
    })
}
