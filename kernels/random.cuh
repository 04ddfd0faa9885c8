// Counter-based random numbers: a pure function of (key, stream, element). The backward can
// therefore regenerate the forward's mask, and the numbers do not depend on the launch
// configuration.
//   key      new for every step (src/uda/inputs.rs)
//   stream   distinguishes the uses within a step
//   element  index of the number
#pragma once
#include "simt.cuh"

// The finalizer of SplitMix64 (Steele, Lea & Flood 2014). uniform_of applies it twice.
DEVICE uint64_t scrambled(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// Uniform in [0, 1), with 24 bits.
DEVICE real uniform_of(uint64_t key, int64_t stream, int64_t element) {
    const uint64_t seeded = scrambled(key + 0x9E3779B97F4A7C15ull * static_cast<uint64_t>(stream + 1));
    const uint64_t bits = scrambled(seeded + 0x9E3779B97F4A7C15ull * static_cast<uint64_t>(element + 1));
    return static_cast<real>(bits >> 40) * static_cast<real>(1.0 / 16777216.0);
}

// The slot of a process's sample b in the whole batch, to which its random numbers belong. A process
// holds `count` of every `all` slots, from `first` on; a batch of several passes has them repeatedly.
DEVICE int64_t slot_of(int64_t b, int64_t first, int64_t count, int64_t all) {
    return b / count * all + first + b % count;
}
