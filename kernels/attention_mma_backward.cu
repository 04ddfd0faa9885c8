// Attention on the tensor cores, backward, D 32 or 64. With P = e^(s-L) from the logarithms L that
// the forward pass kept, and δ = Σ dy∘y of a row (Dao et al. 2022):
//   dV = Pᵀ·dy    dS = P∘(dy·vᵀ - δ)    dq = dS·k/√D    dk = dSᵀ·q/√D
// Two kernels compute P and dS, each what it needs as its warps hold it: one has queries in its rows
// and sums dq, the other keys, and sums dk and dv of a chunk of the queries, which
// attention_keys_gradient (attention.cu) adds up. Nothing is added by two blocks: the order is fixed.
// Operands of products are rounded to bf16 or tf32; sums are in single precision.
#include "attention_mma.cuh"

constexpr int64_t TILE = 64;
// Queries whose weights a warp of the keys' kernel holds at a time.
constexpr int64_t FEW = 32;

DEVICE real dot(const T* a, const T* b, int64_t n) {
    real sum = 0;
    for (int64_t c = 0; c < n; ++c) sum += operand_of(a[c]) * operand_of(b[c]);
    return sum;
}

// delta[b,h,n] = Σ_c dy·y
KERNEL(attention_delta, const T* y /* B,N,C */, const T* dy /* B,N,C */, real* delta /* B,heads,N */, int64_t batch, int64_t queries, int64_t heads, int64_t size) {
    GRID_LOOP(i, batch * heads * queries) {
        const int64_t row = i % queries, head = i / queries % heads, sample = i / queries / heads;
        const int64_t at = ((sample * queries + row) * heads + head) * size;
        real sum = 0;
        for (int64_t c = 0; c < size; ++c) sum += real(y[at + c]) * real(dy[at + c]);
        delta[i] = sum;
    }
}

#if defined(UDASS_WARPS)
template <int64_t size>
DEVICE void queries_gradient(const T* q, const T* kv, const T* dy, const real* logs, const real* delta, T* dq, int64_t rows, int64_t keys, int64_t channels, int64_t held) {
    constexpr int64_t stride = size + VECTOR;
    const float scale = 1 / sqrt_of(real(size));
    T* key_rows = static_cast<T*>(shared_memory());
    T* value_rows = key_rows + held * stride;
    for (int64_t step = 0; step < rows; step += 16 * warp_count()) {
        const int64_t first = step + 16 * warp_index(), mine = held_to(rows - first, 0, 16);
        uint32_t from[size / DEPTH][4], from_dy[size / DEPTH][4];
        load_a<size>(from, q + first * channels, mine, channels);
        load_a<size>(from_dy, dy + first * channels, mine, channels);
        float log[2], shift[2], result[size / 8][4] = {};
        UNROLL for (int64_t h = 0; h < 2; ++h) {
            const int64_t row = lane_group() + 8 * h;
            log[h] = row < mine ? logs[first + row] : 0;
            shift[h] = row < mine ? delta[first + row] : 0;
        }
        for (int64_t base = 0; base < keys; base += held) {
            const int64_t here = least_of(keys - base, held), padded = (here + TILE - 1) / TILE * TILE;
            if (step == 0 || held < keys) {
                barrier();
                load_rows<size>(key_rows, kv + base * 2 * channels, here, padded, 2 * channels);
                load_rows<size>(value_rows, kv + base * 2 * channels + channels, here, padded, 2 * channels);
                barrier();
            }
            for (int64_t tile = 0; tile < here; tile += FEW) {
                float scores[FEW / 8][4] = {}, slopes[FEW / 8][4] = {};
                multiply_rows<size>(scores, from, key_rows, tile);
                multiply_rows<size>(slopes, from_dy, value_rows, tile);
                UNROLL for (int64_t n = 0; n < FEW / 8; ++n) {
                    UNROLL for (int64_t i = 0; i < 4; ++i) {
                        const bool there = tile + 8 * n + 2 * lane_pair() + i % 2 < here;
                        const float weight = there ? exp_of(scores[n][i] * scale - log[i / 2]) : 0;
                        slopes[n][i] = weight * (slopes[n][i] - shift[i / 2]);
                    }
                }
                multiply_weights<size>(result, slopes, key_rows, tile);
            }
        }
        UNROLL for (int64_t i = 0; i < 4; ++i) {
            const int64_t row = lane_group() + i / 2 * 8;
            if (row >= mine) continue;
            T* to = dq + (first + row) * channels + 2 * lane_pair() + i % 2;
            UNROLL for (int64_t n = 0; n < size / 8; ++n) to[8 * n] = result[n][i] * scale;
        }
    }
}

