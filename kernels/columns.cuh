// Column sums over the partial results (parts,channels) of a first pass. A block takes a group of
// neighboring columns. On the GPU its threads split the parts among themselves, which hides the
// latency of their loads. The order of the additions does not depend on the number of threads.
#pragma once
#include "pack.cuh"

// Columns of a group on the GPU: 32 bytes, the smallest memory transaction.
EXPORTED constexpr int64_t COLUMN_GROUP = 8;

#if defined(UDASS_SHAPED_FOR_GPU)
constexpr int64_t VECTORS = COLUMN_GROUP / PACK;  // packs of a group
constexpr int64_t SHARES = 64;  // slices of the parts, for each strip
#else
constexpr int64_t VECTORS = 1;
constexpr int64_t SHARES = 1;
#endif

// Calls f(first column) for each group of the block.
template <class V, class F>
DEVICE void each_group(int64_t channels, F f) {
    constexpr int64_t group = VECTORS * Width<V>::lanes;
    ROW_LOOP(g, (channels + group - 1) / group) f(g * group);
}

// Calls done(c, sum) for the columns of the group that begins at `first`, where
// sum = add(sum, p, c) is accumulated over all parts p, one pack of columns from c on at a time.
template <class V, class F, class G>
DEVICE void sum_parts(int64_t parts, int64_t channels, int64_t first, F add, G done) {
    constexpr int64_t lanes = Width<V>::lanes;
    SHARED(V, sums, SHARES * VECTORS);
    const int64_t columns = least_of(VECTORS * lanes, channels - first);
    BLOCK_LOOP(i, SHARES * VECTORS) {
        const int64_t j = i % VECTORS * lanes;
        V sum = all_lanes<V>(0);
        if (j < columns)
            for (int64_t p = i / VECTORS; p < parts; p += SHARES) sum = add(sum, p, first + j);
        sums[i] = sum;
    }
    barrier();
    const real* shares = reinterpret_cast<const real*>(sums);
    BLOCK_LOOP(j, columns) {
        real sum = 0;
        UNROLL for (int64_t s = 0; s < SHARES; ++s) sum += shares[s * VECTORS * lanes + j];
        done(first + j, sum);
    }
    barrier();  // the next call overwrites `sums`, and may read what `done` wrote
}

template <class V, class G>
DEVICE void each_sum_of(const real* partial, int64_t parts, int64_t channels, G done) {
    const auto add = [&](V sum, int64_t p, int64_t c) { return sum + Width<V>::load(partial + p * channels + c); };
    each_group<V>(channels, [&](int64_t first) { sum_parts<V>(parts, channels, first, add, done); });
}
// Calls done(c, Σ_p partial[p,c]) for the block's columns.
template <class G>
DEVICE void each_sum(const real* partial, int64_t parts, int64_t channels, G done) {
    if (channels % PACK == 0) each_sum_of<pack>(partial, parts, channels, done);
    else each_sum_of<real>(partial, parts, channels, done);
}
