//! Integers, floats, comparisons, predicates and moves.

use ptx::{Approximation, Options};

use crate::{ONE, each_lane, float, long, run_with, word};

/// An f32 as a PTX constant.
fn bits(x: f32) -> String {
    format!("0f{:08X}", x.to_bits())
}

#[test]
fn integers_of_32_bits() {
    assert_eq!(word("add.s32 %r2, -1, 3;"), 2);
    assert_eq!(word("sub.s32 %r2, 1, 3;"), -2i32 as u32);
    assert_eq!(word("mul.lo.s32 %r2, 65537, 65537;"), 131_073);
    assert_eq!(word("mul.hi.u32 %r2, 0xFFFFFFFF, 16;"), 15);
    assert_eq!(word("mul.hi.s32 %r2, -1, 16;"), !0);
    assert_eq!(word("mad.lo.s32 %r2, 3, -4, 5;"), -7i32 as u32);
    assert_eq!(word("div.s32 %r2, -7, 2;"), -3i32 as u32);
    assert_eq!(word("div.u32 %r2, -7, 2;"), 0x7FFF_FFFC);
    assert_eq!(word("rem.s32 %r2, -7, 2;"), -1i32 as u32);
    assert_eq!(word("rem.u32 %r2, 17, 5;"), 2);
    assert_eq!(word("min.s32 %r2, -5, 3;"), -5i32 as u32);
    assert_eq!(word("min.u32 %r2, -5, 3;"), 3);
    assert_eq!(word("max.s32 %r2, -5, 3;"), 3);
    assert_eq!(word("abs.s32 %r2, -5;"), 5);
    assert_eq!(word("neg.s32 %r2, 5;"), -5i32 as u32);
    assert_eq!(word("popc.b32 %r2, 0xF0F0;"), 8);
    assert_eq!(word("clz.b32 %r2, 0xF0F0;"), 16);
    assert_eq!(word("brev.b32 %r2, 1;"), 1 << 31);
    assert_eq!(word("and.b32 %r2, 12, 10;"), 8);
    assert_eq!(word("or.b32 %r2, 12, 10;"), 14);
    assert_eq!(word("xor.b32 %r2, 12, 10;"), 6);
    assert_eq!(word("not.b32 %r2, 12;"), !12);
}

#[test]
fn shifts_clamp_their_amount() {
    assert_eq!(word("shl.b32 %r2, 3, 4;"), 48);
    assert_eq!(word("shl.b32 %r2, 3, 32;"), 0);
    assert_eq!(word("shr.u32 %r2, -1, 40;"), 0);
    assert_eq!(word("shr.s32 %r2, -8, 2;"), -2i32 as u32);
    assert_eq!(word("shr.s32 %r2, -8, 99;"), !0);
    assert_eq!(long("shl.b64 %rd9, 3, 40;"), 3 << 40);
    assert_eq!(long("shr.s64 %rd9, -8, 64;"), !0);
    assert_eq!(long("shr.u64 %rd9, -8, 64;"), 0);
    assert_eq!(word("shf.l.wrap.b32 %r2, 0x80000000, 1, 33;"), 3);
    assert_eq!(word("shf.r.clamp.b32 %r2, 2, 5, 40;"), 5);
}

#[test]
fn integers_of_64_and_16_bits() {
    assert_eq!(long("mul.lo.s64 %rd9, 0x100000001, 0x100000001;"), 0x2_0000_0001);
    assert_eq!(long("mul.hi.u64 %rd9, 0x8000000000000000, 6;"), 3);
    assert_eq!(long("div.s64 %rd9, -9, 2;"), -4i64 as u64);
    assert_eq!(long("div.u64 %rd9, -9, 2;"), 0x7FFF_FFFF_FFFF_FFFB);
    assert_eq!(long("rem.s64 %rd9, -9, 2;"), -1i64 as u64);
    assert_eq!(long("min.s64 %rd9, -9, 2;"), -9i64 as u64);
    assert_eq!(long("max.u64 %rd9, -9, 2;"), -9i64 as u64);
    assert_eq!(long("abs.s64 %rd9, -9;"), 9);
    assert_eq!(long("neg.s64 %rd9, 9;"), -9i64 as u64);
    assert_eq!(long("not.b64 %rd9, 0;"), !0);
    assert_eq!(long("mul.wide.s32 %rd9, -3, 5;"), -15i64 as u64);
    assert_eq!(long("mul.wide.u32 %rd9, -1, -1;"), 0xFFFF_FFFE_0000_0001);
    assert_eq!(long("mad.wide.u32 %rd9, -1, 2, 3;"), 0x2_0000_0001);
    let sixteen = |op: &str| word(&format!("{op}\ncvt.u32.u16 %r2, %rs1;"));
    assert_eq!(sixteen("add.s16 %rs1, 65535, 3;"), 2);
    assert_eq!(sixteen("sub.s16 %rs1, 1, 3;"), 65534);
    assert_eq!(sixteen("mul.lo.s16 %rs1, 300, 300;"), 90000 & 0xFFFF);
    assert_eq!(sixteen("shr.s16 %rs1, 0x8000, 3;"), 0xF000);
    assert_eq!(word("mul.wide.u16 %r2, 300, 300;"), 90000);
    assert_eq!(word("mul.wide.s16 %r2, 65535, 5;"), -5i32 as u32);
}

