// Elementary functions with the same arithmetic on every device, written so that loops over them
// vectorize (calls to libm do not). In single precision, `exp` is within 2 ulp and `erf` within
// 2e-7 absolute; the coefficients are minimax fits made for this file. Double precision, which only
// serves as the reference in tests, uses the platform's functions.
#pragma once
#include <math.h>
#include "dtype.cuh"

#if defined(__CUDACC__)
#define MATH static __device__ __forceinline__
#else
#define MATH static inline __attribute__((always_inline, unused))
#endif

#if defined(UDASS_F64)
constexpr real REAL_MAX = 1.7976931348623157e308;
#else
constexpr real REAL_MAX = 3.402823466e38f;
#endif

// NaN in either argument is propagated, so that a diverged network is noticed. Two selects and no
// `||`, which would not vectorize.
MATH real max_of(real a, real b) {
    const real larger = a > b ? a : b;
    return a != a ? a : larger;
}
MATH real min_of(real a, real b) {
    const real smaller = a < b ? a : b;
    return a != a ? a : smaller;
}
MATH real clamp_to(real x, real low, real high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}
// Minimum, maximum and clamp of integers.
MATH int64_t least_of(int64_t a, int64_t b) { return a < b ? a : b; }
MATH int64_t most_of(int64_t a, int64_t b) { return a > b ? a : b; }
MATH int64_t held_to(int64_t i, int64_t low, int64_t high) { return most_of(low, least_of(i, high)); }

// a·b + c, rounded once on processors with a fused multiply-add.
MATH real fma_of(real a, real b, real c) {
#if defined(UDASS_F64) && (defined(__CUDACC__) || defined(__FP_FAST_FMA))
    return fma(a, b, c);
#elif !defined(UDASS_F64) && (defined(__CUDACC__) || defined(__FP_FAST_FMAF))
    return fmaf(a, b, c);
#else
    return a * b + c;
#endif
}
MATH bool is_finite(real x) { return x - x == 0; }

#if defined(UDASS_F64)

MATH real exp_of(real x) { return exp(x); }
MATH real erf_of(real x) { return erf(x); }
MATH real log_of(real x) { return log(x); }
MATH real sqrt_of(real x) { return sqrt(x); }
MATH real floor_of(real x) { return floor(x); }
MATH real normal_cdf_of(real x) { return real(0.5) * (1 + erf_of(x * real(0.70710678118654752440))); }
MATH real gelu_derivative_of(real x) {
    return normal_cdf_of(x) + x * real(0.39894228040143267794) * exp_of(x * x * real(-0.5));
}

#else

MATH float log_of(float x) { return logf(x); }
MATH float sqrt_of(float x) { return sqrtf(x); }
MATH float floor_of(float x) { return floorf(x); }

MATH float float_of_bits(int32_t bits) {
#if defined(__CUDACC__)
    return __int_as_float(bits);
#else
    return __builtin_bit_cast(float, bits);
#endif
}

// x / y for 1 <= y < 2^126, correctly rounded except in about one case in a million. The GPU's own
// division also handles other divisors, which takes more than twice the instructions and a branch.
MATH float quotient_of(float x, float y) {
#if defined(__CUDACC__)
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(y));
    const float near = x * inverse;
    return fmaf(fmaf(-y, near, x), inverse, near);
#else
    return x / y;
#endif
}

// e^x = 2^n · e^r with n the nearest integer to x / ln 2, so |r| <= ln 2 / 2.
MATH float exp_of(float x) {
    const float above = x > -87.0f ? x : -87.0f;  // NaN too, which no integer can hold
    const float inside = above < 88.0f ? above : 88.0f;
    const float n = floorf(fmaf(inside, 1.44269504f, 0.5f));
    float r = fmaf(n, -0.693359375f, inside);  // ln 2 in two parts, the first exact in 9 bits
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 0.00139411096f;
    p = fmaf(p, r, 0.00836317526f);
    p = fmaf(p, r, 0.0416663753f);
    p = fmaf(p, r, 0.16666577f);
    p = fmaf(p, r, 0.500000003f);
    p = fmaf(p, r * r, r) + 1.0f;
    const float y = p * float_of_bits((static_cast<int32_t>(n) + 127) << 23);
    return x < -87.0f ? 0.0f : x > 88.0f ? float_of_bits(0x7f800000) : x != x ? x : y;
}

