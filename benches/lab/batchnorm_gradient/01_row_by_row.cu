// Kernels: batchnorm_gradient_partial
// Until: f39dd6e
// Then: four rows at a time, in the same order, so that what belongs to a channel is read once for them
// Predicted: on the host, 1.2 ×
//
// Batch norm's sums of the way back as kernels/batchnorm.cu describes them, one row after the other:
// for each number that is read, four of its channel are too, and both sums are read and written.
#include "simt.cuh"

// The ReLU's mask is not kept: the backward pass recomputes y, and must find the same sign. The
// fused multiply-add is written out so that no compiler decides it.
DEVICE real affine(real n, real weight, real bias) { return fma_of(n, weight, bias); }
DEVICE real passed(real dy, real y, int32_t relu) { return relu && y <= 0 ? real(0) : dy; }

// sums[p,c] = Σ g, products[p,c] = Σ g·n over part p, g being dy where the ReLU let y through.
KERNEL(batchnorm_gradient_partial, const T* x /* rows,C */, const T* dy /* rows,C */, const real* mean /* C */, const real* inv_std /* C */, const real* weight /* C */, const real* bias /* C */, real* sums /* parts,C */, real* products /* parts,C */, int64_t rows, int64_t channels, int32_t relu) {
    real* sum = sums + block_index() * channels;
    real* product = products + block_index() * channels;
    BLOCK_LOOP(c, channels) sum[c] = product[c] = 0;
    ROW_LOOP(r, rows) {
        const T* row = x + r * channels;
        const T* gradient = dy + r * channels;
        BLOCK_LOOP(c, channels) {
            const real n = (real(row[c]) - mean[c]) * inv_std[c];
            const real g = passed(real(gradient[c]), affine(n, weight[c], bias[c]), relu);
            sum[c] += g;
            product[c] = fma_of(g, n, product[c]);
        }
    }
}
