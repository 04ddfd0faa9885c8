//! Warp matrix fragments, against a table written from the PTX ISA
//! ("Warp-level matrix instructions", figures of the fragments of mma.m16n8k16 and mma.m16n8k8).

use crate::built;
use crate::host::each;

/// The position of an element: lane, register, and which half of it.
type Place = (usize, usize, usize);

/// Register of A in m16n8k16 (16 bits), by quadrant of 8×8, left to right and top to bottom.
const A16: [[usize; 2]; 2] = [[0, 2], [1, 3]];
/// Register of B in m16n8k16, by half, top to bottom.
const B16: [usize; 2] = [0, 1];

fn a16(row: usize, column: usize) -> Place {
    // Lanes 0..3 hold row 0, two adjacent elements each; lanes 4..7 hold row 1; and so on.
    (row % 8 * 4 + column % 8 / 2, A16[row / 8][column / 8], column % 2)
}
fn b16(row: usize, column: usize) -> Place {
    // Lanes 0..3 hold column 0, two rows each.
    (column * 4 + row % 8 / 2, B16[row / 8], row % 2)
}
fn a_tf32(row: usize, column: usize) -> Place {
    (row % 8 * 4 + column % 4, [[0, 2], [1, 3]][row / 8][column / 4], 0)
}
fn b_tf32(row: usize, column: usize) -> Place {
    (column * 4 + row % 4, [0, 1][row / 4], 0)
}
fn c32(row: usize, column: usize) -> (usize, usize) {
    (row % 8 * 4 + column / 2, row / 8 * 2 + column % 2)
}

/// Small integers, whose products and sums are exact in every type.
fn whole(row: usize, column: usize, seed: usize) -> f32 {
    ((row * 37 + column * 11 + seed * 5 + row * column) % 17) as f32 - 8.0
}

fn multiply(
    kernel: &str,
    depth: usize,
    bits: impl Fn(f32) -> u32,
    a_at: fn(usize, usize) -> Place,
    b_at: fn(usize, usize) -> Place,
) {
    let (mut a, mut b, mut d) = ([0u32; 128], [0u32; 64], [0f32; 128]);
    for [row, column] in each([16, depth]) {
        let (lane, register, half) = a_at(row, column);
        a[lane * 4 + register] |= bits(whole(row, column, 1)) << (16 * half);
    }
    for [row, column] in each([depth, 8]) {
        let (lane, register, half) = b_at(row, column);
        b[lane * 2 + register] |= bits(whole(row, column, 2)) << (16 * half);
    }
    for [row, column] in each([16, 8]) {
        let (lane, register) = c32(row, column);
        d[lane * 4 + register] = whole(row, column, 3);
    }
    let values = vec![
        built::pointer("a", &mut a, false),
        built::pointer("b", &mut b, false),
        built::pointer("d", &mut d, true),
    ];
    if !built::run_warp(kernel, values, 0, 1) {
        return;
    }
    for [row, column] in each([16, 8]) {
        let products = (0..depth).map(|k| whole(row, k, 1) * whole(k, column, 2));
        let expected = whole(row, column, 3) + products.sum::<f32>();
        let (lane, register) = c32(row, column);
        assert_eq!(d[lane * 4 + register], expected, "{kernel}: row {row}, column {column}");
    }
}

#[test]
fn fragments_lie_as_the_ptx_isa_says() {
    let bf16 = |x: f32| x.to_bits() >> 16;
    let f16 = |x: f32| half::f16::from_f32(x).to_bits() as u32;
    multiply("try_mma_bf16", 16, bf16, a16, b16);
    multiply("try_mma_f16", 16, f16, a16, b16);
    // The low bits, which tf32 does not represent, are ignored.
    multiply("try_mma_tf32", 8, |x| x.to_bits() | 0x1FFF, a_tf32, b_tf32);
}

#[test]
fn a_product_through_shared_memory() {
    let bf16 = |x: f32| (x.to_bits() >> 16) as u16;
    let mut a: Vec<u16> = each([16, 16]).map(|[r, c]| bf16(whole(r, c, 4))).collect();
    let mut b: Vec<u16> = each([16, 8]).map(|[r, c]| bf16(whole(r, c, 5))).collect();
    let mut c = [0f32; 128];
    for seed in 0..20 {
        let values = vec![
            built::pointer("a", &mut a, false),
            built::pointer("b", &mut b, false),
            built::pointer("c", &mut c, true),
        ];
        if !built::run_warp("try_product", values, (256 + 128) * 2, seed) {
            return;
        }
        for [row, column] in each([16, 8]) {
            let products = (0..16).map(|k| whole(row, k, 4) * whole(k, column, 5));
            assert_eq!(c[row * 8 + column], products.sum::<f32>(), "row {row}, column {column}");
        }
        c.fill(0.0);
    }
}

#[test]
fn shuffles_and_votes() {
    let mut x: Vec<f32> = (0..32).map(|i| whole(i, 3, 6)).collect();
    let (mut sum, mut above) = ([0f32; 32], [0i32; 32]);
    let values = vec![
        built::pointer("x", &mut x, false),
        built::pointer("sum", &mut sum, true),
        built::pointer("above", &mut above, true),
    ];
    if !built::run_warp("try_collectives", values, 0, 9) {
        return;
    }
    assert_eq!(sum, [x.iter().sum::<f32>(); 32]);
    assert_eq!(above, [x.iter().filter(|&&x| x > 0.0).count() as i32; 32]);
}
