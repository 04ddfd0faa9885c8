//! Reads the one restricted form in which a kernel's signature is written:
//!
//! ```text
//! KERNEL(name, const T* x /* B,C */, const real* OPTIONAL bias /* C */, T* y, int64_t n) {
//! ```
//!
//! on one line. A const pointer is an input, any other pointer is written; scalars are `int64_t`,
//! `int32_t`, `uint64_t` or `real`. Anything else is an error: no C++ is parsed.

use std::path::Path;

pub struct Kernel {
    pub name: String,
    /// File name, without the folder.
    pub file: String,
    pub line: usize,
    pub arguments: Vec<Argument>,
}

pub struct Argument {
    pub name: String,
    /// The comment behind the name: the shape.
    pub shape: String,
    pub kind: Kind,
}

pub enum Kind {
    Pointer { element: &'static str, written: bool, optional: bool },
    Scalar { rust: &'static str, variant: &'static str },
}

/// C++ element type, variant of `Element` in src/device/launch.rs.
const ELEMENTS: [(&str, &str); 6] = [
    ("T", "Operand"),
    ("real", "Real"),
    ("uint8_t", "U8"),
    ("int32_t", "I32"),
    ("int64_t", "I64"),
    ("uint64_t", "U64"),
];

/// C++ scalar type, Rust type, variant of `Arg`.
const SCALARS: [(&str, &str, &str); 4] = [
    ("int64_t", "i64", "I64"),
    ("int32_t", "i32", "I32"),
    ("uint64_t", "u64", "U64"),
    ("real", "f64", "Real"),
];

pub fn read_file(path: &Path) -> Result<Vec<Kernel>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let file = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
    let mut kernels = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if !line.starts_with("KERNEL(") {
            continue;
        }
        let kernel = read_line(line, &file, index + 1)
            .map_err(|problem| format!("kernels/{file}:{}: {problem}\n  {line}", index + 1))?;
        kernels.push(kernel);
    }
    Ok(kernels)
}

fn read_line(line: &str, file: &str, number: usize) -> Result<Kernel, String> {
    let inside = line
        .strip_prefix("KERNEL(")
        .and_then(|rest| rest.trim_end().strip_suffix(") {"))
        .ok_or("a kernel's signature stands on one line and ends in `) {`")?;
    // Shapes hold commas: take the comments out before splitting.
    let mut plain = String::new();
    let mut comments = Vec::new();
    let mut rest = inside;
    while let Some(start) = rest.find("/*") {
        let end = rest[start..].find("*/").ok_or("a comment is not closed")? + start;
        plain.push_str(&rest[..start]);
        plain.push_str(&format!("@{}", comments.len()));
        comments.push(rest[start + 2..end].trim().to_string());
        rest = &rest[end + 2..];
    }
    plain.push_str(rest);

    let mut parts = plain.split(',').map(str::trim);
    let name = parts.next().unwrap_or_default();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!("`{name}` is not a kernel name"));
    }
    let arguments =
        parts.map(|part| read_argument(part, &comments)).collect::<Result<Vec<_>, _>>()?;
    Ok(Kernel { name: name.into(), file: file.into(), line: number, arguments })
}

fn read_argument(part: &str, comments: &[String]) -> Result<Argument, String> {
    let (declaration, comment) = part.split_once('@').unwrap_or((part, ""));
    let shape = comment.trim().parse::<usize>().map_or("", |i| comments[i].as_str());
    let wrong = || {
        format!(
            "`{}` is not of the form `[const] TYPE* [OPTIONAL] name` or `SCALAR name`",
            declaration.trim()
        )
    };
    let declaration = declaration.trim();
    let (constant, declaration) = match declaration.strip_prefix("const ") {
        Some(rest) => (true, rest),
        None => (false, declaration),
    };
    let (kind, name) = if let Some((element, name)) = declaration.split_once('*') {
        let (optional, name) = match name.trim().strip_prefix("OPTIONAL ") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        let element = ELEMENTS.iter().find(|e| e.0 == element.trim()).ok_or_else(wrong)?.1;
        (Kind::Pointer { element, written: !constant, optional }, name.trim())
    } else {
        let (scalar, name) = declaration.split_once(' ').ok_or_else(wrong)?;
        let scalar = SCALARS.iter().find(|s| s.0 == scalar).ok_or_else(wrong)?;
        (Kind::Scalar { rust: scalar.1, variant: scalar.2 }, name.trim())
    };
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(wrong());
    }
    Ok(Argument { name: name.into(), shape: shape.into(), kind })
}
