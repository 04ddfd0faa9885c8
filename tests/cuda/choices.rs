//! Tests autotuning: which of the candidates that a library offers runs a matmul or a convolution.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tempfile::tempdir;
use udass_raw::device::cuda::Driver;
use udass_raw::device::{Device, GraphCache, MatrixView, Precision, Types};
use udass_raw::ops::{self, Conv};
use udass_raw::params::Param;
use udass_raw::tape::Tape;
use udass_raw::tensor::{DType, Tensor};

use crate::stand_in::StandIn;

/// Timed runs of each candidate, and of one that takes more than twice the best time so far.
const TRIALS: u64 = 4;
const HOPELESS: u64 = 2;
/// Filter sizes: a layer with one tap is three matmuls, otherwise three convolutions.
const TAPS: [usize; 2] = [1, 3];

struct Layer {
    device: Device,
    gpu: StandIn,
    x: Tensor,
    filters: Param,
    bias: Param,
    taps: usize,
}

impl Layer {
    fn new(taps: usize, ticks: &[u64], kept: Option<&Path>) -> Layer {
        Self::on(StandIn::new().with_ways(ticks, kept), taps)
    }

    fn on(gpu: StandIn, taps: usize) -> Layer {
        let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
        let numbers = |shape: &[usize]| {
            let n = shape.iter().product::<usize>();
            let data: Vec<f32> = (0..n).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
            device.upload_real(shape, &data).unwrap()
        };
        let of = |shape: &[usize]| {
            Param::new(numbers(shape), Some(ops::full(&device, shape, 1.0).unwrap()))
        };
        let (x, filters, bias) = (numbers(&[1, 5, 4, 3]), of(&[2, taps, taps, 3]), of(&[2]));
        Layer { x, filters, bias, device, gpu, taps }
    }

    fn forward(&self, tape: &Tape, x: &Tensor) -> Tensor {
        let geometry = Conv::same(self.taps, 1);
        ops::conv(tape, x, &self.filters, Some(&self.bias), geometry).unwrap()
    }

    /// Returns the output and the gradients of x, filters and bias. The latter two accumulate onto
    /// 1.
    fn run(&self) -> [Vec<f32>; 4] {
        let tape = Tape::recording(&self.device);
        let x = tape.leaf(&self.x);
        let y = self.forward(&tape, &x);
        let read = |tensor: &Tensor| self.device.read_f32(tensor).unwrap();
        let result = read(&y);
        let seed = ops::full(&self.device, y.shape(), 1.0).unwrap();
        let mut gradients = tape.backward(vec![(&y, seed)]).unwrap();
        let of = |param: &Param| read(param.grad.as_ref().unwrap());
        [result, read(&gradients.of(&x).unwrap()), of(&self.filters), of(&self.bias)]
    }

    /// Returns how often each candidate ran in one run of the layer.
    fn algorithms(&self) -> Vec<(usize, u64)> {
        self.run();
        self.gpu.ways_that_ran().into_iter().collect()
    }
}

/// Returns the path and the content of the only file in a folder.
fn kept(folder: &Path) -> (PathBuf, String) {
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    (file.clone(), std::fs::read_to_string(file).unwrap())
}

#[test]
fn each_is_timed_once_and_leaves_what_it_would_leave_untimed() {
    let folder = tempdir().unwrap();
    for taps in TAPS {
        let gpu = StandIn::new().with_ways(&[5, 2, 3, 9], Some(folder.path()));
        let layer = Layer::on(gpu.along_the_way(true, true), taps);
        let timed = layer.run();
        // Forward and both gradients time every candidate and then run the fastest once more. Bias
        // and bias gradient also time a product without an epilogue, and then both ways.
        let ran: Vec<_> = layer.gpu.ways_that_ran().into_iter().collect();
        let epilogues = if taps == 1 { 2 } else { 0 };
        let mut trials = [TRIALS, TRIALS, TRIALS, HOPELESS].map(|n| (3 + epilogues) * n);
        trials[1] += 3 + epilogues * 2 * TRIALS;
        assert_eq!(ran, trials.into_iter().enumerate().collect::<Vec<_>>());
        assert_eq!(layer.algorithms(), [(1, 3)], "of a shape that is known");
        assert_eq!(timed, Layer::new(taps, &[1], None).run());
    }
    let (_, text) = kept(folder.path());
    let lines: BTreeSet<_> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 3 * TAPS.len() + 2 * 2, "{text}");
    let shape = "Product F32 to F32, 20x3 (rows 3 apart) by 3x2 (columns 3 apart) into rows 2 apart, \
                 with a bias at a multiple of 16, at multiples of 16, 16, 16";
    assert!(lines.contains(&*format!("{shape}\tway 1")), "{text}");
    assert!(lines.contains(&*format!("{shape}: fused or separate\tfused")), "{text}");
}

