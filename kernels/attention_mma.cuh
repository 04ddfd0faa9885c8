// Attention on tensor cores: operands are matrix fragments (mma.cuh), 16-bit with bf16 storage and
// tf32 in single precision. A warp computes 16 rows of a matmul, and 8 columns per instruction.
//
// Lane l has group = l / 4 and pair = l % 4. It holds rows group and group + 8, columns 2·pair and
// 2·pair + 1 of a 16×8 accumulator. A following matmul whose depth is those columns uses the
// accumulators in place: in bf16, two neighboring accumulators form a fragment of A; in tf32, slot
// `pair` of A's eight columns stands for column 2·pair and slot pair + 4 for column 2·pair + 1, and
// the rows of B are read in the same order.
#pragma once
#include "attention.cuh"
#include "mma.cuh"
#include "pack.cuh"

// Rounds a matmul operand to the type that the tensor cores multiply.
#if defined(UDASS_BF16)
MATH real operand_of(real x) { return real(T(x)); }
#elif defined(UDASS_F64)
MATH real operand_of(real x) { return x; }
#else
// Rounds to tf32: 10 mantissa bits, ties away from zero. NaN and infinity are returned unchanged:
// adding to the GPU's canonical NaN, 0x7FFFFFFF, would carry into the sign and give -0.
MATH real operand_of(real x) {
    if (!is_finite(x)) return x;
#if defined(__CUDACC__)
    return __uint_as_float((__float_as_uint(x) + 0x1000u) & 0xFFFFE000u);
#else
    return __builtin_bit_cast(float, (__builtin_bit_cast(uint32_t, x) + 0x1000u) & 0xFFFFE000u);
#endif
}
#endif

// Rows that are copied to shared memory at a time.
constexpr int64_t TILE = KEYS;

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
// Rounds like operand_of and returns the bits.
DEVICE uint32_t fragment_of(float x) {
#if defined(__CUDACC__)
    uint32_t rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
    return rounded;
#else
    return __builtin_bit_cast(uint32_t, operand_of(x));
#endif
}
// Returns the bits of a number that is already rounded.
DEVICE uint32_t bits_of(float x) {
#if defined(__CUDACC__)
    return __float_as_uint(x);
#else
    return __builtin_bit_cast(uint32_t, x);
#endif
}
#endif

// Elements in 16 bytes, the padding of a row in shared memory.
constexpr int64_t VECTOR = ROW_PADDING / sizeof(T);
struct alignas(ROW_PADDING) Vector {
    T lanes[VECTOR];
};
struct alignas(2 * sizeof(T)) Pair {
    T lanes[2];
};

constexpr float LOG2_E = 1.44269504f;

