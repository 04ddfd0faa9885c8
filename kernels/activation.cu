// GELU, exact: y = x·Φ(x), Φ(x) = (1 + erf(x/√2)) / 2 (Hendrycks & Gimpel 2016).
// dL/dx = dL/dy · (Φ(x) + x·φ(x)),  φ(x) = e^(-x²/2) / √(2π)
#include "simt.cuh"

KERNEL(gelu_forward, const T* x /* elements */, T* y /* elements */, int64_t elements) {
    GRID_LOOP(i, elements) y[i] = gelu_of(x[i]);
}

KERNEL(gelu_backward,
       const T* x /* elements */, const T* dy /* elements */, T* dx /* elements */,
       int64_t elements) {
    GRID_LOOP(i, elements) dx[i] = real(dy[i]) * gelu_slope_of(x[i]);
}
