// Depthwise 3×3 convolution, stride 1, dilation D, padding D: each channel has its own filter.
//   y[h,w,c] = b[c] + Σ_rs x[h + (r-1)D, w + (s-1)D, c] · w[r,s,c]
// x and y are batch,height,width,channels. dx is the same sum over dy with the filter rotated 180°.
//   dw[r,s,c] = Σ x[h + (r-1)D, w + (s-1)D, c] · dy[h,w,c]
//
// A dilated convolution is D² undilated ones, each on every D-th row and column. A *line* consists
// of every D-th pixel of a row; PIXELS neighbors on a line share most of their inputs. The segments
// of such an undilated map are visited top to bottom, SLICE channels at a time. This keeps the
// number of addresses between two uses of a pixel small: a CPU cache holds few addresses that are a
// power of two apart.
//
// If GELU is fused, its input is not stored: recomputing it in the backward reads no more memory
// than loading it would.
#include "pack.cuh"

constexpr int64_t PIXELS = 4;
// Pixels in a segment of a line.
EXPORTED constexpr int64_t SEGMENT = 32;
// Channels in a slice.
EXPORTED constexpr int64_t SLICE = 256;

struct Map {
    int64_t batch, height, width, channels, dilation;
    int64_t slices;          // slices of the channels
    int64_t down, right;     // undilated maps in each direction
    int64_t rows, segments;  // rows of an undilated map, segments in each row
    int64_t walked;          // segments of all maps and samples, for one slice
};

DEVICE Map map_of(int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t dilation) {
    Map map = {batch, height, width, channels, dilation};
    map.slices = (channels + SLICE - 1) / SLICE;
    map.down = least_of(dilation, height);
    map.right = least_of(dilation, width);
    map.rows = (height + dilation - 1) / dilation;
    map.segments = ((width + dilation - 1) / dilation + SEGMENT - 1) / SEGMENT;
    map.walked = batch * map.down * map.right * map.segments * map.rows;
    return map;
}

// A segment of a line.
struct Segment {
    int64_t start;       // offset of the line's first pixel
    int64_t step, down;  // distance to the next pixel of the line, to the next line
    int64_t first, end;  // range of the segment's pixels in the line
    int64_t count;       // pixels in the line
    bool above, below;   // whether there is a line above, below
};

// Calls f(channel) for the packs of a slice.
template <class V, class F>
DEVICE void each_strip(const Map& map, int64_t slice, F f) {
    constexpr int64_t lanes = Width<V>::lanes;
    const int64_t begin = slice * SLICE, end = least_of(begin + SLICE, map.channels);
    for (int64_t c = begin + thread_index() * lanes; c < end; c += thread_count() * lanes) f(c);
}

// Calls f(segment, channel) for the packs of segments [begin, end), which are numbered slice by
// slice.
template <class V, class F>
DEVICE void each_segment(const Map& map, int64_t begin, int64_t end, F f) {
    const int64_t D = map.dilation, H = map.height, W = map.width, C = map.channels;
    for (int64_t i = begin; i < end; ++i) {
        int64_t rest = i;
        const auto next = [&](int64_t count) {
            const int64_t digit = rest % count;
            rest /= count;
            return digit;
        };
        const int64_t row = next(map.rows), segment = next(map.segments);
        const int64_t column = next(map.right), first_row = next(map.down);
        const int64_t sample = next(map.batch), slice = rest;
        const int64_t h = first_row + row * D;
        Segment s;
        s.start = ((sample * H + h) * W + column) * C;
        s.step = D * C;
        s.down = D * W * C;
        s.count = (W - column + D - 1) / D;
        s.first = segment * SEGMENT;
        s.end = least_of(s.first + SEGMENT, s.count);
        s.above = h >= D;
        s.below = h + D < H;
        if (h >= H || s.first >= s.count) continue;  // some of the undilated maps are smaller
        each_strip<V>(map, slice, [&](int64_t c) { f(s, c); });
    }
}

