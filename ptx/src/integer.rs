//! Integer arithmetic on the lanes of a warp. Division by zero gives all ones; it is unspecified.

use crate::lanes::{LANES, Longs, Words};
use crate::op::{Comparison, Integer, IntegerOp};

/// What the operations need of Rust's integers.
trait Int: Copy + Ord {
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn mul_high(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn rem(self, other: Self) -> Self;
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn not(self) -> Self;
    fn abs(self) -> Self;
    fn neg(self) -> Self;
    fn population(self) -> Self;
    fn leading_zeros(self) -> Self;
    fn reversed(self) -> Self;
    fn shift_left(self, by: u32) -> Self;
    fn shift_right(self, by: u32) -> Self;
}

macro_rules! int {
    ($type:ty, $wide:ty, $abs:expr) => {
        impl Int for $type {
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            fn mul_high(self, other: Self) -> Self {
                ((self as $wide * other as $wide) >> Self::BITS) as Self
            }
            fn div(self, other: Self) -> Self {
                if other == 0 { !0 } else { self.wrapping_div(other) }
            }
            fn rem(self, other: Self) -> Self {
                if other == 0 { !0 } else { self.wrapping_rem(other) }
            }
            fn and(self, other: Self) -> Self {
                self & other
            }
            fn or(self, other: Self) -> Self {
                self | other
            }
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
            fn not(self) -> Self {
                !self
            }
            fn abs(self) -> Self {
                ($abs)(self)
            }
            fn neg(self) -> Self {
                self.wrapping_neg()
            }
            fn population(self) -> Self {
                self.count_ones() as Self
            }
            fn leading_zeros(self) -> Self {
                <$type>::leading_zeros(self) as Self
            }
            fn reversed(self) -> Self {
                self.reverse_bits()
            }
            fn shift_left(self, by: u32) -> Self {
                if by < Self::BITS { self << by } else { 0 }
            }
            // A signed number's sign fills every bit.
            fn shift_right(self, by: u32) -> Self {
                if by < Self::BITS { self >> by } else { (self >> (Self::BITS - 1)) >> 1 }
            }
        }
    };
}
int!(u16, u32, |x| x);
int!(i16, i32, i16::wrapping_abs);
int!(u32, u64, |x| x);
int!(i32, i64, i32::wrapping_abs);
int!(u64, u128, |x| x);
int!(i64, i128, i64::wrapping_abs);

fn each<I: Copy, O>(a: &[I; LANES], b: &[I; LANES], f: impl Fn(I, I) -> O) -> [O; LANES] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

fn calculated<I: Int>(op: IntegerOp, a: &[I; LANES], b: &[I; LANES]) -> [I; LANES] {
    match op {
        IntegerOp::Add => each(a, b, I::add),
        IntegerOp::Sub => each(a, b, I::sub),
        IntegerOp::MulLow => each(a, b, I::mul),
        IntegerOp::MulHigh => each(a, b, I::mul_high),
        IntegerOp::Div => each(a, b, I::div),
        IntegerOp::Rem => each(a, b, I::rem),
        IntegerOp::Min => each(a, b, I::min),
        IntegerOp::Max => each(a, b, I::max),
        IntegerOp::And => each(a, b, I::and),
        IntegerOp::Or => each(a, b, I::or),
        IntegerOp::Xor => each(a, b, I::xor),
        IntegerOp::Not => each(a, b, |a, _| a.not()),
        IntegerOp::Neg => each(a, b, |a, _| a.neg()),
        IntegerOp::Abs => each(a, b, |a, _| a.abs()),
        IntegerOp::PopCount => each(a, b, |a, _| a.population()),
        IntegerOp::LeadingZeros => each(a, b, |a, _| a.leading_zeros()),
        IntegerOp::ReverseBits => each(a, b, |a, _| a.reversed()),
        // The amount is not of type I; `shifted` takes it.
        IntegerOp::ShiftLeft | IntegerOp::ShiftRight => *a,
    }
}

/// Calculates with 16- or 32-bit numbers. 16-bit results are zero-extended.
pub fn words(op: IntegerOp, kind: Integer, a: &Words, b: &Words) -> Words {
    if matches!(op, IntegerOp::ShiftLeft | IntegerOp::ShiftRight) {
        return shifted_words(op, kind, a, b);
    }
    match kind {
        Integer::U8 | Integer::U16 => {
            calculated(op, &a.map(|x| x as u16), &b.map(|x| x as u16)).map(u32::from)
        }
        Integer::S8 | Integer::S16 => {
            calculated(op, &a.map(|x| x as i16), &b.map(|x| x as i16)).map(|x| x as u16 as u32)
        }
        Integer::U32 | Integer::U64 => calculated(op, a, b),
        Integer::S32 | Integer::S64 => {
            calculated(op, &a.map(|x| x as i32), &b.map(|x| x as i32)).map(|x| x as u32)
        }
    }
}

/// Calculates with 64-bit numbers.
pub fn longs(op: IntegerOp, signed: bool, a: &Longs, b: &Longs) -> Longs {
    if matches!(op, IntegerOp::ShiftLeft | IntegerOp::ShiftRight) {
        let by = b.map(|x| x as u32);
        return match (op, signed) {
            (IntegerOp::ShiftLeft, _) => std::array::from_fn(|l| a[l].shift_left(by[l])),
            (_, false) => std::array::from_fn(|l| a[l].shift_right(by[l])),
            (_, true) => std::array::from_fn(|l| (a[l] as i64).shift_right(by[l]) as u64),
        };
    }
    match signed {
        false => calculated(op, a, b),
        true => calculated(op, &a.map(|x| x as i64), &b.map(|x| x as i64)).map(|x| x as u64),
    }
}

fn shifted_words(op: IntegerOp, kind: Integer, a: &Words, by: &Words) -> Words {
    let left = op == IntegerOp::ShiftLeft;
    std::array::from_fn(|lane| {
        let (x, by) = (a[lane], by[lane]);
        match (kind, left) {
            (Integer::U16 | Integer::U8, false) => (x as u16).shift_right(by).into(),
            (Integer::S16 | Integer::S8, false) => (x as i16).shift_right(by) as u16 as u32,
            (Integer::U16 | Integer::U8 | Integer::S16 | Integer::S8, true) => {
                (x as u16).shift_left(by).into()
            }
            (Integer::S32 | Integer::S64, false) => (x as i32).shift_right(by) as u32,
            (Integer::U32 | Integer::U64, false) => x.shift_right(by),
            (_, true) => x.shift_left(by),
        }
    })
}

/// Multiplies 16- or 32-bit numbers to their whole product.
pub fn widened_product(kind: Integer, a: u32, b: u32) -> u64 {
    match kind {
        Integer::S16 | Integer::S8 => (i32::from(a as i16) * i32::from(b as i16)) as u32 as u64,
        Integer::U16 | Integer::U8 => u64::from(a as u16) * u64::from(b as u16),
        Integer::S32 | Integer::S64 => (i64::from(a as i32) * i64::from(b as i32)) as u64,
        Integer::U32 | Integer::U64 => u64::from(a) * u64::from(b),
    }
}

/// Extends the low bits of a number as its type says.
pub fn extended(kind: Integer, x: u64) -> u64 {
    match kind {
        Integer::U8 => x as u8 as u64,
        Integer::S8 => x as i8 as u64,
        Integer::U16 => x as u16 as u64,
        Integer::S16 => x as i16 as u64,
        Integer::U32 => x as u32 as u64,
        Integer::S32 => x as i32 as u64,
        Integer::U64 | Integer::S64 => x,
    }
}

fn compared<I: Ord + Copy>(comparison: Comparison, a: &[I; LANES], b: &[I; LANES]) -> u32 {
    let mask = |bits: [bool; LANES]| crate::lanes::mask_of(|lane| bits[lane]);
    match comparison {
        Comparison::Equal | Comparison::EqualOrNan => mask(each(a, b, |a, b| a == b)),
        Comparison::NotEqual | Comparison::NotEqualOrNan => mask(each(a, b, |a, b| a != b)),
        Comparison::Less | Comparison::LessOrNan => mask(each(a, b, |a, b| a < b)),
        Comparison::LessEqual | Comparison::LessEqualOrNan => mask(each(a, b, |a, b| a <= b)),
        Comparison::Greater | Comparison::GreaterOrNan => mask(each(a, b, |a, b| a > b)),
        Comparison::GreaterEqual | Comparison::GreaterEqualOrNan => mask(each(a, b, |a, b| a >= b)),
        Comparison::BothNumbers => !0,
        Comparison::AnyNan => 0,
    }
}

/// Compares 16- or 32-bit numbers; returns a bit for each lane.
pub fn compare_words(comparison: Comparison, kind: Integer, a: &Words, b: &Words) -> u32 {
    match kind {
        Integer::U8 | Integer::U16 => {
            compared(comparison, &a.map(|x| x as u16), &b.map(|x| x as u16))
        }
        Integer::S8 | Integer::S16 => {
            compared(comparison, &a.map(|x| x as i16), &b.map(|x| x as i16))
        }
        Integer::U32 | Integer::U64 => compared(comparison, a, b),
        Integer::S32 | Integer::S64 => {
            compared(comparison, &a.map(|x| x as i32), &b.map(|x| x as i32))
        }
    }
}

/// Compares 64-bit numbers; returns a bit for each lane.
pub fn compare_longs(comparison: Comparison, signed: bool, a: &Longs, b: &Longs) -> u32 {
    match signed {
        false => compared(comparison, a, b),
        true => compared(comparison, &a.map(|x| x as i64), &b.map(|x| x as i64)),
    }
}

/// Picks four of eight bytes, as `prmt.b32` does in its default mode.
pub fn permuted(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(a) | u64::from(b) << 32;
    (0..4).fold(0, |word, at| {
        let choice = selector >> (4 * at);
        let byte = (bytes >> (8 * (choice & 7))) as u8;
        // The fourth bit replicates the byte's sign.
        let byte = if choice & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 };
        word | u32::from(byte) << (8 * at)
    })
}