#[test]
fn bit_fields_and_bytes() {
    assert_eq!(word("bfe.u32 %r2, 0xABCD, 4, 8;"), 0xBC);
    assert_eq!(word("bfe.s32 %r2, 0xABCD, 4, 8;"), 0xFFFF_FFBC);
    assert_eq!(word("bfe.u32 %r2, 0xFFFFFFFF, 28, 8;"), 15);
    assert_eq!(word("bfi.b32 %r2, 0xF, 0, 4, 8;"), 0xF0);
    assert_eq!(word("bfi.b32 %r2, 0, 0xFFFF, 4, 8;"), 0xF00F);
    assert_eq!(word("prmt.b32 %r2, 0x44332211, 0x88776655, 0x7410;"), 0x8855_2211);
    assert_eq!(word("prmt.b32 %r2, 0x80, 0, 0x0008;"), 0x8080_80FF);
    assert_eq!(word("lop3.b32 %r2, 12, 10, 7, 0x96;"), 12 ^ 10 ^ 7);
    assert_eq!(word("lop3.b32 %r2, 12, 10, 7, 0x80;"), 12 & 10 & 7);
    assert_eq!(word("mov.u16 %rs1, 7;\nmov.u16 %rs2, 9;\nmov.b32 %r2, {%rs1, %rs2};"), 9 << 16 | 7);
    assert_eq!(word("mov.b32 {%rs1, %rs2}, 0x00090007;\ncvt.u32.u16 %r2, %rs2;"), 9);
    assert_eq!(long("mov.u32 %r2, 7;\nmov.u32 %r3, 9;\nmov.b64 %rd9, {%r2, %r3};"), 9 << 32 | 7);
}

#[test]
fn floats_round_once() {
    let (a, b) = (1.0 + f32::EPSILON, 1.0 - f32::EPSILON);
    let two = |op: &str, a: f32, b: f32| float(&format!("{op} %f2, {}, {};", bits(a), bits(b)));
    assert_eq!(two("add.f32", 1e8, 1.0), 1e8);
    assert_eq!(two("sub.f32", 1.0, 3.0), -2.0);
    assert_eq!(two("mul.rn.f32", a, b), 1.0);
    assert_eq!(two("div.rn.f32", 1.0, 3.0), 1.0 / 3.0);
    let fused = float(&format!("fma.rn.f32 %f2, {}, {}, {};", bits(a), bits(b), bits(-1.0)));
    assert_eq!(fused, -f32::EPSILON * f32::EPSILON);
    let one = |op: &str, a: f32| float(&format!("{op} %f2, {};", bits(a)));
    assert_eq!(one("sqrt.rn.f32", 2.0), 2f32.sqrt());
    assert_eq!(one("rcp.rn.f32", 3.0), 1.0 / 3.0);
    assert_eq!(one("neg.f32", 3.0), -3.0);
    assert_eq!(one("abs.f32", -3.0), 3.0);
}

#[test]
fn nan_and_zeros_follow_the_isa() {
    let two = |op: &str, a: f32, b: f32| float(&format!("{op} %f2, {}, {};", bits(a), bits(b)));
    assert_eq!(two("max.f32", f32::NAN, 1.0), 1.0);
    assert_eq!(two("min.f32", 1.0, f32::NAN), 1.0);
    assert!(two("max.NaN.f32", f32::NAN, 1.0).is_nan());
    assert!(two("max.f32", f32::NAN, f32::NAN).is_nan());
    assert!(two("min.f32", 0.0, -0.0).is_sign_negative());
    assert!(two("max.f32", -0.0, 0.0).is_sign_positive());
    // Arithmetic returns the canonical NaN.
    assert_eq!(two("add.f32", f32::INFINITY, f32::NEG_INFINITY).to_bits(), 0x7FFF_FFFF);
    // Denormal numbers are kept, unless they are flushed.
    let small = f32::from_bits(1);
    assert_eq!(two("add.f32", small, 0.0), small);
    assert_eq!(two("add.ftz.f32", small, 0.0), 0.0);
    assert_eq!(two("add.sat.f32", 1.0, 1.0), 1.0);
    assert_eq!(two("add.sat.f32", -1.0, -1.0), 0.0);
}

