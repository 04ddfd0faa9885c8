//! Decodes a kernel's syntax tree into the machine's form.

mod arithmetic;
mod memory;
mod names;
mod opcode;
mod warp;

use std::collections::HashMap;

use crate::class::Class;
use crate::error::SyntaxError;
use crate::op::{Compared, FloatOp, IntegerOp, Op, Space, Target};
use crate::parse::parse;
use crate::program::{Instruction, Place, Program, SharedArray, Special};
use crate::syntax::{Entry, Home, Module, Statement, Variable};
use names::{File, Names, Result, Symbol};
use opcode::Opcode;

/// Unused bytes between arrays in shared memory, so that an access past the end of one does not hit
/// the next. A multiple of the 128 bytes that the banks span, so that conflicts do not change.
const GAP: u32 = 128;

/// Decodes all kernels of a module.
///
/// # Errors
/// Returns an error at the first line that is not understood; it names the kernel.
pub fn decode(text: &str) -> Result<Vec<Program>> {
    let module = parse(text)?;
    let named = |entry: &Entry, problem: SyntaxError| SyntaxError {
        kernel: Some(entry.name.into()),
        ..problem
    };
    (module.entries.iter())
        .map(|entry| kernel(&module, entry).map_err(|problem| named(entry, problem)))
        .collect()
}

fn kernel(module: &Module, entry: &Entry) -> Result<Program> {
    let mut names = Names::new(entry)?;
    let shared = shared_arrays(module, entry, &mut names);
    let local = local_arrays(entry, &mut names);
    let mut parameters = Vec::new();
    let mut end = 0u32;
    for &(name, bytes) in &entry.parameters {
        let offset = end.next_multiple_of(bytes.max(1));
        names.symbols.insert(name, Symbol::Parameter { start: offset, bytes });
        parameters.push((offset, bytes));
        end = offset + bytes;
    }
    names.labels.extend(entry.labels.iter().map(|&(label, at)| (label, at as u32)));

    let mut code = Vec::with_capacity(entry.statements.len() + 1);
    for statement in &entry.statements {
        code.push(instruction(statement, &mut names)?);
    }
    // A kernel that ends without `ret`, or a label after its last instruction.
    let line = entry.statements.last().map_or(0, |statement| statement.line);
    code.push(Instruction {
        op: Op::Exit,
        guard: None,
        class: Some(Class::Control),
        line,
        place: None,
    });
    // The specials take slots too, as they are found.
    let specials: Vec<(Special, u32)> = names.specials.clone();
    Ok(Program {
        name: entry.name.into(),
        parameters,
        words: names.count(File::Word),
        longs: names.count(File::Long),
        predicates: names.count(File::Predicate),
        specials,
        shared,
        local,
        granule: code.iter().filter_map(shared_access).min().unwrap_or(4),
        places: places(module, entry),
        code,
    })
}

/// Places the shared arrays that a kernel declares, and the dynamic one behind them.
fn shared_arrays<'a>(
    module: &Module<'a>,
    entry: &Entry<'a>,
    names: &mut Names<'a>,
) -> Vec<SharedArray> {
    let mut arrays = Vec::new();
    let mut end = 0u32;
    let mut place = |variable: &Variable<'a>| {
        let start = end.next_multiple_of(variable.align.max(1));
        names.symbols.insert(variable.name, Symbol::Array(start));
        let short = short_name(variable.name);
        arrays.push(SharedArray { name: short.into(), start, bytes: variable.bytes });
        if let Some(bytes) = variable.bytes {
            end = (start + bytes).next_multiple_of(GAP) + GAP;
        }
    };
    let all = || module.variables.iter().chain(&entry.variables).filter(|v| v.home == Home::Shared);
    all().filter(|variable| variable.bytes.is_some()).for_each(&mut place);
    all().filter(|variable| variable.bytes.is_none()).for_each(&mut place);
    arrays
}

/// Returns the name in the source of a mangled variable, which is its last identifier.
fn short_name(mangled: &str) -> &str {
    // `_ZZ…E7highest`: a length and a name, after the function that contains it.
    let Some(rest) = mangled.strip_prefix("_ZZ") else { return mangled };
    let starts = rest.match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at);
    let fits = |at: usize| {
        let digits = rest[at..].find(|c: char| !c.is_ascii_digit())?;
        let length: usize = rest[at..at + digits].parse().ok()?;
        let name = &rest[at + digits..];
        let own = name.len() == length && !name.starts_with(|c: char| c.is_ascii_digit());
        own.then_some(name)
    };
    starts.filter_map(fits).next_back().unwrap_or(mangled)
}

fn local_arrays<'a>(entry: &Entry<'a>, names: &mut Names<'a>) -> u32 {
    let mut end = 0u32;
    for variable in entry.variables.iter().filter(|variable| variable.home == Home::Local) {
        let start = end.next_multiple_of(variable.align.max(1));
        names.symbols.insert(variable.name, Symbol::Array(start));
        end = start + variable.bytes.unwrap_or(0);
    }
    end
}

