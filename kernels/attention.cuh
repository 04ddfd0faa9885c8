// Sizes of attention's tiles, which its kernels share with each other and with their launches.
#pragma once
#include "dtype.cuh"

// Queries that a block takes at a time.
EXPORTED constexpr int64_t QUERIES = 32;
// Keys of a tile.
EXPORTED constexpr int64_t KEYS = 64;
// Channels of a packed head are padded to a multiple of it.
EXPORTED constexpr int64_t PAD = 32;
// Keys whose gradient a block adds up at a time.
EXPORTED constexpr int64_t KEY_GROUP = 16;
// A row of a tile in shared memory is longer by as many bytes, so that rows start in different banks.
EXPORTED constexpr int64_t ROW_PADDING = 16;
