//! Executes loads, stores, atomics, asynchronous copies and address conversions.

use super::context::{Context, Result, by_lane};
use super::warp::{Copy, Warp};
use crate::class::Class;
use crate::fault::{Access, Problem};
use crate::integer;
use crate::lanes::{Longs, lanes};
use crate::memory::{LOCAL_WINDOW, SHARED_WINDOW};
use crate::op::{Address, AtomicOp, Either, Integer, IntegerOp, Op, Shape, Space, Target, Word};

/// The windows of generic addresses are this large.
const WINDOW: u64 = 1 << 32;

/// Executes an instruction for the lanes of a mask; returns false if it is of another kind.
pub fn execute(context: &mut Context, warp: &mut Warp, op: &Op, mask: u32) -> Result<bool> {
    match *op {
        Op::LoadParameter { offset, bytes, signed, d } => {
            let from = &context.parameters[offset as usize..][..bytes as usize];
            let value = number(from, signed);
            warp.registers.set(d, mask, &[value; 32]);
        }
        Op::Load { space, coherent, shape, d, from } => {
            let addresses = resolve(warp, from);
            count(context, Way::Load, space, &addresses, mask, shape);
            load(context, warp, space, coherent, shape, d, &addresses, mask)?;
        }
        Op::Store { space, shape, a, to } => {
            let addresses = resolve(warp, to);
            count(context, Way::Store, space, &addresses, mask, shape);
            store(context, warp, space, shape, a, &addresses, mask)?;
        }
        Op::Atomic { op, space, kind, d, at, a, b } => {
            let addresses = resolve(warp, at);
            let shape = Shape { bytes: kind.bytes(), signed: false, count: 1 };
            count(context, Way::Atomic, space, &addresses, mask, shape);
            let (a, b) = (warp.registers.extended(a), warp.registers.extended(b));
            for lane in lanes(mask) {
                let address = addresses[lane];
                let bytes =
                    access(context, warp, space, lane, address, kind.bytes(), Access::Atomic)?;
                let old = number(bytes, false);
                let new = updated(op, kind, old, a[lane], b[lane]);
                bytes.copy_from_slice(&new.to_le_bytes()[..kind.bytes() as usize]);
                if let Some(d) = d {
                    warp.registers.set_lane(d, lane, old);
                }
            }
        }
        Op::ConvertAddress { space, to_space, d, a } => {
            let window = match space {
                Space::Shared => SHARED_WINDOW,
                Space::Local => LOCAL_WINDOW,
                Space::Global | Space::Generic => 0,
            };
            let a = warp.registers.extended(a);
            let value = match to_space {
                true => a.map(|x| x.wrapping_sub(window)),
                false => a.map(|x| x.wrapping_add(window)),
            };
            warp.registers.set(d, mask, &value);
        }
        Op::CopyAsync { bytes, to, from, source_bytes } => {
            copy_async(context, warp, bytes, to, from, source_bytes, mask)?;
        }
        Op::CommitGroup => lanes(mask).for_each(|lane| {
            let copies = &mut warp.copies[lane];
            let group = std::mem::take(&mut copies.open);
            copies.groups.push_back(group);
        }),
        Op::WaitGroup { pending } => lanes(mask).for_each(|lane| {
            while warp.copies[lane].groups.len() > pending as usize {
                let group = warp.copies[lane].groups.pop_front().unwrap_or_default();
                deliver(context, warp, lane, group);
            }
        }),
        Op::WaitAll => lanes(mask).for_each(|lane| {
            let copies = std::mem::take(&mut warp.copies[lane]);
            let all = copies.groups.into_iter().flatten().chain(copies.open).collect();
            deliver(context, warp, lane, all);
        }),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Returns the addresses of all lanes.
pub fn resolve(warp: &Warp, address: Address) -> Longs {
    let offset = address.offset as u64;
    match address.base {
        // Addresses of 32 bits wrap around.
        Either::Word(base) => {
            warp.registers.word(base).map(|x| u64::from(x.wrapping_add(offset as u32)))
        }
        Either::Long(base) => warp.registers.long(base).map(|x| x.wrapping_add(offset)),
    }
}

/// Resolves a generic address.
fn generic(address: u64) -> (Space, u64) {
    if (SHARED_WINDOW..SHARED_WINDOW + WINDOW).contains(&address) {
        (Space::Shared, address - SHARED_WINDOW)
    } else if (LOCAL_WINDOW..LOCAL_WINDOW + WINDOW).contains(&address) {
        (Space::Local, address - LOCAL_WINDOW)
    } else {
        (Space::Global, address)
    }
}

/// Checks a lane's access, and returns the bytes.
fn access<'c>(
    context: &'c mut Context,
    warp: &'c mut Warp,
    space: Space,
    lane: usize,
    address: u64,
    bytes: u32,
    access: Access,
) -> Result<&'c mut [u8]> {
    let (space, address) = match space {
        Space::Generic => generic(address),
        space => (space, address),
    };
    // A power of two.
    if address & u64::from(bytes - 1) != 0 {
        return by_lane(lane, Err(Problem::Misaligned { address, bytes }));
    }
    let now = context.now(warp.index, warp.barrier, lane);
    by_lane(
        lane,
        match space {
            Space::Shared => context.shared.access(address, bytes, access, &now),
            Space::Local => warp.local.access(lane, address, bytes, access),
            Space::Global | Space::Generic => context.memory.access(address, bytes, access, &now),
        },
    )
}

