//! Which way a convolution takes, of those that a library offers.

use std::path::Path;

use tempfile::tempdir;
use udass_raw::device::{Device, Replays, Types};
use udass_raw::ops::{self, Conv};
use udass_raw::params::Param;
use udass_raw::tape::Tape;

use crate::stand_in::StandIn;

/// Runs of each way before one is chosen.
const TRIALS: u64 = 4;

struct Layer {
    device: Device,
    gpu: StandIn,
    x: udass_raw::tensor::Tensor,
    filters: Param,
}

impl Layer {
    fn new(ticks: &[u64], kept: Option<&Path>) -> Layer {
        let gpu = StandIn::new().with_ways(ticks, kept);
        let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
        let numbers = |n: usize| (0..n).map(|i| (i * 7 % 11) as f32 - 5.0).collect::<Vec<_>>();
        let x = device.upload_real(&[1, 5, 4, 3], &numbers(60)).unwrap();
        let w = device.upload_real(&[2, 3, 3, 3], &numbers(54)).unwrap();
        let gradient = device.full(&[2, 3, 3, 3], 1.0).unwrap();
        Layer { filters: Param::new(w, Some(gradient)), device, gpu, x }
    }

    /// The output and the filters' gradient, which 1 was in before.
    fn run(&self) -> [Vec<f32>; 2] {
        let tape = Tape::recording(&self.device);
        let x = tape.leaf(&self.x);
        let y = ops::conv(&tape, &x, &self.filters, None, Conv::same(3, 1)).unwrap();
        let read = |tensor| self.device.read_f32(tensor).unwrap();
        let result = read(&y);
        tape.backward(vec![(&y, self.device.full(y.shape(), 1.0).unwrap())]).unwrap();
        [result, read(self.filters.grad.as_ref().unwrap())]
    }

    /// How often each way ran in a run of the layer.
    fn ways(&self) -> Vec<(usize, u64)> {
        self.run();
        self.gpu.ways_that_ran().into_iter().collect()
    }
}

#[test]
fn each_is_timed_once_and_leaves_what_it_would_leave_untimed() {
    let folder = tempdir().unwrap();
    let layer = Layer::new(&[5, 2, 3], Some(folder.path()));
    let timed = layer.run();
    // Forward, data and filter: each way of each, and then the fastest once more.
    let ran: Vec<_> = layer.gpu.ways_that_ran().into_iter().collect();
    assert_eq!(ran, [(0, 3 * TRIALS), (1, 3 * TRIALS + 3), (2, 3 * TRIALS)]);
    assert_eq!(layer.ways(), [(1, 3)], "of a shape that is known");
    assert_eq!(timed, Layer::new(&[1], None).run());
}

#[test]
fn another_process_takes_what_was_the_fastest_whatever_its_own_clock_says() {
    let folder = tempdir().unwrap();
    Layer::new(&[5, 2, 3], Some(folder.path())).run();
    assert_eq!(Layer::new(&[1, 9, 1], Some(folder.path())).ways(), [(1, 3)]);
    // Half a line, of a process that was killed, and a way that a library no longer has.
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# stand-in for a GPU\n"), "{text}");
    let (whole, last) = text.trim_end().rsplit_once('\n').unwrap();
    let torn = &last[..last.len() / 2];
    std::fs::write(&file, format!("{}\n{torn}", whole.replace("way 1", "way 7"))).unwrap();
    let layer = Layer::new(&[3, 9, 1], Some(folder.path()));
    assert_eq!(layer.ways(), [(0, 3 * TRIALS), (1, 3 * TRIALS), (2, 3 * TRIALS + 3)]);
    assert_eq!(Layer::new(&[1, 1, 1], Some(folder.path())).ways(), [(2, 3)]);
}

#[test]
fn where_nothing_can_be_kept_the_favourites_are_taken() {
    assert_eq!(Layer::new(&[5, 2], None).ways(), [(0, 3)]);
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(Layer::new(&[5, 2], Some(&file)).ways(), [(0, 3)]);
}

#[test]
fn recorded_work_takes_what_was_chosen_before() {
    let folder = tempdir().unwrap();
    let layer = Layer::new(&[5, 2], Some(folder.path()));
    let mut replays = Replays::new(&layer.device, true);
    let mut work = |layer: &Layer| {
        let forward = || {
            let tape = Tape::inference(&layer.device);
            ops::conv(&tape, &layer.x, &layer.filters, None, Conv::same(3, 1)).map(drop)
        };
        replays.run((), forward).map(drop).unwrap();
        layer.device.synchronize().unwrap();
        layer.gpu.ways_that_ran().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(work(&layer), [(0, TRIALS), (1, TRIALS + 1)]);
    assert_eq!(work(&layer), [(1, 1)]);
    assert_eq!(work(&layer), [(1, 1)]);
}
