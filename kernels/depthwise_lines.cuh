// The depthwise convolution on the CPU: segments of lines are visited top to bottom, SLICE channels at
// a time. This keeps the number of addresses between two uses of a pixel small: a CPU cache holds few
// addresses that are a power of two apart.
#pragma once
#include "depthwise.cuh"

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
