//! Joins the shares of a group's processes to the whole batch, for a dump.

use std::path::PathBuf;

use bytemuck::{cast_slice, pod_collect_to_vec};

use crate::data::{Batch, Crops, RareCrops};
use crate::device::Device;
use crate::{Error, Result};

/// Returns the batch that the processes train on together, in each of them.
pub fn gather(device: &Device, batch: &Batch) -> Result<Batch> {
    if device.place().size == 1 {
        return Ok(batch.clone());
    }
    let rare = |rare: &RareCrops| {
        // Those for the mixed images over the source, and then those over the target.
        Ok::<_, Error>(RareCrops { classes: rare.classes, crops: crops(device, &rare.crops, 2)? })
    };
    Ok(Batch {
        iteration: batch.iteration,
        source: crops(device, &batch.source, 1)?,
        target: crops(device, &batch.target, 1)?,
        valid: join(device, &batch.valid, 1)?,
        rare: batch.rare.as_ref().map(rare).transpose()?,
        skipped: Vec::new(),
    })
}

/// Joins crops that come in as many `groups`, each of which has those of all processes.
fn crops(device: &Device, own: &Crops, groups: usize) -> Result<Crops> {
    let wrong = |e: serde_json::Error| Error::Training(format!("the files of a batch: {e}"));
    let files = serde_json::to_vec(&own.files).map_err(wrong)?;
    let lists = device.exchange(&files)?.into_iter();
    let lists = lists.map(|list| serde_json::from_slice(&list).map_err(wrong));
    let files: Vec<Vec<PathBuf>> = lists.collect::<Result<_>>()?;
    let extent = join(device, cast_slice(&own.extent), groups)?;
    Ok(Crops {
        batch: own.batch * device.place().size,
        size: own.size,
        rgb: join(device, &own.rgb, groups)?,
        label: join(device, &own.label, groups)?,
        extent: pod_collect_to_vec(&extent),
        files: interleaved(&files, groups),
    })
}

fn join(device: &Device, own: &[u8], groups: usize) -> Result<Vec<u8>> {
    Ok(interleaved(&device.exchange(own)?, groups))
}

/// Returns the first group of all parts, then the second, and so on.
fn interleaved<T: Clone>(parts: &[Vec<T>], groups: usize) -> Vec<T> {
    let group = |part: &Vec<T>, index: usize| {
        let length = part.len() / groups;
        part[index * length..(index + 1) * length].to_vec()
    };
    (0..groups).flat_map(|index| parts.iter().flat_map(move |part| group(part, index))).collect()
}

#[cfg(test)]
mod tests {
    use super::interleaved;

    #[test]
    fn groups_have_the_crops_of_all_processes() {
        let parts = [vec![0, 1, 10, 11], vec![2, 3, 12, 13]];
        assert_eq!(interleaved(&parts, 1), [0, 1, 10, 11, 2, 3, 12, 13]);
        assert_eq!(interleaved(&parts, 2), [0, 1, 2, 3, 10, 11, 12, 13]);
    }
}
