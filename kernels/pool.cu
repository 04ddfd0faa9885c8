// Max pooling with 3×3 windows, stride 2 and padding 1, as in ResNet's stem. Padding is never the
// maximum.
//   y[b,ho,wo,c] = max x[b, 2·ho - 1 + r, 2·wo - 1 + s, c] over r, s in 0 … 2
// The first tap with the maximum (in memory order) gets the gradient, as in PyTorch; ties are
// common among the zeros after a ReLU. The output is half the input in each dimension, rounded up.
#include "simt.cuh"

// Pixels of a window along each dimension.
EXPORTED constexpr int64_t SIDE = 3;
// Pixels from one window to the next.
EXPORTED constexpr int64_t STRIDE = 2;
constexpr int64_t PADDING = 1;

// Max pooling. `tap` receives the position of the maximum in its window, 3·r + s.
KERNEL(max_pool,
       const T* x /* batch,height,width,channels */, T* y /* batch,out_height,out_width,channels */,
       uint8_t* OPTIONAL tap /* batch,out_height,out_width,channels */,
       int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height,
       int64_t out_width) {
    for (int64_t p = chunk_begin(batch * out_height * out_width); p < chunk_end(batch * out_height * out_width); ++p) {
        const int64_t top = p / out_width % out_height * STRIDE - PADDING, left = p % out_width * STRIDE - PADDING;
        const int64_t b = p / out_width / out_height;
        T* most = y + p * channels;
        uint8_t* winner = tap != nullptr ? tap + p * channels : nullptr;
        bool first = true;
        for (int64_t t = 0; t < SIDE * SIDE; ++t) {
            const int64_t h = top + t / SIDE, w = left + t % SIDE;
            if (h < 0 || h >= height || w < 0 || w >= width) continue;
            const T* from = x + ((b * height + h) * width + w) * channels;
            if (first) {
                BLOCK_LOOP(c, channels) most[c] = from[c];
                if (winner != nullptr) BLOCK_LOOP(c, channels) winner[c] = static_cast<uint8_t>(t);
            } else if (winner != nullptr) {
                BLOCK_LOOP(c, channels) {
                    // The first NaN counts as the maximum.
                    const real here = from[c], held = most[c];
                    const bool larger = !(here <= held) && held == held;
                    most[c] = larger ? here : held;
                    winner[c] = larger ? static_cast<uint8_t>(t) : winner[c];
                }
            } else {
                BLOCK_LOOP(c, channels) {
                    const real here = from[c], held = most[c];
                    most[c] = !(here <= held) && held == held ? here : held;
                }
            }
            first = false;
        }
    }
}

// out[c] (+)= the gradients of those of N windows whose maximum is this input; won[k] is the tap
// that this input has in window k.
template <int64_t N>
DEVICE void sum_won(const T* dy, const uint8_t* tap, const int64_t* window, const uint8_t* won, T* out, bool accumulate, int64_t channels) {
    BLOCK_LOOP(c, channels) {
        real sum = accumulate ? real(out[c]) : real(0);
        for (int64_t k = 0; k < N; ++k) {
            const real gradient = dy[window[k] + c];
            sum = tap[window[k] + c] == won[k] ? sum + gradient : sum;
        }
        out[c] = sum;
    }
}

// Each input sums the gradients of the windows, at most four, whose maximum it is.
KERNEL(max_pool_backward,
       const T* dy /* batch,out_height,out_width,channels */,
       const uint8_t* tap /* batch,out_height,out_width,channels */,
       T* dx /* batch,height,width,channels */,
       bool accumulate, int64_t batch, int64_t height, int64_t width, int64_t channels,
       int64_t out_height, int64_t out_width) {
    for (int64_t p = chunk_begin(batch * height * width); p < chunk_end(batch * height * width); ++p) {
        const int64_t h = p / width % height, w = p % width, b = p / width / height;
        int64_t window[4], windows = 0;
        uint8_t won[4];
        for (int64_t ho = h / STRIDE; ho <= (h + PADDING) / STRIDE && ho < out_height; ++ho) {
            for (int64_t wo = w / STRIDE; wo <= (w + PADDING) / STRIDE && wo < out_width; ++wo) {
                window[windows] = ((b * out_height + ho) * out_width + wo) * channels;
                won[windows++] = static_cast<uint8_t>((h - ho * STRIDE + PADDING) * SIDE + w - wo * STRIDE + PADDING);
            }
        }
        // One or two windows in each dimension.
        T* out = dx + p * channels;
        if (windows == 4) sum_won<4>(dy, tap, window, won, out, accumulate, channels);
        else if (windows == 2) sum_won<2>(dy, tap, window, won, out, accumulate, channels);
        else sum_won<1>(dy, tap, window, won, out, accumulate, channels);
    }
}
