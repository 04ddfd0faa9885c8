// Batch normalization over all pixels of a batch, per channel, fused with the ReLU that follows it
// (Ioffe & Szegedy 2015).
//   n = (x - mean) · inv_std,   y = n·weight + bias,   y = max(y, 0) if relu
// x and y are rows,channels, and a row is a pixel: rows = batch·height·width. The statistics need
// one pass over memory: each block averages one part of the rows, sums the squared deviations from
// that average while the part is in cache, and the parts are merged (Chan, Golub & LeVeque 1979).
// Large squares are never subtracted from each other.
#include "columns.cuh"
#include "strips.cuh"

// Limits registers so that a multiprocessor holds 16 warps, each with four 16-byte loads under way.
#undef LAUNCH_BOUNDS
#define LAUNCH_BOUNDS __launch_bounds__(ABREAST, 2)

// Writes the mean of each channel over rows [begin, end) and Σ (x - mean)². Both are computed
// relative to the first row, so that a large common offset costs no precision.
#if defined(UDASS_SHAPED_FOR_GPU)

// Adds `nb` values with their mean and Σ (x - mean)² to `na` others (Chan, Golub & LeVeque 1979).
template <class V>
DEVICE void merge(V& mean, V& deviation, real na, V mean_b, V deviation_b, real nb) {
    const real share = nb / (na + nb);
    const V delta = mean_b - mean;
    mean = fma_of(share, delta, mean);
    deviation = deviation + fma_of(na * share, delta * delta, deviation_b);
}

// Four rows at a time are merged, so that each is read once.
template <class V>
DEVICE void part_statistics(const T* x, real* mean, real* deviation, int64_t begin, int64_t end, int64_t channels) {
    SHARED(V, parts, 2 * ABREAST);
    const T* origin = x + (end > begin ? begin : 0) * channels;
    const int32_t strips = static_cast<int32_t>(channels / Width<V>::lanes), abreast = rows_abreast<V>(channels);
    const auto write = [&](int64_t c, V m, V d) {
        store(mean + c, Width<V>::load(origin + c) + m);
        store(deviation + c, d);
    };
    each_walk<V>(begin, end, channels, [&](int32_t row, int64_t c, Rows rows) {
        const V o = Width<V>::load(origin + c);
        V m = all_lanes<V>(0), d = m;
        real n = 0;
        each_row(rows, [&](int64_t r, int64_t step, auto count) {
            V v[count.value];
            UNROLL for (int64_t k = 0; k < count.value; ++k) v[k] = Width<V>::load(x + (r + k * step) * channels + c) - o;
            if constexpr (count.value == 4) {
                const V four = real(0.25) * ((v[0] + v[1]) + (v[2] + v[3]));
                UNROLL for (int64_t k = 0; k < count.value; ++k) v[k] = v[k] - four;
                merge(m, d, n, four, fma_of(v[0], v[0], v[1] * v[1]) + fma_of(v[2], v[2], v[3] * v[3]), 4);
            } else {
                merge(m, d, n, v[0], all_lanes<V>(0), 1);
            }
            n += static_cast<real>(count.value);
        });
        if (abreast == 1) {
            write(c, m, d);
        } else {
            const int32_t at = row * strips + static_cast<int32_t>(c) / static_cast<int32_t>(Width<V>::lanes);
            parts[at] = m;
            parts[ABREAST + at] = d;
        }
    });
    barrier();
    if (abreast == 1) return;
    BLOCK_LOOP(s, strips) {
        // Row k of those abreast has every abreast-th row from begin + k on.
        const int32_t strip = static_cast<int32_t>(s), all = static_cast<int32_t>(end - begin);
        V m = parts[strip], d = parts[ABREAST + strip];
        int32_t before = (all + abreast - 1) / abreast;
        for (int32_t row = 1; row < least_of(abreast, all); ++row) {
            const int32_t rows = (all - row + abreast - 1) / abreast;
            merge(m, d, static_cast<real>(before), parts[row * strips + strip], parts[ABREAST + row * strips + strip], static_cast<real>(rows));
            before += rows;
        }
        write(strip * Width<V>::lanes, m, d);
    }
}

#else

