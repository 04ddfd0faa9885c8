// Bilinear resize, align_corners false, without antialiasing (PyTorch's `interpolate`). Output i is
// at input position max(0, (i + ½)·scale - ½) and interpolates its two neighbors; past the last
// input it equals the last input. `scale` is input size / output size, or the caller's own factor.
//
// The output may be a range of the channels of a wider tensor: `pitch` channels per pixel, starting
// at channel `first`.
#include "pack.cuh"

// Output i is (1 - t)·x[low] + t·x[high].
struct Source {
    int64_t low, high;
    real t;
};

DEVICE Source source_of(int64_t i, real scale, int64_t size) {
    const real at = max_of((static_cast<real>(i) + real(0.5)) * scale - real(0.5), 0);
    const int64_t floor_at = static_cast<int64_t>(at);
    const int64_t low = least_of(floor_at, size - 1);
    const int64_t high = low < size - 1 ? low + 1 : low;
    return {low, high, clamp_to(at - static_cast<real>(low), 0, 1)};
}

template <bool accumulate, class E>
DEVICE void resize_to(const E* x, E* y, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height, int64_t out_width, int64_t pitch, int64_t first, real scale_h, real scale_w) {
    const int64_t pixels = batch * out_height * out_width;
    int64_t p = chunk_begin(pixels);
    int64_t wo = p % out_width;
    int64_t ho = p / out_width % out_height;
    int64_t b = p / out_width / out_height;
    for (; p < chunk_end(pixels); ++p) {
        const Source v = source_of(ho, scale_h, height);
        const Source u = source_of(wo, scale_w, width);
        const E* top = x + (b * height + v.low) * width * channels;
        const E* bottom = x + (b * height + v.high) * width * channels;
        const E* top_left = top + u.low * channels;
        const E* top_right = top + u.high * channels;
        const E* bottom_left = bottom + u.low * channels;
        const E* bottom_right = bottom + u.high * channels;
        const real a = 1 - v.t, d = v.t, e = 1 - u.t, f = u.t;
        E* out = y + p * pitch + first;
        BLOCK_LOOP(c, channels) {
            const real value = a * (e * real(top_left[c]) + f * real(top_right[c])) +
                               d * (e * real(bottom_left[c]) + f * real(bottom_right[c]));
            out[c] = accumulate ? real(out[c]) + value : value;
        }
        if (++wo == out_width) {
            wo = 0;
            if (++ho == out_height) {
                ho = 0;
                ++b;
            }
        }
    }
}

// Channels of an image.
EXPORTED constexpr int64_t PICTURE_CHANNELS = 3;

// An image has too few channels for a loop over them: threads take the pixels of a row.
template <class E>
DEVICE void resize_picture(const E* x, E* y, int64_t batch, int64_t height, int64_t width, int64_t out_height, int64_t out_width, real scale_h, real scale_w) {
    ROW_LOOP(r, batch * out_height) {
        const int64_t b = r / out_height;
        const Source v = source_of(r - b * out_height, scale_h, height);
        const E* top = x + (b * height + v.low) * width * PICTURE_CHANNELS;
        const E* bottom = x + (b * height + v.high) * width * PICTURE_CHANNELS;
        const real a = 1 - v.t, d = v.t;
        BLOCK_LOOP(wo, out_width) {
            const Source u = source_of(wo, scale_w, width);
            const int64_t left = u.low * PICTURE_CHANNELS, right = u.high * PICTURE_CHANNELS;
            const real e = 1 - u.t, f = u.t;
            E* out = y + (r * out_width + wo) * PICTURE_CHANNELS;
            for (int64_t c = 0; c < PICTURE_CHANNELS; ++c)
                out[c] = a * (e * real(top[left + c]) + f * real(top[right + c])) +
                         d * (e * real(bottom[left + c]) + f * real(bottom[right + c]));
        }
    }
}

// Resizes x to channels first..first + channels of y.
KERNEL(resize_forward,
       const T* x /* batch,height,width,channels */, T* y /* batch,out_height,out_width,pitch */,
       int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height,
       int64_t out_width, int64_t pitch, int64_t first, real scale_y, real scale_x) {
    if (channels == PICTURE_CHANNELS && pitch == channels) resize_picture(x, y, batch, height, width, out_height, out_width, scale_y, scale_x);
    else resize_to<false>(x, y, batch, height, width, channels, out_height, out_width, pitch, first, scale_y, scale_x);
}

// The same for tensors in the compute type: images, logits and, with `accumulate`, sums.
KERNEL(resize_forward_wide,
       const real* x /* batch,height,width,channels */,
       real* y /* batch,out_height,out_width,pitch */, bool accumulate,
       int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height,
       int64_t out_width, int64_t pitch, int64_t first, real scale_y, real scale_x) {
    if (accumulate) resize_to<true>(x, y, batch, height, width, channels, out_height, out_width, pitch, first, scale_y, scale_x);
    else if (channels == PICTURE_CHANNELS && pitch == channels) resize_picture(x, y, batch, height, width, out_height, out_width, scale_y, scale_x);
    else resize_to<false>(x, y, batch, height, width, channels, out_height, out_width, pitch, first, scale_y, scale_x);
}

