// Walks rows of a matrix rows,channels so that what depends on the channel alone is read once for
// many rows. A strip is a vector V of neighboring channels.
//
// On the GPU a thread keeps its strip, and where a row has few strips, threads take several rows
// side by side. How many depends on the shape alone, and so does the order of a sum. The serial CPU
// build walks a few rows at a time from end to end, the order in which they lie in memory.
#pragma once
#include "pack.cuh"

// Rows that are loaded before any is used.
constexpr int64_t ROWS_AT_ONCE = 4;

// A number that the compiler knows.
template <int64_t N>
struct Constant {
    static constexpr int64_t value = N;
};

// A pixel of a batch of maps.
struct Pixel {
    int32_t w, h, b;
};
DEVICE Pixel pixel_of(int64_t p, int64_t height, int64_t width) {
    const int64_t line = p / width, b = line / height;
    return {static_cast<int32_t>(p - line * width), static_cast<int32_t>(line - b * height), static_cast<int32_t>(b)};
}
// Moves on by `step` pixels. Returns whether that leads to another line.
DEVICE bool advance(Pixel& at, int32_t step, int64_t height, int64_t width) {
    at.w += step;
    if (at.w < width) return false;
    do {
        at.w -= static_cast<int32_t>(width);
        if (++at.h == height) {
            at.h = 0;
            ++at.b;
        }
    } while (at.w >= width);
    return true;
}

// each_row(rows, f) calls f(r, step, count) for `count.value` rows r, r + step, … at a time.
#if defined(UDASS_SHAPED_FOR_GPU)

// Strips that the threads of a block take side by side.
EXPORTED constexpr int64_t ABREAST = 256;

struct Rows {
    int64_t first, end, step;
};
template <class F>
DEVICE void each_row(Rows rows, F f) {
    int64_t r = rows.first;
    for (; r + (ROWS_AT_ONCE - 1) * rows.step < rows.end; r += ROWS_AT_ONCE * rows.step)
        f(r, rows.step, Constant<ROWS_AT_ONCE>());
    for (; r < rows.end; r += rows.step) f(r, rows.step, Constant<1>());
}

// Rows that are walked side by side.
template <class V>
DEVICE int32_t rows_abreast(int64_t channels) {
    const int32_t strips = static_cast<int32_t>(channels / Width<V>::lanes);
    return strips < ABREAST ? static_cast<int32_t>(ABREAST) / strips : 1;
}

// Calls f(which of the rows abreast, first channel, rows) for all strips of rows [begin, end).
template <class V, class F>
DEVICE void each_walk(int64_t begin, int64_t end, int64_t channels, F f) {
    constexpr int32_t lanes = Width<V>::lanes;
    const int32_t strips = static_cast<int32_t>(channels / lanes), abreast = rows_abreast<V>(channels);
    BLOCK_LOOP(i, strips * abreast) {
        const int32_t row = static_cast<int32_t>(i) / strips;
        const int64_t c = (static_cast<int32_t>(i) - row * strips) * lanes;
        f(row, c, Rows{begin + row, end, abreast});
    }
}

// Calls f(first channel, rows) for all strips of rows [begin, end). The CPU walks `together` rows at a
// time; with more than one, memory is a little slower, and what f reads for a channel counts less.
template <class V, int64_t together = ROWS_AT_ONCE, class F>
DEVICE void each_strip(int64_t begin, int64_t end, int64_t channels, F f) {
    each_walk<V>(begin, end, channels, [&](int32_t, int64_t c, Rows rows) { f(c, rows); });
}

// Calls f(pixel, first channel) for all strips of pixels [begin, end), where `pixel` is what
// pixel_in(line, w) returned for its column, and `line` what line_of(b, h) returned for its line.
template <class V, class L, class P, class F>
DEVICE void each_pixel(int64_t begin, int64_t end, int64_t height, int64_t width, int64_t channels, L line_of, P pixel_in, F f) {
    each_strip<V>(begin, end, channels, [&](int64_t c, Rows rows) {
        if (rows.first >= rows.end) return;
        Pixel at = pixel_of(rows.first, height, width);
        auto line = line_of(at.b, at.h);
        for (int64_t p = rows.first; p < rows.end; p += rows.step) {
            f(pixel_in(line, at.w), c);
            if (advance(at, static_cast<int32_t>(rows.step), height, width)) line = line_of(at.b, at.h);
        }
    });
}