template <int64_t size>
DEVICE void keys_gradient(const T* q, const T* kv, const T* dy, const real* logs, const real* delta, real* dk, real* dv, int64_t rows, int64_t keys, int64_t channels) {
    constexpr int64_t stride = size + VECTOR;
    const float scale = 1 / sqrt_of(real(size));
    SHARED(real, log, TILE);
    SHARED(real, shift, TILE);
    T* query_rows = static_cast<T*>(shared_memory());
    T* dy_rows = query_rows + TILE * stride;
    for (int64_t step = 0; step < TILE; step += 16 * warp_count()) {
        const int64_t first = step + 16 * warp_index(), mine = held_to(keys - first, 0, 16);
        uint32_t from[size / DEPTH][4], from_values[size / DEPTH][4];
        load_a<size>(from, kv + first * 2 * channels, mine, 2 * channels);
        load_a<size>(from_values, kv + first * 2 * channels + channels, mine, 2 * channels);
        float sum_dk[size / 8][4] = {}, sum_dv[size / 8][4] = {};
        for (int64_t base = 0; base < rows; base += TILE) {
            const int64_t here = least_of(rows - base, TILE);
            barrier();
            load_rows<size>(query_rows, q + base * channels, here, TILE, channels);
            load_rows<size>(dy_rows, dy + base * channels, here, TILE, channels);
            BLOCK_LOOP(i, TILE) {
                log[i] = i < here ? logs[base + i] : real(0);
                shift[i] = i < here ? delta[base + i] : real(0);
            }
            barrier();
            for (int64_t tile = 0; tile < here; tile += FEW) {
                float scores[FEW / 8][4] = {}, slopes[FEW / 8][4] = {};
                multiply_rows<size>(scores, from, query_rows, tile);
                multiply_rows<size>(slopes, from_values, dy_rows, tile);
                UNROLL for (int64_t n = 0; n < FEW / 8; ++n) {
                    UNROLL for (int64_t i = 0; i < 4; ++i) {
                        const int64_t query = tile + 8 * n + 2 * lane_pair() + i % 2;
                        scores[n][i] = query < here ? exp_of(scores[n][i] * scale - log[query]) : 0;
                        slopes[n][i] = scores[n][i] * (slopes[n][i] - shift[query]);
                    }
                }
                multiply_weights<size>(sum_dv, scores, dy_rows, tile);
                multiply_weights<size>(sum_dk, slopes, query_rows, tile);
            }
        }
        // A warp beyond the tile has nothing of its own.
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

// Blocks: B·heads·⌈N/chunk⌉; `held` as of the forward pass.
KERNEL(attention_mma_queries, const T* q /* B,N,C */, const T* kv /* B,M,2C */, const T* dy /* B,N,C */, const real* logs /* B,heads,N */, const real* delta /* B,heads,N */, T* dq /* B,N,C */, int64_t chunk, int64_t held, int64_t queries, int64_t keys, int64_t heads, int64_t size) {
    const int64_t chunks = (queries + chunk - 1) / chunk, channels = heads * size;
    const int64_t sample_head = block_index() / chunks, begin = block_index() % chunks * chunk;
    const int64_t rows = least_of(queries - begin, chunk), kept = sample_head * queries + begin;
    const int64_t at = (sample_head / heads * queries + begin) * channels + sample_head % heads * size;
    const T* others = kv + sample_head / heads * keys * 2 * channels + sample_head % heads * size;
#if defined(UDASS_WARPS)
    if (thread_count() % WARP == 0) {
        if (size == 64) queries_gradient<64>(q + at, others, dy + at, logs + kept, delta + kept, dq + at, rows, keys, channels, held);
        else queries_gradient<32>(q + at, others, dy + at, logs + kept, delta + kept, dq + at, rows, keys, channels, held);
        return;
    }
#endif
    (void)held;
    const real scale = 1 / sqrt_of(real(size));
    BLOCK_LOOP(r, rows) {
        real result[TILE];
        const int64_t row = at + r * channels;
        for (int64_t c = 0; c < size; ++c) result[c] = 0;
        for (int64_t m = 0; m < keys; ++m) {
            const T* key = others + m * 2 * channels;
            const real weight = exp_of(dot(q + row, key, size) * scale - logs[kept + r]);
            const real slope = operand_of(weight * (dot(dy + row, key + channels, size) - delta[kept + r]));
            for (int64_t c = 0; c < size; ++c) result[c] += slope * operand_of(key[c]);
        }
        for (int64_t c = 0; c < size; ++c) dq[row + c] = result[c] * scale;
    }
}

// Blocks: B·heads·⌈M/64⌉·⌈N/chunk⌉, a tile of 64 keys and a chunk of queries each.
KERNEL(attention_mma_keys, const T* q /* B,N,C */, const T* kv /* B,M,2C */, const T* dy /* B,N,C */, const real* logs /* B,heads,N */, const real* delta /* B,heads,N */, real* partial /* chunks,2,B,heads,tiles,64,D */, int64_t chunk, int64_t queries, int64_t keys, int64_t heads, int64_t size) {
    const int64_t chunks = (queries + chunk - 1) / chunk, channels = heads * size, tiles = (keys + TILE - 1) / TILE;
    const int64_t group = block_index() / chunks, begin = block_index() % chunks * chunk;
    const int64_t sample_head = group / tiles, first = group % tiles * TILE;
    const int64_t rows = least_of(queries - begin, chunk), here = least_of(keys - first, TILE);
    const int64_t kept = sample_head * queries + begin;
    const int64_t at = (sample_head / heads * queries + begin) * channels + sample_head % heads * size;
    const T* others = kv + (sample_head / heads * keys + first) * 2 * channels + sample_head % heads * size;
    const int64_t part = block_count() / chunks * TILE * size;
    real* dk = partial + block_index() % chunks * 2 * part + group * TILE * size;
    real* dv = dk + part;
#if defined(UDASS_WARPS)
    if (thread_count() % WARP == 0) {
        if (size == 64) keys_gradient<64>(q + at, others, dy + at, logs + kept, delta + kept, dk, dv, rows, here, channels);
        else keys_gradient<32>(q + at, others, dy + at, logs + kept, delta + kept, dk, dv, rows, here, channels);
        return;
    }
#endif
    const real scale = 1 / sqrt_of(real(size));
    BLOCK_LOOP(m, TILE) {
        real sum_dk[TILE], sum_dv[TILE];
        for (int64_t c = 0; c < size; ++c) sum_dk[c] = sum_dv[c] = 0;
        const T* key = others + m * 2 * channels;
        for (int64_t r = 0; r < rows && m < here; ++r) {
            const T* query = q + at + r * channels;
            const T* gradient = dy + at + r * channels;
            const real weight = exp_of(dot(key, query, size) * scale - logs[kept + r]);
            const real slope = operand_of(weight * (dot(key + channels, gradient, size) - delta[kept + r]));
            for (int64_t c = 0; c < size; ++c) {
                sum_dk[c] += slope * operand_of(query[c]);
                sum_dv[c] += operand_of(weight) * operand_of(gradient[c]);
            }
        }
        for (int64_t c = 0; c < size; ++c) {
            dk[m * size + c] = sum_dk[c] * scale;
            dv[m * size + c] = sum_dv[c];
        }
    }
}
