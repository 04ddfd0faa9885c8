// Vector loads and stores. A pack is a vector of adjacent elements that one thread computes
// together, so that its other loads are shared by all of them. It is a vector register in the
// serial CPU build, and four numbers on the GPU, or the numbers of T in 16 bytes (`wide`).
//
// On the GPU, the address of a pack must be a multiple of its size. Tensors are aligned, so this
// holds if the row length is a multiple of PACK, or of WIDE.
#pragma once
#include "simt.cuh"

#if defined(UDASS_SHAPED_FOR_GPU)

#define LANES UNROLL
constexpr int64_t PACK = 4;

// N numbers that one thread computes together.
template <int64_t N>
struct alignas(N * sizeof(real)) Pack {
    real lanes[N];
};
using pack = Pack<PACK>;
template <int64_t N>
MATH real* lanes_of(Pack<N>& s) { return s.lanes; }
template <int64_t N>
MATH const real* lanes_of(const Pack<N>& s) { return s.lanes; }

// N elements of type E, loaded or stored by one instruction for every 16 bytes.
template <class E, int64_t N>
struct alignas(N * sizeof(E)) packed {
    E lanes[N];
};
template <int64_t N, class E>
MATH void expect_aligned(const E* p) {
#if defined(UDASS_EMULATED)
    emulator_aligned(p, sizeof(packed<E, N>));
#else
    (void)p;
#endif
}
template <int64_t N = PACK, class E>
MATH Pack<N> load_pack(const E* p) {
    expect_aligned<N>(p);
    const packed<E, N> all = *reinterpret_cast<const packed<E, N>*>(p);
    Pack<N> s;
    LANES for (int64_t i = 0; i < N; ++i) s.lanes[i] = all.lanes[i];
    return s;
}
template <class E, int64_t N>
MATH void store(E* p, Pack<N> s) {
    expect_aligned<N>(p);
    packed<E, N> all;
    LANES for (int64_t i = 0; i < N; ++i) all.lanes[i] = s.lanes[i];
    *reinterpret_cast<packed<E, N>*>(p) = all;
}

#if defined(__CUDACC__) && defined(UDASS_F32)
// nvcc may split the store of a structure into one for each member.
MATH void store(float* p, pack s) {
    asm volatile("st.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"(s.lanes[0]), "f"(s.lanes[1]), "f"(s.lanes[2]), "f"(s.lanes[3]) : "memory");
}
#endif
#if defined(__CUDACC__) && defined(UDASS_BF16)
// N numbers in words of two, which one instruction packs.
template <int64_t N>
struct alignas(N * sizeof(bf16)) Words {
    uint32_t at[N / 2];
};
template <int64_t N = PACK>
MATH Pack<N> load_pack(const bf16* p) {
    const Words<N> words = *reinterpret_cast<const Words<N>*>(p);
    Pack<N> s;
    LANES for (int64_t i = 0; i < N / 2; ++i) {
        s.lanes[2 * i] = __uint_as_float(words.at[i] << 16);
        s.lanes[2 * i + 1] = __uint_as_float(words.at[i] & 0xFFFF0000u);
    }
    return s;
}
template <int64_t N>
MATH void store(bf16* p, Pack<N> s) {
    Words<N> words;
    LANES for (int64_t i = 0; i < N / 2; ++i)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(words.at[i]) : "f"(s.lanes[2 * i + 1]), "f"(s.lanes[2 * i]));
    // nvcc may split the store of a structure into one for each member.
    if constexpr (N == 4) *reinterpret_cast<uint64_t*>(p) = static_cast<uint64_t>(words.at[1]) << 32 | words.at[0];
    else *reinterpret_cast<Words<N>*>(p) = words;
}
#endif

// Numbers of T in 16 bytes, the widest access; four in double precision. For kernels that do little
// else than move memory.
#if defined(UDASS_BF16)
constexpr int64_t WIDE = 8;
#else
constexpr int64_t WIDE = 4;
#endif
using wide = Pack<WIDE>;
// The same of the compute type.
using wide_real = pack;

