//! `ldmatrix` and `mma.sync`, by the layouts in the PTX ISA.

use crate::{WARP, each_lane, run};

/// Fills dynamic shared memory with rows of eight 16-bit numbers, each 8 · row + column.
const ROWS: &str = "mov.u32 %r3, dynamic;\nshl.b32 %r4, %r1, 4;\nadd.s32 %r5, %r3, %r4;\n\
                    shl.b32 %r6, %r1, 3;\nmul.lo.s32 %r7, %r6, 65537;\nadd.s32 %r7, %r7, 0x10000;\n\
                    st.shared.u32 [%r5], %r7;\nadd.s32 %r7, %r7, 0x20002;\n\
                    st.shared.u32 [%r5+4], %r7;\nadd.s32 %r7, %r7, 0x20002;\n\
                    st.shared.u32 [%r5+8], %r7;\nadd.s32 %r7, %r7, 0x20002;\n\
                    st.shared.u32 [%r5+12], %r7;\nbar.sync 0;\n";

#[test]
fn matrices_are_spread_over_the_lanes() {
    for (register, matrix) in [("%r10", 0), ("%r11", 1), ("%r12", 2), ("%r13", 3)] {
        let load = |how: &str| {
            format!(
                "{ROWS}ldmatrix.sync.aligned.m8n8.x4{how}.shared.b16 {{%r10,%r11,%r12,%r13}}, [%r5];\n\
                 mov.u32 %r2, {register};"
            )
        };
        let element = |row: u32, column: u32| 8 * (8 * matrix + row) + column;
        let rows: Vec<u32> = (0..32)
            .map(|l| element(l / 4, l % 4 * 2) | element(l / 4, l % 4 * 2 + 1) << 16)
            .collect();
        assert_eq!(each_lane(&load("")), rows);
        let columns: Vec<u32> = (0..32)
            .map(|l| element(l % 4 * 2, l / 4) | element(l % 4 * 2 + 1, l / 4) << 16)
            .collect();
        assert_eq!(each_lane(&load(".trans")), columns);
    }
}

/// Returns the 16×8 result of a kernel that leaves D in %f4 to %f7.
fn product(body: &str) -> Vec<Vec<f32>> {
    let store = "st.global.v4.f32 [%rd2], {%f4,%f5,%f6,%f7};";
    let (y, _) = run(&format!("{body}\n{store}"), WARP).unwrap();
    let element = |row: usize, column: usize| {
        let lane = row % 8 * 4 + column / 2;
        f32::from_bits(y[4 * lane + row / 8 * 2 + column % 2])
    };
    (0..16).map(|row| (0..8).map(|column| element(row, column)).collect()).collect()
}

/// One at `row`, `depth` of A and at `depth`, `column` of B must give one at `row`, `column` of D.
fn only(row: usize, column: usize) -> Vec<Vec<f32>> {
    let mut d = vec![vec![0.0; 8]; 16];
    d[row][column] = 1.0;
    d
}

#[test]
fn tf32_fragments() {
    for (row, depth, column) in [(0, 0, 0), (3, 5, 2), (9, 2, 7), (15, 7, 6)] {
        // A: register row / 8 + 2 · (depth / 4) of lane 4 · (row % 8) + depth % 4.
        let (a, a_lane) = (row / 8 + 2 * (depth / 4), 4 * (row % 8) + depth % 4);
        let (b, b_lane) = (depth / 4, 4 * column + depth % 4);
        let one = |register: usize, lane: usize| {
            format!("setp.eq.s32 %p1, %r1, {lane};\nselp.b32 %r{register}, 0x3F800000, 0, %p1;\n")
        };
        let body = one(10 + a, a_lane)
            + &one(14 + b, b_lane)
            + "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f4,%f5,%f6,%f7}, \
               {%r10,%r11,%r12,%r13}, {%r14,%r15}, {%f4,%f5,%f6,%f7};";
        assert_eq!(product(&body), only(row, column), "{row} {depth} {column}");
    }
}

#[test]
fn bf16_and_f16_fragments() {
    for (types, bits) in [("bf16", 0x3F80u32), ("f16", 0x3C00)] {
        for (row, depth, column) in [(0, 0, 0), (3, 5, 2), (9, 10, 7), (15, 15, 6)] {
            // A: register row / 8 + 2 · (depth / 8) of lane 4 · (row % 8) + depth % 8 / 2.
            let (a, a_lane) = (row / 8 + 2 * (depth / 8), 4 * (row % 8) + depth % 8 / 2);
            let (b, b_lane) = (depth / 8, 4 * column + depth % 8 / 2);
            let half = bits << (16 * (depth % 2));
            let one = |register: usize, lane: usize| {
                format!("setp.eq.s32 %p1, %r1, {lane};\nselp.b32 %r{register}, {half}, 0, %p1;\n")
            };
            let body = one(10 + a, a_lane)
                + &one(14 + b, b_lane)
                + &format!(
                    "mma.sync.aligned.m16n8k16.row.col.f32.{types}.{types}.f32 \
                     {{%f4,%f5,%f6,%f7}}, {{%r10,%r11,%r12,%r13}}, {{%r14,%r15}}, \
                     {{%f4,%f5,%f6,%f7}};"
                );
            assert_eq!(product(&body), only(row, column), "{types} {row} {depth} {column}");
        }
    }
}
