//! Deployed networks: the one file that a program needs to open a network.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;

use super::convert::FORMAT;
use super::identity::CONFIG;
use super::names::in_reference_names;
use super::tensor_file::{TensorFile, TensorInfo};
use super::weights::{Network, is_count, network_prefix};
use super::writer::{self, Entry};
use crate::config::Config;
use crate::nn::Segmentor;
use crate::{Error, Result};

/// The type of the numbers in an exported file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilePrecision {
    /// Single precision: the same results as with the network that was exported.
    #[default]
    F32,
    /// bfloat16: half the size, 8 bits of precision.
    Bf16,
    /// Half precision: half the size, 11 bits of precision, for numbers up to 65504.
    F16,
}

/// Writes one network of a file as safetensors, with its configuration, which names its classes and
/// their colors. Every command and [`Model`](crate::model::Model) open the result by itself.
///
/// # Errors
/// [`Error::Weights`] if `file` holds no such network, or a number has no finite value of this
/// precision; [`Error::Io`].
pub fn deploy(
    config: &Config,
    file: &TensorFile,
    network: Network,
    precision: FilePrecision,
    out: &Path,
) -> Result<()> {
    let same = |path: &Path| path.canonicalize().ok();
    if same(out).is_some_and(|out| same(file.path()) == Some(out)) {
        return Err(Error::weights(out, "is the input file: choose another name for the output"));
    }
    let translated = in_reference_names(file).map(|(_, file)| file);
    let file = translated.as_ref().unwrap_or(file);
    let prefix = network_prefix(file, network)?;
    let built = Segmentor::new(&config.network)?;
    let spec = built.spec();
    let mut entries = Vec::new();
    for param in spec.params().iter().chain(spec.buffers()) {
        // Whether a tensor may be missing is checked where the file is opened.
        let Some(info) = file.find(&format!("{prefix}{}", param.name)) else { continue };
        let real = matches!(info.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64);
        let dtype = match precision {
            _ if !real || is_count(&param.name) => info.dtype,
            FilePrecision::F32 => Dtype::F32,
            FilePrecision::Bf16 => Dtype::BF16,
            FilePrecision::F16 => Dtype::F16,
        };
        entries.push(Entry {
            name: param.name.clone(),
            dtype,
            shape: info.shape.clone(),
            bytes: Box::new(move || match real && dtype != info.dtype {
                true => rounded(file, info, dtype),
                false => file.data(info),
            }),
        });
    }
    if entries.is_empty() {
        return Err(Error::weights(file.path(), "holds no tensor of its configuration's network"));
    }
    let [key, value] = FORMAT;
    let strings = BTreeMap::from([(CONFIG.into(), config.to_toml()?), (key.into(), value.into())]);
    writer::write(out, entries, strings)
}

/// Returns a tensor's numbers in another type.
fn rounded(file: &TensorFile, info: &TensorInfo, dtype: Dtype) -> Result<Vec<u8>> {
    let numbers = file.numbers(&info.name)?;
    let bytes: Vec<u8> = match dtype {
        Dtype::BF16 => numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Dtype::F16 => numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        _ => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    let finite = match dtype {
        Dtype::BF16 => numbers.iter().all(|&x| bf16::from_f32(x).is_finite()),
        Dtype::F16 => numbers.iter().all(|&x| f16::from_f32(x).is_finite()),
        _ => true,
    };
    if !finite {
        let problem = format!("`{}` has numbers beyond the range of {dtype:?}", info.name);
        return Err(Error::weights(file.path(), problem));
    }
    Ok(bytes)
}
