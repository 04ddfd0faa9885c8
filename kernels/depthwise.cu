// Depthwise 3×3 convolution, stride 1, dilation D, padding D: each channel has its own filter.
//   y[h,w,c] = b[c] + Σ_rs x[h + (r-1)D, w + (s-1)D, c] · w[r,s,c]
// x and y are batch,height,width,channels. dx is the same sum over dy with the filter rotated 180°.
//   dw[r,s,c] = Σ x[h + (r-1)D, w + (s-1)D, c] · dy[h,w,c]
//
// A dilated convolution is D² undilated ones, each on every D-th row and column. A *line* consists
// of every D-th pixel of a row; PIXELS neighbors on a line share most of their inputs.
//
// If GELU is fused, its input is not stored: recomputing it in the backward reads no more memory
// than loading it would.
#include "depthwise.cuh"
#if !defined(UDASS_SHAPED_FOR_GPU)
#include "depthwise_lines.cuh"
#else

// On a GPU, a thread walks down a column of pixels with a few channels in registers, so that each
// line is read once for the three lines that it contributes to.

// PIXELS neighbors, or fewer at a line's end, on each of the lines [top, bottom) of an undilated map.
struct Column {
    int64_t start;       // offset of the first pixel
    int64_t step, down;  // distance to the next pixel, to the next line
    int64_t c;           // the first channel
    int32_t pixels;
    int32_t left, right;  // range of the pixels before, in and after the column that the map has
    int32_t top, bottom, lines;
};

DEVICE int64_t tiles_of(int64_t size, int64_t tile) { return (size + tile - 1) / tile; }

// The tiles of all maps and samples, for one slice.
DEVICE int64_t tiles_in(const Map& map, int64_t tile_width) {
    return map.batch * map.down * map.right * tiles_of(map.rows, TILE_HEIGHT) * tiles_of(map.pixels, tile_width);
}

// Calls f(column) for the columns in tiles [begin, end), which are numbered slice by slice.
template <class V, class F>
DEVICE void each_column(const Map& map, int64_t begin, int64_t end, int64_t tile_width, F f) {
    const int32_t D = static_cast<int32_t>(map.dilation), H = static_cast<int32_t>(map.height), W = static_cast<int32_t>(map.width);
    const int32_t groups = static_cast<int32_t>(tile_width / PIXELS), lanes = Width<V>::lanes;
    for (int64_t i = begin; i < end; ++i) {
        int32_t rest = static_cast<int32_t>(i);
        const auto next = [&](int64_t count) {
            const int32_t whole = rest / static_cast<int32_t>(count), digit = rest - whole * static_cast<int32_t>(count);
            rest = whole;
            return digit;
        };
        const int32_t tile = next(tiles_of(map.pixels, tile_width)), band = next(tiles_of(map.rows, TILE_HEIGHT));
        const int32_t right = next(map.right), down = next(map.down), sample = next(map.batch), slice = rest;
        const int32_t strips = static_cast<int32_t>(least_of(SLICE, map.channels - slice * SLICE)) / lanes;
        Column at;
        at.step = D * map.channels;
        at.down = at.step * W;
        at.lines = (H - down + D - 1) / D;
        at.top = band * static_cast<int32_t>(TILE_HEIGHT);
        at.bottom = static_cast<int32_t>(least_of(at.top + TILE_HEIGHT, at.lines));
        const int32_t count = (W - right + D - 1) / D;
        const int64_t row = static_cast<int64_t>(sample) * H + down + at.top * D;
        BLOCK_LOOP(k, strips * groups) {
            const int32_t group = static_cast<int32_t>(k) / strips;
            const int32_t first = tile * static_cast<int32_t>(tile_width) + group * static_cast<int32_t>(PIXELS);
            at.pixels = static_cast<int32_t>(least_of(PIXELS, count - first));
            at.left = first > 0 ? 0 : 1;
            at.right = static_cast<int32_t>(least_of(PIXELS + 2, count - first + 1));
            at.c = slice * SLICE + (static_cast<int32_t>(k) - group * strips) * lanes;
            at.start = (row * W + right) * map.channels + first * at.step + at.c;
            // Some of the undilated maps are smaller.
            if (at.pixels > 0 && at.top < at.lines) f(at);
        }
    }
}

