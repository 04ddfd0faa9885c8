//! A device that executes every launch as PTX, compares the results with the serial build's, and
//! then makes the launch with the serial build, so that the case goes on.

use std::sync::LazyLock;

use emulator::{Library, Value};
use ptx::{Approximation, Memory, Options, Statistics, Target, Tensor};
use udass_raw::device::{Arg, Device, Grid, Kernel, Launcher, Precision, Types};
use udass_raw::{Error, Result};

use crate::compare;
use crate::memory::{Copied, copies, words};
use crate::programs::{self, name_of};
use crate::records;

/// Names the kernel files that are executed; the others run as serial builds. The process ends at
/// the first problem.
pub const FILES: &str = "PTX_FILES";

/// Kernels that call the C library's logarithm where CUDA's header has another one.
const LOGARITHMS: [&str; 6] = [
    "attention_forward",
    "attention_mma_forward",
    "contrast_bank_rows",
    "contrast_regularizer",
    "contrast_rows",
    "cross_entropy_rows",
];

/// Builds of all number types, to compare with.
struct References {
    f32: Library,
    bf16: Library,
    f64: Library,
}

impl References {
    fn new() -> References {
        let [f32, bf16, f64] = [Types::F32, Types::Bf16, Types::F64].map(programs::reference);
        References { f32, bf16, f64 }
    }

    fn of(&self, types: Types) -> &Library {
        match types {
            Types::F32 => &self.f32,
            Types::Bf16 => &self.bf16,
            Types::F64 => &self.f64,
        }
    }
}

struct Prover {
    references: References,
    types: Types,
    /// Replaces the block size that the op requests.
    threads: Option<u32>,
    /// The results of the PTX are the launch's.
    keeps: bool,
}

/// Returns whether this process is the one that runs the cases as PTX.
fn is_recording() -> bool {
    std::env::var_os(records::RECORDS).is_some()
}

/// Returns a device for the cases. In the process of the tests themselves, it is the plain host.
pub fn device(types: Types) -> Device {
    match (is_recording(), types) {
        (true, _) => launching(types, None, false),
        (false, Types::F64) => Device::host_f64().unwrap(),
        (false, Types::F32) => Device::host(1).unwrap(),
        (false, Types::Bf16) => Device::host_in(1, Precision::Bf16).unwrap(),
    }
}

/// Returns a device whose results are those of the PTX, in blocks of `threads`.
pub fn watched(types: Types, threads: usize) -> Device {
    match is_recording() {
        true => launching(types, Some(threads as u32), true),
        false => device(types),
    }
}

/// Returns whether only single precision can be built.
pub fn single_only() -> bool {
    false
}

fn launching(types: Types, threads: Option<u32>, keeps: bool) -> Device {
    let prover = Prover { references: References::new(), types, threads, keeps };
    Device::host_launching(types, Box::new(prover)).unwrap()
}

/// Executes a launch on the copies' contents, and returns those that it leaves.
fn execute(
    kernel: &'static Kernel,
    types: Types,
    target: Target,
    grid: Grid,
    args: &[Arg],
    before: &[Copied],
    approximation: Approximation,
) -> std::result::Result<(Vec<Copied>, Statistics), String> {
    let program = programs::program(kernel, target)?;
    let mut memory = Memory::default();
    let tensor = |copy: &Copied| Tensor {
        name: copy.name.clone(),
        bytes: copy.content.encode(),
        element: copy.element(),
        written: copy.written,
        misalignment: copy.misalignment(),
    };
    let addresses: Vec<u64> = before.iter().map(|copy| memory.add(tensor(copy))).collect();
    let launch = ptx::Launch {
        program: &program,
        arguments: &words(args, types, before, &addresses),
        blocks: grid.blocks as u32,
        threads: grid.threads,
        shared: grid.shared as u32,
    };
    let options = Options { approximation, ..Options::default() };
    let statistics = ptx::run(&mut memory, &launch, options).map_err(|e| e.to_string())?;
    let after = before.iter().enumerate();
    let after = after.map(|(index, copy)| copy.holding(memory.contents(index)));
    Ok((after.collect(), statistics))
}

/// Bytes that the serial build's memory is aligned to, as the arena's tensors are at least.
const LINE: usize = 64;

/// Memory of the serial build.
#[repr(C, align(64))]
struct Line([u8; LINE]);

impl Line {
    fn holding(bytes: &[u8]) -> Line {
        let mut line = [0; LINE];
        line[..bytes.len()].copy_from_slice(bytes);
        Line(line)
    }
}

/// Runs the serial build on the copies' contents, and returns those that it leaves.
fn serial(
    library: &Library,
    kernel: &'static Kernel,
    types: Types,
    grid: Grid,
    args: &[Arg],
    before: &[Copied],
) -> std::result::Result<Vec<Copied>, String> {
    let mut storage: Vec<Vec<Line>> = (before.iter())
        .map(|copy| copy.content.encode().chunks(LINE).map(Line::holding).collect())
        .collect();
    let addresses: Vec<u64> = storage.iter_mut().map(|lines| lines.as_mut_ptr() as u64).collect();
    let values = words(args, types, before, &addresses).into_iter().map(Value::Word).collect();
    perform(library, kernel, grid, values).map_err(|e| e.to_string())?;
    let after = before.iter().zip(&storage).map(|(copy, lines)| {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| line.0).collect();
        copy.holding(&bytes[..copy.content.encode().len()])
    });
    Ok(after.collect())
}

