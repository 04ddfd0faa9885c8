//! Multi-head attention.

use crate::device::{Device, Grid, kernels};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

use super::attention_mma::{self, attention_mma};

/// As in kernels/attention.cu.
const QUERIES: usize = 32;
const KEYS: usize = 64;
const PAD: usize = 32;
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
    if device.rounds_operands() && attention_mma::SIZES.contains(&sizes.size) {
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
    let [n, m, h, d, width] = sizes.scalars();
    kernels::attention_forward(
        device,
        grid,
        q,
        &keys,
        &values,
        &mut y,
        logs.as_mut(),
        n,
        m,
        h,
        d,
        width,
    )?;
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
    let [n, m, h, d, width] = sizes.scalars();
    kernels::attention_backward(
        device,
        grid,
        q,
        &keys_across,
        &values_across,
        &key_rows,
        y,
        dy,
        logs,
        &mut dq,
        &mut partial,
        chunk as i64,
        n,
        m,
        h,
        d,
        width,
    )?;
    let mut dkv = device.empty_like(kv)?;
    sizes.add_up(device, &mut partial, &mut dkv)?;
    Ok((dq, dkv))
}

#[derive(Clone, Copy)]
enum Part {
    Keys = 0,
    Values = 1,
}

pub(super) struct Sizes {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub heads: usize,
    /// Channels of a head.
    pub size: usize,
}

impl Sizes {
    pub fn new(q: &Tensor, kv: &Tensor, heads: usize) -> Result<Sizes> {
        let wrong = |problem: String| Err(Error::shape("attention", problem));
        let (&[batch, queries, channels], &[kv_batch, keys, kv_channels]) = (q.shape(), kv.shape())
        else {
            return wrong(format!("expected B,N,C and B,M,2C, got {q:?} and {kv:?}"));
        };
        if kv_batch != batch || kv_channels != 2 * channels || keys == 0 {
            return wrong(format!("keys and values {kv:?} do not fit queries {q:?}"));
        }
        if heads == 0 || channels == 0 || channels % heads != 0 {
            return wrong(format!("{channels} channels cannot be split between {heads} heads"));
        }
        Ok(Sizes { batch, queries, keys, heads, size: channels / heads })
    }

    /// Of `products` products of queries, keys and channels.
    pub fn flops(&self, products: usize) -> usize {
        2 * products * self.batch * self.heads * self.queries * self.keys * self.size
    }

    /// Channels of a packed head.
    fn width(&self) -> usize {
        self.size.next_multiple_of(PAD)
    }

    /// N, M, heads, D and the packed width.
    pub fn scalars(&self) -> [i64; 5] {
        [self.queries, self.keys, self.heads, self.size, self.width()].map(|n| n as i64)
    }

    /// The keys or the values in the tiles that products read, with a tile's channels `across` its
    /// rows or along them.
    fn pack(&self, device: &Device, kv: &Tensor, part: Part, across: bool) -> Result<Tensor> {
        let (tiles, width) = (self.keys.div_ceil(KEYS), self.width());
        let mut packed = device.empty(&[self.batch, self.heads, tiles, KEYS * width])?;
        let (key_step, channel_step) = if across { (1, KEYS) } else { (width, 1) };
        let grid = device.rows(packed.len() / width, width);
        let [_, m, h, d, width] = self.scalars();
        let (batch, steps) = (self.batch as i64, (key_step as i64, channel_step as i64));
        kernels::attention_pack(
            device,
            grid,
            kv,
            &mut packed,
            part as i64,
            batch,
            m,
            h,
            d,
            width,
            steps.0,
            steps.1,
        )?;
        Ok(packed)
    }

    /// The keys' and the values' gradient, from the parts of it that chunks of the queries make:
    /// chunks,2,B,heads,tiles,KEYS,width.
    pub(super) fn add_up(
        &self,
        device: &Device,
        partial: &mut Tensor,
        dkv: &mut Tensor,
    ) -> Result<()> {
        /// As in kernels/attention.cu.
        const FEW: usize = 16;
        let (chunks, row) = (partial.dim(0), FEW * self.width());
        let grid = device.rows(partial.len() / (chunks * row), row * chunks);
        let [_, m, h, d, width] = self.scalars();
        let (batch, chunks) = (self.batch as i64, chunks as i64);
        kernels::attention_keys_gradient(device, grid, partial, dkv, chunks, batch, m, h, d, width)
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
