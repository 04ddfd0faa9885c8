//! Kernels with one fault each.

use ptx::{Access, Problem};

use crate::{ONE, Size, WARP, problem, run};

const TWO_WARPS: Size = Size { blocks: 1, threads: 64 };
const TWO_BLOCKS: Size = Size { blocks: 2, threads: 32 };
/// %r5 = this thread's word in the shared array, and %r6 = that of the thread `xor` a constant.
fn neighbors(xor: u32) -> String {
    format!(
        "mov.u32 %r3, array;\nshl.b32 %r4, %r1, 2;\nadd.s32 %r5, %r3, %r4;\n\
         xor.b32 %r6, %r4, {};\nadd.s32 %r6, %r3, %r6;\n",
        4 * xor
    )
}

#[test]
fn out_of_bounds() {
    let (found, thread, _) = problem("ld.global.u32 %r2, [%rd1+16];", WARP);
    assert!(matches!(found, Problem::OutOfBounds { access: Access::Read, .. }), "{found}");
    assert_eq!(thread, 31);
    assert!(found.to_string().contains("past the end of `x`"), "{found}");
    let (found, thread, _) = problem("st.global.u32 [%rd2+-4], %r1;", WARP);
    assert!(found.to_string().contains("before `y`"), "{found}");
    assert_eq!(thread, 0);
    let (found, ..) = problem("mov.u32 %r3, array;\nst.shared.u32 [%r3+256], %r1;", ONE);
    assert!(found.to_string().contains("shared `array`"), "{found}");
    let (found, ..) = problem("mov.u32 %r3, dynamic;\nst.shared.u32 [%r3+512], %r1;", ONE);
    assert!(found.to_string().contains("shared `dynamic`"), "{found}");
    let (found, ..) = problem("mov.u64 %rd9, own;\nst.local.u32 [%rd9+32], %r1;", ONE);
    assert!(found.to_string().contains("local memory"), "{found}");
    let (found, ..) = problem("mov.u64 %rd9, 0;\nld.global.u32 %r2, [%rd9];", ONE);
    assert!(found.to_string().contains("far from any argument"), "{found}");
}

#[test]
fn misaligned_and_read_only() {
    let (found, ..) = problem("ld.global.v2.u32 {%r2, %r3}, [%rd1+4];", ONE);
    assert!(matches!(found, Problem::Misaligned { bytes: 8, .. }), "{found}");
    let (found, ..) = problem("mov.u32 %r3, array;\nst.shared.u32 [%r3+2], %r1;", ONE);
    assert!(matches!(found, Problem::Misaligned { bytes: 4, .. }), "{found}");
    let (found, ..) = problem("st.global.u32 [%rd1], %r1;", ONE);
    assert_eq!(found, Problem::ReadOnly { name: "x".into() });
}

#[test]
fn uninitialized_shared_memory() {
    let body = neighbors(0) + "ld.shared.u32 %r2, [%r5];";
    assert!(matches!(problem(&body, ONE).0, Problem::Unwritten { .. }));
    // What an earlier block wrote is gone.
    let body = neighbors(0)
        + "mov.u32 %r7, %ctaid.x;\nsetp.eq.s32 %p1, %r7, 0;\n@%p1 st.shared.u32 [%r5], %r1;\n\
           ld.shared.u32 %r2, [%r5];";
    let (found, _, block) = problem(&body, TWO_BLOCKS);
    assert!(matches!(found, Problem::Unwritten { .. }), "{found}");
    assert_eq!(block, 1);
}

/// A read that no barrier orders after a write; the first warp to run may find nothing written yet.
fn is_unordered(problem: &Problem) -> bool {
    matches!(problem, Problem::Race { .. } | Problem::Unwritten { .. })
}

#[test]
fn races_in_a_block() {
    for (xor, size) in [(1, WARP), (32, TWO_WARPS)] {
        let write = neighbors(xor) + "st.shared.u32 [%r5], %r1;\n";
        let read_after_write = write.clone() + "ld.shared.u32 %r2, [%r6];";
        assert!(is_unordered(&problem(&read_after_write, size).0));
        let write_after_read =
            write.clone() + "bar.sync 0;\nld.shared.u32 %r2, [%r6];\nst.shared.u32 [%r5], %r2;";
        assert!(matches!(problem(&write_after_read, size).0, Problem::Race { .. }));
        let ordered = write
            + "bar.sync 0;\nld.shared.u32 %r2, [%r6];\nbar.sync 0;\nst.shared.u32 [%r5], %r2;";
        run(&ordered, size).unwrap();
    }
    let same_word = "mov.u32 %r3, array;\nst.shared.u32 [%r3], %r1;";
    assert!(matches!(problem(same_word, WARP).0, Problem::Race { .. }));
    let global = "st.global.u32 [%rd4], %r1;";
    assert!(matches!(problem(global, WARP).0, Problem::Race { .. }));
}

