// Attention: y = softmax(q·kᵀ/√D)·v for every head, head h in channels hD..(h+1)D.
//
// A block computes a tile of QUERIES queries of one head and passes over the keys in tiles of KEYS,
// rescaling what it has by a running row maximum (Milakov & Gimelshein 2018). Kept for the backward
// pass is one number a row, L = log Σ e^s, which recomputes P = e^(s-L) (Dao et al. 2022):
//   dV = Pᵀ·dy    dS = P∘(dy·vᵀ - δ), δ = Σ dy∘y    dq = dS·k/√D    dk = dSᵀ·q/√D
// A block of the backward pass takes a chunk of a head's queries, owns their dq, and sums its part
// of dk and dv in memory of its own; attention_keys_gradient adds the parts up.
//
// attention_pack lays a head's keys or values out as products read them: tiles of KEYS, padded
// with zeros to whole tiles and to `width` channels, a multiple of PAD.
#include "strip.cuh"

constexpr int64_t QUERIES = 32;
constexpr int64_t KEYS = 64;
constexpr int64_t PAD = 32;
// Row maxima and sums are taken over this many lanes first; rows of partials are one longer, which
// keeps them in different banks of shared memory.
constexpr int64_t PARTS = 16;
constexpr int64_t PARTS_ROW = PARTS + 1;

// What one thread holds of a product: rows × strips.
#if defined(UDASS_SHAPED_FOR_GPU)
constexpr int64_t ROWS = 4, STRIPS = 1;
#elif defined(__AVX512F__)
constexpr int64_t ROWS = 8, STRIPS = 2;
#else
constexpr int64_t ROWS = 4, STRIPS = 2;
#endif

static_assert(PAD % (STRIP * STRIPS) == 0 && KEYS % PAD == 0 && QUERIES % ROWS == 0, "tiles divide");

// A matrix, and how far apart its rows and its columns are.
struct Matrix {
    const real* at;
    int64_t row, column;
};

// f(row, column) for every cell of a grid, by the threads of a block; divides only once.
template <class F>
DEVICE void each_cell(int64_t rows, int64_t columns, F f) {
    const int64_t down = thread_count() / columns, right = thread_count() % columns;
    int64_t row = thread_index() / columns, column = thread_index() % columns;
    while (row < rows) {
        f(row, column);
        row += down;
        column += right;
        if (column >= columns) {
            column -= columns;
            ++row;
        }
    }
}

// f(row, first column) for every strip of a row-major matrix.
template <class F>
DEVICE void each_strip(int64_t rows, int64_t columns, F f) {
    each_cell(rows, columns / STRIP, [&](int64_t r, int64_t c) { f(r, c * STRIP); });
}

// c (+)= a·b for row-major b and c; `rows` a multiple of ROWS, `columns` of PAD.
DEVICE void tile_product(int64_t rows, int64_t columns, int64_t depth, Matrix a, const real* b, real* c, bool accumulate) {
    constexpr int64_t wide = STRIP * STRIPS;
    each_cell(rows / ROWS, columns / wide, [&](int64_t down, int64_t across) {
        const int64_t row = down * ROWS, column = across * wide;
        strip sum[ROWS][STRIPS];
        real* to = c + row * columns + column;
        UNROLL for (int64_t r = 0; r < ROWS; ++r) {
            UNROLL for (int64_t s = 0; s < STRIPS; ++s)
                sum[r][s] = accumulate ? load_strip(to + r * columns + s * STRIP) : all_lanes<strip>(0);
        }
        const real* left = a.at + row * a.row;
        const real* right = b + column;
        for (int64_t k = 0; k < depth; ++k) {
            strip at[STRIPS];
            UNROLL for (int64_t s = 0; s < STRIPS; ++s) at[s] = load_strip(right + s * STRIP);
            UNROLL for (int64_t r = 0; r < ROWS; ++r) {
                const real x = left[r * a.row];
                UNROLL for (int64_t s = 0; s < STRIPS; ++s) sum[r][s] = fma_of(x, at[s], sum[r][s]);
            }
            left += a.column;
            right += columns;
        }
        UNROLL for (int64_t r = 0; r < ROWS; ++r) {
            UNROLL for (int64_t s = 0; s < STRIPS; ++s) store(to + r * columns + s * STRIP, sum[r][s]);
        }
    });
    barrier();
}

