//! Mutants that only nvcc sees: compiled to PTX, and run by the cases of `tests/ptx`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ptx::{Compiler, Target};

use crate::edits::Mutant;
use crate::{Options, Outcome, copy_kernels, hash, nvcc, nvcc_edits, read, wait, write_mutant};

/// The interpreter finds endless loops itself; nvcc may take long.
const PATIENCE: Duration = Duration::from_secs(600);
/// The kernels with which edits of a header are tested. tests/ptx also runs `tensor_cores.cu`.
const USERS: [(&str, &[&str]); 7] = [
    ("mma.cuh", &["attention_mma.cu", "attention_mma_backward.cu"]),
    ("attention_mma.cuh", &["attention_mma.cu", "attention_mma_backward.cu"]),
    ("dtype.cuh", &["elementwise.cu", "layernorm.cu"]),
    ("math.cuh", &["depthwise.cu", "cross_entropy.cu"]),
    ("warp.cuh", &["layernorm.cu", "finite.cu"]),
    ("simt.cuh", &["layernorm.cu", "finite.cu"]),
    ("counting.cuh", &["confusion.cu", "labels.cu"]),
];

fn users(mutant: &Mutant) -> Vec<&str> {
    let known = USERS.iter().find(|(name, _)| *name == mutant.file);
    known.map_or_else(|| vec![mutant.file.as_str()], |(_, users)| users.to_vec())
}

/// Returns edits in the order of a seed, the first `count` of those that change some PTX.
pub fn drawn(options: &Options, work: &Path) -> Result<Vec<Mutant>, String> {
    let folder = emulator::kernels();
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.retain(|name| options.only.as_ref().is_none_or(|only| name == only));
    names.sort();
    let mut all = Vec::new();
    for name in names {
        all.extend(nvcc_edits::of_file(&name, &read(&folder.join(&name))?));
    }
    eprintln!("{} edits of what only nvcc sees", all.len());
    all.sort_by_key(|m| hash(&format!("{} {} {} {} {}", options.seed, m.file, m.at, m.kind, m.to)));
    let mut chosen = Vec::new();
    for mutant in all {
        if chosen.len() == options.count {
            break;
        }
        copy_kernels(work)?;
        write_mutant(&mutant, work)?;
        if changes_ptx(&mutant, work)? {
            chosen.push(mutant);
        }
    }
    let _ = std::fs::remove_dir_all(work);
    Ok(chosen)
}

/// Returns whether nvcc accepts an edit, and writes something else for it that can be decoded.
/// (Wrong assembly that ptxas refuses is a build error, not a mutant.)
fn changes_ptx(mutant: &Mutant, work: &Path) -> Result<bool, String> {
    let nvcc = nvcc::find().ok_or("nvcc was not found")?;
    let compiler = Compiler { nvcc, cache: cache(work) };
    let kept = Compiler { cache: work.with_extension("original"), ..compiler.clone() };
    let original = emulator::kernels();
    let root = original.parent().ok_or("no parent folder")?;
    let tensor_cores = root.join("tests/emulator/kernels/tensor_cores.cu");
    let mut sources = vec![("F32", tensor_cores.clone(), tensor_cores)];
    for types in ["F32", "BF16"] {
        let source = |file: &&str| (types, original.join(file), work.join(file));
        sources.extend(users(mutant).iter().map(source));
    }
    for (types, before, after) in sources {
        let target = Target { types, arch: "compute_80", contract: true };
        let Ok(text) = compiler.ptx(&after, work, target) else { return Ok(false) };
        if ptx::decode(&text).is_err() {
            return Ok(false);
        }
        let before = kept.ptx(&before, &original, target).map_err(|e| e.to_string())?;
        if instructions(&before) != instructions(&text) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the lines that do not depend on the source's path.
fn instructions(text: &str) -> Vec<&str> {
    let code = |line: &&str| {
        (line.starts_with('\t') || line.starts_with('$'))
            && !line.contains(".file")
            && !line.contains("INTERNAL")
    };
    text.lines().filter(code).collect()
}

fn cache(work: &Path) -> PathBuf {
    work.join("ptx")
}

/// Runs the cases that launch the mutant's kernels.
pub fn try_mutant(mutant: &Mutant, folder: &Path, tests: &Path) -> Result<Outcome, String> {
    copy_kernels(folder)?;
    write_mutant(mutant, folder)?;
    let records = folder.join("records");
    std::fs::write(&records, "").map_err(|e| format!("{}: {e}", records.display()))?;
    let child = Command::new(tests)
        .args(["cases::", "tensor_cores::"])
        .env("PTX_RECORDS", &records)
        .env("PTX_KERNELS", folder)
        .env("PTX_CACHE", cache(folder))
        .env("PTX_FILES", users(mutant).join(","))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{}: {e}", tests.display()))?;
    let outcome = wait(child, PATIENCE)?;
    let notice = read(&records)?;
    let notice = notice.lines().find(|line| line.contains("\"problem\""));
    if let (Outcome::Caught, Some(notice)) = (outcome, notice) {
        // What nvcc writes about a source is no finding of the cases.
        if notice.contains(".cu:\\n") {
            return Err(format!("nvcc failed: {notice}"));
        }
        eprintln!("caught: {}\n    {notice}", mutant.describe());
    }
    Ok(outcome)
}
