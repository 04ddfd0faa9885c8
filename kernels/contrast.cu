// Contrast losses of feature vectors against class statistics (SePiCo, Xie et al. 2023) and
// their regularizer. q are rows,channels with a label y per row; a label that is no class has no loss.
// There are N labels that are one, C classes, and τ is the temperature.
//   prototypes:    loss = ln Σ_j e^z_j - q·μ_y/τ,                      z_j = q·μ_j/τ
//   distributions: the same with                                       z_j = (q·μ_j + ½ Σ q²∘s_j)/τ,  s_j = σ²_j/τ
//     dq = (Σ_j p_j (μ_j + q∘s_j) - μ_y)/τ,  p = softmax(z)
//   bank: mean over class y's vectors b of ln(1 + S/e^{q·b/τ}),         S = Σ_{j≠y} e^z_j
//     dq = mean_b r_b (Σ_{j≠y} ω_j μ_j - b)/τ,  r_b = S/(e^{q·b/τ} + S),  ω_j = e^z_j/S
//     where μ_j is the mean of class j's vectors
//   regularizer: Σ_j ln s_j / (C ln C),  s = softmax(q̄·μ_j/τ),  q̄ = mean of q over the labels
//     dq = Σ_j (1 - C s_j) μ_j / (C ln C τ N), the same for every row
// The value is the mean over the N rows plus the regularizer, or 0 if N is 0.
#include "group.cuh"
#include "label.cuh"
#include "pack.cuh"

// Most vectors in the queue of a class.
EXPORTED constexpr int64_t MOST_MEMORIES = 256;

// One block: the regularizer, from the sums of q by class. `pull` is its gradient in every labeled row, and
// `labeled` is N.
KERNEL(contrast_regularizer,
       const real* sums /* classes,channels */, const int64_t* counts /* classes */,
       const real* means /* classes,channels */, real* value /* 1 */, real* pull /* channels */,
       real* labeled /* 1 */,
       int64_t classes, int64_t channels, real temperature) {
    int64_t cells = 0;
    for (int64_t k = 0; k < classes; ++k) cells += counts[k];
    const real n = static_cast<real>(cells), share = cells > 0 ? 1 / n : real(0);
    BLOCK_LOOP(c, channels) {
        real sum = 0;
        for (int64_t k = 0; k < classes; ++k) sum += sums[k * channels + c];
        pull[c] = sum * share;  // q̄, until the last product with it
    }
    barrier();
    real z[LABEL_VALUES];
    real top = -REAL_MAX;
    for (int64_t j = 0; j < classes; ++j) {
        z[j] = block_sum(channels, [&](int64_t c) { return pull[c] * means[j * channels + c]; }) / temperature;
        top = max_of(top, z[j]);
    }
    real total = 0, spread = 0;
    for (int64_t j = 0; j < classes; ++j) total += exp_of(z[j] - top);
    const real normal = top + log_of(total), scale = static_cast<real>(classes) * log_of(static_cast<real>(classes));
    for (int64_t j = 0; j < classes; ++j) spread += z[j] - normal;
    BLOCK_LOOP(c, channels) {
        real sum = 0;
        for (int64_t j = 0; j < classes; ++j)
            sum += (1 - static_cast<real>(classes) * exp_of(z[j] - normal)) * means[j * channels + c];
        pull[c] = sum * share / (scale * temperature);
    }
    BLOCK_LOOP(one, 1) {
        value[one] = cells > 0 ? spread / scale : real(0);
        labeled[one] = n;
    }
}

// Writes one row of the gradient: dq (+)= factor · (Σ_j weights_j (means_j + q∘variances_j/τ) - positive)
// + drift·pull. positive(c) returns the pack of the term that pulls q.
template <class V, class F>
DEVICE void contrast_gradient(const real* q, const real* means, const real* variances, const real* weights, const real* pull, real* dq, int64_t classes, int64_t channels, real inverse, real factor, real drift, bool accumulate, F positive) {
    constexpr int64_t lanes = Width<V>::lanes;
    GROUP_LOOP(i, channels / lanes) {
        const int64_t c = i * lanes;
        const V own = Width<V>::load(q + c) * all_lanes<V>(inverse);
        V sum = all_lanes<V>(0) - positive(c);
        for (int64_t j = 0; j < classes; ++j) {
            V toward = Width<V>::load(means + j * channels + c);
            if (variances != nullptr) toward = fma_of(own, Width<V>::load(variances + j * channels + c), toward);
            sum = fma_of(weights[j], toward, sum);
        }
        V result = fma_of(drift, Width<V>::load(pull + c), all_lanes<V>(factor) * sum);
        if (accumulate) result = result + Width<V>::load(dq + c);
        store(dq + c, result);
    }
}

// A row whose label is no class.
DEVICE void contrast_nothing(real* loss, real* dq, int64_t channels, bool accumulate) {
    if (loss != nullptr) GROUP_LOOP(one, 1) *loss = 0;
    if (dq != nullptr && !accumulate) GROUP_LOOP(c, channels) dq[c] = 0;
}

