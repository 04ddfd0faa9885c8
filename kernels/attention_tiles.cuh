// Matmuls of attention's tiles in shared memory, computed by the threads of a block.
#pragma once
#include "attention.cuh"
#include "pack.cuh"

// Row maxima and sums are first reduced to this many partial results. Rows of partial results have
// one extra element, which puts them in different banks of shared memory.
constexpr int64_t PARTS = 16;
constexpr int64_t PARTS_ROW = PARTS + 1;

// Register tile of a thread in a matmul: rows × packs.
#if defined(UDASS_SHAPED_FOR_GPU)
constexpr int64_t ROWS = 4, STRIPS = 1;
#elif defined(__AVX512F__)
constexpr int64_t ROWS = 8, STRIPS = 2;
#else
constexpr int64_t ROWS = 4, STRIPS = 2;
#endif

static_assert(PAD % (PACK * STRIPS) == 0 && KEYS % PAD == 0 && QUERIES % ROWS == 0, "tiles divide");

// A strided view of a matrix: the distances between its rows and between its columns.
struct Matrix {
    const real* at;
    int64_t row, column;
};

// Calls f(row, column) for every cell of a grid, spread over the threads of a block. A thread
// divides only once.
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

// Calls f(row, first column) for every pack of a row-major matrix.
template <class F>
DEVICE void each_strip(int64_t rows, int64_t columns, F f) {
    each_cell(rows, columns / PACK, [&](int64_t r, int64_t c) { f(r, c * PACK); });
}

// c = a·b, or c += a·b if `accumulate`, for row-major b and c. `rows` is a multiple of ROWS and
// `columns` a multiple of PAD. Ends in a barrier.
DEVICE void tile_product(int64_t rows, int64_t columns, int64_t depth, Matrix a, const real* b, real* c, bool accumulate) {
    constexpr int64_t wide = PACK * STRIPS;
    each_cell(rows / ROWS, columns / wide, [&](int64_t down, int64_t across) {
        const int64_t row = down * ROWS, column = across * wide;
        pack sum[ROWS][STRIPS];
        real* to = c + row * columns + column;
        UNROLL for (int64_t r = 0; r < ROWS; ++r) {
            UNROLL for (int64_t s = 0; s < STRIPS; ++s)
                sum[r][s] = accumulate ? load_pack(to + r * columns + s * PACK) : all_lanes<pack>(0);
        }
        const real* left = a.at + row * a.row;
        const real* right = b + column;
        for (int64_t k = 0; k < depth; ++k) {
            pack at[STRIPS];
            UNROLL for (int64_t s = 0; s < STRIPS; ++s) at[s] = load_pack(right + s * PACK);
            UNROLL for (int64_t r = 0; r < ROWS; ++r) {
                const real x = left[r * a.row];
                UNROLL for (int64_t s = 0; s < STRIPS; ++s) sum[r][s] = fma_of(x, at[s], sum[r][s]);
            }
            left += a.column;
            right += columns;
        }
        UNROLL for (int64_t r = 0; r < ROWS; ++r) {
            UNROLL for (int64_t s = 0; s < STRIPS; ++s) store(to + r * columns + s * PACK, sum[r][s]);
        }
    });
    barrier();
}

// Copies a packed tile to shared memory and returns the copy; the serial CPU build returns the tile
// itself, which its cache already holds. The final barrier also covers the block's earlier writes.
DEVICE const real* staged(const real* tile, real* copy, int64_t n) {
#if defined(UDASS_THREADS)
    for (int64_t i = thread_index() * PACK; i < n; i += thread_count() * PACK) store(copy + i, load_pack(tile + i));
    barrier();
    return copy;
#else
    (void)copy, (void)n;
    return tile;
#endif
}

// to[r][c] = from[r][c] · scale, and zero outside of `rows` rows and `size` channels.
DEVICE void load_queries(const T* from, real* to, int64_t rows, int64_t from_row, int64_t size, int64_t width, real scale) {
    each_strip(QUERIES, width, [&](int64_t r, int64_t c) {
        LANES for (int64_t j = 0; j < PACK; ++j)
            to[r * width + c + j] = r < rows && c + j < size ? real(from[r * from_row + c + j]) * scale : real(0);
    });
}

// to[r][c] = from[r][c] · scale(r)
template <class F>
DEVICE void store_queries(const real* from, T* to, int64_t rows, int64_t to_row, int64_t size, int64_t width, F scale) {
    each_strip(rows, width, [&](int64_t r, int64_t c) {
        const real by = scale(r);
        if (c + PACK <= size) {
            LANES for (int64_t j = 0; j < PACK; ++j) to[r * to_row + c + j] = from[r * width + c + j] * by;
        } else {
            for (int64_t j = 0; c + j < size; ++j) to[r * to_row + c + j] = from[r * width + c + j] * by;
        }
    });
}

// Sets the scores of padding keys to -REAL_MAX, so that their weights are zero.
DEVICE void mask_padding(real* scores, int64_t keys) {
    if (keys >= KEYS) return;
    BLOCK_LOOP(i, QUERIES * KEYS) if (i % KEYS >= keys) scores[i] = -REAL_MAX;
    barrier();
}
