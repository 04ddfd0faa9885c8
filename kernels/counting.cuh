// Histograms of integers: the one place for atomics, as the order of integer sums does not matter.
#pragma once
#include "simt.cuh"

// Adds one; threads of the block may share the counter, blocks may not. The loop around it must
// not be a BLOCK_LOOP or GRID_LOOP, whose iterations are taken to be independent.
DEVICE void count_one(int32_t* counter) {
#if defined(__CUDACC__)
    atomicAdd(counter, 1);
#elif defined(UDASS_LOCKSTEP)
    lockstep_add_one(counter);
#else
    ++*counter;
#endif
}