// Sums over rows [begin, end): f(sums, first channel, rows) adds a strip's rows to K sums, and
// done(first channel, sums) receives those of the strip. Both may read what other threads wrote in
// `done` in an earlier call. The CPU keeps the sums in `room`, K times `channels` numbers.
template <class V, int64_t K, class F, class G>
DEVICE void sum_strips(real* const (&)[K], int64_t begin, int64_t end, int64_t channels, F f, G done) {
    SHARED(V, parts, K * ABREAST);
    const int32_t strips = static_cast<int32_t>(channels / Width<V>::lanes), abreast = rows_abreast<V>(channels);
    each_walk<V>(begin, end, channels, [&](int32_t row, int64_t c, Rows rows) {
        V sums[K];
        UNROLL for (int64_t k = 0; k < K; ++k) sums[k] = all_lanes<V>(0);
        f(sums, c, rows);
        if (abreast == 1) {
            done(c, sums);
        } else {
            const int32_t at = row * strips + static_cast<int32_t>(c) / static_cast<int32_t>(Width<V>::lanes);
            UNROLL for (int64_t k = 0; k < K; ++k) parts[k * ABREAST + at] = sums[k];
        }
    });
    barrier();
    if (abreast > 1) {
        BLOCK_LOOP(s, strips) {
            const int32_t strip = static_cast<int32_t>(s);
            V sums[K];
            UNROLL for (int64_t k = 0; k < K; ++k) {
                sums[k] = parts[k * ABREAST + strip];
                for (int32_t at = strip + strips; at < abreast * strips; at += strips) sums[k] = sums[k] + parts[k * ABREAST + at];
            }
            done(strip * Width<V>::lanes, sums);
        }
        barrier();
    }
}

#else

template <int64_t N>
struct Rows {
    int64_t first;
};
template <int64_t N, class F>
DEVICE void each_row(Rows<N> rows, F f) { f(rows.first, 1, Constant<N>()); }

template <class V, int64_t together = ROWS_AT_ONCE, class F>
DEVICE void each_strip(int64_t begin, int64_t end, int64_t channels, F f) {
    int64_t r = begin;
    for (; r + together <= end; r += together)
        BLOCK_LOOP(c, channels) f(c, Rows<together>{r});
    for (; r < end; ++r)
        BLOCK_LOOP(c, channels) f(c, Rows<1>{r});
}

template <class V, class L, class P, class F>
DEVICE void each_pixel(int64_t begin, int64_t end, int64_t height, int64_t width, int64_t channels, L line_of, P pixel_in, F f) {
    if (begin >= end) return;
    Pixel at = pixel_of(begin, height, width);
    auto line = line_of(at.b, at.h);
    for (int64_t p = begin; p < end; ++p) {
        const auto pixel = pixel_in(line, at.w);
        BLOCK_LOOP(c, channels) f(pixel, c);
        if (advance(at, 1, height, width)) line = line_of(at.b, at.h);
    }
}

template <class V, int64_t K, class F, class G>
DEVICE void sum_strips(real* const (&room)[K], int64_t begin, int64_t end, int64_t channels, F f, G done) {
    for (int64_t k = 0; k < K; ++k)
        BLOCK_LOOP(c, channels) room[k][c] = 0;
    each_strip<V>(begin, end, channels, [&](int64_t c, auto rows) {
        V sums[K];
        UNROLL for (int64_t k = 0; k < K; ++k) sums[k] = room[k][c];
        f(sums, c, rows);
        UNROLL for (int64_t k = 0; k < K; ++k) room[k][c] = sums[k];
    });
    BLOCK_LOOP(c, channels) {
        real sums[K];
        UNROLL for (int64_t k = 0; k < K; ++k) sums[k] = room[k][c];
        done(c, sums);
    }
}

#endif