// A packed tile where all threads of a block reach it fast; solo has it in its cache already. Ends
// in a barrier, for what was written before it too.
DEVICE const real* staged(const real* tile, real* copy, int64_t n) {
#if defined(UDASS_THREADS)
    for (int64_t i = thread_index() * STRIP; i < n; i += thread_count() * STRIP) store(copy + i, load_strip(tile + i));
    barrier();
    return copy;
#else
    (void)copy, (void)n;
    return tile;
#endif
}

// to[r][c] = from[r][c] · scale, zero outside of `rows` rows and `size` channels.
DEVICE void load_queries(const T* from, real* to, int64_t rows, int64_t from_row, int64_t size, int64_t width, real scale) {
    each_strip(QUERIES, width, [&](int64_t r, int64_t c) {
        LANES for (int64_t j = 0; j < STRIP; ++j)
            to[r * width + c + j] = r < rows && c + j < size ? real(from[r * from_row + c + j]) * scale : real(0);
    });
}

// to[r][c] = from[r][c] · scale(r)
template <class F>
DEVICE void store_queries(const real* from, T* to, int64_t rows, int64_t to_row, int64_t size, int64_t width, F scale) {
    each_strip(rows, width, [&](int64_t r, int64_t c) {
        const real by = scale(r);
        if (c + STRIP <= size) {
            LANES for (int64_t j = 0; j < STRIP; ++j) to[r * to_row + c + j] = from[r * width + c + j] * by;
        } else {
            for (int64_t j = 0; c + j < size; ++j) to[r * to_row + c + j] = from[r * width + c + j] * by;
        }
    });
}

// Scores of keys that are only padding weigh nothing.
DEVICE void mask_padding(real* scores, int64_t keys) {
    if (keys >= KEYS) return;
    BLOCK_LOOP(i, QUERIES * KEYS) if (i % KEYS >= keys) scores[i] = -REAL_MAX;
    barrier();
}

// kv: keys, then values; part 0 or 1. packed[b,h,tile][key·key_step + channel·channel_step]
KERNEL(attention_pack, const T* kv /* B,M,2C */, real* packed /* B,heads,tiles,KEYS*width */, int64_t part, int64_t batch, int64_t keys, int64_t heads, int64_t size, int64_t width, int64_t key_step, int64_t channel_step) {
    const int64_t padded = (keys + KEYS - 1) / KEYS * KEYS;
    const int64_t rows = batch * heads * padded;
    for (int64_t r = chunk_begin(rows); r < chunk_end(rows); ++r) {
        const int64_t key = r % padded, head = r / padded % heads, b = r / padded / heads;
        const T* from = kv + ((b * keys + key) * 2 + part) * heads * size + head * size;
        real* to = packed + r / KEYS * KEYS * width + key % KEYS * key_step;
        BLOCK_LOOP(c, width) to[c * channel_step] = key < keys && c < size ? real(from[c]) : real(0);
    }
}

