// Multi-head attention: y = softmax(q·kᵀ/√D)·v for every head, with head h in channels hD..(h+1)D.
// q and y are batch,queries,heads*head_dim; keys and values are packed tiles (attention_pack).
//
// Forward: a block computes a tile of QUERIES queries of one head. It iterates over the keys in
// tiles of KEYS and rescales its partial result by a running row maximum (Milakov & Gimelshein
// 2018). For the backward it keeps only the log-sum-exp of each row, L = log Σ e^s, from which
// P = e^(s-L) is recomputed (Dao et al. 2022):
//   dV = Pᵀ·dy    dS = P∘(dy·vᵀ - δ), δ = Σ dy∘y    dq = dS·k/√D    dk = dSᵀ·q/√D
// Backward: a block takes a chunk of a head's queries, owns their dq, and accumulates its partial
// sums of dk and dv in its own part of `partial`; attention_keys_gradient adds the partial sums.
#include "attention_tiles.cuh"

// Packs the keys (part 0) or the values (part 1) of kv for the matmuls of the other kernels:
// packed[b,h,tile][key·key_step + channel·channel_step]. The keys of a head are padded with zeros
// to whole tiles of KEYS, and its channels to `width`, a multiple of PAD.
KERNEL(attention_pack,
       const T* kv /* batch,keys,2*heads*head_dim */,
       real* packed /* batch,heads,ceil(keys/KEYS),KEYS*width */,
       int64_t part, int64_t batch, int64_t keys, int64_t heads, int64_t head_dim, int64_t width,
       int64_t key_step, int64_t channel_step) {
    const int64_t padded = (keys + KEYS - 1) / KEYS * KEYS;
    const int64_t rows = batch * heads * padded;
    ROW_LOOP(r, rows) {
        const int64_t key = r % padded, head = r / padded % heads, b = r / padded / heads;
        const T* from = kv + ((b * keys + key) * 2 + part) * heads * head_dim + head * head_dim;
        real* to = packed + r / KEYS * KEYS * width + key % KEYS * key_step;
        BLOCK_LOOP(c, width) to[c * channel_step] = key < keys && c < head_dim ? real(from[c]) : real(0);
    }
}

