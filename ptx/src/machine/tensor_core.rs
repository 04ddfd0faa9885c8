//! `ldmatrix` and `mma.sync`. The fragments' layouts are those of the PTX ISA: with group = lane / 4
//! and pair = lane % 4, see the comments at each.

use super::access::resolve;
use super::context::{Context, Result, by_lane};
use super::warp::Warp;
use crate::fault::{Access, Problem};
use crate::float::from_f16;
use crate::lanes::{FULL, LANES, Words};
use crate::op::{Address, Fragments, Slot, Word};

/// Loads `count` 8×8 matrices of 16-bit numbers. Lane 8·m + r points to row r of matrix m; register
/// m of a lane receives columns 2·pair and 2·pair + 1 of row `group`, or, transposed, of column
/// `group` the rows 2·pair and 2·pair + 1.
pub fn load_matrix(
    context: &mut Context,
    warp: &mut Warp,
    transposed: bool,
    d: [Slot; 4],
    count: u32,
    from: Address,
) -> Result<()> {
    const ROW: u32 = 16;
    let addresses = resolve(warp, from);
    let mut matrices = [[[0u16; 8]; 8]; 4];
    for lane in 0..8 * count as usize {
        let address = addresses[lane];
        if !address.is_multiple_of(u64::from(ROW)) {
            return by_lane(lane, Err(Problem::Misaligned { address, bytes: ROW }));
        }
        let now = context.now(warp.index, warp.barrier, lane);
        let row = by_lane(lane, context.shared.access(address, ROW, Access::Read, &now))?;
        for (to, bytes) in matrices[lane / 8][lane % 8].iter_mut().zip(row.as_chunks().0) {
            *to = u16::from_le_bytes(*bytes);
        }
    }
    let pointing = if count == 4 { FULL } else { (1 << (8 * count)) - 1 };
    context.statistics.shared_loads.count(&addresses, pointing, ROW);
    for (matrix, slot) in matrices.iter().zip(d).take(count as usize) {
        let value: Words = std::array::from_fn(|lane| {
            let (group, pair) = (lane / 4, lane % 4);
            let [low, high] = match transposed {
                false => [matrix[group][2 * pair], matrix[group][2 * pair + 1]],
                true => [matrix[2 * pair][group], matrix[2 * pair + 1][group]],
            };
            u32::from(low) | u32::from(high) << 16
        });
        warp.registers.set_word(slot, FULL, &value);
    }
    Ok(())
}

/// d = a·b + c for a 16×K and a K×8 matrix. The hardware's order and rounding of the additions are
/// unspecified; here a sum starts with c and takes the products in order, each rounded to f32.
pub fn multiply(
    warp: &mut Warp,
    fragments: Fragments,
    d: [Slot; 4],
    a: [Word; 4],
    b: [Word; 2],
    c: [Word; 4],
) {
    let r = &mut warp.registers;
    let (a, b, c) = (a.map(|x| r.word(x)), b.map(|x| r.word(x)), c.map(|x| r.word(x)));
    let (mut left, mut right) = ([[0f32; 16]; 16], [[0f32; 8]; 16]);
    let depth = match fragments {
        Fragments::Tf32 => 8,
        Fragments::Bf16 | Fragments::F16 => 16,
    };
    for lane in 0..LANES {
        let (group, pair) = (lane / 4, lane % 4);
        match fragments {
            // A: registers 0..3 hold rows group, group + 8, group, group + 8 of columns pair, and
            // pair + 4 from register 2 on. B: rows pair and pair + 4 of column group. The lowest 13
            // bits are ignored.
            Fragments::Tf32 => {
                let number = |word: &Words| f32::from_bits(word[lane] & !0x1FFF);
                for (i, word) in a.iter().enumerate() {
                    left[group + i % 2 * 8][pair + i / 2 * 4] = number(word);
                }
                for (i, word) in b.iter().enumerate() {
                    right[pair + i * 4][group] = number(word);
                }
            }
            // A: registers 0..3 hold rows group, group + 8, group, group + 8 of columns 2·pair and
            // 2·pair + 1, plus 8 from register 2 on. B: rows 2·pair and 2·pair + 1 of column group,
            // plus 8 in register 1. The first of two is in the low half.
            Fragments::Bf16 | Fragments::F16 => {
                let number = |word: &Words, half: usize| {
                    let bits = (word[lane] >> (16 * half)) as u16;
                    match fragments {
                        Fragments::Bf16 => f32::from_bits(u32::from(bits) << 16),
                        _ => from_f16(bits),
                    }
                };
                for half in 0..2 {
                    for (i, word) in a.iter().enumerate() {
                        left[group + i % 2 * 8][2 * pair + half + i / 2 * 8] = number(word, half);
                    }
                    for (i, word) in b.iter().enumerate() {
                        right[2 * pair + half + i * 8][group] = number(word, half);
                    }
                }
            }
        }
    }
    // C and D: rows group and group + 8 of columns 2·pair and 2·pair + 1.
    for (i, (slot, c)) in d.into_iter().zip(&c).enumerate() {
        let value: Words = std::array::from_fn(|lane| {
            let (row, column) = (lane / 4 + i / 2 * 8, 2 * (lane % 4) + i % 2);
            let products = (0..depth).map(|k| left[row][k] * right[k][column]);
            let sum = products.fold(f32::from_bits(c[lane]), |sum, product| sum + product);
            if sum.is_nan() { 0x7FFF_FFFF } else { sum.to_bits() }
        });
        r.set_word(slot, FULL, &value);
    }
}
