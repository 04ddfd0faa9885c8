//! Counter-based random numbers: each is a hash of its purpose, so there is no generator state.
//!
//! A [`Draw`] is keyed by (seed, iteration, purpose, slot, attempt) and produces its own short
//! sequence of numbers. No draw depends on whether another one was made, so threads, prefetching
//! and resuming cannot change a run by a single bit.
//!
//! The hash passes each coordinate in turn through the finalizer of SplitMix64 (Steele, Lea, Flood
//! 2014), a bijection of 64-bit words, keyed by the state so far. The numbers are the output of
//! SplitMix64 from that state.

/// The purpose of a random number. The discriminants are part of the identity of every run: give a
/// new purpose a new number, and never change an existing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Purpose {
    /// The class that rare-class sampling looks for.
    SourceClass = 1,
    /// The source image among those that contain the class.
    SourceFile = 2,
    /// The position of the source crop.
    SourceCrop = 3,
    /// The horizontal flip of the source image.
    SourceFlip = 4,
    /// The target image, drawn with replacement.
    TargetFile = 5,
    /// The position of the target crop.
    TargetCrop = 6,
    /// The horizontal flip of the target image.
    TargetFlip = 7,
    /// The order of all source–target pairs without rare-class sampling; the slot is the epoch.
    PairOrder = 8,
    /// The two long-tail classes of an iteration.
    RareClasses = 9,
    /// The image and crop of one long-tail paste.
    RareCrop = 10,
    /// The key of drop-path and dropout in an iteration.
    DropKey = 11,
    /// The position of the detail crop; the slot is the forward pass.
    DetailBox = 12,
    /// The decisions to apply jitter and blur; slot 0 is for mixed images, slot 1 for masked ones.
    AugmentSwitch = 13,
    /// The color jitter factors; the slot is the image of the call.
    AugmentFactors = 14,
    /// The order of the color jitter operations; the slot is the call.
    AugmentOrder = 15,
    /// The sigma of the blur; the slot is the call.
    AugmentSigma = 16,
    /// The classes that ClassMix pastes; the slot is the image.
    MixClasses = 17,
    /// The classes of QuadMix's source template; the slot is the image.
    SourceClasses = 18,
    /// The classes of QuadMix's target template; the slot is the image.
    TargetClasses = 19,
    /// The blocks that masked image consistency hides; the slot is the image.
    MaskGrid = 20,
    /// The initial values of parameters; the slot is the parameter.
    Init = 21,
    /// The photometric distortion of the source image.
    Photometric = 22,
    /// The boxes among which the class-balanced crop chooses; the slot is the target image.
    CropBoxes = 23,
}

/// The increment of the SplitMix64 state: 2⁶⁴ divided by the golden ratio.
pub(crate) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finalizer of SplitMix64: a bijection in which every input bit flips each output bit with a
/// probability near ½.
pub(crate) fn mix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The random number sequence of one decision.
#[derive(Clone, Debug)]
pub struct Draw {
    state: u64,
}

impl Draw {
    /// Creates the sequence for one decision. `slot` distinguishes the same decision for several
    /// images of an iteration, `attempt` the retries of a rejected decision.
    pub fn new(seed: u64, iteration: u64, purpose: Purpose, slot: u64, attempt: u64) -> Self {
        let absorb = |state: u64, word: u64| mix64(state.wrapping_add(GOLDEN) ^ mix64(word));
        let state = [seed, iteration, purpose as u64, slot, attempt].into_iter().fold(0, absorb);
        Draw { state }
    }

