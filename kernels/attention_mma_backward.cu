// Attention on tensor cores, backward, with D = 32 or 64. With P = e^(s-L), where L is the
// log-sum-exp from the forward, and δ = Σ dy∘y for each row (Dao et al. 2022):
//   dV = Pᵀ·dy    dS = P∘(dy·vᵀ - δ)    dq = dS·k/√D    dk = dSᵀ·q/√D
// Two kernels recompute P and dS, each in the layout that its warps need. attention_mma_queries has
// queries as rows and computes δ and dq; attention_mma_keys has keys as rows and computes dk and dv
// for a chunk of the queries, which attention_keys_gradient (attention.cu) then adds. No two blocks
// add to the same element, so the order of additions is fixed. Matmul operands are rounded to bf16
// or tf32; accumulation is in single precision.
#include "attention_mma.cuh"

// Keys or queries whose weights a warp holds at a time; more would exhaust its registers.
constexpr int64_t FEW = 16;

DEVICE real dot(const T* a, const T* b, int64_t n) {
    real sum = 0;
    for (int64_t c = 0; c < n; ++c) sum += operand_of(a[c]) * operand_of(b[c]);
    return sum;
}

#if defined(UDASS_WARPS)
// Σ a∘b of a row, reduced over the four lanes that hold it; zero if the row is not `there`.
template <int64_t size>
DEVICE float row_dot(const T* a, const T* b, bool there) {
    float sum = 0;
    if (there) {
        UNROLL for (int64_t c = 2 * lane_pair(); c < size; c += 8) {
            const Pair x = *reinterpret_cast<const Pair*>(a + c), y = *reinterpret_cast<const Pair*>(b + c);
            sum += real(x.lanes[0]) * real(y.lanes[0]) + real(x.lanes[1]) * real(y.lanes[1]);
        }
    }
    return row_sum(sum);
}

template <int64_t size>
DEVICE void queries_gradient(const T* q, const T* kv, const T* y, const T* dy, const real* log_sum_exp, T* dq, real* delta, int64_t rows, int64_t keys, int64_t channels, int64_t resident) {
    const float scale = 1 / sqrt_of(real(size)), steepness = scale * LOG2_E;
    KeyTiles tiles{kv, keys, channels, resident};
    start_copy<size>(tiles);
    for (int64_t step = 0; step < rows; step += 16 * warp_count()) {
        const int64_t first = step + 16 * warp_index(), mine = held_to(rows - first, 0, 16);
        uint32_t from[size / DEPTH][4], from_dy[size / DEPTH][4];
        load_a<size>(from, q + first * channels, mine, channels);
        load_a<size>(from_dy, dy + first * channels, mine, channels);
        float log[2], shift[2], result[size / 8][4] = {};
        UNROLL for (int64_t h = 0; h < 2; ++h) {
            const int64_t row = lane_group() + 8 * h;
            log[h] = row < mine ? log_sum_exp[first + row] * LOG2_E : 0;
            shift[h] = row_dot<size>(y + (first + row) * channels, dy + (first + row) * channels, row < mine);
            if (row < mine && lane_pair() == 0) delta[first + row] = shift[h];
        }
        for (int64_t key = 0; key < keys; key += TILE) {
            const T* tile = next_tile<size>(tiles, step + 16 * warp_count() < rows);
            for (int64_t part = 0; part < least_of(keys - key, TILE); part += FEW) {
                float scores[FEW / 8][4] = {}, dscores[FEW / 8][4] = {};
                multiply_rows<size>(scores, from, tile, part);
                multiply_rows<size>(dscores, from_dy, tile + TILE_NUMBERS<size> / 2, part);
                hide_beyond(scores, key + part, keys);
                UNROLL for (int64_t n = 0; n < FEW / 8; ++n) {
                    UNROLL for (int64_t i = 0; i < 4; ++i) {
                        const float weight = exp2_of(fma_of(scores[n][i], steepness, -log[i / 2]));
                        dscores[n][i] = weight * (dscores[n][i] - shift[i / 2]);
                    }
                }
                multiply_weights<size>(result, dscores, tile, part);
            }
        }
        UNROLL for (int64_t h = 0; h < 2; ++h) {
            const int64_t row = lane_group() + 8 * h;
            if (row >= mine) continue;
            T* to = dq + (first + row) * channels + 2 * lane_pair();
            UNROLL for (int64_t n = 0; n < size / 8; ++n) {
                *reinterpret_cast<Pair*>(to + 8 * n) = {T(result[n][2 * h] * scale), T(result[n][2 * h + 1] * scale)};
            }
        }
    }
}