// Calls f(h, here, seen) for the lines h from top - 1 to bottom, where `seen` is the column with a
// neighbor on either side, zero outside the map, and `here` tells whether the map has the line.
template <class V, class F>
DEVICE void each_line(const T* x, const Column& at, F f) {
    const T* line = x + at.start - at.down - at.step;
    for (int32_t h = at.top - 1; h <= at.bottom; ++h, line += at.down) {
        V seen[PIXELS + 2];
        const bool here = h >= 0 && h < at.lines;
        if (here) {
            UNROLL for (int32_t i = 0; i < PIXELS + 2; ++i)
                seen[i] = i >= at.left && i < at.right ? Width<V>::load(line + i * at.step) : all_lanes<V>(0);
        }
        f(h, here, seen);
    }
}

// Stores the pixels of a line. nvcc would split stores that a condition each guards.
template <class V>
DEVICE void store_line(T* to, const V (&line)[PIXELS], const Column& at) {
    if (at.pixels == PIXELS) {
        UNROLL for (int64_t p = 0; p < PIXELS; ++p) store(to + p * at.step, line[p]);
    } else {
        UNROLL for (int64_t p = 0; p < PIXELS - 1; ++p) {
            if (p < at.pixels) store(to + p * at.step, line[p]);
        }
    }
}

// Calls done(offset, sums) for the lines of a column, from top to bottom, where `offset` is that of
// the line's first pixel; sums begin with start(offset, p). Each line that is read contributes to
// three lines of sums.
template <class V, class F, class G>
DEVICE void convolve_column(const T* x, const V (&w)[9], const Column& at, F start, G done) {
    V above[PIXELS], within[PIXELS], below[PIXELS];
    const auto add = [](V (&sum)[PIXELS], const V (&seen)[PIXELS + 2], const V* w) {
        UNROLL for (int64_t t = 0; t < 3; ++t) {
            UNROLL for (int64_t p = 0; p < PIXELS; ++p) sum[p] = fma_of(seen[p + t], w[t], sum[p]);
        }
    };
    int64_t offset = at.start;  // of the line below the one that is read
    UNROLL for (int64_t p = 0; p < PIXELS; ++p) below[p] = start(offset, p);
    each_line<V>(x, at, [&](int32_t h, bool here, const V (&seen)[PIXELS + 2]) {
        if (here) {
            if (h > at.top) add(above, seen, w + 6);
            if (h >= at.top && h < at.bottom) add(within, seen, w + 3);
            if (h + 1 < at.bottom) add(below, seen, w);
        }
        if (h > at.top) done(offset - 2 * at.down, above);
        UNROLL for (int64_t p = 0; p < PIXELS; ++p) above[p] = within[p];
        UNROLL for (int64_t p = 0; p < PIXELS; ++p) within[p] = below[p];
        offset += at.down;
        if (h + 2 < at.bottom) {
            UNROLL for (int64_t p = 0; p < PIXELS; ++p) below[p] = start(offset, p);
        }
    });
}