    /// Returns 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix64(self.state)
    }

    /// Returns a uniform number in [0, 1), a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns a uniform number in [0, 1), a multiple of 2⁻²⁴ and thus exact in single precision.
    pub fn uniform_f32(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Returns a uniform number in [lo, hi).
    pub fn range_f32(&mut self, lo: f32, hi: f32) -> f32 {
        lo + (hi - lo) * self.uniform_f32()
    }

    /// Returns a uniform integer in 0, …, n − 1 (0 if n is 0). Each probability is off by less than
    /// n·2⁻⁶⁴.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.bits() as u128 * n as u128) >> 64) as usize
    }

    /// Returns a uniform integer in lo, …, hi, both included.
    pub fn range(&mut self, lo: usize, hi: usize) -> usize {
        lo + self.below(hi.saturating_sub(lo) + 1)
    }

    /// Returns `true` with the given probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.uniform() < probability as f64
    }

    /// Returns two different integers in 0, …, n − 1 in random order. `n` must be at least 2.
    pub fn two_of(&mut self, n: usize) -> [usize; 2] {
        let first = self.below(n);
        let second = self.below(n - 1);
        [first, second + (second >= first) as usize]
    }

    /// Returns the position of `index` in a random permutation of 0, …, n − 1 without building the
    /// list. Clones of a draw give the same permutation.
    ///
    /// The permutation is a four-round Feistel cipher on the smallest even number of bits that can
    /// hold n − 1, with cycle walking: it is applied until the result is below n, fewer than four
    /// times on average.
    pub fn permuted(&self, index: u64, n: u64) -> u64 {
        assert!(index < n, "index {index} of {n}");
        let half = (u64::BITS - (n - 1).leading_zeros()).div_ceil(2).max(1);
        let mask = (1u64 << half) - 1;
        let mut value = index;
        loop {
            let (mut left, mut right) = (value >> half, value & mask);
            for round in 1..=4u64 {
                let keyed = mix64(self.state ^ mix64(right ^ round.wrapping_mul(GOLDEN)));
                (left, right) = (right, left ^ (keyed & mask));
            }
            value = left << half | right;
            if value < n {
                return value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(slot: u64) -> Draw {
        Draw::new(1, 2, Purpose::SourceCrop, slot, 0)
    }

    #[test]
    fn every_coordinate_matters_and_none_is_a_running_state() {
        let base = Draw::new(1, 2, Purpose::SourceCrop, 3, 4).bits();
        assert_eq!(base, Draw::new(1, 2, Purpose::SourceCrop, 3, 4).bits());
        for other in [
            Draw::new(2, 2, Purpose::SourceCrop, 3, 4),
            Draw::new(1, 3, Purpose::SourceCrop, 3, 4),
            Draw::new(1, 2, Purpose::SourceFlip, 3, 4),
            Draw::new(1, 2, Purpose::SourceCrop, 4, 4),
            Draw::new(1, 2, Purpose::SourceCrop, 3, 5),
            Draw::new(2, 1, Purpose::SourceCrop, 3, 4),
            Draw::new(1, 2, Purpose::SourceCrop, 4, 3),
        ] {
            assert_ne!(base, other.clone().bits());
        }
    }

    #[test]
    fn the_hash_is_pinned() {
        // A different value here means that every recorded run changes.
        assert_eq!(Draw::new(1, 4000, Purpose::SourceClass, 0, 0).bits(), 0xf965_c955_8ab8_7a52);
    }

    #[test]
    fn integers_are_uniform() {
        let mut counts = [0u32; 7];
        for slot in 0..70_000 {
            counts[draw(slot).below(7)] += 1;
        }
        // The standard deviation is 93; allow six of them.
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 560), "{counts:?}");
        assert_eq!(draw(0).below(0), 0);
        assert_eq!(draw(0).range(5, 5), 5);
        assert!((0..500).any(|s| draw(s).range(3, 6) == 3));
        assert!((0..500).any(|s| draw(s).range(3, 6) == 6));
        assert!((0..500).all(|s| (3..=6).contains(&draw(s).range(3, 6))));
    }

    #[test]
    fn uniforms_fill_the_interval() {
        let values: Vec<f64> = (0..20_000).map(|s| draw(s).uniform()).collect();
        let mean = values.iter().sum::<f64>() / 20_000.0;
        assert!((mean - 0.5).abs() < 0.0125, "{mean}");
        assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
        assert!((0..1000).all(|s| (0.15..1.15).contains(&draw(s).range_f32(0.15, 1.15))));
        assert!((0..100).all(|s| !draw(s).chance(0.0) && draw(s).chance(1.0)));
    }

    #[test]
    fn two_positions_never_coincide_and_all_pairs_occur() {
        let mut seen = [[0u32; 4]; 4];
        for slot in 0..12_000 {
            let [a, b] = draw(slot).two_of(4);
            seen[a][b] += 1;
        }
        for (a, row) in seen.iter().enumerate() {
            for (b, &count) in row.iter().enumerate() {
                assert_eq!(count == 0, a == b, "{seen:?}");
                assert!(a == b || count.abs_diff(1000) < 190, "{seen:?}");
            }
        }
    }

    #[test]
    fn permutations_are_permutations() {
        for n in [1, 2, 3, 5, 64, 100, 1000] {
            let order: Vec<u64> = (0..n).map(|i| draw(7).permuted(i, n)).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..n), "{n}: {order:?}");
            if n >= 100 {
                assert!(!order.iter().copied().eq(0..n));
                assert_ne!(order, (0..n).map(|i| draw(8).permuted(i, n)).collect::<Vec<_>>());
            }
        }
    }
}