#[test]
fn another_process_takes_what_was_the_fastest_whatever_its_own_clock_says() {
    for taps in TAPS {
        let folder = tempdir().unwrap();
        Layer::new(taps, &[5, 2, 3], Some(folder.path())).run();
        assert_eq!(Layer::new(taps, &[1, 9, 1], Some(folder.path())).algorithms(), [(1, 3)]);
        // The file holds half a line, as from a killed process, and a candidate that the library no
        // longer has.
        let (file, text) = kept(folder.path());
        assert!(text.starts_with("# stand-in for a GPU\n"), "{text}");
        let (whole, last) = text.trim_end().rsplit_once('\n').unwrap();
        let torn = &last[..last.len() / 2];
        std::fs::write(&file, format!("{}\n{torn}", whole.replace("way 1", "way 7"))).unwrap();
        let layer = Layer::new(taps, &[3, 9, 1], Some(folder.path()));
        let trials = [(0, 3 * TRIALS), (1, 3 * HOPELESS), (2, 3 * TRIALS + 3)];
        assert_eq!(layer.algorithms(), trials);
        assert_eq!(Layer::new(taps, &[1, 1, 1], Some(folder.path())).algorithms(), [(2, 3)]);
    }
}

#[test]
fn where_nothing_can_be_kept_the_heuristic_are_used() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for taps in TAPS {
        assert_eq!(Layer::new(taps, &[5, 2], None).algorithms(), [(0, 3)]);
        assert_eq!(Layer::new(taps, &[5, 2], Some(&file)).algorithms(), [(0, 3)]);
    }
}

#[test]
fn where_none_can_be_timed_the_heuristic_is_used_and_not_kept() {
    let folder = tempdir().unwrap();
    for taps in TAPS {
        let gpu = StandIn::with_memory(16 << 20).with_ways(&[5, 2], Some(folder.path()));
        let layer = Layer::on(gpu, taps);
        let rest = layer.gpu.allocate(layer.gpu.memory().unwrap().free).unwrap();
        assert_eq!(layer.algorithms(), [(0, 3)]);
        assert_eq!(kept(folder.path()).1, "");
        // A candidate needs the workspace that was allocated for timing it.
        layer.gpu.free(rest).unwrap();
        assert_eq!(layer.algorithms(), [(0, 3)]);
    }
    assert_eq!(Layer::new(3, &[5, 2], Some(folder.path())).algorithms()[1], (1, 3 * TRIALS + 3));
}

#[test]
fn recorded_work_takes_what_was_chosen_before_or_else_the_heuristic() {
    for taps in TAPS {
        let folder = tempdir().unwrap();
        let layer = Layer::new(taps, &[4, 2], Some(folder.path()));
        let other = ops::full(&layer.device, &[1, 5, 5, 3], 1.0).unwrap();
        let mut replays = GraphCache::new(&layer.device, true);
        let mut work = |kind, x: &Tensor| {
            let forward = || {
                layer.forward(&Tape::inference(&layer.device), x);
                Ok(())
            };
            replays.run(kind, forward).map(drop).unwrap();
            layer.device.synchronize().unwrap();
            layer.gpu.ways_that_ran().into_iter().collect::<Vec<_>>()
        };
        let epilogues = if taps == 1 { 1 } else { 0 };
        let trials = TRIALS * (1 + epilogues);
        let timed = [(0, trials), (1, trials + epilogues * 2 * TRIALS + 1)];
        assert_eq!(work("known", &other), timed);
        assert_eq!(work("new", &other), [(1, 1)]);
        for _ in 0..2 {
            assert_eq!(work("known", &other), [(1, 1)]);
            assert_eq!(work("new", &layer.x), [(0, 1)], "first seen while it was recorded");
        }
    }
}

#[test]
fn a_bias_that_no_product_adds_is_there_before() {
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        let results = |gpu: StandIn| {
            let types = if precision == Precision::Bf16 { Types::Bf16 } else { Types::F32 };
            let device = Device::cuda_through(types, Box::new(gpu)).unwrap();
            let numbers = |shape: &[usize]| {
                let n = shape.iter().product::<usize>();
                let data: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
                device.upload_real(shape, &data).unwrap()
            };
            let rounded = |shape: &[usize]| ops::to_operand(&device, &numbers(shape)).unwrap();
            let bias = Param::new(numbers(&[5]), None);
            let product = |rows: usize, dtype: DType| {
                let (a, b) = (rounded(&[rows, 6]), rounded(&[6, 5]));
                let mut out = device.alloc(&[rows, 5], dtype).unwrap();
                let (a, b) = (MatrixView::of(&a), MatrixView::of(&b));
                ops::matmul_with_bias(&device, &mut out, a, b, Some(&bias)).unwrap();
                device.read_f32(&out).unwrap()
            };
            let of = |rows| [device.real(), device.operand()].map(|dtype| product(rows, dtype));
            [1, 7, 64].map(of)
        };
        let gpu = || StandIn::with_precision(precision);
        assert_eq!(results(gpu().along_the_way(false, false)), results(gpu()), "{precision:?}");
    }
    let layer = |adds| Layer::on(StandIn::new().along_the_way(adds, false), 1);
    assert_eq!(layer(false).run(), layer(true).run());
}

