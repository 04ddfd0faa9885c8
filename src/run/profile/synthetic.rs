//! Training iterations on synthetic batches: the same work as real training, without a dataset.

use crate::config::Config;
use crate::data::resize::Size;
use crate::data::{Batch, Crops, RareCrops};
use crate::device::Device;
use crate::nn::Segmentor;
use crate::params::Weights;
use crate::rng::{Draw, Purpose};
use crate::run::train::initial_state::effective;
use crate::uda::inputs::Switches;
use crate::uda::memory::with_advice;
use crate::uda::state::TrainingState;
use crate::uda::trace::Trace;
use crate::{Error, Result};

/// A training run from random weights in which every iteration does the same work: color jitter and
/// blur are always on, and QuadMix and contrast have begun.
pub struct Synthetic {
    training: TrainingState,
    /// Used alternately, because QuadMix pastes from the previous batch.
    batches: [Batch; 2],
    iteration: u64,
}

impl Synthetic {
    /// Builds networks with random weights, and two batches. For QuadMix it also runs one
    /// iteration.
    ///
    /// # Errors
    /// [`Error::Config`] for an invalid network; an error from the device.
    pub fn new(device: &Device, config: &Config) -> Result<Synthetic> {
        with_advice(Self::build(device, config), config, config.device.cuda_graph)
    }

    fn build(device: &Device, config: &Config) -> Result<Synthetic> {
        let mut config = effective(config);
        let first = match (config.quadmix.enabled, config.contrast.enabled) {
            (true, _) => config.quadmix.start.max(1),
            (false, true) => config.contrast.start,
            (false, false) => 0,
        };
        config.schedule.end = config.schedule.end.max(first + 1_000_000);
        let network = Segmentor::new(&config.network)?;
        let random = |learns| {
            let mut weights = Weights::new(device, network.spec(), learns)?;
            weights.initialize(device, config.seed)?;
            Ok::<_, Error>(weights)
        };
        let student = random(true)?;
        let imagenet = config.feature_distance.enabled.then(|| random(false)).transpose()?;
        let training = TrainingState::new(device, &config, network, student, imagenet)?;
        let batches = [batch(&config, 0), batch(&config, 1)];
        let mut training = Synthetic { training, batches, iteration: first.saturating_sub(1) };
        if first > 0 {
            // Stores the templates that the next iteration pastes from.
            training.step()?;
        }
        Ok(training)
    }

    /// Returns the state after the iterations so far.
    pub fn state(&self) -> &TrainingState {
        &self.training
    }

    /// Returns the state after the iterations so far, to look at parts that only change hands so.
    pub fn state_mut(&mut self) -> &mut TrainingState {
        &mut self.training
    }

    /// Uploads the next iteration's batch.
    pub fn load(&mut self) -> Result<()> {
        self.training.load(&self.batches[self.iteration as usize % 2])
    }

    /// Runs the next iteration.
    pub fn step(&mut self) -> Result<()> {
        self.load()?;
        self.step_on_loaded()
    }

    /// Runs the next iteration on the batch that was loaded last.
    ///
    /// # Errors
    /// [`Error::Device`] if a loss or a gradient is not finite.
    pub fn step_on_loaded(&mut self) -> Result<()> {
        let iteration = self.iteration;
        self.iteration += 1;
        let mut inputs = self.training.draw(iteration);
        inputs.switches = [Switches { jitter: true, blur: true }; 2];
        let report = self.training.step_with(&inputs, Trace::off())?;
        if report.failed {
            let terms = report.terms;
            return Err(Error::device(format!("iteration {iteration} is not finite: {terms:?}")));
        }
        Ok(())
    }
}

/// Generates a batch of noise images whose labels are blocks of random classes, some of them
/// unlabeled.
fn batch(config: &Config, number: u64) -> Batch {
    let (side, batch, classes) = (config.data.crop, config.data.batch, config.network.classes);
    let mut draw = Draw::new(config.seed, number, Purpose::SourceFile, 0, 0);
    let square = Size::new(side, side);
    let mut crops = |n: usize, size: Size, labels: &mut dyn FnMut(&mut Draw) -> Vec<u8>| Crops {
        batch: n,
        size,
        rgb: (0..n * size.width * size.height * 3).map(|_| draw.below(256) as u8).collect(),
        label: (0..n).flat_map(|_| labels(&mut draw)).collect(),
        ..Default::default()
    };
    let mut blocks = |draw: &mut Draw| {
        let block = (side / 8).max(8);
        let n = side.div_ceil(block);
        let ids: Vec<u8> = (0..n * n)
            .map(|_| match draw.below(classes + 1) {
                n if n == classes => 255,
                class => class as u8,
            })
            .collect();
        (0..side * side).map(|i| ids[i / side / block * n + i % side / block]).collect()
    };
    let source = crops(batch, square, &mut blocks);
    let targets = if config.learns_from_target() { batch } else { 0 };
    let [width, height] = config.target_size();
    let target = crops(targets, Size::new(width, height), &mut |_| Vec::new());
    let classes = [config.quadmix.classes[0], config.quadmix.classes[1]];
    let mut turn = 0;
    // The label of a rare crop is one square of a single class; the two classes alternate.
    let mut patch = |draw: &mut Draw| {
        let (length, class) = (side / 4, classes[turn % 2]);
        turn += 1;
        let (y, x) = (draw.below(side - length), draw.below(side - length));
        let inside = |i: usize| {
            (y..y + length).contains(&(i / side)) && (x..x + length).contains(&(i % side))
        };
        (0..side * side).map(|i| if inside(i) { class } else { 255 }).collect()
    };
    let rare = config
        .quadmix
        .enabled
        .then(|| RareCrops { classes, crops: crops(4 * batch, square, &mut patch) });
    let valid = vec![1; targets * width * height];
    Batch { iteration: number, source, target, valid, rare, skipped: Vec::new() }
}
