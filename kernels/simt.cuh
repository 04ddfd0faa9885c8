// The execution model: how a kernel runs on each device.
//
// A kernel is written once, for a block of any number of threads, and built three times:
//   - by nvcc for the GPU;
//   - by the host compiler as the *serial CPU build*: a block has one thread, barriers disappear,
//     and the blocks of a launch are spread over the CPU's cores. Loops over a block's elements
//     become plain loops, which the compiler vectorizes;
//   - by the host compiler for the *block emulator* (tests): a block's threads are coroutines that
//     run in random order between barriers, and every memory access is checked (emulator.cuh).
//
// These rules keep the three equivalent (docs/kernels.md):
//   - every loop over elements is a GRID_LOOP or a BLOCK_LOOP, with 64-bit indices;
//   - no thread returns before a barrier;
//   - values that must survive a barrier are in shared memory;
//   - threads cooperate only through the collectives below;
//   - no atomics on floats: a backward gathers, which makes it deterministic.
#pragma once
#include "dtype.cuh"
#include "math.cuh"

#define UDASS_PASTE_(a, b) a##_##b
#define UDASS_PASTE(a, b) UDASS_PASTE_(a, b)
// The symbol of a kernel: its name and the number types it is built for.
#define SYMBOL(name) UDASS_PASTE(name, UDASS_SUFFIX)