// One block a tile of queries of a head; logs may be absent where no backward pass follows.
KERNEL(attention_forward, const T* q /* B,N,C */, const real* keys_across /* B,heads,tiles,width,KEYS */, const real* values /* B,heads,tiles,KEYS,width */, T* y /* B,N,C */, real* OPTIONAL logs /* B,heads,N */, int64_t queries, int64_t keys, int64_t heads, int64_t size, int64_t width) {
    const int64_t blocks = (queries + QUERIES - 1) / QUERIES;
    const int64_t first = block_index() % blocks * QUERIES, sample_head = block_index() / blocks;
    const int64_t rows = queries - first < QUERIES ? queries - first : QUERIES;
    const int64_t head = sample_head % heads, channels = heads * size;
    const int64_t offset = (sample_head / heads * queries + first) * channels + head * size;
    const int64_t tiles = (keys + KEYS - 1) / KEYS;
    SHARED(real, highest, QUERIES);
    SHARED(real, shrink, QUERIES);
    SHARED(real, parts, QUERIES * PARTS_ROW);
    SHARED(real, sums, QUERIES * PARTS_ROW);
    real* from = static_cast<real*>(shared_memory());
    real* sum = from + QUERIES * width;
    real* scores = sum + QUERIES * width;
    real* copy = scores + QUERIES * KEYS;

    load_queries(q + offset, from, rows, channels, size, width, 1 / sqrt_of(real(size)));
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t at = (sample_head * tiles + tile) * KEYS * width;
        const Matrix left = {from, width, 1}, weights = {scores, KEYS, 1};
        tile_product(QUERIES, KEYS, width, left, staged(keys_across + at, copy, KEYS * width), scores, false);
        mask_padding(scores, keys - tile * KEYS);

        each_strip(QUERIES, PARTS, [&](int64_t r, int64_t lane) {
            real* part = parts + r * PARTS_ROW + lane;
            LANES for (int64_t j = 0; j < STRIP; ++j) {
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
            LANES for (int64_t j = 0; j < STRIP; ++j) {
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
                LANES for (int64_t j = 0; j < STRIP; ++j) sum[r * width + c + j] *= shrink[r];
            });
        }
        tile_product(QUERIES, width, KEYS, weights, staged(values + at, copy, KEYS * width), sum, tile > 0);
    }
    BLOCK_LOOP(r, QUERIES) {
        real total = 0;
        for (int64_t j = 0; j < PARTS; ++j) total += sums[r * PARTS_ROW + j];
        shrink[r] = 1 / total;
        if (logs && r < rows) logs[sample_head * queries + first + r] = highest[r] + log_of(total);
    }
    barrier();
    store_queries(sum, y + offset, rows, channels, size, width, [&](int64_t r) { return shrink[r]; });
}

