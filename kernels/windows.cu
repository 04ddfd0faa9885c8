// Crops of an image, at boxes chosen on the device or at many sliding windows. Boxes are
// y1, y2, x1, x2 in image pixels; stride: image pixels per cell of a grid.
#include "upsample.cuh"

// y[b] = the crop_height × crop_width cells of x[b] at the box of image b, or at the only one.
KERNEL(crop_reals,
       const real* x /* batch,height,width,channels */, const int32_t* place /* places,4 */,
       real* y /* batch,crop_height,crop_width,channels */,
       int64_t batch, int64_t places, int64_t height, int64_t width, int64_t channels,
       int64_t crop_height, int64_t crop_width, int64_t stride) {
    ROW_LOOP(r, batch * crop_height) {
        const int32_t* box = place + r / crop_height % places * 4;
        const int64_t top = held_to(box[0] / stride, 0, height - crop_height), left = held_to(box[2] / stride, 0, width - crop_width);
        const real* from = x + ((r / crop_height * height + top + r % crop_height) * width + left) * channels;
        BLOCK_LOOP(k, crop_width * channels) y[r * crop_width * channels + k] = from[k];
    }
}

// The same for bytes.
KERNEL(crop_bytes,
       const uint8_t* x /* batch,height,width,channels */, const int32_t* place /* places,4 */,
       uint8_t* y /* batch,crop_height,crop_width,channels */,
       int64_t batch, int64_t places, int64_t height, int64_t width, int64_t channels,
       int64_t crop_height, int64_t crop_width, int64_t stride) {
    ROW_LOOP(r, batch * crop_height) {
        const int32_t* box = place + r / crop_height % places * 4;
        const int64_t top = held_to(box[0] / stride, 0, height - crop_height), left = held_to(box[2] / stride, 0, width - crop_width);
        const uint8_t* from = x + ((r / crop_height * height + top + r % crop_height) * width + left) * channels;
        BLOCK_LOOP(k, crop_width * channels) y[r * crop_width * channels + k] = from[k];
    }
}

// Crops all windows of all images, window-major: window 0 of every image, then window 1, ….
KERNEL(window_crops,
       const real* x /* batch,height,width,channels */, const int32_t* boxes /* windows,4 */,
       real* y /* windows*batch,crop_height,crop_width,channels */,
       int64_t windows, int64_t batch, int64_t height, int64_t width, int64_t channels,
       int64_t crop_height, int64_t crop_width) {
    ROW_LOOP(r, windows * batch * crop_height) {
        const int64_t crop = r / crop_height, window = crop / batch, image = crop - window * batch;
        const int32_t* place = boxes + window * 4;
        const real* from = x + ((image * height + place[0] + r - crop * crop_height) * width + place[2]) * channels;
        BLOCK_LOOP(k, crop_width * channels) y[r * crop_width * channels + k] = from[k];
    }
}

// Averages, for each cell of the height × width grid, the windows that cover it, each of them
// upsampled to its box.
KERNEL(window_average,
       const real* x /* windows*batch,crop_height,crop_width,channels */,
       const int32_t* boxes /* windows,4 */, real* y /* batch,height,width,channels */,
       int64_t windows, int64_t batch, int64_t height, int64_t width, int64_t channels,
       int64_t crop_height, int64_t crop_width, int64_t stride, real ratio_y, real ratio_x) {
    GRID_LOOP(i, items_of(batch * height * width, channels)) {
        const Item at = item_at(i, height, width, channels);
        real* mean = y + ((at.image * height + at.y) * width + at.x) * channels;
        CHANNEL_LOOP(c, at) mean[c] = 0;
        real count = 0;
        for (int64_t window = 0; window < windows; ++window) {
            const int32_t* place = boxes + window * 4;
            // Boxes are aligned to cells. Comparing in pixels avoids divisions, which take longer
            // than adding a channel.
            if (at.y * stride < place[0] || at.y * stride >= place[1] || at.x * stride < place[2] || at.x * stride >= place[3]) continue;
            const Taps ty = taps_at(at.y - place[0] / stride, ratio_y, crop_height), tx = taps_at(at.x - place[2] / stride, ratio_x, crop_width);
            const real* crop = x + (window * batch + at.image) * crop_height * crop_width * channels;
            const real* ll = crop + (ty.low * crop_width + tx.low) * channels;
            const real* lh = crop + (ty.low * crop_width + tx.high) * channels;
            const real* hl = crop + (ty.high * crop_width + tx.low) * channels;
            const real* hh = crop + (ty.high * crop_width + tx.high) * channels;
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
