//! Where time goes: every call of a device, what it cost, and on whose behalf it was made.

use std::fmt;
use std::rc::Rc;

use super::backend::{Convolution, ConvolutionPass, Job, Product};
use super::launch::{Arg, Element, Grid, Kernel};
use super::{Device, Inner, nvtx};
use crate::Result;
use crate::tensor::DType;

/// What a call asked for.
#[derive(Clone, Debug)]
pub enum Work {
    Kernel(Launch),
    /// rows×depth times depth×cols.
    Product {
        rows: usize,
        depth: usize,
        cols: usize,
    },
    /// B,H,W and channels in and out.
    Convolution {
        pass: &'static str,
        shape: [usize; 5],
    },
    /// Zeroing, copies, transfers.
    Memory(&'static str),
}

/// A launch without its tensors: enough to launch the same again on others.
#[derive(Clone, Debug)]
pub struct Launch {
    pub kernel: &'static Kernel,
    pub grid: Grid,
    pub arguments: Vec<Argument>,
}

/// One argument of a launch.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    Tensor { name: &'static str, element: Element, shape: Vec<usize>, dtype: DType, written: bool },
    Absent,
    I64(i64),
    I32(i32),
    U64(u64),
    Real(f64),
}

/// On whose behalf a call was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The innermost [`Device::scope`].
    pub scope: &'static str,
    /// The innermost [`Device::layer`], by its name in checkpoints; empty outside of any.
    pub layer: Rc<str>,
    /// Whether it is part of the layer's backward.
    pub backward: bool,
}

impl Place {
    /// The scope, and that it is on its way back.
    pub fn pass(&self) -> String {
        on_the_way(self.scope, self.backward)
    }
}

/// A name, and that its backward is meant.
fn on_the_way(name: &str, backward: bool) -> String {
    if backward { format!("{name} backward") } else { name.into() }
}

/// What is wrong with the library of a tool that should watch (`NVTX_INJECTION64_PATH`), which is
/// then left alone.
pub fn tool_problem() -> Option<&'static str> {
    nvtx::attach().as_ref().err().map(String::as_str)
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    pub work: Work,
    pub place: Place,
    /// When the device began it, in seconds from the first call on.
    pub start: f64,
    pub seconds: f64,
    /// Of the tensors handed over: what is touched at least, were each read or written once.
    pub bytes: f64,
    /// Of products, convolutions and the kernels whose grid tells them.
    pub flops: f64,
}

/// What [`Device::profile`] saw, in order.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// From the first call's beginning to the last one's end.
    pub seconds: f64,
    pub calls: Vec<Call>,
}

/// Calls as they are recorded: their times are marks of the backend.
#[derive(Default)]
pub(super) struct Recorder(Vec<(Call, [u64; 2])>);

impl Device {
    /// Runs `f` and times all that it asks of the device. A profile within a profile takes all: the
    /// outer one sees nothing of it.
    ///
    /// # Errors
    /// Where the device cannot tell the time.
    pub fn profile<R>(&self, f: impl FnOnce() -> R) -> Result<(R, Profile)> {
        let inner = &self.0;
        inner.backend.synchronize()?;
        let outer = inner.profile.replace(Some(Recorder::default()));
        let result = f();
        let seen = inner.profile.replace(outer).unwrap_or_default();
        inner.backend.synchronize()?;
        let mut calls = Vec::with_capacity(seen.0.len());
        let mut first = None;
        for (call, [begin, end]) in seen.0 {
            let (begin, end) = (inner.backend.seconds(begin)?, inner.backend.seconds(end)?);
            let zero = *first.get_or_insert(begin);
            calls.push(Call { start: begin - zero, seconds: end - begin, ..call });
        }
        inner.backend.forget_marks();
        let seconds = calls.last().map_or(0.0, |call| call.start + call.seconds);
        Ok((result, Profile { seconds, calls }))
    }

    /// What `f` asks for is charged to a layer, and a range for tools that watch (NVTX): `name` as
    /// checkpoints have it, asked only where somebody wants to know.
    pub fn layer<R>(&self, name: impl FnOnce() -> Rc<str>, f: impl FnOnce() -> R) -> R {
        if !self.is_asked() {
            return f();
        }
        let backward = self.0.layer.borrow().1;
        self.charging((name(), backward), f)
    }

    /// The layer that is charged now, for its backward; none where nobody asks.
    pub(crate) fn current_layer(&self) -> Option<Rc<str>> {
        self.is_asked().then(|| self.0.layer.borrow().0.clone())
    }

    fn is_asked(&self) -> bool {
        nvtx::is_watched() || self.0.profile.borrow().is_some()
    }

    /// `f` is the way back of the innermost scope: a range alone, as calls are charged by layers.
    pub(crate) fn way_back<R>(&self, f: impl FnOnce() -> R) -> R {
        let _range = nvtx::range(|| on_the_way(self.0.holder.get(), true));
        f()
    }

    /// What `f` asks for is charged to the backward of what [`current_layer`](Self::current_layer)
    /// told.
    pub(crate) fn backward_of<R>(&self, layer: &Option<Rc<str>>, f: impl FnOnce() -> R) -> R {
        match layer {
            Some(layer) => self.charging((layer.clone(), true), f),
            None => f(),
        }
    }

