//! Multi-head attention with rounded operands, on tensor cores where available.

use crate::device::constants::attention::{KEYS, ROW_PADDING};
use crate::device::{Device, Grid, kernels};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::attention_sizes::Sizes;

/// The channels per head that the kernels are compiled for, which are MiT's.
pub const SIZES: [usize; 2] = [32, 64];
/// Four warps, each with 16 queries or keys. Registers and shared memory allow three such blocks
/// per multiprocessor.
const THREADS: u32 = 128;
/// Bytes of shared memory for keys and values: the limit of a block on the smallest supported GPU,
/// minus the rest of what it needs.
const SHARED: usize = 96 << 10;
/// The candidate numbers of queries per block, and the fixed cost of a block in queries: the time
/// that it takes to read the keys.
const CHUNKS: (&[usize], usize) = (&[64, 128, 256, 512], 32);
/// The same for the kernel over keys, whose fixed cost is writing a split of their gradient.
const KEY_CHUNKS: (&[usize], usize) = (&[128, 256, 512, 1024, 2048], 128);
/// The multiprocessors of an H100, for which chunk sizes are chosen. Results on other GPUs are the
/// same.
const MULTIPROCESSORS: usize = 132;

/// Computes [`attention`](super::attention()) with matmul operands rounded to bf16, or to tf32 if
/// the storage type is single precision. Operands in double precision are not rounded.
///
/// # Errors
/// Returns a shape error if the shapes do not match, or a head has neither 32 nor 64 channels.
pub fn attention_mma(tape: &Tape, q: &Tensor, kv: &Tensor, heads: usize) -> Result<Tensor> {
    let sizes = Sizes::new(q, kv, heads)?;
    if !SIZES.contains(&sizes.head_dim) {
        let problem =
            format!("heads have {} channels; the supported sizes are {SIZES:?}", sizes.head_dim);
        return Err(Error::shape("attention_mma", problem));
    }
    let device = tape.device();
    let mut y = device.empty_like(q)?;
    let mut log_sum_exp = match tape.is_recording() {
        true => Some(device.empty(&[sizes.batch, heads, sizes.queries])?),
        false => None,
    };
    let by = ByQueries::new(&sizes, q);
    kernels::AttentionMmaForward {
        q,
        kv,
        y: &mut y,
        log_sum_exp: log_sum_exp.as_mut(),
        chunk: by.chunk,
        resident: by.resident,
        queries: sizes.queries,
        keys: sizes.keys,
        heads: sizes.heads,
        head_dim: sizes.head_dim,
    }
    .launch(device, by.grid(&sizes, 2))?;
    let Some(log_sum_exp) = log_sum_exp else { return Ok(y) };
    let (q, kv, result) = (q.clone(), kv.clone(), y.clone());
    Ok(tape.record(y, move |gradients, dy| {
        let device = gradients.device().clone();
        let (dq, dkv) = backward(&device, &sizes, (&q, &kv), &result, &dy, &log_sum_exp)?;
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
    let (mut delta, mut dq) = (device.empty_like(log_sum_exp)?, device.empty_like(q)?);
    let by = ByQueries::new(sizes, q);
    kernels::AttentionMmaQueries {
        q,
        kv,
        y,
        dy,
        log_sum_exp,
        dq: &mut dq,
        delta: &mut delta,
        chunk: by.chunk,
        resident: by.resident,
        queries: sizes.queries,
        keys: sizes.keys,
        heads: sizes.heads,
        head_dim: sizes.head_dim,
    }
    .launch(device, by.grid(sizes, 3))?;

    let tiles = sizes.keys.div_ceil(KEYS);
    let chunk = chunk_of(sizes.queries, sizes.batch * sizes.heads * tiles, KEY_CHUNKS);
    let chunks = sizes.queries.div_ceil(chunk);
    let mut partial =
        device.empty(&[chunks, 2, sizes.batch, sizes.heads, tiles, KEYS * sizes.head_dim])?;
    let grid = Grid::blocks(sizes.batch * sizes.heads * tiles * chunks)
        .threads(THREADS)
        .shared(4 * KEYS * row_bytes(sizes, q))
        .flops(sizes.flops(4));
    kernels::AttentionMmaKeys {
        q,
        kv,
        dy,
        log_sum_exp,
        delta: &delta,
        partial: &mut partial,
        chunk,
        queries: sizes.queries,
        keys: sizes.keys,
        heads: sizes.heads,
        head_dim: sizes.head_dim,
    }
    .launch(device, grid)?;
    let mut dkv = device.empty_like(kv)?;
    sizes.add_up(device, &mut partial, &mut dkv)?;
    Ok((dq, dkv))
}

/// Returns the bytes of a row of keys or values in shared memory.
fn row_bytes(sizes: &Sizes, operand: &Tensor) -> usize {
    sizes.head_dim * operand.dtype().bytes() + ROW_PADDING
}

/// Returns the number of queries per block that minimizes the work of the busiest multiprocessor
/// when the queries of each of `groups` groups are divided into blocks. A multiprocessor is assumed
/// to run at least two blocks, as a single one would leave it half idle.
fn chunk_of(queries: usize, groups: usize, (chunks, more): (&[usize], usize)) -> usize {
    let time = |&chunk: &usize| {
        let blocks = groups * queries.div_ceil(chunk);
        blocks.div_ceil(MULTIPROCESSORS).max(2) * (chunk + more)
    };
    chunks.iter().copied().min_by_key(time).unwrap_or(KEYS)
}

/// The launch geometry of the kernels whose warps hold queries in their rows.
struct ByQueries {
    /// Queries per block.
    chunk: usize,
    /// Keys, and as many values, in shared memory at a time.
    resident: usize,
    row_bytes: usize,
}

impl ByQueries {
    fn new(sizes: &Sizes, operand: &Tensor) -> ByQueries {
        let row_bytes = row_bytes(sizes, operand);
        // At least two tiles: the next one is copied while the current one is computed with.
        let fit = (SHARED / (2 * row_bytes) / KEYS * KEYS).max(2 * KEYS);
        let resident = sizes.keys.next_multiple_of(KEYS).min(fit);
        let chunk = chunk_of(sizes.queries, sizes.batch * sizes.heads, CHUNKS);
        ByQueries { chunk, resident, row_bytes }
    }

    fn grid(&self, sizes: &Sizes, products: usize) -> Grid {
        Grid::blocks(sizes.batch * sizes.heads * sizes.queries.div_ceil(self.chunk))
            .threads(THREADS)
            .shared(2 * self.resident * self.row_bytes)
            .flops(sizes.flops(products))
    }
}
