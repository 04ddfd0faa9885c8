// Layer norm over channels, fused with the residual connection and drop-path before it. Tensors are
// rows,channels.
//
//   s = x + keep_b / (1 - rate) · branch           (residual stream; keep_b is 0 or 1 per sample)
//   y = (s - mean(s)) / √(var(s) + eps) · gamma + beta
//
// Backward, with x̂ the normalized stream and g = dy · gamma:
//   ds = ds' + (g - mean(g) - x̂ · mean(g · x̂)) / √(var + eps)       (ds' comes along the stream)
//   dbranch = keep_b / (1 - rate) · ds
//   dgamma = Σ_rows dy · x̂      dbeta = Σ_rows dy
// Layer normalization: Ba et al. 2016; stochastic depth: Huang et al. 2016.
//
// A thread group (group.cuh) takes a row. If the group is a warp and the networks use this number of
// channels, its lanes hold the row in registers: all loads are issued before the first use, the row
// is loaded only once, and there are no barriers.
#include "random.cuh"
#include "group.cuh"

// Drop-path: the factor by which the branch of each sample is scaled.
struct Drop {
    const uint64_t* key;
    int64_t stream, sample_rows, first_slot, slots, all_slots;
    real rate;
    // Cache: rows from the last one queried up to `known` (exclusive) have this factor.
    int64_t known;
    real factor;
};

// Returns the factor of row r's sample; r must not decrease from call to call.
DEVICE real branch_scale(Drop& drop, int64_t r) {
    if (drop.key == nullptr || drop.rate <= 0) return 1;
    if (r >= drop.known) {
        const int64_t b = r / drop.sample_rows;
        drop.known = (b + 1) * drop.sample_rows;
        const int64_t slot = slot_of(b, drop.first_slot, drop.slots, drop.all_slots);
        drop.factor = uniform_of(*drop.key, drop.stream, slot) < drop.rate ? real(0) : 1 / (1 - drop.rate);
    }
    return drop.factor;
}

// Limits registers so that a multiprocessor holds 24 warps.
#undef LAUNCH_BOUNDS
#define LAUNCH_BOUNDS __launch_bounds__(MAX_GROUPS * WARP, 3)

MATH real normal_of(real s, real mean, real inverse) { return (s - mean) * inverse; }

// `branch` and `sum` are both absent for a norm without a residual. The result is stored in `y`, or
// in `wide` if it starts a residual stream. stats: mean and 1/√(var + eps) of each row.
KERNEL(layernorm_forward,
       const real* x /* rows,channels */, const T* OPTIONAL branch /* rows,channels */,
       const uint64_t* OPTIONAL key /* 1 */, const real* gamma /* channels */,
       const real* beta /* channels */, real* OPTIONAL sum /* rows,channels */,
       T* OPTIONAL y /* rows,channels */, real* OPTIONAL wide /* rows,channels */,
       real* OPTIONAL stats /* rows,2 */,
       int64_t stream, real rate, real eps, int64_t sample_rows, int64_t first_slot, int64_t slots,
       int64_t all_slots, int64_t rows, int64_t channels) {
    Drop drop = {key, stream, sample_rows, first_slot, slots, all_slots, rate, 0, 1};
    auto tell = [&](int64_t r, real mean, real inverse) {
        if (stats == nullptr || group_lane() != 0) return;
        stats[2 * r] = mean;
        stats[2 * r + 1] = inverse;
    };
#if defined(UDASS_THREADS)
    auto in_registers = [&](auto s) {
        constexpr int64_t N = decltype(s)::count;
        GROUP_ROWS(r, rows) {
            const int64_t first = r * channels + lane_index();
            s = load_row<N>(x + first);
            if (branch != nullptr) {
                const RowRegisters<N> added = load_row<N>(branch + first);
                const real scale = branch_scale(drop, r);
                UNROLL for (int64_t i = 0; i < N; ++i) {
                    s.at[i] += scale * added.at[i];
                    sum[first + WARP * i] = s.at[i];
                }
            }
            real total[1] = {0}, squares[1] = {0};
            UNROLL for (int64_t i = 0; i < N; ++i) total[0] += s.at[i];
            warp_sum(total);
            const real mean = total[0] / real(N * WARP);
            UNROLL for (int64_t i = 0; i < N; ++i) {
                const real d = s.at[i] - mean;
                squares[0] += d * d;
            }
            warp_sum(squares);
            const real inverse = 1 / sqrt_of(squares[0] / real(N * WARP) + eps);
            tell(r, mean, inverse);
            const RowRegisters<N> scales = load_row<N>(gamma + lane_index()), shifts = load_row<N>(beta + lane_index());
            UNROLL for (int64_t i = 0; i < N; ++i) {
                const real out = normal_of(s.at[i], mean, inverse) * scales.at[i] + shifts.at[i];
                if (y != nullptr) y[first + WARP * i] = out;
                else wide[first + WARP * i] = out;
            }
        }
    };
    if (rows_in_registers(channels, in_registers)) return;
#endif
    GROUP_ROWS(r, rows) {
        const real* s = x + r * channels;
        if (branch != nullptr) {
            const real scale = branch_scale(drop, r);
            const T* added = branch + r * channels;
            real* out = sum + r * channels;
            GROUP_LOOP(c, channels) out[c] = s[c] + scale * real(added[c]);
            s = out;
        }
        const real mean = group_sum(channels, [&](int64_t c) { return s[c]; }) / channels;
        const real variance = group_sum(channels, [&](int64_t c) {
            const real d = s[c] - mean;
            return d * d;
        }) / channels;
        const real inverse = 1 / sqrt_of(variance + eps);
        tell(r, mean, inverse);
        auto result = [&](auto* out) {
            GROUP_LOOP(c, channels) out[c] = normal_of(s[c], mean, inverse) * gamma[c] + beta[c];
        };
        if (y != nullptr) result(y + r * channels);
        else result(wide + r * channels);
    }
}

