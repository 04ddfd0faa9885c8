//! Parses kernel signatures, which are restricted to this form:
//!
//! ```text
//! KERNEL(name,
//!        const T* x /* batch,channels */, const real* OPTIONAL bias /* channels */,
//!        T* y /* batch,channels */, int64_t batch, int64_t channels, bool relu) {
//! ```
//!
//! on any number of lines. A const pointer is an input, any other pointer is written; each is
//! followed by its shape ([`super::shape`]). Scalars are `int64_t` for sizes, `bool` for switches
//! and `real` for numbers. Anything else is an error: no C++ is parsed.

use std::path::Path;

use super::constants::{Constant, comment_above};
use super::shape::{BLOCKS, Names, Shape};

pub struct Kernel {
    pub name: String,
    /// File name without the folder.
    pub file: String,
    pub line: usize,
    /// Lines of the comment above it.
    pub comment: Vec<String>,
    pub arguments: Vec<Argument>,
}

pub struct Argument {
    pub name: String,
    pub kind: Kind,
}

pub enum Kind {
    Pointer {
        element: &'static str,
        written: bool,
        optional: bool,
        /// The shape as written, and as parsed.
        text: String,
        shape: Shape,
    },
    Scalar(Scalar),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    Size,
    Switch,
    Number,
}

/// C++ element types and their variants of `Element` in src/device/launch.rs.
const ELEMENTS: [(&str, &str); 6] = [
    ("T", "Operand"),
    ("real", "Real"),
    ("uint8_t", "U8"),
    ("int32_t", "I32"),
    ("int64_t", "I64"),
    ("uint64_t", "U64"),
];

const SCALARS: [(&str, Scalar); 3] =
    [("int64_t", Scalar::Size), ("bool", Scalar::Switch), ("real", Scalar::Number)];

const START: &str = "KERNEL(";

pub fn read_file(path: &Path, constants: &[Constant]) -> Result<Vec<Kernel>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    read(&text, path.file_name().and_then(|n| n.to_str()).unwrap_or_default(), constants)
}

/// Parses the kernels of a file.
pub fn read(text: &str, file: &str, constants: &[Constant]) -> Result<Vec<Kernel>, String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut kernels = Vec::new();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with(START)) {
        let at = |line: usize, problem: String| format!("kernels/{file}:{}: {problem}", line + 1);
        let mut parts =
            split(&lines[index..]).map_err(|(line, e)| at(index + line, e))?.into_iter();
        let name = parts.next().map(|part| part.declaration).unwrap_or_default();
        if !is_name(&name) {
            return Err(at(index, format!("`{name}` is not a kernel name\n  {line}")));
        }
        let parts: Vec<Part> = parts.collect();
        let problem = |part: &Part, e: String| at(index + part.line, e);
        let declared: Vec<Declared> = (parts.iter())
            .map(|part| Declared::read(&part.declaration).map_err(|e| problem(part, e)))
            .collect::<Result<_, _>>()?;
        let names = Names {
            size: &|name| {
                let size = |d: &Declared| d.name == name && d.scalar() == Some(Scalar::Size);
                declared.iter().position(size)
            },
            constant: &|name| constants.iter().find(|c| c.name == name).map(|c| c.value),
        };
        let mut arguments: Vec<Argument> = Vec::new();
        for (declared, part) in declared.iter().zip(&parts) {
            if arguments.iter().any(|other| other.name == declared.name) {
                return Err(problem(part, format!("`{}` twice", declared.name)));
            }
            let argument = declared.argument(part.comment.as_deref(), &names);
            arguments.push(argument.map_err(|e| problem(part, e))?);
        }
        let (file, comment) = (file.into(), comment_above(&lines[..index]));
        kernels.push(Kernel { name, file, line: index + 1, comment, arguments });
    }
    Ok(kernels)
}

fn is_name(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && text.chars().all(inside)
}

/// The text between two commas of a signature.
struct Part {
    declaration: String,
    comment: Option<String>,
    /// Line, counted from the first one of the signature.
    line: usize,
}

