//! Resolves the names in a kernel to slots, offsets and instructions.

use std::collections::HashMap;

use crate::error::SyntaxError;
use crate::op::{Address, Either, Long, Predicate, Slot, Target, Word};
use crate::program::Special;
use crate::syntax::{Entry, Operand};

pub type Result<T> = std::result::Result<T, SyntaxError>;

/// A register file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    Predicate,
    Word,
    Long,
}

/// A name's meaning, besides that of registers.
#[derive(Clone, Copy, Debug)]
pub enum Symbol {
    /// An array's offset in its state space.
    Array(u32),
    /// A parameter's offset and size.
    Parameter { start: u32, bytes: u32 },
}

#[derive(Default)]
pub struct Names<'a> {
    /// Registers declared one by one.
    single: HashMap<&'a str, (File, Slot)>,
    /// Numbered registers: file, slot of the first, count.
    numbered: HashMap<&'a str, (File, Slot, u32)>,
    pub symbols: HashMap<&'a str, Symbol>,
    pub labels: HashMap<&'a str, u32>,
    pub specials: Vec<(Special, Slot)>,
    counts: [Slot; 3],
}

fn wrong<T>(line: u32, problem: String) -> Result<T> {
    Err(SyntaxError::at(line, problem))
}

impl<'a> Names<'a> {
    /// Declares the kernel's registers.
    pub fn new(entry: &Entry<'a>) -> Result<Names<'a>> {
        let mut names = Names::default();
        for registers in &entry.registers {
            let file = match registers.of_type {
                ".pred" => File::Predicate,
                ".b64" | ".u64" | ".s64" | ".f64" => File::Long,
                ".b16" | ".u16" | ".s16" | ".f16" | ".b32" | ".u32" | ".s32" | ".f32" => File::Word,
                other => return wrong(0, format!("registers of type `{other}`")),
            };
            let first = names.counts[file as usize];
            names.counts[file as usize] += registers.count.unwrap_or(1);
            match registers.count {
                Some(count) => {
                    names.numbered.insert(registers.name, (file, first, count));
                }
                None => {
                    names.single.insert(registers.name, (file, first));
                }
            }
        }
        Ok(names)
    }

    /// Returns the number of registers in a file.
    pub fn count(&self, file: File) -> u32 {
        self.counts[file as usize]
    }

    fn find(&mut self, name: &str) -> Option<(File, Slot)> {
        if let Some(&found) = self.single.get(name) {
            return Some(found);
        }
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        if let Some(&(file, first, count)) = self.numbered.get(prefix) {
            let number: u32 = name[prefix.len()..].parse().ok()?;
            return (number < count).then_some((file, first + number));
        }
        let special = match name {
            "%tid.x" => Special::Thread,
            "%ntid.x" => Special::Threads,
            "%ctaid.x" => Special::Block,
            "%nctaid.x" => Special::Blocks,
            "%laneid" => Special::Lane,
            "%warpid" => Special::Warp,
            "%tid.y" | "%tid.z" | "%ctaid.y" | "%ctaid.z" => Special::Zero,
            "%ntid.y" | "%ntid.z" | "%nctaid.y" | "%nctaid.z" => Special::One,
            _ => return None,
        };
        if let Some(&(_, slot)) = self.specials.iter().find(|(known, _)| *known == special) {
            return Some((File::Word, slot));
        }
        let slot = self.counts[File::Word as usize];
        self.counts[File::Word as usize] += 1;
        self.specials.push((special, slot));
        Some((File::Word, slot))
    }

    fn register(&mut self, name: &str, file: File, line: u32) -> Result<Slot> {
        match self.find(name) {
            Some((found, slot)) if found == file => Ok(slot),
            Some(_) => wrong(line, format!("`{name}` does not have the instruction's width")),
            None => wrong(line, format!("`{name}` is not declared")),
        }
    }

    pub fn word(&mut self, operand: &Operand, line: u32) -> Result<Word> {
        match *operand {
            Operand::Number(bits) => Ok(Word::Constant(bits as u32)),
            Operand::Name(name) => match self.symbols.get(name) {
                Some(&Symbol::Array(offset)) => Ok(Word::Constant(offset)),
                _ => self.register(name, File::Word, line).map(Word::Register),
            },
            _ => wrong(line, format!("{operand:?} is not a 32-bit operand")),
        }
    }

    pub fn long(&mut self, operand: &Operand, line: u32) -> Result<Long> {
        match *operand {
            Operand::Number(bits) => Ok(Long::Constant(bits)),
            Operand::Name(name) => match self.symbols.get(name) {
                Some(&Symbol::Array(offset)) => Ok(Long::Constant(offset.into())),
                _ => self.register(name, File::Long, line).map(Long::Register),
            },
            _ => wrong(line, format!("{operand:?} is not a 64-bit operand")),
        }
    }

    /// Returns an operand of `bytes` bytes; narrow ones are in words.
    pub fn either(&mut self, operand: &Operand, bytes: u32, line: u32) -> Result<Either> {
        match bytes {
            8 => self.long(operand, line).map(Either::Long),
            _ => self.word(operand, line).map(Either::Word),
        }
    }

    /// Returns an operand whose width is that of its register.
    pub fn any(&mut self, operand: &Operand, line: u32) -> Result<Either> {
        let long = matches!(*operand, Operand::Name(name)
            if self.find(name).is_some_and(|(file, _)| file == File::Long));
        self.either(operand, if long { 8 } else { 4 }, line)
    }

    pub fn predicate(&mut self, operand: &Operand, line: u32) -> Result<Predicate> {
        let (name, negated) = match *operand {
            Operand::Number(bits) => return Ok(Predicate::Constant(bits != 0)),
            Operand::Name(name) => (name, false),
            Operand::Not(name) => (name, true),
            _ => return wrong(line, format!("{operand:?} is not a predicate")),
        };
        Ok(Predicate::Register { slot: self.register(name, File::Predicate, line)?, negated })
    }

    pub fn predicate_slot(&mut self, name: &str, line: u32) -> Result<Slot> {
        self.register(name, File::Predicate, line)
    }

    pub fn word_slot(&mut self, operand: &Operand, line: u32) -> Result<Slot> {
        match self.word(operand, line)? {
            Word::Register(slot) => Ok(slot),
            Word::Constant(_) => wrong(line, "a constant as a destination".into()),
        }
    }

    /// Returns a destination; `None` for the sink `_`.
    pub fn sink(&mut self, operand: &Operand, line: u32) -> Result<Option<Slot>> {
        match operand {
            Operand::Name("_") => Ok(None),
            _ => self.word_slot(operand, line).map(Some),
        }
    }

    pub fn target(&mut self, operand: &Operand, bytes: u32, line: u32) -> Result<Target> {
        match self.either(operand, bytes, line)? {
            Either::Word(Word::Register(slot)) => Ok(Target::Word(slot)),
            Either::Long(Long::Register(slot)) => Ok(Target::Long(slot)),
            _ => wrong(line, "a constant as a destination".into()),
        }
    }

    /// Returns a destination whose width is that of its register, which may exceed the type's.
    pub fn any_target(&mut self, operand: &Operand, line: u32) -> Result<Target> {
        match self.any(operand, line)? {
            Either::Word(Word::Register(slot)) => Ok(Target::Word(slot)),
            Either::Long(Long::Register(slot)) => Ok(Target::Long(slot)),
            _ => wrong(line, "a constant as a destination".into()),
        }
    }

    pub fn address(&mut self, operand: &Operand, line: u32) -> Result<Address> {
        let Operand::Address { base, offset } = *operand else {
            return wrong(line, format!("{operand:?} is not an address"));
        };
        let base = match base {
            Some(name) => self.any(&Operand::Name(name), line)?,
            None => Either::Long(Long::Constant(0)),
        };
        Ok(Address { base, offset })
    }

    /// Returns exactly `N` operands.
    pub fn words<const N: usize>(&mut self, operand: &Operand, line: u32) -> Result<[Word; N]> {
        let Operand::Vector(parts) = operand else {
            return wrong(line, format!("{operand:?} is not a vector"));
        };
        if parts.len() != N {
            return wrong(line, format!("{} registers instead of {N}", parts.len()));
        }
        let mut words = [Word::Constant(0); N];
        for (word, part) in words.iter_mut().zip(parts) {
            *word = self.word(part, line)?;
        }
        Ok(words)
    }
}