// One block computes QUERIES queries of one head: batch·heads·⌈queries/QUERIES⌉ blocks. `log_sum_exp`
// receives the log-sum-exp of each row; it may be omitted if there is no backward.
KERNEL(attention_forward,
       const T* q /* blocks/ceil(queries/QUERIES)/heads,queries,heads*head_dim */,
       const real* keys_across /* blocks/ceil(queries/QUERIES),ceil(keys/KEYS),width,KEYS */,
       const real* values /* blocks/ceil(queries/QUERIES),ceil(keys/KEYS),KEYS,width */,
       T* y /* blocks/ceil(queries/QUERIES)/heads,queries,heads*head_dim */,
       real* OPTIONAL log_sum_exp /* blocks/ceil(queries/QUERIES),queries */,
       int64_t queries, int64_t keys, int64_t heads, int64_t head_dim, int64_t width) {
    const int64_t blocks = (queries + QUERIES - 1) / QUERIES;
    const int64_t first = block_index() % blocks * QUERIES, sample_head = block_index() / blocks;
    const int64_t rows = least_of(queries - first, QUERIES);
    const int64_t head = sample_head % heads, channels = heads * head_dim;
    const int64_t offset = (sample_head / heads * queries + first) * channels + head * head_dim;
    const int64_t tiles = (keys + KEYS - 1) / KEYS;
    SHARED(real, highest, QUERIES);
    SHARED(real, shrink, QUERIES);
    SHARED(real, parts, QUERIES * PARTS_ROW);
    SHARED(real, sums, QUERIES * PARTS_ROW);
    real* from = static_cast<real*>(shared_memory());
    real* sum = from + QUERIES * width;
    real* scores = sum + QUERIES * width;
    real* copy = scores + QUERIES * KEYS;

    load_queries(q + offset, from, rows, channels, head_dim, width, 1 / sqrt_of(real(head_dim)));
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t at = (sample_head * tiles + tile) * KEYS * width;
        const Matrix left = {from, width, 1}, weights = {scores, KEYS, 1};
        tile_product(QUERIES, KEYS, width, left, staged(keys_across + at, copy, KEYS * width), scores, false);
        mask_padding(scores, keys - tile * KEYS);

        each_strip(QUERIES, PARTS, [&](int64_t r, int64_t lane) {
            real* part = parts + r * PARTS_ROW + lane;
            LANES for (int64_t j = 0; j < PACK; ++j) {
                real high = scores[r * KEYS + lane + j];
                UNROLL for (int64_t k = PARTS; k < KEYS; k += PARTS) high = max_of(high, scores[r * KEYS + lane + j + k]);
                part[j] = high;
            }
        });
        barrier();
        BLOCK_LOOP(r, QUERIES) {
            real* part = parts + r * PARTS_ROW;
            UNROLL for (int64_t half = PARTS / 2; half > 0; half /= 2) {
                UNROLL for (int64_t j = 0; j < half; ++j) part[j] = max_of(part[j], part[j + half]);
            }
            real high = part[0];
            if (tile > 0) high = max_of(high, highest[r]);
            shrink[r] = tile > 0 ? exp_of(highest[r] - high) : real(0);
            highest[r] = high;
        }
        barrier();
        each_strip(QUERIES, PARTS, [&](int64_t r, int64_t lane) {
            const real high = highest[r], by = shrink[r];
            LANES for (int64_t j = 0; j < PACK; ++j) {
                real total = tile > 0 ? sums[r * PARTS_ROW + lane + j] * by : real(0);
                UNROLL for (int64_t k = 0; k < KEYS; k += PARTS) {
                    const real weight = exp_of(scores[r * KEYS + lane + j + k] - high);
                    scores[r * KEYS + lane + j + k] = weight;
                    total += weight;
                }
                sums[r * PARTS_ROW + lane + j] = total;
            }
        });
        if (tile > 0) {
            each_strip(QUERIES, width, [&](int64_t r, int64_t c) {
                LANES for (int64_t j = 0; j < PACK; ++j) sum[r * width + c + j] *= shrink[r];
            });
        }
        tile_product(QUERIES, width, KEYS, weights, staged(values + at, copy, KEYS * width), sum, tile > 0);
    }
    BLOCK_LOOP(r, QUERIES) {
        real total = 0;
        for (int64_t j = 0; j < PARTS; ++j) total += sums[r * PARTS_ROW + j];
        shrink[r] = 1 / total;
        if (log_sum_exp && r < rows) log_sum_exp[sample_head * queries + first + r] = highest[r] + log_of(total);
    }
    barrier();
    store_queries(sum, y + offset, rows, channels, head_dim, width, [&](int64_t r) { return shrink[r]; });
}

