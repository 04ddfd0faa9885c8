//! Decodes arithmetic, comparisons, moves and conversions.

use super::names::{Names, Result};
use super::opcode::{Opcode, Type};
use crate::op::{
    Compared, Comparison, Conversion, FloatOp, Integer, IntegerOp, Logic, Op, Rounding, Target,
    Word,
};
use crate::syntax::Operand;

const NONE: Word = Word::Constant(0);

/// Decodes an instruction; `None` if it is of another kind.
pub fn decode(o: &mut Opcode, operands: &[Operand], names: &mut Names) -> Result<Option<Op>> {
    let line = o.line;
    Ok(Some(match (o.name, operands) {
        ("add" | "sub" | "mul" | "div" | "min" | "max" | "rem", [d, a, b]) => {
            if o.take("wide") {
                return mul_wide(o, d, [a, b], None, names).map(Some);
            }
            match o.of_type()? {
                Type::F32 => float(o, d, &[a, b], names)?,
                Type::Integer(kind) => {
                    let op = integer_op(o)?;
                    let (d, a) = (names.target(d, kind.bytes(), line)?, a);
                    let a = names.either(a, kind.bytes(), line)?;
                    Op::Integer { op, kind, d, a, b: names.either(b, kind.bytes(), line)? }
                }
                Type::Predicate => return o.wrong(),
            }
        }
        ("and" | "or" | "xor", [d, a, b]) => {
            let logic = match o.name {
                "and" => (Logic::And, IntegerOp::And),
                "or" => (Logic::Or, IntegerOp::Or),
                _ => (Logic::Xor, IntegerOp::Xor),
            };
            match o.of_type()? {
                Type::Predicate => {
                    let Operand::Name(d) = d else { return o.wrong() };
                    let d = names.predicate_slot(d, line)?;
                    let (a, b) = (names.predicate(a, line)?, names.predicate(b, line)?);
                    Op::Logic { op: logic.0, d, a, b }
                }
                Type::Integer(kind) => integer(logic.1, kind, d, a, b, names, line)?,
                Type::F32 => return o.wrong(),
            }
        }
        ("not", [d, a]) => match o.of_type()? {
            Type::Predicate => {
                let Operand::Name(d) = d else { return o.wrong() };
                let d = names.predicate_slot(d, line)?;
                let a = names.predicate(a, line)?;
                // a xor true.
                let b = crate::op::Predicate::Constant(true);
                Op::Logic { op: Logic::Xor, d, a, b }
            }
            Type::Integer(kind) => unary(IntegerOp::Not, kind, kind, d, a, names, line)?,
            Type::F32 => return o.wrong(),
        },
        ("neg" | "abs", [d, a]) => match o.of_type()? {
            Type::F32 => float(o, d, &[a], names)?,
            Type::Integer(kind) => {
                let op = if o.name == "neg" { IntegerOp::Neg } else { IntegerOp::Abs };
                unary(op, kind, kind, d, a, names, line)?
            }
            Type::Predicate => return o.wrong(),
        },
        ("popc" | "clz" | "brev", [d, a]) => {
            let kind = o.integer()?;
            let op = match o.name {
                "popc" => IntegerOp::PopCount,
                "clz" => IntegerOp::LeadingZeros,
                _ => return unary(IntegerOp::ReverseBits, kind, kind, d, a, names, line).map(Some),
            };
            unary(op, kind, Integer::U32, d, a, names, line)?
        }
        ("shl" | "shr", [d, a, b]) => {
            let kind = o.integer()?;
            let op = if o.name == "shl" { IntegerOp::ShiftLeft } else { IntegerOp::ShiftRight };
            // The amount is 32 bits wide whatever is shifted.
            let (d, a) = (names.target(d, kind.bytes(), line)?, a);
            let a = names.either(a, kind.bytes(), line)?;
            Op::Integer { op, kind, d, a, b: names.either(b, 4, line)? }
        }
        ("mad", [d, a, b, c]) => {
            if o.take("wide") {
                return mul_wide(o, d, [a, b], Some(c), names).map(Some);
            }
            let high = !o.take("lo");
            if high {
                o.expect("hi")?;
            }
            let kind = o.integer()?;
            let mut operand = |operand| names.either(operand, kind.bytes(), line);
            let (a, b, c) = (operand(a)?, operand(b)?, operand(c)?);
            Op::MulAdd { kind, high, d: names.target(d, kind.bytes(), line)?, a, b, c }
        }
        ("fma", [d, a, b, c]) => {
            let Type::F32 = o.of_type()? else { return o.wrong() };
            float(o, d, &[a, b, c], names)?
        }
        ("sqrt" | "rcp" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh", [d, a]) => {
            let Type::F32 = o.of_type()? else { return o.wrong() };
            float(o, d, &[a], names)?
        }
        ("setp", [d, a, b, with @ ..]) if with.len() < 2 => {
            compare(o, d, a, b, with.first(), names)?
        }
        ("selp", [d, a, b, by]) => {
            let bytes = bytes_of(o)?;
            let d = names.target(d, bytes, line)?;
            let (a, b) = (names.either(a, bytes, line)?, names.either(b, bytes, line)?);
            Op::Select { d, a, b, by: names.predicate(by, line)? }
        }
        ("mov", [d, a]) => mov(o, d, a, names)?,
        ("cvt", [d, rest @ ..]) => convert(o, d, rest, names)?,
        ("prmt", [d, a, b, selector]) => {
            o.expect("b32")?;
            let (a, b) = (names.word(a, line)?, names.word(b, line)?);
            let selector = names.word(selector, line)?;
            Op::Permute { d: names.word_slot(d, line)?, a, b, selector }
        }
        ("bfe", [d, a, position, length]) => {
            let kind = o.integer()?;
            let (d, a) = (names.target(d, kind.bytes(), line)?, a);
            let a = names.either(a, kind.bytes(), line)?;
            let (position, length) = (names.word(position, line)?, names.word(length, line)?);
            Op::ExtractBits { kind, d, a, position, length }
        }
        ("bfi", [d, a, b, position, length]) => {
            let bytes = o.integer()?.bytes();
            let (a, b) = (names.either(a, bytes, line)?, names.either(b, bytes, line)?);
            let (position, length) = (names.word(position, line)?, names.word(length, line)?);
            Op::InsertBits { d: names.target(d, bytes, line)?, a, b, position, length }
        }
        ("lop3", [d, a, b, c, Operand::Number(table)]) => {
            o.expect("b32")?;
            let (a, b, c) = (names.word(a, line)?, names.word(b, line)?, names.word(c, line)?);
            Op::Logic3 { table: *table as u8, d: names.word_slot(d, line)?, a, b, c }
        }
        ("shf", [d, low, high, by]) => {
            let right = o.take("r");
            if !right {
                o.expect("l")?;
            }
            let wrap = o.take("wrap");
            if !wrap {
                o.expect("clamp")?;
            }
            o.expect("b32")?;
            let (low, high) = (names.word(low, line)?, names.word(high, line)?);
            let by = names.word(by, line)?;
            Op::FunnelShift { right, wrap, d: names.word_slot(d, line)?, low, high, by }
        }
        _ => return Ok(None),
    }))
}

