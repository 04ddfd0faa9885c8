//! Single-precision arithmetic on the lanes of a warp, as the PTX ISA documents it.

use crate::lanes::Words;
use crate::op::{Comparison, Conversion, FloatOp, Integer, Rounding};

/// What the special function unit returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approximation {
    /// The nearest number to the exact result.
    #[default]
    Nearest,
    /// A number that is off by as much as the PTX ISA allows, in a direction that depends on the
    /// operand.
    Worst,
}

/// The NaN that arithmetic returns.
const NAN: u32 = 0x7FFF_FFFF;

/// Replaces a denormal number by zero.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

fn bits(x: f32) -> u32 {
    if x.is_nan() { NAN } else { x.to_bits() }
}

fn unary(a: &Words, f: impl Fn(f32) -> f32) -> Words {
    std::array::from_fn(|lane| bits(f(f32::from_bits(a[lane]))))
}

fn binary(a: &Words, b: &Words, f: impl Fn(f32, f32) -> f32) -> Words {
    std::array::from_fn(|lane| bits(f(f32::from_bits(a[lane]), f32::from_bits(b[lane]))))
}

fn fused(a: &Words, b: &Words, c: &Words) -> Words {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("fma") && has!("avx2") {
            // SAFETY: the processor has what the function enables.
            return unsafe { fused_by_instruction(a, b, c) };
        }
    }
    fused_anywhere(a, b, c)
}

#[inline]
fn fused_anywhere(a: &Words, b: &Words, c: &Words) -> Words {
    let number = f32::from_bits;
    std::array::from_fn(|lane| bits(number(a[lane]).mul_add(number(b[lane]), number(c[lane]))))
}

/// The same loop for a processor that has the instruction; others call a routine for each lane.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "fma,avx2")]
fn fused_by_instruction(a: &Words, b: &Words, c: &Words) -> Words {
    fused_anywhere(a, b, c)
}

/// The smaller number; a NaN only if both are. -0 is smaller than +0.
fn smaller(a: f32, b: f32) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    }
}

fn larger(a: f32, b: f32) -> f32 {
    -smaller(-a, -b)
}

/// Calculates with three operands, of which an operation uses the first ones.
pub fn calculate(
    op: FloatOp,
    [flush, saturate]: [bool; 2],
    [a, b, c]: [&Words; 3],
    approximation: Approximation,
) -> Words {
    if !flush && !saturate {
        return plain(op, [a, b, c], approximation);
    }
    let input = |words: &Words| match flush {
        true => words.map(|x| flushed(f32::from_bits(x)).to_bits()),
        false => *words,
    };
    let result = plain(op, [&input(a), &input(b), &input(c)], approximation);
    result.map(|bits| {
        let x = if flush { flushed(f32::from_bits(bits)) } else { f32::from_bits(bits) };
        match saturate {
            // NaN becomes +0.
            true => larger(smaller(x, 1.0), 0.0).to_bits(),
            false => x.to_bits(),
        }
    })
}

