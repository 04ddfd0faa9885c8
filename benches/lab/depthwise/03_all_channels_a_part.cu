// Kernels: depthwise, depthwise_filter, depthwise_gelu, depthwise_gelu_filter
// Until: 7ada5ac
// Then: a block has one slice of a part's channels, and there are as many parts as make 512 blocks; segments are
//   counted slice by slice
// Predicted: on an H100, depthwise_filter and depthwise_gelu_filter 45-55 → 7 ms of a bf16 iteration of gta_vit with
//   QuadMix (232 launches); none for the host
//
// Depthwise 3×3 as kernels/depthwise.cu describes it. A block has a part of the pixels with all of
// their channels: 16 to 128 blocks for a filter's gradient. Parts are today's, up to 512: what the
// launch has memory for.
#include "../whole_parts.cuh"
#include "strip.cuh"

constexpr int64_t PIXELS = 4;
constexpr int64_t SEGMENT = 32;
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

// f(segment, channel) for all segments and strips of channels, segments spread over the blocks.
template <class V, class F>
DEVICE void each_segment(const Map& map, F f) {
    const int64_t D = map.dilation, H = map.height, W = map.width, C = map.channels;
    const int64_t down = least_of(D, H), right = least_of(D, W);  // maps
    const int64_t rows = (H + D - 1) / D, across = (W + D - 1) / D;
    const int64_t segments = (across + SEGMENT - 1) / SEGMENT, slices = (C + SLICE - 1) / SLICE;
    const int64_t n = map.batch * slices * down * right * segments * rows;
    ROW_LOOP(i, n) {
        int64_t rest = i;
        const auto next = [&](int64_t count) {
            const int64_t digit = rest % count;
            rest /= count;
            return digit;
        };
        const int64_t row = next(rows), segment = next(segments), column = next(right), first_row = next(down);
        const int64_t slice = next(slices), sample = rest;
        const int64_t h = first_row + row * D, c_begin = slice * SLICE;
        Segment s;
        s.start = ((sample * H + h) * W + column) * C;
        s.step = D * C;
        s.down = D * W * C;
        s.count = (W - column + D - 1) / D;
        s.first = segment * SEGMENT;
        s.end = least_of(s.first + SEGMENT, s.count);
        s.above = h >= D;
        s.below = h + D < H;
        if (h >= H || s.first >= s.count) continue;  // some of the maps are smaller
        const int64_t c_end = least_of(c_begin + SLICE, C);
        constexpr int64_t lanes = Width<V>::lanes;
        for (int64_t c = c_begin + thread_index() * lanes; c < c_end; c += thread_count() * lanes) f(s, c);
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

// The next strip of PIXELS pixels is wanted soon: pixels are too far apart for a processor to guess.
template <class E>
DEVICE void expect_strip(const E* map, const Segment& s, int64_t j, int64_t c) {
    UNROLL for (int64_t p = 0; p < PIXELS; ++p) expect(map + s.start + (j + p) * s.step + c + STRIP);
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
            expect_strip(x + s.down, s, j, c);
            expect_strip(y, s, j, c);
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
            expect_strip(x + s.down, s, j, c);
            expect_strip(dy, s, j, c);
            if (behind_gelu) expect_strip(dz, s, j, c);
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
