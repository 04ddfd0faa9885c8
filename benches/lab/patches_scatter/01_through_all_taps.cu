// Kernels: patches_scatter
// Until: ade19a8
// Then: two divisions give the first and the last output that hold a pixel along each side
// Predicted: on an H100, 0.65 → 0.15 ms of a bf16 iteration of gta_vit with QuadMix (12 launches of stride 8); none
//   for the host
//
// Patches sent back as kernels/patches.cu describes it. For each of up to 8 + 8 taps two divisions find
// out whether an output reads the pixel through it.
#include "simt.cuh"

// The output that reads position `i` through tap `t`, or -1.
DEVICE int64_t reader(int64_t i, int64_t t, int64_t stride, int64_t padding, int64_t dilation, int64_t outputs) {
    const int64_t from = i + padding - t * dilation;
    if (from < 0 || from % stride != 0) return -1;
    return from / stride < outputs ? from / stride : -1;
}

// Shared memory: C sums.
KERNEL(patches_scatter, const T* patches /* B,Ho,Wo,R,S,C */, T* dx /* B,H,W,C */, int32_t accumulate, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height, int64_t out_width, int64_t taps_h, int64_t taps_w, int64_t stride, int64_t padding, int64_t dilation) {
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
        for (int64_t r = 0; r < taps_h; ++r) {
            const int64_t ho = reader(h, r, stride, padding, dilation, out_height);
            if (ho < 0) continue;
            for (int64_t s = 0; s < taps_w; ++s) {
                const int64_t wo = reader(w, s, stride, padding, dilation, out_width);
                if (wo < 0) continue;
                const int64_t row = (b * out_height + ho) * out_width + wo;
                const T* from = patches + ((row * taps_h + r) * taps_w + s) * channels;
                BLOCK_LOOP(c, channels) sums[c] += real(from[c]);
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
