//! Matmuls and convolutions with operands rounded as on a GPU: the operands are cast to single
//! precision, rounded, and then computed with as usual.

use super::{convolution as exact, matmul as matrices};
use crate::Result;
use crate::device::library_op::{Convolution, Matmul, Matrix};
use crate::device::precision::Precision;
use crate::dtype::DType;

/// Returns whether operands of this type are rounded.
pub(super) fn is(operands: DType, precision: Precision) -> bool {
    match operands {
        DType::Bf16 => true,
        DType::F32 => precision == Precision::Tf32,
        _ => false,
    }
}

pub(super) fn matmul(matmul: &Matmul) -> Result<()> {
    let Matmul { out, a, b, bias, row_sums, accumulate } = matmul;
    // SAFETY: the matrices are views of live tensors; the bias has one element per column, and the
    // sums have one per row.
    unsafe {
        let (a_copy, b_copy) =
            (operand(a.address, a.dtype, a.span()), operand(b.address, b.dtype, b.span()));
        let at = |m: &Matrix, address: u64| Matrix { address, dtype: DType::F32, ..*m };
        let (a, b) = (at(a, a_copy.as_ptr() as u64), at(b, b_copy.as_ptr() as u64));
        let bias = bias.map(|at| widened(at, out.dtype, out.cols));
        let mut sums = row_sums.map(|_| vec![0f32; a.rows]);
        let mut result = widened(out.address, out.dtype, out.span());
        let single = Matmul {
            out: at(out, result.as_mut_ptr() as u64),
            a,
            b,
            accumulate: *accumulate,
            bias: bias.as_ref().map(|bias| bias.as_ptr() as u64),
            row_sums: sums.as_mut().map(|sums| sums.as_mut_ptr() as u64),
        };
        matrices::matmul(&single)?;
        write(&mut result, out.address, out.dtype);
        if let (Some(mut sums), Some(at)) = (sums, row_sums) {
            write(&mut sums, *at, out.dtype);
        }
    }
    Ok(())
}

pub(super) fn convolution(c: &Convolution) -> Result<()> {
    let (sizes, addresses, written) = (c.elements(), [c.x, c.w, c.y], c.written());
    // SAFETY: x, w and y are live tensors of these sizes.
    unsafe {
        let mut copies = [0, 1, 2].map(|i| match i == written {
            true => widened(addresses[i], c.dtype, sizes[i]),
            false => operand(addresses[i], c.dtype, sizes[i]),
        });
        let [x, w, y] = copies.each_mut().map(|copy| copy.as_mut_ptr() as u64);
        exact::convolution(&Convolution { x, w, y, dtype: DType::F32, ..*c })?;
        write(&mut copies[written], addresses[written], c.dtype);
    }
    Ok(())
}

/// Casts an operand to f32 and rounds it.
///
/// # Safety
/// `n` elements of this type can be read at `address`.
unsafe fn operand(address: u64, dtype: DType, n: usize) -> Vec<f32> {
    // SAFETY: the caller upholds the same contract.
    let mut numbers = unsafe { widened(address, dtype, n) };
    if dtype == DType::F32 {
        numbers.iter_mut().for_each(|x| *x = tf32(*x));
    }
    numbers
}

/// Casts a tensor to f32.
///
/// # Safety
/// `n` elements of this type, bf16 or f32, can be read at `address`.
unsafe fn widened(address: u64, dtype: DType, n: usize) -> Vec<f32> {
    // SAFETY: the caller guarantees that the elements can be read; tensors are aligned to more than
    // their elements.
    unsafe {
        match dtype {
            DType::Bf16 => {
                let all = std::slice::from_raw_parts(address as *const half::bf16, n);
                all.iter().map(|x| x.to_f32()).collect()
            }
            _ => std::slice::from_raw_parts(address as *const f32, n).to_vec(),
        }
    }
}

/// Casts the numbers to `dtype` and stores them.
///
/// # Safety
/// `numbers.len()` elements of this type, bf16 or f32, can be written at `address`.
unsafe fn write(numbers: &mut [f32], address: u64, dtype: DType) {
    let n = numbers.len();
    // SAFETY: the caller guarantees that the elements can be written; tensors are aligned to more
    // than their elements.
    unsafe {
        match dtype {
            DType::Bf16 => {
                let to = std::slice::from_raw_parts_mut(address as *mut half::bf16, n);
                to.iter_mut().zip(numbers).for_each(|(to, x)| *to = half::bf16::from_f32(*x));
            }
            _ => std::slice::from_raw_parts_mut(address as *mut f32, n).copy_from_slice(numbers),
        }
    }
}

/// Rounds to the nearest value with a 10-bit mantissa, ties away from zero (PTX: cvt.rna.tf32.f32).
fn tf32(x: f32) -> f32 {
    match x.is_finite() {
        true => f32::from_bits((x.to_bits() + 0x1000) & !0x1FFF),
        false => x,
    }
}

#[cfg(test)]
mod tests {
    use super::tf32;

    #[test]
    fn tf32_keeps_ten_bits() {
        let step = 2f32.powi(-10);
        for (x, rounded) in [
            (1.0, 1.0),
            (1.0 + step, 1.0 + step),
            (1.0 + 0.5 * step, 1.0 + step),
            (-1.0 - 0.5 * step, -1.0 - step),
            (1.0 + 0.49 * step, 1.0),
            (2.0 - 0.25 * step, 2.0),
            (0.0, 0.0),
        ] {
            assert_eq!(tf32(x), rounded, "{x}");
        }
        assert!(tf32(f32::NAN).is_nan());
        assert_eq!(tf32(f32::INFINITY), f32::INFINITY);
    }
}
