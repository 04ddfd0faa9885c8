//! Warp operations: they take the lanes in a mask together, and pass values between them.

use super::context::{Broken, Context, Result};
use super::tensor_core;
use super::warp::Warp;
use crate::fault::Problem;
use crate::integer;
use crate::lanes::{FULL, LANES, Words, lanes, mask_of};
use crate::op::{Integer, Op, Shuffle, Slot, Vote, Word};

/// Returns the lanes that each lane's operation is for; `None` if it is no warp operation.
pub fn members(warp: &Warp, op: &Op) -> Option<Words> {
    Some(match *op {
        Op::Shuffle { mask, .. }
        | Op::Vote { mask, .. }
        | Op::MatchAny { mask, .. }
        | Op::Reduce { mask, .. }
        | Op::WarpBarrier { mask } => warp.registers.word(mask),
        // `.aligned`: for all lanes.
        Op::LoadMatrix { .. } | Op::Multiply { .. } => [FULL; LANES],
        _ => return None,
    })
}

/// Executes a warp operation for the lanes of a mask, all of which have reached it.
pub fn execute(context: &mut Context, warp: &mut Warp, op: &Op, mask: u32) -> Result<()> {
    match *op {
        Op::Shuffle { how, d, found, a, b, c, .. } => {
            shuffle(warp, how, d, found, [a, b, c], mask)?;
        }
        Op::Vote { what, d, a, .. } => {
            let votes = warp.registers.predicate(a) & mask;
            let all = |value: bool| if value { FULL } else { 0 };
            match what {
                Vote::Ballot => warp.registers.set_word(d, mask, &[votes; LANES]),
                Vote::All => warp.registers.set_predicate(d, mask, all(votes == mask)),
                Vote::Any => warp.registers.set_predicate(d, mask, all(votes != 0)),
                Vote::Uniform => {
                    let same = votes == mask || votes == 0;
                    warp.registers.set_predicate(d, mask, all(same));
                }
            }
        }
        Op::MatchAny { d, a, .. } => {
            let a = warp.registers.extended(a);
            let value: Words =
                std::array::from_fn(|lane| mask_of(|other| a[other] == a[lane]) & mask);
            warp.registers.set_word(d, mask, &value);
        }
        Op::Reduce { op, signed, d, a, .. } => {
            let a = warp.registers.word(a);
            let kind = if signed { Integer::S32 } else { Integer::U32 };
            let combine = |x: u32, y: u32| integer::words(op, kind, &[x; LANES], &[y; LANES])[0];
            let result = lanes(mask).map(|lane| a[lane]).reduce(combine).unwrap_or(0);
            warp.registers.set_word(d, mask, &[result; LANES]);
        }
        Op::WarpBarrier { .. } => {
            context.tick += 1;
            warp.barrier = context.tick;
        }
        Op::LoadMatrix { transposed, d, count, from } => {
            tensor_core::load_matrix(context, warp, transposed, d, count, from)?;
        }
        Op::Multiply { fragments, d, a, b, c } => {
            tensor_core::multiply(warp, fragments, d, a, b, c);
        }
        _ => (),
    }
    Ok(())
}

/// `c` holds the first and last lane of each segment: bits 8..12 are the bits of the lane that stay,
/// bits 0..4 the clamp.
fn shuffle(
    warp: &mut Warp,
    how: Shuffle,
    d: Slot,
    found: Option<Slot>,
    [a, b, c]: [Word; 3],
    mask: u32,
) -> Result<()> {
    let r = &mut warp.registers;
    let (a, b, c) = (r.word(a), r.word(b), r.word(c));
    let (mut value, mut in_range) = (a, 0);
    for lane in lanes(mask) {
        let (by, clamp, segment) = (b[lane] & 31, c[lane] & 31, c[lane] >> 8 & 31);
        let me = lane as u32;
        let last = (me & segment) | (clamp & !segment);
        let (from, inside) = match how {
            Shuffle::Index => {
                let from = (me & segment) | (by & !segment);
                (from, from <= last)
            }
            Shuffle::Up => (me.wrapping_sub(by), me as i32 - by as i32 >= last as i32),
            Shuffle::Down => (me + by, me + by <= last),
            Shuffle::Butterfly => (me ^ by, (me ^ by) <= last),
        };
        // Outside of its segment, a lane gets its own value.
        if inside {
            if mask >> from & 1 == 0 {
                return Err(Broken { lane: me, problem: Problem::AbsentLane { lane: from } });
            }
            value[lane] = a[from as usize];
            in_range |= 1 << lane;
        }
    }
    r.set_word(d, mask, &value);
    if let Some(found) = found {
        r.set_predicate(found, mask, in_range);
    }
    Ok(())
}
