// Bilinear interpolation (align_corners false, no antialiasing) for kernels that read a small map
// as if it were upsampled, without storing the upsampled map.
//
// Output o is at input position s = max(ratio·(o + ½) − ½, 0), with ratio = inputs / outputs:
//   value(o) = input[low]·(1 − upper) + input[high]·upper,  low = ⌊s⌋, upper = s − low
#pragma once
#include "simt.cuh"

// Channels that one thread processes at once: a vector on the CPU, where channels are padded to
// whole vectors. On the GPU it is 1, because the threads are the vector.
EXPORTED constexpr int64_t HOST_LANES = 16;
#if defined(UDASS_SHAPED_FOR_GPU)
constexpr int64_t LANES = 1;
#define LANE_LOOP(l) for (int64_t l = 0; l < LANES; ++l)
#else
constexpr int64_t LANES = HOST_LANES;
#define LANE_LOOP(l) _Pragma("omp simd") for (int64_t l = 0; l < LANES; ++l)
#endif

struct Taps {
    int64_t low, high;
    real upper;  // weight of `high`
};

DEVICE Taps taps_at(int64_t output, real ratio, int64_t inputs) {
    const real s = max_of(ratio * (static_cast<real>(output) + real(0.5)) - real(0.5), 0);
    const int64_t low = least_of(static_cast<int64_t>(s), inputs - 1);
    return {low, least_of(low + 1, inputs - 1), s - static_cast<real>(low)};
}

// Returns the weight of an input cell in the interpolated value.
DEVICE real weight_of(const Taps& taps, int64_t cell) {
    return (taps.low == cell ? 1 - taps.upper : real(0)) + (taps.high == cell ? taps.upper : real(0));
}

// Outputs [reach_begin, reach_end) that a cell may contribute to. The range is slightly too wide to
// allow for rounding at its ends; `weight_of` is zero for the excess outputs.
DEVICE int64_t reach_begin(int64_t cell, real ratio) {
    const real s = floor_of((static_cast<real>(cell) - real(0.5)) / ratio - real(0.5)) - 1;
    return most_of(static_cast<int64_t>(s), 0);
}
DEVICE int64_t reach_end(int64_t cell, real ratio, int64_t outputs) {
    const int64_t end = static_cast<int64_t>((static_cast<real>(cell) + real(1.5)) / ratio) + 3;
    return least_of(end, outputs);
}

// Position of item `i` in a loop over pixels. On the CPU an item is a pixel, and the loop over its
// channels vectorizes; on the GPU it is one channel, so that accesses of neighboring threads
// coalesce.
struct Item {
    int64_t image, y, x;
    int64_t begin, end;  // channels
};
DEVICE int64_t items_of(int64_t pixels, int64_t channels) { return LANES == 1 ? pixels * channels : pixels; }
DEVICE Item item_at(int64_t i, int64_t height, int64_t width, int64_t channels) {
    const int64_t pixel = LANES == 1 ? i / channels : i;
    const int64_t begin = i - pixel * channels;
    const int64_t row = pixel / width;
    const int64_t image = row / height;
    return {image, row - image * height, pixel - row * width, LANES == 1 ? begin : 0, LANES == 1 ? begin + 1 : channels};
}
#define CHANNEL_LOOP(c, item) UDASS_INDEPENDENT for (int64_t c = (item).begin; c < (item).end; ++c)

// A run of pixels of one output row, upsampled in shared memory:
//   cells    cells,stride    logits of the cells under the run, interpolated between two input rows
//   pixels   pixels,stride   logits of the pixels; a thread owns a pixel
struct Tile {
    int64_t channels, stride, groups;
    real* cells;
    real* pixels;
    real* upper;   // per pixel: weight of its upper cell
    int32_t* low;  // per pixel: its lower cell, relative to `first`
    int64_t first, count;
};

// Fills the channels past the last in a group of LANES: e^ABSENT is 0.
constexpr real ABSENT = real(-1e30);

