//! Tests embedding: a program's images are already on the GPU, and the device reads its memory in
//! place.

use udass_raw::data::loader::Loader;
use udass_raw::device::cuda::{Driver, Stream};
use udass_raw::device::{ALIGNMENT, Device, GraphCache, MatrixView, Types};
use udass_raw::nn::{BatchNormMode, Pass};
use udass_raw::ops;
use udass_raw::ops::mix::{Labeled, RareCrops};
use udass_raw::run::train::initial_state;
use udass_raw::tape::Tape;
use udass_raw::tensor::{DType, Tensor};
use udass_raw::uda::batch::DeviceBatch;
use udass_raw::uda::state::TrainingState;

use crate::stand_in::StandIn;
use crate::steps::{ITERATIONS, assert_same_state, config_with};

/// A host program that allocates its memory without the device's knowledge.
struct Program {
    gpu: StandIn,
    device: Device,
    stream: Stream,
}

impl Program {
    fn new() -> Program {
        let gpu = StandIn::new();
        let device = Device::cuda_through(Types::F32, Box::new(gpu.clone())).unwrap();
        let stream = gpu.stream().unwrap();
        Program { gpu, device, stream }
    }

    /// Copies the bytes into memory that the program allocated itself.
    fn place(&self, bytes: &[u8], shape: &[usize], dtype: DType) -> Tensor {
        let address = self.gpu.allocate(bytes.len()).unwrap();
        let pinned = self.gpu.allocate_host(bytes.len()).unwrap();
        self.gpu.write_host(pinned, bytes).unwrap();
        self.gpu.copy_in(self.stream, pinned, address, bytes.len()).unwrap();
        self.gpu.synchronize(self.stream).unwrap();
        self.gpu.free_host(pinned).unwrap();
        // SAFETY: the memory was allocated with this many bytes and is never freed.
        unsafe { self.device.tensor_at(address, shape, dtype) }.unwrap()
    }

    /// Copies a tensor of another device into the program's memory.
    fn copied(&self, of: &Device, tensor: &Tensor) -> Tensor {
        let bytes: Vec<u8> = match tensor.dtype() {
            DType::U8 => of.read(tensor).unwrap(),
            _ => bytemuck::cast_slice(&of.read_f32(tensor).unwrap()).to_vec(),
        };
        self.place(&bytes, tensor.shape(), tensor.dtype())
    }

    fn batch(&self, of: &Device, batch: &DeviceBatch) -> DeviceBatch {
        let copied = |tensor: &Tensor| self.copied(of, tensor);
        let (image, label) = (copied(&batch.source.image), copied(&batch.source.label));
        let crops = |crops: &RareCrops| RareCrops {
            rgb: copied(&crops.rgb),
            label: copied(&crops.label),
            classes: copied(&crops.classes),
        };
        DeviceBatch {
            source: Labeled { image, label, weight: None },
            target: copied(&batch.target),
            valid: copied(&batch.valid),
            rare: batch.rare.as_ref().map(|both| both.each_ref().map(crops)),
        }
    }
}

#[test]
fn training_on_images_that_are_there() {
    let config = config_with("toy_vit", &[]);
    let host = Device::host(2).unwrap();
    let mut expected = initial_state::build(&config, &host, None).unwrap();
    let program = Program::new();
    let mut training = initial_state::build(&config, &program.device, None).unwrap();
    let mut loader = Loader::new(&config, 0).unwrap();
    for iteration in 0..ITERATIONS {
        let report = expected.step(&loader.next().unwrap(), iteration).unwrap();
        let batch = program.batch(&host, &expected.batch.current());
        assert_eq!(training.step(&batch, iteration).unwrap(), report);
    }
    assert_eq!(program.gpu.counts().replayed, ITERATIONS - 2);
    assert_same_state("toy_vit", &training, &expected);
}

#[test]
fn a_batch_of_another_size_is_told() {
    let config = config_with("toy_vit", &[]);
    let program = Program::new();
    let mut training = initial_state::build(&config, &program.device, None).unwrap();
    let mut batch = training.batch.current();
    batch.target = ops::full(&program.device, &[1, 2, 2, 3], 0.0).unwrap();
    let problem = training.step(&batch, 0).err().unwrap().to_string();
    assert!(problem.contains("target is F32[1, 2, 2, 3], not F32["), "{problem}");
}

#[test]
fn predicting_from_and_into_memory_that_is_there() {
    let config = config_with("toy_vit", &[]);
    let image: Vec<f32> = (0..64 * 96 * 3).map(|i| (i % 17) as f32 / 17.0).collect();
    let logits = |device: &Device, image: &Tensor| {
        let training = initial_state::build(&config, device, None).unwrap();
        let (tape, weights) = (Tape::inference(device), &training.student);
        let pass =
            Pass { tape: &tape, weights, batch_norm: BatchNormMode::Eval, dropout_rng: None };
        training.network.logits(&pass, image).unwrap()
    };
    let host = Device::host(2).unwrap();
    let expected = logits(&host, &host.upload(&[1, 64, 96, 3], &image).unwrap());
    let program = Program::new();
    let image = program.place(bytemuck::cast_slice(&image), &[1, 64, 96, 3], DType::F32);
    let mut result = program.place(&vec![0; expected.bytes()], expected.shape(), DType::F32);
    let logits = logits(&program.device, &image);
    program.device.copy(&logits, &mut result).unwrap();
    drop(logits);
    assert_eq!(program.device.read_f32(&result).unwrap(), host.read_f32(&expected).unwrap());
}