// Loads the neighborhood of PIXELS pixels on a line: pixels j - 1 to j + PIXELS, zero past its
// ends. `line` points to pixel j - 1.
template <class V>
DEVICE void look(V (&seen)[PIXELS + 2], const T* line, const Segment& s, int64_t j) {
    if (j > 0 && j + PIXELS < s.count) {
        UNROLL for (int64_t i = 0; i < PIXELS + 2; ++i) seen[i] = Width<V>::load(line + i * s.step);
    } else {
        UNROLL for (int64_t i = 0; i < PIXELS + 2; ++i)
            seen[i] = j + i > 0 && j + i <= s.count ? Width<V>::load(line + i * s.step) : all_lanes<V>(0);
    }
}

// Prefetches the next pack of channels of PIXELS pixels, which are too far apart for the CPU's
// hardware prefetcher.
template <class E>
DEVICE void expect_strip(const E* map, const Segment& s, int64_t j, int64_t c) {
    UNROLL for (int64_t p = 0; p < PIXELS; ++p) expect(map + s.start + (j + p) * s.step + c + PACK);
}

// sum[p] += the contribution of a line, with its three taps w.
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

// dw[t] += the contribution of a line to the gradient of its three taps.
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

// y = finish(sum), where sum is the convolution plus the bias, or plus y if `accumulate`.
template <class V, class F>
DEVICE void convolve(const T* x, const real* filter, const real* bias, T* y, const Map& map, bool turned, bool accumulate, F finish) {
    const int64_t n = map.slices * map.walked;
    each_segment<V>(map, chunk_begin(n), chunk_end(n), [&](const Segment& s, int64_t c) {
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

// Gradients dw and db over one part of a slice's segments; each block writes one partial dw and db.
// Behind a GELU, dy is the gradient of its output, and dz receives the gradient of its input.
template <class V, bool behind_gelu>
DEVICE void filter_gradient(const T* x, const real* filter, const real* bias, const T* dy, T* dz, real* dw, real* db, const Map& map) {
    const int64_t C = map.channels;
    const int64_t slice = block_index() % map.slices, part = block_index() / map.slices;
    const int64_t parts = block_count() / map.slices, share = (map.walked + parts - 1) / parts;
    const int64_t begin = least_of(part * share, map.walked), end = least_of(begin + share, map.walked);
    dw += part * 9 * C;
    db += part * C;
    each_strip<V>(map, slice, [&](int64_t c) {
        UNROLL for (int64_t t = 0; t < 9; ++t) store(dw + t * C + c, all_lanes<V>(0));
        store(db + c, all_lanes<V>(0));
    });
    const int64_t before = slice * map.walked;
    each_segment<V>(map, before + begin, before + end, [&](const Segment& s, int64_t c) {
        V w[9], derivative[PIXELS], part[9], total = all_lanes<V>(0);
        UNROLL for (int64_t t = 0; t < 9; ++t) part[t] = all_lanes<V>(0);
        if (behind_gelu) load_filter(w, filter, C, c, false);
        const V b = bias_of<V>(bias, c);
        for (int64_t j = s.first; j < s.end; j += PIXELS) {
            const int64_t at = s.start + j * s.step + c;
            expect_strip(x + s.down, s, j, c);
            expect_strip(dy, s, j, c);
            if (behind_gelu) expect_strip(dz, s, j, c);
            if (behind_gelu) {
                UNROLL for (int64_t p = 0; p < PIXELS; ++p) derivative[p] = b;
                add_taps(derivative, x + c, s, j, w);
                UNROLL for (int64_t p = 0; p < PIXELS; ++p) derivative[p] = map_lanes(derivative[p], gelu_derivative_of);
            }
            UNROLL for (int64_t p = 0; p < PIXELS; ++p) {
                if (j + p < s.end) {
                    const V above = Width<V>::load(dy + at + p * s.step);
                    derivative[p] = behind_gelu ? derivative[p] * above : above;
                    if (behind_gelu) store(dz + at + p * s.step, derivative[p]);
                } else {
                    derivative[p] = all_lanes<V>(0);
                }
                total = total + derivative[p];
            }
            gather_taps(part, x + c, s, j, derivative);
        }
        UNROLL for (int64_t t = 0; t < 9; ++t) store(dw + t * C + c, part[t] + Width<V>::load(dw + t * C + c));
        store(db + c, total + Width<V>::load(db + c));
    });
}

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
