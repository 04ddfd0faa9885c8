// For versions whose blocks had a whole part of a sum, where today's have one slice of its channels:
// the first block of a part does what the part's did then, the others nothing.
#pragma once
#include "simt.cuh"

struct Then {
    SoloLaunch launch = solo_launch;
    int64_t block = solo_block;
    explicit Then(int64_t slices) {
        solo_launch.count /= slices;
        solo_block /= slices;
    }
    ~Then() {
        solo_launch = launch;
        solo_block = block;
    }
};
#define AS_WHOLE_PARTS(slices)                   \
    if (block_index() % (slices) != 0) return;   \
    const Then then(slices)
