//! Tests the layers of the code: which part may import from which, and that imports form no cycle.
//!
//! An import is a `use`, or a path through `crate::`, `super::` or a child module; a re-exported
//! name counts as an import from the file that defines it. Tests are exempt. docs/architecture.md
//! shows the layers that [`FLOORS`] states.

mod imports;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imports::{Import, read_crate};

/// The layers of src/ from the bottom up, each with its parts: files, or folders with everything in
/// them. A part may import from lower layers and from its own, unless [`STRANGERS`] forbids it.
const FLOORS: &[&[&str]] = &[
    &[
        "error.rs",
        "rng.rs",
        "dtype.rs",
        "file/",
        "hex.rs",
        "memory.rs",
        "observer.rs",
        "onnx/",
        "printable.rs",
    ],
    &["config/"],
    &["tensor.rs", "tape.rs", "params.rs", "optimizer.rs", "device/", "ops/"],
    &["nn/", "data/"],
    &["uda/"],
    &["checkpoint/"],
    &["run/"],
    &["model/"],
    &["capi/"],
    &["cli/", "main.rs"],
];

/// Parts that must not import each other although their layers would allow it: the engine takes
/// plain values, networks and datasets are independent, and inference works without the training
/// method.
const STRANGERS: &[(&str, &str)] = &[
    ("tensor.rs", "config/"),
    ("tape.rs", "config/"),
    ("params.rs", "config/"),
    ("optimizer.rs", "config/"),
    ("device/", "config/"),
    ("ops/", "config/"),
    ("nn/", "data/"),
    ("data/", "nn/"),
    ("run/eval/", "uda/"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the index of a file's layer; `None` for lib.rs, which only declares the modules.
fn floor(file: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.iter().any(|room| file.starts_with(room)))
}

fn show(import: &Import) -> String {
    format!("{}:{}: `{}` is in {}", import.from, import.line, import.path, import.to)
}

#[test]
fn imports_lead_down() {
    let imports = read_crate(&root().join("src"));
    assert!(imports.len() > 300, "only {} imports were found", imports.len());
    let mut wrong = Vec::new();
    for import in &imports {
        let (Some(from), Some(to)) = (floor(&import.from), floor(&import.to)) else {
            if import.from != "lib.rs" && import.to != "lib.rs" {
                wrong.push(format!("{}: has no floor in tests/architecture", show(import)));
            }
            continue;
        };
        if to > from {
            wrong.push(format!("{}, a floor above", show(import)));
        }
        let strangers =
            |(a, b): &&(&str, &str)| import.from.starts_with(a) && import.to.starts_with(b);
        if let Some((room, other)) = STRANGERS.iter().find(strangers) {
            wrong.push(format!("{}: {room} must not know {other}", show(import)));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn no_imports_form_a_circle() {
    let mut wrong = Vec::new();
    for folder in ["src", "emulator/src", "ptx/src"] {
        for circle in circles(&read_crate(&root().join(folder))) {
            let lines: Vec<String> = circle.iter().map(|import| show(import)).collect();
            wrong.push(format!("{folder}:\n  {}", lines.join("\n  ")));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Returns a shortest cycle of imports for each strongly connected set of files.
fn circles(imports: &[Import]) -> Vec<Vec<&Import>> {
    let mut edges: BTreeMap<&str, BTreeMap<&str, &Import>> = BTreeMap::new();
    for import in imports {
        edges.entry(&import.from).or_default().entry(&import.to).or_insert(import);
    }
    let mut found = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for &start in edges.keys() {
        if seen.contains(&start) {
            continue;
        }
        if let Some(circle) = shortest_circle(&edges, start) {
            seen.extend(circle.iter().map(|import| import.from.as_str()));
            found.push(circle);
        }
    }
    found
}

/// Finds a shortest path from a file back to itself.
fn shortest_circle<'a>(
    edges: &BTreeMap<&'a str, BTreeMap<&'a str, &'a Import>>,
    start: &'a str,
) -> Option<Vec<&'a Import>> {
    let mut reached: BTreeMap<&str, &Import> = BTreeMap::new();
    let mut front = vec![start];
    while !front.is_empty() {
        let mut next = Vec::new();
        for file in front {
            for (&to, &import) in edges.get(file).into_iter().flatten() {
                if to == start {
                    let mut circle = vec![import];
                    while circle[circle.len() - 1].from != start {
                        circle.push(reached[circle[circle.len() - 1].from.as_str()]);
                    }
                    circle.reverse();
                    return Some(circle);
                }
                if !reached.contains_key(to) {
                    reached.insert(to, import);
                    next.push(to);
                }
            }
        }
        front = next;
    }
    None
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for (folder, extensions, limit) in [
        ("src", &["rs"][..], 600),
        ("build", &["rs"], 600),
        ("emulator", &["rs", "cpp"], 600),
        ("ptx", &["rs"], 600),
        ("tests", &["rs", "py"], 600),
        ("benches", &["rs", "py"], 600),
        ("kernels", &["cu", "cuh"], 300),
    ] {
        for path in files(&root().join(folder)) {
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            if !extensions.contains(&extension) {
                continue;
            }
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            if lines > limit {
                long.push(format!("{}: {lines} lines of at most {limit}", path.display()));
            }
        }
    }
    assert!(long.is_empty(), "\n{}\n", long.join("\n"));
}

/// A path may lead to a pipe or a device, so files are opened by file/ alone. What the kernel
/// writes at a fixed path is none that anybody could name.
#[test]
fn files_are_opened_in_one_place() {
    let opens =
        r#"\b(File::(open|create)(_new)?|fs::(read|read_to_string|write|copy))\(("/proc/)?"#;
    let opens = regex::Regex::new(opens).unwrap();
    // What is created anew is no pipe.
    let allowed = ["File::create_new(", "(\"/proc/"];
    let mut wrong = Vec::new();
    for path in files(&root().join("src")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        for found in opens.find_iter(code).map(|found| found.as_str()) {
            let known = allowed.iter().any(|allowed| found.ends_with(allowed));
            if !known && !name.starts_with("src/file/") {
                wrong.push(format!("{name}: {found}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(files(&entry)),
            false => found.push(entry),
        }
    }
    found.sort();
    found
}

#[test]
fn links_in_the_pages_lead_to_files() {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    for folder in ["docs", "weights", "benches/pytorch", "tests/golden"] {
        let markdown = |path: &PathBuf| path.extension().is_some_and(|e| e == "md");
        pages.extend(files(&root().join(folder)).into_iter().filter(markdown));
    }
    let mut dead = Vec::new();
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains(':') || target.contains(' ');
            if !elsewhere && !page.parent().unwrap().join(target).exists() {
                dead.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "\n{}\n", dead.join("\n"));
}

#[test]
fn a_circle_is_found() {
    let import = |from: &str, to: &str| Import {
        from: from.into(),
        to: to.into(),
        line: 1,
        path: String::new(),
    };
    let straight = [import("a", "b"), import("b", "c"), import("a", "c")];
    assert!(circles(&straight).is_empty());
    let round = [import("a", "b"), import("b", "c"), import("c", "b")];
    let found: Vec<Vec<&str>> = (circles(&round).iter())
        .map(|circle| circle.iter().map(|import| import.from.as_str()).collect())
        .collect();
    assert_eq!(found, [["b", "c"]]);
}