// Adds the partial sums of the block's thread groups.
DEVICE real over_groups(const real* sums, int64_t stride) {
    real sum = sums[0];
    for (int64_t t = 1; t < group_count(); ++t) sum += sums[t * stride];
    return sum;
}

// Limits registers so that a multiprocessor holds 16 warps.
#undef LAUNCH_BOUNDS
#define LAUNCH_BOUNDS __launch_bounds__(MAX_GROUPS * WARP, 2)

// s: input of the norm. dy, or dwide: gradient of its output. ds: gradient along the residual
// stream, absent if nothing follows; dx may be the same tensor. Each block reduces one part of the
// rows into its row of `partial`: dgamma, then dbeta. Shared memory holds MAX_GROUPS such rows.
KERNEL(layernorm_backward,
       const real* s /* rows,channels */, const T* OPTIONAL dy /* rows,channels */,
       const real* OPTIONAL dwide /* rows,channels */, const real* OPTIONAL ds /* rows,channels */,
       const uint64_t* OPTIONAL key /* 1 */, const real* gamma /* channels */,
       const real* stats /* rows,2 */, real* dx /* rows,channels */,
       T* OPTIONAL dbranch /* rows,channels */, real* partial /* blocks,2,channels */,
       int64_t stream, real rate, int64_t sample_rows, int64_t first_slot, int64_t slots,
       int64_t all_slots, int64_t rows, int64_t channels) {
    Drop drop = {key, stream, sample_rows, first_slot, slots, all_slots, rate, 0, 1};
    real* part = partial + block_index() * 2 * channels;
    // With several thread groups, each of them accumulates in its own row.
    const bool apart = group_count() > 1;
    real* sums = apart ? static_cast<real*>(shared_memory()) : part;
    auto by_memory = [&] {
        BLOCK_LOOP(i, group_count() * 2 * channels) sums[i] = 0;
        barrier();
        GROUP_ROWS(r, rows) {
            const int64_t row = r * channels;
            const real mean = stats[2 * r], inverse = stats[2 * r + 1];
            const real* in = s + row;
            real* out = dx + row;
            real* dgamma = sums + group_of(r, rows) * 2 * channels;
            real* dbeta = dgamma + channels;
            // The gradient's type is T (dy) or real (dwide).
            auto backward = [&](const auto* gradient) {
                const real plain = group_sum(channels, [&](int64_t c) {
                    return real(gradient[c]) * gamma[c];
                }) / channels;
                const real along = group_sum(channels, [&](int64_t c) {
                    return real(gradient[c]) * gamma[c] * normal_of(in[c], mean, inverse);
                }) / channels;
                GROUP_LOOP(c, channels) {
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
                GROUP_LOOP(c, channels) dbranch[row + c] = scale * out[c];
            }
        }
    };
#if defined(UDASS_THREADS)
    auto in_registers = [&](auto dgamma, const auto* gradient) {
        constexpr int64_t N = decltype(dgamma)::count;
        RowRegisters<N> dbeta = {};
        dgamma = {};
        GROUP_ROWS(r, rows) {
            const int64_t first = r * channels + lane_index();
            const RowRegisters<N> before = ds != nullptr ? load_row<N>(ds + first) : RowRegisters<N>{};
            RowRegisters<N> g = load_row<N>(gradient + first), normal = load_row<N>(s + first);
            const RowRegisters<N> scales = load_row<N>(gamma + lane_index());
            const real mean = stats[2 * r], inverse = stats[2 * r + 1];
            real means[2] = {0, 0};
            UNROLL for (int64_t i = 0; i < N; ++i) {
                normal.at[i] = normal_of(normal.at[i], mean, inverse);
                dgamma.at[i] += g.at[i] * normal.at[i];
                dbeta.at[i] += g.at[i];
                g.at[i] *= scales.at[i];
                means[0] += g.at[i];
                means[1] += g.at[i] * normal.at[i];
            }
            warp_sum(means);
            const real plain = means[0] / real(N * WARP), along = means[1] / real(N * WARP);
            const real scale = dbranch != nullptr ? branch_scale(drop, r) : real(0);
            UNROLL for (int64_t i = 0; i < N; ++i) {
                const real d = before.at[i] + (g.at[i] - plain - normal.at[i] * along) * inverse;
                dx[first + WARP * i] = d;
                if (dbranch != nullptr) dbranch[first + WARP * i] = scale * d;
            }
        }
        real* own = sums + group_index() * 2 * channels + lane_index();
        UNROLL for (int64_t i = 0; i < N; ++i) {
            own[WARP * i] = dgamma.at[i];
            own[channels + WARP * i] = dbeta.at[i];
        }
    };
    const bool done = dy != nullptr ? rows_in_registers(channels, [&](auto row) { in_registers(row, dy); })
                                    : rows_in_registers(channels, [&](auto row) { in_registers(row, dwide); });
    if (!done) by_memory();
#else
    by_memory();
#endif
    if (apart) {
        barrier();
        BLOCK_LOOP(i, 2 * channels) part[i] = over_groups(sums + i, 2 * channels);
    }
}

// dgamma[c] += Σ_p partial[p,0,c]      dbeta[c] += Σ_p partial[p,1,c]
// Thread groups split the parts. Shared memory is the same as for layernorm_backward.
KERNEL(layernorm_weights,
       const real* partial /* parts,2,channels */, real* dgamma /* channels */,
       real* dbeta /* channels */,
       int64_t parts, int64_t channels) {
    const bool apart = group_count() > 1;
    real* sums = static_cast<real*>(shared_memory());
    const int64_t first = chunk_begin(channels), count = chunk_end(channels) - first;
    for (int64_t t = group_index(); t < group_count(); t += group_step()) {
        GROUP_LOOP(c, count) {
            const real* column = partial + first + c;
            real g = 0, b = 0;
#pragma unroll 8
            for (int64_t p = t; p < parts; p += group_count()) {
                g += column[2 * p * channels];
                b += column[(2 * p + 1) * channels];
            }
            if (apart) {
                sums[2 * t * channels + c] = g;
                sums[(2 * t + 1) * channels + c] = b;
            } else {
                dgamma[first + c] += g;
                dbeta[first + c] += b;
            }
        }
    }
    if (apart) {
        barrier();
        BLOCK_LOOP(c, count) {
            dgamma[first + c] += over_groups(sums + c, 2 * channels);
            dbeta[first + c] += over_groups(sums + channels + c, 2 * channels);
        }
    }
}
