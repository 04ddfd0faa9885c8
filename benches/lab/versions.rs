//! Earlier versions of kernels, built as today's are, and what they are run on. Shared by the bench
//! that times them and the test that holds them to today's results.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use lockstep::compile;
use udass_raw::Result;
use udass_raw::device::{
    Arg, Arithmetic, Device, Grid, Kernel, Launcher, Level, Precision, Solo, SoloBody, TensorView,
    Types, kernels,
};
use udass_raw::tensor::Tensor;

mod ops;
#[path = "../../build/solo.rs"]
mod solo;

pub use ops::{Op, Results};

/// As the host device cuts elementwise work.
const ELEMENTS_PER_BLOCK: usize = 8 << 10;

/// A file of this folder.
#[derive(Clone)]
pub struct Version {
    /// `folder/NN_what`.
    pub name: String,
    source: PathBuf,
    /// The kernels that it stands for.
    pub kernels: Vec<String>,
}

/// All of them, by name.
pub fn all() -> Vec<Version> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/lab");
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let folders = list(&lab).into_iter().filter(|path| path.is_dir());
    let sources = folders.flat_map(|folder| list(&folder));
    sources.map(|source| Version::read(&lab, source)).collect()
}

impl Version {
    pub fn folder(&self) -> &str {
        self.name.split_once('/').map_or("", |(folder, _)| folder)
    }

    /// `NN_what`.
    pub fn what(&self) -> &str {
        self.name.split_once('/').map_or("", |(_, what)| what)
    }

    pub fn stands_for(&self, kernel: &str) -> bool {
        self.kernels.iter().any(|name| name == kernel)
    }

    fn read(lab: &Path, source: PathBuf) -> Version {
        let text = std::fs::read_to_string(&source).unwrap();
        let first = text.lines().next().and_then(|line| line.strip_prefix("// Kernels: "));
        let list = first.unwrap_or_else(|| panic!("{}: no list of kernels", source.display()));
        let kernels = list.split(", ").map(Into::into).collect();
        let name = source.strip_prefix(lab).unwrap().with_extension("");
        Version { name: name.to_str().unwrap().into(), source, kernels }
    }

    /// Its kernels by the names of today's, which they replace. They stay until the program ends.
    pub fn build(&self, level: Level) -> HashMap<&'static str, &'static Kernel> {
        let flags = solo::flags("F32", &format!("{level:?}"), "lab");
        // It may go when the library is loaded.
        let folder = tempfile::tempdir().unwrap();
        let (object, library) = (folder.path().join("lab.o"), folder.path().join("lab.so"));
        compile::object_with(&flags, &self.source, &lockstep::kernels(), &object)
            .and_then(|()| compile::link(&[object], &library))
            .unwrap_or_else(|problem| panic!("{problem}"));
        // SAFETY: a library of kernels has no initialisers.
        let library = unsafe { libloading::Library::new(&library) }.unwrap();
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        let replaced = self.kernels.iter().map(|name| {
            let today = kernels::ALL.iter().find(|kernel| kernel.name == name);
            let today = today.unwrap_or_else(|| panic!("there is no kernel {name} any more"));
            // SAFETY: `KERNEL` gives every kernel this signature.
            let body = unsafe { library.get::<SoloBody>(format!("{name}_lab").as_bytes()) };
            let body = *body.unwrap_or_else(|e| panic!("{}: {e}", self.name));
            let solo = Box::leak(Box::new([Solo { types: Types::F32, level: Level::Base, body }]));
            let kernel: &Kernel = Box::leak(Box::new(Kernel { solo, ..**today }));
            (today.name, kernel)
        });
        replaced.collect()
    }
}

/// A launch as an op made it, on copies of its tensors.
pub struct Launch {
    kernel: &'static Kernel,
    grid: Grid,
    words: Vec<u64>,
    /// Those that are written come last.
    tensors: Vec<Tensor>,
}

impl Launch {
    /// The last tensor that it writes.
    pub fn written(&self) -> Tensor {
        self.tensors.last().unwrap().clone()
    }

    /// What is there, on the device that came with the launch.
    pub fn numbers(&self, device: &Device) -> Vec<f64> {
        ops::numbers(device, &self.written())
    }
}

/// Runs kernels on the host, some of them replaced.
#[derive(Clone)]
pub struct Bench {
    arithmetic: Rc<Arithmetic>,
    replaced: Rc<HashMap<&'static str, &'static Kernel>>,
    /// The kernel whose first launch is kept, and the device that its tensors are copied to.
    wanted: Option<(String, Device)>,
    kept: Rc<RefCell<Option<Launch>>>,
    /// Launches of replaced kernels, by name.
    counts: Rc<RefCell<HashMap<&'static str, usize>>>,
}