/// Reads a number of up to eight bytes.
fn number(bytes: &[u8], signed: bool) -> u64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    let value = u64::from_le_bytes(all);
    let kind = match (bytes.len(), signed) {
        (1, true) => Integer::S8,
        (2, true) => Integer::S16,
        (4, true) => Integer::S32,
        _ => Integer::U64,
    };
    integer::extended(kind, value)
}

#[expect(clippy::too_many_arguments, reason = "the parts of one instruction")]
fn load(
    context: &mut Context,
    warp: &mut Warp,
    space: Space,
    coherent: bool,
    shape: Shape,
    d: [Target; 4],
    addresses: &Longs,
    mask: u32,
) -> Result<()> {
    let how = if coherent { Access::Read } else { Access::ReadNonCoherent };
    let count = shape.count as usize;
    for lane in lanes(mask) {
        let whole = shape.bytes * shape.count;
        let bytes = access(context, warp, space, lane, addresses[lane], whole, how)?;
        let mut values = [0; 4];
        for (value, part) in values.iter_mut().zip(bytes.chunks_exact(shape.bytes as usize)) {
            *value = number(part, shape.signed);
        }
        for (target, value) in d.iter().zip(values).take(count) {
            warp.registers.set_lane(*target, lane, value);
        }
    }
    Ok(())
}

fn store(
    context: &mut Context,
    warp: &mut Warp,
    space: Space,
    shape: Shape,
    a: [Either; 4],
    addresses: &Longs,
    mask: u32,
) -> Result<()> {
    let count = shape.count as usize;
    let mut values = [[0; 32]; 4];
    for (value, a) in values.iter_mut().zip(a).take(count) {
        *value = warp.registers.extended(a);
    }
    for lane in lanes(mask) {
        let whole = shape.bytes * shape.count;
        let bytes = access(context, warp, space, lane, addresses[lane], whole, Access::Write)?;
        for (value, part) in values.iter().zip(bytes.chunks_exact_mut(shape.bytes as usize)) {
            part.copy_from_slice(&value[lane].to_le_bytes()[..shape.bytes as usize]);
        }
    }
    Ok(())
}

/// What an access is counted as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Load,
    Store,
    Atomic,
}

