// Kernels: attention_backward
// Until: d072435
// Then: δ by strips of channels, in PARTS sums added up at the end; a cell's row and column counted on instead of
//   divided
// Predicted: nothing was written down; bytes and FLOPs stayed the same, so they foretold no gain
//
// Attention's backward as kernels/attention.cu describes it. δ = Σ dy∘y of a row is one chain of
// additions, and every cell of a tile divides to know where it lies.
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

// Numbers in a row-major matrix, or in a column-major one.
struct Rows {
    const real* at;
    int64_t row, column;
};

// c (+)= a·b. `rows` a multiple of ROWS, `columns` of PAD; b and c row-major with `columns` and
// c_row numbers a row.
DEVICE void tile_product(int64_t rows, int64_t columns, int64_t depth, Rows a, const real* b, real* c, bool accumulate) {
    constexpr int64_t wide = STRIP * STRIPS;
    const int64_t across = columns / wide;
    for (int64_t i = thread_index(); i < rows / ROWS * across; i += thread_count()) {
        const int64_t row = i / across * ROWS, column = i % across * wide;
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
    }
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

// f(row, first channel) for every strip of a row-major matrix.
template <class F>
DEVICE void each_strip(int64_t rows, int64_t columns, F f) {
    const int64_t across = columns / STRIP;
    for (int64_t i = thread_index(); i < rows * across; i += thread_count()) f(i / across, i % across * STRIP);
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
        BLOCK_LOOP(r, QUERIES) {
            real total = 0;
            for (int64_t c = 0; c < width; ++c) total = fma_of(from_dy[r * width + c], sum[r * width + c], total);
            delta[r] = total;
            log[r] = r < rows ? logs[sample_head * queries + first + r] : real(0);
        }
        barrier();
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
        store_queries(sum, dq + offset, rows, channels, size, width, [&](int64_t) { return scale; });
        barrier();
    }
}
