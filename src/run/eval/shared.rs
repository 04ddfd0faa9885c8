//! An evaluation that the processes of a group share: what each has counted, put together.

use bytemuck::{cast_slice, pod_collect_to_vec};

use super::metrics::Confusion;
use crate::Result;
use crate::device::Device;

/// What is known of an image that a process has evaluated.
pub struct Seen {
    /// Width and height.
    pub size: [usize; 2],
    /// Its pixels by label and prediction.
    pub counted: Confusion,
}

/// Returns the sum of the counts of all processes.
pub fn total(device: &Device, own: &Confusion) -> Result<Confusion> {
    let mut sum = Confusion::new(own.classes());
    for counts in device.exchange(cast_slice(own.counts()))? {
        sum.merge(&Confusion::from_counts(own.classes(), pod_collect_to_vec(&counts))?)?;
    }
    Ok(sum)
}

/// Returns the images of all processes in the order of the dataset, of which each process has every
/// `size`-th from its rank on.
pub fn images(device: &Device, own: &[Seen], classes: usize) -> Result<Vec<Seen>> {
    let words = own.iter().flat_map(|seen| {
        let [width, height] = seen.size.map(|side| side as u64);
        [width, height].into_iter().chain(seen.counted.counts().iter().copied())
    });
    let words: Vec<u64> = words.collect();
    let lists = device.exchange(cast_slice(&words))?.into_iter().map(|bytes| {
        let words: Vec<u64> = pod_collect_to_vec(&bytes);
        let image = |words: &[u64]| {
            let (size, counts) = words.split_at(2);
            let counted = Confusion::from_counts(classes, counts.to_vec())?;
            Ok(Seen { size: [size[0] as usize, size[1] as usize], counted })
        };
        words.chunks(2 + classes * classes).map(image).collect::<Result<Vec<_>>>()
    });
    let mut lists: Vec<_> = lists.map(|list| list.map(Vec::into_iter)).collect::<Result<_>>()?;
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(lists.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return Ok(all);
        }
    }
}
