//! Decodes loads, stores, atomics, asynchronous copies and address conversions.

use super::names::{Names, Result, Symbol};
use super::opcode::{Opcode, Type};
use crate::op::{AtomicOp, Either, Integer, Op, Shape, Space, Target, Word};
use crate::syntax::Operand;

/// Decodes an instruction; `None` if it is of another kind.
pub fn decode(o: &mut Opcode, operands: &[Operand], names: &mut Names) -> Result<Option<Op>> {
    let line = o.line;
    Ok(Some(match (o.name, operands) {
        ("ld", [d, from]) if o.take("param") => parameter(o, d, from, names)?,
        ("ld", [d, from]) => {
            o.take("volatile");
            o.take("relaxed");
            let coherent = !o.take("nc");
            cache_hints(o);
            let space = space(o);
            let shape = shape(o)?;
            let mut targets = [Target::Word(0); 4];
            for (target, part) in targets.iter_mut().zip(parts(d, shape, o)?) {
                *target = match shape.bytes {
                    8 => names.target(part, 8, line)?,
                    _ => names.any_target(part, line)?,
                };
            }
            Op::Load { space, coherent, shape, d: targets, from: names.address(from, line)? }
        }
        ("st", [to, a]) => {
            o.take("volatile");
            o.take("relaxed");
            cache_hints(o);
            let space = space(o);
            let shape = shape(o)?;
            let mut sources = [Either::Word(Word::Constant(0)); 4];
            for (source, part) in sources.iter_mut().zip(parts(a, shape, o)?) {
                *source = match shape.bytes {
                    8 => names.either(part, 8, line)?,
                    _ => names.any(part, line)?,
                };
            }
            Op::Store { space, shape, a: sources, to: names.address(to, line)? }
        }
        ("atom", [d, at, rest @ ..]) => {
            let space = space(o);
            let (op, kind) = atomic(o)?;
            let d = match d {
                Operand::Name("_") => None,
                d => Some(names.target(d, kind.bytes(), line)?),
            };
            let (a, b) = atomic_operands(o, op, kind, rest, names)?;
            Op::Atomic { op, space, kind, d, at: names.address(at, line)?, a, b }
        }
        ("red", [at, rest @ ..]) => {
            let space = space(o);
            let (op, kind) = atomic(o)?;
            let (a, b) = atomic_operands(o, op, kind, rest, names)?;
            Op::Atomic { op, space, kind, d: None, at: names.address(at, line)?, a, b }
        }
        ("cvta", [d, a]) => {
            let to_space = o.take("to");
            let space = space(o);
            let bytes = o.integer()?.bytes();
            let d = names.target(d, bytes, line)?;
            Op::ConvertAddress { space, to_space, d, a: names.either(a, bytes, line)? }
        }
        ("cp", [to, from, Operand::Number(bytes), rest @ ..]) if o.take("async") => {
            let cached = o.take("ca");
            if !cached {
                o.expect("cg")?;
            }
            o.expect("shared")?;
            o.expect("global")?;
            cache_hints(o);
            let bytes = *bytes as u32;
            let known = if cached { matches!(bytes, 4 | 8 | 16) } else { bytes == 16 };
            let source_bytes = match rest {
                [] => None,
                [count] => Some(names.word(count, line)?),
                _ => return o.wrong(),
            };
            if !known {
                return o.wrong();
            }
            let (to, from) = (names.address(to, line)?, names.address(from, line)?);
            Op::CopyAsync { bytes, to, from, source_bytes }
        }
        ("cp", []) if o.take("async") => {
            if o.take("commit_group") {
                Op::CommitGroup
            } else {
                o.expect("wait_all")?;
                Op::WaitAll
            }
        }
        ("cp", [Operand::Number(pending)]) if o.take("async") => {
            o.expect("wait_group")?;
            Op::WaitGroup { pending: *pending as u32 }
        }
        _ => return Ok(None),
    }))
}