#[test]
fn work_that_is_prepared_goes_into_the_programs_own_graph() {
    let program = Program::new();
    let (gpu, device) = (&program.gpu, &program.device);
    // The device's stream, as the program knows it.
    let stream = Stream(0);
    let x = ops::full(device, &[100], 3.0).unwrap();
    let y = device.zeros(&[100], DType::F32).unwrap();
    let work = || {
        let mut doubled = device.zeros(&[100], DType::F32)?;
        ops::add_scaled(device, &x, 2.0, &mut doubled)?;
        ops::add_scaled(device, &doubled, 1.0, &mut y.clone())
    };
    let prepared = device.prepare(work).unwrap();
    let (counts, free) = (gpu.counts(), gpu.memory().unwrap().free);
    gpu.begin_capture(stream).unwrap();
    prepared.run(work).unwrap();
    let graph = gpu.end_capture(stream).unwrap();
    let after = gpu.counts();
    assert_eq!((counts.synchronized, counts.waited), (after.synchronized, after.waited));
    assert_eq!(gpu.memory().unwrap().free, free, "the capture allocated memory");
    assert_eq!(device.read::<f32>(&y).unwrap(), [12.0; 100], "prepared twice");
    // Other work of the device between replays does not get the graph's memory.
    for i in 1..4 {
        let other = device.zeros(&[100], DType::F32).unwrap();
        gpu.replay(stream, graph).unwrap();
        assert_eq!(device.read::<f32>(&y).unwrap(), [12.0 + 6.0 * i as f32; 100]);
        drop(other);
    }
}

#[test]
fn a_program_segments_images_with_a_graph_of_its_own() {
    let config = config_with("toy_vit", &[]);
    let picture = |seed: usize| -> Vec<f32> {
        (0..64 * 96 * 3).map(|i| ((i + seed) % 17) as f32 / 17.0).collect()
    };
    let host = Device::host(2).unwrap();
    let on_host = initial_state::build(&config, &host, None).unwrap();
    let program = Program::new();
    let (gpu, device) = (&program.gpu, &program.device);
    let training = initial_state::build(&config, device, None).unwrap();
    let logits = |state: &TrainingState, image: &Tensor| {
        let (tape, weights) = (Tape::inference(&state.device), &state.student);
        let batch_norm = BatchNormMode::Eval;
        let pass = Pass { tape: &tape, weights, batch_norm, dropout_rng: None };
        state.network.logits(&pass, image)
    };
    let expected = |seed: usize| {
        let image = host.upload(&[1, 64, 96, 3], &picture(seed)).unwrap();
        logits(&on_host, &image).unwrap()
    };
    let shape = expected(0).shape().to_vec();
    let mut image = device.upload(&[1, 64, 96, 3], &picture(0)).unwrap();
    let result = device.zeros(&shape, DType::F32).unwrap();
    let (from, to) = (image.clone(), result.clone());
    let work = || device.copy(&logits(&training, &from)?, &mut to.clone());
    let prepared = device.prepare(work).unwrap();
    gpu.begin_capture(Stream(0)).unwrap();
    prepared.run(work).unwrap();
    let graph = gpu.end_capture(Stream(0)).unwrap();
    for seed in 1..3 {
        device.write(&mut image, &picture(seed)).unwrap();
        gpu.replay(Stream(0), graph).unwrap();
        let (seen, wanted) = (device.read_f32(&result), host.read_f32(&expected(seed)));
        assert_eq!(seen.unwrap(), wanted.unwrap());
    }
}

#[test]
fn what_is_not_prepared_is_told_inside_the_programs_capture_and_leaves_it_intact() {
    let program = Program::new();
    let (gpu, device, stream) = (&program.gpu, &program.device, Stream(0));
    let mut x = ops::full(device, &[100], 3.0).unwrap();
    let matrix = ops::full(device, &[10, 10], 1.0).unwrap();
    device.synchronize().unwrap();
    gpu.begin_capture(stream).unwrap();
    let told = |problem: &str, result: udass_raw::Result<()>| {
        let said = result.unwrap_err().to_string();
        assert!(said.contains(problem), "{problem} in: {said}");
    };
    told("an upload during graph capture", device.upload(&[1], &[1f32]).map(drop));
    told("a read during graph capture", device.read::<f32>(&x).map(drop));
    told("a read during graph capture", device.fetch(&x).map(drop));
    told("a wait during graph capture", device.synchronize());
    let new = "`Device::prepare` does it before";
    told(new, device.alloc(&[1 << 30], DType::U8).map(drop));
    told(new, ops::add_scaled(device, &x.clone(), 1.0, &mut x));
    let mut product = device.empty(&[10, 10]).unwrap();
    let m = MatrixView::of(&matrix);
    told(new, ops::matmul(device, &mut product, m, m, false));
    told("another capture during", {
        let mut graphs = GraphCache::new(device, true);
        graphs.run((), || Ok(())).and_then(|_| graphs.run((), || Ok(()))).map(drop)
    });
    device.zero(&mut x).unwrap();
    let graph = gpu.end_capture(stream).unwrap();
    assert_eq!(device.read::<f32>(&x).unwrap(), [3.0; 100]);
    gpu.replay(stream, graph).unwrap();
    assert_eq!(device.read::<f32>(&x).unwrap(), [0.0; 100]);
}

#[test]
fn an_address_that_is_not_aligned_is_told() {
    let program = Program::new();
    let address = program.gpu.allocate(256).unwrap();
    for wrong in [0, address + ALIGNMENT as u64 / 2] {
        // SAFETY: the call is rejected before the address is used.
        let tensor = unsafe { program.device.tensor_at(wrong, &[4], DType::F32) };
        assert!(tensor.err().unwrap().to_string().contains("not a multiple of 64"));
    }
}
