//! An opcode's name and its modifiers.

use crate::error::SyntaxError;
use crate::op::Integer;
use crate::syntax::Statement;

use super::names::Result;

/// The parts of an opcode such as `ld.global.v4.f32`, taken one by one. Parts that nothing took are
/// an error, so that no modifier is ignored.
pub struct Opcode<'a> {
    whole: &'a str,
    pub name: &'a str,
    rest: Vec<&'a str>,
    pub line: u32,
}

/// A fundamental type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Predicate,
    Integer(Integer),
    F32,
}

impl Type {
    fn of(text: &str) -> Option<Type> {
        Some(match text {
            "pred" => Type::Predicate,
            "f32" => Type::F32,
            "u8" | "b8" => Type::Integer(Integer::U8),
            "s8" => Type::Integer(Integer::S8),
            "u16" | "b16" => Type::Integer(Integer::U16),
            "s16" => Type::Integer(Integer::S16),
            "u32" | "b32" => Type::Integer(Integer::U32),
            "s32" => Type::Integer(Integer::S32),
            "u64" | "b64" => Type::Integer(Integer::U64),
            "s64" => Type::Integer(Integer::S64),
            _ => return None,
        })
    }
}

impl<'a> Opcode<'a> {
    pub fn new(statement: &Statement<'a>) -> Opcode<'a> {
        let mut parts = statement.opcode.split('.');
        let name = parts.next().unwrap_or_default();
        Opcode { whole: statement.opcode, name, rest: parts.collect(), line: statement.line }
    }

    pub fn wrong<T>(&self) -> Result<T> {
        Err(SyntaxError::at(self.line, format!("`{}` is not supported", self.whole)))
    }

    /// Takes a modifier, wherever it is.
    pub fn take(&mut self, modifier: &str) -> bool {
        match self.rest.iter().position(|part| *part == modifier) {
            Some(at) => {
                self.rest.remove(at);
                true
            }
            None => false,
        }
    }

    /// Takes a modifier that must be there.
    pub fn expect(&mut self, modifier: &str) -> Result<()> {
        if self.take(modifier) { Ok(()) } else { self.wrong() }
    }

    /// Takes the first of the remaining parts that `read` understands.
    pub fn first<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (at, value) =
            self.rest.iter().enumerate().find_map(|(at, part)| Some((at, read(part)?)))?;
        self.rest.remove(at);
        Some(value)
    }

    /// Takes the next type.
    pub fn of_type(&mut self) -> Result<Type> {
        match self.first(Type::of) {
            Some(found) => Ok(found),
            None => self.wrong(),
        }
    }

    pub fn integer(&mut self) -> Result<Integer> {
        match self.of_type()? {
            Type::Integer(kind) => Ok(kind),
            _ => self.wrong(),
        }
    }

    /// Must be called last: returns an error if a part was not taken.
    pub fn done(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { self.wrong() }
    }
}
