//! Geometry of kernels that read logits as if they were upsampled to the picture.

use crate::device::{Device, Grid};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Shared memory that a block may have without asking the GPU for more.
const SHARED_BYTES: usize = 47 << 10;
/// Pixels of a row that a block upsamples at a time: its threads own one each.
const LONGEST_RUN: usize = 64;

/// Logits B,h,w,C seen as B,H,W,C.
#[derive(Clone, Copy)]
pub(super) struct Upsampled {
    pub batch: i64,
    pub h: i64,
    pub w: i64,
    pub channels: i64,
    pub height: i64,
    pub width: i64,
    pub ratio_y: f64,
    pub ratio_x: f64,
    /// Pixels of a run, and input cells under one at most.
    pub run: i64,
    pub cells: i64,
    /// For a loop over the B·H rows.
    pub grid: Grid,
}

impl Upsampled {
    pub fn new(
        op: &'static str,
        device: &Device,
        logits: &Tensor,
        (height, width): (usize, usize),
    ) -> Result<Upsampled> {
        let [batch, h, w, channels] = logits.bhwc(op)?;
        if logits.is_empty() || height * width == 0 {
            let problem = format!("{logits:?} seen at {height}×{width} holds nothing");
            return Err(Error::shape(op, problem));
        }
        if channels > 255 {
            let problem = format!("{channels} classes; labels are bytes, so 255 is the most");
            return Err(Error::shape(op, problem));
        }
        let (ratio_y, ratio_x) = (h as f64 / height as f64, w as f64 / width as f64);
        let cells = |run: usize| (((run - 1) as f64 * ratio_x) as usize + 3).min(w);
        // Mirrors `tile_in` of kernels/upsample.cuh, channels padded as widely as any build does.
        let padded = (channels / 16 + 1) * 16;
        let real = device.real().bytes();
        let bytes = |run: usize| ((cells(run) + run) * padded + 4 * run) * real + 4 * run;
        // The narrow type decides, so that every build cuts rows alike.
        let narrow = |run: usize| bytes(run) / real * 4;
        let run = std::iter::successors(Some(LONGEST_RUN), |run| Some(run / 2))
            .take_while(|&run| run > 0)
            .find(|&run| narrow(run) <= SHARED_BYTES)
            .ok_or_else(|| {
                let problem = format!("{channels} classes are too many to shrink {w} cells by");
                Error::shape(op, problem)
            })?;
        let grid = device.rows(batch * height, width * channels);
        Ok(Upsampled {
            batch: batch as i64,
            h: h as i64,
            w: w as i64,
            channels: channels as i64,
            height: height as i64,
            width: width as i64,
            ratio_y,
            ratio_x,
            run: run as i64,
            cells: cells(run) as i64,
            grid: grid.threads(LONGEST_RUN as u32).shared(bytes(run)),
        })
    }
}

/// Height and width of labels or weights, B,H,W beside logits of `batch` pictures.
pub(super) fn picture(op: &'static str, map: &Tensor, batch: usize) -> Result<(usize, usize)> {
    match *map.shape() {
        [b, height, width] if b == batch => Ok((height, width)),
        _ => Err(Error::shape(op, format!("expected B,H,W of {batch} pictures, got {map:?}"))),
    }
}
