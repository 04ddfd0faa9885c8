//! The feature distance of DAFormer, which keeps the student's features of thing classes close to
//! those of the ImageNet model.

use super::labels::downscale_labels;
use crate::device::constants::label::LABEL_VALUES;
use crate::device::{Grid, kernels};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The result of [`feature_distance`]; each tensor holds one number.
pub struct Distance {
    /// The mean over the masked positions of the whole batch (of all processes), or 0 without a
    /// gradient if there are none.
    pub value: Tensor,
    /// The number of masked positions in the whole batch.
    pub count: Tensor,
}

/// Returns the mean L2 distance, over channels, between features `f1` and `f2`, both B,h,w,C. The
/// mean covers the positions whose label, scaled down with `min_share` ([`downscale_labels`]), is
/// one of `classes` (u8, 256 flags). labels: u8 B,H,W, where W/w is the scale. The gradient goes to
/// `f1`.
///
/// # Errors
/// Returns a shape error if the shapes do not match.
pub fn feature_distance(
    tape: &Tape,
    f1: &Tensor,
    f2: &Tensor,
    labels: &Tensor,
    classes: &Tensor,
    min_share: f64,
) -> Result<Distance> {
    const OP: &str = "feature_distance";
    let device = tape.device();
    let [batch, h, w, channels] = f1.bhwc(OP)?;
    if f2.shape() != f1.shape() || classes.len() != LABEL_VALUES || labels.shape().len() != 3 {
        let problem = format!("{f1:?} and {f2:?}, labels {labels:?}, {} classes", classes.len());
        return Err(Error::shape(OP, problem));
    }
    let small = downscale_labels(device, labels, labels.dim(2) / w.max(1), min_share)?;
    if small.shape() != [batch, h, w] {
        let problem = format!("labels {labels:?} scaled down are {small:?}, features {f1:?}");
        return Err(Error::shape(OP, problem));
    }
    let rows = batch * h * w;
    let grid = device.rows(rows, channels);
    let mut distance = device.empty(&[rows])?;
    kernels::FeatureDistanceRows {
        f1,
        f2,
        labels: &small,
        classes,
        distance: &mut distance,
        rows,
        channels,
    }
    .launch(device, grid)?;
    let (mut value, mut count) = (device.empty(&[1])?, device.empty(&[1])?);
    let distances = device.gather(&distance)?;
    kernels::FeatureDistanceFinal {
        distance: &distances,
        value: &mut value,
        count: &mut count,
        rows: distances.len(),
    }
    .launch(device, Grid::blocks(1))?;

    let (f1, f2, masked) = (f1.clone(), f2.clone(), count.clone());
    let value = tape.record(value, move |gradients, upstream| {
        let device = gradients.device().clone();
        gradients.write(&f1.slot, |df1, accumulate| {
            kernels::FeatureDistanceBackward {
                f1: &f1,
                f2: &f2,
                distance: &distance,
                count: &masked,
                upstream: &upstream,
                df1,
                accumulate,
                rows,
                channels,
            }
            .launch(&device, grid)
        })
    });
    Ok(Distance { value, count })
}
