//! A device that checks every launch in the block emulator before making it.

use std::io::Write;

use emulator::{Argument, Build, Launch, Library, Value};
use udass_raw::device::{Arg, ArgElement, Device, Grid, Kernel, Launcher, Types};
use udass_raw::{Error, Result};

/// Environment variables that replay given block sizes, separated by commas, and one schedule.
pub const THREADS: &str = "EMULATOR_THREADS";
pub const SEED: &str = "EMULATOR_SEED";
/// Names a file to which the names of launched kernels are appended.
pub const LIST: &str = "EMULATOR_LIST";
/// Names a library that replaces some kernel files, and those files; the process ends at the first
/// fault.
pub const LIBRARY: &str = "EMULATOR_LIBRARY";
pub const FILE: &str = "EMULATOR_FILE";

/// Run in addition to the size that the op requests.
const BLOCK_SIZES: [usize; 7] = [1, 32, 33, 64, 128, 256, 1024];
const SCHEDULES: u64 = 2;

pub fn device(types: Types) -> Device {
    Device::host_launching(types, Box::new(Prover::new(types))).unwrap()
}

/// Converts an argument for the block emulator.
pub fn value(types: Types, arg: &Arg) -> Value {
    match *arg {
        Arg::Pointer { tensor: None, .. } => Value::Null,
        Arg::Pointer { name, element, written, tensor: Some(tensor) } => Value::Pointer(Argument {
            name,
            address: tensor.address,
            bytes: tensor.bytes(),
            element: tensor.dtype.bytes(),
            written,
            operand: element == ArgElement::Operand,
        }),
        _ => Value::Word(arg.word(types)),
    }
}

/// Runs every launch in the block emulator alone, with `threads` threads per block.
struct Watcher {
    library: Library,
    /// Kernels that [`concerns`] excludes.
    others: Library,
    threads: usize,
}

impl Launcher for Watcher {
    fn launch(&self, kernel: &'static Kernel, types: Types, g: Grid, args: &[Arg]) -> Result<()> {
        let values = args.iter().map(|arg| value(types, arg)).collect();
        let Kernel { name: kernel, file, .. } = *kernel;
        let (blocks, shared) = (g.blocks, g.shared);
        let launch = Launch { kernel, values, blocks, shared, bf16: false };
        let library = if concerns(file) { &self.library } else { &self.others };
        emulator::watch(library, &launch, self.threads, 1).map_err(|e| Error::device(e.to_string()))
    }

    fn elements_per_block(&self) -> usize {
        100
    }
}

/// Returns a device whose launches run in the block emulator, in blocks of `threads`.
pub fn watched(types: Types, threads: usize) -> Device {
    let name = format!("{types:?}").to_uppercase();
    let library = emulated(&name);
    let built = emulator::built(&name, Build::Emulated);
    let others = Library::open(&built, Build::Emulated).unwrap();
    let watcher = Watcher { library, others, threads };
    Device::host_launching(types, Box::new(watcher)).unwrap()
}

/// Returns whether the kernels do not exist in bf16: a library that replaces them is built in
/// single and in double precision only.
pub fn single_only() -> bool {
    variable(LIBRARY).is_some()
}

struct Prover {
    types: Types,
    /// Built for the device's types and, in single precision, for bf16 as well.
    kernels: Kernels,
    bf16: Option<Kernels>,
}

struct Kernels {
    emulator: Library,
    reference: Library,
}

impl Kernels {
    fn new(types: &str) -> Kernels {
        let ordered = emulator::built(types, Build::Ordered);
        let reference = Library::open(&ordered, Build::Ordered).unwrap();
        Kernels { emulator: emulated(types), reference }
    }
}

/// Opens the emulated kernels, or the library that replaces them.
pub fn emulated(types: &str) -> Library {
    let path = match variable(LIBRARY) {
        Some(path) => path.replace("{types}", types).into(),
        None => emulator::built(types, Build::Emulated),
    };
    Library::open(&path, Build::Emulated).unwrap()
}

/// Returns whether kernels of this file run in the block emulator.
pub fn concerns(file: &str) -> bool {
    variable(FILE).is_none_or(|files| files.split(',').any(|f| f == file))
}

/// Returns an environment variable, if it is set.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Prover {
    fn new(types: Types) -> Prover {
        Prover {
            types,
            kernels: Kernels::new(&format!("{types:?}")),
            bf16: (types == Types::F32 && variable(LIBRARY).is_none())
                .then(|| Kernels::new("BF16")),
        }
    }

    fn prove(&self, kernels: &Kernels, launch: &Launch, production: usize) -> Result<()> {
        let mut sizes = BLOCK_SIZES.to_vec();
        if !sizes.contains(&production) {
            sizes.push(production);
        }
        if let Some(threads) = variable(THREADS) {
            sizes = threads.split(',').map(|n| n.parse().unwrap()).collect();
        }
        let seeds = match variable(SEED) {
            Some(seed) => vec![seed.parse().unwrap()],
            None => (1..=SCHEDULES).collect(),
        };
        for &threads in &sizes {
            // Tensor cores round differently; attention_mma.rs checks those kernels within bounds.
            let rounded = launch.kernel.contains("_mma_") && threads % 32 == 0;
            for &seed in &seeds {
                let result = match rounded && self.types != Types::F64 {
                    true => emulator::watch(&kernels.emulator, launch, threads, seed),
                    false => {
                        let Kernels { emulator, reference } = kernels;
                        emulator::compare(emulator, reference, launch, threads, seed)
                    }
                };
                if result.is_err() && variable(LIBRARY).is_some() {
                    std::process::exit(1);
                }
                result.map_err(|problem| {
                    Error::device(format!(
                        "{problem}\n  in blocks of {threads} threads; to see it again: \
                         {THREADS}={threads} {SEED}={seed} cargo test --release --test emulator"
                    ))
                })?;
            }
        }
        Ok(())
    }
}

impl Launcher for Prover {
    fn launch(
        &self,
        kernel: &'static Kernel,
        _types: Types,
        grid: Grid,
        args: &[Arg],
    ) -> Result<()> {
        if let Some(list) = variable(LIST) {
            let file = std::fs::OpenOptions::new().append(true).open(list);
            file.and_then(|mut file| file.write_all(format!("{}\n", kernel.name).as_bytes()))
                .map_err(|e| Error::device(e.to_string()))?;
        }
        let mut launch = Launch {
            kernel: kernel.name,
            values: args.iter().map(|arg| value(self.types, arg)).collect(),
            blocks: grid.blocks,
            shared: grid.shared,
            bf16: false,
        };
        let production = grid.threads as usize;
        if concerns(kernel.file) {
            self.prove(&self.kernels, &launch, production)?;
            if let Some(bf16) = self.bf16.as_ref().filter(|_| launch.can_be_bf16()) {
                launch.bf16 = true;
                self.prove(bf16, &launch, production)?;
                launch.bf16 = false;
            }
        }
        let performed = emulator::perform(&self.kernels.reference, &launch, production);
        performed.map_err(|e| Error::device(e.to_string()))
    }

    /// Small, so that tests of odd sizes fill several blocks.
    fn elements_per_block(&self) -> usize {
        100
    }
}