// dw[t] and db += the contribution of a column.
template <class V>
DEVICE void gather_column(V (&dw)[9], V& db, const T* x, const T* dy, const Column& at) {
    V above[PIXELS], within[PIXELS], below[PIXELS];  // gradients of the lines around the one that is read
    const T* next = dy + at.start;
    each_line<V>(x, at, [&](int32_t h, bool here, const V (&seen)[PIXELS + 2]) {
        if (h + 1 < at.bottom) {
            UNROLL for (int64_t p = 0; p < PIXELS; ++p) {
                below[p] = p < at.pixels ? Width<V>::load(next + p * at.step) : all_lanes<V>(0);
                db = db + below[p];
            }
            next += at.down;
        }
        const auto add = [&](V* dw, const V (&dy)[PIXELS]) {
            UNROLL for (int64_t t = 0; t < 3; ++t) {
                UNROLL for (int64_t p = 0; p < PIXELS; ++p) dw[t] = fma_of(seen[p + t], dy[p], dw[t]);
            }
        };
        if (here) {
            if (h + 1 < at.bottom) add(dw, below);
            if (h >= at.top && h < at.bottom) add(dw + 3, within);
            if (h > at.top) add(dw + 6, above);
        }
        UNROLL for (int64_t p = 0; p < PIXELS; ++p) above[p] = within[p];
        UNROLL for (int64_t p = 0; p < PIXELS; ++p) within[p] = below[p];
    });
}

template <class V, bool accumulate, class F>
DEVICE void convolve_tiles(const T* x, const real* filter, const real* bias, T* y, const Map& map, bool turned, F finish) {
    const int64_t n = map.slices * tiles_in(map, TILE_WIDTH);
    each_column<V>(map, chunk_begin(n), chunk_end(n), TILE_WIDTH, [&](const Column& at) {
        V w[9];
        load_filter(w, filter, map.channels, at.c, turned);
        const V b = bias_of<V>(bias, at.c);
        const auto start = [&](int64_t offset, int64_t p) {
            if constexpr (accumulate) return p < at.pixels ? Width<V>::load(y + offset + p * at.step) : b;
            else return b;
        };
        convolve_column(x, w, at, start, [&](int64_t offset, V (&sum)[PIXELS]) {
            UNROLL for (int64_t p = 0; p < PIXELS; ++p) sum[p] = finish(sum[p]);
            store_line(y + offset, sum, at);
        });
    });
}

// y = finish(sum), where sum is the convolution plus the bias, or plus y if `accumulate`.
template <class V, class F>
DEVICE void convolve(const T* x, const real* filter, const real* bias, T* y, const Map& map, bool turned, bool accumulate, F finish) {
    if (accumulate) convolve_tiles<V, true>(x, filter, bias, y, map, turned, finish);
    else convolve_tiles<V, false>(x, filter, bias, y, map, turned, finish);
}

// Gradients dw and db over one part of a slice's tiles; each block writes one partial dw and db.
// Behind a GELU, dy is the gradient of its output, and dz receives the gradient of its input.
template <class V, bool behind_gelu>
DEVICE void filter_gradient(const T* x, const real* filter, const real* bias, const T* dy, T* dz, real* dw, real* db, const Map& map) {
    const int64_t C = map.channels, tiles = tiles_in(map, PIXELS);
    const int64_t slice = block_index() % map.slices, part = block_index() / map.slices;
    const int64_t parts = block_count() / map.slices, share = (tiles + parts - 1) / parts;
    const int64_t begin = least_of(part * share, tiles), end = least_of(begin + share, tiles);
    dw += part * 9 * C;
    db += part * C;
    each_strip<V>(map, slice, [&](int64_t c) {
        UNROLL for (int64_t t = 0; t < 9; ++t) store(dw + t * C + c, all_lanes<V>(0));
        store(db + c, all_lanes<V>(0));
    });
    each_column<V>(map, slice * tiles + begin, slice * tiles + end, PIXELS, [&](const Column& at) {
        if constexpr (behind_gelu) {
            V w[9];
            load_filter(w, filter, C, at.c, false);
            const V b = bias_of<V>(bias, at.c);
            convolve_column(x, w, at, [&](int64_t, int64_t) { return b; }, [&](int64_t offset, V (&sum)[PIXELS]) {
                UNROLL for (int64_t p = 0; p < PIXELS; ++p) {
                    const V above = p < at.pixels ? Width<V>::load(dy + offset + p * at.step) : all_lanes<V>(0);
                    sum[p] = map_lanes(sum[p], gelu_derivative_of) * above;
                }
                store_line(dz + offset, sum, at);
            });
        }
        V part[9], total = Width<V>::load(db + at.c);
        UNROLL for (int64_t t = 0; t < 9; ++t) part[t] = Width<V>::load(dw + t * C + at.c);
        gather_column(part, total, x, behind_gelu ? dz : dy, at);
        UNROLL for (int64_t t = 0; t < 9; ++t) store(dw + t * C + at.c, part[t]);
        store(db + at.c, total);
    });
}

