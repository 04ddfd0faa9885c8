// Histograms of integers. Only these use atomics: the order of integer additions does not matter.
#pragma once
#include "simt.cuh"

// Adds one. Threads of a block may share the counter, but blocks may not. The enclosing loop must
// not be a BLOCK_LOOP or GRID_LOOP, whose iterations are assumed to be independent.
DEVICE void count_one(int32_t* counter) {
#if defined(__CUDACC__)
    atomicAdd(counter, 1);
#elif defined(UDASS_EMULATED)
    emulator_add_one(counter);
#else
    ++*counter;
#endif
}
