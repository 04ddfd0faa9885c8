//! Where time goes: calls, seconds and rates of everything a device was asked to do.

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use super::Device;
use super::backend::{Convolution, ConvolutionPass, Product};
use super::launch::Arg;
use crate::Result;

/// A kind of work, as a profile tells them apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    Kernel(&'static str),
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

/// What one kind of work cost in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    pub calls: u64,
    pub seconds: f64,
    /// Of the tensors handed over: what is touched at least, were each read or written once.
    pub bytes: f64,
    /// Of products and convolutions alone.
    pub flops: f64,
}

/// What [`Device::profile`] saw. Shown, it is a table by kernel and one of the slowest shapes.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// From beginning to end, what lies between the calls included.
    pub seconds: f64,
    pub work: HashMap<Work, Cost>,
}

/// Rows of each table.
const ROWS: usize = 40;

impl Device {
    /// Runs `f` and times all it asks of the device, waiting for the device around every piece. A
    /// profile within a profile sees nothing of it afterwards: the inner one takes it all.
    pub fn profile<R>(&self, f: impl FnOnce() -> R) -> (R, Profile) {
        let outer = self.0.profile.replace(Some(Profile::default()));
        let start = Instant::now();
        let result = f();
        let seconds = start.elapsed().as_secs_f64();
        let seen = self.0.profile.replace(outer).unwrap_or_default();
        (result, Profile { seconds, ..seen })
    }

    /// Runs one piece of work, timed if somebody asked. `describe` is called only then.
    pub(super) fn timed(
        &self,
        describe: impl FnOnce() -> (Work, Cost),
        run: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.0.profile.borrow().is_none() {
            return run();
        }
        let (work, cost) = describe();
        self.0.backend.synchronize()?;
        let start = Instant::now();
        run()?;
        self.0.backend.synchronize()?;
        let seconds = start.elapsed().as_secs_f64();
        if let Some(profile) = self.0.profile.borrow_mut().as_mut() {
            profile.work.entry(work).or_default().add(&Cost { seconds, ..cost });
        }
        Ok(())
    }
}

pub(super) fn launch(name: &'static str, args: &[Arg]) -> (Work, Cost) {
    let bytes = |arg: &Arg| match arg {
        Arg::Pointer { tensor: Some(tensor), .. } => tensor.bytes() as f64,
        _ => 0.0,
    };
    (Work::Kernel(name), Cost::once(args.iter().map(bytes).sum(), 0.0))
}

pub(super) fn product(p: &Product) -> (Work, Cost) {
    let (rows, depth, cols) = (p.out.rows, p.a.cols, p.out.cols);
    let operands = (rows * depth + depth * cols) * p.a.dtype.bytes();
    let bytes = operands + rows * cols * p.out.dtype.bytes();
    let flops = 2.0 * (rows * depth) as f64 * cols as f64;
    (Work::Product { rows, depth, cols }, Cost::once(bytes as f64, flops))
}

pub(super) fn convolution(c: &Convolution) -> (Work, Cost) {
    let pass = match c.pass {
        ConvolutionPass::Forward { .. } => "forward",
        ConvolutionPass::Data { .. } => "data",
        ConvolutionPass::Filter { .. } => "filter",
    };
    let pixels = c.batch * c.height * c.width;
    let filter = c.kernel * c.kernel * c.channels * c.filters;
    let bytes = (pixels * (c.channels + c.filters) + filter) * c.dtype.bytes();
    let shape = [c.batch, c.height, c.width, c.channels, c.filters];
    let flops = 2.0 * pixels as f64 * filter as f64;
    (Work::Convolution { pass, shape }, Cost::once(bytes as f64, flops))
}

pub(super) fn memory(what: &'static str, bytes: usize) -> (Work, Cost) {
    (Work::Memory(what), Cost::once(bytes as f64, 0.0))
}

impl Work {
    /// Without the shape.
    pub fn name(&self) -> String {
        match self {
            Work::Kernel(name) | Work::Memory(name) => (*name).into(),
            Work::Product { .. } => "product".into(),
            Work::Convolution { pass, .. } => format!("convolution {pass}"),
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Product { rows, depth, cols } => write!(f, "product {rows}x{depth}x{cols}"),
            Work::Convolution { shape: [b, h, w, c, k], .. } => {
                write!(f, "{} {b}x{h}x{w} {c}->{k}", self.name())
            }
            _ => f.write_str(&self.name()),
        }
    }
}

impl Cost {
    fn once(bytes: f64, flops: f64) -> Cost {
        Cost { calls: 1, seconds: 0.0, bytes, flops }
    }

    fn add(&mut self, other: &Cost) {
        self.calls += other.calls;
        self.seconds += other.seconds;
        self.bytes += other.bytes;
        self.flops += other.flops;
    }
}

impl Profile {
    /// Of two profiles of the same work, for each kind the faster: what others on the machine took
    /// away is then mostly left out.
    pub fn fastest(mut self, other: Profile) -> Profile {
        for (work, cost) in other.work {
            let kept = self.work.entry(work).or_insert(cost);
            if cost.seconds < kept.seconds {
                *kept = cost;
            }
        }
        Profile { seconds: self.seconds.min(other.seconds), ..self }
    }

    /// Costs by name, the slowest first.
    pub fn by_name(&self) -> Vec<(String, Cost)> {
        let mut sums: HashMap<String, Cost> = HashMap::new();
        for (work, cost) in &self.work {
            sums.entry(work.name()).or_default().add(cost);
        }
        slowest_first(sums.into_iter().collect())
    }

    /// Costs of products and convolutions by shape, the slowest first.
    pub fn by_shape(&self) -> Vec<(String, Cost)> {
        let shaped = |work: &Work| matches!(work, Work::Product { .. } | Work::Convolution { .. });
        let list = self.work.iter().filter(|(work, _)| shaped(work));
        slowest_first(list.map(|(work, cost)| (work.to_string(), *cost)).collect())
    }

    /// Seconds inside the device's calls.
    pub fn inside(&self) -> f64 {
        self.work.values().map(|cost| cost.seconds).sum()
    }
}

fn slowest_first(mut list: Vec<(String, Cost)>) -> Vec<(String, Cost)> {
    list.sort_by(|(a, x), (b, y)| y.seconds.total_cmp(&x.seconds).then_with(|| a.cmp(b)));
    list
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inside = self.inside();
        let calls: u64 = self.work.values().map(|cost| cost.calls).sum();
        writeln!(
            f,
            "{:.1} ms, of it {:.1} ms in {calls} calls to the device",
            self.seconds * 1e3,
            inside * 1e3
        )?;
        for list in [self.by_name(), self.by_shape()] {
            let heads = ["calls", "ms", "share", "us/call", "GB/s", "GFLOP/s"];
            let [calls, ms, share, each, bytes, flops] = heads;
            writeln!(f, "{:36}{calls:>7}{ms:>10}{share:>8}{each:>10}{bytes:>8}{flops:>9}", "")?;
            for (name, cost) in list.iter().take(ROWS) {
                let per_second = |amount: f64| amount / cost.seconds.max(1e-9) * 1e-9;
                write!(
                    f,
                    "{name:36}{:>7}{:>10.2}{:>7.1}%{:>10.1}{:>8.2}",
                    cost.calls,
                    cost.seconds * 1e3,
                    100.0 * cost.seconds / inside.max(1e-9),
                    cost.seconds * 1e6 / cost.calls.max(1) as f64,
                    per_second(cost.bytes),
                )?;
                match cost.flops > 0.0 {
                    true => writeln!(f, "{:>9.1}", per_second(cost.flops))?,
                    false => writeln!(f)?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
