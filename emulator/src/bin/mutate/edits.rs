//! The mutations: where in a kernel file they apply, and the text they insert.

use std::ops::Range;

/// A mutation at one place.
#[derive(Clone)]
pub struct Mutant {
    pub file: String,
    pub function: String,
    pub line: usize,
    pub kind: &'static str,
    /// Byte offset in the file, followed by the original text and its replacement.
    pub at: usize,
    pub from: String,
    pub to: String,
}

pub const BARRIER: &str = "barrier dropped";

impl Mutant {
    pub fn describe(&self) -> String {
        let Mutant { file, line, function, kind, from, to, .. } = self;
        format!("{file}:{line} {function}: {kind}: `{}` to `{}`", from.trim(), to.trim())
    }
}

/// Returns all mutations of a file, grouped by function.
pub fn of_file(file: &str, text: &str) -> Vec<Vec<Mutant>> {
    functions(text).iter().map(|function| of_function(file, text, function)).collect()
}

struct Function {
    name: String,
    body: Range<usize>,
    /// Names of its integers.
    integers: Vec<String>,
}

/// Finds the kernels and device functions that the block emulator builds. They start without
/// indentation and end in a brace without indentation, or on their first line.
fn functions(text: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    let (mut at, mut elsewhere) = (0, false);
    let mut open: Option<(usize, &str)> = None;
    for line in text.split_inclusive('\n') {
        // Bodies with GPU instructions, and those for a single thread, are not part of the build.
        match line.trim_end() {
            "#if defined(__CUDACC__)" | "#elif defined(UDASS_ORDERED)" => elsewhere = true,
            line if line.starts_with("#elif") || line.starts_with("#endif") => elsewhere = false,
            line if line.starts_with("#else") => elsewhere = true,
            _ => (),
        }
        let head = ["KERNEL(", "DEVICE ", "MATH "].iter().any(|word| line.starts_with(word));
        if head && !elsewhere {
            open = Some((at, line));
        }
        if let Some((begin, head)) = open
            && (line.starts_with('}') || (begin == at && line.trim_end().ends_with('}')))
        {
            let end = at + line.len();
            // A signature may span several lines.
            let body = begin + text[begin..end].find('{').unwrap_or(0)..end;
            let integers = integers(&text[begin..end]);
            functions.push(Function { name: name_of(head).into(), body, integers });
            open = None;
        }
        at += line.len();
    }
    functions
}

fn name_of(head: &str) -> &str {
    match head.strip_prefix("KERNEL(") {
        Some(rest) => rest.split(',').next().unwrap_or_default(),
        None => {
            let before = head.split('(').next().unwrap_or_default();
            before.rsplit([' ', '*']).next().unwrap_or_default()
        }
    }
}

/// Returns the names declared as `int64_t`, including those in lists.
fn integers(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for declaration in text.split("int64_t ").skip(1) {
        let end = declaration.find([';', ')', '{']).unwrap_or(declaration.len());
        let parts = declaration[..end].split(", ").filter_map(|part| words(part).next());
        names.extend(parts.filter(|(at, _)| *at == 0).map(|(_, name)| name.to_string()));
    }
    names
}

fn of_function(file: &str, text: &str, function: &Function) -> Vec<Mutant> {
    let body = &text[function.body.clone()];
    let mut mutants = Vec::new();
    let mut edit = |offset: usize, kind: &'static str, from: &str, to: String| {
        let at = function.body.start + offset;
        let line_start = text[..at].rfind('\n').map_or(0, |n| n + 1);
        if !text[line_start..at].contains("//") {
            mutants.push(Mutant {
                file: file.into(),
                function: function.name.clone(),
                line: text[..line_start].lines().count() + 1,
                kind,
                at,
                from: from.into(),
                to,
            });
        }
    };
    for (at, from) in body.match_indices("barrier();") {
        edit(at, BARRIER, from, ";".into());
    }
    for (at, from) in body.match_indices(" < ") {
        edit(at, "bound one further", from, " <= ".into());
    }
    for (at, from) in body.match_indices(" += ") {
        // The increment of a loop is not an accumulation.
        let before = body[..at].rsplit('\n').next().unwrap_or_default();
        if before.matches('(').count() == before.matches(')').count() {
            edit(at, "accumulation dropped", from, " = ".into());
        }
    }
    for (at, _) in body.match_indices("SHARED(") {
        let array = &body[at..at + body[at..].find(");").unwrap_or(0)];
        if let Some((head, size)) = array.rsplit_once(", ") {
            edit(at, "shared memory shrunk", array, format!("{head}, ({size}) / 2"));
        }
    }
    let integer = |name: &str| function.integers.iter().any(|known| known == name);
    for (at, name) in words(body).filter(|(_, name)| integer(name)) {
        let after = &body[at + name.len()..];
        if body[..at].ends_with(" * ") {
            edit(at, "stride off by one", name, format!("({name} + 1)"));
        }
        // Swap a * b + c to c * b + a.
        let swapped = after.strip_prefix(" * ").and_then(|rest| {
            let (_, by) = words(rest).next().filter(|(at, _)| *at == 0)?;
            let tail = rest.strip_prefix(by)?.strip_prefix(" + ")?;
            let (_, other) = words(tail).next().filter(|(at, _)| *at == 0)?;
            let whole = integer(other) && !tail[other.len()..].starts_with(['[', '(', '.']);
            whole.then(|| (format!("{name} * {by} + {other}"), format!("{other} * {by} + {name}")))
        });
        if let Some((from, to)) = swapped {
            edit(at, "indices swapped", &from, to);
        }
    }
    mutants
}

/// Returns the identifiers with their offsets.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(inside).filter_map(move |(at, first)| {
        let starts = !text[..at].ends_with(inside) && !first.starts_with(|c: char| c.is_numeric());
        let end = text[at..].find(|c| !inside(c)).map_or(text.len(), |n| at + n);
        starts.then(|| (at, &text[at..end]))
    })
}
