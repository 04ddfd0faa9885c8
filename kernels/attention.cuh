// Tile sizes of attention, shared by its kernels and by the Rust code that launches them.
#pragma once
#include "dtype.cuh"

// Queries that a block processes at a time.
EXPORTED constexpr int64_t QUERIES = 32;
// Keys in a tile.
EXPORTED constexpr int64_t KEYS = 64;
// The channels of a packed head are padded to a multiple of this.
EXPORTED constexpr int64_t PAD = 32;
// Keys whose gradient partial sums a block adds at a time.
EXPORTED constexpr int64_t KEY_GROUP = 16;
// Bytes of padding after each row of a shared-memory tile, so that rows start in different banks.
EXPORTED constexpr int64_t ROW_PADDING = 16;