fn bytes_of(o: &mut Opcode) -> Result<u32> {
    match o.of_type()? {
        Type::F32 => Ok(4),
        Type::Integer(kind) => Ok(kind.bytes()),
        Type::Predicate => o.wrong(),
    }
}

fn integer_op(o: &mut Opcode) -> Result<IntegerOp> {
    let name = o.name;
    Ok(match name {
        "add" => IntegerOp::Add,
        "sub" => IntegerOp::Sub,
        "mul" if o.take("lo") => IntegerOp::MulLow,
        "mul" if o.take("hi") => IntegerOp::MulHigh,
        "div" => IntegerOp::Div,
        "rem" => IntegerOp::Rem,
        "min" => IntegerOp::Min,
        "max" => IntegerOp::Max,
        _ => return o.wrong(),
    })
}

fn integer(
    op: IntegerOp,
    kind: Integer,
    d: &Operand,
    a: &Operand,
    b: &Operand,
    names: &mut Names,
    line: u32,
) -> Result<Op> {
    let bytes = kind.bytes();
    let (a, b) = (names.either(a, bytes, line)?, names.either(b, bytes, line)?);
    Ok(Op::Integer { op, kind, d: names.target(d, bytes, line)?, a, b })
}

/// `to` is the type of the result.
fn unary(
    op: IntegerOp,
    kind: Integer,
    to: Integer,
    d: &Operand,
    a: &Operand,
    names: &mut Names,
    line: u32,
) -> Result<Op> {
    let d = names.target(d, to.bytes(), line)?;
    let a = names.either(a, kind.bytes(), line)?;
    let b = names.either(&Operand::Number(0), kind.bytes(), line)?;
    Ok(Op::Integer { op, kind, d, a, b })
}