template <class V>
DEVICE void part_statistics(const T* x, real* mean, real* deviation, int64_t begin, int64_t end, int64_t channels) {
    const auto add = [&](V sum, V origin, int64_t c, auto rows, auto term) {
        each_row(rows, [&](int64_t r, int64_t step, auto count) {
            V d[count.value];
            UNROLL for (int64_t k = 0; k < count.value; ++k) d[k] = term(Width<V>::load(x + (r + k * step) * channels + c) - origin);
            if constexpr (count.value == 4) sum = sum + ((d[0] + d[1]) + (d[2] + d[3]));
            else sum = sum + d[0];
        });
        return sum;
    };
    const T* origin = x + (end > begin ? begin : 0) * channels;
    const real share = end > begin ? 1 / static_cast<real>(end - begin) : real(0);
    sum_strips<V>({mean}, begin, end, channels, [&](V (&sum)[1], int64_t c, auto rows) {
        sum[0] = add(sum[0], Width<V>::load(origin + c), c, rows, [](V d) { return d; });
    }, [&](int64_t c, const V (&sum)[1]) { store(mean + c, Width<V>::load(origin + c) + share * sum[0]); });
    sum_strips<V>({deviation}, begin, end, channels, [&](V (&sum)[1], int64_t c, auto rows) {
        sum[0] = add(sum[0], Width<V>::load(mean + c), c, rows, [](V d) { return d * d; });
    }, [&](int64_t c, const V (&sum)[1]) { store(deviation + c, sum[0]); });
}

#endif

