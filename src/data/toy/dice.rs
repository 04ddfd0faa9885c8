//! Random draws as pure functions of a key: scenes are the same on any machine, in any order, and
//! with any number of threads.

use crate::rng::{GOLDEN, mix64};

/// Hashes a key and a slot.
pub fn hash(key: u64, slot: u64) -> u64 {
    mix64(key ^ mix64(slot.wrapping_add(GOLDEN)))
}

/// Hashes a lattice point to `0..1`, for textures. It is cheap because it runs for every pixel.
pub fn lattice(x: i32, y: i32, salt: u32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x85eb_ca6b)
        ^ (y as u32).wrapping_mul(0xc2b2_ae35)
        ^ salt.wrapping_mul(0x27d4_eb2f);
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
    h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
    h ^= h >> 15;
    (h >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A sequence of draws from one key. `child` starts an independent sequence, so that the number of
/// draws for one object does not affect another object.
#[derive(Clone, Debug)]
pub struct Dice {
    key: u64,
    slot: u64,
}

impl Dice {
    pub fn new(key: u64) -> Self {
        Dice { key, slot: 0 }
    }

    pub fn child(&self, purpose: u64) -> Dice {
        Dice::new(hash(self.key, purpose ^ 0xa5a5_0000_0000_0000))
    }

    pub fn bits(&mut self) -> u64 {
        self.slot += 1;
        hash(self.key, self.slot)
    }

    /// Returns a uniform number in `0..1`.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// Returns a uniform number in `low..high`.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// Returns a uniform integer in `0..n`, or 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (((self.bits() >> 32) * n as u64) >> 32) as usize
    }

    /// Returns -1 or 1 with equal probability.
    pub fn sign(&mut self) -> f32 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }
}
