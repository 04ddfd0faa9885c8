//! The device that a case runs on, and inputs that have left every cache by the time they are
//! reused.

use std::sync::OnceLock;

use udass_raw::device::{Device, Precision};
use udass_raw::ops;
use udass_raw::rng::{Draw, Purpose};
use udass_raw::tensor::{DType, Tensor};

/// Maximum number of input sets; tiny cases would otherwise need very many.
const MOST_COPIES: usize = 4096;
/// Period of the generated numbers. It is prime, so that no row of a tensor equals the next.
const PERIOD: usize = 65_521;

/// The device, and how many bytes of inputs and outputs a case cycles through before it reuses any.
pub struct Bed {
    pub device: Device,
    pub precision: Precision,
    rotate: usize,
    /// The device computes nothing, so a single uninitialized set of inputs is enough.
    dry: bool,
}

/// A case that is ready to run.
pub struct Run {
    /// Runs the case once, on the next set of inputs.
    pub once: Box<dyn FnMut()>,
    /// Number of input sets, and the bytes of all of them together with their outputs.
    pub copies: usize,
    pub bytes: usize,
}

impl Bed {
    /// Creates a bed whose cases cycle through at least `rotate` bytes of inputs and outputs; 0
    /// means a single set.
    pub fn new(device: &Device, precision: Precision, rotate: usize) -> Bed {
        Bed { device: device.clone(), precision, rotate, dry: false }
    }

    /// Creates a bed on a dry device, which only records the calls that a case makes.
    pub fn dry(precision: Precision, rotate: usize) -> Bed {
        Bed { device: Device::dry(precision), precision, rotate, dry: true }
    }

    /// Cycles `run` through the input sets. A result is kept until its set is used again, so that
    /// outputs move through memory as well as inputs.
    pub fn rotating<S: 'static, R: 'static>(
        &self,
        make: impl Fn(u64) -> S,
        mut run: impl FnMut(&Device, &mut S) -> R + 'static,
    ) -> Run {
        let device = self.device.clone();
        let before = device.memory().used;
        let mut first = make(0);
        let kept = run(&device, &mut first);
        let one = (device.memory().used - before).max(1);
        let copies = self.rotate.div_ceil(one).clamp(1, MOST_COPIES);
        let others = if self.dry { 1 } else { copies };
        let mut sets = vec![(first, Some(kept))];
        sets.extend((1..others as u64).map(|slot| (make(slot), None)));
        let mut turn = 0;
        let once = Box::new(move || {
            turn = (turn + 1) % others;
            let (set, kept) = &mut sets[turn];
            *kept = None;
            *kept = Some(run(&device, set));
        });
        Run { once, copies, bytes: copies * one }
    }

    /// Returns a tensor's numbers; on a dry device, which holds none, zeros.
    pub fn read(&self, tensor: &Tensor) -> Vec<f32> {
        match self.dry {
            true => vec![0.0; tensor.len()],
            false => self.device.read_f32(tensor).unwrap(),
        }
    }

    /// Returns uniform `real` numbers in [-1, 1), different for each slot.
    pub fn numbers(&self, shape: &[usize], slot: u64) -> Tensor {
        if self.dry {
            return self.device.empty(shape).unwrap();
        }
        let (n, from) = (shape.iter().product::<usize>(), slot as usize * 7919 % PERIOD);
        let all = period();
        let mut numbers = Vec::with_capacity(n + PERIOD);
        numbers.extend_from_slice(&all[from..]);
        while numbers.len() < n {
            numbers.extend_from_slice(all);
        }
        self.device.upload_real(shape, &numbers[..n]).unwrap()
    }

    /// Returns the same numbers, cast to the operand type of matmuls.
    pub fn operand(&self, shape: &[usize], slot: u64) -> Tensor {
        ops::to_operand(&self.device, &self.numbers(shape, slot)).unwrap()
    }

    /// Returns bytes that `byte` computes from each element's flat index.
    pub fn bytes(&self, shape: &[usize], byte: impl Fn(usize) -> u8) -> Tensor {
        if self.dry {
            return self.device.alloc(shape, DType::U8).unwrap();
        }
        let bytes: Vec<u8> = (0..shape.iter().product()).map(byte).collect();
        self.device.upload(shape, &bytes).unwrap()
    }

    /// Returns labels B,H,W in square blocks of one class each, some of them unlabeled.
    pub fn labels(&self, shape: [usize; 3], classes: usize, slot: u64) -> Tensor {
        let [_, height, width] = shape;
        let block = (height / 8).max(8);
        self.bytes(&shape, |i| {
            let (image, y, x) = (i / (height * width), i / width % height, i % width);
            let cell = (image * height + y / block) * width + x / block;
            match (cell + slot as usize).wrapping_mul(0x9E37_79B1) / 64 % (classes + 1) {
                n if n == classes => 255,
                class => class as u8,
            }
        })
    }
}

fn period() -> &'static [f32] {
    static NUMBERS: OnceLock<Vec<f32>> = OnceLock::new();
    NUMBERS.get_or_init(|| {
        let mut draw = Draw::new(0, 0, Purpose::Init, 0, 0);
        (0..PERIOD).map(|_| draw.range_f32(-1.0, 1.0)).collect()
    })
}