#[test]
fn a_warps_barrier_orders_its_lanes_only() {
    let exchange = |xor| {
        neighbors(xor) + "st.shared.u32 [%r5], %r1;\nbar.warp.sync -1;\nld.shared.u32 %r2, [%r6];"
    };
    run(&exchange(1), WARP).unwrap();
    assert!(is_unordered(&problem(&exchange(32), TWO_WARPS).0));
    // A shuffle does not order memory.
    let shuffled = neighbors(1)
        + "st.shared.u32 [%r5], %r1;\nshfl.sync.bfly.b32 %r7, %r1, 1, 31, -1;\n\
           ld.shared.u32 %r2, [%r6];";
    assert!(matches!(problem(&shuffled, WARP).0, Problem::Race { .. }));
}

#[test]
fn races_between_blocks() {
    let (found, _, block) = problem("st.global.u32 [%rd2], %r1;", TWO_BLOCKS);
    assert!(found.to_string().contains("another block wrote it"), "{found}");
    assert_eq!(block, 1);
    // Block 1 writes what block 0 has read, even if it reads it first.
    let body = "ld.global.u32 %r2, [%rd2];\nmov.u32 %r7, %ctaid.x;\nsetp.eq.s32 %p1, %r7, 1;\n\
                @%p1 st.global.u32 [%rd2], %r1;";
    let (found, ..) = problem(body, TWO_BLOCKS);
    assert!(found.to_string().contains("another block read it"), "{found}");
    run("red.global.add.u32 [%rd4], 1;", TWO_BLOCKS).unwrap();
}

#[test]
fn copies_that_are_under_way() {
    let start = "mov.u32 %r3, dynamic;\nshl.b32 %r4, %r1, 4;\nadd.s32 %r3, %r3, %r4;\n\
                 cp.async.cg.shared.global [%r3], [%rd1], 16;\ncp.async.commit_group;\n";
    let early = format!("{start}ld.shared.u32 %r2, [%r3];\ncp.async.wait_group 0;");
    assert!(matches!(problem(&early, WARP).0, Problem::InFlight { .. }));
    // The last group may still be under way.
    let one_left = format!("{start}cp.async.wait_group 1;\nld.shared.u32 %r2, [%r3];");
    assert!(matches!(problem(&one_left, WARP).0, Problem::InFlight { .. }));
    // Another thread needs a barrier after the wait.
    let other =
        format!("{start}cp.async.wait_group 0;\nxor.b32 %r5, %r3, 16;\nld.shared.u32 %r2, [%r5];");
    assert!(matches!(problem(&other, WARP).0, Problem::Race { .. }));
}

#[test]
fn non_coherent_loads_of_what_is_written() {
    let after = "st.global.u32 [%rd2], %r1;\nld.global.nc.u32 %r2, [%rd2];";
    assert!(matches!(problem(after, WARP).0, Problem::NonCoherent { .. }));
    let before = "ld.global.nc.u32 %r2, [%rd2];\nst.global.u32 [%rd2], %r1;";
    assert!(matches!(problem(before, WARP).0, Problem::NonCoherent { .. }));
    run("ld.global.nc.u32 %r2, [%rd1];\nst.global.u32 [%rd2], %r2;", WARP).unwrap();
}

#[test]
fn barriers_that_not_all_reach() {
    let some = "setp.lt.u32 %p1, %r1, 40;\n@%p1 bra END;\nbar.sync 0;\nEND:";
    assert!(matches!(problem(some, TWO_WARPS).0, Problem::Divergence { waiting: 24, .. }));
    let guarded = "setp.ne.s32 %p1, %r1, 3;\n@%p1 bar.sync 0;";
    assert!(matches!(problem(guarded, WARP).0, Problem::Divergence { waiting: 31, .. }));
    let different = "setp.lt.u32 %p1, %r1, 5;\n@%p1 bra LOW;\nbar.sync 0;\nbra END;\nLOW:\n\
                     bar.sync 0;\nEND:";
    assert!(matches!(problem(different, WARP).0, Problem::Divergence { .. }));
}

#[test]
fn lanes_that_are_missing() {
    let away =
        "setp.lt.u32 %p1, %r1, 7;\n@!%p1 bra END;\nshfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;\nEND:";
    let (found, ..) = problem(away, WARP);
    assert_eq!(found, Problem::MissingLanes { mask: !0, present: 0x7F });
    let not_in_mask = "shfl.sync.bfly.b32 %r2, %r1, 1, 31, 0xFFFF;";
    assert!(matches!(problem(not_in_mask, WARP).0, Problem::MissingLanes { mask: 0xFFFF, .. }));
    let half_a_warp = "shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;";
    let size = Size { blocks: 1, threads: 16 };
    assert!(matches!(problem(half_a_warp, size).0, Problem::MissingLanes { .. }));
    let outside = "setp.lt.u32 %p1, %r1, 16;\n@!%p1 bra END;\n\
                   shfl.sync.bfly.b32 %r2, %r1, 16, 31, 0xFFFF;\nEND:";
    assert!(matches!(problem(outside, WARP).0, Problem::AbsentLane { lane: 16 }));
}

#[test]
fn endless_loops() {
    assert_eq!(problem("LOOP:\nbra LOOP;", WARP).0, Problem::Endless);
}