impl Bench {
    /// With today's kernels.
    pub fn new(threads: usize) -> Bench {
        let arithmetic = Rc::new(Arithmetic::new(threads, Precision::F32).unwrap());
        let (replaced, kept, counts) = Default::default();
        Bench { arithmetic, replaced, wanted: None, kept, counts }
    }

    pub fn level(&self) -> Level {
        self.arithmetic.level()
    }

    /// With a version's in their place.
    pub fn with(&self, version: &Version) -> Bench {
        let replaced = Rc::new(version.build(self.level()));
        Bench { replaced, counts: Rc::default(), ..self.clone() }
    }

    /// What `op` leaves, and how often it launched each replaced kernel.
    pub fn run(&self, op: &Op) -> (Results, HashMap<&'static str, usize>) {
        let results = op.run(&self.device());
        (results, self.counts.take())
    }

    /// The first launch of a kernel by `op`, if it makes one, and the device that its memory is of.
    pub fn launch_of(&self, kernel: &str, op: &Op) -> Option<(Launch, Device)> {
        let home = self.device();
        let wanted = Some((kernel.into(), home.clone()));
        let bench = Bench { wanted, kept: Rc::default(), ..self.clone() };
        op.run(&bench.device());
        Some((bench.kept.take()?, home))
    }

    fn device(&self) -> Device {
        Device::host_launching(Types::F32, Box::new(self.clone())).unwrap()
    }

    /// The same launch once more, of this bench's version of the kernel.
    pub fn again(&self, launch: &Launch) {
        let kernel = self.replaced.get(launch.kernel.name).copied().unwrap_or(launch.kernel);
        // SAFETY: the words were made for the kernel of that name by its launcher, and the tensors
        // among them are alive.
        let done =
            unsafe { self.arithmetic.launch(kernel, Types::F32, launch.grid, &launch.words) };
        done.unwrap();
    }
}

impl Launcher for Bench {
    fn launch(
        &self,
        kernel: &'static Kernel,
        types: Types,
        grid: Grid,
        args: &[Arg],
    ) -> Result<()> {
        let words: Vec<u64> = args.iter().map(|arg| arg.word(types)).collect();
        let replacing = self.replaced.get(kernel.name).copied();
        if replacing.is_some() {
            *self.counts.borrow_mut().entry(kernel.name).or_default() += 1;
        }
        if let Some((wanted, home)) = &self.wanted
            && wanted == kernel.name
            && self.kept.borrow().is_none()
        {
            let (mut words, mut tensors) = (words.clone(), Vec::new());
            for (word, arg) in words.iter_mut().zip(args) {
                if let Arg::Pointer { written, tensor: Some(tensor), .. } = *arg {
                    let copy = copy_to(home, tensor)?;
                    *word = copy.address();
                    tensors.push((written, copy));
                }
            }
            tensors.sort_by_key(|(written, _)| *written);
            let tensors = tensors.into_iter().map(|(_, tensor)| tensor).collect();
            *self.kept.borrow_mut() = Some(Launch { kernel, grid, words, tensors });
        }
        // SAFETY: the words are those of the kernel's own launcher; a version has its signature.
        unsafe { self.arithmetic.launch(replacing.unwrap_or(kernel), types, grid, &words) }
    }

    fn elements_per_block(&self) -> usize {
        ELEMENTS_PER_BLOCK
    }
}

/// A tensor of a host device, on another one.
fn copy_to(home: &Device, tensor: TensorView) -> Result<Tensor> {
    let copy = home.alloc(tensor.shape, tensor.dtype)?;
    // SAFETY: a live tensor in the host's memory, and a new one of as many bytes.
    unsafe {
        let (from, to) = (tensor.address as *const u8, copy.address() as *mut u8);
        std::ptr::copy_nonoverlapping(from, to, tensor.bytes());
    }
    Ok(copy)
}

/// Whether a version's results are as good as today's: nowhere further from the exact ones than
/// twice as far as today's are at worst, and rounding of the largest number once.
pub fn agree(exact: &Results, today: &Results, version: &Results) -> Result<(), String> {
    for ((name, exact), ((_, today), (_, version))) in exact.iter().zip(today.iter().zip(version)) {
        let worst = |got: &[f64]| {
            let differ = got.iter().zip(exact).map(|(g, e)| (g - e).abs());
            let differ = differ.map(|d| if d.is_nan() { f64::INFINITY } else { d });
            differ.fold(0.0, f64::max)
        };
        let largest = exact.iter().fold(0.0, |most: f64, e| most.max(e.abs()));
        let (ours, theirs) = (worst(today), worst(version));
        let bound = 2.0 * ours + f64::from(f32::EPSILON) * largest;
        let fits = exact.len() == version.len() && exact.len() == today.len() && largest > 0.0;
        if !(fits && theirs <= bound) {
            return Err(format!(
                "`{name}` is off by {theirs:e} at worst, where today's is by {ours:e}"
            ));
        }
    }
    Ok(())
}
