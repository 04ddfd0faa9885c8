// Number types, chosen at compile time: every kernel file is built for each of these pairs.
//
//   UDASS_F32    T = float   real = float
//   UDASS_BF16   T = bf16    real = float    (operands of matmuls and attention in bf16)
//   UDASS_F64    T = double  real = double   (reference for finite differences)
//
// `T` is the storage type of matmul operands. `real` is the compute type, and the storage type of
// the residual stream, statistics, logits and losses.
#pragma once
#include <stdint.h>

#if defined(UDASS_F32)
using T = float;
using real = float;
#define UDASS_TYPES f32
#elif defined(UDASS_F64)
using T = double;
using real = double;
#define UDASS_TYPES f64
#elif defined(UDASS_BF16)
// Conversions are implicit, so that the same kernel source works for every T. They round to
// nearest, ties to even. (cuda_bf16.h is not used, because NVRTC may not find it.)
struct bf16 {
    uint16_t bits;
    bf16() = default;
#if defined(__CUDACC__)
    __device__ bf16(float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x)); }
    __device__ operator float() const { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }
#else
    bf16(float x) {
        const uint32_t all = __builtin_bit_cast(uint32_t, x);
        bits = static_cast<uint16_t>(x != x ? 0x7FFF : (all + 0x7FFF + (all >> 16 & 1)) >> 16);
    }
    operator float() const { return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16); }
#endif
};
using T = bf16;
using real = float;
#define UDASS_TYPES bf16
#else
#error "define UDASS_F32, UDASS_BF16 or UDASS_F64"
#endif

// Suffix of a kernel's symbol. The build sets it if it builds a type for several instruction sets.
#ifndef UDASS_SUFFIX
#define UDASS_SUFFIX UDASS_TYPES
#endif

// A block has many threads (GPU, block emulator); without this, it has one (serial CPU build).
#if defined(__CUDACC__) || defined(UDASS_EMULATED)
#define UDASS_THREADS
#endif
// A thread's packs and register tiles are sized for the GPU; without this, for the CPU's vectors.
#if defined(UDASS_THREADS) || defined(UDASS_ORDERED)
#define UDASS_SHAPED_FOR_GPU
#endif

// Marks a pointer argument that may be null; it is an `Option` in the Rust launcher.
#define OPTIONAL
// Marks a constant that build.rs exports to Rust: `device::constants` has a module for each file.
#define EXPORTED
