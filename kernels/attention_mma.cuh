// Attention on the tensor cores: operands as matrix fragments (mma.cuh), 16 bits in bf16, tf32 in
// single precision. A warp takes 16 rows of a product; its columns come in pairs of 8.
//
// Of a lane, group = l / 4 and pair = l % 4. Accumulators of 16×8 hold rows group and group + 8,
// columns 2·pair and 2·pair + 1. A product over their columns takes them as they lie: in bf16 two
// neighbours are a fragment of A; in tf32 place `pair` of A's eight columns stands for column 2·pair
// and place pair + 4 for 2·pair + 1, and B's rows are read in that order.
#pragma once
#include "mma.cuh"
#include "strip.cuh"

// What an operand is rounded to before a product.
#if defined(UDASS_BF16)
MATH real operand_of(real x) { return real(T(x)); }
#elif defined(UDASS_F64)
MATH real operand_of(real x) { return x; }
#else
// tf32: 10 bits behind the point, ties away from zero. NaN is kept: of a GPU's own, all bits are set,
// and the sum would wrap around to -0.
MATH real operand_of(real x) {
    if (!is_finite(x)) return x;
#if defined(__CUDACC__)
    return __uint_as_float((__float_as_uint(x) + 0x1000u) & 0xFFFFE000u);
#else
    return __builtin_bit_cast(float, (__builtin_bit_cast(uint32_t, x) + 0x1000u) & 0xFFFFE000u);
#endif
}
#endif

#if defined(UDASS_WARPS)

#if defined(UDASS_BF16)
constexpr int DEPTH = 16;
DEVICE void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t b[2] = {b0, b1};
    mma_bf16(d, a, b);
}
DEVICE uint32_t fragment_of(float x, float y) { return two_halves(T(x).bits, T(y).bits); }
#else
constexpr int DEPTH = 8;
DEVICE void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t b[2] = {b0, b1};
    mma_tf32(d, a, b);
}
DEVICE uint32_t fragment_of(float x) {
#if defined(__CUDACC__)
    return __float_as_uint(operand_of(x));
#else
    return __builtin_bit_cast(uint32_t, operand_of(x));
#endif
}
#endif

// Elements of 16 bytes, and what a row in shared memory is longer by, so that rows start in
// different banks.
constexpr int64_t VECTOR = 16 / sizeof(T);
struct alignas(16) Vector {
    T lanes[VECTOR];
};

DEVICE int64_t lane_group() { return lane_index() / 4; }
DEVICE int64_t lane_pair() { return lane_index() % 4; }

// to[r][c] = from[r][c], `size` channels, zero from row `rows` to row `padded`; tf32 is rounded.
template <int64_t size>
DEVICE void load_rows(T* to, const T* from, int64_t rows, int64_t padded, int64_t from_row) {
    constexpr int64_t across = size / VECTOR, stride = size + VECTOR;
    BLOCK_LOOP(i, padded * across) {
        const int64_t r = i / across, c = i % across * VECTOR;
        Vector v;
        if (r < rows) v = *reinterpret_cast<const Vector*>(from + r * from_row + c);
        UNROLL for (int64_t j = 0; j < VECTOR; ++j) v.lanes[j] = r < rows ? T(operand_of(v.lanes[j])) : T(0);
        *reinterpret_cast<Vector*>(to + r * stride + c) = v;
    }
}

// A: rows 0..15 of a matrix in global memory, `size` columns; zero from row `rows` on.
template <int64_t size>
DEVICE void load_a(uint32_t (&a)[size / DEPTH][4], const T* from, int64_t rows, int64_t from_row) {
    UNROLL for (int64_t k = 0; k < size / DEPTH; ++k) {
        UNROLL for (int64_t i = 0; i < 4; ++i) {
            const int64_t row = lane_group() + i % 2 * 8;
            const int64_t column = k * DEPTH + i / 2 * (DEPTH / 2) + lane_pair() * (DEPTH / 8);
            const T* at = from + row * from_row + column;
#if defined(UDASS_BF16)
            a[k][i] = row < rows ? fragment_of(at[0], at[1]) : 0;
#else
            a[k][i] = row < rows ? fragment_of(at[0]) : 0;
#endif
        }
    }
}

// s[n] (+)= A · rowsᵀ: column 8n + j of the product is row `first` + 8n + j of a matrix in shared
// memory.
template <int64_t size, int columns>
DEVICE void multiply_rows(float (&s)[columns][4], const uint32_t (&a)[size / DEPTH][4], const T* rows, int64_t first) {
    constexpr int64_t stride = size + VECTOR;
    const int64_t l = lane_index();
    UNROLL for (int64_t n = 0; n < columns; ++n) {
        UNROLL for (int64_t k = 0; k < size / DEPTH; k += 2) {
            uint32_t b[4];
            load_matrices(b, rows + (first + 8 * n + l % 8) * stride + k * DEPTH + l / 8 * VECTOR);
            multiply(s[n], a[k], b[0], b[1]);
            multiply(s[n], a[k + 1], b[2], b[3]);
        }
    }
}

// o += weights · rows: the product's depth, 8·columns, is along rows `first`… of a matrix in shared
// memory, whose columns are the product's.
template <int64_t size, int columns>
DEVICE void multiply_weights(float (&o)[size / 8][4], const float (&weights)[columns][4], const T* rows, int64_t first) {
    constexpr int64_t stride = size + VECTOR;
    UNROLL for (int64_t k = 0; k < columns * 8 / DEPTH; ++k) {
        const T* from = rows + (first + k * DEPTH) * stride;
#if defined(UDASS_BF16)
        const float(&low)[4] = weights[2 * k], (&high)[4] = weights[2 * k + 1];
        const uint32_t a[4] = {fragment_of(low[0], low[1]), fragment_of(low[2], low[3]),
                               fragment_of(high[0], high[1]), fragment_of(high[2], high[3])};
        const int64_t l = lane_index();
#else
        const float(&w)[4] = weights[k];
        const uint32_t a[4] = {fragment_of(w[0]), fragment_of(w[2]), fragment_of(w[1]), fragment_of(w[3])};
        const T* mine = from + 2 * lane_pair() * stride + lane_group();
#endif
        UNROLL for (int64_t n = 0; n < size / 8; n += 2) {
#if defined(UDASS_BF16)
            uint32_t b[4];
            load_matrices_transposed(b, from + (l / 8 % 2 * 8 + l % 8) * stride + (n + l / 16) * 8);
#else
            const uint32_t b[4] = {fragment_of(mine[8 * n]), fragment_of(mine[stride + 8 * n]),
                                   fragment_of(mine[8 * n + 8]), fragment_of(mine[stride + 8 * n + 8])};
#endif
            multiply(o[n], a, b[0], b[1]);
            multiply(o[n + 1], a, b[2], b[3]);
        }
    }
}

// Of a row, from the four lanes that hold it.
DEVICE float row_sum(float mine) {
    mine += shuffled(mine, lane_index() ^ 1);
    return mine + shuffled(mine, lane_index() ^ 2);
}
DEVICE float row_max(float mine) {
    mine = max_of(mine, shuffled(mine, lane_index() ^ 1));
    return max_of(mine, shuffled(mine, lane_index() ^ 2));
}

#endif
