//! Runs the warps of a block.

use super::context::{Broken, Context};
use super::warp::Warp;
use super::{access, exchange, registers};
use crate::fault::{Fault, Problem};
use crate::lanes::{LANES, lanes};
use crate::op::{Op, Predicate};
use crate::program::{Instruction, Program};

/// Runs a block to its end.
pub fn run(context: &mut Context, warps: &mut [Warp], block: u32) -> Result<(), Box<Fault>> {
    context.tick += 1;
    (context.begin, context.barrier) = (context.tick, context.tick);
    context.patience = context.options.patience;
    context.shared.begin_block();
    warps.iter_mut().for_each(|warp| warp.begin_block(context.tick));
    loop {
        for warp in warps.iter_mut() {
            if let Err((at, broken)) = run_warp(context, warp) {
                return Err(fault(context.program, block, warp.index, at, broken));
            }
        }
        if release(context, warps, block)? {
            return Ok(());
        }
    }
}

fn fault(program: &Program, block: u32, warp: u32, at: u32, broken: Broken) -> Box<Fault> {
    Box::new(Fault {
        kernel: program.name.to_string(),
        problem: broken.problem,
        block,
        thread: warp * LANES as u32 + broken.lane,
        lines: program.lines_of(at as usize),
        ptx_line: program.code.get(at as usize).map_or(0, |instruction| instruction.line),
    })
}

/// Ends a barrier that all threads have reached; returns true if all threads have exited.
fn release(context: &mut Context, warps: &mut [Warp], block: u32) -> Result<bool, Box<Fault>> {
    let waiting: u32 = warps.iter().map(|warp| warp.at_barrier.count_ones()).sum();
    let threads: u32 = warps.iter().map(|warp| warp.existing.count_ones()).sum();
    if waiting == 0 {
        return Ok(true);
    }
    let threads_at =
        || warps.iter().flat_map(|warp| lanes(warp.existing).map(move |lane| (warp, lane)));
    let is_waiting = |(warp, lane): &(&Warp, usize)| warp.at_barrier >> lane & 1 == 1;
    let Some((first, first_lane)) = threads_at().find(is_waiting) else { return Ok(true) };
    let place = first.at[first_lane];
    let source = context.program.lines_of(place as usize);
    // Inlining may have duplicated a barrier; then whole warps may wait at different copies.
    let same_barrier = |(warp, lane): &(&Warp, usize)| {
        let at = warp.at[*lane];
        let of_warp = lanes(warp.at_barrier).all(|other| warp.at[other] == at);
        at == place || (of_warp && context.program.lines_of(at as usize) == source)
    };
    let stranger = threads_at().find(|thread| !is_waiting(thread) || !same_barrier(thread));
    if let Some((warp, lane)) = stranger {
        let thread = warp.index as usize * LANES + lane;
        let elsewhere = match is_waiting(&(warp, lane)) {
            false => format!("thread {thread} has exited"),
            true => {
                let lines = context.program.lines_of(warp.at[lane] as usize);
                format!("thread {thread} waits at {}", lines.join(", "))
            }
        };
        let problem = Problem::Divergence { waiting, threads, elsewhere };
        let broken = Broken { lane: first_lane as u32, problem };
        return Err(fault(context.program, block, first.index, place, broken));
    }
    context.tick += 1;
    context.barrier = context.tick;
    for warp in warps {
        lanes(warp.at_barrier).for_each(|lane| warp.at[lane] += 1);
        (warp.running, warp.at_barrier) = (warp.at_barrier, 0);
    }
    Ok(false)
}

/// An instruction's index, and the rule that was broken there.
type At = (u32, Broken);

/// Runs a warp until all its lanes have exited or wait at a barrier.
fn run_warp(context: &mut Context, warp: &mut Warp) -> Result<(), At> {
    while let Some((group, at, meeting)) = warp.next_group() {
        run_group(context, warp, group, at, meeting)?;
    }
    // Lanes that still wait in a warp operation will never be joined by the others.
    if warp.exchanging != 0 {
        let lane = warp.exchanging.trailing_zeros();
        let at = warp.at[lane as usize];
        let present = lanes(warp.exchanging).filter(|&other| warp.at[other] == at);
        let present = present.fold(0, |mask, lane| mask | 1 << lane);
        let mask = warp.members[lane as usize];
        return Err((at, Broken { lane, problem: Problem::MissingLanes { mask, present } }));
    }
    Ok(())
}

