// Kernels: gelu_forward, gelu_backward
// Until: f39dd6e
// Then: Φ and the slope of GELU by the rational functions that the fused kernels have
// Predicted: on the host, 1.7 ×, as memory would then limit
//
// GELU as kernels/activation.cu describes it: Φ through the error function, its slope through that and
// an exponential.
#include "simt.cuh"

constexpr real INV_SQRT2 = real(0.70710678118654752440);
constexpr real INV_SQRT_2PI = real(0.39894228040143267794);

KERNEL(gelu_forward, const T* x /* n */, T* y /* n */, int64_t n) {
    GRID_LOOP(i, n) {
        const real v = x[i];
        y[i] = v * real(0.5) * (1 + erf_of(v * INV_SQRT2));
    }
}

KERNEL(gelu_backward, const T* x /* n */, const T* dy /* n */, T* dx /* n */, int64_t n) {
    GRID_LOOP(i, n) {
        const real v = x[i];
        const real cdf = real(0.5) * (1 + erf_of(v * INV_SQRT2));
        const real pdf = INV_SQRT_2PI * exp_of(v * v * real(-0.5));
        dx[i] = static_cast<real>(dy[i]) * (cdf + v * pdf);
    }
}
