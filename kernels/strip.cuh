// Vector loads and stores. A strip is a vector (pack) of adjacent elements that one thread computes
// together, so that its other loads are shared by all of them. It is a vector register in the
// serial CPU build, and four numbers on the GPU.
//
// On the GPU, the address of a strip must be a multiple of its size. Tensors are aligned, so this
// holds if the row length is a multiple of STRIP.
#pragma once
#include "simt.cuh"

#if defined(UDASS_SHAPED_FOR_GPU)

#define LANES UNROLL
constexpr int64_t STRIP = 4;

struct alignas(STRIP * sizeof(real)) strip {
    real lanes[STRIP];
};
MATH real* lanes_of(strip& s) { return s.lanes; }
MATH const real* lanes_of(const strip& s) { return s.lanes; }

// STRIP elements of type E, loaded or stored by one instruction.
template <class E>
struct alignas(STRIP * sizeof(E)) packed {
    E lanes[STRIP];
};
template <class E>
MATH void expect_aligned(const E* p) {
#if defined(UDASS_LOCKSTEP)
    lockstep_aligned(p, sizeof(packed<E>));
#else
    (void)p;
#endif
}
template <class E>
MATH strip load_strip(const E* p) {
    expect_aligned(p);
    const packed<E> all = *reinterpret_cast<const packed<E>*>(p);
    strip s;
    LANES for (int64_t i = 0; i < STRIP; ++i) s.lanes[i] = all.lanes[i];
    return s;
}
template <class E>
MATH void store(E* p, strip s) {
    expect_aligned(p);
    packed<E> all;
    LANES for (int64_t i = 0; i < STRIP; ++i) all.lanes[i] = s.lanes[i];
    *reinterpret_cast<packed<E>*>(p) = all;
}

#else

#define LANES _Pragma("omp simd")
#if defined(__AVX512F__)
#define STRIP_BYTES 64
#elif defined(__AVX__)
#define STRIP_BYTES 32
#else
#define STRIP_BYTES 16
#endif
constexpr int64_t STRIP = STRIP_BYTES / sizeof(real);

typedef real strip __attribute__((vector_size(STRIP_BYTES)));
typedef real strip_in_memory __attribute__((vector_size(STRIP_BYTES), aligned(sizeof(real)), may_alias));
MATH real* lanes_of(strip& s) { return reinterpret_cast<real*>(&s); }
MATH const real* lanes_of(const strip& s) { return reinterpret_cast<const real*>(&s); }
MATH strip load_strip(const real* p) { return *reinterpret_cast<const strip_in_memory*>(p); }
MATH void store(real* p, strip s) { *reinterpret_cast<strip_in_memory*>(p) = s; }
#if defined(UDASS_BF16)
MATH strip load_strip(const bf16* p) {
    strip s;
    LANES for (int64_t i = 0; i < STRIP; ++i) lanes_of(s)[i] = p[i];
    return s;
}
MATH void store(bf16* p, strip s) {
    LANES for (int64_t i = 0; i < STRIP; ++i) p[i] = lanes_of(s)[i];
}
#endif

#endif

// Kernels are templates over V: a strip, or a single number if STRIP does not divide the row
// length.
template <class V>
struct Width {
    static constexpr int64_t lanes = STRIP;
    template <class E>
    MATH strip load(const E* p) { return load_strip(p); }
};
template <>
struct Width<real> {
    static constexpr int64_t lanes = 1;
    template <class E>
    MATH real load(const E* p) { return *p; }
};
template <class E>
MATH void store(E* p, real x) { *p = x; }

// Returns the vector with f(i) in lane i.
template <class V, class F>
MATH V each_lane(F f) {
    V v;
    if constexpr (Width<V>::lanes == 1) {
        v = f(0);
    } else {
        LANES for (int64_t i = 0; i < STRIP; ++i) lanes_of(v)[i] = f(i);
    }
    return v;
}
// Strips are passed by value: a reference to an element would keep an array of strips out of
// registers.
template <class V, class F>
MATH V map_lanes(V a, F f) {
    if constexpr (Width<V>::lanes == 1) return f(a);
    else return each_lane<V>([&](int64_t i) { return f(lanes_of(a)[i]); });
}
template <class V>
MATH V all_lanes(real x) {
    return each_lane<V>([&](int64_t) { return x; });
}

MATH strip fma_of(strip a, strip b, strip c) {
    return each_lane<strip>([&](int64_t i) { return fma_of(lanes_of(a)[i], lanes_of(b)[i], lanes_of(c)[i]); });
}
MATH strip fma_of(real a, strip b, strip c) {
    return each_lane<strip>([&](int64_t i) { return fma_of(a, lanes_of(b)[i], lanes_of(c)[i]); });
}
#if defined(UDASS_SHAPED_FOR_GPU)  // built in for the serial CPU build's vectors
MATH strip operator+(strip a, strip b) {
    return each_lane<strip>([&](int64_t i) { return a.lanes[i] + b.lanes[i]; });
}
MATH strip operator-(strip a, strip b) {
    return each_lane<strip>([&](int64_t i) { return a.lanes[i] - b.lanes[i]; });
}
MATH strip operator*(strip a, strip b) {
    return each_lane<strip>([&](int64_t i) { return a.lanes[i] * b.lanes[i]; });
}
#endif

// Prefetches a strip that is read or written soon. A GPU hides the latency with other threads
// instead.
template <class E>
MATH void expect(const E* p) {
#if !defined(UDASS_SHAPED_FOR_GPU)
    __builtin_prefetch(p, 1);
#else
    (void)p;
#endif
}