// Each i in [0, n), split among the threads of a block:
//   BLOCK_LOOP(i, n) { ... }
// Each i in [0, n), split among all threads of the launch. A block owns one contiguous chunk, so
// that the serial CPU build walks memory in order and a warp's accesses coalesce:
//   GRID_LOOP(i, n) { ... }
// In both, iterations must not depend on each other.
// Each r in the block's chunk of [0, n), one after the other, by all threads of the block together:
//   ROW_LOOP(r, n) { ... }
#if defined(__CUDACC__)
#define UDASS_INDEPENDENT
#else
#define UDASS_INDEPENDENT _Pragma("GCC ivdep")
#endif
#define BLOCK_LOOP(i, n) \
    UDASS_INDEPENDENT for (int64_t i = thread_index(), i##_n = (n); i < i##_n; i += thread_count())
#define GRID_LOOP(i, n)                                                                      \
    UDASS_INDEPENDENT for (int64_t i = chunk_begin(n) + thread_index(), i##_n = chunk_end(n); \
                           i < i##_n; i += thread_count())
#define ROW_LOOP(r, n) for (int64_t r = chunk_begin(n), r##_n = chunk_end(n); r < r##_n; ++r)

// Unrolls the loop that follows, whose bounds are constants.
#if defined(UDASS_SHAPED_FOR_GPU)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

constexpr int64_t WARP = 32;

#if defined(__CUDACC__)

#define DEVICE static __device__ __forceinline__
// Launch bounds, which limit a kernel's registers: a file may redefine this before a kernel, as
// __launch_bounds__(threads, blocks per multiprocessor).
#define LAUNCH_BOUNDS
#define KERNEL(name, ...) extern "C" __global__ void LAUNCH_BOUNDS SYMBOL(name)(__VA_ARGS__)
// Declares a shared-memory array of the block; `n` is a constant.
#define SHARED(type, name, n) __shared__ type name[n]

DEVICE int64_t thread_index() { return threadIdx.x; }
DEVICE int64_t thread_count() { return blockDim.x; }
DEVICE int64_t block_index() { return blockIdx.x; }
DEVICE int64_t block_count() { return gridDim.x; }
DEVICE void barrier() { __syncthreads(); }

// Returns the dynamic shared memory of the launch.
DEVICE void* shared_memory() {
    extern __shared__ __align__(16) unsigned char udass_shared[];
    return udass_shared;
}

#elif defined(UDASS_EMULATED)
#include "emulator.cuh"
#else  // serial CPU build

#include <utility>

#define DEVICE static inline __attribute__((always_inline, unused))
#define SHARED(type, name, n) type name[n]

// The range of blocks that one call runs; src/device/host passes it.
struct SerialLaunch {
    int64_t begin, end;  // blocks to run
    int64_t count;       // blocks in the grid
    void* shared;        // dynamic shared memory, used by one block at a time
#if defined(UDASS_ORDERED)
    int64_t threads;  // threads of the emulated block, which determine the order of additions
#endif
};
static thread_local SerialLaunch serial_launch __attribute__((unused));
static thread_local int64_t serial_block __attribute__((unused));

template <auto body, class... A, size_t... I>
static inline void serial_call(void (*)(A...), void** args, std::index_sequence<I...>) {
    body(*static_cast<A*>(args[I])...);
}
template <auto body, class... A>
static inline void serial_run(void (*signature)(A...), void** args, const SerialLaunch* launch) {
    serial_launch = *launch;
    for (serial_block = launch->begin; serial_block < launch->end; ++serial_block)
        serial_call<body>(signature, args, std::index_sequence_for<A...>{});
}
#define KERNEL(name, ...)                                                        \
    static void name##_body(__VA_ARGS__);                                        \
    extern "C" void SYMBOL(name)(void** args, const SerialLaunch* launch) {        \
        serial_run<name##_body>(name##_body, args, launch);                        \
    }                                                                            \
    static void name##_body(__VA_ARGS__)

DEVICE constexpr int64_t thread_index() { return 0; }
DEVICE constexpr int64_t thread_count() { return 1; }
DEVICE int64_t block_index() { return serial_block; }
DEVICE int64_t block_count() { return serial_launch.count; }
DEVICE void barrier() {}
DEVICE void* shared_memory() { return serial_launch.shared; }

#endif

// Reduction operators: how to combine two values, and the initial value.
struct Sum {
    static constexpr real start = 0;
    MATH real of(real a, real b) { return a + b; }
};
struct Largest {
    static constexpr real start = -REAL_MAX;
    MATH real of(real a, real b) { return max_of(a, b); }
};

#if defined(UDASS_THREADS)
#include "warp.cuh"

// Combines one value per thread in a fixed order, by halving; every thread gets the result.
template <class C>
DEVICE real block_combine(real mine) {
    SHARED(real, scratch, 1024);
    const int64_t me = thread_index();
    const bool in_warps = thread_count() % WARP == 0;
    int64_t live = thread_count();
    scratch[me] = mine;
    barrier();
    // The last steps run within one warp and need no barrier.
    for (int64_t half; live > (in_warps ? WARP : 1); live = half) {
        half = (live + 1) / 2;
        if (me + half < live) scratch[me] = mine = C::of(mine, scratch[me + half]);
        barrier();
    }
    if (in_warps) {
        if (warp_index() == 0) mine = warp_combine<C>(mine, live);
        if (me == 0) scratch[0] = mine;
        barrier();
    }
    const real result = scratch[0];
    barrier();  // the caller may reuse the scratch immediately
    return result;
}

// Combines f(i) over i in [0, n) in a fixed order; every thread gets the result.
template <class C, class F>
DEVICE real block_reduce(int64_t n, F f) {
    real mine = C::start;
    BLOCK_LOOP(i, n) mine = C::of(mine, f(i));
    return block_combine<C>(mine);
}

#elif defined(UDASS_ORDERED)

// Combines in the order in which `threads` threads would: the reference for the block emulator.
template <class C, class F>
DEVICE real ordered_reduce(int64_t threads, int64_t n, F f) {
    real lane[1024];
    for (int64_t t = 0; t < threads; ++t) {
        lane[t] = C::start;
        for (int64_t i = t; i < n; i += threads) lane[t] = C::of(lane[t], f(i));
    }
    for (int64_t live = threads, half; live > 1; live = half) {
        half = (live + 1) / 2;
        for (int64_t t = 0; t + half < live; ++t) lane[t] = C::of(lane[t], lane[t + half]);
    }
    return lane[0];
}
template <class C, class F>
DEVICE real block_reduce(int64_t n, F f) { return ordered_reduce<C>(serial_launch.threads, n, f); }

#else

// Sixteen interleaved lanes, then a tree: an order of additions that vector units of any width can
// follow.
template <class C, class F>
DEVICE real block_reduce(int64_t n, F f) {
    real lane[16];
    for (int64_t j = 0; j < 16; ++j) lane[j] = C::start;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
#pragma omp simd
        for (int64_t j = 0; j < 16; ++j) lane[j] = C::of(lane[j], f(i + j));
    }
    for (int64_t j = 0; j < 16 && i < n; ++i, ++j) lane[j] = C::of(lane[j], f(i));
    for (int64_t half = 8; half > 0; half /= 2)
        for (int64_t j = 0; j < half; ++j) lane[j] = C::of(lane[j], lane[j + half]);
    return lane[0];
}

#endif

// The sum of f(i) over i in [0, n), computed by the threads of a block.
template <class F>
DEVICE real block_sum(int64_t n, F f) { return block_reduce<Sum>(n, f); }

// The maximum of f(i) over i in [0, n), or -REAL_MAX if n is 0.
template <class F>
DEVICE real block_max(int64_t n, F f) { return block_reduce<Largest>(n, f); }

// The chunk of [0, n) that this block owns in a GRID_LOOP or ROW_LOOP.
DEVICE int64_t chunk_begin(int64_t n) {
    const int64_t chunk = (n + block_count() - 1) / block_count();
    return least_of(chunk * block_index(), n);
}
DEVICE int64_t chunk_end(int64_t n) {
    const int64_t chunk = (n + block_count() - 1) / block_count();
    return least_of(chunk * (block_index() + 1), n);
}

// Value to add to when storing a gradient: the first writer overwrites, later ones accumulate.
DEVICE real accumulated(const real* destination, int64_t i, bool accumulate) {
    return accumulate ? destination[i] : real(0);
}
