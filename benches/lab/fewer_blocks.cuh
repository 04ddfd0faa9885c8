// For versions whose grid had fewer blocks than today's: as many of today's, spread over the launch, do
// what those did, the others nothing.
#pragma once
#include "simt.cuh"

// The one of so many blocks that this one stands for, or -1.
DEVICE int64_t block_of_fewer(int64_t blocks) {
    const int64_t here = block_index() * blocks / block_count();
    const bool taken = block_index() > 0 && (block_index() - 1) * blocks / block_count() == here;
    return taken ? -1 : here;
}

struct Fewer {
    SoloLaunch launch = solo_launch;
    int64_t block = solo_block;
    Fewer(int64_t blocks, int64_t here) {
        solo_launch.count = blocks;
        solo_block = here;
    }
    ~Fewer() {
        solo_launch = launch;
        solo_block = block;
    }
};
#define AS_FEWER_BLOCKS(blocks)                                        \
    const int64_t fewer_blocks = (blocks);                             \
    const int64_t block_among_fewer = block_of_fewer(fewer_blocks);    \
    if (block_among_fewer < 0) return;                                 \
    const Fewer fewer(fewer_blocks, block_among_fewer)
