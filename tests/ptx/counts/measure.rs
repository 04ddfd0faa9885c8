//! Counts what a launch executes, by executing some of its blocks.

use std::collections::BTreeMap;

use ptx::{Class, Memory, Options, Target, Tensor};
use udass_raw::device::Types;
use udass_raw::device::profile::{Argument, Launch};
use udass_raw::tensor::DType;

use crate::programs;

/// Blocks of a launch that are counted, or one more.
const BLOCKS: u32 = 12;
/// Tensors of up to this many elements are filled with numbers other than 0.
const SMALL: usize = 1 << 24;
/// Pixels of a run of one class in labels.
const RUN: usize = 64;
/// Offsets at which the weights of a blur are not 0, as for a deviation of one pixel.
const REACH: usize = 13;

/// What a whole launch executes, extrapolated from the executed blocks.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Instructions of warps, by class.
    pub executed: BTreeMap<&'static str, f64>,
    /// Sectors that loads take from the second-level cache.
    pub loads: f64,
    /// Sectors that stores write.
    pub stores: f64,
}

/// Returns a scalar argument by name.
pub fn scalar(launch: &Launch, name: &str) -> Option<i64> {
    let at = launch.kernel.parameters.iter().position(|parameter| parameter.name == name)?;
    match launch.arguments.get(at)? {
        Argument::I64(value) => Some(*value),
        Argument::I32(value) => Some((*value).into()),
        _ => None,
    }
}

/// Writes what decides how much a kernel does: switches, places, labels. The rest stays 0.
fn fill(launch: &Launch, name: &str, dtype: DType, bytes: &mut [u8]) {
    let integers = |bytes: &mut [u8], of: &dyn Fn(usize) -> i32| {
        for (i, four) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *four = of(i).to_le_bytes();
        }
    };
    if bytes.len() > SMALL {
        return;
    }
    match (name, dtype) {
        ("switches", _) => integers(bytes, &|_| 1),
        ("order", _) => integers(bytes, &|i| i as i32 % 4),
        ("extent", _) => integers(bytes, &|_| 1 << 20),
        // The middle quarter of what HRDA looks at in detail.
        ("place", _) => {
            let size = |name| scalar(launch, name).unwrap_or(0) as i32;
            let sides = [size("height"), size("width")].map(|side| side * size("stride") / 2);
            integers(bytes, &|i| if i % 2 == 1 { sides[i / 2 % 2] } else { 0 });
        }
        ("weights", _) if launch.kernel.name.starts_with("blur_") => {
            let half = scalar(launch, "half").unwrap_or(0) as usize + 1;
            integers(bytes, &|i| if i % half <= REACH { 1f32.to_bits() as i32 } else { 0 });
        }
        ("factors" | "sigma", _) => integers(bytes, &|_| 1f32.to_bits() as i32),
        (_, DType::U8) if name.contains("label") => {
            bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i / RUN % 19) as u8);
        }
        (_, DType::U8) if name.contains("present") || name.contains("classes") => {
            bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = u8::from(i % 256 < 19));
        }
        _ => {}
    }
}

/// Executes some blocks of a launch.
pub fn count(launch: &Launch, types: Types) -> Result<Counted, String> {
    let arch = programs::ARCHITECTURES[0];
    let target = Target { types: programs::name_of(types), arch, contract: true };
    let program = programs::program(launch.kernel, target)?;
    let mut memory = Memory::default();
    let mut arguments = Vec::new();
    for argument in &launch.arguments {
        arguments.push(match argument {
            Argument::Tensor { name, shape, dtype, .. } => {
                let elements: usize = shape.iter().product();
                let mut bytes = vec![0; elements * dtype.bytes()];
                fill(launch, name, *dtype, &mut bytes);
                let (name, element) = (name.to_string(), dtype.bytes() as u32);
                let tensor = Tensor { name, bytes, element, written: true, misalignment: 0 };
                memory.add_unwatched(tensor)
            }
            Argument::Absent => 0,
            Argument::I64(value) => *value as u64,
            Argument::I32(value) => *value as u32 as u64,
            Argument::U64(value) => *value,
            Argument::Real(value) => (*value as f32).to_bits().into(),
        });
    }
    let blocks = launch.grid.blocks as u32;
    let options = Options {
        // Odd, so that not every counted block is at the same place of a row or an image.
        one_block_of: (blocks / (BLOCKS + 1)) | 1,
        warm_up: true,
        patience: 1 << 30,
        ..Options::default()
    };
    let launch = ptx::Launch {
        program: &program,
        arguments: &arguments,
        blocks,
        threads: launch.grid.threads,
        shared: launch.grid.shared as u32,
    };
    let statistics = ptx::run(&mut memory, &launch, options).map_err(|e| e.to_string())?;
    let scale = f64::from(blocks) / statistics.blocks as f64;
    let executed = (Class::ALL.iter())
        .map(|&class| (class.name(), scale * statistics.of(class).warps as f64))
        .filter(|(_, count)| *count > 0.0)
        .collect();
    let loads = scale * statistics.global_loads.missed as f64;
    let stores = scale * statistics.global_stores.sectors as f64;
    Ok(Counted { executed, loads, stores })
}