template <int64_t size>
DEVICE void keys_gradient(const T* q, const T* kv, const T* dy, const real* log_sum_exp, const real* delta, real* dk, real* dv, int64_t rows, int64_t keys, int64_t channels) {
    const float scale = 1 / sqrt_of(real(size)), steepness = scale * LOG2_E;
    SHARED(real, log, 2 * TILE);
    SHARED(real, shift, 2 * TILE);
    T* tiles = static_cast<T*>(shared_memory());
    // Double buffering: one slot is filled while the other is used. Queries past the last one get a
    // log-sum-exp of REAL_MAX, so that their weights are zero.
    const auto start_copy = [&](int64_t slot, int64_t base) {
        copy_tile<size>(tiles + slot * TILE_NUMBERS<size>, q + base * channels, dy + base * channels, rows - base, channels);
        BLOCK_LOOP(i, TILE) {
            const int64_t at = slot * TILE + i;
            if (base + i < rows) {
                copy_word_async(log + at, log_sum_exp + base + i);
                copy_word_async(shift + at, delta + base + i);
            } else {
                log[at] = REAL_MAX;
                shift[at] = 0;
            }
        }
        commit_copies();
    };
    int64_t slot = 0;
    for (int64_t step = 0; step < TILE; step += 16 * warp_count()) {
        start_copy(slot, 0);
        const int64_t first = step + 16 * warp_index(), mine = held_to(keys - first, 0, 16);
        uint32_t from[size / DEPTH][4], from_values[size / DEPTH][4];
        load_a<size>(from, kv + first * 2 * channels, mine, 2 * channels);
        load_a<size>(from_values, kv + first * 2 * channels + channels, mine, 2 * channels);
        float sum_dk[size / 8][4] = {}, sum_dv[size / 8][4] = {};
        for (int64_t base = 0; base < rows; base += TILE, slot = 1 - slot) {
            T* tile = tiles + slot * TILE_NUMBERS<size>;
            const T* dy_rows = tile + TILE_NUMBERS<size> / 2;
            settle_tile<size>(tile);
            barrier();
            if (base + TILE < rows) start_copy(1 - slot, base + TILE);
            for (int64_t part = 0; part < least_of(rows - base, TILE); part += FEW) {
                float scores[FEW / 8][4] = {}, dscores[FEW / 8][4] = {};
                multiply_rows<size>(scores, from, tile, part);
                multiply_rows<size>(dscores, from_values, dy_rows, part);
                UNROLL for (int64_t n = 0; n < FEW / 8; ++n) {
                    UNROLL for (int64_t i = 0; i < 4; ++i) {
                        const int64_t query = slot * TILE + part + 8 * n + 2 * lane_pair() + i % 2;
                        scores[n][i] = exp2_of(fma_of(scores[n][i], steepness, -log[query] * LOG2_E));
                        dscores[n][i] = scores[n][i] * (dscores[n][i] - shift[query]);
                    }
                }
                multiply_weights<size>(sum_dv, scores, dy_rows, part);
                multiply_weights<size>(sum_dk, dscores, tile, part);
            }
        }
        // A warp past the end of the tile has no keys.
        if (first >= TILE) continue;
        UNROLL for (int64_t i = 0; i < 4; ++i) {
            const int64_t at = (first + lane_group() + i / 2 * 8) * size + 2 * lane_pair() + i % 2;
            UNROLL for (int64_t n = 0; n < size / 8; ++n) {
                dk[at + 8 * n] = sum_dk[n][i] * scale;
                dv[at + 8 * n] = sum_dv[n][i];
            }
        }
    }
}
#endif

// One block computes δ and dq of `chunk` queries of one head: batch·heads·⌈queries/chunk⌉ blocks.
// `resident` is the same as in attention_mma_forward.
KERNEL(attention_mma_queries,
       const T* q /* blocks/ceil(queries/chunk)/heads,queries,heads*head_dim */,
       const T* kv /* blocks/ceil(queries/chunk)/heads,keys,2*heads*head_dim */,
       const T* y /* blocks/ceil(queries/chunk)/heads,queries,heads*head_dim */,
       const T* dy /* blocks/ceil(queries/chunk)/heads,queries,heads*head_dim */,
       const real* log_sum_exp /* blocks/ceil(queries/chunk),queries */,
       T* dq /* blocks/ceil(queries/chunk)/heads,queries,heads*head_dim */,
       real* delta /* blocks/ceil(queries/chunk),queries */,
       int64_t chunk, int64_t resident, int64_t queries, int64_t keys, int64_t heads,
       int64_t head_dim) {
    const int64_t chunks = (queries + chunk - 1) / chunk, channels = heads * head_dim;
    const int64_t sample_head = block_index() / chunks, begin = block_index() % chunks * chunk;
    const int64_t rows = least_of(queries - begin, chunk), kept = sample_head * queries + begin;
    const int64_t at = (sample_head / heads * queries + begin) * channels + sample_head % heads * head_dim;
    const T* others = kv + sample_head / heads * keys * 2 * channels + sample_head % heads * head_dim;
#if defined(UDASS_WARPS)
    if (thread_count() % WARP == 0) {
        if (head_dim == 64) queries_gradient<64>(q + at, others, y + at, dy + at, log_sum_exp + kept, dq + at, delta + kept, rows, keys, channels, resident);
        else queries_gradient<32>(q + at, others, y + at, dy + at, log_sum_exp + kept, dq + at, delta + kept, rows, keys, channels, resident);
        return;
    }
#endif
    (void)resident;
    const real scale = 1 / sqrt_of(real(head_dim));
    BLOCK_LOOP(r, rows) {
        real result[TILE], shift = 0;
        const int64_t row = at + r * channels;
        for (int64_t c = 0; c < head_dim; ++c) {
            result[c] = 0;
            shift += real(y[row + c]) * real(dy[row + c]);
        }
        delta[kept + r] = shift;
        for (int64_t m = 0; m < keys; ++m) {
            const T* key = others + m * 2 * channels;
            const real weight = exp_of(dot(q + row, key, head_dim) * scale - log_sum_exp[kept + r]);
            const real dscore = operand_of(weight * (dot(dy + row, key + channels, head_dim) - shift));
            for (int64_t c = 0; c < head_dim; ++c) result[c] += dscore * operand_of(key[c]);
        }
        for (int64_t c = 0; c < head_dim; ++c) dq[row + c] = result[c] * scale;
    }
}