#[test]
fn approximations_stay_within_what_is_documented() {
    let run = |op: &str, x: f32, approximation| {
        let body = format!("{op} %f2, {};\nst.global.f32 [%rd2], %f2;", bits(x));
        let options = Options { approximation, ..Options::default() };
        f32::from_bits(run_with(&body, ONE, options).unwrap().0[0])
    };
    type Function = fn(f64) -> f64;
    let cases: [(&str, Function, f64); 4] = [
        ("ex2.approx.ftz.f32", f64::exp2, -22.0),
        ("rcp.approx.ftz.f32", |x| 1.0 / x, -23.0),
        ("rsqrt.approx.f32", |x| 1.0 / x.sqrt(), -22.9),
        ("sqrt.approx.f32", f64::sqrt, -23.0),
    ];
    for (op, exact, power) in cases {
        let mut off: f64 = 0.0;
        for i in 1..60 {
            let x = 0.37 * i as f32;
            let wanted = exact(x.into());
            let nearest = run(op, x, Approximation::Nearest);
            assert!((f64::from(nearest) / wanted - 1.0).abs() <= f64::exp2(-24.0), "{op} {x}");
            let worst = run(op, x, Approximation::Worst);
            let error = (f64::from(worst) / wanted - 1.0).abs();
            assert!(error <= f64::exp2(power), "{op} {x} {error}");
            off = off.max(error);
        }
        assert!(off > 0.4 * f64::exp2(power), "{op} is hardly off: {off}");
    }
    assert_eq!(run("ex2.approx.ftz.f32", 0.0, Approximation::Worst), 1.0);
    assert_eq!(run("ex2.approx.ftz.f32", -140.0, Approximation::Nearest), 0.0);
}

#[test]
fn comparisons_and_predicates() {
    let chosen = |setp: &str| word(&format!("{setp}\nselp.b32 %r2, 1, 0, %p1;"));
    assert_eq!(chosen("setp.lt.s32 %p1, -1, 1;"), 1);
    assert_eq!(chosen("setp.lt.u32 %p1, -1, 1;"), 0);
    assert_eq!(chosen("setp.ge.s64 %p1, -1, -1;"), 1);
    assert_eq!(chosen("setp.gt.u64 %p1, -1, 1;"), 1);
    assert_eq!(chosen("setp.eq.s16 %p1, 65535, -1;"), 1);
    assert_eq!(chosen("setp.ne.b64 %p1, 1, 2;"), 1);
    let nan = bits(f32::NAN);
    let one = bits(1.0);
    assert_eq!(chosen(&format!("setp.neu.f32 %p1, {nan}, {one};")), 1);
    assert_eq!(chosen(&format!("setp.ne.f32 %p1, {nan}, {one};")), 0);
    assert_eq!(chosen(&format!("setp.gtu.f32 %p1, {nan}, {one};")), 1);
    assert_eq!(chosen(&format!("setp.le.f32 %p1, {nan}, {one};")), 0);
    assert_eq!(chosen(&format!("setp.nan.f32 %p1, {nan}, {nan};")), 1);
    assert_eq!(chosen(&format!("setp.num.f32 %p1, {one}, {one};")), 1);
    assert_eq!(chosen("mov.pred %p2, 1;\nsetp.lt.and.s32 %p1, 3, 2, %p2;"), 0);
    assert_eq!(chosen("mov.pred %p2, 1;\nsetp.lt.or.s32 %p1, 3, 2, %p2;"), 1);
    assert_eq!(chosen("setp.lt.s32 %p2|%p1, 3, 2;"), 1);
    assert_eq!(chosen("mov.pred %p2, 1;\nxor.pred %p1, %p2, !%p2;"), 1);
    assert_eq!(chosen("mov.pred %p2, 1;\nnot.pred %p1, %p2;"), 0);
    assert_eq!(float("mov.pred %p1, 0;\nselp.f32 %f2, 0f3F800000, 0f40000000, %p1;"), 2.0);
}

#[test]
fn guards_and_branches_split_a_warp() {
    let body = "mov.u32 %r2, 7;\nsetp.lt.u32 %p1, %r1, 5;\n@%p1 add.s32 %r2, %r2, 1;\n\
                @!%p1 bra OTHER;\nadd.s32 %r2, %r2, 10;\nbra.uni END;\nOTHER:\n\
                add.s32 %r2, %r2, 100;\nEND:\nadd.s32 %r2, %r2, 1000;";
    let expected: Vec<u32> = (0..32).map(|lane| if lane < 5 { 1018 } else { 1107 }).collect();
    assert_eq!(each_lane(body), expected);
    // Lanes loop as often as their index says.
    let body = "mov.u32 %r2, 0;\nmov.u32 %r3, %r1;\nLOOP:\nsetp.eq.s32 %p1, %r3, 0;\n\
                @%p1 bra END;\nadd.s32 %r2, %r2, %r3;\nsub.s32 %r3, %r3, 1;\nbra LOOP;\nEND:";
    let expected: Vec<u32> = (0..32).map(|lane| lane * (lane + 1) / 2).collect();
    assert_eq!(each_lane(body), expected);
}