fn plain(op: FloatOp, [a, b, c]: [&Words; 3], approximation: Approximation) -> Words {
    let approximated = |f: fn(f64) -> f64| {
        let error = documented_error(op);
        unary(a, |x| approximate(f, error, x, approximation))
    };
    match op {
        FloatOp::Add => binary(a, b, |a, b| a + b),
        FloatOp::Sub => binary(a, b, |a, b| a - b),
        FloatOp::Mul => binary(a, b, |a, b| a * b),
        FloatOp::Div => binary(a, b, |a, b| a / b),
        FloatOp::Min => binary(a, b, smaller),
        FloatOp::Max => binary(a, b, larger),
        FloatOp::MinNan => binary(a, b, |a, b| {
            if a.is_nan() {
                a
            } else if b.is_nan() {
                b
            } else {
                smaller(a, b)
            }
        }),
        FloatOp::MaxNan => binary(a, b, |a, b| {
            if a.is_nan() {
                a
            } else if b.is_nan() {
                b
            } else {
                larger(a, b)
            }
        }),
        FloatOp::Fma => fused(a, b, c),
        // A sign is changed in NaN as well.
        FloatOp::Neg => a.map(|x| x ^ 0x8000_0000),
        FloatOp::Abs => a.map(|x| x & 0x7FFF_FFFF),
        FloatOp::Sqrt => unary(a, f32::sqrt),
        FloatOp::Reciprocal => unary(a, |x| 1.0 / x),
        FloatOp::ReciprocalApprox => approximated(|x| 1.0 / x),
        FloatOp::SqrtApprox => approximated(f64::sqrt),
        FloatOp::ReciprocalSqrtApprox => approximated(|x| 1.0 / x.sqrt()),
        FloatOp::Exp2Approx => approximated(f64::exp2),
        FloatOp::Log2Approx => approximated(f64::log2),
        FloatOp::SinApprox => approximated(f64::sin),
        FloatOp::CosApprox => approximated(f64::cos),
        FloatOp::TanhApprox => approximated(f64::tanh),
        FloatOp::DivApprox => std::array::from_fn(|lane| {
            let (x, y) = (f32::from_bits(a[lane]), f32::from_bits(b[lane]));
            let exact = f64::from(x) / f64::from(y);
            bits(approximate(|x| x, documented_error(op), exact, approximation))
        }),
    }
}

/// The largest error, relative to the result. From the PTX ISA 9.0, "Floating-Point Instructions";
/// where it states an absolute error (lg2 near 1, sin, cos), or ulps (div), the relative one here
/// is no larger.
fn documented_error(op: FloatOp) -> f64 {
    let power = match op {
        FloatOp::ReciprocalApprox | FloatOp::SqrtApprox => -23.0,
        FloatOp::ReciprocalSqrtApprox => -22.9,
        FloatOp::Exp2Approx | FloatOp::Log2Approx | FloatOp::DivApprox => -22.0,
        FloatOp::SinApprox | FloatOp::CosApprox => -20.5,
        FloatOp::TanhApprox => -11.0,
        _ => return 0.0,
    };
    f64::exp2(power)
}

/// Returns f(x), off by at most `error` relative to it.
fn approximate<X: Into<f64>>(
    f: impl Fn(f64) -> f64,
    error: f64,
    x: X,
    approximation: Approximation,
) -> f32 {
    let x: f64 = x.into();
    let exact = f(x);
    // The ISA's tables state the results for zero exactly.
    if approximation == Approximation::Nearest || !exact.is_normal() || x == 0.0 {
        return exact as f32;
    }
    let mixed = x.to_bits().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let direction = if mixed >> 63 == 0 { 1.0 } else { -1.0 };
    // Rounding to f32 adds up to 2^-24, which the bound includes.
    exact.mul_add(direction * (error - f64::exp2(-24.0)), exact) as f32
}

/// Compares; returns a bit for each lane.
pub fn compare(comparison: Comparison, flush: bool, a: &Words, b: &Words) -> u32 {
    crate::lanes::mask_of(|lane| {
        let [a, b] = [a[lane], b[lane]].map(f32::from_bits);
        let [a, b] = if flush { [flushed(a), flushed(b)] } else { [a, b] };
        let nan = a.is_nan() || b.is_nan();
        match comparison {
            Comparison::Equal => a == b,
            // Ordered: false for NaN, unlike Rust's.
            Comparison::NotEqual => !nan && a != b,
            Comparison::Less => a < b,
            Comparison::LessEqual => a <= b,
            Comparison::Greater => a > b,
            Comparison::GreaterEqual => a >= b,
            Comparison::EqualOrNan => nan || a == b,
            Comparison::NotEqualOrNan => a != b,
            Comparison::LessOrNan => nan || a < b,
            Comparison::LessEqualOrNan => nan || a <= b,
            Comparison::GreaterOrNan => nan || a > b,
            Comparison::GreaterEqualOrNan => nan || a >= b,
            Comparison::BothNumbers => !nan,
            Comparison::AnyNan => nan,
        }
    })
}