// 2^x within 2 ulp, by the GPU's special function unit; denormal results are flushed to zero.
// (exp_of takes some twenty instructions and two branches, longer than the matmuls of a score.)
DEVICE float exp2_of(float x) {
#if defined(__CUDACC__)
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

DEVICE int64_t lane_group() { return lane_index() / 4; }
DEVICE int64_t lane_pair() { return lane_index() % 4; }

// Elements of a tile in shared memory: TILE rows of one matrix, followed by TILE rows of another.
template <int64_t size>
constexpr int64_t TILE_NUMBERS = 2 * TILE * (size + VECTOR);

// Calls f(r, c) for each of this thread's 16-byte vectors of a tile; c is the vector's first
// column. Whole rows of vectors are spread over a block of whole warps, so a thread gets the same
// vectors on every call.
template <int64_t size, class F>
DEVICE void each_vector(F f) {
    constexpr int64_t across = size / VECTOR;
    const int64_t column = thread_index() % across * VECTOR;
    for (int64_t r = thread_index() / across; r < TILE; r += thread_count() / across) f(r, column);
}

// Starts copying this thread's part of the first `rows` rows of two matrices whose rows are `apart`
// elements from each other; the remaining rows of the tile are set to zero.
template <int64_t size>
DEVICE void copy_tile(T* to, const T* one, const T* other, int64_t rows, int64_t apart) {
    constexpr int64_t stride = size + VECTOR;
    each_vector<size>([=](int64_t r, int64_t c) {
        T* at = to + r * stride + c;
        if (r < rows) {
            copy_async(at, one + r * apart + c);
            copy_async(at + TILE * stride, other + r * apart + c);
        } else {
            *reinterpret_cast<Vector*>(at) = *reinterpret_cast<Vector*>(at + TILE * stride) = Vector{};
        }
    });
}

// Waits for this thread's copies and, in single precision, rounds the copied elements to tf32.
template <int64_t size>
DEVICE void settle_tile(T* tile) {
    wait_copies<0>();
#if !defined(UDASS_BF16)
    constexpr int64_t stride = size + VECTOR;
    each_vector<size>([=](int64_t r, int64_t c) {
        UNROLL for (int64_t which = 0; which < 2; ++which) {
            Vector& v = *reinterpret_cast<Vector*>(tile + (which * TILE + r) * stride + c);
            UNROLL for (int64_t j = 0; j < VECTOR; ++j) v.lanes[j] = operand_of(v.lanes[j]);
        }
    });
#endif
}

// Streams the tiles of a head's keys and values through shared memory, as often as needed: the next
// tile is copied while the current one is used. Shared memory holds `resident` rows; if that is all of
// them, each tile is copied only once.
struct KeyTiles {
    const T* kv;
    int64_t keys, channels, resident;
    int64_t next = 0, slot = 0;  // row being copied; row of shared memory that it goes to
};
template <int64_t size>
DEVICE T* slot_of(const KeyTiles& tiles) {
    return static_cast<T*>(shared_memory()) + tiles.slot / TILE * TILE_NUMBERS<size>;
}
template <int64_t size>
DEVICE void start_copy(const KeyTiles& tiles) {
    const T* from = tiles.kv + tiles.next * 2 * tiles.channels;
    copy_tile<size>(slot_of<size>(tiles), from, from + tiles.channels, tiles.keys - tiles.next, 2 * tiles.channels);
    commit_copies();
}
// Returns the tile that was requested and starts copying the next one, wrapping around to the first
// key if all tiles are needed `again`.
template <int64_t size>
DEVICE const T* next_tile(KeyTiles& tiles, bool again) {
    T* tile = slot_of<size>(tiles);
    tiles.slot = tiles.slot + TILE == tiles.resident ? 0 : tiles.slot + TILE;
    if (tiles.next < tiles.keys) {
        settle_tile<size>(tile);
        barrier();
        tiles.next += TILE;
        if (tiles.next >= tiles.keys && tiles.resident < tiles.keys && again) tiles.next = 0;
        if (tiles.next < tiles.keys) start_copy<size>(tiles);
    }
    return tile;
}

// Loads A: rows 0..15 of a matrix in global memory with `size` columns, zero from row `rows` on.
template <int64_t size>
DEVICE void load_a(uint32_t (&a)[size / DEPTH][4], const T* from, int64_t rows, int64_t from_row) {
    UNROLL for (int64_t k = 0; k < size / DEPTH; ++k) {
        UNROLL for (int64_t i = 0; i < 4; ++i) {
            const int64_t row = lane_group() + i % 2 * 8;
            const int64_t column = k * DEPTH + i / 2 * (DEPTH / 2) + lane_pair() * (DEPTH / 8);
            const T* at = from + row * from_row + column;
#if defined(UDASS_BF16)
            Pair two{};
            if (row < rows) two = *reinterpret_cast<const Pair*>(at);
            a[k][i] = two_halves(two.lanes[0].bits, two.lanes[1].bits);
#else
            a[k][i] = row < rows ? fragment_of(at[0]) : 0;
#endif
        }
    }
}

// s[n] += A · rowsᵀ. Column 8n + j of the result belongs to row `first` + 8n + j of a matrix in
// shared memory.
template <int64_t size, int columns>
DEVICE void multiply_rows(float (&s)[columns][4], const uint32_t (&a)[size / DEPTH][4], const T* rows, int64_t first) {
    constexpr int64_t stride = size + VECTOR;
    const int64_t l = lane_index();
    const T* mine = rows + (first + l % 8) * stride + l / 8 * VECTOR;
    UNROLL for (int64_t n = 0; n < columns; ++n) {
        UNROLL for (int64_t k = 0; k < size / DEPTH; k += 2) {
            uint32_t b[4];
            load_matrices(b, mine, (8 * n * stride + k * DEPTH) * sizeof(T));
            multiply(s[n], a[k], b[0], b[1]);
            multiply(s[n], a[k + 1], b[2], b[3]);
        }
    }
}

// o += weights · rows. The depth, 8·columns, runs along the rows of a matrix in shared memory,
// starting at row `first`; its columns are the columns of the result.
template <int64_t size, int columns>
DEVICE void multiply_weights(float (&o)[size / 8][4], const float (&weights)[columns][4], const T* rows, int64_t first) {
    constexpr int64_t stride = size + VECTOR;
#if defined(UDASS_BF16)
    const int64_t l = lane_index();
    const T* mine = rows + (first + l / 8 % 2 * 8 + l % 8) * stride + l / 16 * 8;
#else
    const T* mine = rows + (first + 2 * lane_pair()) * stride + lane_group();
#endif
    UNROLL for (int64_t k = 0; k < columns * 8 / DEPTH; ++k) {
#if defined(UDASS_BF16)
        const float(&low)[4] = weights[2 * k], (&high)[4] = weights[2 * k + 1];
        const uint32_t a[4] = {fragment_of(low[0], low[1]), fragment_of(low[2], low[3]),
                               fragment_of(high[0], high[1]), fragment_of(high[2], high[3])};
#else
        const float(&w)[4] = weights[k];
        const uint32_t a[4] = {fragment_of(w[0]), fragment_of(w[2]), fragment_of(w[1]), fragment_of(w[3])};
#endif
        UNROLL for (int64_t n = 0; n < size / 8; n += 2) {
#if defined(UDASS_BF16)
            uint32_t b[4];
            load_matrices_transposed(b, mine, (k * DEPTH * stride + n * 8) * sizeof(T));
#else
            const T* at = mine + k * DEPTH * stride + 8 * n;
            const uint32_t b[4] = {bits_of(at[0]), bits_of(at[stride]), bits_of(at[8]), bits_of(at[stride + 8])};
#endif
            multiply(o[n], a, b[0], b[1]);
            multiply(o[n + 1], a, b[2], b[3]);
        }
    }
}

// Sets the scores of keys past the last one to -REAL_MAX, so that their weights are zero. Column 0
// is key `first`.
template <int columns>
DEVICE void hide_beyond(float (&scores)[columns][4], int64_t first, int64_t keys) {
    const int64_t left = keys - first;
    if (left >= 8 * columns) return;
    UNROLL for (int64_t n = 0; n < columns; ++n) {
        UNROLL for (int64_t i = 0; i < 4; ++i) {
            if (8 * n + 2 * lane_pair() + i % 2 >= left) scores[n][i] = -REAL_MAX;
        }
    }
}

// Reduce a row over the four lanes that hold it. fmaxf ignores NaN, but a NaN score still shows:
// its own weight is NaN.
DEVICE float row_sum(float mine) {
    mine += shuffled(mine, lane_index() ^ 1);
    return mine + shuffled(mine, lane_index() ^ 2);
}
DEVICE float row_max(float mine) {
    mine = fmaxf(mine, shuffled(mine, lane_index() ^ 1));
    return fmaxf(mine, shuffled(mine, lane_index() ^ 2));
}

#endif
