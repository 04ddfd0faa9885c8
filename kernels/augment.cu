// Strong augmentation of mixed and masked images, equivalent to kornia 0.5.8: color jitter on RGB
// in [0, 1], then Gaussian blur on normalized values. Images are batch,height,width,3.
//
// The blur is separable, with normalized weights e^(-d² / 2σ²) and reflected borders. If its switch
// (switches[1]) is 0, the blur kernels write nothing.
#include "color.cuh"

// y = x with color jitter (color.cuh) if switches[0] is set, and y = x otherwise.
KERNEL(color_jitter,
       const real* x /* batch,pixels,3 */, const real* factors /* batch,4 */,
       const int32_t* order /* batch,4 */, const int32_t* switches /* 2 */,
       const real* mean /* 3 */, const real* std /* 3 */, real* y /* batch,pixels,3 */,
       real unit, int64_t batch, int64_t pixels) {
    const bool on = switches[0] != 0;
    for (int64_t b = 0; b < batch; ++b) {
        GRID_LOOP(p, pixels) {
            const int64_t i = b * pixels + p;
            const Color color = color_at(x, i);
            set_color(y, i, on ? jittered(color, factors + 4 * b, order + 4 * b, mean, std, unit) : color);
        }
    }
}

// weights[b, d] = e^(-d² / 2σ²) / Σ for the offsets d = 0..half; one block per image.
KERNEL(blur_weights,
       const real* sigma /* blocks */, real* weights /* blocks,half+1 */,
       int64_t half) {
    const real s = sigma[block_index()];
    real* w = weights + block_index() * (half + 1);
    auto bell = [&](int64_t d) { return exp_of(real(d * d) / (-2 * s * s)); };
    const real sum = block_sum(2 * half + 1, [&](int64_t i) { return bell(i - half); });
    BLOCK_LOOP(d, half + 1) w[d] = bell(d) / sum;
}

DEVICE int64_t reflected(int64_t i, int64_t n) {
    i = i < 0 ? -i : i;
    return i < n ? i : 2 * (n - 1) - i;
}

// Returns the largest offset with a nonzero weight; beyond it the exponentials underflow.
DEVICE int64_t reach_of(const real* weights, int64_t half) {
    int64_t reach = half;
    while (reach > 0 && weights[reach] == 0) --reach;
    return reach;
}

// y = x blurred along the rows.
KERNEL(blur_rows,
       const real* x /* batch,height,width,3 */, const real* weights /* batch,half+1 */,
       const int32_t* switches /* 2 */, real* y /* batch,height,width,3 */,
       int64_t half, int64_t batch, int64_t height, int64_t width) {
    if (!switches[1]) return;
    ROW_LOOP(row, batch * height) {
        const real* w = weights + row / height * (half + 1);
        const int64_t reach = reach_of(w, half);
        const real* in = x + row * width * 3;
        real* out = y + row * width * 3;
        const int64_t edge = reach * 3, end = width * 3;
        BLOCK_LOOP(i, end) out[i] = in[i] * w[0];
        // Each thread accumulates its own elements, so no barrier is needed between offsets.
        for (int64_t d = 1; d <= reach; ++d) {
            const real weight = w[d];
            BLOCK_LOOP(i, end) {
                if (i >= edge && i + edge < end) {
                    out[i] += (in[i - 3 * d] + in[i + 3 * d]) * weight;
                } else {
                    const int64_t p = i / 3, c = i % 3;
                    const real left = in[reflected(p - d, width) * 3 + c];
                    out[i] += (left + in[reflected(p + d, width) * 3 + c]) * weight;
                }
            }
        }
    }
}

// y = x blurred along the columns.
KERNEL(blur_columns,
       const real* x /* batch,height,width,3 */, const real* weights /* batch,half+1 */,
       const int32_t* switches /* 2 */, real* y /* batch,height,width,3 */,
       int64_t half, int64_t batch, int64_t height, int64_t width) {
    if (!switches[1]) return;
    const int64_t n = width * 3;
    ROW_LOOP(row, batch * height) {
        const int64_t image = row / height, r = row % height;
        const real* w = weights + image * (half + 1);
        const int64_t reach = reach_of(w, half);
        const real* in = x + image * height * n;
        real* out = y + row * n;
        BLOCK_LOOP(i, n) out[i] = in[r * n + i] * w[0];
        for (int64_t d = 1; d <= reach; ++d) {
            const real* above = in + reflected(r - d, height) * n;
            const real* below = in + reflected(r + d, height) * n;
            const real weight = w[d];
            BLOCK_LOOP(i, n) out[i] += (above[i] + below[i]) * weight;
        }
    }
}