// Copies a vector V of numbers as they are, or writes zeros if `here` is false.
template <class V>
MATH void copy_if(bool here, const T* from, T* to) {
    constexpr int64_t N = sizeof(V) / sizeof(real);
#if defined(__CUDACC__) && defined(UDASS_BF16)
    using Raw = Words<N>;
#else
    using Raw = packed<T, N>;
#endif
    if constexpr (N == 1) {
        *to = here ? *from : T(real(0));
    } else {
        expect_aligned<N>(to);
        Raw all = {};
        if (here) {
            expect_aligned<N>(from);
            all = *reinterpret_cast<const Raw*>(from);
        }
        *reinterpret_cast<Raw*>(to) = all;
    }
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

// The compiler makes vectors of neighboring numbers by itself.
constexpr int64_t WIDE = 1;
using wide = real;
using wide_real = real;
template <class V>
MATH void copy_if(bool here, const T* from, T* to) { *to = here ? *from : T(real(0)); }

#endif

// `A` if the condition holds, otherwise `B`.
template <bool condition, class A, class B>
struct Chosen {
    using type = A;
};
template <class A, class B>
struct Chosen<false, A, B> {
    using type = B;
};
template <bool condition, class A, class B>
using Choice = typename Chosen<condition, A, B>::type;

// Kernels are templates over V: a pack, or a single number if PACK does not divide the row
// length.
template <class V>
struct Width {
    static constexpr int64_t lanes = sizeof(V) / sizeof(real);
    template <class E>
    MATH V load(const E* p) {
#if defined(UDASS_SHAPED_FOR_GPU)
        return load_pack<lanes>(p);
#else
        return load_pack(p);
#endif
    }
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
        LANES for (int64_t i = 0; i < Width<V>::lanes; ++i) lanes_of(v)[i] = f(i);
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
template <class V, class F>
MATH V map_lanes(V a, V b, F f) {
    if constexpr (Width<V>::lanes == 1) return f(a, b);
    else return each_lane<V>([&](int64_t i) { return f(lanes_of(a)[i], lanes_of(b)[i]); });
}
template <class V>
MATH V all_lanes(real x) {
    return each_lane<V>([&](int64_t) { return x; });
}

#if defined(UDASS_SHAPED_FOR_GPU)
template <int64_t N>
MATH Pack<N> fma_of(Pack<N> a, Pack<N> b, Pack<N> c) {
    return each_lane<Pack<N>>([&](int64_t i) { return fma_of(a.lanes[i], b.lanes[i], c.lanes[i]); });
}
template <int64_t N>
MATH Pack<N> fma_of(real a, Pack<N> b, Pack<N> c) { return fma_of(all_lanes<Pack<N>>(a), b, c); }
template <int64_t N>
MATH Pack<N> operator+(Pack<N> a, Pack<N> b) {
    return each_lane<Pack<N>>([&](int64_t i) { return a.lanes[i] + b.lanes[i]; });
}
template <int64_t N>
MATH Pack<N> operator-(Pack<N> a, Pack<N> b) {
    return each_lane<Pack<N>>([&](int64_t i) { return a.lanes[i] - b.lanes[i]; });
}
template <int64_t N>
MATH Pack<N> operator*(Pack<N> a, Pack<N> b) {
    return each_lane<Pack<N>>([&](int64_t i) { return a.lanes[i] * b.lanes[i]; });
}
template <int64_t N>
MATH Pack<N> operator*(real a, Pack<N> b) { return all_lanes<Pack<N>>(a) * b; }
#else  // the other operators are built in
MATH pack fma_of(pack a, pack b, pack c) {
    return each_lane<pack>([&](int64_t i) { return fma_of(lanes_of(a)[i], lanes_of(b)[i], lanes_of(c)[i]); });
}
MATH pack fma_of(real a, pack b, pack c) {
    return each_lane<pack>([&](int64_t i) { return fma_of(a, lanes_of(b)[i], lanes_of(c)[i]); });
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
