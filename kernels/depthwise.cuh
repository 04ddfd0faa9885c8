// The maps of a depthwise convolution (depthwise.cu), and what its bodies for the CPU and for a GPU
// share.
#pragma once
#include "pack.cuh"

// Neighbors on a line that are computed together.
EXPORTED constexpr int64_t PIXELS = 4;
// Pixels in a segment of a line.
constexpr int64_t SEGMENT = 32;
// Channels in a slice.
EXPORTED constexpr int64_t SLICE = 256;
// Width of a tile of an undilated map, in pixels: on a GPU, threads walk down its lines, so that each
// line is read once for the three that it contributes to.
EXPORTED constexpr int64_t TILE_WIDTH = 8;
// Height of a tile.
EXPORTED constexpr int64_t TILE_HEIGHT = 8;

struct Map {
    int64_t batch, height, width, channels, dilation;
    int64_t slices;          // slices of the channels
    int64_t down, right;     // undilated maps in each direction
    int64_t rows, pixels;    // rows of an undilated map, pixels in each row
    int64_t segments;        // segments in each row
    int64_t walked;          // segments of all maps and samples, for one slice
};

DEVICE Map map_of(int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t dilation) {
    Map map = {batch, height, width, channels, dilation};
    map.slices = (channels + SLICE - 1) / SLICE;
    map.down = least_of(dilation, height);
    map.right = least_of(dilation, width);
    map.rows = (height + dilation - 1) / dilation;
    map.pixels = (width + dilation - 1) / dilation;
    map.segments = (map.pixels + SEGMENT - 1) / SEGMENT;
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

template <class V>
DEVICE void load_filter(V (&w)[9], const real* filter, int64_t channels, int64_t c, bool turned) {
    UNROLL for (int64_t t = 0; t < 9; ++t) w[t] = Width<V>::load(filter + (turned ? 8 - t : t) * channels + c);
}

template <class V>
DEVICE V bias_of(const real* bias, int64_t c) {
    return bias ? Width<V>::load(bias + c) : all_lanes<V>(0);
}
