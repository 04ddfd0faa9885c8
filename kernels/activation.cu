// GELU, exact: y = x·Φ(x), Φ(x) = (1 + erf(x/√2)) / 2 (Hendrycks & Gimpel 2016).
// dL/dx = dL/dy · (Φ(x) + x·φ(x)),  φ(x) = e^(-x²/2) / √(2π)
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
