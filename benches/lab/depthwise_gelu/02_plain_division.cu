// Kernels: depthwise_gelu, depthwise_gelu_filter
// Until: 5d131e1
// Then: a GPU divides by a reciprocal, a product and one correction: four instructions, without a test for divisors
//   that do not occur
// Predicted: on an H100, depthwise_gelu 7 → 6 ms of a bf16 iteration of gta_vit with QuadMix; none for the host,
//   which divides as before: its code is the same
//
// Today's depthwise.cu with the GELU before, in single precision: `/` divides its polynomials on a GPU
// too.
#include "strip.cuh"

MATH float cdf_by_division(float x) {
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
    const float y = 0.5f + t * p / q;
    return x < -5.45f ? 0.0f : x > 5.45f ? 1.0f : y;
}

MATH float slope_by_division(float x) {
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
    const float y = 0.5f + t * p / q;
    return x < -5.8f ? 0.0f : x > 5.8f ? 1.0f : y;
}

MATH real gelu_by_division(real x) { return x * cdf_by_division(x); }

#define gelu_of gelu_by_division
#define gelu_slope_of slope_by_division
#include "depthwise.cu"