// Lays out a tile in shared memory, whose size src/ops/upsampled.rs computes. `rest` receives the
// address of the memory after `upper`, of which the caller may use 3·pixels numbers.
DEVICE Tile tile_in(void* memory, int64_t channels, int64_t cells, int64_t pixels, real** rest) {
    Tile tile;
    tile.channels = channels;
    // Odd on the GPU, so that the threads of a warp access different banks.
    tile.stride = LANES == 1 ? channels | 1 : (channels + LANES - 1) / LANES * LANES;
    tile.groups = (channels + LANES - 1) / LANES;
    tile.cells = static_cast<real*>(memory);
    tile.pixels = tile.cells + cells * tile.stride;
    tile.upper = tile.pixels + pixels * tile.stride;
    *rest = tile.upper + pixels;
    tile.low = reinterpret_cast<int32_t*>(*rest + 3 * pixels);
    tile.first = tile.count = 0;
    return tile;
}

// Loads the cells that `n` pixels from `x` on need, interpolated between the two rows of `image`
// (height,width,channels) in `row`. Ends in a barrier.
DEVICE void tile_load(Tile& tile, const real* image, const Taps& row, int64_t width, real ratio, int64_t x, int64_t n) {
    const int64_t channels = tile.channels, groups = tile.groups;
    tile.first = taps_at(x, ratio, width).low;
    tile.count = taps_at(x + n - 1, ratio, width).high + 1 - tile.first;
    const real* low = image + (row.low * width + tile.first) * channels;
    const real* high = image + (row.high * width + tile.first) * channels;
    BLOCK_LOOP(k, tile.count * groups) {
        const int64_t cell = k / groups, c = (k - cell * groups) * LANES;
        const real* a = low + cell * channels + c;
        const real* b = high + cell * channels + c;
        real* blended = tile.cells + cell * tile.stride + c;
        LANE_LOOP(l) blended[l] = c + l < channels ? a[l] * (1 - row.upper) + b[l] * row.upper : ABSENT;
    }
    BLOCK_LOOP(p, n) {
        const Taps taps = taps_at(x + p, ratio, width);
        tile.low[p] = static_cast<int32_t>(taps.low - tile.first);
        tile.upper[p] = taps.upper;
    }
    barrier();
}

// Upsamples pixel `p` of the run and returns its largest logit, or NaN if one of them is NaN.
DEVICE real tile_pixel(const Tile& tile, int64_t p) {
    const int64_t low = tile.low[p], high = least_of(low + 1, tile.count - 1);
    const real upper = tile.upper[p];
    const real* a = tile.cells + low * tile.stride;
    const real* b = tile.cells + high * tile.stride;
    real* z = tile.pixels + p * tile.stride;
    real top[LANES];
    LANE_LOOP(l) top[l] = -REAL_MAX;
    for (int64_t c = 0; c < tile.channels; c += LANES) {
        LANE_LOOP(l) {
            const real blended = a[c + l] * (1 - upper) + b[c + l] * upper;
            z[c + l] = blended;
            top[l] = max_of(top[l], blended);
        }
    }
    for (int64_t half = LANES / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; ++l) top[l] = max_of(top[l], top[l + half]);
    return top[0];
}

// Replaces the logits of pixel `p` by e^(logit − top) and returns their sum.
DEVICE real tile_exp(const Tile& tile, int64_t p, real top) {
    real* z = tile.pixels + p * tile.stride;
    real sum[LANES];
    LANE_LOOP(l) sum[l] = 0;
    for (int64_t c = 0; c < tile.channels; c += LANES) {
        LANE_LOOP(l) {
            const real e = exp_of(z[c + l] - top);
            z[c + l] = e;
            sum[l] += e;
        }
    }
    for (int64_t half = LANES / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; ++l) sum[l] += sum[l + half];
    return sum[0];
}

// Returns the first class of pixel `p` whose logit is `top`, or 255 if `top` is NaN.
DEVICE int32_t tile_class(const Tile& tile, int64_t p, real top) {
    const real* z = tile.pixels + p * tile.stride;
    int32_t first[LANES];
    LANE_LOOP(l) first[l] = 255;
    for (int64_t c = tile.groups * LANES - LANES; c >= 0; c -= LANES) {
        LANE_LOOP(l) first[l] = z[c + l] == top ? static_cast<int32_t>(c + l) : first[l];
    }
    for (int64_t half = LANES / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; ++l) first[l] = first[l + half] < first[l] ? first[l + half] : first[l];
    return first[0];
}
