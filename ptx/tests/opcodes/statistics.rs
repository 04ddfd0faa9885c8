//! Counts of executed instructions, sectors and bank conflicts.

use ptx::{Class, Options};

use crate::{Size, WARP, run, run_with};

#[test]
fn instructions_are_counted_by_warp_and_thread() {
    let body =
        "setp.lt.u32 %p1, %r1, 5;\n@%p1 add.s32 %r2, %r1, 1;\nfma.rn.f32 %f1, %f2, %f3, %f4;";
    let (_, counts) = run(body, Size { blocks: 3, threads: 64 }).unwrap();
    assert_eq!([counts.launches, counts.blocks, counts.warps], [1, 3, 6]);
    assert_eq!(counts.of(Class::Fp32).warps, 6);
    assert_eq!(counts.of(Class::Fp32).threads, 192);
    // One is the preamble's. A second warp executes the guarded one with no lane.
    assert_eq!(counts.of(Class::Integer).warps, 6 * 2);
    assert_eq!(counts.of(Class::Integer).threads, 192 + 15);
    // The preamble's are of 64 bits.
    assert_eq!(counts.of(Class::LongInteger).warps, 6 * 2);
    let json = counts.json();
    assert_eq!(json["executed"]["fp32"]["threads"], 192);
    let mut twice = counts.clone();
    twice.add(&counts);
    assert_eq!(twice.total().threads, 2 * counts.total().threads);
}

#[test]
fn a_sample_of_the_blocks_can_be_counted() {
    let options = Options { one_block_of: 4, ..Options::default() };
    let (_, counts) = run_with("", Size { blocks: 10, threads: 32 }, options).unwrap();
    assert_eq!([counts.launches, counts.blocks, counts.warps], [1, 3, 3]);
}

#[test]
fn sectors_tell_how_accesses_coalesce() {
    // 16 bytes by each of 32 lanes are 16 whole sectors.
    let (_, counts) = run("ld.global.v4.u32 {%r2,%r3,%r4,%r5}, [%rd1];", WARP).unwrap();
    assert_eq!(counts.global_loads.bytes, 512);
    assert_eq!(counts.global_loads.sectors, 16);
    // 4 of every 16 bytes touch the same sectors.
    let (_, counts) = run("st.global.u32 [%rd2], %r1;", WARP).unwrap();
    assert_eq!(counts.global_stores.bytes, 128);
    assert_eq!(counts.global_stores.sectors, 16);
    let (_, counts) = run("ld.global.u32 %r2, [%rd3];", WARP).unwrap();
    assert_eq!(counts.global_loads.sectors, 1);
}

#[test]
fn a_cache_holds_what_a_block_and_those_before_it_loaded() {
    let (_, counts) = run("ld.global.u32 %r2, [%rd3];\nld.global.u32 %r3, [%rd3];", WARP).unwrap();
    assert_eq!([counts.global_loads.sectors, counts.global_loads.missed], [2, 1]);
    let (_, counts) = run("st.global.u32 [%rd2], %r1;\nst.global.u32 [%rd2], %r1;", WARP).unwrap();
    assert_eq!([counts.global_stores.sectors, counts.global_stores.missed], [32, 32]);
    // The first of four blocks is executed, but not counted.
    let size = Size { blocks: 4, threads: 32 };
    let options = Options { warm_up: true, ..Options::default() };
    let (_, counts) = run_with("ld.global.u32 %r2, [%rd3];", size, options).unwrap();
    assert_eq!([counts.blocks, counts.warps], [3, 3]);
    assert_eq!([counts.global_loads.sectors, counts.global_loads.missed], [3, 0]);
    // A launch of one block is counted.
    let (_, counts) = run_with("ld.global.u32 %r2, [%rd3];", WARP, options).unwrap();
    assert_eq!([counts.blocks, counts.global_loads.missed], [1, 1]);
}

#[test]
fn bank_conflicts() {
    let conflicts = |shift: u32| {
        let body = format!(
            "mov.u32 %r3, dynamic;\nshl.b32 %r4, %r1, {shift};\nand.b32 %r4, %r4, 511;\n\
             add.s32 %r3, %r3, %r4;\nsetp.lt.u32 %p1, %r1, {};\n@%p1 st.shared.u32 [%r3], %r1;",
            512 >> shift
        );
        run(&body, WARP).unwrap().1.shared_stores.conflicts
    };
    // Consecutive words, every second one, every fourth one.
    assert_eq!([conflicts(2), conflicts(3), conflicts(4)], [0, 1, 3]);
    // A wide access takes four wavefronts, which is no conflict.
    let body = "mov.u32 %r3, dynamic;\nshl.b32 %r4, %r1, 4;\nadd.s32 %r3, %r3, %r4;\n\
                st.shared.v4.u32 [%r3], {%r1,%r1,%r1,%r1};";
    let traffic = run(body, WARP).unwrap().1.shared_stores;
    assert_eq!([traffic.wavefronts, traffic.conflicts], [4, 0]);
}