#[test]
fn an_epilogue_that_is_slower_than_a_pass_of_its_own_is_not_used() {
    let expected = Layer::new(1, &[1], None).run();
    // A product takes 2 ticks and a kernel 1: the bias is one kernel, the bias gradient two and, as
    // an epilogue, one.
    for (ticks, choices) in [(0, ["fused"; 2]), (20, ["separate"; 2])] {
        let folder = tempdir().unwrap();
        let layer = || {
            let gpu = StandIn::new().with_ways(&[2, 5], Some(folder.path()));
            Layer::on(gpu.along_the_way(true, true).with_slow_epilogues(ticks), 1)
        };
        assert_eq!(layer().run(), expected, "{ticks}");
        let (_, text) = kept(folder.path());
        let made = text.lines().filter(|line| line.contains(": fused or separate\t"));
        let made: Vec<_> = made.map(|line| line.rsplit_once('\t').unwrap().1).collect();
        assert_eq!(made, choices, "{text}");
        // The next process computes the same way without timing anything.
        let again = layer();
        assert_eq!(again.run(), expected, "{ticks}");
        assert_eq!(again.gpu.ways_that_ran().into_iter().collect::<Vec<_>>(), [(0, 3)]);
    }
}

#[test]
fn a_candidate_that_fails_is_noted_and_another_is_used() {
    for taps in TAPS {
        let folder = tempdir().unwrap();
        let gpu = || StandIn::new().with_ways(&[2, 5, 1], Some(folder.path()));
        let layer = Layer::on(gpu().with_failing_ways(&[2]), taps);
        assert_eq!(layer.run(), Layer::new(taps, &[1], None).run());
        let (_, text) = kept(folder.path());
        let noted = text.lines().filter(|line| line.starts_with('#') && line.contains("way 2"));
        assert!(noted.clone().count() >= 3, "{text}");
        assert!(noted.into_iter().all(|line| line.ends_with("way 2 fails")), "{text}");
    }
}

#[test]
fn an_error_of_every_candidate_is_told() {
    let folder = tempdir().unwrap();
    let told = |gpu: StandIn| {
        let layer = Layer::on(gpu.with_ways(&[2, 5], Some(folder.path())), 3);
        let tape = Tape::inference(&layer.device);
        let run = || ops::conv(&tape, &layer.x, &layer.filters, None, Conv::same(3, 1));
        let first = run().unwrap_err().to_string();
        (first, layer)
    };
    let (problem, _) = told(StandIn::new().with_failing_ways(&[0, 1]));
    for part in ["nothing computes Forward", "way 0 fails", "way 1 fails"] {
        assert!(problem.contains(part), "{part} in: {problem}");
    }
    // After the fault of a kernel, no other candidate is tried and nothing is kept.
    let gpu = StandIn::new().with_ways(&[2, 5], Some(folder.path()));
    let layer = Layer::on(gpu.with_failing_ways(&[0]), 3);
    let space = layer.device.alloc(&[1 << 20], DType::U8).unwrap();
    drop(space);
    layer.gpu.break_down();
    let tape = Tape::inference(&layer.device);
    let geometry = Conv::same(3, 1);
    let problem = ops::conv(&tape, &layer.x, &layer.filters, None, geometry).unwrap_err();
    assert!(problem.to_string().contains("an illegal address was accessed"), "{problem}");
    assert_eq!(layer.gpu.ways_that_ran().len(), 0);
    assert_eq!(kept(folder.path()).1, "");
}

#[test]
fn what_no_library_computes_is_told() {
    for (taps, op) in TAPS.into_iter().zip(["Product F32", "Forward"]) {
        let layer = Layer::new(taps, &[], None);
        let tape = Tape::inference(&layer.device);
        let geometry = Conv::same(taps, 1);
        let told = ops::conv(&tape, &layer.x, &layer.filters, None, geometry).unwrap_err();
        let told = told.to_string();
        assert!(told.contains(&format!("no usable algorithm for {op}")), "{told}");
    }
}
