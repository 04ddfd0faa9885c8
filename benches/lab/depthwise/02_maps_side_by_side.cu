// Kernels: depthwise, depthwise_filter, depthwise_gelu, depthwise_gelu_filter
// Until: 0d884cc
// Then: one undilated map after the other, in segments of 32 pixels; the next strips are prefetched
// Predicted: nothing was written down; bytes and FLOPs stayed the same, so they foretold no gain
//
// Depthwise 3×3 as kernels/depthwise.cu describes it. A *line* is every D-th pixel of a row, and all D
// lines of a row come one after the other: between two uses of a pixel lie D times as many addresses
// as in one of the D² maps.
#include "../whole_parts.cuh"
#include "strip.cuh"

constexpr int64_t PIXELS = 4;
constexpr int64_t SEGMENT = 16;  // of a line, at a time
constexpr int64_t SLICE = 256;

struct Map {
    int64_t batch, height, width, channels, dilation;
};

// Part of a line.
struct Segment {
    int64_t start;       // offset of the line's first pixel
    int64_t step, down;  // from a pixel to the next of its line, to the one on the line below
    int64_t first, end;  // pixels of the line
    int64_t count;       // pixels in the line
    bool above, below;   // whether there are such lines
};

// f(segment, channel) for all segments and strips of channels, lines spread over the blocks.
template <class V, class F>
DEVICE void each_segment(const Map& map, F f) {
    const int64_t D = map.dilation, H = map.height, W = map.width, C = map.channels;
    const int64_t slices = (C + SLICE - 1) / SLICE, phases = D < W ? D : W;
    const int64_t lines = map.batch * slices * H * phases;
    // Of the D classes of rows, `longer` have one row more than `rows`.
    const int64_t rows = H / D, longer = H % D * (rows + 1);
    for (int64_t line = chunk_begin(lines); line < chunk_end(lines); ++line) {
        const int64_t phase = line % phases, place = line / phases % H;
        const int64_t slice = line / phases / H % slices, sample = line / phases / H / slices;
        const int64_t rest = place - longer;
        const int64_t h = rest < 0 ? place / (rows + 1) + place % (rows + 1) * D : H % D + rest / rows + rest % rows * D;
        Segment s;
        s.start = ((sample * H + h) * W + phase) * C;
        s.step = D * C;
        s.down = D * W * C;
        s.count = (W - phase + D - 1) / D;
        s.above = h >= D;
        s.below = h + D < H;
        const int64_t c_begin = slice * SLICE, c_end = c_begin + SLICE < C ? c_begin + SLICE : C;
        for (s.first = 0; s.first < s.count; s.first += SEGMENT) {
            s.end = s.first + SEGMENT < s.count ? s.first + SEGMENT : s.count;
            constexpr int64_t lanes = Width<V>::lanes;
            for (int64_t c = c_begin + thread_index() * lanes; c < c_end; c += thread_count() * lanes) f(s, c);
        }
    }
}

// What PIXELS pixels from j on see of a line, from the pixel before them on: zero beyond its ends.
template <class V>
DEVICE void look(V (&seen)[PIXELS + 2], const T* line, const Segment& s, int64_t j) {
    if (j > 0 && j + PIXELS < s.count) {
        UNROLL for (int64_t i = 0; i < PIXELS + 2; ++i) seen[i] = Width<V>::load(line + i * s.step);
    } else {
        UNROLL for (int64_t i = 0; i < PIXELS + 2; ++i)
            seen[i] = j + i > 0 && j + i <= s.count ? Width<V>::load(line + i * s.step) : all_lanes<V>(0);
    }
}

