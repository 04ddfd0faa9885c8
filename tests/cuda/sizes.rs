//! Tests how much memory an iteration takes at full size, with and without CUDA graphs, on a GPU
//! that computes nothing.

use std::cell::Cell;

use udass_raw::config::Config;
use udass_raw::data::resize::Size;
use udass_raw::data::{Batch, Crops, RareCrops};
use udass_raw::device::cuda::{Algorithm, Driver, Event, Graph, Launch, Memory, Stream};
use udass_raw::device::{Device, LibraryOp, MemoryReport, Types};
use udass_raw::run::train::initial_state;
use udass_raw::{Error, Result};

/// Hands out addresses with no memory behind them. Everything reads as 0.
struct Idle {
    total: usize,
    allocated: Cell<usize>,
    events: Cell<u64>,
}

/// The cuDNN workspace that a ResNet's and the decoder's convolutions want, and the most that a
/// matmul may use.
const WORKSPACE: [usize; 2] = [80 << 20, 32 << 20];

impl Driver for Idle {
    fn describe(&self) -> String {
        "a GPU that computes nothing".into()
    }

    fn memory(&self) -> Result<Memory> {
        Ok(Memory { free: self.total - self.allocated.get(), total: self.total })
    }

    fn multiprocessors(&self) -> Option<usize> {
        Some(132)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let taken = self.allocated.get();
        if bytes > self.total - taken {
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
        size: Size::new(s, s),
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

/// Memory that a card must have on top, for libraries and the driver itself.
const OVERHEAD: usize = 2 << 30;

/// Runs six iterations, three in each phase, on a card of this many GiB, and returns the memory
/// that they took. With `limited`, it is reserved at once.
fn memory(preset: &str, sets: &[&str], gib: usize, limited: bool) -> Result<MemoryReport> {
    let own = ["weights.init=random", "quadmix.start=3"];
    let sets: Vec<String> = own.iter().chain(sets).map(|set| set.to_string()).collect();
    let config = Config::load(preset, &sets).unwrap();
    let total = (gib << 30) - OVERHEAD;
    let idle = Idle { total, allocated: Cell::new(0), events: Cell::new(0) };
    let device = Device::cuda_through(Types::F32, Box::new(idle))?;
    device.set_memory_limit(limited.then_some(total));
    let mut training = initial_state::build(&config, &device, None)?;
    for iteration in 0..6 {
        let batch = batch(&config, iteration >= 3);
        let report = training.step(&batch, iteration)?;
        let quad_mix = report.terms.iter().any(|(name, _)| name == "mix_tst.decode.loss_seg");
        assert_eq!(quad_mix, iteration >= 3);
    }
    Ok(device.memory())
}

#[test]
fn iterations_of_the_published_size_fit_cards() {
    let mib = |report: &MemoryReport| {
        let held = report.peak_tags.iter().take(6);
        let held: Vec<String> = held.map(|(name, n)| format!("{name} {}", n >> 20)).collect();
        let (peak, reserved) = (report.peak >> 20, report.reserved >> 20);
        format!("{peak} MiB of {reserved} reserved ({})", held.join(", "))
    };
    let recomputed = "network.activation_checkpointing=true";
    let joined = "network.batch_student_passes=true";
    let rows: [(&str, &[&str], usize); 6] = [
        ("gta_vit", &[], 12),
        ("gta_vit", &[recomputed], 10),
        ("gta_cnn", &[], 11),
        ("gta_cnn", &[recomputed], 8),
        ("gta_vit", &[joined], 32),
        ("gta_vit", &[joined, recomputed], 12),
    ];
    for (preset, sets, gib) in rows {
        let on = |gib, limited| {
            let report = memory(preset, sets, gib, limited);
            report.unwrap_or_else(|e| panic!("{preset} {sets:?} on {gib} GiB: {e}"))
        };
        let all = on(gib, true);
        // Segments that are reserved as they are needed leave more gaps.
        let growing = on(gib + 1, false);
        println!("{preset} {sets:?}: {}; growing {}", mib(&all), mib(&growing));
    }
    // A captured iteration also holds the gaps between its tensors.
    for preset in ["gta_vit", "gta_cnn"] {
        let all = memory(preset, &[], 80, false).unwrap();
        let eager = memory(preset, &["device.cuda_graph=false"], 80, false).unwrap();
        assert!(all.peak < eager.peak + (eager.peak >> 3), "{} or {}", mib(&all), mib(&eager));
        // A large card is not taken whole.
        assert!(all.reserved < all.peak + all.peak / 4, "{}", mib(&all));
    }
}
