//! Tests NVTX ranges: the program loads an injection library, as Nsight uses, which logs what it
//! receives.

#[path = "support/library.rs"]
mod library;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::tempdir;

use library::add_library;

/// Attaches as NVIDIA's tools do, using the declarations of `nvtxTypes.h`, and logs the tables it
/// is given and every push and pop.
const TOOL: &str = r#"
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef void (*function)(void);
struct callbacks { size_t size; int (*table)(int module, function*** table, unsigned* length); };
struct version { size_t size; uint32_t version, reserved; void (*tell)(uint32_t); };

static FILE* heard;

static int push(const char* name) { fprintf(heard, "push %s\n", name); fflush(heard); return 0; }
static int pop(void) { fprintf(heard, "pop\n"); fflush(heard); return 0; }

int InitializeInjectionNvtx2(const void* (*get)(uint32_t)) {
    const struct callbacks* callbacks = get(1);
    const struct version* version = get(3);
    heard = fopen(getenv("HEARD"), "w");
    if (!heard || !callbacks || callbacks->size != 16 || !version || version->size != 24) return 0;
    version->tell(3);
    fprintf(heard, "version %u, others %d\n", version->version, get(0) || get(2) || get(4));
    for (int module = 0; module < 8; ++module) {
        function** table = NULL;
        unsigned length = 0, there = 0;
        if (!callbacks->table(module, &table, &length)) continue;
        callbacks->table(module, NULL, NULL);
        for (unsigned id = 1; id < length; ++id) there += table[id] != NULL;
        fprintf(heard, "module %d: %u of %u, ends %d\n", module, there, length, !table[0] && !table[length]);
        if (module == 1) {
            *table[9] = (function)push;
            *table[11] = (function)pop;
        }
    }
    return 1;
}
"#;

/// Runs `udass-raw profile` on a small iteration with all four training passes, in `folder`, where
/// the tool writes `heard`.
fn profile(folder: &Path, tool: &Path, args: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_udass-raw"))
        .args(["profile", "toy_vit", "--json", "p.json", "--set", "data.crop=64"])
        .args(["--set", "network.hrda.detail_crop=32", "--set", "device.kind=host"])
        .args(args)
        .env("NVTX_INJECTION64_PATH", tool)
        .env("HEARD", folder.join("heard"))
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    (output, said)
}

#[test]
fn a_tool_hears_the_names_of_the_profile() {
    let folder = tempdir().unwrap();
    add_library(folder.path(), "tool", TOOL);
    let tool = folder.path().join("libtool.so");
    let (_, said) = profile(folder.path(), &tool, &["--samples", "1"]);
    assert!(!said.contains("warning"), "{said}");
    let heard = std::fs::read_to_string(folder.path().join("heard")).unwrap();
    let (handed, ranges): (Vec<&str>, Vec<&str>) =
        heard.lines().partition(|line| !line.starts_with("push ") && *line != "pop");
    let tables = [15, 8, 14, 6, 15, 6].into_iter().zip(1..);
    let tables = tables.map(|(n, i)| format!("module {i}: {n} of {}, ends 1", n + 1));
    let expected: Vec<String> =
        std::iter::once("version 3, others 0".into()).chain(tables).collect();
    assert_eq!(handed, expected);

    // The passes and layers that the profile attributes calls to.
    let json = std::fs::read(folder.path().join("p.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let way = |name: &str, back: bool| if back { format!("{name} backward") } else { name.into() };
    let (mut passes, mut places) = (BTreeSet::new(), BTreeSet::new());
    for call in json["calls"].as_array().unwrap() {
        let (pass, layer) = (call["pass"].as_str().unwrap(), call["layer"].as_str().unwrap());
        let back = call["backward"].as_bool().unwrap();
        passes.insert(way(pass, back));
        let layer = if layer.is_empty() { String::new() } else { way(layer, back) };
        places.insert((way(pass, back), layer));
    }
    for row in json["by_pass"].as_array().unwrap() {
        assert!(passes.contains(row["name"].as_str().unwrap()), "{row}");
    }
    for pass in ["source", "teacher backward", "source backward", "optimizer"] {
        assert_eq!(passes.contains(pass), pass != "teacher backward", "{pass} in {passes:?}");
    }

    // The same from the ranges: the innermost pass and the innermost layer at the start of each
    // range.
    let (mut open, mut told, mut names) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mut iterations: Vec<Vec<&str>> = Vec::new();
    for line in ranges {
        if open.is_empty() && line == "push teacher" {
            iterations.push(Vec::new());
        }
        iterations.iter_mut().last().into_iter().for_each(|lines| lines.push(line));
        let Some(name) = line.strip_prefix("push ") else {
            assert!(open.pop().is_some(), "a pop too many");
            continue;
        };
        open.push(name);
        names.insert(name);
        let inside = |is_pass: bool| {
            let found = open.iter().rev().find(|&&name| passes.contains(name) == is_pass);
            found.map_or(String::new(), |name| name.to_string())
        };
        told.insert((inside(true), inside(false)));
    }
    assert!(open.is_empty(), "never ended: {open:?}");
    // Outside all passes and layers there are no ranges.
    let untold: Vec<_> = places.difference(&told).filter(|(pass, _)| pass != "other").collect();
    assert!(untold.is_empty(), "{untold:?}");
    // Ranges before the first iteration are not part of the profile.
    let before = ["parameters", "batch"];
    let layers: BTreeSet<&str> = places.iter().map(|(_, layer)| layer.as_str()).collect();
    let known = |name: &str| passes.contains(name) || layers.contains(name);
    names.retain(|name| !known(name) && !before.contains(name));
    assert!(names.is_empty(), "{names:?}");
    // The last iteration, which is profiled, has the same ranges as the one before it, which is
    // not.
    let [.., unwatched, profiled] = &iterations[..] else {
        panic!("{} iterations", iterations.len())
    };
    assert!(profiled.len() > 1000);
    assert!(unwatched == profiled);
}

#[test]
fn a_tool_that_will_not_do_is_told_and_left_alone() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("text"), "no library").unwrap();
    add_library(folder.path(), "empty", "int nothing(void) { return 0; }");
    // The tool fills its slots and then refuses to load: its code is unmapped by the time of the
    // first range.
    let refusing = TOOL.replace("return 1;\n}", "return 0;\n}");
    assert_ne!(refusing, TOOL);
    add_library(folder.path(), "refuses", &refusing);
    let cases = [
        ("missing.so", "which cannot be loaded ("),
        ("text", "which cannot be loaded ("),
        ("libempty.so", "which has no InitializeInjectionNvtx2"),
        ("librefuses.so", "which failed to initialize"),
    ];
    let dry = ["--dry", "--memory-rate", "3e12", "--matrix-rate", "4e14"];
    for (name, expected) in cases {
        let (output, said) = profile(folder.path(), &path(name), &dry);
        let start = format!("warning: NVTX_INJECTION64_PATH names {}, ", path(name).display());
        assert_eq!(said.matches("warning").count(), 1, "{said}");
        assert!(said.contains(&start) && said.contains(expected), "{said}");
        assert!(said.contains("; ranges are not reported to any tool"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("modeled"), "{name}");
    }
    // An empty variable counts as unset.
    assert_eq!(profile(folder.path(), Path::new(""), &dry).1, "");
}