/// Splits a signature, which begins on the first line, at its commas, except those inside shapes.
/// An error comes with its line.
fn split(lines: &[&str]) -> Result<Vec<Part>, (usize, String)> {
    let mut parts = Vec::new();
    let (mut declaration, mut comment) = (String::new(), None);
    let mut rest = &lines[0][START.len()..];
    let mut line = 0;
    loop {
        let sign = rest.find([',', ')', '(', '/', '{', ';']).unwrap_or(rest.len());
        let (before, after) = rest.split_at(sign);
        if comment.is_some() && !before.trim().is_empty() {
            return Err((line, format!("`{}` after a shape", before.trim())));
        }
        declaration.push_str(before);
        if let Some(inside) = after.strip_prefix("/*") {
            let end =
                inside.find("*/").ok_or((line, "a comment does not end on its line".into()))?;
            if comment.replace(inside[..end].trim().to_string()).is_some() {
                return Err((line, "an argument has two comments".into()));
            }
            rest = &inside[end + 2..];
            continue;
        }
        match after.chars().next() {
            Some(sign @ (',' | ')')) => {
                let words: Vec<&str> = declaration.split_whitespace().collect();
                parts.push(Part { declaration: words.join(" "), comment: comment.take(), line });
                declaration.clear();
                rest = &after[1..];
                if sign == ')' && rest.trim_end() == " {" {
                    return Ok(parts);
                } else if sign == ')' {
                    return Err((line, "a kernel's signature ends in `) {`".into()));
                }
            }
            Some(sign) => return Err((line, format!("`{sign}` in a kernel's signature"))),
            None => {
                line += 1;
                declaration.push(' ');
                rest = lines.get(line).ok_or((line - 1, "a signature does not end".to_string()))?;
            }
        }
    }
}

/// A parameter without its shape.
struct Declared {
    name: String,
    kind: Form,
}

enum Form {
    Pointer { element: &'static str, written: bool, optional: bool },
    Scalar(Scalar),
}

impl Declared {
    fn read(text: &str) -> Result<Declared, String> {
        let wrong = || {
            format!(
                "`{text}` is not of the form `[const] TYPE* [OPTIONAL] name /* shape */` or \
                 `int64_t|bool|real name`"
            )
        };
        let (constant, declaration) = match text.strip_prefix("const ") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (kind, name) = if let Some((element, name)) = declaration.split_once("* ") {
            let (optional, name) = match name.strip_prefix("OPTIONAL ") {
                Some(rest) => (true, rest),
                None => (false, name),
            };
            let element = ELEMENTS.iter().find(|e| e.0 == element).ok_or_else(wrong)?.1;
            (Form::Pointer { element, written: !constant, optional }, name)
        } else {
            let (scalar, name) = declaration.split_once(' ').ok_or_else(wrong)?;
            let scalar = SCALARS.iter().find(|s| s.0 == scalar && !constant).ok_or_else(wrong)?;
            (Form::Scalar(scalar.1), name)
        };
        if !is_name(name) {
            return Err(wrong());
        }
        if name == BLOCKS {
            return Err(format!("`{BLOCKS}` is reserved for the launch"));
        }
        Ok(Declared { name: name.into(), kind })
    }

    fn scalar(&self) -> Option<Scalar> {
        match self.kind {
            Form::Scalar(scalar) => Some(scalar),
            Form::Pointer { .. } => None,
        }
    }

    fn argument(&self, comment: Option<&str>, names: &Names) -> Result<Argument, String> {
        let name = self.name.clone();
        let kind = match (&self.kind, comment) {
            (&Form::Pointer { element, written, optional }, Some(text)) => Kind::Pointer {
                element,
                written,
                optional,
                text: text.into(),
                shape: Shape::read(text, names).map_err(|e| format!("`{name}`: {e}"))?,
            },
            (Form::Pointer { .. }, None) => {
                return Err(format!("`{name}` has no shape: `{name} /* rows,channels */`"));
            }
            (Form::Scalar(scalar), None) => Kind::Scalar(*scalar),
            (Form::Scalar(_), Some(_)) => {
                return Err(format!("`{name}` is a number, so it has no shape"));
            }
        };
        Ok(Argument { name, kind })
    }
}