// One block takes `chunk` queries (a multiple of QUERIES) of one head: batch·heads·⌈queries/chunk⌉
// blocks. `log_sum_exp` is the log-sum-exp from the forward. partial:
// chunks,2,batch,heads,tiles,KEYS,width; index 0 of the second dimension is dk, index 1 is dv.
KERNEL(attention_backward,
       const T* q /* blocks/ceil(queries/chunk)/heads,queries,heads*head_dim */,
       const real* keys_across /* blocks/ceil(queries/chunk),ceil(keys/KEYS),width,KEYS */,
       const real* values_across /* blocks/ceil(queries/chunk),ceil(keys/KEYS),width,KEYS */,
       const real* key_rows /* blocks/ceil(queries/chunk),ceil(keys/KEYS),KEYS,width */,
       const T* y /* blocks/ceil(queries/chunk)/heads,queries,heads*head_dim */,
       const T* dy /* blocks/ceil(queries/chunk)/heads,queries,heads*head_dim */,
       const real* log_sum_exp /* blocks/ceil(queries/chunk),queries */,
       T* dq /* blocks/ceil(queries/chunk)/heads,queries,heads*head_dim */,
       real* partial /* 2*blocks,ceil(keys/KEYS),KEYS,width */,
       int64_t chunk, int64_t queries, int64_t keys, int64_t heads, int64_t head_dim,
       int64_t width) {
    const int64_t chunks = (queries + chunk - 1) / chunk, tiles = (keys + KEYS - 1) / KEYS;
    const int64_t sample_head = block_index() / chunks, begin = block_index() % chunks * chunk;
    const int64_t end = least_of(begin + chunk, queries);
    const int64_t part = block_count() / chunks * tiles * KEYS * width;
    const int64_t head = sample_head % heads, channels = heads * head_dim;
    const real scale = 1 / sqrt_of(real(head_dim));
    SHARED(real, delta, QUERIES);
    SHARED(real, log, QUERIES);
    SHARED(real, parts, QUERIES * PARTS_ROW);
    real* from = static_cast<real*>(shared_memory());
    real* from_dy = from + QUERIES * width;
    real* sum = from_dy + QUERIES * width;
    real* weights = sum + QUERIES * width;
    real* dscores = weights + QUERIES * KEYS;
    real* copy = dscores + QUERIES * KEYS;

    for (int64_t first = begin; first < end; first += QUERIES) {
        const int64_t rows = least_of(end - first, QUERIES);
        const int64_t offset = (sample_head / heads * queries + first) * channels + head * head_dim;
        load_queries(q + offset, from, rows, channels, head_dim, width, scale);
        load_queries(dy + offset, from_dy, rows, channels, head_dim, width, 1);
        load_queries(y + offset, sum, rows, channels, head_dim, width, 1);
        barrier();
        each_strip(QUERIES, PARTS, [&](int64_t r, int64_t lane) {
            pack total = all_lanes<pack>(0);
            for (int64_t c = r * width + lane; c < (r + 1) * width; c += PARTS)
                total = fma_of(load_pack(from_dy + c), load_pack(sum + c), total);
            LANES for (int64_t j = 0; j < PACK; ++j) parts[r * PARTS_ROW + lane + j] = lanes_of(total)[j];
        });
        barrier();
        BLOCK_LOOP(r, QUERIES) {
            real total = 0;
            for (int64_t j = 0; j < PARTS; ++j) total += parts[r * PARTS_ROW + j];
            delta[r] = total;
            log[r] = r < rows ? log_sum_exp[sample_head * queries + first + r] : real(0);
        }
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const int64_t at = (sample_head * tiles + tile) * KEYS * width, n = KEYS * width;
            real* dk = partial + block_index() % chunks * 2 * part + at;
            real* dv = dk + part;
            tile_product(QUERIES, KEYS, width, {from, width, 1}, staged(keys_across + at, copy, n), weights, false);
            mask_padding(weights, keys - tile * KEYS);
            tile_product(QUERIES, KEYS, width, {from_dy, width, 1}, staged(values_across + at, copy, n), dscores, false);
            each_strip(QUERIES, KEYS, [&](int64_t r, int64_t k) {
                LANES for (int64_t j = 0; j < PACK; ++j) {
                    const int64_t i = r * KEYS + k + j;
                    weights[i] = exp_of(weights[i] - log[r]);
                    dscores[i] = weights[i] * (dscores[i] - delta[r]);
                }
            });
            barrier();
            tile_product(KEYS, width, QUERIES, {weights, 1, KEYS}, from_dy, dv, first > begin);
            tile_product(KEYS, width, QUERIES, {dscores, 1, KEYS}, from, dk, first > begin);
            tile_product(QUERIES, width, KEYS, {dscores, KEYS, 1}, staged(key_rows + at, copy, n), sum, tile > 0);
        }
        // Each thread loads its part of the next queries into the elements that it stores from
        // here, so no barrier is needed.
        store_queries(sum, dq + offset, rows, channels, head_dim, width, [&](int64_t) { return scale; });
    }
}

// dkv = Σ_p partial[p], unpacked into keys and values. The sum is accumulated in partial[0],
// KEY_GROUP keys at a time.
KERNEL(attention_keys_gradient,
       real* partial /* chunks,2,batch,heads,ceil(keys/KEYS),KEYS,width */,
       T* dkv /* batch,keys,2*heads*head_dim */,
       int64_t chunks, int64_t batch, int64_t keys, int64_t heads, int64_t head_dim,
       int64_t width) {
    const int64_t padded = (keys + KEYS - 1) / KEYS * KEYS;
    const int64_t groups = 2 * batch * heads * padded / KEY_GROUP, n = KEY_GROUP * width;
    ROW_LOOP(group, groups) {
        real* sum = partial + group * n;
        for (int64_t p = 1; p < chunks; ++p) {
            const real* more = sum + p * groups * n;
            BLOCK_LOOP(i, n) sum[i] += more[i];
        }
        barrier();
        const int64_t first = group * KEY_GROUP % padded, head = group * KEY_GROUP / padded % heads;
        const int64_t sample = group * KEY_GROUP / padded / heads % batch, which = group * KEY_GROUP / padded / heads / batch;
        for (int64_t key = first; key < first + KEY_GROUP && key < keys; ++key) {
            T* to = dkv + (((sample * keys + key) * 2 + which) * heads + head) * head_dim;
            BLOCK_LOOP(c, head_dim) to[c] = sum[(key - first) * width + c];
        }
    }
}
