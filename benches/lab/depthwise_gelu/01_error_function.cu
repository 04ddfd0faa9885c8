// Kernels: depthwise_gelu, depthwise_gelu_filter
// Until: e05556b
// Then: Φ and the slope of GELU as rational functions of their own
// Predicted: nothing was written down; counted afterwards, Φ takes about 18 steps of arithmetic, one a division,
//   instead of 45, and the slope 18 instead of 70, but in kernels that bytes should limit
//
// Today's depthwise.cu with the GELU before: Φ through the error function, its slope through that and
// an exponential.
#include "strip.cuh"

MATH real cdf_by_erf(real x) { return real(0.5) * (1 + erf_of(x * real(0.70710678118654752440))); }
MATH real gelu_by_erf(real x) { return x * cdf_by_erf(x); }
MATH real slope_by_erf(real x) { return cdf_by_erf(x) + x * real(0.39894228040143267794) * exp_of(x * x * real(-0.5)); }

#define gelu_of gelu_by_erf
#define gelu_slope_of slope_by_erf
#include "depthwise.cu"