// One block a chunk of the queries of a head: chunk queries, a multiple of QUERIES.
KERNEL(attention_backward, const T* q /* B,N,C */, const real* keys_across /* B,heads,tiles,width,KEYS */, const real* values_across /* B,heads,tiles,width,KEYS */, const real* key_rows /* B,heads,tiles,KEYS,width */, const T* y /* B,N,C */, const T* dy /* B,N,C */, const real* logs /* B,heads,N */, T* dq /* B,N,C */, real* partial /* chunks,2,B,heads,tiles,KEYS,width */, int64_t chunk, int64_t queries, int64_t keys, int64_t heads, int64_t size, int64_t width) {
    const int64_t chunks = (queries + chunk - 1) / chunk, tiles = (keys + KEYS - 1) / KEYS;
    const int64_t sample_head = block_index() / chunks, begin = block_index() % chunks * chunk;
    const int64_t end = begin + chunk < queries ? begin + chunk : queries;
    const int64_t part = block_count() / chunks * tiles * KEYS * width;
    const int64_t head = sample_head % heads, channels = heads * size;
    const real scale = 1 / sqrt_of(real(size));
    SHARED(real, delta, QUERIES);
    SHARED(real, log, QUERIES);
    SHARED(real, parts, QUERIES * PARTS_ROW);
    real* from = static_cast<real*>(shared_memory());
    real* from_dy = from + QUERIES * width;
    real* sum = from_dy + QUERIES * width;
    real* weights = sum + QUERIES * width;
    real* slopes = weights + QUERIES * KEYS;
    real* copy = slopes + QUERIES * KEYS;

    for (int64_t first = begin; first < end; first += QUERIES) {
        const int64_t rows = end - first < QUERIES ? end - first : QUERIES;
        const int64_t offset = (sample_head / heads * queries + first) * channels + head * size;
        load_queries(q + offset, from, rows, channels, size, width, scale);
        load_queries(dy + offset, from_dy, rows, channels, size, width, 1);
        load_queries(y + offset, sum, rows, channels, size, width, 1);
        barrier();
        each_strip(QUERIES, PARTS, [&](int64_t r, int64_t lane) {
            strip total = all_lanes<strip>(0);
            for (int64_t c = r * width + lane; c < (r + 1) * width; c += PARTS)
                total = fma_of(load_strip(from_dy + c), load_strip(sum + c), total);
            LANES for (int64_t j = 0; j < STRIP; ++j) parts[r * PARTS_ROW + lane + j] = lanes_of(total)[j];
        });
        barrier();
        BLOCK_LOOP(r, QUERIES) {
            real total = 0;
            for (int64_t j = 0; j < PARTS; ++j) total += parts[r * PARTS_ROW + j];
            delta[r] = total;
            log[r] = r < rows ? logs[sample_head * queries + first + r] : real(0);
        }
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const int64_t at = (sample_head * tiles + tile) * KEYS * width, n = KEYS * width;
            real* dk = partial + block_index() % chunks * 2 * part + at;
            real* dv = dk + part;
            tile_product(QUERIES, KEYS, width, {from, width, 1}, staged(keys_across + at, copy, n), weights, false);
            mask_padding(weights, keys - tile * KEYS);
            tile_product(QUERIES, KEYS, width, {from_dy, width, 1}, staged(values_across + at, copy, n), slopes, false);
            each_strip(QUERIES, KEYS, [&](int64_t r, int64_t k) {
                LANES for (int64_t j = 0; j < STRIP; ++j) {
                    const int64_t i = r * KEYS + k + j;
                    weights[i] = exp_of(weights[i] - log[r]);
                    slopes[i] = weights[i] * (slopes[i] - delta[r]);
                }
            });
            barrier();
            tile_product(KEYS, width, QUERIES, {weights, 1, KEYS}, from_dy, dv, first > begin);
            tile_product(KEYS, width, QUERIES, {slopes, 1, KEYS}, from, dk, first > begin);
            tile_product(QUERIES, width, KEYS, {slopes, KEYS, 1}, staged(key_rows + at, copy, n), sum, tile > 0);
        }
        // Threads load the next queries where they stored these, so no barrier is needed.
        store_queries(sum, dq + offset, rows, channels, size, width, [&](int64_t) { return scale; });
    }
}

// dkv = Σ_p partial[p], unpacked: keys, then values. Sums into partial[0], a few keys at a time.
KERNEL(attention_keys_gradient, real* partial /* chunks,2,B,heads,tiles,KEYS,width */, T* dkv /* B,M,2C */, int64_t chunks, int64_t batch, int64_t keys, int64_t heads, int64_t size, int64_t width) {
    constexpr int64_t few = 16;
    const int64_t padded = (keys + KEYS - 1) / KEYS * KEYS;
    const int64_t groups = 2 * batch * heads * padded / few, n = few * width;
    for (int64_t group = chunk_begin(groups); group < chunk_end(groups); ++group) {
        real* sum = partial + group * n;
        for (int64_t p = 1; p < chunks; ++p) {
            const real* more = sum + p * groups * n;
            BLOCK_LOOP(i, n) sum[i] += more[i];
        }
        barrier();
        const int64_t first = group * few % padded, head = group * few / padded % heads;
        const int64_t sample = group * few / padded / heads % batch, which = group * few / padded / heads / batch;
        for (int64_t key = first; key < first + few && key < keys; ++key) {
            T* to = dkv + (((sample * keys + key) * 2 + which) * heads + head) * size;
            BLOCK_LOOP(c, size) to[c] = sum[(key - first) * width + c];
        }
    }
}