    fn charging<R>(&self, layer: (Rc<str>, bool), f: impl FnOnce() -> R) -> R {
        let (name, backward) = &layer;
        let _range = (!name.is_empty()).then(|| nvtx::range(|| on_the_way(name, *backward)));
        let before = self.0.layer.replace(layer);
        let result = f();
        self.0.layer.replace(before);
        result
    }

    /// Makes one call, timed if somebody asked. `describe` is called only then: what it is, its
    /// bytes and its FLOPs.
    pub(super) fn timed(
        &self,
        describe: impl FnOnce() -> (Work, f64, f64),
        run: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let Inner { profile, backend, holder, layer, .. } = &*self.0;
        if profile.borrow().is_none() {
            return run();
        }
        let (work, bytes, flops) = describe();
        let (layer, backward) = layer.borrow().clone();
        let place = Place { scope: holder.get(), layer, backward };
        let call = Call { work, place, start: 0.0, seconds: 0.0, bytes, flops };
        let begin = backend.mark()?;
        run()?;
        let end = backend.mark()?;
        if let Some(recorder) = profile.borrow_mut().as_mut() {
            recorder.0.push((call, [begin, end]));
        }
        Ok(())
    }
}

pub(super) fn launch(kernel: &'static Kernel, grid: Grid, args: &[Arg]) -> (Work, f64, f64) {
    let arguments: Vec<Argument> = (args.iter())
        .map(|arg| match *arg {
            Arg::Pointer { name, element, written, tensor: Some(tensor) } => {
                let (shape, dtype) = (tensor.shape().to_vec(), tensor.dtype());
                Argument::Tensor { name, element, shape, dtype, written }
            }
            Arg::Pointer { .. } => Argument::Absent,
            Arg::I64(x) => Argument::I64(x),
            Arg::I32(x) => Argument::I32(x),
            Arg::U64(x) => Argument::U64(x),
            Arg::Real(x) => Argument::Real(x),
        })
        .collect();
    let all = || arguments.iter().map(Argument::bytes).sum::<usize>() as u64;
    let bytes = grid.part.unwrap_or_else(all) as f64;
    (Work::Kernel(Launch { kernel, grid, arguments }), bytes, grid.flops as f64)
}

pub(super) fn job(job: &Job) -> (Work, f64, f64) {
    match job {
        Job::Product(p) => product(p),
        Job::Convolution(c) => convolution(c),
    }
}

fn product(p: &Product) -> (Work, f64, f64) {
    let (rows, depth, cols) = (p.out.rows, p.a.cols, p.out.cols);
    let operands = (rows * depth + depth * cols) * p.a.dtype.bytes();
    let bytes = operands + rows * cols * p.out.dtype.bytes();
    let flops = 2.0 * (rows * depth) as f64 * cols as f64;
    (Work::Product { rows, depth, cols }, bytes as f64, flops)
}

fn convolution(c: &Convolution) -> (Work, f64, f64) {
    let pass = match c.pass {
        ConvolutionPass::Forward { .. } => "forward",
        ConvolutionPass::Data { .. } => "data",
        ConvolutionPass::Filter { .. } => "filter",
    };
    let elements = c.elements();
    let bytes = elements.iter().sum::<usize>() * c.dtype.bytes();
    let shape = [c.batch, c.height, c.width, c.channels, c.filters];
    let pixels = (c.batch * c.height * c.width) as f64;
    (Work::Convolution { pass, shape }, bytes as f64, 2.0 * pixels * elements[1] as f64)
}

pub(super) fn memory(what: &'static str, bytes: usize) -> (Work, f64, f64) {
    (Work::Memory(what), bytes as f64, 0.0)
}

impl Argument {
    fn bytes(&self) -> usize {
        match self {
            Argument::Tensor { shape, dtype, .. } => {
                shape.iter().product::<usize>() * dtype.bytes()
            }
            _ => 0,
        }
    }
}

impl Work {
    /// Without the shape.
    pub fn name(&self) -> String {
        match self {
            Work::Kernel(launch) => launch.kernel.name.into(),
            Work::Memory(name) => (*name).into(),
            Work::Product { .. } => "product".into(),
            Work::Convolution { pass, .. } => format!("convolution_{pass}"),
        }
    }

    /// Sizes: of a kernel, its largest tensor's.
    pub fn shape(&self) -> String {
        match self {
            Work::Kernel(launch) => launch.shape(),
            Work::Product { rows, depth, cols } => joined(&[*rows, *depth, *cols]),
            Work::Convolution { shape, .. } => joined(shape),
            Work::Memory(_) => String::new(),
        }
    }
}

impl Launch {
    /// That of its largest tensor, the first of equals.
    pub fn shape(&self) -> String {
        let mut largest: &[usize] = &[];
        for argument in &self.arguments {
            if let Argument::Tensor { shape, .. } = argument
                && shape.iter().product::<usize>() > largest.iter().product()
            {
                largest = shape;
            }
        }
        joined(largest)
    }
}

fn joined(sizes: &[usize]) -> String {
    sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.shape())
    }
}
