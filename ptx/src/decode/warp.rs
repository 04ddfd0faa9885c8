//! Decodes control flow, barriers, exchanges between lanes and tensor-core instructions.

use super::names::{Names, Result};
use super::opcode::Opcode;
use crate::op::{Fragments, IntegerOp, Op, Shuffle, Vote};
use crate::syntax::Operand;

/// Decodes an instruction; `None` if it is of another kind.
pub fn decode(o: &mut Opcode, operands: &[Operand], names: &mut Names) -> Result<Option<Op>> {
    let line = o.line;
    Ok(Some(match (o.name, operands) {
        ("bra", [Operand::Name(label)]) => {
            o.take("uni");
            let Some(&target) = names.labels.get(label) else { return o.wrong() };
            Op::Branch { target }
        }
        ("ret" | "exit", []) => {
            o.take("uni");
            Op::Exit
        }
        ("bar" | "barrier", operands) => barrier(o, operands, names)?,
        ("membar" | "fence", []) => {
            for part in ["gl", "cta", "sys", "gpu", "sc", "acq_rel"] {
                o.take(part);
            }
            Op::Fence
        }
        ("shfl", [d, a, b, c, mask]) => {
            o.expect("sync")?;
            o.expect("b32")?;
            let how = o.first(|part| {
                Some(match part {
                    "idx" => Shuffle::Index,
                    "up" => Shuffle::Up,
                    "down" => Shuffle::Down,
                    "bfly" => Shuffle::Butterfly,
                    _ => return None,
                })
            });
            let Some(how) = how else { return o.wrong() };
            let (d, found) = match *d {
                Operand::Pair(d, found) => {
                    (Operand::Name(d), Some(names.predicate_slot(found, line)?))
                }
                Operand::Name(d) => (Operand::Name(d), None),
                _ => return o.wrong(),
            };
            let (a, b, c) = (names.word(a, line)?, names.word(b, line)?, names.word(c, line)?);
            let d = names.word_slot(&d, line)?;
            Op::Shuffle { how, d, found, a, b, c, mask: names.word(mask, line)? }
        }
        ("vote", [d, a, mask]) => {
            o.expect("sync")?;
            let a = names.predicate(a, line)?;
            let mask = names.word(mask, line)?;
            if o.take("ballot") {
                o.expect("b32")?;
                let d = names.word_slot(d, line)?;
                return Ok(Some(Op::Vote { what: Vote::Ballot, d, a, mask }));
            }
            o.expect("pred")?;
            let what = o.first(|part| {
                Some(match part {
                    "all" => Vote::All,
                    "any" => Vote::Any,
                    "uni" => Vote::Uniform,
                    _ => return None,
                })
            });
            let (Some(what), Operand::Name(d)) = (what, d) else { return o.wrong() };
            Op::Vote { what, d: names.predicate_slot(d, line)?, a, mask }
        }
        ("activemask", [d]) => {
            o.expect("b32")?;
            Op::ActiveMask { d: names.word_slot(d, line)? }
        }
        ("match", [d, a, mask]) => {
            o.expect("any")?;
            o.expect("sync")?;
            let bytes = o.integer()?.bytes();
            let a = names.either(a, bytes, line)?;
            Op::MatchAny { d: names.word_slot(d, line)?, a, mask: names.word(mask, line)? }
        }
        ("redux", [d, a, mask]) => {
            o.expect("sync")?;
            let op = o.first(|part| {
                Some(match part {
                    "add" => IntegerOp::Add,
                    "min" => IntegerOp::Min,
                    "max" => IntegerOp::Max,
                    "and" => IntegerOp::And,
                    "or" => IntegerOp::Or,
                    "xor" => IntegerOp::Xor,
                    _ => return None,
                })
            });
            let (Some(op), kind) = (op, o.integer()?) else { return o.wrong() };
            if kind.bytes() != 4 {
                return o.wrong();
            }
            let (a, mask) = (names.word(a, line)?, names.word(mask, line)?);
            Op::Reduce { op, signed: kind.signed(), d: names.word_slot(d, line)?, a, mask }
        }
        ("ldmatrix", [d, from]) => load_matrix(o, d, from, names)?,
        ("mma", [d, a, b, c]) => multiply(o, [d, a, b, c], names)?,
        _ => return Ok(None),
    }))
}

fn barrier(o: &mut Opcode, operands: &[Operand], names: &mut Names) -> Result<Op> {
    if o.take("warp") {
        o.expect("sync")?;
        let [mask] = operands else { return o.wrong() };
        return Ok(Op::WarpBarrier { mask: names.word(mask, o.line)? });
    }
    o.take("cta");
    o.take("aligned");
    o.expect("sync")?;
    // A numbered barrier, or one for some of the threads, is another thing.
    match operands {
        [Operand::Number(0)] => Ok(Op::Barrier),
        _ => o.wrong(),
    }
}

fn load_matrix(o: &mut Opcode, d: &Operand, from: &Operand, names: &mut Names) -> Result<Op> {
    for part in ["sync", "aligned", "m8n8", "b16"] {
        o.expect(part)?;
    }
    if !o.take("shared") {
        o.expect("shared::cta")?;
    }
    let transposed = o.take("trans");
    let count = o.first(|part| {
        Some(match part {
            "x1" => 1,
            "x2" => 2,
            "x4" => 4,
            _ => return None,
        })
    });
    let (Some(count), Operand::Vector(parts)) = (count, d) else { return o.wrong() };
    if parts.len() != count as usize {
        return o.wrong();
    }
    let mut d = [0; 4];
    for (slot, part) in d.iter_mut().zip(parts) {
        *slot = names.word_slot(part, o.line)?;
    }
    Ok(Op::LoadMatrix { transposed, d, count, from: names.address(from, o.line)? })
}

fn multiply(o: &mut Opcode, operands: [&Operand; 4], names: &mut Names) -> Result<Op> {
    for part in ["sync", "aligned", "row", "col", "f32", "f32"] {
        o.expect(part)?;
    }
    let line = o.line;
    let (fragments, kind) = if o.take("m16n8k16") {
        if o.take("bf16") { (Fragments::Bf16, "bf16") } else { (Fragments::F16, "f16") }
    } else {
        o.expect("m16n8k8")?;
        (Fragments::Tf32, "tf32")
    };
    // Both operands have the same type; bf16's first was taken above.
    if fragments != Fragments::Bf16 {
        o.expect(kind)?;
    }
    o.expect(kind)?;
    let [d, a, b, c] = operands;
    let Operand::Vector(parts) = d else { return o.wrong() };
    let mut slots = [0; 4];
    if parts.len() != slots.len() {
        return o.wrong();
    }
    for (slot, part) in slots.iter_mut().zip(parts) {
        *slot = names.word_slot(part, line)?;
    }
    let (a, b, c) = (names.words(a, line)?, names.words(b, line)?, names.words(c, line)?);
    Ok(Op::Multiply { fragments, d: slots, a, b, c })
}
