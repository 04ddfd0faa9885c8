// Kernels: layernorm_forward
// Until: 4d43803
// Then: a warp takes a row and holds it in registers, all of it loaded before any is used, without barriers
// Predicted: on an H100, 16 → 8 ms of a bf16 iteration of gta_vit with QuadMix (966 launches); none for the host
//
// Layer norm as kernels/layernorm.cu describes it. A block takes a row: all of its threads wait at the
// barriers of both sums, and it reads the row three times.
#include "random.cuh"

// What drop-path multiplies the branch of sample b with.
DEVICE real branch_scale(const uint64_t* key, int64_t stream, real rate, int64_t b) {
    if (key == nullptr || rate <= 0) return 1;
    return uniform_of(*key, stream, b) < rate ? real(0) : 1 / (1 - rate);
}

// `branch` and `sum` are absent together: a norm without a residual. The result goes to `y`, or to
// `wide` where it starts a residual stream. stats: mean, 1/√(var + eps).
KERNEL(layernorm_forward, const real* x /* rows,C */, const T* OPTIONAL branch /* rows,C */, const uint64_t* OPTIONAL key /* 1 */, const real* gamma /* C */, const real* beta /* C */, real* OPTIONAL sum /* rows,C */, T* OPTIONAL y /* rows,C */, real* OPTIONAL wide /* rows,C */, real* OPTIONAL stats /* rows,2 */, int64_t stream, real rate, real eps, int64_t sample_rows, int64_t rows, int64_t channels) {
    ROW_LOOP(r, rows) {
        const real* s = x + r * channels;
        if (branch != nullptr) {
            const real scale = branch_scale(key, stream, rate, r / sample_rows);
            const T* added = branch + r * channels;
            real* out = sum + r * channels;
            // A thread stays with its channels, so no barrier is needed before it reads them.
            BLOCK_LOOP(c, channels) out[c] = s[c] + scale * real(added[c]);
            s = out;
        }
        const real mean = block_sum(channels, [&](int64_t c) { return s[c]; }) / channels;
        const real variance = block_sum(channels, [&](int64_t c) {
            const real d = s[c] - mean;
            return d * d;
        }) / channels;
        const real inverse = 1 / sqrt_of(variance + eps);
        if (stats != nullptr && thread_index() == 0) {
            stats[2 * r] = mean;
            stats[2 * r + 1] = inverse;
        }
        if (y != nullptr) {
            T* out = y + r * channels;
            BLOCK_LOOP(c, channels) out[c] = (s[c] - mean) * inverse * gamma[c] + beta[c];
        } else {
            real* out = wide + r * channels;
            BLOCK_LOOP(c, channels) out[c] = (s[c] - mean) * inverse * gamma[c] + beta[c];
        }
    }
}
