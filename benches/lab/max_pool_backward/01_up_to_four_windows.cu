// Kernels: max_pool_backward
// Until: f39dd6e
// Then: loops over one, two or four windows, whose numbers are constants, so that channels vectorise
// Predicted: on the host, 21 → 4 ms of one thread behind gta_cnn's stem
//
// Max pooling's way back as kernels/pool.cu describes it: for each channel a loop over as many windows
// as hold the input, with a branch in it.
#include "simt.cuh"

constexpr int64_t SIDE = 3;
constexpr int64_t STRIDE = 2;
constexpr int64_t PADDING = 1;

// Every input sums the windows, at most four, that it won.
KERNEL(max_pool_backward, const T* dy /* B,Ho,Wo,C */, const uint8_t* tap /* B,Ho,Wo,C */, T* dx /* B,H,W,C */, int32_t accumulate, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height, int64_t out_width) {
    for (int64_t p = chunk_begin(batch * height * width); p < chunk_end(batch * height * width); ++p) {
        const int64_t h = p / width % height, w = p % width, b = p / width / height;
        int64_t window[4], won[4], windows = 0;
        for (int64_t ho = h / STRIDE; ho <= (h + PADDING) / STRIDE && ho < out_height; ++ho) {
            for (int64_t wo = w / STRIDE; wo <= (w + PADDING) / STRIDE && wo < out_width; ++wo) {
                window[windows] = ((b * out_height + ho) * out_width + wo) * channels;
                won[windows++] = (h - ho * STRIDE + PADDING) * SIDE + w - wo * STRIDE + PADDING;
            }
        }
        T* out = dx + p * channels;
        BLOCK_LOOP(c, channels) {
            real sum = accumulate ? real(out[c]) : real(0);
            for (int64_t k = 0; k < windows; ++k)
                if (tap[window[k] + c] == won[k]) sum += real(dy[window[k] + c]);
            out[c] = sum;
        }
    }
}
