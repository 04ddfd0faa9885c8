//! Gradients that are denormal numbers cost no more than others: the CPU takes them for zeros.

use std::time::Duration;

use udass_raw::config::Config;
use udass_raw::device::Device;
use udass_raw::nn::{BatchNormMode, Pass, Segmentor};
use udass_raw::params::Weights;
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

const RUNS: usize = 7;
/// By how much the time may grow.
const LIMIT: f64 = 1.2;

/// The forward and backward pass of a network, on this thread alone.
struct Iteration {
    device: Device,
    network: Segmentor,
    weights: Weights,
    image: Tensor,
}

impl Iteration {
    fn new(preset: &str) -> Iteration {
        let config = Config::load_with(preset, None, &[]).unwrap();
        let device = Device::host(1).unwrap();
        let network = Segmentor::new(&config.network).unwrap();
        let mut weights = Weights::new(&device, network.spec(), true).unwrap();
        weights.initialize(&device, 1).unwrap();
        let pixels: Vec<f32> = (0..128 * 128 * 3).map(|i| (i as f32 * 0.7).sin()).collect();
        let image = device.upload_real(&[1, 128, 128, 3], &pixels).unwrap();
        Iteration { device, network, weights, image }
    }

    /// Returns the CPU time of a pass with gradients of this size.
    fn time(&self, gradient: f32) -> Duration {
        let start = thread_time();
        let tape = Tape::recording(&self.device);
        let batch_norm = BatchNormMode::Eval;
        let pass = Pass { tape: &tape, weights: &self.weights, batch_norm, dropout_rng: None };
        let logits = self.network.logits(&pass, &self.image).unwrap();
        let gradients: Vec<f32> =
            (0..logits.len()).map(|i| gradient * (1.0 + (i % 7) as f32)).collect();
        let gradients = self.device.upload_real(logits.shape(), &gradients).unwrap();
        tape.backward(vec![(&logits, gradients)]).unwrap();
        thread_time() - start
    }
}

fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer refers to a local.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn denormal_gradients_take_no_longer() {
    for preset in ["toy_vit", "toy_cnn"] {
        let iteration = Iteration::new(preset);
        let (mut usual, mut denormal) = (Duration::MAX, Duration::MAX);
        // In turns, so that a busy machine slows both down.
        for _ in 0..RUNS {
            usual = usual.min(iteration.time(1e-3));
            denormal = denormal.min(iteration.time(1e-40));
        }
        let ratio = denormal.as_secs_f64() / usual.as_secs_f64();
        println!("{preset}: {usual:?}, with denormal gradients {denormal:?}");
        assert!(ratio < LIMIT, "{preset}: {ratio} times as long");
    }
}

/// The mode of the program's own threads stays what it was.
#[test]
fn the_caller_keeps_its_denormals() {
    let before = std::hint::black_box(1e-40f32);
    let iteration = Iteration::new("toy_vit");
    iteration.time(1e-3);
    assert!(std::hint::black_box(before) * std::hint::black_box(0.5) > 0.0);
}
