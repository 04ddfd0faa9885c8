// Attention on tensor cores, forward: y = softmax(q·kᵀ/√D)·v for every head, with D = 32 or 64. The
// math and the stored log-sum-exp are those of attention.cu. Matmul operands, including the softmax
// weights, are rounded to bf16 or tf32; accumulation is in single precision.
//
// A block takes a chunk of a head's queries and keeps `resident` keys and values in shared memory: all
// of them if they fit, so that they are read only once. A warp takes 16 queries, and their scores,
// weights and results stay in its registers (Dao 2023). Its shared-memory loads alone take as long
// as its matmuls, so everything else is kept to few instructions: exponentials are powers of two,
// and only a tile that ends past the last key is masked. Blocks that are not made of whole warps,
// the serial CPU build and double precision use the portable body, one row at a time.
#include "attention_mma.cuh"

// Portable body: one thread computes one query.
DEVICE void forward_row(const T* q, const T* k, T* y, real* log, int64_t keys, int64_t size, int64_t channels) {
    const T* v = k + channels;
    const real scale = 1 / sqrt_of(real(size));
    real result[TILE];
    real high = -REAL_MAX, total = 0;
    for (int64_t c = 0; c < size; ++c) result[c] = 0;
    for (int64_t m = 0; m < keys; ++m) {
        const T* key = k + m * 2 * channels;
        const T* value = v + m * 2 * channels;
        real score = 0;
        for (int64_t c = 0; c < size; ++c) score += operand_of(q[c]) * operand_of(key[c]);
        score *= scale;
        const real higher = max_of(high, score);
        const real shrink = exp_of(high - higher), weight = exp_of(score - higher);
        high = higher;
        total = total * shrink + weight;
        for (int64_t c = 0; c < size; ++c) result[c] = result[c] * shrink + operand_of(weight) * operand_of(value[c]);
    }
    for (int64_t c = 0; c < size; ++c) y[c] = result[c] / total;
    if (log) *log = high + log_of(total);
}

#if defined(UDASS_WARPS)
template <int64_t size>
DEVICE void forward(const T* q, const T* kv, T* y, real* log_sum_exp, int64_t rows, int64_t keys, int64_t channels, int64_t resident) {
    const float scale = 1 / sqrt_of(real(size)), steepness = scale * LOG2_E;
    KeyTiles tiles{kv, keys, channels, resident};
    start_copy<size>(tiles);
    for (int64_t step = 0; step < rows; step += 16 * warp_count()) {
        const int64_t first = step + 16 * warp_index(), mine = held_to(rows - first, 0, 16);
        uint32_t from[size / DEPTH][4];
        load_a<size>(from, q + first * channels, mine, channels);
        float result[size / 8][4] = {}, high[2] = {-REAL_MAX, -REAL_MAX}, total[2] = {0, 0};
        for (int64_t key = 0; key < keys; key += TILE) {
            const T* tile = next_tile<size>(tiles, step + 16 * warp_count() < rows);
            float scores[TILE / 8][4] = {};
            multiply_rows<size>(scores, from, tile, 0);
            hide_beyond(scores, key, keys);
            UNROLL for (int64_t h = 0; h < 2; ++h) {
                float higher = high[h];
                UNROLL for (int64_t n = 0; n < TILE / 8; ++n) higher = fmaxf(higher, fmaxf(scores[n][2 * h], scores[n][2 * h + 1]));
                higher = row_max(higher);
                const float shrink = exp2_of((high[h] - higher) * steepness), shift = higher * steepness;
                high[h] = higher;
                total[h] *= shrink;
                UNROLL for (int64_t n = 0; n < size / 8; ++n) {
                    result[n][2 * h] *= shrink;
                    result[n][2 * h + 1] *= shrink;
                }
                UNROLL for (int64_t n = 0; n < TILE / 8; ++n) {
                    UNROLL for (int64_t i = 2 * h; i < 2 * h + 2; ++i) {
                        scores[n][i] = exp2_of(fma_of(scores[n][i], steepness, -shift));
                        total[h] += scores[n][i];
                    }
                }
            }
            multiply_weights<size>(result, scores, tile + TILE_NUMBERS<size> / 2, 0);
        }
        UNROLL for (int64_t h = 0; h < 2; ++h) {
            const float all = row_sum(total[h]), share = 1 / all;
            const int64_t row = lane_group() + 8 * h;
            if (row >= mine) continue;
            T* to = y + (first + row) * channels + 2 * lane_pair();
            UNROLL for (int64_t n = 0; n < size / 8; ++n) {
                *reinterpret_cast<Pair*>(to + 8 * n) = {T(result[n][2 * h] * share), T(result[n][2 * h + 1] * share)};
            }
            if (log_sum_exp && lane_pair() == 0) log_sum_exp[first + row] = high[h] * scale + log_of(all);
        }
    }
}
#endif

// One block computes `chunk` queries of one head: batch·heads·⌈queries/chunk⌉ blocks. `resident`, a
// multiple of 64, is the number of rows of keys and of values that fit in shared memory. `log_sum_exp`
// receives the log-sum-exp of each row; it may be omitted if there is no backward.
KERNEL(attention_mma_forward,
       const T* q /* blocks/ceil(queries/chunk)/heads,queries,heads*head_dim */,
       const T* kv /* blocks/ceil(queries/chunk)/heads,keys,2*heads*head_dim */,
       T* y /* blocks/ceil(queries/chunk)/heads,queries,heads*head_dim */,
       real* OPTIONAL log_sum_exp /* blocks/ceil(queries/chunk),queries */,
       int64_t chunk, int64_t resident, int64_t queries, int64_t keys, int64_t heads,
       int64_t head_dim) {
    const int64_t chunks = (queries + chunk - 1) / chunk, channels = heads * head_dim;
    const int64_t sample_head = block_index() / chunks, begin = block_index() % chunks * chunk;
    const int64_t rows = least_of(queries - begin, chunk);
    const int64_t head = sample_head % heads, sample = sample_head / heads;
    const T* from = q + (sample * queries + begin) * channels + head * head_dim;
    const T* others = kv + sample * keys * 2 * channels + head * head_dim;
    T* to = y + (sample * queries + begin) * channels + head * head_dim;
    real* kept = log_sum_exp ? log_sum_exp + sample_head * queries + begin : nullptr;
#if defined(UDASS_WARPS)
    if (thread_count() % WARP == 0) {
        if (head_dim == 64) forward<64>(from, others, to, kept, rows, keys, channels, resident);
        else forward<32>(from, others, to, kept, rows, keys, channels, resident);
        return;
    }
#endif
    (void)resident;
    BLOCK_LOOP(r, rows) forward_row(from + r * channels, others, to + r * channels, kept ? kept + r : nullptr, keys, head_dim, channels);
}
