//! Tests how much memory an iteration takes at full size, with and without CUDA graphs, on a GPU
//! that computes nothing.

use std::cell::Cell;

use udass_raw::config::Config;
use udass_raw::data::{Batch, Crops, RareCrops};
use udass_raw::device::cuda::{Algorithm, Driver, Event, Graph, Launch, Memory, Stream};
use udass_raw::device::{Device, LibraryOp, MemoryReport, Types};
use udass_raw::run::train::initial_state;
use udass_raw::{Error, Result};

/// Hands out addresses with no memory behind them. Everything reads as 0.
#[derive(Default)]
struct Idle {
    allocated: Cell<usize>,
    events: Cell<u64>,
}

const TOTAL: usize = 80 << 30;
/// The cuDNN workspace that a ResNet's and the decoder's convolutions want, and the most that a
/// matmul may use.
const WORKSPACE: [usize; 2] = [80 << 20, 32 << 20];

impl Driver for Idle {
    fn describe(&self) -> String {
        "a GPU that computes nothing".into()
    }

    fn memory(&self) -> Result<Memory> {
        Ok(Memory { free: TOTAL - self.allocated.get(), total: TOTAL })
    }

    fn multiprocessors(&self) -> Option<usize> {
        Some(132)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let taken = self.allocated.get();
        if bytes > TOTAL - taken {
            return Err(Error::OutOfMemory("nothing is left".into()));
        }
        self.allocated.set(taken + bytes);
        // Allocations are not neighbors.
        Ok((1 << 40) + (2 * taken) as u64)
    }

    fn free(&self, _: u64) -> Result<()> {
        Ok(())
    }

    fn allocate_host(&self, _: usize) -> Result<u64> {
        Ok(1 << 50)
    }

    fn free_host(&self, _: u64) -> Result<()> {
        Ok(())
    }

    fn write_host(&self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn read_host(&self, _: u64, data: &mut [u8]) -> Result<()> {
        data.fill(0);
        Ok(())
    }

    fn stream(&self) -> Result<Stream> {
        Ok(Stream(0))
    }

    fn side_stream(&self) -> Result<Stream> {
        Ok(Stream(1))
    }

    fn copy_in(&self, _: Stream, _: u64, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    fn copy_out(&self, _: Stream, _: u64, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    fn copy(&self, _: Stream, _: u64, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    fn zero(&self, _: Stream, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    fn launch(&self, _: Stream, _: &Launch) -> Result<()> {
        Ok(())
    }

    fn rounds_operands(&self) -> bool {
        false
    }

    fn algorithms(&self, op: &LibraryOp) -> Result<Vec<Algorithm>> {
        let workspace = WORKSPACE[usize::from(matches!(op, LibraryOp::Matmul(_)))];
        Ok(vec![Algorithm { name: "only".into(), workspace }])
    }

    fn compute(&self, _: Stream, _: &LibraryOp, _: usize, _: u64) -> Result<()> {
        Ok(())
    }

    fn event(&self) -> Result<Event> {
        Ok(Event(self.events.replace(self.events.get() + 1)))
    }

    fn record(&self, _: Stream, _: Event) -> Result<()> {
        Ok(())
    }

    fn hold(&self, _: Stream, _: Event) -> Result<()> {
        Ok(())
    }

    fn passed(&self, _: Event) -> Result<bool> {
        Ok(true)
    }

    fn wait(&self, _: Event) -> Result<()> {
        Ok(())
    }

    fn elapsed(&self, _: Event, _: Event) -> Result<f64> {
        Ok(0.0)
    }

    fn synchronize(&self, _: Stream) -> Result<()> {
        Ok(())
    }

    fn is_captured(&self, _: Stream) -> Result<bool> {
        Ok(false)
    }

    fn begin_capture(&self, _: Stream) -> Result<()> {
        Ok(())
    }

    fn end_capture(&self, _: Stream) -> Result<Graph> {
        Ok(Graph(0))
    }

    fn replay(&self, _: Stream, _: Graph) -> Result<()> {
        Ok(())
    }

    fn discard(&self, _: Graph) {}
}

/// A batch with tensors of the right sizes and no content.
fn batch(config: &Config, rare: bool) -> Batch {
    let (n, s) = (config.data.batch, config.data.crop);
    let crops = |n: usize| Crops {
        batch: n,
        size: s,
        rgb: vec![0; n * s * s * 3],
        label: vec![0; n * s * s],
        ..Crops::default()
    };
    Batch {
        source: crops(n),
        target: Crops { label: Vec::new(), ..crops(n) },
        valid: vec![1; n * s * s],
        rare: rare.then(|| RareCrops { classes: [3, 4], crops: crops(4 * n) }),
        ..Batch::default()
    }
}

/// Returns the peak memory of six iterations, three in each phase.
fn memory(preset: &str, sets: &[&str]) -> MemoryReport {
    let own = ["weights.init=random", "quadmix.start=3"];
    let sets: Vec<String> = own.iter().chain(sets).map(|set| set.to_string()).collect();
    let config = Config::load(preset, &sets).unwrap();
    let device = Device::cuda_through(Types::F32, Box::new(Idle::default())).unwrap();
    let mut training = initial_state::build(&config, &device, None).unwrap();
    for iteration in 0..6 {
        let batch = batch(&config, iteration >= 3);
        let report = training.step(&batch, iteration).unwrap();
        let quad_mix = report.terms.iter().any(|(name, _)| name == "mix_tst.decode.loss_seg");
        assert_eq!(quad_mix, iteration >= 3);
    }
    device.memory()
}

/// Memory that a card must have on top, for libraries and the driver itself.
const OVERHEAD: usize = 2 << 30;

#[test]
fn iterations_of_the_published_size_fit_cards() {
    let mib = |report: &MemoryReport| {
        let held = report.peak_tags.iter().take(6);
        let held: Vec<String> = held.map(|(name, n)| format!("{name} {}", n >> 20)).collect();
        format!("{} MiB ({})", report.peak >> 20, held.join(", "))
    };
    let fits = |report: &MemoryReport, gib: usize| report.peak + OVERHEAD < gib << 30;
    for (preset, whole, checkpointed) in [("gta_vit", 12, 10), ("gta_cnn", 11, 8)] {
        let all = memory(preset, &[]);
        let eager = memory(preset, &["device.cuda_graph=false"]);
        let less = memory(preset, &["network.activation_checkpointing=true"]);
        println!("{preset}: {}; recomputed {}", mib(&all), mib(&less));
        // A captured iteration also holds the gaps between its tensors.
        assert!(all.peak < eager.peak + (eager.peak >> 3), "{} or {}", mib(&all), mib(&eager));
        assert!(fits(&all, whole), "{preset}: {}", mib(&all));
        assert!(fits(&less, checkpointed), "{preset}: {}", mib(&less));
    }
    let join = "network.batch_student_passes=true";
    let (joined, less) = (
        memory("gta_vit", &[join]),
        memory("gta_vit", &[join, "network.activation_checkpointing=true"]),
    );
    println!("gta_vit, joined: {}; recomputed {}", mib(&joined), mib(&less));
    assert!(fits(&joined, 32), "joined: {}", mib(&joined));
    assert!(fits(&less, 12), "joined: {}", mib(&less));
}
