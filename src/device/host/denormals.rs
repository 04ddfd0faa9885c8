//! Denormal numbers are taken for zeros while the CPU computes: most processors take some hundred
//! times as long for them, and gradients can become that small.

/// Flushes denormal operands and results to zero on this thread until it is dropped.
///
/// Only work that handles no signal and calls no foreign code may run meanwhile. The compiler folds
/// constants as if denormals were kept, so an expression of constants may still yield one.
pub(super) struct FlushToZero {
    before: Register,
    /// The mode belongs to a thread.
    _here: std::marker::PhantomData<*const ()>,
}

impl FlushToZero {
    pub fn new() -> FlushToZero {
        let before = read();
        write(before | FLUSH);
        FlushToZero { before, _here: std::marker::PhantomData }
    }
}

impl Drop for FlushToZero {
    fn drop(&mut self) {
        write(self.before);
    }
}

#[cfg(target_arch = "x86_64")]
use x86_64::{FLUSH, Register, read, write};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::asm;

    pub type Register = u32;
    /// The bits of MXCSR for results (FTZ) and for operands (DAZ).
    pub const FLUSH: Register = 1 << 15 | 1 << 6;

    pub fn read() -> Register {
        let mut mode: Register = 0;
        // SAFETY: the instruction writes four bytes.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut mode, options(nostack, preserves_flags)) };
        mode
    }

    pub fn write(mode: Register) {
        // SAFETY: the mode was read before, with no bit changed but those above.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &mode, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
use aarch64::{FLUSH, Register, read, write};

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::asm;

    pub type Register = u64;
    /// The bit FZ of FPCR, for operands and results.
    pub const FLUSH: Register = 1 << 24;

    pub fn read() -> Register {
        let mode: Register;
        // SAFETY: the register can be read in user space.
        unsafe { asm!("mrs {}, fpcr", out(reg) mode, options(nomem, nostack, preserves_flags)) };
        mode
    }

    pub fn write(mode: Register) {
        // SAFETY: the mode was read before, with no bit changed but the one above.
        unsafe { asm!("msr fpcr, {}", in(reg) mode, options(nomem, nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use other::{FLUSH, Register, read, write};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod other {
    pub type Register = u32;
    pub const FLUSH: Register = 0;

    pub fn read() -> Register {
        0
    }

    pub fn write(_: Register) {}
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::FlushToZero;

    #[test]
    fn denormals_are_zero_while_it_lives_and_not_afterwards() {
        let product = || black_box(black_box(1e-30f32) * black_box(1e-10f32));
        let sum = || black_box(black_box(1e-40f32) + black_box(0.0f32));
        assert!(product() > 0.0 && sum() > 0.0);
        let flushed = FlushToZero::new();
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            assert_eq!((product(), sum()), (0.0, 0.0));
        }
        drop(flushed);
        assert!(product() > 0.0 && sum() > 0.0);
        assert!(std::thread::spawn(product).join().unwrap() > 0.0);
    }
}