// Outputs [begin, end) include all that read input i, and possibly a few that do not.
struct Readers {
    int64_t begin, end;
};

DEVICE Readers readers_of(int64_t i, real scale, int64_t size, int64_t outputs) {
    // Two more outputs on each side than in exact arithmetic, to allow for rounding.
    const real low = (static_cast<real>(i) - real(0.5)) / scale - real(2.5);
    const real high = (static_cast<real>(i) + real(1.5)) / scale + real(2.5);
    const real last = static_cast<real>(outputs);
    return {i == 0 ? 0 : static_cast<int64_t>(clamp_to(low, 0, last)),
            i == size - 1 ? outputs : static_cast<int64_t>(clamp_to(high, 0, last))};
}

// Returns the weight of input i in an output.
DEVICE real share(Source s, int64_t i) {
    return (s.low == i ? 1 - s.t : real(0)) + (s.high == i ? s.t : real(0));
}

// shares[o] = weight of input i in output o, for all outputs that may read it.
DEVICE Readers shares_of(real* shares, int64_t i, real scale, int64_t size, int64_t outputs) {
    const Readers all = readers_of(i, scale, size, outputs);
    BLOCK_LOOP(k, all.end - all.begin) shares[all.begin + k] = share(source_of(all.begin + k, scale, size), i);
    return all;
}
// Removes outputs at either end that do not read the input.
DEVICE Readers trimmed(const real* shares, Readers some) {
    while (some.begin < some.end && shares[some.begin] == 0) ++some.begin;
    while (some.begin < some.end && shares[some.end - 1] == 0) --some.end;
    return some;
}

// The outputs that read an input, and its weight in each of them.
struct Gather {
    const T* from;        // channels of the first output
    int64_t line, pitch;  // distance to the output below, to the next output
    Readers rows, columns;
    const real* row_shares;
    const real* column_shares;
};

// Packs that a thread processes at once: several on the CPU, where they are adjacent in memory.
#if defined(UDASS_SHAPED_FOR_GPU)
constexpr int64_t VECTORS = 1;
#else
constexpr int64_t VECTORS = 4;
#endif

// to[c] (+)= Σ row_shares[ho] · column_shares[wo] · output[ho,wo,c]
template <class V, int64_t vectors>
DEVICE void gather_outputs(const Gather& g, T* to, int64_t channels, bool accumulate) {
    constexpr int64_t lanes = Width<V>::lanes, step = vectors * lanes;
    for (int64_t c = thread_index() * step; c < channels; c += thread_count() * step) {
        V sum[vectors];
        UNROLL for (int64_t k = 0; k < vectors; ++k)
            sum[k] = accumulate ? Width<V>::load(to + c + k * lanes) : all_lanes<V>(0);
        for (int64_t ho = g.rows.begin; ho < g.rows.end; ++ho) {
            const T* row = g.from + ho * g.line + c;
            for (int64_t wo = g.columns.begin; wo < g.columns.end; ++wo) {
                const real weight = g.row_shares[ho] * g.column_shares[wo];
                UNROLL for (int64_t k = 0; k < vectors; ++k)
                    sum[k] = fma_of(weight, Width<V>::load(row + wo * g.pitch + k * lanes), sum[k]);
            }
        }
        UNROLL for (int64_t k = 0; k < vectors; ++k) store(to + c + k * lanes, sum[k]);
    }
}

// dx[b,h,w,c] (+)= the weighted sum of dy over the outputs that read this input. Shared memory
// holds out_height + out_width weights.
KERNEL(resize_backward,
       const T* dy /* batch,out_height,out_width,pitch */, T* dx /* batch,height,width,channels */,
       bool accumulate, int64_t batch, int64_t height, int64_t width, int64_t channels,
       int64_t out_height, int64_t out_width, int64_t pitch, int64_t first, real scale_y,
       real scale_x) {
    real* row_shares = static_cast<real*>(shared_memory());
    real* column_shares = row_shares + out_height;
    const int64_t line = out_width * pitch;
    const bool in_packs = channels % PACK == 0 && pitch % PACK == 0 && first % PACK == 0;
    ROW_LOOP(p, batch * height * width) {
        const int64_t w = p % width, h = p / width % height, b = p / width / height;
        const Readers rows = shares_of(row_shares, h, scale_y, height, out_height);
        const Readers columns = shares_of(column_shares, w, scale_x, width, out_width);
        barrier();
        const T* from = dy + b * out_height * line + first;
        const Gather gather = {from, line, pitch, trimmed(row_shares, rows), trimmed(column_shares, columns), row_shares, column_shares};
        T* to = dx + p * channels;
        if (in_packs && channels % (VECTORS * PACK) == 0) gather_outputs<pack, VECTORS>(gather, to, channels, accumulate);
        else if (in_packs) gather_outputs<pack, 1>(gather, to, channels, accumulate);
        else gather_outputs<real, 1>(gather, to, channels, accumulate);
        barrier();  // the next pixel overwrites the weights
    }
}
