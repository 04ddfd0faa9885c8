//! State spaces, vectors, generic addresses and atomics.

use crate::{EACH, WARP, each_lane, run, word};

#[test]
fn vectors_and_signs() {
    let body = "ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd1];\nadd.s32 %r2, %r4, %r6;";
    let expected: Vec<u32> = (0..32).map(|lane| 8 * lane + 4).collect();
    assert_eq!(each_lane(body), expected);
    let body = "mov.u32 %r3, 0x80;\nst.global.u8 [%rd2], %r3;\nld.global.s8 %r2, [%rd2];";
    assert_eq!(word(body), 0xFFFF_FF80);
    let body = "mov.u16 %rs1, 3;\nst.global.v2.u16 [%rd2+4], {%rs1, %rs1};\n\
                ld.global.u32 %r2, [%rd2+4];";
    assert_eq!(word(body), 0x0003_0003);
}

#[test]
fn shared_local_and_generic() {
    // Each lane reads its neighbor's word, after a barrier.
    let body = "mov.u32 %r3, array;\nshl.b32 %r4, %r1, 2;\nadd.s32 %r5, %r3, %r4;\n\
                st.shared.u32 [%r5], %r1;\nbar.sync 0;\nxor.b32 %r6, %r4, 4;\n\
                add.s32 %r5, %r3, %r6;\nld.shared.u32 %r2, [%r5];";
    assert_eq!(each_lane(body), (0..32).map(|lane| lane ^ 1).collect::<Vec<u32>>());
    let body = "mov.u64 %rd9, own;\nst.local.u32 [%rd9+8], %r1;\nld.local.u32 %r2, [%rd9+8];";
    assert_eq!(each_lane(body), (0..32).collect::<Vec<u32>>());
    let body = "mov.u64 %rd9, own;\ncvta.local.u64 %rd10, %rd9;\nst.u32 [%rd10+4], %r1;\n\
                ld.u32 %r2, [%rd10+4];\ncvta.to.local.u64 %rd11, %rd10;\n\
                ld.local.u32 %r2, [%rd11+4];";
    assert_eq!(each_lane(body), (0..32).collect::<Vec<u32>>());
    let body = "mov.u64 %rd9, dynamic;\ncvta.shared.u64 %rd10, %rd9;\nadd.s64 %rd10, %rd10, %rd5;\n\
                st.u32 [%rd10], %r1;\nld.u32 %r2, [%rd10];";
    assert_eq!(each_lane(body), (0..32).collect::<Vec<u32>>());
}

#[test]
fn atomics_add_up() {
    let body = "mov.u32 %r3, array;\nsetp.eq.s32 %p1, %r1, 0;\n@%p1 st.shared.u32 [%r3], %r1;\n\
                bar.sync 0;\natom.shared.add.u32 %r4, [%r3], 2;\nbar.sync 0;\n\
                ld.shared.u32 %r2, [%r3];";
    assert_eq!(each_lane(body), [64; 32]);
    let (y, _) = run("red.global.add.u32 [%rd4], 3;", WARP).unwrap();
    assert_eq!(y[0], 96);
    let (y, _) = run("atom.global.max.u32 %r3, [%rd4], %r1;", WARP).unwrap();
    assert_eq!(y[0], 31);
    assert_eq!(word("atom.global.cas.b32 %r3, [%rd2], 0, 9;\nld.global.u32 %r2, [%rd2];"), 9);
    assert_eq!(word("atom.global.exch.b32 %r2, [%rd2+4], 9;"), 1);
}

#[test]
fn asynchronous_copies_arrive_when_waited_for() {
    let body = "mov.u32 %r3, dynamic;\nshl.b32 %r4, %r1, 4;\nadd.s32 %r3, %r3, %r4;\n\
                cp.async.cg.shared.global [%r3], [%rd1], 16;\ncp.async.commit_group;\n\
                cp.async.wait_group 0;\nld.shared.u32 %r2, [%r3+12];";
    let expected: Vec<u32> = (0..32).map(|lane| lane * EACH as u32 / 4 + 3).collect();
    assert_eq!(each_lane(body), expected);
    // Bytes beyond the source are zero.
    let body = "mov.u32 %r3, dynamic;\nshl.b32 %r4, %r1, 4;\nadd.s32 %r3, %r3, %r4;\n\
                cp.async.ca.shared.global [%r3], [%rd1+4], 4, 0;\ncp.async.wait_all;\n\
                ld.shared.u32 %r2, [%r3];";
    assert_eq!(each_lane(body), [0; 32]);
}
