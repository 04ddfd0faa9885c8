// Parts of a picture: one box drawn on the device, or many windows that slide over it.
// Boxes are y1, y2, x1, x2 in pixels of the picture; stride: pixels per cell of a grid.
#include "upsample.cuh"

// y[b] = the hc×wc cells of x[b] at the box.
KERNEL(crop_reals, const real* x /* B,H,W,C */, const int32_t* place /* 4 */, real* y /* B,hc,wc,C */, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t hc, int64_t wc, int64_t stride) {
    const int64_t top = held_to(place[0] / stride, 0, height - hc), left = held_to(place[2] / stride, 0, width - wc);
    ROW_LOOP(r, batch * hc) {
        const real* from = x + ((r / hc * height + top + r % hc) * width + left) * channels;
        BLOCK_LOOP(k, wc * channels) y[r * wc * channels + k] = from[k];
    }
}

KERNEL(crop_bytes, const uint8_t* x /* B,H,W,C */, const int32_t* place /* 4 */, uint8_t* y /* B,hc,wc,C */, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t hc, int64_t wc, int64_t stride) {
    const int64_t top = held_to(place[0] / stride, 0, height - hc), left = held_to(place[2] / stride, 0, width - wc);
    ROW_LOOP(r, batch * hc) {
        const uint8_t* from = x + ((r / hc * height + top + r % hc) * width + left) * channels;
        BLOCK_LOOP(k, wc * channels) y[r * wc * channels + k] = from[k];
    }
}

// All windows of all pictures, window-major: window 0 of every picture, window 1 of every …
KERNEL(window_crops, const real* x /* B,H,W,C */, const int32_t* boxes /* n,4 */, real* y /* n*B,hc,wc,C */, int64_t windows, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t hc, int64_t wc) {
    ROW_LOOP(r, windows * batch * hc) {
        const int64_t crop = r / hc, window = crop / batch, image = crop - window * batch;
        const int32_t* place = boxes + window * 4;
        const real* from = x + ((image * height + place[0] + r - crop * hc) * width + place[2]) * channels;
        BLOCK_LOOP(k, wc * channels) y[r * wc * channels + k] = from[k];
    }
}

// Mean of the windows that cover a cell of the H×W grid, each upsampled from hc×wc to its box.
KERNEL(window_average, const real* x /* n*B,hc,wc,C */, const int32_t* boxes /* n,4 */, real* y /* B,H,W,C */, int64_t windows, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t hc, int64_t wc, int64_t stride, real ratio_y, real ratio_x) {
    GRID_LOOP(i, items_of(batch * height * width, channels)) {
        const Item at = item_at(i, height, width, channels);
        real* mean = y + ((at.image * height + at.y) * width + at.x) * channels;
        CHANNEL_LOOP(c, at) mean[c] = 0;
        real count = 0;
        for (int64_t window = 0; window < windows; ++window) {
            const int32_t* place = boxes + window * 4;
            // Boxes begin and end with cells. A division takes longer than a channel's sum.
            if (at.y * stride < place[0] || at.y * stride >= place[1] || at.x * stride < place[2] || at.x * stride >= place[3]) continue;
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
