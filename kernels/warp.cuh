// Warp operations (32 lanes), on the GPU and in the block emulator, where all lanes of a warp meet
// in an exchange. They require a block of whole warps. Included by simt.cuh.
#pragma once

DEVICE int64_t lane_index() { return thread_index() % WARP; }
DEVICE int64_t warp_index() { return thread_index() / WARP; }
DEVICE int64_t warp_count() { return thread_count() / WARP; }

#if defined(__CUDACC__)

// Returns the value that lane `from` holds.
template <class V>
DEVICE V shuffled(V mine, int64_t from) { return __shfl_sync(0xFFFFFFFFu, mine, static_cast<int>(from)); }
// Returns the value of the lane whose index differs from this one's in the bits of `mask`.
template <class V>
DEVICE V shuffled_across(V mine, int64_t mask) { return __shfl_xor_sync(0xFFFFFFFFu, mine, static_cast<int>(mask)); }
// Returns one bit for each lane whose `mine` is true.
DEVICE uint32_t voted(bool mine) { return __ballot_sync(0xFFFFFFFFu, mine); }
DEVICE void warp_barrier() { __syncwarp(); }

#else  // block emulator

template <class V>
DEVICE const V* exchanged(V mine) {
    return static_cast<const V*>(emulator_exchange(&mine, sizeof mine));
}

template <class V>
UNWATCHED static V lane_of(const V* lanes, int64_t from) { return lanes[from]; }
UNWATCHED static uint32_t bits_of(const bool* lanes) {
    uint32_t bits = 0;
    for (int l = 0; l < WARP; ++l) bits |= static_cast<uint32_t>(lanes[l]) << l;
    return bits;
}
template <class V>
DEVICE V shuffled(V mine, int64_t from) { return lane_of(exchanged(mine), from); }
template <class V>
DEVICE V shuffled_across(V mine, int64_t mask) { return shuffled(mine, lane_index() ^ mask); }
DEVICE uint32_t voted(bool mine) { return bits_of(exchanged(mine)); }
DEVICE void warp_barrier() { emulator_exchange(nullptr, 0); }

#endif

// Combines the values of the first `live` lanes in the order of block_combine; lane 0 gets the
// result.
template <class C>
DEVICE real warp_combine(real mine, int64_t live) {
    for (int64_t half; live > 1; live = half) {
        half = (live + 1) / 2;
        const real other = shuffled(mine, (lane_index() + half) % WARP);
        if (lane_index() + half < live) mine = C::of(mine, other);
    }
    return mine;
}

// K sums over a warp at once, in the order of block_combine. Every lane gets the same sums, because
// addition is commutative.
template <int64_t K>
DEVICE void warp_sum(real (&mine)[K]) {
    UNROLL for (int64_t half = WARP / 2; half > 0; half /= 2) {
        UNROLL for (int64_t k = 0; k < K; ++k) mine[k] += shuffled_across(mine[k], half);
    }
}