fn places(module: &Module, entry: &Entry) -> Vec<Place> {
    let files: HashMap<u32, &str> = module
        .files
        .iter()
        .map(|&(n, path)| (n, path.rsplit('/').next().unwrap_or(path)))
        .collect();
    (entry.locations.iter())
        .map(|location| {
            let file = files.get(&location.file).copied().unwrap_or("?");
            Place { line: format!("{file}:{}", location.line), inlined_at: location.inlined_at }
        })
        .collect()
}

fn instruction(statement: &Statement, names: &mut Names) -> Result<Instruction> {
    let line = statement.line;
    let guard = match statement.guard {
        Some((name, negated)) => Some((names.predicate_slot(name, line)?, negated)),
        None => None,
    };
    let mut opcode = Opcode::new(statement);
    let operands = &statement.operands;
    let found = match arithmetic::decode(&mut opcode, operands, names)? {
        Some(op) => Some(op),
        None => match memory::decode(&mut opcode, operands, names)? {
            Some(op) => Some(op),
            None => warp::decode(&mut opcode, operands, names)?,
        },
    };
    let Some(op) = found else { return opcode.wrong() };
    opcode.done()?;
    let class = class_of(&op);
    Ok(Instruction { op, guard, class, line, place: statement.location })
}

/// Returns the size of an instruction's elements in shared memory.
fn shared_access(instruction: &Instruction) -> Option<u32> {
    match instruction.op {
        Op::Load { space: Space::Shared | Space::Generic, shape, .. }
        | Op::Store { space: Space::Shared | Space::Generic, shape, .. } => Some(shape.bytes),
        Op::Atomic { space: Space::Shared | Space::Generic, kind, .. } => Some(kind.bytes()),
        _ => None,
    }
    .map(|bytes| bytes.min(4))
}

/// Returns the class of an operation; `None` if it depends on the address.
fn class_of(op: &Op) -> Option<Class> {
    Some(match op {
        Op::Integer { op: IntegerOp::Div | IntegerOp::Rem, kind, .. } if kind.bytes() == 8 => {
            Class::IntegerDivision
        }
        Op::Integer { op: IntegerOp::Div | IntegerOp::Rem, .. } => Class::ShortDivision,
        Op::Integer { op: IntegerOp::MulLow | IntegerOp::MulHigh, kind, .. }
        | Op::MulAdd { kind, .. }
            if kind.bytes() == 8 =>
        {
            Class::LongProduct
        }
        Op::Integer { kind, .. } if kind.bytes() == 8 => Class::LongInteger,
        Op::ExtractBits { kind, .. } if kind.bytes() == 8 => Class::LongInteger,
        Op::Integer { .. }
        | Op::MulAdd { .. }
        | Op::MulWide { .. }
        | Op::Permute { .. }
        | Op::ExtractBits { .. }
        | Op::InsertBits { .. }
        | Op::Logic3 { .. }
        | Op::FunnelShift { .. }
        | Op::ConvertAddress { .. } => Class::Integer,
        Op::Float { op, .. } => match op {
            FloatOp::Div | FloatOp::Sqrt | FloatOp::Reciprocal => Class::Fp32Special,
            op if op.is_approximate() => Class::Fp32Special,
            _ => Class::Fp32,
        },
        Op::Compare { of: Compared::Longs { .. }, .. } | Op::Select { d: Target::Long(_), .. } => {
            Class::LongPredicate
        }
        Op::Compare { .. } | Op::Logic { .. } | Op::MovePredicate { .. } | Op::Select { .. } => {
            Class::Predicate
        }
        Op::Move { .. } | Op::Pack { .. } | Op::Unpack { .. } | Op::ActiveMask { .. } => {
            Class::Move
        }
        Op::Convert { .. } => Class::Conversion,
        Op::LoadParameter { .. } => Class::Parameter,
        Op::Load { space, .. } => return Class::of_load(*space),
        Op::Store { space, .. } => return Class::of_store(*space),
        Op::Atomic { .. } => Class::Atomic,
        Op::Branch { .. } | Op::Exit => Class::Control,
        Op::Barrier | Op::WarpBarrier { .. } | Op::Fence => Class::Barrier,
        Op::Shuffle { .. } | Op::Vote { .. } | Op::MatchAny { .. } | Op::Reduce { .. } => {
            Class::WarpExchange
        }
        Op::LoadMatrix { .. } => Class::LoadMatrix,
        Op::Multiply { .. } => Class::Mma,
        Op::CopyAsync { .. } | Op::CommitGroup | Op::WaitGroup { .. } | Op::WaitAll => {
            Class::AsyncCopy
        }
    })
}

#[cfg(test)]
mod tests {
    use super::short_name;

    #[test]
    fn mangled_names_are_shortened() {
        let mangled = "_ZZ22attention_forward_bf16PK4bf16PKfS3_PS_PflllllE7highest";
        assert_eq!(short_name(mangled), "highest");
        assert_eq!(short_name("udass_shared"), "udass_shared");
    }
}