/// Runs lanes that are at the same instruction, until they part, stop, or meet others at `meeting`.
fn run_group(
    context: &mut Context,
    warp: &mut Warp,
    mut group: u32,
    mut at: u32,
    meeting: u32,
) -> Result<(), At> {
    let program = context.program;
    while at < meeting {
        let instruction = &program.code[at as usize];
        let mask = guarded(warp, instruction, group);
        if let Some(class) = instruction.class {
            context.statistics.count(class, mask);
        }
        context.patience = context.patience.saturating_sub(1);
        if context.patience == 0 {
            let lane = group.trailing_zeros();
            return Err((at, Broken { lane, problem: Problem::Endless }));
        }
        let op = &instruction.op;
        match *op {
            Op::Branch { target } if mask == group => at = target,
            Op::Branch { .. } if mask == 0 => at += 1,
            Op::Branch { target } => {
                warp.put(mask, target);
                warp.put(group & !mask, at + 1);
                return Ok(());
            }
            Op::Exit => {
                warp.running &= !mask;
                group &= !mask;
                at += 1;
                if group == 0 {
                    return Ok(());
                }
            }
            Op::Barrier => {
                warp.put(mask, at);
                warp.running &= !mask;
                warp.at_barrier |= mask;
                group &= !mask;
                at += 1;
                if group == 0 {
                    return Ok(());
                }
            }
            Op::Fence => at += 1,
            Op::ActiveMask { d } => {
                warp.registers.set_word(d, mask, &[mask; LANES]);
                at += 1;
            }
            _ if registers::execute(
                op,
                &mut warp.registers,
                mask,
                context.options.approximation,
            ) =>
            {
                at += 1;
            }
            _ => {
                let accessed = access::execute(context, warp, op, mask);
                if !accessed.map_err(|broken| (at, broken))?
                    && !exchange_at(context, warp, op, mask, at)?
                {
                    // Some lanes wait for others; the rest go on, which is for the caller to see.
                    warp.put(group & !mask, at + 1);
                    return Ok(());
                }
                at += 1;
            }
        }
    }
    warp.put(group, at);
    Ok(())
}

fn guarded(warp: &Warp, instruction: &Instruction, group: u32) -> u32 {
    match instruction.guard {
        None => group,
        Some((slot, negated)) => {
            group & warp.registers.predicate(Predicate::Register { slot, negated })
        }
    }
}

/// Lets lanes reach a warp operation. Returns true if they need not wait for others.
fn exchange_at(
    context: &mut Context,
    warp: &mut Warp,
    op: &Op,
    mask: u32,
    at: u32,
) -> Result<bool, At> {
    if mask == 0 {
        return Ok(true);
    }
    let Some(members) = exchange::members(warp, op) else { return Ok(true) };
    let missing = |lane: u32, mask, present| {
        Err((at, Broken { lane, problem: Problem::MissingLanes { mask, present } }))
    };
    for lane in lanes(mask) {
        let wanted = members[lane];
        // A lane must be in its own mask, and all that the mask names must still be there.
        if wanted >> lane & 1 == 0
            || wanted & !(warp.running | warp.at_barrier | warp.exchanging) != 0
        {
            return missing(lane as u32, wanted, mask);
        }
    }
    let wanted = members[mask.trailing_zeros() as usize];
    if wanted == mask && lanes(mask).all(|lane| members[lane] == wanted) {
        let result = exchange::execute(context, warp, op, mask);
        return result.map(|()| true).map_err(|broken| (at, broken));
    }
    warp.put(mask, at);
    warp.running &= !mask;
    warp.exchanging |= mask;
    lanes(mask).for_each(|lane| warp.members[lane] = members[lane]);
    // Each set of lanes that is now complete goes on.
    for lane in lanes(mask) {
        let wanted = warp.members[lane];
        let arrived = |other: usize| {
            warp.exchanging >> other & 1 == 1
                && warp.at[other] == at
                && warp.members[other] == wanted
        };
        if warp.exchanging >> lane & 1 == 1 && lanes(wanted).all(arrived) {
            exchange::execute(context, warp, op, wanted).map_err(|broken| (at, broken))?;
            warp.exchanging &= !wanted;
            warp.running |= wanted;
            warp.put(wanted, at + 1);
        }
    }
    Ok(false)
}