// sum[p] += the taps w on a line
template <class V>
DEVICE void add_line(V (&sum)[PIXELS], const T* line, const Segment& s, int64_t j, const V* w) {
    V seen[PIXELS + 2];
    look(seen, line, s, j);
    UNROLL for (int64_t t = 0; t < 3; ++t) {
        UNROLL for (int64_t p = 0; p < PIXELS; ++p) sum[p] = fma_of(seen[p + t], w[t], sum[p]);
    }
}
template <class V>
DEVICE void add_taps(V (&sum)[PIXELS], const T* x, const Segment& s, int64_t j, const V (&w)[9]) {
    const T* line = x + s.start + (j - 1) * s.step;
    if (s.above) add_line(sum, line - s.down, s, j, w);
    add_line(sum, line, s, j, w + 3);
    if (s.below) add_line(sum, line + s.down, s, j, w + 6);
}

// dw += what the taps on a line contribute
template <class V>
DEVICE void gather_line(V* dw, const T* line, const Segment& s, int64_t j, const V (&dy)[PIXELS]) {
    V seen[PIXELS + 2];
    look(seen, line, s, j);
    UNROLL for (int64_t t = 0; t < 3; ++t) {
        UNROLL for (int64_t p = 0; p < PIXELS; ++p) dw[t] = fma_of(seen[p + t], dy[p], dw[t]);
    }
}
template <class V>
DEVICE void gather_taps(V (&dw)[9], const T* x, const Segment& s, int64_t j, const V (&dy)[PIXELS]) {
    const T* line = x + s.start + (j - 1) * s.step;
    if (s.above) gather_line(dw, line - s.down, s, j, dy);
    gather_line(dw + 3, line, s, j, dy);
    if (s.below) gather_line(dw + 6, line + s.down, s, j, dy);
}

template <class V>
DEVICE void load_filter(V (&w)[9], const real* filter, int64_t channels, int64_t c, bool turned) {
    UNROLL for (int64_t t = 0; t < 9; ++t) w[t] = Width<V>::load(filter + (turned ? 8 - t : t) * channels + c);
}

template <class V>
DEVICE V bias_of(const real* bias, int64_t c) {
    return bias ? Width<V>::load(bias + c) : all_lanes<V>(0);
}

// y = finish(y's sum)
template <class V, class F>
DEVICE void convolve(const T* x, const real* filter, const real* bias, T* y, const Map& map, bool turned, bool accumulate, F finish) {
    each_segment<V>(map, [&](const Segment& s, int64_t c) {
        V w[9], sum[PIXELS];
        load_filter(w, filter, map.channels, c, turned);
        const V b = bias_of<V>(bias, c);
        for (int64_t j = s.first; j < s.end; j += PIXELS) {
            T* to = y + s.start + j * s.step + c;
            UNROLL for (int64_t p = 0; p < PIXELS; ++p)
                sum[p] = accumulate && j + p < s.end ? Width<V>::load(to + p * s.step) : b;
            add_taps(sum, x + c, s, j, w);
            UNROLL for (int64_t p = 0; p < PIXELS; ++p) {
                if (j + p < s.end) store(to + p * s.step, finish(sum[p]));
            }
        }
    });
}