/// Extracts a bit field, as `bfe` does; a signed field is filled with its sign.
pub fn extracted(kind: Integer, a: u64, position: u32, length: u32) -> u64 {
    let bits = 8 * kind.bytes();
    let (position, length) = (position & 0xFF, length & 0xFF);
    let bit = |at: u32| at < bits && a >> at & 1 == 1;
    let sign = kind.signed() && length > 0 && bit((position + length - 1).min(bits - 1));
    (0..bits).fold(0, |field, at| {
        let set = if at < length && position + at < bits { bit(position + at) } else { sign };
        field | u64::from(set) << at
    })
}

/// Inserts the low bits of `a` into `b`, as `bfi` does.
pub fn inserted(bits: u32, a: u64, b: u64, position: u32, length: u32) -> u64 {
    let (position, length) = (position & 0xFF, length & 0xFF);
    (0..length).take_while(|at| position + at < bits).fold(b, |word, at| {
        let to = position + at;
        (word & !(1 << to)) | (a >> at & 1) << to
    })
}

/// Applies a table of three inputs to each bit.
pub fn looked_up(table: u8, a: u32, b: u32, c: u32) -> u32 {
    (0..8).filter(|row| table >> row & 1 == 1).fold(0, |word, row| {
        let pick = |x: u32, bit: u32| if row >> bit & 1 == 1 { x } else { !x };
        word | (pick(a, 2) & pick(b, 1) & pick(c, 0))
    })
}

/// Shifts the 64 bits of `high` and `low` and returns the upper (left) or lower (right) half.
pub fn funnel(right: bool, wrap: bool, low: u32, high: u32, by: u32) -> u32 {
    let by = if wrap { by & 31 } else { by.min(32) };
    let both = u64::from(high) << 32 | u64::from(low);
    match right {
        true => (both >> by) as u32,
        false => ((both << by) >> 32) as u32,
    }
}
