//! The sizes of an attention op, and the reduction with which both backward passes end.

use crate::device::constants::attention::{KEY_GROUP, PAD};
use crate::device::{Device, kernels};
use crate::tensor::Tensor;
use crate::{Error, Result};

pub(super) struct Sizes {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub heads: usize,
    /// Channels per head.
    pub head_dim: usize,
}

impl Sizes {
    pub fn new(q: &Tensor, kv: &Tensor, heads: usize) -> Result<Sizes> {
        let wrong = |problem: String| Err(Error::shape("attention", problem));
        let (&[batch, queries, channels], &[kv_batch, keys, kv_channels]) = (q.shape(), kv.shape())
        else {
            return wrong(format!("expected B,N,C and B,M,2C, got {q:?} and {kv:?}"));
        };
        if kv_batch != batch || kv_channels != 2 * channels || keys == 0 {
            return wrong(format!("keys and values {kv:?} do not match queries {q:?}"));
        }
        if heads == 0 || channels == 0 || channels % heads != 0 {
            return wrong(format!("{channels} channels cannot be split between {heads} heads"));
        }
        Ok(Sizes { batch, queries, keys, heads, head_dim: channels / heads })
    }

    /// Returns the floating-point operations of `products` matmuls over queries, keys and channels.
    pub fn flops(&self, products: usize) -> usize {
        2 * products * self.batch * self.heads * self.queries * self.keys * self.head_dim
    }

    /// Returns the padded channels of a packed head.
    pub fn width(&self) -> usize {
        self.head_dim.next_multiple_of(PAD)
    }

    /// Sums the gradient of keys and values over its splits, one for each chunk of the queries:
    /// chunks,2,B,heads,tiles,KEYS,width.
    pub fn add_up(&self, device: &Device, partial: &mut Tensor, dkv: &mut Tensor) -> Result<()> {
        let (chunks, width) = (partial.dim(0), self.width());
        let row = KEY_GROUP * width;
        let grid = device.rows(partial.len() / (chunks * row), row * chunks);
        kernels::AttentionKeysGradient {
            partial,
            dkv,
            chunks,
            batch: self.batch,
            keys: self.keys,
            heads: self.heads,
            head_dim: self.head_dim,
            width,
        }
        .launch(device, grid)
    }
}