/// Converts a value; `b` is the second operand of a conversion to a pair.
pub fn convert(conversion: Conversion, a: u64, b: u32) -> u64 {
    let single = |a: u64| f32::from_bits(a as u32);
    match conversion {
        Conversion::Integer { from, to } => {
            // Sign extension reaches the register's width, which `to` may not fill.
            let wide = crate::integer::extended(from, a);
            crate::integer::extended(to, wide)
        }
        Conversion::IntegerToFloat { from, rounding } => {
            let wide = crate::integer::extended(from, a);
            let x = if from.signed() { i128::from(wide as i64) } else { i128::from(wide) };
            integer_to_float(x, rounding).to_bits().into()
        }
        Conversion::FloatToInteger { to, rounding, flush } => {
            let x = if flush { flushed(single(a)) } else { single(a) };
            float_to_integer(to, integral(x, rounding))
        }
        Conversion::FloatToIntegral { rounding, flush, saturate } => {
            let x = if flush { flushed(single(a)) } else { single(a) };
            bits(limited(integral(x, rounding), saturate)).into()
        }
        Conversion::Float { flush, saturate } => {
            let x = if flush { flushed(single(a)) } else { single(a) };
            bits(limited(x, saturate)).into()
        }
        Conversion::ToBf16 { relu } => to_bf16(single(a), relu).into(),
        Conversion::ToBf16Pair { relu } => (u32::from(to_bf16(single(a), relu)) << 16
            | u32::from(to_bf16(f32::from_bits(b), relu)))
        .into(),
        Conversion::FromBf16 => (a as u16 as u64) << 16,
        Conversion::ToTf32 => to_tf32(single(a)).into(),
    }
}

fn limited(x: f32, saturate: bool) -> f32 {
    if saturate { larger(smaller(x, 1.0), 0.0) } else { x }
}

fn integral(x: f32, rounding: Rounding) -> f32 {
    match rounding {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
    }
}

/// Rust's casts saturate and give 0 for NaN, as the hardware does.
fn float_to_integer(to: Integer, x: f32) -> u64 {
    match to {
        Integer::U8 => (x as u8).into(),
        Integer::S8 => (x as i8) as u64,
        Integer::U16 => (x as u16).into(),
        Integer::S16 => (x as i16) as u64,
        Integer::U32 => (x as u32).into(),
        Integer::S32 => (x as i32) as u64,
        Integer::U64 => x as u64,
        Integer::S64 => (x as i64) as u64,
    }
}

fn integer_to_float(x: i128, rounding: Rounding) -> f32 {
    let near = x as f32;
    // The neighbor on the required side, if rounding to nearest went to the other one.
    let exact = near as i128;
    match rounding {
        Rounding::Nearest => near,
        Rounding::Zero if exact.abs() > x.abs() => toward_zero(near),
        Rounding::Down if exact > x => near.next_down(),
        Rounding::Up if exact < x => near.next_up(),
        _ => near,
    }
}

fn toward_zero(x: f32) -> f32 {
    if x > 0.0 { x.next_down() } else { x.next_up() }
}

/// To nearest, ties to even.
pub fn to_bf16(x: f32, relu: bool) -> u16 {
    if x.is_nan() {
        return 0x7FFF;
    }
    if relu && x.is_sign_negative() {
        return 0;
    }
    let all = x.to_bits();
    ((all + 0x7FFF + (all >> 16 & 1)) >> 16) as u16
}

/// To nearest, ties away from zero; the low 13 bits of the result are zero.
fn to_tf32(x: f32) -> u32 {
    match x.is_finite() {
        true => x.to_bits().wrapping_add(0x1000) & !0x1FFF,
        false => bits(x),
    }
}

/// Returns the number that 16 bits of an f16 represent.
pub fn from_f16(half: u16) -> f32 {
    let (exponent, fraction) = (half >> 10 & 31, f32::from(half & 0x3FF));
    let magnitude = match exponent {
        0 => fraction * f32::powi(2.0, -24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * f32::powi(2.0, i32::from(exponent) - 15),
    };
    if half >> 15 == 0 { magnitude } else { -magnitude }
}
