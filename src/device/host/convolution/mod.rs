//! Convolutions as matmuls. Undilated, the taps of a filter row are adjacent in memory, so each row
//! of a map is one, without im2col (`runs`); 3×3 filters of many channels take fewer multiplications
//! (`winograd`). Dilated, each row and tap is one (`dilated`), unless the map is so narrow that it is
//! gathered first (`gathered`). With few filters, the products come before the sum over taps (`thin`).
//! The 3×3 filters of a ResNet's stem are no matmul at all: they are summed in registers (`direct`).
//!
//! The choice depends only on a convolution's sizes, and no sum depends on how the work was spread,
//! so the results are bit-identical for any number of threads.

mod dilated;
mod direct;
mod filter;
mod gathered;
mod runs;
mod thin;
mod winograd;

use crate::Result;
use crate::device::library_op::Convolution;
use runs::Runs;

pub(super) fn convolution(c: &Convolution) -> Result<()> {
    match c.dilation {
        _ if thin::takes(c) => thin::convolution(c),
        1 if direct::takes(c) => direct::convolution(c),
        1 if winograd::takes(c) => winograd::convolution(c),
        1 => Runs(c).convolve(),
        _ if gathered::takes(c) => gathered::convolution(c),
        _ => dilated::convolution(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::library_op::ConvolutionPass;
    use crate::dtype::DType;
    use crate::rng::{Draw, Purpose};

    pub fn numbers(seed: u64, n: usize) -> Vec<f64> {
        let mut draw = Draw::new(seed, 0, Purpose::SourceFile, 0, 0);
        (0..n).map(|_| f64::from(draw.range_f32(-1.0, 1.0))).collect()
    }

    /// Describes a pass without addresses. `size` is batch, height, width, channels and filters.
    pub fn descriptor(
        size: [usize; 5],
        (kernel, dilation): (usize, usize),
        pass: ConvolutionPass,
        dtype: DType,
    ) -> Convolution {
        let [batch, height, width, channels, filters] = size;
        Convolution {
            pass,
            dtype,
            x: 0,
            w: 0,
            y: 0,
            batch,
            height,
            width,
            channels,
            filters,
            kernel,
            dilation,
        }
    }

    /// Computes a pass on copies of the input, the filter and the output, and returns what it wrote.
    pub fn computed<N: bytemuck::Pod>(
        tensors: &[Vec<N>; 3],
        c: &Convolution,
        way: impl Fn(&Convolution),
    ) -> Vec<N> {
        let mut tensors = tensors.clone();
        let [x, w, y] = tensors.each_mut().map(|tensor| tensor.as_mut_ptr() as u64);
        way(&Convolution { x, w, y, ..*c });
        std::mem::take(&mut tensors[c.written()])
    }

    /// Returns the errors, as root mean squares, of matmuls and of another way in single precision
    /// against double precision, for a 3×3 filter.
    pub fn errors(
        size: [usize; 5],
        pass: ConvolutionPass,
        way: fn(&Convolution) -> Result<()>,
    ) -> (f64, f64) {
        let sizes = descriptor(size, (3, 1), pass, DType::F64).elements();
        let exact = [0, 1, 2].map(|i| numbers(i as u64, sizes[i]));
        let single = exact.each_ref().map(|t| t.iter().map(|x| *x as f32).collect::<Vec<_>>());
        let matmuls = |c: &Convolution| Runs(c).convolve().unwrap();
        let wanted = computed(&exact, &descriptor(size, (3, 1), pass, DType::F64), matmuls);
        let error = |way: &dyn Fn(&Convolution)| {
            let got = computed(&single, &descriptor(size, (3, 1), pass, DType::F32), way);
            let square = |(got, wanted): (&f32, &f64)| (f64::from(*got) - wanted).powi(2);
            (got.iter().zip(&wanted).map(square).sum::<f64>() / got.len() as f64).sqrt()
        };
        (error(&matmuls), error(&|c| way(c).unwrap()))
    }

    /// Odd sizes, single rows and columns, dilations that reach past the map, and several groups of
    /// images.
    #[test]
    fn every_way_computes_the_same() {
        const CASES: [([usize; 5], (usize, usize)); 8] = [
            ([3, 7, 5, 3, 2], (3, 1)),
            ([1, 1, 9, 4, 5], (3, 2)),
            ([2, 6, 1, 1, 3], (5, 1)),
            ([1, 5, 8, 2, 7], (3, 4)),
            ([2, 4, 3, 6, 1], (3, 12)),
            ([1, 1, 1, 5, 4], (7, 3)),
            ([3, 31, 32, 200, 2], (3, 2)),
            ([3, 97, 120, 2, 19], (3, 6)),
        ];
        for (size, geometry) in CASES {
            for accumulate in [false, true] {
                for pass in [
                    ConvolutionPass::Forward { accumulate },
                    ConvolutionPass::Data { accumulate },
                    ConvolutionPass::Filter { accumulate },
                ] {
                    let c = descriptor(size, geometry, pass, DType::F64);
                    let sizes = c.elements();
                    let tensors = [0, 1, 2].map(|i| numbers(i as u64, sizes[i]));
                    let wanted = computed(&tensors, &c, |c| dilated::convolution(c).unwrap());
                    let limit = 1e-14 * (c.batch * c.height * c.width).max(sizes[1]) as f64;
                    let agrees = |way: fn(&Convolution) -> Result<()>| {
                        let got = computed(&tensors, &c, |c| way(c).unwrap());
                        wanted.iter().zip(&got).all(|(a, b)| (a - b).abs() <= limit)
                    };
                    assert!(agrees(gathered::convolution), "{size:?} {geometry:?} {pass:?}");
                    if matches!(pass, ConvolutionPass::Forward { .. }) {
                        assert!(agrees(thin::convolution), "{size:?} {geometry:?} {pass:?}");
                    }
                }
            }
        }
    }
}
