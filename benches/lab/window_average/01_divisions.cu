// Kernels: window_average
// Until: f39dd6e
// Then: a box's edges are compared in pixels, without divisions
// Predicted: on the host, 7.8 → 3.5 ms of one thread
//
// Windows averaged as kernels/windows.cu describes it. Four divisions for each window find out whether
// it covers a cell: they take longer than a channel's sum.
#include "upsample.cuh"

// Mean of the windows that cover a cell of the H×W grid, each upsampled from hc×wc to its box.
KERNEL(window_average, const real* x /* n*B,hc,wc,C */, const int32_t* boxes /* n,4 */, real* y /* B,H,W,C */, int64_t windows, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t hc, int64_t wc, int64_t stride, real ratio_y, real ratio_x) {
    GRID_LOOP(i, items_of(batch * height * width, channels)) {
        const Item at = item_at(i, height, width, channels);
        real* mean = y + ((at.image * height + at.y) * width + at.x) * channels;
        CHANNEL_LOOP(c, at) mean[c] = 0;
        real count = 0;
        for (int64_t window = 0; window < windows; ++window) {
            const int32_t* place = boxes + window * 4;
            if (at.y < place[0] / stride || at.y >= place[1] / stride || at.x < place[2] / stride || at.x >= place[3] / stride) continue;
            const Taps ty = taps_at(at.y - place[0] / stride, ratio_y, hc), tx = taps_at(at.x - place[2] / stride, ratio_x, wc);
            const real* crop = x + (window * batch + at.image) * hc * wc * channels;
            const real* ll = crop + (ty.low * wc + tx.low) * channels;
            const real* lh = crop + (ty.low * wc + tx.high) * channels;
            const real* hl = crop + (ty.high * wc + tx.low) * channels;
            const real* hh = crop + (ty.high * wc + tx.high) * channels;
            if (ty.upper == 0 && tx.upper == 0) {
                CHANNEL_LOOP(c, at) mean[c] += ll[c];
            } else {
                CHANNEL_LOOP(c, at) {
                    const real above = ll[c] * (1 - tx.upper) + lh[c] * tx.upper;
                    const real below = hl[c] * (1 - tx.upper) + hh[c] * tx.upper;
                    mean[c] += above * (1 - ty.upper) + below * ty.upper;
                }
            }
            count += 1;
        }
        CHANNEL_LOOP(c, at) mean[c] /= count;
    }
}
