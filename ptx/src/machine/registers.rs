//! Executes instructions that only touch registers.

use crate::float::{self, Approximation};
use crate::integer;
use crate::lanes::{LANES, Longs, Registers};
use crate::op::{Compared, Conversion, Either, Integer, Logic, Op, Target};

/// Executes an instruction for the lanes of a mask; returns false if it is of another kind.
pub fn execute(op: &Op, r: &mut Registers, mask: u32, approximation: Approximation) -> bool {
    match *op {
        Op::Integer { op, kind, d, a, b } => match (d, a, b) {
            (Target::Long(d), Either::Long(a), b) => {
                let value = integer::longs(op, kind.signed(), &r.long(a), &r.extended(b));
                r.set_long(d, mask, &value);
            }
            (Target::Word(d), Either::Word(a), b) => {
                let value = integer::words(op, kind, &r.word(a), &r.truncated(b));
                r.set_word(d, mask, &value);
            }
            // The number of a 64-bit operand's bits, which fits into a word.
            (Target::Word(d), Either::Long(a), b) => {
                let value = integer::longs(op, kind.signed(), &r.long(a), &r.extended(b));
                r.set_word(d, mask, &value.map(|x| x as u32));
            }
            (Target::Long(d), Either::Word(a), b) => {
                let value = integer::words(op, kind, &r.word(a), &r.truncated(b));
                r.set_long(d, mask, &value.map(u64::from));
            }
        },
        Op::MulAdd { kind, high, d, a, b, c } => {
            use crate::op::IntegerOp::{Add, MulHigh, MulLow};
            let multiply = if high { MulHigh } else { MulLow };
            if kind.bytes() == 8 {
                let signed = kind.signed();
                let product = integer::longs(multiply, signed, &r.extended(a), &r.extended(b));
                r.set(d, mask, &integer::longs(Add, signed, &product, &r.extended(c)));
            } else {
                let product = integer::words(multiply, kind, &r.truncated(a), &r.truncated(b));
                let sum = integer::words(Add, kind, &product, &r.truncated(c));
                r.set(d, mask, &sum.map(u64::from));
            }
        }
        Op::MulWide { kind, d, a, b, c } => {
            let (a, b) = (r.word(a), r.word(b));
            let c = c.map_or([0; LANES], |c| r.extended(c));
            let value: Longs = std::array::from_fn(|lane| {
                integer::widened_product(kind, a[lane], b[lane]).wrapping_add(c[lane])
            });
            r.set(d, mask, &value);
        }
        Op::Float { op, flush, saturate, d, a, b, c } => {
            let operands = [&r.word(a), &r.word(b), &r.word(c)];
            let value = float::calculate(op, [flush, saturate], operands, approximation);
            r.set_word(d, mask, &value);
        }
        Op::Compare { comparison, of, d, other, with } => {
            let result = match of {
                Compared::Words { kind, a, b } => {
                    integer::compare_words(comparison, kind, &r.word(a), &r.word(b))
                }
                Compared::Longs { signed, a, b } => {
                    integer::compare_longs(comparison, signed, &r.long(a), &r.long(b))
                }
                Compared::Floats { flush, a, b } => {
                    float::compare(comparison, flush, &r.word(a), &r.word(b))
                }
            };
            let combined = |result: u32| match with {
                Some((logic, with)) => combine(logic, result, r.predicate(with)),
                None => result,
            };
            let (value, negated) = (combined(result), combined(!result));
            r.set_predicate(d, mask, value);
            if let Some(other) = other {
                r.set_predicate(other, mask, negated);
            }
        }
        Op::Logic { op, d, a, b } => {
            let value = combine(op, r.predicate(a), r.predicate(b));
            r.set_predicate(d, mask, value);
        }
        Op::MovePredicate { d, a } => r.set_predicate(d, mask, r.predicate(a)),
        Op::Move { d, a } => set(r, d, mask, a),
        Op::Select { d, a, b, by } => {
            let by = r.predicate(by);
            set(r, d, mask & by, a);
            set(r, d, mask & !by, b);
        }
        Op::Pack { d, low, high } => {
            let (low, high) = (r.word(low), r.word(high));
            let value: Longs = match d {
                Target::Word(_) => std::array::from_fn(|l| {
                    u64::from(low[l] & 0xFFFF) | u64::from(high[l] & 0xFFFF) << 16
                }),
                Target::Long(_) => {
                    std::array::from_fn(|l| u64::from(low[l]) | u64::from(high[l]) << 32)
                }
            };
            r.set(d, mask, &value);
        }
        Op::Unpack { low, high, a } => {
            let value = r.extended(a);
            let (bits, part) = match a {
                Either::Word(_) => (16, 0xFFFF),
                Either::Long(_) => (32, 0xFFFF_FFFF),
            };
            if let Some(low) = low {
                r.set_word(low, mask, &value.map(|x| (x & part) as u32));
            }
            if let Some(high) = high {
                r.set_word(high, mask, &value.map(|x| (x >> bits) as u32));
            }
        }
        Op::Convert { conversion, d, a, b } => {
            let (x, b) = (r.extended(a), r.word(b));
            let value = match conversion {
                // The frequent ones, without a call for each lane.
                Conversion::Integer { from: Integer::U64, to: Integer::U32 } => {
                    x.map(|x| x & 0xFFFF_FFFF)
                }
                Conversion::Integer { from: Integer::U32, to: Integer::U64 } => x,
                _ => std::array::from_fn(|lane| float::convert(conversion, x[lane], b[lane])),
            };
            r.set(d, mask, &value);
        }
        Op::Permute { d, a, b, selector } => {
            let (a, b, selector) = (r.word(a), r.word(b), r.word(selector));
            let value = std::array::from_fn(|l| integer::permuted(a[l], b[l], selector[l]));
            r.set_word(d, mask, &value);
        }
        Op::ExtractBits { kind, d, a, position, length } => {
            let (a, position, length) = (r.extended(a), r.word(position), r.word(length));
            let value =
                std::array::from_fn(|l| integer::extracted(kind, a[l], position[l], length[l]));
            r.set(d, mask, &value);
        }
        Op::InsertBits { d, a, b, position, length } => {
            let bits = if matches!(d, Target::Long(_)) { 64 } else { 32 };
            let (a, b) = (r.extended(a), r.extended(b));
            let (position, length) = (r.word(position), r.word(length));
            let value = std::array::from_fn(|l| {
                integer::inserted(bits, a[l], b[l], position[l], length[l])
            });
            r.set(d, mask, &value);
        }
        Op::Logic3 { table, d, a, b, c } => {
            let (a, b, c) = (r.word(a), r.word(b), r.word(c));
            let value = std::array::from_fn(|l| integer::looked_up(table, a[l], b[l], c[l]));
            r.set_word(d, mask, &value);
        }
        Op::FunnelShift { right, wrap, d, low, high, by } => {
            let (low, high, by) = (r.word(low), r.word(high), r.word(by));
            let value =
                std::array::from_fn(|l| integer::funnel(right, wrap, low[l], high[l], by[l]));
            r.set_word(d, mask, &value);
        }
        _ => return false,
    }
    true
}

fn combine(logic: Logic, a: u32, b: u32) -> u32 {
    match logic {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

fn set(r: &mut Registers, d: Target, mask: u32, a: Either) {
    match (d, a) {
        (Target::Word(d), Either::Word(a)) => r.set_word(d, mask, &r.word(a)),
        (Target::Long(d), Either::Long(a)) => r.set_long(d, mask, &r.long(a)),
        (d, a) => r.set(d, mask, &r.extended(a)),
    }
}