// means[p,c] = mean of x and deviations[p,c] = Σ (x - means[p,c])² over part p; one block per part.
KERNEL(batchnorm_partial,
       const T* x /* rows,channels */, real* means /* blocks,channels */,
       real* deviations /* blocks,channels */,
       int64_t rows, int64_t channels) {
    real* mean = means + block_index() * channels;
    real* deviation = deviations + block_index() * channels;
    if (channels % WIDE == 0) part_statistics<wide>(x, mean, deviation, chunk_begin(rows), chunk_end(rows), channels);
    else part_statistics<real>(x, mean, deviation, chunk_begin(rows), chunk_end(rows), channels);
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

// What normalizes a strip.
template <class V>
struct Normal {
    V mean, inv_std, weight, bias;
};
template <class V>
DEVICE Normal<V> normal_of(const real* mean, const real* inv_std, const real* weight, const real* bias, int64_t c) {
    return {Width<V>::load(mean + c), Width<V>::load(inv_std + c), Width<V>::load(weight + c), Width<V>::load(bias + c)};
}
template <class V>
DEVICE V normalized(const Normal<V>& to, V x) { return (x - to.mean) * to.inv_std; }
// The ReLU mask is not stored: the backward recomputes y and must find the same sign. The explicit
// fused multiply-add keeps compilers from contracting the two differently.
template <class V>
DEVICE V affine(const Normal<V>& to, V n) { return fma_of(n, to.weight, to.bias); }
// max_of propagates NaN.
template <class V>
DEVICE V rectified(V y) {
    return map_lanes(y, [](real y) { return max_of(y, 0); });
}
template <class V>
DEVICE V passed(V dy, V y, bool relu) {
    return map_lanes(dy, y, [&](real dy, real y) { return relu && y <= 0 ? real(0) : dy; });
}

template <class V, bool relu>
DEVICE void normalize(const T* x, const real* mean, const real* inv_std, const real* weight, const real* bias, T* y, int64_t rows, int64_t channels) {
    each_strip<V, 1>(chunk_begin(rows), chunk_end(rows), channels, [&](int64_t c, auto some) {
        const auto to = normal_of<V>(mean, inv_std, weight, bias, c);
        each_row(some, [&](int64_t r, int64_t step, auto count) {
            V n[count.value];
            UNROLL for (int64_t k = 0; k < count.value; ++k) n[k] = normalized(to, Width<V>::load(x + (r + k * step) * channels + c));
            UNROLL for (int64_t k = 0; k < count.value; ++k) {
                const V z = affine(to, n[k]);
                store(y + (r + k * step) * channels + c, relu ? rectified(z) : z);
            }
        });
    });
}

// y = n·weight + bias, followed by the ReLU if `relu`.
KERNEL(batchnorm_forward,
       const T* x /* rows,channels */, const real* mean /* channels */,
       const real* inv_std /* channels */, const real* weight /* channels */,
       const real* bias /* channels */, T* y /* rows,channels */,
       int64_t rows, int64_t channels, bool relu) {
    const auto run = [&](auto v) {
        using V = decltype(v);
        if (relu) normalize<V, true>(x, mean, inv_std, weight, bias, y, rows, channels);
        else normalize<V, false>(x, mean, inv_std, weight, bias, y, rows, channels);
    };
    if (channels % WIDE == 0) run(wide());
    else run(real());
}

template <class V>
DEVICE void part_gradients(const T* x, const T* dy, const real* mean, const real* inv_std, const real* weight, const real* bias, real* sum, real* product, int64_t rows, int64_t channels, bool relu) {
    sum_strips<V>({sum, product}, chunk_begin(rows), chunk_end(rows), channels, [&](V (&sums)[2], int64_t c, auto some) {
        const auto to = normal_of<V>(mean, inv_std, weight, bias, c);
        each_row(some, [&](int64_t r, int64_t step, auto count) {
            V n[count.value], g[count.value];
            UNROLL for (int64_t k = 0; k < count.value; ++k) {
                n[k] = normalized(to, Width<V>::load(x + (r + k * step) * channels + c));
                g[k] = Width<V>::load(dy + (r + k * step) * channels + c);
            }
            UNROLL for (int64_t k = 0; k < count.value; ++k) {
                const V through = passed(g[k], affine(to, n[k]), relu);
                sums[0] = sums[0] + through;
                sums[1] = fma_of(through, n[k], sums[1]);
            }
        });
    }, [&](int64_t c, const V (&sums)[2]) {
        store(sum + c, sums[0]);
        store(product + c, sums[1]);
    });
}

// sums[p,c] = Σ g and products[p,c] = Σ g·n over part p, where g is dy where the ReLU passed y, and
// zero elsewhere; one block per part.
KERNEL(batchnorm_gradient_partial,
       const T* x /* rows,channels */, const T* dy /* rows,channels */,
       const real* mean /* channels */, const real* inv_std /* channels */,
       const real* weight /* channels */, const real* bias /* channels */,
       real* sums /* blocks,channels */, real* products /* blocks,channels */,
       int64_t rows, int64_t channels, bool relu) {
    real* sum = sums + block_index() * channels;
    real* product = products + block_index() * channels;
    if (channels % WIDE == 0) part_gradients<wide>(x, dy, mean, inv_std, weight, bias, sum, product, rows, channels, relu);
    else part_gradients<real>(x, dy, mean, inv_std, weight, bias, sum, product, rows, channels, relu);
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

template <class V>
DEVICE void propagate(const T* x, const T* dy, const real* mean, const real* inv_std, const real* weight, const real* bias, const real* sum, const real* product, T* dx, int64_t rows, int64_t channels, real share, bool relu) {
    each_strip<V>(chunk_begin(rows), chunk_end(rows), channels, [&](int64_t c, auto some) {
        const auto to = normal_of<V>(mean, inv_std, weight, bias, c);
        const V s = Width<V>::load(sum + c), p = Width<V>::load(product + c), scale = to.weight * to.inv_std;
        each_row(some, [&](int64_t r, int64_t step, auto count) {
            V n[count.value], g[count.value];
            UNROLL for (int64_t k = 0; k < count.value; ++k) {
                n[k] = normalized(to, Width<V>::load(x + (r + k * step) * channels + c));
                g[k] = Width<V>::load(dy + (r + k * step) * channels + c);
            }
            UNROLL for (int64_t k = 0; k < count.value; ++k) {
                const V through = passed(g[k], affine(to, n[k]), relu);
                store(dx + (r + k * step) * channels + c, scale * (through - share * fma_of(n[k], p, s)));
            }
        });
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
    if (channels % WIDE == 0) propagate<wide>(x, dy, mean, inv_std, weight, bias, sum, product, dx, rows, channels, share, relu);
    else propagate<real>(x, dy, mean, inv_std, weight, bias, sum, product, dx, rows, channels, share, relu);
}
