//! Multi-head attention.

use crate::Result;
use crate::device::constants::attention::{KEYS, QUERIES};
use crate::device::{Device, Grid, kernels};
use crate::tape::Tape;
use crate::tensor::Tensor;

use super::attention_mma::{self, attention_mma};
use super::attention_sizes::Sizes;

const THREADS: u32 = 128;

/// `softmax(q·kᵀ/√d)·v` for every head; head `h` is channels `h·d..(h+1)·d`. q: B,N,C; kv: B,M,2C,
/// keys before values; result: B,N,C.
///
/// Probabilities are not kept: backward computes them again, from one number per query and head.
/// Where the device rounds operands, [`attention_mma`] computes it.
///
/// # Errors
/// Where shapes do not fit each other, or C is not a multiple of `heads`.
pub fn attention(tape: &Tape, q: &Tensor, kv: &Tensor, heads: usize) -> Result<Tensor> {
    let sizes = Sizes::new(q, kv, heads)?;
    let device = tape.device();
    if device.rounds_operands() && attention_mma::SIZES.contains(&sizes.head_dim) {
        return attention_mma(tape, q, kv, heads);
    }
    let keys = sizes.pack(device, kv, Part::Keys, true)?;
    let values = sizes.pack(device, kv, Part::Values, false)?;
    let mut y = device.empty_like(q)?;
    let mut logs = match tape.is_recording() {
        true => Some(device.empty(&[sizes.batch, heads, sizes.queries])?),
        false => None,
    };
    let grid = sizes.grid(device, sizes.queries.div_ceil(QUERIES), 2, 1).flops(sizes.flops(2));
    kernels::AttentionForward {
        q,
        keys_across: &keys,
        values: &values,
        y: &mut y,
        logs: logs.as_mut(),
        queries: sizes.queries,
        keys: sizes.keys,
        heads: sizes.heads,
        head_dim: sizes.head_dim,
        width: sizes.width(),
    }
    .launch(device, grid)?;
    let Some(logs) = logs else { return Ok(y) };
    let (q, kv, result) = (q.clone(), kv.clone(), y.clone());
    Ok(tape.record(y, move |gradients, dy| {
        let (dq, dkv) = backward(gradients.device(), &sizes, (&q, &kv), &result, &dy, &logs)?;
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
    logs: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let keys_across = sizes.pack(device, kv, Part::Keys, true)?;
    let values_across = sizes.pack(device, kv, Part::Values, true)?;
    let key_rows = sizes.pack(device, kv, Part::Keys, false)?;
    // Few enough parts that adding them up costs little, whatever the size of the map.
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
        logs,
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
    /// The keys or the values in the tiles that products read, with a tile's channels `across` its
    /// rows or along them.
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

    /// Blocks for `blocks` parts of every head's queries, with shared memory for `tiles` tiles of
    /// queries, `scores` of scores and one of keys.
    fn grid(&self, device: &Device, blocks: usize, tiles: usize, scores: usize) -> Grid {
        let numbers = (tiles * QUERIES + KEYS) * self.width() + scores * QUERIES * KEYS;
        Grid::blocks(self.batch * self.heads * blocks)
            .threads(THREADS)
            .shared(numbers * device.real().bytes())
    }
}
