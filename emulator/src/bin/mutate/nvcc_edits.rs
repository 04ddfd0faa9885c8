//! Mutations of what only nvcc compiles: inline assembly, and code under `__CUDACC__`.

use std::ops::Range;

use crate::edits::Mutant;

/// Texts and what replaces them: another instruction, another index of a thread, another sign.
const REPLACEMENTS: [(&str, &str, &str); 22] = [
    ("another instruction", ".trans.", "."),
    ("another instruction", "x4.shared", "x4.trans.shared"),
    ("another instruction", "ex2.", "lg2."),
    ("another instruction", "rcp.", "rsqrt."),
    ("another instruction", "__shfl_sync(", "__shfl_up_sync("),
    ("another instruction", "__shfl_xor_sync(", "__shfl_down_sync("),
    ("another instruction", "__uint_as_float(", "static_cast<float>("),
    ("another instruction", "__float_as_uint(", "static_cast<uint32_t>("),
    ("another instruction", "__int_as_float(", "static_cast<float>("),
    ("wait off by one", "\"n\"(pending)", "\"n\"(pending + 1)"),
    ("statement dropped", "__syncthreads()", "(void)0"),
    ("statement dropped", "cp.async.commit_group;", ""),
    ("statement dropped", "cp.async.wait_group %0;", ""),
    ("statement dropped", "atomicAdd(counter, 1)", "++*counter"),
    ("another index", "threadIdx", "blockIdx"),
    ("another index", "blockDim", "gridDim"),
    ("another index", "blockIdx", "threadIdx"),
    ("another index", "gridDim", "blockDim"),
    ("another sign", "fmaf(-y", "fmaf(y"),
    ("another sign", "x * inverse", "y * inverse"),
    ("another sign", ") & ", ") | "),
    ("another sign", " + ", " - "),
];

/// Returns all mutations of a file.
pub fn of_file(file: &str, text: &str) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for region in regions(text) {
        let body = &text[region.clone()];
        let mut edit = |offset: usize, kind: &'static str, from: &str, to: String| {
            let at = region.start + offset;
            let line_start = text[..at].rfind('\n').map_or(0, |n| n + 1);
            if !text[line_start..at].contains("//") {
                mutants.push(Mutant {
                    file: file.into(),
                    function: function_at(text, at),
                    line: text[..line_start].lines().count() + 1,
                    kind,
                    at,
                    from: from.into(),
                    to,
                });
            }
        };
        for (kind, from, to) in REPLACEMENTS {
            for (at, _) in body.match_indices(from) {
                edit(at, kind, from, to.into());
            }
        }
        registers(body, &mut edit);
        numbers(body, &mut edit);
    }
    mutants.sort_by_key(|mutant| (mutant.at, mutant.kind));
    mutants
}

/// Finds the text between `#if defined(__CUDACC__)` and the directive that ends it. A condition
/// that names other macros as well guards code that not only nvcc sees.
fn regions(text: &str) -> Vec<Range<usize>> {
    let mut regions = Vec::new();
    let (mut at, mut depth, mut begin) = (0, 0, None);
    for line in text.split_inclusive('\n') {
        let directive = line.trim_end();
        if begin.is_none() && directive == "#if defined(__CUDACC__)" {
            (begin, depth) = (Some(at + line.len()), 0);
        } else if let Some(start) = begin {
            if directive.starts_with("#if") {
                depth += 1;
            } else if depth == 0
                && (directive.starts_with("#el") || directive.starts_with("#endif"))
            {
                regions.push(start..at);
                begin = None;
            } else if directive.starts_with("#endif") {
                depth -= 1;
            }
        }
        at += line.len();
    }
    regions
}

/// Swaps neighboring registers: in the text of an instruction (`%4,%5`), and among the operands
/// that it is given (`"r"(a[0])` takes the next element).
fn registers<'t>(body: &'t str, edit: &mut impl FnMut(usize, &'static str, &'t str, String)) {
    for (at, _) in body.match_indices('%') {
        let number = |at: usize| {
            let digits = body[at..].strip_prefix('%')?;
            let end = digits.find(|c: char| !c.is_ascii_digit())?;
            (end > 0).then(|| &body[at..at + 1 + end])
        };
        let Some(first) = number(at) else { continue };
        let comma = at + first.len();
        if !body[comma..].starts_with(',') {
            continue;
        }
        if let Some(second) = number(comma + 1) {
            let whole = &body[at..comma + 1 + second.len()];
            edit(at, "registers swapped", whole, format!("{second},{first}"));
        }
    }
    for (at, _) in body.match_indices("\"(") {
        let operand = &body[at + 2..];
        let Some(end) = operand.find(')') else { continue };
        let Some((array, rest)) = operand[..end].split_once('[') else { continue };
        let Some(index) = rest.strip_suffix(']').and_then(|i| i.parse::<usize>().ok()) else {
            continue;
        };
        // Arrays have two or four elements; the neighbor is in the same half.
        let neighbor = index ^ 1;
        let whole = &operand[..end];
        edit(at + 2, "another register", whole, format!("{array}[{neighbor}]"));
    }
}

/// Changes the lowest bit of numbers that no name or string contains.
fn numbers<'t>(body: &'t str, edit: &mut impl FnMut(usize, &'static str, &'t str, String)) {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '%');
    let mut at = 0;
    while let Some(found) = body[at..].find(inside) {
        let start = at + found;
        let length = body[start..].find(|c| !inside(c)).unwrap_or(body.len() - start);
        let word = &body[start..start + length];
        at = start + length;
        let digits = word.trim_end_matches(['u', 'U']);
        let changed = match digits.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok().map(|n| format!("{:#X}u", n ^ 1)),
            None => digits.parse::<u32>().ok().map(|n| (n ^ 1).to_string()),
        };
        let quoted = body[..start].matches('"').count() % 2 == 1;
        let index = body[..start].ends_with('[');
        if let Some(changed) = changed.filter(|_| !index) {
            // In a string, only the size of an asynchronous copy.
            if !quoted || body[..start].ends_with("], ") {
                let changed =
                    if quoted { (8).to_string() } else { changed.replacen("0X", "0x", 1) };
                edit(start, "another number", word, changed);
            }
        }
    }
}

/// Returns the name of the function around a place.
fn function_at(text: &str, at: usize) -> String {
    let heads = ["DEVICE ", "MATH ", "KERNEL(", "    __device__ ", "#define "];
    let lines: Vec<&str> = text[..at].lines().collect();
    let head = lines.iter().rev().find_map(|line| {
        heads.iter().find_map(|head| line.trim_start().strip_prefix(head.trim_start()))
    });
    let head = head.unwrap_or_default();
    let before = head.split(['(', ' ']).find(|word| {
        !matches!(
            *word,
            "void" | "float" | "uint32_t" | "int64_t" | "real" | "V" | "void*" | "bool"
        )
    });
    before.unwrap_or_default().to_string()
}