// An odd polynomial up to |x| = 1; beyond it 1 - e^q(|x|), with q fitted to log erfc.
MATH float erf_of(float x) {
    const float s = x * x;
    float near = 7.88911952e-5f;
    near = fmaf(near, s, -0.000802084128f);
    near = fmaf(near, s, 0.00518953534f);
    near = fmaf(near, s, -0.0268544446f);
    near = fmaf(near, s, 0.112836002f);
    near = fmaf(near, s, -0.376126271f);
    near = fmaf(near, s, 0.128379166f);
    near = fmaf(near, x, x);
    const float magnitude = x < 0.0f ? -x : x;
    const float t = magnitude > 4.0f ? 4.0f : magnitude;
    float q = -2.16868499e-5f;
    q = fmaf(q, t, 0.000441336377f);
    q = fmaf(q, t, -0.00420456187f);
    q = fmaf(q, t, 0.0252082567f);
    q = fmaf(q, t, -0.108418577f);
    q = fmaf(q, t, -0.633219893f);
    q = fmaf(q, t, -1.12957842f);
    q = fmaf(q, t, 0.00018804023f);
    const float far = 1.0f - exp_of(q);
    const float signed_far = x < 0.0f ? -far : far;
    return magnitude <= 1.0f ? near : x != x ? x : signed_far;
}

// The standard normal CDF Φ(x): 1/2 plus an odd rational function, within 2e-7 absolute. Beyond its
// range Φ is 0 or 1 to single precision.
MATH float normal_cdf_of(float x) {
    const float t = clamp_to(x, -5.45f, 5.45f), s = t * t;
    float p = 2.30643344e-8f;
    p = fmaf(p, s, 6.35460083e-6f);
    p = fmaf(p, s, 0.000166508777f);
    p = fmaf(p, s, 0.00466360897f);
    p = fmaf(p, s, 0.0336069949f);
    p = fmaf(p, s, 0.398942232f);
    float q = 1.20684217e-6f;
    q = fmaf(q, s, 7.29984167e-5f);
    q = fmaf(q, s, 0.00187133008f);
    q = fmaf(q, s, 0.0285088792f);
    q = fmaf(q, s, 0.250906259f);
    q = fmaf(q, s, 1.0f);
    const float y = 0.5f + quotient_of(t * p, q);
    return x < -5.45f ? 0.0f : x > 5.45f ? 1.0f : y;
}

// Φ(x) + x·φ(x), the derivative of GELU, by the same kind of function; within 4e-7 absolute.
MATH float gelu_derivative_of(float x) {
    const float t = clamp_to(x, -5.8f, 5.8f), s = t * t;
    float p = 1.92928198e-7f;
    p = fmaf(p, s, 3.59558653e-5f);
    p = fmaf(p, s, 1.92216521e-5f);
    p = fmaf(p, s, 0.0142302988f);
    p = fmaf(p, s, -0.0309958048f);
    p = fmaf(p, s, 0.797885358f);
    float q = 8.95238372e-6f;
    q = fmaf(q, s, 0.000192036561f);
    q = fmaf(q, s, 0.00352303521f);
    q = fmaf(q, s, 0.0409802236f);
    q = fmaf(q, s, 0.294494092f);
    q = fmaf(q, s, 1.0f);
    const float y = 0.5f + quotient_of(t * p, q);
    return x < -5.8f ? 0.0f : x > 5.8f ? 1.0f : y;
}

#endif

// Exact GELU, x·Φ(x) (Hendrycks & Gimpel 2016).
MATH real gelu_of(real x) { return x * normal_cdf_of(x); }
