// Vector loads and stores. A pack is a vector of adjacent elements that one thread computes
// together, so that its other loads are shared by all of them. It is a vector register in the
// serial CPU build, and four numbers on the GPU.
//
// On the GPU, the address of a pack must be a multiple of its size. Tensors are aligned, so this
// holds if the row length is a multiple of PACK.
#pragma once
#include "simt.cuh"

#if defined(UDASS_SHAPED_FOR_GPU)

#define LANES UNROLL
constexpr int64_t PACK = 4;

struct alignas(PACK * sizeof(real)) pack {
    real lanes[PACK];
};
MATH real* lanes_of(pack& s) { return s.lanes; }
MATH const real* lanes_of(const pack& s) { return s.lanes; }

// PACK elements of type E, loaded or stored by one instruction.
template <class E>
struct alignas(PACK * sizeof(E)) packed {
    E lanes[PACK];
};
template <class E>
MATH void expect_aligned(const E* p) {
#if defined(UDASS_EMULATED)
    emulator_aligned(p, sizeof(packed<E>));
#else
    (void)p;
#endif
}
template <class E>
MATH pack load_pack(const E* p) {
    expect_aligned(p);
    const packed<E> all = *reinterpret_cast<const packed<E>*>(p);
    pack s;
    LANES for (int64_t i = 0; i < PACK; ++i) s.lanes[i] = all.lanes[i];
    return s;
}
template <class E>
MATH void store(E* p, pack s) {
    expect_aligned(p);
    packed<E> all;
    LANES for (int64_t i = 0; i < PACK; ++i) all.lanes[i] = s.lanes[i];
    *reinterpret_cast<packed<E>*>(p) = all;
}

#else

#define LANES _Pragma("omp simd")
#if defined(__AVX512F__)
#define PACK_BYTES 64
#elif defined(__AVX__)
#define PACK_BYTES 32
#else
#define PACK_BYTES 16
#endif
constexpr int64_t PACK = PACK_BYTES / sizeof(real);

typedef real pack __attribute__((vector_size(PACK_BYTES)));
typedef real pack_in_memory __attribute__((vector_size(PACK_BYTES), aligned(sizeof(real)), may_alias));
MATH real* lanes_of(pack& s) { return reinterpret_cast<real*>(&s); }
MATH const real* lanes_of(const pack& s) { return reinterpret_cast<const real*>(&s); }
MATH pack load_pack(const real* p) { return *reinterpret_cast<const pack_in_memory*>(p); }
MATH void store(real* p, pack s) { *reinterpret_cast<pack_in_memory*>(p) = s; }
#if defined(UDASS_BF16)
MATH pack load_pack(const bf16* p) {
    pack s;
    LANES for (int64_t i = 0; i < PACK; ++i) lanes_of(s)[i] = p[i];
    return s;
}
MATH void store(bf16* p, pack s) {
    LANES for (int64_t i = 0; i < PACK; ++i) p[i] = lanes_of(s)[i];
}
#endif

#endif

// Kernels are templates over V: a pack, or a single number if PACK does not divide the row
// length.
template <class V>
struct Width {
    static constexpr int64_t lanes = PACK;
    template <class E>
    MATH pack load(const E* p) { return load_pack(p); }
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
        LANES for (int64_t i = 0; i < PACK; ++i) lanes_of(v)[i] = f(i);
    }
    return v;
}
// Packs are passed by value: a reference to an element would keep an array of packs out of
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

MATH pack fma_of(pack a, pack b, pack c) {
    return each_lane<pack>([&](int64_t i) { return fma_of(lanes_of(a)[i], lanes_of(b)[i], lanes_of(c)[i]); });
}
MATH pack fma_of(real a, pack b, pack c) {
    return each_lane<pack>([&](int64_t i) { return fma_of(a, lanes_of(b)[i], lanes_of(c)[i]); });
}
#if defined(UDASS_SHAPED_FOR_GPU)  // built in for the serial CPU build's vectors
MATH pack operator+(pack a, pack b) {
    return each_lane<pack>([&](int64_t i) { return a.lanes[i] + b.lanes[i]; });
}
MATH pack operator-(pack a, pack b) {
    return each_lane<pack>([&](int64_t i) { return a.lanes[i] - b.lanes[i]; });
}
MATH pack operator*(pack a, pack b) {
    return each_lane<pack>([&](int64_t i) { return a.lanes[i] * b.lanes[i]; });
}
#endif

// Prefetches a pack that is read or written soon. A GPU hides the latency with other threads
// instead.
template <class E>
MATH void expect(const E* p) {
#if !defined(UDASS_SHAPED_FOR_GPU)
    __builtin_prefetch(p, 1);
#else
    (void)p;
#endif
}
