// Thread groups, for rows that are too short for a block: a block of up to MAX_GROUPS
// whole warps has one group per warp, each with its own rows; any other block is a single group.
//
//   GROUP_ROWS(r, n) { ... }    each r of the block's chunk of [0, n) that belongs to the group
//   GROUP_LOOP(i, n) { ... }    each i in [0, n), split among the threads of a group
//   group_sum(n, f)             the sum of f(i) over i in [0, n), computed by the threads of a group
//
// Groups do not wait for each other: a GROUP_ROWS contains no barrier except the one in group_sum. A
// thread gets the same i in every GROUP_LOOP with the same n, so it may read there what it wrote.
#pragma once
#include "simt.cuh"

// Largest number of thread groups in a block.
EXPORTED constexpr int64_t MAX_GROUPS = 8;

#define GROUP_ROWS(r, n)                                                                \
    for (int64_t r = chunk_begin(n) + group_index(), r##_n = chunk_end(n); r < r##_n; \
         r += group_step())
#define GROUP_LOOP(i, n) \
    UDASS_INDEPENDENT for (int64_t i = group_lane(), i##_n = (n); i < i##_n; i += group_size())

// Returns the size of a thread group in a block of `threads` threads.
DEVICE constexpr int64_t group_size_of(int64_t threads) {
    return threads % WARP == 0 && threads <= MAX_GROUPS * WARP ? WARP : threads;
}

#if defined(UDASS_THREADS)

DEVICE int64_t group_size() { return group_size_of(thread_count()); }
DEVICE int64_t group_count() { return thread_count() / group_size(); }
DEVICE int64_t group_index() { return thread_index() / group_size(); }
DEVICE int64_t group_lane() { return thread_index() % group_size(); }
DEVICE int64_t group_step() { return group_count(); }
// Returns the thread group of the block that has row r of n.
DEVICE int64_t group_of(int64_t, int64_t) { return group_index(); }

template <class F>
DEVICE real group_sum(int64_t n, F f) {
    if (group_size() != WARP) return block_sum(n, f);
    real mine[1] = {0};
    GROUP_LOOP(i, n) mine[0] += f(i);
    warp_sum(mine);
    return mine[0];
}

// A lane's N elements of a row of 32·N: every 32nd.
template <int64_t N>
struct RowRegisters {
    static constexpr int64_t count = N;
    real at[N];
};
// Loads them; `first` points to the lane's first element.
template <int64_t N, class E>
DEVICE RowRegisters<N> load_row(const E* first) {
    RowRegisters<N> row;
    UNROLL for (int64_t i = 0; i < N; ++i) row.at[i] = first[WARP * i];
    return row;
}

// Calls f(RowRegisters<N>()) and returns true if a group is a warp and a row has 32·N channels, for one of
// the values of N that the networks use. f then holds rows in registers. Returns false otherwise.
template <class F>
DEVICE bool rows_in_registers(int64_t channels, F f) {
    if (group_size() != WARP) return false;
    switch (channels) {
        case 1 * WARP: f(RowRegisters<1>()); return true;
        case 2 * WARP: f(RowRegisters<2>()); return true;
        case 4 * WARP: f(RowRegisters<4>()); return true;
        case 5 * WARP: f(RowRegisters<5>()); return true;
        case 8 * WARP: f(RowRegisters<8>()); return true;
        case 10 * WARP: f(RowRegisters<10>()); return true;
        case 16 * WARP: f(RowRegisters<16>()); return true;
        default: return false;
    }
}

#else  // one thread runs all groups, one after the other

DEVICE constexpr int64_t group_size() { return 1; }
DEVICE constexpr int64_t group_index() { return 0; }
DEVICE constexpr int64_t group_lane() { return 0; }
DEVICE constexpr int64_t group_step() { return 1; }

#if defined(UDASS_ORDERED)
DEVICE int64_t group_count() { return serial_launch.threads / group_size_of(serial_launch.threads); }
DEVICE int64_t group_of(int64_t r, int64_t n) { return (r - chunk_begin(n)) % group_count(); }
template <class F>
DEVICE real group_sum(int64_t n, F f) { return ordered_reduce<Sum>(group_size_of(serial_launch.threads), n, f); }
#else
DEVICE constexpr int64_t group_count() { return 1; }
DEVICE constexpr int64_t group_of(int64_t, int64_t) { return 0; }
template <class F>
DEVICE real group_sum(int64_t n, F f) { return block_sum(n, f); }
#endif

#endif
