// Batch normalization over all pixels of a batch, per channel, fused with the ReLU that follows it
// (Ioffe & Szegedy 2015).
//   n = (x - mean) · inv_std,   y = n·weight + bias,   y = max(y, 0) if relu
// x and y are rows,channels, and a row is a pixel: rows = batch·height·width. The statistics need
// one pass over memory: each block averages one part of the rows, sums the squared deviations from
// that average while the part is in cache, and the parts are merged (Chan, Golub & LeVeque 1979).
// Large squares are never subtracted from each other.
#include "columns.cuh"

// means[p,c] = mean of x and deviations[p,c] = Σ (x - means[p,c])² over part p; one block per part.
KERNEL(batchnorm_partial,
       const T* x /* rows,channels */, real* means /* blocks,channels */,
       real* deviations /* blocks,channels */,
       int64_t rows, int64_t channels) {
    real* mean = means + block_index() * channels;
    real* deviation = deviations + block_index() * channels;
    const int64_t begin = chunk_begin(rows);
    const int64_t end = chunk_end(rows);
    const int64_t four = begin + (end - begin) / 4 * 4;
    BLOCK_LOOP(c, channels) mean[c] = deviation[c] = 0;
    // Relative to the part's first row, so that a large common offset costs no precision.
    const T* origin = x + (end > begin ? begin : 0) * channels;
    for (int64_t r = begin; r < four; r += 4) {
        const T* row = x + r * channels;
        BLOCK_LOOP(c, channels) {
            const real o = origin[c];
            const real d0 = real(row[c]) - o, d1 = real(row[channels + c]) - o;
            const real d2 = real(row[2 * channels + c]) - o, d3 = real(row[3 * channels + c]) - o;
            mean[c] += (d0 + d1) + (d2 + d3);
        }
    }
    for (int64_t r = four; r < end; ++r)
        BLOCK_LOOP(c, channels) mean[c] += real(x[r * channels + c]) - real(origin[c]);
    const real share = end > begin ? 1 / static_cast<real>(end - begin) : real(0);
    BLOCK_LOOP(c, channels) mean[c] = real(origin[c]) + mean[c] * share;
    for (int64_t r = begin; r < four; r += 4) {
        const T* row = x + r * channels;
        BLOCK_LOOP(c, channels) {
            const real m = mean[c];
            const real d0 = real(row[c]) - m, d1 = real(row[channels + c]) - m;
            const real d2 = real(row[2 * channels + c]) - m, d3 = real(row[3 * channels + c]) - m;
            deviation[c] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
        }
    }
    for (int64_t r = four; r < end; ++r) {
        BLOCK_LOOP(c, channels) {
            const real d = real(x[r * channels + c]) - mean[c];
            deviation[c] += d * d;
        }
    }
}

template <class V>
DEVICE void merge_parts(const real* means, const real* deviations, real* mean, real* inv_std, real* running_mean, real* running_var, int64_t parts, int64_t rows, int64_t channels, real momentum, real eps) {
    // Part p has the rows that chunk_begin and chunk_end give block p of `parts` blocks.
    const int64_t chunk = (rows + parts - 1) / parts;
    const auto rows_of = [&](int64_t p) { return static_cast<real>(held_to(rows - p * chunk, 0, chunk)); };
    const auto at = [&](const real* of, int64_t p, int64_t c) { return Width<V>::load(of + p * channels + c); };
    const real share = 1 / static_cast<real>(rows);
    each_group<V>(channels, [&](int64_t first) {
        // Relative to the first part's mean, so that a large common offset costs no precision.
        sum_parts<V>(parts, channels, first, [&](V sum, int64_t p, int64_t c) {
            return fma_of(rows_of(p), at(means, p, c) - at(means, 0, c), sum);
        }, [&](int64_t c, real sum) { mean[c] = means[c] + sum * share; });
        sum_parts<V>(parts, channels, first, [&](V sum, int64_t p, int64_t c) {
            const V d = at(means, p, c) - at(mean, 0, c);
            return sum + fma_of(rows_of(p), d * d, at(deviations, p, c));
        }, [&](int64_t c, real sum) {
            inv_std[c] = 1 / sqrt_of(sum * share + eps);
            running_mean[c] += momentum * (mean[c] - running_mean[c]);
            running_var[c] += momentum * (sum / static_cast<real>(rows - 1) - running_var[c]);
        });
    });
}

// Merges the parts into mean and inv_std, and moves the running statistics toward those of the
// batch by `momentum`; the running variance is unbiased. Adds 1 to `tracked`, the number of batches
// seen.
KERNEL(batchnorm_statistics,
       const real* means /* parts,channels */, const real* deviations /* parts,channels */,
       real* mean /* channels */, real* inv_std /* channels */, real* running_mean /* channels */,
       real* running_var /* channels */, real* OPTIONAL tracked /* 1 */,
       int64_t parts, int64_t rows, int64_t channels, real momentum, real eps) {
    if (channels % PACK == 0) merge_parts<pack>(means, deviations, mean, inv_std, running_mean, running_var, parts, rows, channels, momentum, eps);
    else merge_parts<real>(means, deviations, mean, inv_std, running_mean, running_var, parts, rows, channels, momentum, eps);
    if (tracked != nullptr && block_index() == 0 && thread_index() == 0) tracked[0] += 1;
}

