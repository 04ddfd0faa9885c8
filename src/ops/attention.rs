//! Multi-head attention.

use crate::Result;
use crate::device::constants::attention::{KEYS, QUERIES};
use crate::device::{Device, Grid, kernels};
use crate::tape::Tape;
use crate::tensor::Tensor;

use super::attention_mma::{self, attention_mma};
use super::attention_sizes::Sizes;

const THREADS: u32 = 128;

/// Returns `softmax(q·kᵀ/√d)·v` for every head, B,N,C; head `h` owns channels `h·d..(h+1)·d`. q:
/// B,N,C; kv: B,M,2C, keys before values.
///
/// The probabilities are not stored: the backward pass recomputes them from the log-sum-exp of each
/// query and head. Where the device rounds operands, [`attention_mma`] computes the result.
///
/// # Errors
/// Returns a shape error if the shapes do not match, or C is not a multiple of `heads`.
pub fn attention(tape: &Tape, q: &Tensor, kv: &Tensor, heads: usize) -> Result<Tensor> {
    let sizes = Sizes::new(q, kv, heads)?;
    let device = tape.device();
    if device.rounds_operands() && attention_mma::SIZES.contains(&sizes.head_dim) {
        return attention_mma(tape, q, kv, heads);
    }
    let keys = sizes.pack(device, kv, Part::Keys, true)?;
    let values = sizes.pack(device, kv, Part::Values, false)?;
    let mut y = device.empty_like(q)?;
    let mut log_sum_exp = match tape.is_recording() {
        true => Some(device.empty(&[sizes.batch, heads, sizes.queries])?),
        false => None,
    };
    let grid = sizes.grid(device, sizes.queries.div_ceil(QUERIES), 2, 1).flops(sizes.flops(2));
    kernels::AttentionForward {
        q,
        keys_across: &keys,
        values: &values,
        y: &mut y,
        log_sum_exp: log_sum_exp.as_mut(),
        queries: sizes.queries,
        keys: sizes.keys,
        heads: sizes.heads,
        head_dim: sizes.head_dim,
        width: sizes.width(),
    }
    .launch(device, grid)?;
    let Some(log_sum_exp) = log_sum_exp else { return Ok(y) };
    let (q, kv, result) = (q.clone(), kv.clone(), y.clone());
    Ok(tape.record(y, move |gradients, dy| {
        let (dq, dkv) =
            backward(gradients.device(), &sizes, (&q, &kv), &result, &dy, &log_sum_exp)?;
        gradients.give(&q.slot, dq)?;
        gradients.give(&kv.slot, dkv)
    }))
}

fn backward(
    device: &Device,
    sizes: &Sizes,
    (q, kv): (&Tensor, &Tensor),
    y: &Tensor,
    dy: &Tensor,
    log_sum_exp: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let keys_across = sizes.pack(device, kv, Part::Keys, true)?;
    let values_across = sizes.pack(device, kv, Part::Values, true)?;
    let key_rows = sizes.pack(device, kv, Part::Keys, false)?;
    // At most 64 splits, whatever the number of queries, so that summing them is cheap.
    let chunk = sizes.queries.div_ceil(64).next_multiple_of(QUERIES).max(4 * QUERIES);
    let chunks = sizes.queries.div_ceil(chunk);
    let mut dq = device.empty_like(q)?;
    let mut partial = device.empty(&[chunks, 2, keys_across.len()])?;
    let grid = sizes.grid(device, chunks, 3, 2).flops(sizes.flops(5));
    kernels::AttentionBackward {
        q,
        keys_across: &keys_across,
        values_across: &values_across,
        key_rows: &key_rows,
        y,
        dy,
        log_sum_exp,
        dq: &mut dq,
        partial: &mut partial,
        chunk,
        queries: sizes.queries,
        keys: sizes.keys,
        heads: sizes.heads,
        head_dim: sizes.head_dim,
        width: sizes.width(),
    }
    .launch(device, grid)?;
    let mut dkv = device.empty_like(kv)?;
    sizes.add_up(device, &mut partial, &mut dkv)?;
    Ok((dq, dkv))
}

#[derive(Clone, Copy)]
enum Part {
    Keys = 0,
    Values = 1,
}

impl Sizes {
    /// Packs the keys or the values into the tiles that the kernels read, with the channels
    /// `across` the rows of a tile or along them.
    fn pack(&self, device: &Device, kv: &Tensor, part: Part, across: bool) -> Result<Tensor> {
        let (tiles, width) = (self.keys.div_ceil(KEYS), self.width());
        let mut packed = device.empty(&[self.batch, self.heads, tiles, KEYS * width])?;
        let (key_step, channel_step) = if across { (1, KEYS) } else { (width, 1) };
        let grid = device.rows(packed.len() / width, width);
        kernels::AttentionPack {
            kv,
            packed: &mut packed,
            part: part as usize,
            batch: self.batch,
            keys: self.keys,
            heads: self.heads,
            head_dim: self.head_dim,
            width,
            key_step,
            channel_step,
        }
        .launch(device, grid)?;
        Ok(packed)
    }

    /// Returns the grid of `blocks` blocks per sample and head. A block has shared memory for
    /// `tiles` tiles of queries, `scores` tiles of scores and one tile of keys.
    fn grid(&self, device: &Device, blocks: usize, tiles: usize, scores: usize) -> Grid {
        let numbers = (tiles * QUERIES + KEYS) * self.width() + scores * QUERIES * KEYS;
        Grid::blocks(self.batch * self.heads * blocks)
            .threads(THREADS)
            .shared(numbers * device.real().bytes())
    }
}
