// Teams, for rows that are short for a block: a block of up to MOST_TEAMS whole warps is as many
// teams, each with rows of its own; any other block is one team.
//
//   TEAM_ROWS(r, n) { ... }    for each r of the block's chunk of [0, n) that is the team's
//   TEAM_LOOP(i, n) { ... }    for each i in [0, n): by the threads of a team
//   team_sum(n, f)             the sum of f(i) over i in [0, n), by the threads of a team
//
// Teams do not wait for each other: in a TEAM_ROWS there is no barrier but team_sum's own. A thread
// meets the same i in every TEAM_LOOP over as many, so it may read there what it wrote.
#pragma once
#include "simt.cuh"

// Teams that a block may have.
EXPORTED constexpr int64_t MOST_TEAMS = 8;

#define TEAM_ROWS(r, n)                                                                \
    for (int64_t r = chunk_begin(n) + team_index(), r##_n = chunk_end(n); r < r##_n; \
         r += team_step())
#define TEAM_LOOP(i, n) \
    UDASS_INDEPENDENT for (int64_t i = team_lane(), i##_n = (n); i < i##_n; i += team_size())

// Of a team in a block of so many threads.
DEVICE constexpr int64_t team_size_of(int64_t threads) {
    return threads % WARP == 0 && threads <= MOST_TEAMS * WARP ? WARP : threads;
}

#if defined(UDASS_THREADS)

DEVICE int64_t team_size() { return team_size_of(thread_count()); }
DEVICE int64_t team_count() { return thread_count() / team_size(); }
DEVICE int64_t team_index() { return thread_index() / team_size(); }
DEVICE int64_t team_lane() { return thread_index() % team_size(); }
DEVICE int64_t team_step() { return team_count(); }
// Which team of the block has row r of n.
DEVICE int64_t team_of(int64_t, int64_t) { return team_index(); }

template <class F>
DEVICE real team_sum(int64_t n, F f) {
    if (team_size() != WARP) return block_sum(n, f);
    real mine[1] = {0};
    TEAM_LOOP(i, n) mine[0] += f(i);
    warp_sum(mine);
    return mine[0];
}

// A lane's N numbers of a row of 32·N: every 32nd.
template <int64_t N>
struct Held {
    static constexpr int64_t count = N;
    real at[N];
};
// Reads them, from where the lane's first one stands.
template <int64_t N, class E>
DEVICE Held<N> held(const E* first) {
    Held<N> row;
    UNROLL for (int64_t i = 0; i < N; ++i) row.at[i] = first[WARP * i];
    return row;
}

// Calls f(Held<N>()) where a team is a warp and rows have 32·N numbers, N one of the networks'. For a
// body that holds rows in registers; false says that there is none for these.
template <class F>
DEVICE bool rows_in_registers(int64_t channels, F f) {
    if (team_size() != WARP) return false;
    switch (channels) {
        case 1 * WARP: f(Held<1>()); return true;
        case 2 * WARP: f(Held<2>()); return true;
        case 4 * WARP: f(Held<4>()); return true;
        case 5 * WARP: f(Held<5>()); return true;
        case 8 * WARP: f(Held<8>()); return true;
        case 10 * WARP: f(Held<10>()); return true;
        case 16 * WARP: f(Held<16>()); return true;
        default: return false;
    }
}

#else  // one thread is all teams, one after another

DEVICE constexpr int64_t team_size() { return 1; }
DEVICE constexpr int64_t team_index() { return 0; }
DEVICE constexpr int64_t team_lane() { return 0; }
DEVICE constexpr int64_t team_step() { return 1; }

#if defined(UDASS_ORDERED)
DEVICE int64_t team_count() { return solo_launch.threads / team_size_of(solo_launch.threads); }
DEVICE int64_t team_of(int64_t r, int64_t n) { return (r - chunk_begin(n)) % team_count(); }
template <class F>
DEVICE real team_sum(int64_t n, F f) { return ordered_reduce<Sum>(team_size_of(solo_launch.threads), n, f); }
#else
DEVICE constexpr int64_t team_count() { return 1; }
DEVICE constexpr int64_t team_of(int64_t, int64_t) { return 0; }
template <class F>
DEVICE real team_sum(int64_t n, F f) { return block_sum(n, f); }
#endif

#endif