// inv_std = 1/√(variance + eps)
KERNEL(batchnorm_inverse,
       const real* variance /* channels */, real* inv_std /* channels */,
       int64_t channels, real eps) {
    GRID_LOOP(c, channels) inv_std[c] = 1 / sqrt_of(variance[c] + eps);
}

// The ReLU mask is not stored: the backward recomputes y and must find the same sign. The explicit
// fused multiply-add keeps compilers from contracting the two differently.
DEVICE real affine(real n, real weight, real bias) { return fma_of(n, weight, bias); }
// max_of propagates NaN.
DEVICE real rectified(real y, bool relu) { return relu ? max_of(y, 0) : y; }
DEVICE real passed(real dy, real y, bool relu) { return relu && y <= 0 ? real(0) : dy; }

// y = n·weight + bias, followed by the ReLU if `relu`.
KERNEL(batchnorm_forward,
       const T* x /* rows,channels */, const real* mean /* channels */,
       const real* inv_std /* channels */, const real* weight /* channels */,
       const real* bias /* channels */, T* y /* rows,channels */,
       int64_t rows, int64_t channels, bool relu) {
    ROW_LOOP(r, rows) {
        const T* from = x + r * channels;
        T* to = y + r * channels;
        BLOCK_LOOP(c, channels) {
            const real n = (real(from[c]) - mean[c]) * inv_std[c];
            to[c] = rectified(affine(n, weight[c], bias[c]), relu);
        }
    }
}

// sums[p,c] = Σ g and products[p,c] = Σ g·n over part p, where g is dy where the ReLU passed y, and
// zero elsewhere. Rows are added in order, ROWS at a time, so that the per-channel values are read
// once for ROWS rows.
template <int64_t ROWS>
DEVICE void add_rows(const T* row, const T* gradient, const real* mean, const real* inv_std, const real* weight, const real* bias, real* sum, real* product, int64_t channels, bool relu) {
    BLOCK_LOOP(c, channels) {
        real s = sum[c], p = product[c];
        for (int64_t k = 0; k < ROWS; ++k) {
            const real n = (real(row[k * channels + c]) - mean[c]) * inv_std[c];
            const real g = passed(real(gradient[k * channels + c]), affine(n, weight[c], bias[c]), relu);
            s += g;
            p = fma_of(g, n, p);
        }
        sum[c] = s;
        product[c] = p;
    }
}

// sums[p,c] = Σ g and products[p,c] = Σ g·n over part p, where g is dy where the ReLU passed y, and
// zero elsewhere; one block per part.
KERNEL(batchnorm_gradient_partial,
       const T* x /* rows,channels */, const T* dy /* rows,channels */,
       const real* mean /* channels */, const real* inv_std /* channels */,
       const real* weight /* channels */, const real* bias /* channels */,
       real* sums /* blocks,channels */, real* products /* blocks,channels */,
       int64_t rows, int64_t channels, bool relu) {
    constexpr int64_t MANY = 4;
    real* sum = sums + block_index() * channels;
    real* product = products + block_index() * channels;
    BLOCK_LOOP(c, channels) sum[c] = product[c] = 0;
    int64_t r = chunk_begin(rows);
    for (; r + MANY <= chunk_end(rows); r += MANY)
        add_rows<MANY>(x + r * channels, dy + r * channels, mean, inv_std, weight, bias, sum, product, channels, relu);
    for (; r < chunk_end(rows); ++r)
        add_rows<1>(x + r * channels, dy + r * channels, mean, inv_std, weight, bias, sum, product, channels, relu);
}

// sum[c] = Σ_p sums[p,c] and product[c] = Σ_p products[p,c], which are also added to the gradients
// of bias and weight.
KERNEL(batchnorm_gradient_final,
       const real* sums /* parts,channels */, const real* products /* parts,channels */,
       real* sum /* channels */, real* product /* channels */,
       real* OPTIONAL dweight /* channels */, real* OPTIONAL dbias /* channels */,
       int64_t parts, int64_t channels) {
    each_sum(sums, parts, channels, [&](int64_t c, real all) {
        sum[c] = all;
        if (dbias != nullptr) dbias[c] += all;
    });
    each_sum(products, parts, channels, [&](int64_t c, real all) {
        product[c] = all;
        if (dweight != nullptr) dweight[c] += all;
    });
}

// dx = weight·inv_std·(g - sum/rows - n·product/rows), where g is dy where the ReLU passed y, and
// zero elsewhere. The last two terms are omitted if the running statistics were used (`train` is
// false). dx may be the same tensor as dy.
KERNEL(batchnorm_backward,
       const T* x /* rows,channels */, const T* dy /* rows,channels */,
       const real* mean /* channels */, const real* inv_std /* channels */,
       const real* weight /* channels */, const real* bias /* channels */,
       const real* sum /* channels */, const real* product /* channels */,
       T* dx /* rows,channels */,
       int64_t rows, int64_t channels, bool train, bool relu) {
    const real share = train ? 1 / static_cast<real>(rows) : real(0);
    ROW_LOOP(r, rows) {
        const T* row = x + r * channels;
        const T* gradient = dy + r * channels;
        T* out = dx + r * channels;
        BLOCK_LOOP(c, channels) {
            const real n = (real(row[c]) - mean[c]) * inv_std[c];
            const real g = passed(real(gradient[c]), affine(n, weight[c], bias[c]), relu);
            out[c] = weight[c] * inv_std[c] * (g - share * fma_of(n, product[c], sum[c]));
        }
    }
}
