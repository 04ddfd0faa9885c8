//! The transforms of Winograd's F(2×2, 3×3), which computes 2×2 outputs from a tile of 4×4 inputs
//! (Lavin and Gray 2016, section 4.1): B ↦ M·B·Mᵀ of small tiles whose elements are vectors of
//! channels.

use std::marker::PhantomData;
use std::ops::{Add, Mul, Sub};

use pulp::{Arch, Simd, WithSimd};

/// The inputs of a tile.
pub const INPUT: Transform = Transform(apply::<Input, 4, 4>);
/// The 3×3 taps of a filter.
pub const FILTER: Transform = Transform(apply::<Filter, 4, 3>);
/// Products to the outputs of a tile.
pub const OUTPUT: Transform = Transform(apply::<Output, 2, 4>);

/// A matrix M of R rows and C columns, as the operations of a product with it.
trait Matrix<const R: usize, const C: usize> {
    fn times<S: Simd>(column: [Lanes<S>; C]) -> [Lanes<S>; R];
}

macro_rules! matrix {
    ($name:ident: $columns:literal to $rows:literal, $column:pat => $body:expr) => {
        struct $name;
        impl Matrix<$rows, $columns> for $name {
            #[inline(always)]
            fn times<S: Simd>($column: [Lanes<S>; $columns]) -> [Lanes<S>; $rows] {
                $body
            }
        }
    };
}

matrix!(Input: 4 to 4, [a, b, c, d] => [a - c, b + c, c - b, b - d]);
matrix!(Filter: 3 to 4, [a, b, c] => {
    let (outer, middle) = ((a + c) * 0.5, b * 0.5);
    [a, outer + middle, outer - middle, c]
});
matrix!(Output: 4 to 2, [a, b, c, d] => [a + b + c, b - c - d]);

/// A register of elements.
#[derive(Clone, Copy)]
struct Lanes<S: Simd> {
    simd: S,
    values: S::f32s,
}

impl<S: Simd> Add for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Lanes { values: self.simd.add_f32s(self.values, other.values), ..self }
    }
}

impl<S: Simd> Sub for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Lanes { values: self.simd.sub_f32s(self.values, other.values), ..self }
    }
}

impl<S: Simd> Mul<f32> for Lanes<S> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, factor: f32) -> Self {
        let Lanes { simd, values } = self;
        Lanes { values: simd.mul_f32s(values, simd.splat_f32s(factor)), simd }
    }
}

/// A transform of a tile of C×C vectors into one of R×R.
#[derive(Clone, Copy)]
pub struct Transform(unsafe fn(Arch, Vectors));

/// The vectors of one tile, row by row.
#[derive(Clone, Copy)]
pub struct Vectors<'a> {
    /// Null where the vector is zero.
    pub from: &'a [*mut f32],
    /// Null where the result is not wanted.
    pub to: &'a [*mut f32],
    /// Elements of a vector.
    pub len: usize,
    /// Whether to add to what is at `to`.
    pub accumulate: bool,
}

impl Transform {
    /// Transforms a tile.
    ///
    /// # Safety
    /// `from` and `to` have as many vectors as the transform takes and gives; those that are not
    /// null have `len` elements that can be read, and written, and no two overlap.
    pub unsafe fn run(self, arch: Arch, vectors: Vectors) {
        // SAFETY: the caller upholds the same contract.
        unsafe { (self.0)(arch, vectors) }
    }
}

unsafe fn apply<M: Matrix<R, C>, const R: usize, const C: usize>(arch: Arch, tile: Vectors) {
    assert_eq!((tile.from.len(), tile.to.len()), (C * C, R * R));
    arch.dispatch(Apply::<M, R, C> { tile, matrix: PhantomData });
}

struct Apply<'a, M, const R: usize, const C: usize> {
    tile: Vectors<'a>,
    matrix: PhantomData<M>,
}

impl<M: Matrix<R, C>, const R: usize, const C: usize> WithSimd for Apply<'_, M, R, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (len, mut start) = (self.tile.len, 0);
        // A cache line of each vector at a time where registers are half as wide.
        while S::F32_LANES < 16 && len - start >= 2 * S::F32_LANES {
            self.lanes::<S, 2>(simd, start, None);
            start += 2 * S::F32_LANES;
        }
        while len - start >= S::F32_LANES {
            self.lanes::<S, 1>(simd, start, None);
            start += S::F32_LANES;
        }
        if start < len {
            self.lanes::<S, 1>(simd, start, Some(len - start));
        }
    }
}

impl<M: Matrix<R, C>, const R: usize, const C: usize> Apply<'_, M, R, C> {
    /// Transforms W registers of elements from `start` on, or the last `few`. Loops instead of
    /// closures, which the compiler would not inline into code for this processor.
    #[inline(always)]
    fn lanes<S: Simd, const W: usize>(&self, simd: S, start: usize, few: Option<usize>) {
        let Vectors { from, to, accumulate, .. } = self.tile;
        let zero = Lanes { simd, values: simd.splat_f32s(0.0) };
        let mut rows = [[[zero; C]; R]; W];
        for column in 0..C {
            for (w, rows) in rows.iter_mut().enumerate() {
                let mut vectors = [zero; C];
                for row in 0..C {
                    let pointer = from[row * C + column];
                    if !pointer.is_null() {
                        vectors[row] = load(simd, pointer, start + w * S::F32_LANES, few);
                    }
                }
                let sums = M::times(vectors);
                for row in 0..R {
                    rows[row][column] = sums[row];
                }
            }
        }
        for row in 0..R {
            let mut sums = [[zero; R]; W];
            for (sums, rows) in sums.iter_mut().zip(&rows) {
                *sums = M::times(rows[row]);
            }
            for column in 0..R {
                let pointer = to[row * R + column];
                if pointer.is_null() {
                    continue;
                }
                for (w, sums) in sums.iter().enumerate() {
                    let at = start + w * S::F32_LANES;
                    let mut sum = sums[column];
                    if accumulate {
                        sum = load(simd, pointer, at, few) + sum;
                    }
                    store(pointer, at, few, sum);
                }
            }
        }
    }
}

#[inline(always)]
fn load<S: Simd>(simd: S, from: *const f32, at: usize, few: Option<usize>) -> Lanes<S> {
    // SAFETY: the vector has a register of elements from `at` on, or `few`.
    let values = unsafe {
        match few {
            None => from.add(at).cast::<S::f32s>().read_unaligned(),
            Some(few) => simd.partial_load_f32s(std::slice::from_raw_parts(from.add(at), few)),
        }
    };
    Lanes { simd, values }
}

#[inline(always)]
fn store<S: Simd>(to: *mut f32, at: usize, few: Option<usize>, lanes: Lanes<S>) {
    let Lanes { simd, values } = lanes;
    // SAFETY: as for `load`, and no other vector overlaps this one.
    unsafe {
        match few {
            None => to.add(at).cast::<S::f32s>().write_unaligned(values),
            Some(few) => {
                simd.partial_store_f32s(std::slice::from_raw_parts_mut(to.add(at), few), values);
            }
        }
    }
}