// Loss of each row, and dq (+)= upstream · (the gradient of their mean plus `weight` times the regularizer's):
// prototypes, or distributions with `variances`.
KERNEL(contrast_rows,
       const real* q /* rows,channels */, const uint8_t* labels /* rows */,
       const real* means /* classes,channels */, const real* OPTIONAL variances /* classes,channels */,
       const real* pull /* channels */, const real* labeled /* 1 */, const real* OPTIONAL upstream /* 1 */,
       real* OPTIONAL loss /* rows */, real* OPTIONAL dq /* rows,channels */,
       real temperature, real weight, bool accumulate, int64_t rows, int64_t classes,
       int64_t channels) {
    const real inverse = 1 / temperature, half = inverse / 2;
    GROUP_ROWS(r, rows) {
        const int64_t label = labels[r];
        const real* own = q + r * channels;
        real* to = dq != nullptr ? dq + r * channels : nullptr;
        if (label >= classes) {
            contrast_nothing(loss != nullptr ? loss + r : nullptr, to, channels, accumulate);
            continue;
        }
        real z[LABEL_VALUES];
        real top = -REAL_MAX, positive = 0;
        for (int64_t j = 0; j < classes; ++j) {
            const real* mean = means + j * channels;
            const real near = group_sum(channels, [&](int64_t c) { return own[c] * mean[c]; });
            real spread = 0;
            if (variances != nullptr) {
                const real* variance = variances + j * channels;
                spread = half * group_sum(channels, [&](int64_t c) { return own[c] * own[c] * variance[c]; });
            }
            if (j == label) positive = near * inverse;
            z[j] = (near + spread) * inverse;
            top = max_of(top, z[j]);
        }
        real total = 0;
        for (int64_t j = 0; j < classes; ++j) total += z[j] = exp_of(z[j] - top);
        if (loss != nullptr) GROUP_LOOP(one, 1) loss[r] = log_of(total) + (top - positive);
        if (to == nullptr) continue;
        for (int64_t j = 0; j < classes; ++j) z[j] /= total;
        const real factor = upstream[0] * inverse / labeled[0], drift = upstream[0] * weight;
        const auto write = [&](auto kind) {
            using V = decltype(kind);
            const auto toward = [&](int64_t c) { return Width<V>::load(means + label * channels + c); };
            contrast_gradient<V>(own, means, variances, z, pull, to, classes, channels, inverse, factor, drift, accumulate, toward);
        };
        if (channels % PACK == 0) write(pack());
        else write(real());
    }
}

// The same against the bank: `centers` are the means of the queues.
KERNEL(contrast_bank_rows,
       const real* q /* rows,channels */, const uint8_t* labels /* rows */,
       const real* centers /* classes,channels */, const real* bank /* classes,length,channels */,
       const int64_t* pushed /* classes */, const real* pull /* channels */,
       const real* labeled /* 1 */, const real* OPTIONAL upstream /* 1 */,
       real* OPTIONAL loss /* rows */, real* OPTIONAL dq /* rows,channels */,
       real temperature, real weight, bool accumulate, int64_t rows, int64_t classes,
       int64_t length, int64_t channels) {
    const real inverse = 1 / temperature;
    GROUP_ROWS(r, rows) {
        const int64_t label = labels[r];
        const real* own = q + r * channels;
        real* to = dq != nullptr ? dq + r * channels : nullptr;
        if (label >= classes) {
            contrast_nothing(loss != nullptr ? loss + r : nullptr, to, channels, accumulate);
            continue;
        }
        real z[LABEL_VALUES], share[MOST_MEMORIES];
        real top = -REAL_MAX;
        for (int64_t j = 0; j < classes; ++j) {
            const real* center = centers + j * channels;
            z[j] = group_sum(channels, [&](int64_t c) { return own[c] * center[c]; }) * inverse;
            if (j != label) top = max_of(top, z[j]);
        }
        real total = 0;
        for (int64_t j = 0; j < classes; ++j) {
            z[j] = j != label ? exp_of(z[j] - top) : real(0);
            total += z[j];
        }
        const real others = top + log_of(total);  // ln S
        const real* memories = bank + label * length * channels;
        const int64_t held = least_of(least_of(pushed[label], length), MOST_MEMORIES);
        real sum = 0, shares = 0;
        for (int64_t m = 0; m < held; ++m) {
            const real* memory = memories + m * channels;
            const real off = others - inverse * group_sum(channels, [&](int64_t c) { return own[c] * memory[c]; });
            // ln(1 + e^off) and e^off / (1 + e^off), without an exponential that overflows.
            const real small = exp_of(off < 0 ? off : -off), one = 1 + small;
            sum += max_of(off, 0) + log_of(one);
            share[m] = (off < 0 ? small : real(1)) / one;
            shares += share[m];
        }
        const real each = 1 / static_cast<real>(held);
        if (loss != nullptr) GROUP_LOOP(one, 1) loss[r] = sum * each;
        if (to == nullptr) continue;
        for (int64_t j = 0; j < classes; ++j) z[j] *= shares * each / total;
        const real factor = upstream[0] * inverse / labeled[0], drift = upstream[0] * weight;
        const auto write = [&](auto kind) {
            using V = decltype(kind);
            const auto toward = [&](int64_t c) {
                V pulled = all_lanes<V>(0);
                for (int64_t m = 0; m < held; ++m) pulled = fma_of(share[m] * each, Width<V>::load(memories + m * channels + c), pulled);
                return pulled;
            };
            contrast_gradient<V>(own, centers, nullptr, z, pull, to, classes, channels, inverse, factor, drift, accumulate, toward);
        };
        if (channels % PACK == 0) write(pack());
        else write(real());
    }
}

// One block: the mean loss of the labeled rows plus `weight` times the regularizer.
KERNEL(contrast_final,
       const real* loss /* rows */, const real* labeled /* 1 */, const real* regularizer /* 1 */,
       real* value /* 1 */,
       real weight, int64_t rows) {
    const real sum = block_sum(rows, [&](int64_t r) { return loss[r]; });
    BLOCK_LOOP(one, 1) value[one] = labeled[0] > 0 ? sum / labeled[0] + weight * regularizer[0] : real(0);
}