fn mul_wide(
    o: &mut Opcode,
    d: &Operand,
    [a, b]: [&Operand; 2],
    c: Option<&Operand>,
    names: &mut Names,
) -> Result<Op> {
    let (kind, line) = (o.integer()?, o.line);
    if kind.bytes() != 2 && kind.bytes() != 4 {
        return o.wrong();
    }
    let wide = 2 * kind.bytes();
    let c = match c {
        Some(c) => Some(names.either(c, wide, line)?),
        None => None,
    };
    let (a, b) = (names.word(a, line)?, names.word(b, line)?);
    Ok(Op::MulWide { kind, d: names.target(d, wide, line)?, a, b, c })
}

/// Only rounding to nearest is supported.
fn float(o: &mut Opcode, d: &Operand, operands: &[&Operand], names: &mut Names) -> Result<Op> {
    let approximate = o.take("approx");
    let nearest = o.take("rn");
    let op = match (o.name, approximate, nearest) {
        ("add", false, _) => FloatOp::Add,
        ("sub", false, _) => FloatOp::Sub,
        ("mul", false, _) => FloatOp::Mul,
        ("min", false, false) if o.take("NaN") => FloatOp::MinNan,
        ("max", false, false) if o.take("NaN") => FloatOp::MaxNan,
        ("min", false, false) => FloatOp::Min,
        ("max", false, false) => FloatOp::Max,
        ("neg", false, false) => FloatOp::Neg,
        ("abs", false, false) => FloatOp::Abs,
        ("fma", false, true) => FloatOp::Fma,
        ("div", false, true) => FloatOp::Div,
        ("sqrt", false, true) => FloatOp::Sqrt,
        ("rcp", false, true) => FloatOp::Reciprocal,
        ("div", true, false) => FloatOp::DivApprox,
        ("rcp", true, false) => FloatOp::ReciprocalApprox,
        ("sqrt", true, false) => FloatOp::SqrtApprox,
        ("rsqrt", true, false) => FloatOp::ReciprocalSqrtApprox,
        ("ex2", true, false) => FloatOp::Exp2Approx,
        ("lg2", true, false) => FloatOp::Log2Approx,
        ("sin", true, false) => FloatOp::SinApprox,
        ("cos", true, false) => FloatOp::CosApprox,
        ("tanh", true, false) => FloatOp::TanhApprox,
        _ => return o.wrong(),
    };
    let (flush, saturate) = (o.take("ftz"), o.take("sat"));
    let mut inputs = [NONE; 3];
    for (input, operand) in inputs.iter_mut().zip(operands) {
        *input = names.word(operand, o.line)?;
    }
    let [a, b, c] = inputs;
    Ok(Op::Float { op, flush, saturate, d: names.word_slot(d, o.line)?, a, b, c })
}

fn compare(
    o: &mut Opcode,
    d: &Operand,
    a: &Operand,
    b: &Operand,
    with: Option<&Operand>,
    names: &mut Names,
) -> Result<Op> {
    let line = o.line;
    let comparison = o.first(|part| {
        Some(match part {
            "eq" => Comparison::Equal,
            "ne" => Comparison::NotEqual,
            "lt" | "lo" => Comparison::Less,
            "le" | "ls" => Comparison::LessEqual,
            "gt" | "hi" => Comparison::Greater,
            "ge" | "hs" => Comparison::GreaterEqual,
            "equ" => Comparison::EqualOrNan,
            "neu" => Comparison::NotEqualOrNan,
            "ltu" => Comparison::LessOrNan,
            "leu" => Comparison::LessEqualOrNan,
            "gtu" => Comparison::GreaterOrNan,
            "geu" => Comparison::GreaterEqualOrNan,
            "num" => Comparison::BothNumbers,
            "nan" => Comparison::AnyNan,
            _ => return None,
        })
    });
    let Some(comparison) = comparison else { return o.wrong() };
    let logic = o.first(|part| {
        Some(match part {
            "and" => Logic::And,
            "or" => Logic::Or,
            "xor" => Logic::Xor,
            _ => return None,
        })
    });
    let flush = o.take("ftz");
    let of = match o.of_type()? {
        Type::F32 => Compared::Floats { flush, a: names.word(a, line)?, b: names.word(b, line)? },
        Type::Integer(kind) if kind.bytes() == 8 => {
            let (a, b) = (names.long(a, line)?, names.long(b, line)?);
            Compared::Longs { signed: kind.signed(), a, b }
        }
        Type::Integer(kind) => {
            Compared::Words { kind, a: names.word(a, line)?, b: names.word(b, line)? }
        }
        Type::Predicate => return o.wrong(),
    };
    let (d, other) = match *d {
        Operand::Name(d) => (names.predicate_slot(d, line)?, None),
        Operand::Pair(d, other) => {
            (names.predicate_slot(d, line)?, Some(names.predicate_slot(other, line)?))
        }
        _ => return o.wrong(),
    };
    let with = match (logic, with) {
        (Some(logic), Some(with)) => Some((logic, names.predicate(with, line)?)),
        (None, None) => None,
        _ => return o.wrong(),
    };
    Ok(Op::Compare { comparison, of, d, other, with })
}

