// Layer norm over channels, fused with the residual connection and drop-path before it.
//
//   s = x + keep_b / (1 - rate) · branch           (the residual stream; keep_b per sample)
//   y = (s - mean(s)) / √(var(s) + eps) · gamma + beta
//
// Backward, with x̂ the normalised stream, g = dy · gamma and C channels:
//   ds = ds' + (g - mean(g) - x̂ · mean(g · x̂)) / √(var + eps)       (ds' comes along the stream)
//   dgamma = Σ_rows dy · x̂      dbeta = Σ_rows dy
// Layer Normalization, Ba et al. 2016; stochastic depth, Huang et al. 2016.
#include "random.cuh"

// What drop-path multiplies the branch of sample b with.
DEVICE real branch_scale(const uint64_t* key, int64_t stream, real rate, int64_t b) {
    if (key == nullptr || rate <= 0) return 1;
    return uniform_of(*key, stream, b) < rate ? real(0) : 1 / (1 - rate);
}

// `branch` and `sum` are absent together: a norm without a residual. The result goes to `y`, or to
// `wide` where it starts a residual stream. stats: mean, 1/√(var + eps).
KERNEL(layernorm_forward, const real* x /* rows,C */, const T* OPTIONAL branch /* rows,C */, const uint64_t* OPTIONAL key /* 1 */, const real* gamma /* C */, const real* beta /* C */, real* OPTIONAL sum /* rows,C */, T* OPTIONAL y /* rows,C */, real* OPTIONAL wide /* rows,C */, real* OPTIONAL stats /* rows,2 */, int64_t stream, real rate, real eps, int64_t sample_rows, int64_t rows, int64_t channels) {
    const int64_t end = chunk_end(rows);
    for (int64_t r = chunk_begin(rows); r < end; ++r) {
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

// s: the normalised stream's values before the norm. dy (or dwide): gradient of the norm's output.
// ds: what comes along the stream, absent where nothing follows; dx may be the same tensor. One
// block sums one part of the rows into its row of `partial`: dgamma, then dbeta.
KERNEL(layernorm_backward, const real* s /* rows,C */, const T* OPTIONAL dy /* rows,C */, const real* OPTIONAL dwide /* rows,C */, const real* OPTIONAL ds /* rows,C */, const real* gamma /* C */, const real* stats /* rows,2 */, real* dx /* rows,C */, real* partial /* parts,2,C */, int64_t rows, int64_t channels) {
    real* dgamma = partial + block_index() * 2 * channels;
    real* dbeta = dgamma + channels;
    // The sums of the first row end in barriers before anything is added.
    BLOCK_LOOP(c, 2 * channels) dgamma[c] = 0;
    const int64_t end = chunk_end(rows);
    for (int64_t r = chunk_begin(rows); r < end; ++r) {
        const int64_t row = r * channels;
        const real mean = stats[2 * r], inverse = stats[2 * r + 1];
        const real* in = s + row;
        real* out = dx + row;
        // The gradient is read as T or as real; both loops below are the same but for that.
        auto backward = [&](const auto* gradient) {
            const real plain = block_sum(channels, [&](int64_t c) {
                return real(gradient[c]) * gamma[c];
            }) / channels;
            const real along = block_sum(channels, [&](int64_t c) {
                return real(gradient[c]) * gamma[c] * ((in[c] - mean) * inverse);
            }) / channels;
            BLOCK_LOOP(c, channels) {
                const real normal = (in[c] - mean) * inverse;
                const real g = real(gradient[c]);
                dgamma[c] += g * normal;
                dbeta[c] += g;
                const real before = ds != nullptr ? ds[row + c] : real(0);
                out[c] = before + (g * gamma[c] - plain - normal * along) * inverse;
            }
        };
        if (dy != nullptr) {
            backward(dy + row);
        } else {
            backward(dwide + row);
        }
    }
}

// dgamma[c] += Σ_p partial[p,0,c]      dbeta[c] += Σ_p partial[p,1,c]
KERNEL(layernorm_weights, const real* partial /* parts,2,C */, real* dgamma /* C */, real* dbeta /* C */, int64_t parts, int64_t channels) {
    GRID_LOOP(c, channels) {
        real g = 0, b = 0;
        for (int64_t p = 0; p < parts; ++p) {
            g += partial[2 * p * channels + c];
            b += partial[(2 * p + 1) * channels + c];
        }
        dgamma[c] += g;
        dbeta[c] += b;
    }
}

// dbranch = keep_b / (1 - rate) · ds
KERNEL(drop_path_backward, const real* ds /* rows,C */, const uint64_t* OPTIONAL key /* 1 */, T* dbranch /* rows,C */, int64_t stream, real rate, int64_t sample_rows, int64_t rows, int64_t channels) {
    const int64_t end = chunk_end(rows);
    for (int64_t r = chunk_begin(rows); r < end; ++r) {
        const real scale = branch_scale(key, stream, rate, r / sample_rows);
        BLOCK_LOOP(c, channels) dbranch[r * channels + c] = scale * ds[r * channels + c];
    }
}
