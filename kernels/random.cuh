// Random numbers on the device: a pure function of (key, stream, element), so that a mask drawn in
// the forward pass is drawn again in the backward one, whatever the launch looks like.
//   key      drawn anew every step (src/uda/inputs)
//   stream   tells apart the places that draw within a step
//   element  index of the number
#pragma once
#include "simt.cuh"

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014), twice over the mixed words.
DEVICE uint64_t scrambled(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// Uniform in [0, 1), 24 bits.
DEVICE real uniform_of(uint64_t key, int64_t stream, int64_t element) {
    const uint64_t seeded = scrambled(key + 0x9E3779B97F4A7C15ull * static_cast<uint64_t>(stream + 1));
    const uint64_t bits = scrambled(seeded + 0x9E3779B97F4A7C15ull * static_cast<uint64_t>(element + 1));
    return static_cast<real>(bits >> 40) * static_cast<real>(1.0 / 16777216.0);
}