#endif

// Limits registers so that a multiprocessor holds 12 warps, with hardly a spill.
#undef LAUNCH_BOUNDS
#define LAUNCH_BOUNDS __launch_bounds__(SLICE / PACK * TILE_WIDTH / PIXELS, 3)

// y (+)= x * w + b. With `turned`, the filter is rotated by 180°, which gives dx from dy.
KERNEL(depthwise,
       const T* x /* batch,height,width,channels */, const real* filter /* 3,3,channels */,
       const real* OPTIONAL bias /* channels */, T* y /* batch,height,width,channels */,
       bool turned, bool accumulate, int64_t batch, int64_t height, int64_t width, int64_t channels,
       int64_t dilation) {
    const Map map = map_of(batch, height, width, channels, dilation);
    const auto same = [](auto v) { return v; };
    if (channels % PACK == 0) convolve<pack>(x, filter, bias, y, map, turned, accumulate, same);
    else convolve<real>(x, filter, bias, y, map, turned, accumulate, same);
}

// y = gelu(x * w + b), without dilation.
KERNEL(depthwise_gelu,
       const T* x /* batch,height,width,channels */, const real* filter /* 3,3,channels */,
       const real* OPTIONAL bias /* channels */, T* y /* batch,height,width,channels */,
       int64_t batch, int64_t height, int64_t width, int64_t channels) {
    const Map map = map_of(batch, height, width, channels, 1);
    const auto gelu = [](auto v) { return map_lanes(v, gelu_of); };
    if (channels % PACK == 0) convolve<pack>(x, filter, bias, y, map, false, false, gelu);
    else convolve<real>(x, filter, bias, y, map, false, false, gelu);
}

#undef LAUNCH_BOUNDS
#define LAUNCH_BOUNDS __launch_bounds__(SLICE / PACK, 6)

// Partial gradients of filter and bias: ⌈channels/SLICE⌉ blocks write one partial result.
KERNEL(depthwise_filter,
       const T* x /* batch,height,width,channels */, const T* dy /* batch,height,width,channels */,
       real* dw /* blocks/ceil(channels/SLICE),3,3,channels */,
       real* db /* blocks/ceil(channels/SLICE),channels */,
       int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t dilation) {
    const Map map = map_of(batch, height, width, channels, dilation);
    if (channels % PACK == 0) filter_gradient<pack, false>(x, nullptr, nullptr, dy, nullptr, dw, db, map);
    else filter_gradient<real, false>(x, nullptr, nullptr, dy, nullptr, dw, db, map);
}

// Partial gradients of filter and bias behind a fused GELU; dz is the gradient of the GELU's input.
KERNEL(depthwise_gelu_filter,
       const T* x /* batch,height,width,channels */, const real* filter /* 3,3,channels */,
       const real* OPTIONAL bias /* channels */, const T* dy /* batch,height,width,channels */,
       T* dz /* batch,height,width,channels */,
       real* dw /* blocks/ceil(channels/SLICE),3,3,channels */,
       real* db /* blocks/ceil(channels/SLICE),channels */,
       int64_t batch, int64_t height, int64_t width, int64_t channels) {
    const Map map = map_of(batch, height, width, channels, 1);
    if (channels % PACK == 0) filter_gradient<pack, true>(x, filter, bias, dy, dz, dw, db, map);
    else filter_gradient<real, true>(x, filter, bias, dy, dz, dw, db, map);
}
