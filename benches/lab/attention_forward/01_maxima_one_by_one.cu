// Kernels: attention_forward
// Until: d072435
// Then: a row's maximum by halves of its partial maxima, by selects that vectorise; a cell's row and column counted
//   on instead of divided
// Predicted: nothing was written down; bytes and FLOPs stayed the same, so they foretold no gain
//
// Attention as kernels/attention.cu describes it. The maximum of a row's PARTS partial maxima is one
// chain of comparisons, each with a branch, and every cell of a tile divides to know where it lies.
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

// The larger, by a branch on whether either is no number.
MATH real max_by_or(real a, real b) { return a > b || a != a ? a : b; }

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
    barrier();
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t at = (sample_head * tiles + tile) * KEYS * width;
        const Rows left = {from, width, 1}, weights = {scores, KEYS, 1};
        tile_product(QUERIES, KEYS, width, left, staged(keys_across + at, copy, KEYS * width), scores, false);
        mask_padding(scores, keys - tile * KEYS);

        each_strip(QUERIES, PARTS, [&](int64_t r, int64_t lane) {
            real* part = parts + r * PARTS_ROW + lane;
            LANES for (int64_t j = 0; j < STRIP; ++j) {
                real high = scores[r * KEYS + lane + j];
                UNROLL for (int64_t k = PARTS; k < KEYS; k += PARTS) high = max_by_or(high, scores[r * KEYS + lane + j + k]);
                part[j] = high;
            }
        });
        barrier();
        BLOCK_LOOP(r, QUERIES) {
            real high = parts[r * PARTS_ROW];
            for (int64_t j = 1; j < PARTS; ++j) high = max_by_or(high, parts[r * PARTS_ROW + j]);
            if (tile > 0) high = max_by_or(high, highest[r]);
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
        barrier();
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
