//! The registers of a warp: each holds a value for every lane.

use crate::op::{Either, Long, Predicate, Slot, Target, Word};

/// Lanes of a warp.
pub const LANES: usize = 32;
/// The mask of all lanes.
pub const FULL: u32 = !0;

pub type Words = [u32; LANES];
pub type Longs = [u64; LANES];

/// Returns the lanes in a mask.
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}

/// Returns the mask of the lanes for which `f` is true.
pub fn mask_of(f: impl Fn(usize) -> bool) -> u32 {
    (0..LANES).fold(0, |mask, lane| mask | u32::from(f(lane)) << lane)
}

/// The register files of a warp.
#[derive(Default)]
pub struct Registers {
    words: Vec<Words>,
    longs: Vec<Longs>,
    /// One bit for each lane.
    predicates: Vec<u32>,
}

impl Registers {
    pub fn new(words: u32, longs: u32, predicates: u32) -> Registers {
        Registers {
            words: vec![[0; LANES]; words as usize],
            longs: vec![[0; LANES]; longs as usize],
            predicates: vec![0; predicates as usize],
        }
    }

    pub fn word(&self, word: Word) -> Words {
        match word {
            Word::Register(slot) => self.words[slot as usize],
            Word::Constant(value) => [value; LANES],
        }
    }

    pub fn long(&self, long: Long) -> Longs {
        match long {
            Long::Register(slot) => self.longs[slot as usize],
            Long::Constant(value) => [value; LANES],
        }
    }

    /// Returns a value of either file, zero-extended.
    pub fn extended(&self, either: Either) -> Longs {
        match either {
            Either::Word(word) => self.word(word).map(u64::from),
            Either::Long(long) => self.long(long),
        }
    }

    /// Returns the low halves of a value of either file.
    pub fn truncated(&self, either: Either) -> Words {
        match either {
            Either::Word(word) => self.word(word),
            Either::Long(long) => self.long(long).map(|x| x as u32),
        }
    }

    pub fn predicate(&self, predicate: Predicate) -> u32 {
        match predicate {
            Predicate::Register { slot, negated } => {
                self.predicates[slot as usize] ^ if negated { FULL } else { 0 }
            }
            Predicate::Constant(value) => {
                if value {
                    FULL
                } else {
                    0
                }
            }
        }
    }

    pub fn set_word(&mut self, slot: Slot, mask: u32, value: &Words) {
        let d = &mut self.words[slot as usize];
        match mask {
            FULL => *d = *value,
            _ => lanes(mask).for_each(|lane| d[lane] = value[lane]),
        }
    }

    pub fn set_long(&mut self, slot: Slot, mask: u32, value: &Longs) {
        let d = &mut self.longs[slot as usize];
        match mask {
            FULL => *d = *value,
            _ => lanes(mask).for_each(|lane| d[lane] = value[lane]),
        }
    }

    /// Sets a register of either file; a word takes the low half.
    pub fn set(&mut self, target: Target, mask: u32, value: &Longs) {
        match target {
            Target::Word(slot) => self.set_word(slot, mask, &value.map(|x| x as u32)),
            Target::Long(slot) => self.set_long(slot, mask, value),
        }
    }

    pub fn set_lane(&mut self, target: Target, lane: usize, value: u64) {
        match target {
            Target::Word(slot) => self.words[slot as usize][lane] = value as u32,
            Target::Long(slot) => self.longs[slot as usize][lane] = value,
        }
    }

    pub fn set_predicate(&mut self, slot: Slot, mask: u32, value: u32) {
        let d = &mut self.predicates[slot as usize];
        *d = (*d & !mask) | (value & mask);
    }
}