// dw and db of the block's lines. Behind a GELU, dz is what is in front of it.
template <class V, bool behind_gelu>
DEVICE void filter_gradient(const T* x, const real* filter, const real* bias, const T* dy, T* dz, real* dw, real* db, const Map& map) {
    const int64_t C = map.channels;
    BLOCK_LOOP(i, 9 * C) dw[i] = 0;
    BLOCK_LOOP(i, C) db[i] = 0;
    barrier();
    each_segment<V>(map, [&](const Segment& s, int64_t c) {
        V w[9], slope[PIXELS], part[9], total = all_lanes<V>(0);
        UNROLL for (int64_t t = 0; t < 9; ++t) part[t] = all_lanes<V>(0);
        if (behind_gelu) load_filter(w, filter, C, c, false);
        const V b = bias_of<V>(bias, c);
        for (int64_t j = s.first; j < s.end; j += PIXELS) {
            const int64_t at = s.start + j * s.step + c;
            if (behind_gelu) {
                UNROLL for (int64_t p = 0; p < PIXELS; ++p) slope[p] = b;
                add_taps(slope, x + c, s, j, w);
                UNROLL for (int64_t p = 0; p < PIXELS; ++p) slope[p] = map_lanes(slope[p], gelu_slope_of);
            }
            UNROLL for (int64_t p = 0; p < PIXELS; ++p) {
                if (j + p < s.end) {
                    const V above = Width<V>::load(dy + at + p * s.step);
                    slope[p] = behind_gelu ? slope[p] * above : above;
                    if (behind_gelu) store(dz + at + p * s.step, slope[p]);
                } else {
                    slope[p] = all_lanes<V>(0);
                }
                total = total + slope[p];
            }
            gather_taps(part, x + c, s, j, slope);
        }
        UNROLL for (int64_t t = 0; t < 9; ++t) store(dw + t * C + c, part[t] + Width<V>::load(dw + t * C + c));
        store(db + c, total + Width<V>::load(db + c));
    });
}

// y (+)= x * w + b; `turned` is the gradient of x from dy.
KERNEL(depthwise, const T* x /* B,H,W,C */, const real* filter /* 3,3,C */, const real* OPTIONAL bias /* C */, T* y /* B,H,W,C */, int32_t turned, int32_t accumulate, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t dilation) {
    const Map map = {batch, height, width, channels, dilation};
    const auto same = [](auto v) { return v; };
    if (channels % STRIP == 0) convolve<strip>(x, filter, bias, y, map, turned, accumulate, same);
    else convolve<real>(x, filter, bias, y, map, turned, accumulate, same);
}

// y = gelu(x * w + b), undilated.
KERNEL(depthwise_gelu, const T* x /* B,H,W,C */, const real* filter /* 3,3,C */, const real* OPTIONAL bias /* C */, T* y /* B,H,W,C */, int64_t batch, int64_t height, int64_t width, int64_t channels) {
    const Map map = {batch, height, width, channels, 1};
    const auto gelu = [](auto v) { return map_lanes(v, gelu_of); };
    if (channels % STRIP == 0) convolve<strip>(x, filter, bias, y, map, false, false, gelu);
    else convolve<real>(x, filter, bias, y, map, false, false, gelu);
}

// Each block's part of the gradients of filter and bias.
KERNEL(depthwise_filter, const T* x /* B,H,W,C */, const T* dy /* B,H,W,C */, real* dw /* blocks,3,3,C */, real* db /* blocks,C */, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t dilation) {
    const Map map = {batch, height, width, channels, dilation};
    AS_WHOLE_PARTS((channels + SLICE - 1) / SLICE);
    dw += block_index() * 9 * channels;
    db += block_index() * channels;
    if (channels % STRIP == 0) filter_gradient<strip, false>(x, nullptr, nullptr, dy, nullptr, dw, db, map);
    else filter_gradient<real, false>(x, nullptr, nullptr, dy, nullptr, dw, db, map);
}

// The same behind a GELU; dz is the gradient in front of it.
KERNEL(depthwise_gelu_filter, const T* x /* B,H,W,C */, const real* filter /* 3,3,C */, const real* OPTIONAL bias /* C */, const T* dy /* B,H,W,C */, T* dz /* B,H,W,C */, real* dw /* blocks,3,3,C */, real* db /* blocks,C */, int64_t batch, int64_t height, int64_t width, int64_t channels) {
    const Map map = {batch, height, width, channels, 1};
    AS_WHOLE_PARTS((channels + SLICE - 1) / SLICE);
    dw += block_index() * 9 * channels;
    db += block_index() * channels;
    if (channels % STRIP == 0) filter_gradient<strip, true>(x, filter, bias, dy, dz, dw, db, map);
    else filter_gradient<real, true>(x, filter, bias, dy, dz, dw, db, map);
}
