// Kernels: resize_forward
// Until: f39dd6e
// Then: threads take pixels of a row where a picture has three channels, too few for a loop
// Predicted: on the host, 5 → 3 ms of one thread for the pictures of a batch
//
// Resizing as kernels/resize.cu describes it, a loop over the channels of each pixel, be they but three.
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

KERNEL(resize_forward, const T* x /* B,H,W,C */, T* y /* B,Ho,Wo,pitch */, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height, int64_t out_width, int64_t pitch, int64_t first, real scale_h, real scale_w) {
    resize_to(x, y, batch, height, width, channels, out_height, out_width, pitch, first, scale_h, scale_w);
}
