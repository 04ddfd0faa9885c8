//! Shuffles, votes, matches and reductions over a warp.

use crate::each_lane;

fn lanes(f: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..32).map(f).collect()
}

#[test]
fn shuffles() {
    let shuffle = |how: &str, by: u32, c: u32| {
        each_lane(&format!("shfl.sync.{how}.b32 %r2|%p1, %r1, {by}, {c}, -1;"))
    };
    assert_eq!(shuffle("bfly", 5, 31), lanes(|l| l ^ 5));
    assert_eq!(shuffle("idx", 7, 31), [7; 32]);
    assert_eq!(shuffle("down", 3, 31), lanes(|l| if l + 3 < 32 { l + 3 } else { l }));
    assert_eq!(shuffle("up", 3, 0), lanes(|l| if l >= 3 { l - 3 } else { l }));
    // Segments of eight lanes.
    assert_eq!(shuffle("idx", 1, 0x181F), lanes(|l| l / 8 * 8 + 1));
    let found = each_lane("shfl.sync.down.b32 %r3|%p1, %r1, 3, 31, -1;\nselp.b32 %r2, 1, 0, %p1;");
    assert_eq!(found, lanes(|l| u32::from(l < 29)));
}

#[test]
fn a_shuffle_waits_for_the_lanes_of_its_mask() {
    // Half of the lanes take a detour.
    let body = "setp.lt.u32 %p1, %r1, 16;\nmov.u32 %r3, %r1;\n@%p1 bra SHUFFLE;\n\
                add.s32 %r3, %r3, 100;\nSHUFFLE:\nshfl.sync.bfly.b32 %r2, %r3, 16, 31, -1;";
    assert_eq!(each_lane(body), lanes(|l| if l < 16 { l + 116 } else { l - 16 }));
    // Two halves shuffle by themselves, at different instructions.
    let body = "setp.lt.u32 %p1, %r1, 16;\n@%p1 bra LOW;\n\
                shfl.sync.bfly.b32 %r2, %r1, 1, 31, 0xFFFF0000;\nbra END;\nLOW:\n\
                shfl.sync.bfly.b32 %r2, %r1, 2, 31, 0x0000FFFF;\nEND:";
    assert_eq!(each_lane(body), lanes(|l| if l < 16 { l ^ 2 } else { l ^ 1 }));
}

#[test]
fn votes_and_matches() {
    let small = "setp.lt.u32 %p1, %r1, 5;\n";
    assert_eq!(each_lane(&format!("{small}vote.sync.ballot.b32 %r2, %p1, -1;")), [31; 32]);
    let vote = |what: &str| {
        let body = format!("{small}vote.sync.{what}.pred %p2, %p1, -1;\nselp.b32 %r2, 1, 0, %p2;");
        each_lane(&body)[0]
    };
    assert_eq!([vote("any"), vote("all"), vote("uni")], [1, 0, 0]);
    let body = "and.b32 %r3, %r1, 1;\nmatch.any.sync.b32 %r2, %r3, -1;";
    assert_eq!(each_lane(body), lanes(|l| if l & 1 == 0 { 0x5555_5555 } else { 0xAAAA_AAAA }));
    assert_eq!(each_lane("redux.sync.add.s32 %r2, %r1, -1;"), [496; 32]);
    assert_eq!(each_lane("redux.sync.max.u32 %r2, %r1, -1;"), [31; 32]);
    let body =
        "mov.u32 %r2, 0;\nsetp.lt.u32 %p1, %r1, 3;\n@!%p1 bra END;\nactivemask.b32 %r2;\nEND:";
    assert_eq!(each_lane(body), lanes(|l| if l < 3 { 7 } else { 0 }));
}
