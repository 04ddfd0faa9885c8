//! Parses PTX text into its syntax tree.

use crate::error::SyntaxError;
use crate::lexer::{Token, tokens};
use crate::syntax::{Entry, Home, Location, Module, Operand, Registers, Statement, Variable};

type Result<T> = std::result::Result<T, SyntaxError>;

/// Parses a module.
///
/// # Errors
/// Returns an error at the first line that is not understood.
pub fn parse(text: &str) -> Result<Module<'_>> {
    let all = tokens(text)?;
    let mut parser = Parser { tokens: &all, at: 0 };
    let mut module = Module::default();
    while let Some(token) = parser.peek() {
        parser.module_item(token, &mut module)?;
    }
    Ok(module)
}

/// Returns the size of a fundamental type in bytes; predicates count as 0.
pub fn bytes_of(of_type: &str) -> Option<u32> {
    Some(match of_type {
        ".pred" => 0,
        ".b8" | ".u8" | ".s8" => 1,
        ".b16" | ".u16" | ".s16" | ".f16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" => 8,
        _ => return None,
    })
}

struct Parser<'a, 't> {
    tokens: &'t [Token<'a>],
    at: usize,
}

impl<'a> Parser<'a, '_> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn is(&self, text: &str) -> bool {
        self.peek().is_some_and(|token| token.text == text)
    }

    fn line(&self) -> u32 {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(0, |token| token.line)
    }

    fn next(&mut self) -> Result<&'a str> {
        let token = self.peek().ok_or(SyntaxError::at(self.line(), "the text ends early"))?;
        self.at += 1;
        Ok(token.text)
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.is(text);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        let line = self.line();
        match self.next()? {
            found if found == text => Ok(()),
            found => Err(SyntaxError::at(line, format!("`{found}` where `{text}` is expected"))),
        }
    }

    /// Takes the remaining tokens of a line, for directives that end with it.
    fn rest_of_line(&mut self, line: u32) -> Vec<&'a str> {
        let rest = self.tokens[self.at..].iter().take_while(|token| token.line == line);
        let words: Vec<&str> = rest.map(|token| token.text).collect();
        self.at += words.len();
        words
    }

    fn number(&mut self) -> Result<u64> {
        let line = self.line();
        let negative = self.take("-");
        let text = self.next()?;
        let wrong = || SyntaxError::at(line, format!("`{text}` is not a number"));
        let digits = text.trim_end_matches(['U', 'u']);
        let value = if let Some(bits) = text.strip_prefix("0f").or(text.strip_prefix("0F")) {
            u64::from_str_radix(bits, 16)
        } else if let Some(bits) = text.strip_prefix("0d").or(text.strip_prefix("0D")) {
            u64::from_str_radix(bits, 16)
        } else if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
            u64::from_str_radix(hex, 16)
        } else {
            digits.parse()
        };
        let value = value.map_err(|_| wrong())?;
        Ok(if negative { value.wrapping_neg() } else { value })
    }

    fn module_item(&mut self, token: Token<'a>, module: &mut Module<'a>) -> Result<()> {
        self.at += 1;
        match token.text {
            ".version" | ".target" | ".address_size" => drop(self.rest_of_line(token.line)),
            ".file" => {
                let words = self.rest_of_line(token.line);
                if let [number, path, ..] = words[..]
                    && let Ok(number) = number.parse()
                {
                    module.files.push((number, path.trim_start_matches('"')));
                }
            }
            ".section" => {
                while !self.take("{") {
                    self.next()?;
                }
                while !self.take("}") {
                    self.next()?;
                }
            }
            ".extern" | ".visible" | ".weak" => (),
            ".shared" => module.variables.push(self.variable(Home::Shared)?),
            ".entry" => {
                let mut entry = Entry { name: self.next()?, ..Entry::default() };
                let named = |problem| SyntaxError { kernel: Some(entry.name.into()), ..problem };
                let result = self.entry(&mut entry).map_err(named);
                result?;
                module.entries.push(entry);
            }
            other => {
                let problem = format!("`{other}` is not supported outside of a kernel");
                return Err(SyntaxError::at(token.line, problem));
            }
        }
        Ok(())
    }

    /// Parses a declaration after its state space, to the semicolon.
    fn variable(&mut self, home: Home) -> Result<Variable<'a>> {
        let line = self.line();
        let align = if self.take(".align") { self.number()? as u32 } else { 1 };
        let of_type = self.next()?;
        let wrong = || SyntaxError::at(line, format!("`{of_type}` is not a type"));
        let element = bytes_of(of_type).ok_or_else(wrong)?;
        let name = self.next()?;
        let mut bytes = Some(element);
        while self.take("[") {
            bytes = match self.is("]") {
                true => None,
                false => Some(bytes.unwrap_or(0).saturating_mul(self.number()? as u32)),
            };
            self.expect("]")?;
        }
        self.expect(";")?;
        Ok(Variable { home, name, align: align.max(element), bytes })
    }

    fn entry(&mut self, entry: &mut Entry<'a>) -> Result<()> {
        if self.take("(") {
            while !self.take(")") {
                self.take(",");
                self.expect(".param")?;
                let line = self.line();
                let of_type = self.next()?;
                let bytes = bytes_of(of_type)
                    .ok_or_else(|| SyntaxError::at(line, format!("`{of_type}` parameter")))?;
                entry.parameters.push((self.next()?, bytes));
            }
        }
        // Bounds on threads and registers, which do not change what a kernel computes.
        while !self.take("{") {
            self.next()?;
        }
        let (mut depth, mut location) = (1, None);
        while depth > 0 {
            let token = self.peek().ok_or(SyntaxError::at(self.line(), "a kernel does not end"))?;
            self.at += 1;
            match token.text {
                "{" => depth += 1,
                "}" => depth -= 1,
                ".loc" => self.location(token.line, entry, &mut location)?,
                ".reg" => self.registers(entry)?,
                ".local" => entry.variables.push(self.variable(Home::Local)?),
                ".shared" => entry.variables.push(self.variable(Home::Shared)?),
                ".pragma" => {
                    while !self.take(";") {
                        self.next()?;
                    }
                }
                label if self.is(":") => {
                    self.at += 1;
                    entry.labels.push((label, entry.statements.len()));
                }
                other if other.starts_with('.') => {
                    let problem = format!("directive `{other}` is not supported");
                    return Err(SyntaxError::at(token.line, problem));
                }
                _ => {
                    self.at -= 1;
                    let statement = self.statement(location)?;
                    entry.statements.push(statement);
                }
            }
        }
        Ok(())
    }

    /// Parses `.loc file line column[, function_name name, inlined_at file line column]`.
    fn location(
        &mut self,
        line: u32,
        entry: &mut Entry<'a>,
        current: &mut Option<u32>,
    ) -> Result<()> {
        let words = self.rest_of_line(line);
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok());
        let three = |at: usize| Some((number(at)?, number(at + 1)?, number(at + 2)?));
        let wrong = || SyntaxError::at(line, ".loc is not understood");
        let (file, source_line, column) = three(0).ok_or_else(wrong)?;
        let outer = match words.iter().position(|&word| word == "inlined_at") {
            Some(at) => Some(three(at + 1).ok_or_else(wrong)?),
            None => None,
        };
        let inlined_at = outer.and_then(|(file, line, column)| {
            let same = |l: &Location| (l.file, l.line, l.column) == (file, line, column);
            entry.locations.iter().rposition(same).map(|at| at as u32)
        });
        // Line 0 is code that belongs to no line; the position before says where it is.
        if source_line > 0 || current.is_none() {
            entry.locations.push(Location { file, line: source_line, column, inlined_at });
            *current = Some(entry.locations.len() as u32 - 1);
        }
        Ok(())
    }

    fn registers(&mut self, entry: &mut Entry<'a>) -> Result<()> {
        let of_type = self.next()?;
        loop {
            let name = self.next()?;
            let mut count = None;
            if self.take("<") {
                count = Some(self.number()? as u32);
                self.expect(">")?;
            }
            entry.registers.push(Registers { of_type, name, count });
            if !self.take(",") {
                return self.expect(";");
            }
        }
    }

    fn statement(&mut self, location: Option<u32>) -> Result<Statement<'a>> {
        let line = self.line();
        let guard = match self.take("@") {
            true => {
                let negated = self.take("!");
                Some((self.next()?, negated))
            }
            false => None,
        };
        let opcode = self.next()?;
        let mut operands = Vec::new();
        while !self.take(";") {
            if !operands.is_empty() {
                self.expect(",")?;
            }
            operands.push(self.operand()?);
        }
        Ok(Statement { guard, opcode, operands, line, location })
    }

    fn operand(&mut self) -> Result<Operand<'a>> {
        if self.take("{") {
            let mut parts = Vec::new();
            while !self.take("}") {
                if !parts.is_empty() {
                    self.expect(",")?;
                }
                parts.push(self.operand()?);
            }
            return Ok(Operand::Vector(parts));
        }
        if self.take("[") {
            let (mut base, mut offset) = (None, 0i64);
            while !self.take("]") {
                self.take("+");
                let first = self.peek().map_or("", |token| token.text);
                if first == "-" || first.starts_with(|c: char| c.is_ascii_digit()) {
                    offset = offset.wrapping_add(self.number()? as i64);
                } else {
                    base = Some(self.next()?);
                }
            }
            return Ok(Operand::Address { base, offset });
        }
        if self.take("!") {
            return Ok(Operand::Not(self.next()?));
        }
        let first = self.peek().map_or("", |token| token.text);
        if first == "-" || first.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(Operand::Number(self.number()?));
        }
        let name = self.next()?;
        match self.take("|") {
            true => Ok(Operand::Pair(name, self.next()?)),
            false => Ok(Operand::Name(name)),
        }
    }
}