fn mov(o: &mut Opcode, d: &Operand, a: &Operand, names: &mut Names) -> Result<Op> {
    let line = o.line;
    let bytes = match o.of_type()? {
        Type::Predicate => {
            let Operand::Name(d) = d else { return o.wrong() };
            let d = names.predicate_slot(d, line)?;
            return Ok(Op::MovePredicate { d, a: names.predicate(a, line)? });
        }
        Type::F32 => 4,
        Type::Integer(kind) => kind.bytes(),
    };
    if let Operand::Vector(parts) = a {
        let [low, high] = parts.as_slice() else { return o.wrong() };
        let (low, high) = (names.word(low, line)?, names.word(high, line)?);
        return Ok(Op::Pack { d: names.target(d, bytes, line)?, low, high });
    }
    if let Operand::Vector(parts) = d {
        let [low, high] = parts.as_slice() else { return o.wrong() };
        let (low, high) = (names.sink(low, line)?, names.sink(high, line)?);
        return Ok(Op::Unpack { low, high, a: names.either(a, bytes, line)? });
    }
    Ok(Op::Move { d: names.target(d, bytes, line)?, a: names.either(a, bytes, line)? })
}

fn convert(o: &mut Opcode, d: &Operand, from: &[Operand], names: &mut Names) -> Result<Op> {
    let line = o.line;
    let [a, rest @ ..] = from else { return o.wrong() };
    if o.take("bf16x2") {
        let [b] = rest else { return o.wrong() };
        o.expect("rn")?;
        o.expect("f32")?;
        let conversion = Conversion::ToBf16Pair { relu: o.take("relu") };
        let (a, b) = (names.either(a, 4, line)?, names.word(b, line)?);
        return Ok(Op::Convert { conversion, d: names.target(d, 4, line)?, a, b });
    }
    let (d, a, b) = (names.any_target(d, line)?, names.any(a, line)?, NONE);
    if !rest.is_empty() {
        return o.wrong();
    }
    let (flush, saturate) = (o.take("ftz"), o.take("sat"));
    let to_integer = o.first(|part| {
        Some(match part {
            "rni" => Rounding::Nearest,
            "rzi" => Rounding::Zero,
            "rmi" => Rounding::Down,
            "rpi" => Rounding::Up,
            _ => return None,
        })
    });
    let rounding = o.first(|part| {
        Some(match part {
            "rn" => Rounding::Nearest,
            "rz" => Rounding::Zero,
            "rm" => Rounding::Down,
            "rp" => Rounding::Up,
            _ => return None,
        })
    });
    let conversion = if o.take("tf32") {
        o.expect("rna")?;
        o.expect("f32")?;
        Conversion::ToTf32
    } else if o.take("bf16") {
        let relu = o.take("relu");
        match (o.of_type()?, rounding) {
            (Type::F32, Some(Rounding::Nearest)) => Conversion::ToBf16 { relu },
            (Type::F32, None) if !relu => Conversion::FromBf16,
            _ => return o.wrong(),
        }
    } else {
        match (o.of_type()?, o.of_type()?, to_integer, rounding) {
            (Type::Integer(to), Type::Integer(from), None, None) if !saturate => {
                Conversion::Integer { from, to }
            }
            (Type::F32, Type::Integer(from), None, Some(rounding)) if !saturate => {
                Conversion::IntegerToFloat { from, rounding }
            }
            (Type::Integer(to), Type::F32, Some(rounding), None) => {
                Conversion::FloatToInteger { to, rounding, flush }
            }
            (Type::F32, Type::F32, Some(rounding), None) => {
                Conversion::FloatToIntegral { rounding, flush, saturate }
            }
            (Type::F32, Type::F32, None, None) => Conversion::Float { flush, saturate },
            _ => return o.wrong(),
        }
    };
    let d = match (conversion, d) {
        // A narrow result of a conversion has a register of its own width or wider.
        (_, Target::Word(slot)) => Target::Word(slot),
        (Conversion::Integer { .. } | Conversion::FloatToInteger { .. }, d) => d,
        _ => return o.wrong(),
    };
    Ok(Op::Convert { conversion, d, a, b })
}