fn perform(
    library: &Library,
    kernel: &'static Kernel,
    grid: Grid,
    values: Vec<Value>,
) -> std::result::Result<(), emulator::Error> {
    let Grid { blocks, threads, shared, .. } = grid;
    let launch = emulator::Launch { kernel: kernel.name, values, blocks, shared, bf16: false };
    emulator::perform(library, &launch, threads as usize)
}

impl Prover {
    /// Executes a launch in one precision: as compiled for production, and without contraction.
    fn prove(
        &self,
        kernel: &'static Kernel,
        types: Types,
        grid: Grid,
        args: &[Arg],
        before: &[Copied],
    ) -> std::result::Result<(Vec<Copied>, Statistics), String> {
        let first = programs::ARCHITECTURES[0];
        let target = |arch, contract| Target { types: name_of(types), arch, contract };
        let program = programs::program(kernel, target(first, true))?;
        let by_serial = serial(self.references.of(types), kernel, types, grid, args, before)?;

        let wide: Vec<Copied> = before.iter().map(Copied::widened).collect();
        // Its numbers take twice the shared memory.
        let doubled = Grid { shared: 2 * grid.shared, ..grid };
        let double = self.references.of(Types::F64);
        let exact = serial(double, kernel, Types::F64, doubled, args, &wide)?;
        let (worst, nearest) = (Approximation::Worst, Approximation::Nearest);
        let mut results = Vec::new();
        for arch in programs::architectures(kernel.file, types)? {
            let target = target(arch, true);
            let (after, statistics) = execute(kernel, types, target, grid, args, before, worst)?;
            if !program.uses_tensor_cores() {
                compare::within(&after, &by_serial, &exact, program.approximates())
                    .map_err(|problem| format!("{}: {problem}", program.name))?;
            }
            results.push((after, statistics));
        }

        let excepted = program.approximates()
            || program.uses_tensor_cores()
            || LOGARITHMS.contains(&kernel.name);
        if !excepted {
            let target = target(first, false);
            let (after, _) = execute(kernel, types, target, grid, args, before, nearest)?;
            compare::exactly(&after, &by_serial)
                .map_err(|problem| format!("{} without contraction: {problem}", program.name))?;
        }
        // The counts are those of the oldest architecture.
        Ok(results.swap_remove(0))
    }
}

/// Returns whether the op would make this launch on a GPU: tensor cores take heads of 32 or 64
/// numbers, but the launchers' cases call the portable body with others.
fn is_for_gpu(kernel: &Kernel, args: &[Arg]) -> bool {
    let size = kernel.parameters.iter().position(|parameter| parameter.name == "head_dim");
    match size.and_then(|at| args.get(at)) {
        Some(Arg::I64(size)) if kernel.name.contains("_mma_") => matches!(size, 32 | 64),
        _ => true,
    }
}

/// Returns whether kernels of this file are executed as PTX.
fn concerns(file: &str) -> bool {
    static FILES_OF_RUN: LazyLock<Option<Vec<String>>> = LazyLock::new(|| {
        let files = std::env::var(FILES).ok()?;
        Some(files.split(',').map(String::from).collect())
    });
    FILES_OF_RUN.as_ref().is_none_or(|files| files.iter().any(|known| known == file))
}

impl Launcher for Prover {
    fn launch(
        &self,
        kernel: &'static Kernel,
        types: Types,
        grid: Grid,
        args: &[Arg],
    ) -> Result<()> {
        let grid = Grid { threads: self.threads.unwrap_or(grid.threads), ..grid };
        let values = || args.iter().map(|arg| Value::Word(arg.word(types))).collect();
        let ordinary = || perform(self.references.of(self.types), kernel, grid, values());
        let precisions = match self.keeps {
            true => vec![types],
            false => vec![Types::F32, Types::Bf16],
        };
        let executed = concerns(kernel.file) && is_for_gpu(kernel, args);
        for precision in precisions.into_iter().filter(|_| executed) {
            // In bf16, arguments that share memory may have different types.
            let Some(before) = copies(args, precision) else { continue };
            let result = self.prove(kernel, precision, grid, args, &before);
            let problem = result.as_ref().err().cloned();
            let verdict = result.as_ref().map(|(_, statistics)| statistics.clone());
            records::append(kernel.name, precision, &verdict.map_err(Clone::clone));
            if problem.is_some() && std::env::var_os(FILES).is_some() {
                std::process::exit(1);
            }
            if let (true, Ok((after, _))) = (self.keeps, result) {
                after.iter().filter(|copy| copy.written).for_each(Copied::write_back);
                return Ok(());
            }
        }
        ordinary().map_err(|e| Error::device(e.to_string()))
    }

    /// Small, so that tests of odd sizes fill several blocks.
    fn elements_per_block(&self) -> usize {
        300
    }
}
