//! Stores a training batch in a checkpoint. The dump of a failed iteration holds its batch, so that
//! the iteration can be rerun without the dataset.

use std::path::PathBuf;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::tensor_file::TensorFile;
use super::writer::Entry;
use crate::data::resize::Size;
use crate::data::{Batch, Crops, RareCrops};
use crate::{Error, Result};

/// The metadata key of a dump's batch description; the pixels are stored as tensors.
pub const KEY: &str = "batch";

/// A batch without its pixels.
#[derive(Deserialize, Serialize)]
struct Notes {
    /// Side of the crops, but of those of a domain that has a size of its own.
    size: usize,
    source: Domain,
    target: Domain,
    rare: Option<(Domain, [u8; 2])>,
}

#[derive(Deserialize, Serialize)]
struct Domain {
    batch: usize,
    /// Width and height, unless they are `Notes::size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<[usize; 2]>,
    extent: Vec<[u32; 2]>,
    files: Vec<PathBuf>,
}

/// Returns a batch's pixels as tensors for a dump, and everything else as JSON text for the
/// metadata key [`KEY`].
///
/// # Errors
/// [`Error::Config`] if the description cannot be serialized.
pub fn entries(batch: &Batch) -> Result<(Vec<Entry<'_>>, String)> {
    let planes = |name: &str, crops: &'_ Crops| {
        [("rgb", 3, crops.rgb.clone()), ("label", 1, crops.label.clone())].map(
            |(plane, channels, bytes)| {
                let count = bytes.len() / (crops.size.width * crops.size.height * channels).max(1);
                bytes_entry(format!("batch.{name}.{plane}"), count, crops.size, channels, bytes)
            },
        )
    };
    let mut entries = Vec::new();
    entries.extend(planes("source", &batch.source));
    entries.extend(planes("target", &batch.target));
    entries.extend(batch.rare.iter().flat_map(|rare| planes("rare", &rare.crops)));
    let (size, target) = (batch.source.size.width, batch.target.size);
    let count = batch.valid.len() / (target.width * target.height).max(1);
    entries.push(bytes_entry("batch.valid".into(), count, target, 1, batch.valid.clone()));
    let domain = |crops: &Crops| Domain {
        batch: crops.batch,
        size: (crops.batch > 0 && crops.size != Size::new(size, size))
            .then_some([crops.size.width, crops.size.height]),
        extent: crops.extent.clone(),
        files: crops.files.clone(),
    };
    let notes = Notes {
        size,
        source: domain(&batch.source),
        target: domain(&batch.target),
        rare: batch.rare.as_ref().map(|rare| (domain(&rare.crops), rare.classes)),
    };
    let text = serde_json::to_string(&notes)
        .map_err(|e| Error::config(format!("cannot serialize the batch: {e}")))?;
    Ok((entries, text))
}

fn bytes_entry<'a>(
    name: String,
    count: usize,
    size: Size,
    channels: usize,
    bytes: Vec<u8>,
) -> Entry<'a> {
    let shape = vec![count, size.height, size.width, channels];
    Entry { name, dtype: Dtype::U8, shape, bytes: Box::new(move || Ok(bytes)) }
}

/// Reads the batch that [`entries`] stored and labels it with `iteration`.
///
/// # Errors
/// [`Error::Weights`] if the file holds no batch or an incomplete one.
pub fn read(file: &TensorFile, iteration: u64) -> Result<Batch> {
    let Some(text) = file.metadata(KEY) else {
        let problem =
            "holds no iteration to replay; a run writes such a file when a value is not finite";
        return Err(Error::weights(file.path(), problem));
    };
    let notes: Notes = serde_json::from_str(text)
        .map_err(|e| Error::weights(file.path(), format!("its `{KEY}`: {e}")))?;
    let square = Size::new(notes.size, notes.size);
    let size_of =
        |domain: &Domain| domain.size.map_or(square, |[width, height]| Size::new(width, height));
    let wrong = |what: String| Error::weights(file.path(), format!("its `{KEY}`: {what}"));
    if [square, size_of(&notes.target)].iter().any(|size| size.width == 0 || size.height == 0) {
        return Err(wrong("its size is 0".into()));
    }
    // Later steps allocate by the description, so the tensors must hold what it claims.
    let plane = |name: &str, batch: usize, size: Size, channels: usize| {
        let Size { width, height } = size;
        let name = format!("batch.{name}");
        let bytes = file.exactly(&name, Dtype::U8)?;
        let shape = file.find(&name).map_or(&[][..], |info| &info.shape);
        match shape {
            [n, rest @ ..] if rest == [height, width, channels] && [0, batch].contains(n) => {
                Ok(bytes)
            }
            _ => Err(wrong(format!(
                "`{name}` has shape {shape:?}, expected {:?}",
                [batch, height, width, channels]
            ))),
        }
    };
    let crops = |name: &str, domain: Domain| {
        let size = size_of(&domain);
        let Domain { batch, extent, files, .. } = domain;
        let rgb = plane(&format!("{name}.rgb"), batch, size, 3)?;
        if batch > 0 && rgb.is_empty() {
            return Err(wrong(format!("`batch.{name}.rgb` is empty")));
        }
        if !extent.is_empty() && extent.len() != batch {
            return Err(wrong(format!("{} extents for {batch} crops", extent.len())));
        }
        let label = plane(&format!("{name}.label"), batch, size, 1)?;
        Ok::<_, Error>(Crops { batch, size, rgb, label, extent, files })
    };
    let (targets, target) = (notes.target.batch, size_of(&notes.target));
    let rare = notes.rare.map(|(domain, classes)| {
        Ok::<_, Error>(RareCrops { classes, crops: crops("rare", domain)? })
    });
    Ok(Batch {
        iteration,
        source: crops("source", notes.source)?,
        target: crops("target", notes.target)?,
        valid: plane("valid", targets, target, 1)?,
        rare: rare.transpose()?,
        skipped: Vec::new(),
    })
}
