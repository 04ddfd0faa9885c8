// Kernels: layernorm_backward, layernorm_weights
// Until: 4d43803
// Then: a warp takes a row, holds it in registers and scales the branch's gradient on the way; a warp adds up the
//   parts of each number
// Predicted: on an H100, 110-150 → 6 ms of a bf16 iteration of gta_vit with QuadMix (644 launches); none for the host
//
// Layer norm's backward as kernels/layernorm.cu describes it. A block takes a row: all of its threads
// wait at the barriers of both sums. A single thread walks all parts of a channel.
// Drop-path's was a kernel of its own, launched next. Here it comes behind, over the block's rows: the
// launch of today's kernel asks for both.
#include "../fewer_blocks.cuh"
#include "random.cuh"

// Of a block of elementwise work, as the host cuts it.
constexpr int64_t BLOCK = 8192;

// What drop-path multiplies the branch of sample b with.
DEVICE real branch_scale(const uint64_t* key, int64_t stream, real rate, int64_t b) {
    if (key == nullptr || rate <= 0) return 1;
    return uniform_of(*key, stream, b) < rate ? real(0) : 1 / (1 - rate);
}

// s: the normalised stream's values before the norm. dy (or dwide): gradient of the norm's output.
// ds: what comes along the stream, absent where nothing follows; dx may be the same tensor. One
// block sums one part of the rows into its row of `partial`: dgamma, then dbeta.
KERNEL(layernorm_backward, const real* s /* rows,C */, const T* OPTIONAL dy /* rows,C */, const real* OPTIONAL dwide /* rows,C */, const real* OPTIONAL ds /* rows,C */, const uint64_t* OPTIONAL key /* 1 */, const real* gamma /* C */, const real* stats /* rows,2 */, real* dx /* rows,C */, T* OPTIONAL dbranch /* rows,C */, real* partial /* parts,2,C */, int64_t stream, real rate, int64_t sample_rows, int64_t rows, int64_t channels) {
    real* dgamma = partial + block_index() * 2 * channels;
    real* dbeta = dgamma + channels;
    // The sums of the first row end in barriers before anything is added.
    BLOCK_LOOP(c, 2 * channels) dgamma[c] = 0;
    ROW_LOOP(r, rows) {
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
    if (dbranch == nullptr) return;
    ROW_LOOP(r, rows) {
        const real scale = branch_scale(key, stream, rate, r / sample_rows);
        BLOCK_LOOP(c, channels) dbranch[r * channels + c] = scale * dx[r * channels + c];
    }
}

// dgamma[c] += Σ_p partial[p,0,c]      dbeta[c] += Σ_p partial[p,1,c]
KERNEL(layernorm_weights, const real* partial /* parts,2,C */, real* dgamma /* C */, real* dbeta /* C */, int64_t parts, int64_t channels) {
    AS_FEWER_BLOCKS((channels + BLOCK - 1) / BLOCK);
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