/// Counts an access: its traffic, and its class if that depends on the address.
fn count(
    context: &mut Context,
    way: Way,
    space: Space,
    addresses: &Longs,
    mask: u32,
    shape: Shape,
) {
    if mask == 0 {
        return;
    }
    let bytes = shape.bytes * shape.count;
    let statistics = &mut context.statistics;
    // The lanes of a generic access are all in the space of the first one, as good as always.
    let home = match space {
        Space::Generic => generic(addresses[mask.trailing_zeros() as usize]).0,
        space => space,
    };
    let class = match way {
        Way::Load => Class::of_load(home),
        Way::Store => Class::of_store(home),
        Way::Atomic => None,
    };
    if let Some(class) = class.filter(|_| space == Space::Generic) {
        statistics.count(class, mask);
    }
    match (home, way) {
        (Space::Global | Space::Generic, Way::Load) => {
            statistics.load(addresses, mask, bytes);
        }
        (Space::Global | Space::Generic, _) => {
            statistics.store(addresses, mask, bytes);
        }
        (Space::Shared, Way::Load) => statistics.shared_loads.count(addresses, mask, bytes),
        (Space::Shared, _) => statistics.shared_stores.count(addresses, mask, bytes),
        (Space::Local, _) => (),
    }
}

fn updated(op: AtomicOp, kind: Integer, old: u64, a: u64, b: u64) -> u64 {
    let binary = |op: IntegerOp| {
        if kind.bytes() == 8 {
            integer::longs(op, kind.signed(), &[old; 32], &[a; 32])[0]
        } else {
            integer::words(op, kind, &[old as u32; 32], &[a as u32; 32])[0].into()
        }
    };
    match op {
        AtomicOp::Add => binary(IntegerOp::Add),
        AtomicOp::Min => binary(IntegerOp::Min),
        AtomicOp::Max => binary(IntegerOp::Max),
        AtomicOp::And => binary(IntegerOp::And),
        AtomicOp::Or => binary(IntegerOp::Or),
        AtomicOp::Xor => binary(IntegerOp::Xor),
        AtomicOp::Exchange => a,
        AtomicOp::CompareAndSwap => {
            if old == a {
                b
            } else {
                old
            }
        }
        AtomicOp::FloatAdd => {
            (f32::from_bits(old as u32) + f32::from_bits(a as u32)).to_bits().into()
        }
    }
}

fn copy_async(
    context: &mut Context,
    warp: &mut Warp,
    bytes: u32,
    to: Address,
    from: Address,
    source_bytes: Option<Word>,
    mask: u32,
) -> Result<()> {
    let (to, from) = (resolve(warp, to), resolve(warp, from));
    let wanted = source_bytes.map(|count| warp.registers.word(count));
    if mask != 0 {
        context.statistics.load(&from, mask, bytes);
    }
    for lane in lanes(mask) {
        let wanted = wanted.map_or(bytes, |wanted| wanted[lane].min(bytes));
        // Bytes beyond the source's are zero.
        let mut data = [0; 16];
        for address in [to[lane], from[lane]] {
            if !address.is_multiple_of(u64::from(bytes)) {
                return by_lane(lane, Err(Problem::Misaligned { address, bytes }));
            }
        }
        let now = context.now(warp.index, warp.barrier, lane);
        if wanted > 0 {
            let source = context.memory.access(from[lane], wanted, Access::Read, &now);
            data[..wanted as usize].copy_from_slice(by_lane(lane, source)?);
        }
        by_lane(lane, context.shared.begin_copy(to[lane], bytes, &now))?;
        warp.copies[lane].open.push(Copy { to: to[lane], data, bytes: bytes as usize });
    }
    Ok(())
}

fn deliver(context: &mut Context, warp: &Warp, lane: usize, copies: Vec<Copy>) {
    let now = context.now(warp.index, warp.barrier, lane);
    for copy in copies {
        context.shared.end_copy(copy.to, &copy.data[..copy.bytes], &now);
    }
}