fn space(o: &mut Opcode) -> Space {
    if o.take("global") {
        Space::Global
    } else if o.take("shared") || o.take("shared::cta") {
        Space::Shared
    } else if o.take("local") {
        Space::Local
    } else {
        Space::Generic
    }
}

/// Hints that do not change what is loaded or stored.
fn cache_hints(o: &mut Opcode) {
    for hint in ["ca", "cg", "cs", "lu", "cv", "wb", "wt", "L2::64B", "L2::128B", "L2::256B"] {
        o.take(hint);
    }
}

fn shape(o: &mut Opcode) -> Result<Shape> {
    let count = if o.take("v4") {
        4
    } else if o.take("v2") {
        2
    } else {
        1
    };
    let (bytes, signed) = match o.of_type()? {
        Type::F32 => (4, false),
        Type::Integer(kind) => (kind.bytes(), kind.signed()),
        Type::Predicate => return o.wrong(),
    };
    Ok(Shape { bytes, signed, count })
}

/// Returns the elements of a vector, or the one operand.
fn parts<'o, 'a>(operand: &'o Operand<'a>, shape: Shape, o: &Opcode) -> Result<&'o [Operand<'a>]> {
    let parts = match operand {
        Operand::Vector(parts) => parts.as_slice(),
        one => std::slice::from_ref(one),
    };
    if parts.len() == shape.count as usize { Ok(parts) } else { o.wrong() }
}

fn parameter(o: &mut Opcode, d: &Operand, from: &Operand, names: &mut Names) -> Result<Op> {
    let shape = shape(o)?;
    let Operand::Address { base: Some(name), offset } = *from else { return o.wrong() };
    let Some(&Symbol::Parameter { start, bytes }) = names.symbols.get(name) else {
        return o.wrong();
    };
    let inside = (0..=i64::from(bytes) - i64::from(shape.bytes)).contains(&offset);
    if shape.count != 1 || !inside {
        return o.wrong();
    }
    let d = match shape.bytes {
        8 => names.target(d, 8, o.line)?,
        _ => names.any_target(d, o.line)?,
    };
    let offset = start + offset as u32;
    Ok(Op::LoadParameter { offset, bytes: shape.bytes, signed: shape.signed, d })
}

fn atomic(o: &mut Opcode) -> Result<(AtomicOp, Integer)> {
    o.take("relaxed");
    o.take("gpu");
    o.take("cta");
    let op = o.first(|part| {
        Some(match part {
            "add" => AtomicOp::Add,
            "min" => AtomicOp::Min,
            "max" => AtomicOp::Max,
            "and" => AtomicOp::And,
            "or" => AtomicOp::Or,
            "xor" => AtomicOp::Xor,
            "exch" => AtomicOp::Exchange,
            "cas" => AtomicOp::CompareAndSwap,
            _ => return None,
        })
    });
    match (op, o.of_type()?) {
        (Some(AtomicOp::Add), Type::F32) => Ok((AtomicOp::FloatAdd, Integer::U32)),
        (Some(op), Type::Integer(kind)) if kind.bytes() >= 4 => Ok((op, kind)),
        _ => o.wrong(),
    }
}

fn atomic_operands(
    o: &Opcode,
    op: AtomicOp,
    kind: Integer,
    operands: &[Operand],
    names: &mut Names,
) -> Result<(Either, Either)> {
    let bytes = kind.bytes();
    match (op, operands) {
        (AtomicOp::CompareAndSwap, [a, b]) => {
            Ok((names.either(a, bytes, o.line)?, names.either(b, bytes, o.line)?))
        }
        (AtomicOp::CompareAndSwap, _) => o.wrong(),
        (_, [a]) => {
            let none = names.either(&Operand::Number(0), bytes, o.line)?;
            Ok((names.either(a, bytes, o.line)?, none))
        }
        _ => o.wrong(),
    }
}