#undef LAUNCH_BOUNDS
#define LAUNCH_BOUNDS __launch_bounds__(128, 3)

// One block computes the partial sums of dk and dv for a tile of 64 keys over `chunk` queries of
// one head: batch·heads·⌈keys/64⌉·⌈queries/chunk⌉ blocks. partial:
// chunks,2,batch,heads,tiles,64,head_dim.
KERNEL(attention_mma_keys,
       const T* q /* blocks/ceil(queries/chunk)/ceil(keys/KEYS)/heads,queries,heads*head_dim */,
       const T* kv /* blocks/ceil(queries/chunk)/ceil(keys/KEYS)/heads,keys,2*heads*head_dim */,
       const T* dy /* blocks/ceil(queries/chunk)/ceil(keys/KEYS)/heads,queries,heads*head_dim */,
       const real* log_sum_exp /* blocks/ceil(queries/chunk)/ceil(keys/KEYS),queries */,
       const real* delta /* blocks/ceil(queries/chunk)/ceil(keys/KEYS),queries */,
       real* partial /* 2*blocks,KEYS,head_dim */,
       int64_t chunk, int64_t queries, int64_t keys, int64_t heads, int64_t head_dim) {
    const int64_t chunks = (queries + chunk - 1) / chunk, channels = heads * head_dim, tiles = (keys + TILE - 1) / TILE;
    const int64_t group = block_index() / chunks, begin = block_index() % chunks * chunk;
    const int64_t sample_head = group / tiles, first = group % tiles * TILE;
    const int64_t rows = least_of(queries - begin, chunk), here = least_of(keys - first, TILE);
    const int64_t kept = sample_head * queries + begin;
    const int64_t at = (sample_head / heads * queries + begin) * channels + sample_head % heads * head_dim;
    const T* others = kv + (sample_head / heads * keys + first) * 2 * channels + sample_head % heads * head_dim;
    const int64_t part = block_count() / chunks * TILE * head_dim;
    real* dk = partial + block_index() % chunks * 2 * part + group * TILE * head_dim;
    real* dv = dk + part;
#if defined(UDASS_WARPS)
    if (thread_count() % WARP == 0) {
        if (head_dim == 64) keys_gradient<64>(q + at, others, dy + at, log_sum_exp + kept, delta + kept, dk, dv, rows, here, channels);
        else keys_gradient<32>(q + at, others, dy + at, log_sum_exp + kept, delta + kept, dk, dv, rows, here, channels);
        return;
    }
#endif
    const real scale = 1 / sqrt_of(real(head_dim));
    BLOCK_LOOP(m, TILE) {
        real sum_dk[TILE], sum_dv[TILE];
        for (int64_t c = 0; c < head_dim; ++c) sum_dk[c] = sum_dv[c] = 0;
        const T* key = others + m * 2 * channels;
        for (int64_t r = 0; r < rows && m < here; ++r) {
            const T* query = q + at + r * channels;
            const T* gradient = dy + at + r * channels;
            const real weight = exp_of(dot(key, query, head_dim) * scale - log_sum_exp[kept + r]);
            const real dscore = operand_of(weight * (dot(key + channels, gradient, head_dim) - delta[kept + r]));
            for (int64_t c = 0; c < head_dim; ++c) {
                sum_dk[c] += dscore * operand_of(query[c]);
                sum_dv[c] += operand_of(weight) * operand_of(gradient[c]);
            }
        }
        for (int64_t c = 0; c < head_dim; ++c) {
            dk[m * head_dim + c] = sum_dk[c] * scale;
            dv[m * head_dim + c] = sum_dv[c];
        }
    }
}
