// Bilinear resize, corners not aligned, no antialias (PyTorch's `interpolate`). Output i lies at
// input position max(0, (i + ½)·scale - ½), between two neighbours; beyond the last there is only
// the last. `scale` is input over output size, or what the caller divides by.
//
// Either side may be some channels of a wider tensor: `pitch` channels a pixel, from `first` on.
// B,H,W,C input; B,Ho,Wo,pitch output.
#include "simt.cuh"

// Output i mixes inputs `low` and `high`: (1 - t)·low + t·high.
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

template <class E>
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
        BLOCK_LOOP(c, channels)
            out[c] = a * (e * real(top_left[c]) + f * real(top_right[c])) +
                     d * (e * real(bottom_left[c]) + f * real(bottom_right[c]));
        if (++wo == out_width) {
            wo = 0;
            if (++ho == out_height) {
                ho = 0;
                ++b;
            }
        }
    }
}

// A picture's three channels are too few for a loop: threads take pixels of a row.
template <class E>
DEVICE void resize_picture(const E* x, E* y, int64_t batch, int64_t height, int64_t width, int64_t out_height, int64_t out_width, real scale_h, real scale_w) {
    constexpr int64_t CHANNELS = 3;
    ROW_LOOP(r, batch * out_height) {
        const int64_t b = r / out_height;
        const Source v = source_of(r - b * out_height, scale_h, height);
        const E* top = x + (b * height + v.low) * width * CHANNELS;
        const E* bottom = x + (b * height + v.high) * width * CHANNELS;
        const real a = 1 - v.t, d = v.t;
        BLOCK_LOOP(wo, out_width) {
            const Source u = source_of(wo, scale_w, width);
            const int64_t left = u.low * CHANNELS, right = u.high * CHANNELS;
            const real e = 1 - u.t, f = u.t;
            E* out = y + (r * out_width + wo) * CHANNELS;
            for (int64_t c = 0; c < CHANNELS; ++c)
                out[c] = a * (e * real(top[left + c]) + f * real(top[right + c])) +
                         d * (e * real(bottom[left + c]) + f * real(bottom[right + c]));
        }
    }
}

KERNEL(resize_forward, const T* x /* B,H,W,C */, T* y /* B,Ho,Wo,pitch */, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height, int64_t out_width, int64_t pitch, int64_t first, real scale_h, real scale_w) {
    if (channels == 3 && pitch == 3) resize_picture(x, y, batch, height, width, out_height, out_width, scale_h, scale_w);
    else resize_to(x, y, batch, height, width, channels, out_height, out_width, pitch, first, scale_h, scale_w);
}

// As computed, not as operands are stored: pictures and logits.
KERNEL(resize_forward_wide, const real* x /* B,H,W,C */, real* y /* B,Ho,Wo,pitch */, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height, int64_t out_width, int64_t pitch, int64_t first, real scale_h, real scale_w) {
    if (channels == 3 && pitch == 3) resize_picture(x, y, batch, height, width, out_height, out_width, scale_h, scale_w);
    else resize_to(x, y, batch, height, width, channels, out_height, out_width, pitch, first, scale_h, scale_w);
}

// Outputs [begin, end) hold all that may read input i; some of them may not.
struct Readers {
    int64_t begin, end;
};

DEVICE Readers readers_of(int64_t i, real scale, int64_t size, int64_t outputs) {
    // Two outputs more on either side than exact arithmetic would say.
    const real low = (static_cast<real>(i) - real(0.5)) / scale - real(2.5);
    const real high = (static_cast<real>(i) + real(1.5)) / scale + real(2.5);
    const real last = static_cast<real>(outputs);
    return {i == 0 ? 0 : static_cast<int64_t>(clamp_to(low, 0, last)),
            i == size - 1 ? outputs : static_cast<int64_t>(clamp_to(high, 0, last))};
}

// What input i contributes to an output.
DEVICE real share(Source s, int64_t i) {
    return (s.low == i ? 1 - s.t : real(0)) + (s.high == i ? s.t : real(0));
}

// Outputs of a row that are added at a time, one after the other: so many upsampling by 2 has.
constexpr int64_t MANY = 4;

// dx[b,h,w,c] (+)= Σ over the outputs that read it. Shared memory: C sums.
KERNEL(resize_backward, const T* dy /* B,Ho,Wo,pitch */, T* dx /* B,H,W,C */, int32_t accumulate, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height, int64_t out_width, int64_t pitch, int64_t first, real scale_h, real scale_w) {
    // A thread reads and writes only its own channels' sums, so no barrier is needed.
    real* sums = static_cast<real*>(shared_memory());
    const int64_t pixels = batch * height * width;
    int64_t p = chunk_begin(pixels);
    int64_t w = p % width;
    int64_t h = p / width % height;
    int64_t b = p / width / height;
    for (; p < chunk_end(pixels); ++p) {
        T* out = dx + p * channels;
        if (accumulate) {
            BLOCK_LOOP(c, channels) sums[c] = out[c];
        } else {
            BLOCK_LOOP(c, channels) sums[c] = 0;
        }
        const Readers rows = readers_of(h, scale_h, height, out_height);
        // Those between the first and the last that read it do so too.
        Readers columns = readers_of(w, scale_w, width, out_width);
        while (columns.begin < columns.end && share(source_of(columns.begin, scale_w, width), w) == 0) ++columns.begin;
        while (columns.begin < columns.end && share(source_of(columns.end - 1, scale_w, width), w) == 0) --columns.end;
        for (int64_t ho = rows.begin; ho < rows.end; ++ho) {
            const real row_share = share(source_of(ho, scale_h, height), h);
            if (row_share == 0) continue;
            const T* row = dy + (b * out_height + ho) * out_width * pitch + first;
            int64_t wo = columns.begin;
            for (; wo + MANY <= columns.end; wo += MANY) {
                const T* from = row + wo * pitch;
                real weight[MANY];
                for (int64_t k = 0; k < MANY; ++k) weight[k] = row_share * share(source_of(wo + k, scale_w, width), w);
                BLOCK_LOOP(c, channels) {
                    real sum = sums[c];
                    for (int64_t k = 0; k < MANY; ++k) sum += weight[k] * real(from[k * pitch + c]);
                    sums[c] = sum;
                }
            }
            for (; wo < columns.end; ++wo) {
                const real weight = row_share * share(source_of(wo, scale_w, width), w);
                const T* from = row + wo * pitch;
                BLOCK_LOOP(c, channels) sums[c] += weight * real(from[c]);
            }
        }
        BLOCK_LOOP(c, channels) out[c] = sums[c];
        if (++w == width) {
            w = 0;
            if (++h == height) {
                h = 0;
                ++b;
            }
        }
    }
}
