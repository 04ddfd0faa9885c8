//! `cvt`.

use crate::{float, long, word};

#[test]
fn between_integers() {
    assert_eq!(long("cvt.s64.s32 %rd9, -5;"), -5i64 as u64);
    assert_eq!(long("mov.u32 %r3, -5;\ncvt.u64.u32 %rd9, %r3;"), 0xFFFF_FFFB);
    assert_eq!(word("mov.u64 %rd9, 0x1FFFFFFFF;\ncvt.u32.u64 %r2, %rd9;"), !0);
    assert_eq!(word("mov.u16 %rs1, 65535;\ncvt.s32.s16 %r2, %rs1;"), !0);
    assert_eq!(word("mov.u32 %r3, 0x1FF;\ncvt.u32.u8 %r2, %r3;"), 0xFF);
    assert_eq!(word("mov.u32 %r3, 0x1FF;\ncvt.s32.s8 %r2, %r3;"), !0);
}

#[test]
fn to_floats() {
    assert_eq!(float("cvt.rn.f32.s32 %f2, -7;"), -7.0);
    assert_eq!(float("cvt.rn.f32.u32 %f2, 0xFFFFFFFF;"), 4_294_967_296.0);
    assert_eq!(float("mov.u64 %rd9, 16777217;\ncvt.rn.f32.s64 %f2, %rd9;"), 16_777_216.0);
    assert_eq!(float("mov.u64 %rd9, 16777217;\ncvt.rp.f32.s64 %f2, %rd9;"), 16_777_218.0);
    assert_eq!(float("mov.u64 %rd9, 16777219;\ncvt.rz.f32.s64 %f2, %rd9;"), 16_777_218.0);
    assert_eq!(float("mov.u16 %rs1, 9;\ncvt.rn.f32.u16 %f2, %rs1;"), 9.0);
}

#[test]
fn to_integers_saturate() {
    let from = |op: &str, x: f32| word(&format!("{op} %r2, 0f{:08X};", x.to_bits()));
    assert_eq!(from("cvt.rzi.s32.f32", -2.7), -2i32 as u32);
    assert_eq!(from("cvt.rmi.s32.f32", -2.2), -3i32 as u32);
    assert_eq!(from("cvt.rpi.s32.f32", 2.2), 3);
    assert_eq!(from("cvt.rni.s32.f32", 2.5), 2);
    assert_eq!(from("cvt.rzi.s32.f32", 1e20), i32::MAX as u32);
    assert_eq!(from("cvt.rzi.u32.f32", -1.0), 0);
    assert_eq!(from("cvt.rzi.u32.f32", f32::NAN), 0);
    assert_eq!(long("cvt.rzi.s64.f32 %rd9, 0fC0200000;"), -2i64 as u64);
}

#[test]
fn between_floats() {
    let from = |op: &str, x: f32| float(&format!("{op} %f2, 0f{:08X};", x.to_bits()));
    assert_eq!(from("cvt.rmi.f32.f32", -2.2), -3.0);
    assert_eq!(from("cvt.rpi.f32.f32", -2.2), -2.0);
    assert_eq!(from("cvt.rni.f32.f32", 3.5), 4.0);
    assert_eq!(from("cvt.sat.f32.f32", 3.5), 1.0);
}

#[test]
fn bf16_and_tf32_round() {
    let bf16 = |x: f32| {
        let body = format!("cvt.rn.bf16.f32 %rs1, 0f{:08X};\ncvt.u32.u16 %r2, %rs1;", x.to_bits());
        word(&body)
    };
    assert_eq!(bf16(1.0), 0x3F80);
    // A tie goes to the even neighbor.
    assert_eq!(bf16(f32::from_bits(0x3F80_8000)), 0x3F80);
    assert_eq!(bf16(f32::from_bits(0x3F81_8000)), 0x3F82);
    assert_eq!(bf16(f32::NAN), 0x7FFF);
    assert_eq!(word("cvt.rn.bf16x2.f32 %r2, 0f3F800000, 0f40000000;"), 0x3F80_4000);
    assert_eq!(float("mov.u16 %rs1, 0x4000;\ncvt.f32.bf16 %f2, %rs1;"), 2.0);
    let tf32 = |x: u32| word(&format!("cvt.rna.tf32.f32 %r2, 0f{x:08X};"));
    assert_eq!(tf32(0x3F80_0FFF), 0x3F80_0000);
    // A tie goes away from zero.
    assert_eq!(tf32(0x3F80_1000), 0x3F80_2000);
    assert_eq!(tf32(0xBF80_1000), 0xBF80_2000);
}
