// Number types, chosen once per compilation: every kernel file is built for each pair.
//
//   UDASS_F32    T = float   real = float
//   UDASS_BF16   T = bf16    real = float    (operands of products and attention in bf16)
//   UDASS_F64    T = double  real = double   (reference for finite differences)
//
// `T` is what operands of products are stored in, `real` is what everything is computed in, and
// what the residual stream, statistics, logits and losses are stored in.
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
// Conversions are implicit, so that a kernel reads the same for every T. They round to the nearest,
// to even between two. (Not cuda_bf16.h, which NVRTC may not find.)
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

// Ends a kernel's symbol; the build adds the instruction set to it where several are built.
#ifndef UDASS_SUFFIX
#define UDASS_SUFFIX UDASS_TYPES
#endif

// A block has many threads; else one.
#if defined(__CUDACC__) || defined(UDASS_LOCKSTEP)
#define UDASS_THREADS
#endif
// What a thread holds at once suits the GPU; else the vectors of a CPU.
#if defined(UDASS_THREADS) || defined(UDASS_ORDERED)
#define UDASS_SHAPED_FOR_GPU
#endif

// A pointer argument that may be null: `Option` in the Rust launcher.
#define OPTIONAL
// Before a constant that Rust shares: `device::constants` has it, in a module by the file's name.
#define EXPORTED
