//! Measures what a device can do at most, as a reference for the cases of a bench.

use std::hint::black_box;
use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};
use serde_json::{Value, json};
use udass_raw::device::Device;
use udass_raw::run::profile::Rates;

/// Independent sums of a thread: enough to hide the latency of the processor's multiply-adds.
const SUMS: usize = 12;
/// Multiply-adds to each sum, which take some 10 ms.
const LENGTH: usize = 4 << 20;
const REPEATS: usize = 5;

/// Returns the peak rates per second: `flops` of multiply-adds of registers in `threads` threads (on
/// a GPU, of matmuls), and `bytes` that a large copy or scaling reads and writes.
pub fn measure(device: &Device, threads: Option<usize>) -> Value {
    let rates = Rates::measure(device).unwrap();
    let flops = match threads {
        Some(threads) => (0..REPEATS).map(|_| multiply_adds(threads)).fold(0.0, f64::max),
        None => rates.matrix,
    };
    json!({ "flops": flops, "bytes": rates.memory })
}

/// Returns the FLOPs per second of threads that multiply and add single-precision registers of the
/// widest instruction set.
fn multiply_adds(threads: usize) -> f64 {
    let rate = || {
        let start = Instant::now();
        let flops = Arch::new().dispatch(MultiplyAdds);
        flops / start.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(rate)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

struct MultiplyAdds;

impl WithSimd for MultiplyAdds {
    /// Number of FLOPs.
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let (factor, term) = (simd.splat_f32s(black_box(0.5)), simd.splat_f32s(black_box(1.0)));
        let mut sums = [term; SUMS];
        for _ in 0..LENGTH {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, term);
            }
        }
        black_box(sums);
        (2 * LENGTH * SUMS * S::F32_LANES) as f64
    }
}
