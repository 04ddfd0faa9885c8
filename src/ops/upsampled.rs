//! The launch geometry of kernels that read logits as if they were upsampled to the image.

use crate::device::constants::upsample::HOST_LANES;
use crate::device::{Device, Grid};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Bytes of shared memory that a block can have without raising the kernel's limit.
const SHARED_BYTES: usize = 47 << 10;
/// Pixels of a row that a block upsamples at a time; each of its threads owns one.
const LONGEST_RUN: usize = 64;

/// Logits B,h,w,C read as B,H,W,C.
#[derive(Clone, Copy)]
pub(super) struct Upsampled {
    /// The batch size of the logits; the next three are their other dimensions.
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub ratio_y: f64,
    pub ratio_x: f64,
    /// Pixels per run, and the maximum number of logit positions under a run.
    pub run: usize,
    pub cells: usize,
    /// The grid of a loop over the B·H rows.
    pub grid: Grid,
}

impl Upsampled {
    pub fn new(
        op: &'static str,
        device: &Device,
        logits: &Tensor,
        size: (usize, usize),
    ) -> Result<Upsampled> {
        let [batch, height, width, channels] = logits.bhwc(op)?;
        if logits.is_empty() || size.0 * size.1 == 0 {
            let problem = format!("{logits:?} upsampled to {}×{} is empty", size.0, size.1);
            return Err(Error::shape(op, problem));
        }
        if channels > 255 {
            let problem =
                format!("{channels} classes; labels are bytes, so at most 255 are possible");
            return Err(Error::shape(op, problem));
        }
        let (ratio_y, ratio_x) = (height as f64 / size.0 as f64, width as f64 / size.1 as f64);
        let cells = |run: usize| (((run - 1) as f64 * ratio_x) as usize + 3).min(width);
        // The layout of `tile_in` in kernels/upsample.cuh, with channels padded to the widest
        // vector of any build.
        let padded = (channels / HOST_LANES + 1) * HOST_LANES;
        let real = device.real().bytes();
        let bytes = |run: usize| ((cells(run) + run) * padded + 4 * run) * real + 4 * run;
        // Sizes in single precision decide, so that every build splits rows in the same way.
        let narrow = |run: usize| bytes(run) / real * 4;
        let run = std::iter::successors(Some(LONGEST_RUN), |run| Some(run / 2))
            .take_while(|&run| run > 0)
            .find(|&run| narrow(run) <= SHARED_BYTES)
            .ok_or_else(|| {
                let problem = format!("{channels} classes are too many to downscale {width} cells");
                Error::shape(op, problem)
            })?;
        let grid = device.rows(batch * size.0, size.1 * channels);
        Ok(Upsampled {
            batch,
            height,
            width,
            channels,
            ratio_y,
            ratio_x,
            run,
            cells: cells(run),
            grid: grid.threads(LONGEST_RUN as u32).shared(bytes(run)),
        })
    }
}

/// Returns the height and width of labels or weights, which must be B,H,W for logits of `batch`
/// images.
pub(super) fn image(op: &'static str, map: &Tensor, batch: usize) -> Result<(usize, usize)> {
    match *map.shape() {
        [b, height, width] if b == batch => Ok((height, width)),
        _ => Err(Error::shape(op, format!("expected B,H,W of {batch} images, got {map:?}"))),
    }
}
