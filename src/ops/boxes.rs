//! The class-balanced crop (SePiCo, Xie et al. 2023): the choice of a box by the classes in it.

use crate::device::constants::label::LABEL_VALUES;
use crate::device::{Device, Grid, kernels};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// Parts into which a box is split for counting.
const PARTS: usize = 32;

/// Returns for each image the box with the most balanced classes, i32 B,4: the first with the
/// largest Σ ln n_c over the classes with n_c > 1 pixels, where a box in which one class has
/// `max_share` or more of the labeled pixels counts 0. label: u8 B,H,W; boxes: i32 B,n,4, each y1,
/// y2, x1, x2 in pixels.
///
/// # Errors
/// Returns a shape error if the shapes do not match.
pub fn most_balanced(
    device: &Device,
    label: &Tensor,
    boxes: &Tensor,
    max_share: f64,
) -> Result<Tensor> {
    let (&[batch, height, width], &[images, many, 4]) = (label.shape(), boxes.shape()) else {
        return Err(Error::shape("most_balanced", format!("boxes {boxes:?} of labels {label:?}")));
    };
    if images != batch || many == 0 {
        return Err(Error::shape("most_balanced", format!("boxes {boxes:?} of labels {label:?}")));
    }
    let parts = PARTS;
    let mut counts = device.alloc(&[batch * many, parts, LABEL_VALUES], DType::I32)?;
    kernels::CountInBoxes { label, boxes, counts: &mut counts, batch, many, parts, height, width }
        .launch(device, Grid::blocks(batch * many * parts))?;
    let mut scores = device.empty(&[batch * many])?;
    kernels::ScoreBoxes {
        counts: &counts,
        scores: &mut scores,
        boxes: batch * many,
        parts,
        max_share,
    }
    .launch(device, Grid::blocks(batch * many))?;
    let mut place = device.alloc(&[batch, 4], DType::I32)?;
    kernels::ChooseBox { scores: &scores, boxes, place: &mut place, batch, many }
        .launch(device, Grid::blocks(1).threads(32))?;
    Ok(place)
}
