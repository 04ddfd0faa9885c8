// Kernels: layernorm_backward, layernorm_weights
// Until: 53d1c0f
// Then: a team adds up parts of neighbouring numbers, both gradients in one walk; a block's only team sums straight
//   into its part
// Predicted: nothing was written down
//
// Layer norm's backward as kernels/layernorm.cu describes it, without its body that holds rows in
// registers, which only a GPU runs. A team adds up the parts of one number, which lie 2·C numbers
// apart, and what a block's teams summed goes through shared memory though there be but one.
#include "random.cuh"
#include "team.cuh"

// What drop-path multiplies branches with.
struct Drop {
    const uint64_t* key;
    int64_t stream, sample_rows;
    real rate;
    // Rows before this one, from the row on that was asked for last, have this factor.
    int64_t known;
    real factor;
};

// Of row r's sample; rows ascend from call to call.
DEVICE real branch_scale(Drop& drop, int64_t r) {
    if (drop.key == nullptr || drop.rate <= 0) return 1;
    if (r >= drop.known) {
        const int64_t b = r / drop.sample_rows;
        drop.known = (b + 1) * drop.sample_rows;
        drop.factor = uniform_of(*drop.key, drop.stream, b) < drop.rate ? real(0) : 1 / (1 - drop.rate);
    }
    return drop.factor;
}

MATH real normal_of(real s, real mean, real inverse) { return (s - mean) * inverse; }

// s: the normalised stream's values before the norm. dy (or dwide): gradient of the norm's output.
// ds: what comes along the stream, absent where nothing follows; dx may be the same tensor. One
// block sums one part of the rows into its row of `partial`: dgamma, then dbeta. The shared memory
// holds MOST_TEAMS such rows.
KERNEL(layernorm_backward, const real* s /* rows,C */, const T* OPTIONAL dy /* rows,C */, const real* OPTIONAL dwide /* rows,C */, const real* OPTIONAL ds /* rows,C */, const uint64_t* OPTIONAL key /* 1 */, const real* gamma /* C */, const real* stats /* rows,2 */, real* dx /* rows,C */, T* OPTIONAL dbranch /* rows,C */, real* partial /* parts,2,C */, int64_t stream, real rate, int64_t sample_rows, int64_t rows, int64_t channels) {
    Drop drop = {key, stream, sample_rows, rate, 0, 1};
    real* sums = static_cast<real*>(shared_memory());
    BLOCK_LOOP(i, team_count() * 2 * channels) sums[i] = 0;
    barrier();
    TEAM_ROWS(r, rows) {
        const int64_t row = r * channels;
        const real mean = stats[2 * r], inverse = stats[2 * r + 1];
        const real* in = s + row;
        real* out = dx + row;
        real* dgamma = sums + team_of(r, rows) * 2 * channels;
        real* dbeta = dgamma + channels;
        // The gradient is read as T or as real; both loops below are the same but for that.
        auto backward = [&](const auto* gradient) {
            const real plain = team_sum(channels, [&](int64_t c) {
                return real(gradient[c]) * gamma[c];
            }) / channels;
            const real along = team_sum(channels, [&](int64_t c) {
                return real(gradient[c]) * gamma[c] * normal_of(in[c], mean, inverse);
            }) / channels;
            TEAM_LOOP(c, channels) {
                const real normal = normal_of(in[c], mean, inverse);
                const real g = real(gradient[c]);
                dgamma[c] += g * normal;
                dbeta[c] += g;
                const real before = ds != nullptr ? ds[row + c] : real(0);
                out[c] = before + (g * gamma[c] - plain - normal * along) * inverse;
            }
        };
        if (dy != nullptr) backward(dy + row);
        else backward(dwide + row);
        if (dbranch != nullptr) {
            const real scale = branch_scale(drop, r);
            TEAM_LOOP(c, channels) dbranch[row + c] = scale * out[c];
        }
    }
    barrier();
    BLOCK_LOOP(i, 2 * channels) {
        real sum = sums[i];
        for (int64_t t = 1; t < team_count(); ++t) sum += sums[t * 2 * channels + i];
        partial[block_index() * 2 * channels + i] = sum;
    }
}

// dgamma[c] += Σ_p partial[p,0,c]      dbeta[c] += Σ_p partial[p,1,c]
KERNEL(layernorm_weights, const real* partial /* parts,2,C */, real* dgamma /* C */, real* dbeta /* C */, int64_t parts, int64_t channels) {
    TEAM_ROWS(i, 2 * channels) {
        const real sum = team_sum(parts, [&](int64_t p) { return partial[p * 2 * channels + i]; });
        if (team_lane() == 0) (i < channels ? dgamma[i] : dbeta[i - channels]) += sum;
    }
}
