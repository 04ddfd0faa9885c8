// HRDA: a low-resolution context and a high-resolution detail, fused by attention per class
// (Hoyer et al. 2022).
//   a      = sigmoid(attention logits) · [cell is inside the detail's box]
//   fused  = up(a)·detail + up((1 − a)·context)
// The detail is zero outside its box. The box is y1, y2, x1, x2 in image pixels; without one, the
// detail covers the whole grid. Context and attention are batch,height,width,channels; the detail
// is batch,detail_height,detail_width,channels. stride: image pixels per cell of the fused grid.
#include "upsample.cuh"

// Returns the detail's corner on a grid of `stride` pixels per cell, clamped so that it fits
// inside.
struct Corner {
    int64_t y, x;
};
DEVICE Corner corner_of(const int32_t* place, int64_t stride, int64_t height, int64_t width, int64_t hc, int64_t wc) {
    if (!place) return {0, 0};
    const int64_t y = place[0] / stride, x = place[2] / stride;
    return {held_to(y, 0, height - hc), held_to(x, 0, width - wc)};
}

// attention = a, scaled = (1 − a)·context. stride: image pixels per cell of the context.
KERNEL(hrda_attention,
       const real* logits /* batch,height,width,channels */,
       const real* context /* batch,height,width,channels */, const int32_t* OPTIONAL place /* 4 */,
       real* attention /* batch,height,width,channels */,
       real* scaled /* batch,height,width,channels */,
       int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t stride) {
    ROW_LOOP(r, batch * height) {
        const int64_t y = r % height, row = width * channels;
        const bool inside = !place || (y >= place[0] / stride && y < place[1] / stride);
        const int64_t begin = !inside ? row : place ? place[2] / stride * channels : 0;
        const int64_t end = !inside ? row : place ? place[3] / stride * channels : row;
        BLOCK_LOOP(k, row) {
            const int64_t i = r * row + k;
            const real a = k >= begin && k < end ? 1 / (1 + exp_of(-logits[i])) : real(0);
            attention[i] = a;
            scaled[i] = (1 - a) * context[i];
        }
    }
}

// fused = up(attention)·detail + up(scaled)
KERNEL(hrda_fuse,
       const real* attention /* batch,height,width,channels */,
       const real* scaled /* batch,height,width,channels */,
       const real* detail /* batch,detail_height,detail_width,channels */,
       const int32_t* OPTIONAL place /* 4 */,
       real* fused /* batch,fused_height,fused_width,channels */,
       int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t detail_height,
       int64_t detail_width, int64_t fused_height, int64_t fused_width, real ratio_y, real ratio_x,
       int64_t stride) {
    const Corner corner = corner_of(place, stride, fused_height, fused_width, detail_height, detail_width);
    GRID_LOOP(i, items_of(batch * fused_height * fused_width, channels)) {
        const Item at = item_at(i, fused_height, fused_width, channels);
        const Taps ty = taps_at(at.y, ratio_y, height), tx = taps_at(at.x, ratio_x, width);
        const int64_t low = (at.image * height + ty.low) * width, high = (at.image * height + ty.high) * width;
        const int64_t ll = (low + tx.low) * channels, lh = (low + tx.high) * channels;
        const int64_t hl = (high + tx.low) * channels, hh = (high + tx.high) * channels;
        const real wll = (1 - ty.upper) * (1 - tx.upper), wlh = (1 - ty.upper) * tx.upper;
        const real whl = ty.upper * (1 - tx.upper), whh = ty.upper * tx.upper;
        real* out = fused + ((at.image * fused_height + at.y) * fused_width + at.x) * channels;
        CHANNEL_LOOP(c, at) out[c] = scaled[ll + c] * wll + scaled[lh + c] * wlh + scaled[hl + c] * whl + scaled[hh + c] * whh;
        const int64_t y = at.y - corner.y, x = at.x - corner.x;
        if (y >= 0 && y < detail_height && x >= 0 && x < detail_width) {
            const real* seen = detail + ((at.image * detail_height + y) * detail_width + x) * channels;
            CHANNEL_LOOP(c, at) out[c] += (attention[ll + c] * wll + attention[lh + c] * wlh + attention[hl + c] * whl + attention[hh + c] * whh) * seen[c];
        }
    }
}

// ddetail (+)= dfused · up(a)
KERNEL(hrda_backward_detail,
       const real* dfused /* batch,fused_height,fused_width,channels */,
       const real* attention /* batch,height,width,channels */,
       const int32_t* OPTIONAL place /* 4 */,
       real* ddetail /* batch,detail_height,detail_width,channels */,
       bool accumulate, int64_t batch, int64_t height, int64_t width, int64_t channels,
       int64_t detail_height, int64_t detail_width, int64_t fused_height, int64_t fused_width,
       real ratio_y, real ratio_x, int64_t stride) {
    const Corner corner = corner_of(place, stride, fused_height, fused_width, detail_height, detail_width);
    GRID_LOOP(i, items_of(batch * detail_height * detail_width, channels)) {
        const Item at = item_at(i, detail_height, detail_width, channels);
        const Taps ty = taps_at(at.y + corner.y, ratio_y, height), tx = taps_at(at.x + corner.x, ratio_x, width);
        const real* low = attention + (at.image * height + ty.low) * width * channels;
        const real* high = attention + (at.image * height + ty.high) * width * channels;
        const int64_t l = tx.low * channels, u = tx.high * channels;
        const real* from = dfused + ((at.image * fused_height + at.y + corner.y) * fused_width + at.x + corner.x) * channels;
        real* out = ddetail + ((at.image * detail_height + at.y) * detail_width + at.x) * channels;
        CHANNEL_LOOP(c, at) {
            const real above = low[l + c] * (1 - tx.upper) + low[u + c] * tx.upper;
            const real below = high[l + c] * (1 - tx.upper) + high[u + c] * tx.upper;
            out[c] = accumulated(out, c, accumulate) + from[c] * (above * (1 - ty.upper) + below * ty.upper);
        }
    }
}

// Each cell gathers from the fused grid. With u the interpolation weight of the cell in a position,
//   dcontext = (1 − a)·Σ u·dfused
//   dlogits  = a(1 − a)·(Σ u·dfused·detail − context·Σ u·dfused)
// dlogits is 0 outside the box, because a is.
KERNEL(hrda_backward_context,
       const real* dfused /* batch,fused_height,fused_width,channels */,
       const real* attention /* batch,height,width,channels */,
       const real* context /* batch,height,width,channels */,
       const real* detail /* batch,detail_height,detail_width,channels */,
       const int32_t* OPTIONAL place /* 4 */, real* dcontext /* batch,height,width,channels */,
       real* dlogits /* batch,height,width,channels */,
       int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t detail_height,
       int64_t detail_width, int64_t fused_height, int64_t fused_width, real ratio_y, real ratio_x,
       int64_t stride) {
    const Corner corner = corner_of(place, stride, fused_height, fused_width, detail_height, detail_width);
    GRID_LOOP(i, items_of(batch * height * width, channels)) {
        const Item at = item_at(i, height, width, channels);
        const int64_t cell = ((at.image * height + at.y) * width + at.x) * channels;
        real* plain = dcontext + cell;
        real* seen = dlogits + cell;
        CHANNEL_LOOP(c, at) plain[c] = seen[c] = 0;
        const int64_t y_end = reach_end(at.y, ratio_y, fused_height), x_end = reach_end(at.x, ratio_x, fused_width);
        for (int64_t y = reach_begin(at.y, ratio_y); y < y_end; ++y) {
            const real share_y = weight_of(taps_at(y, ratio_y, height), at.y);
            if (share_y == 0) continue;
            for (int64_t x = reach_begin(at.x, ratio_x); x < x_end; ++x) {
                const real share = share_y * weight_of(taps_at(x, ratio_x, width), at.x);
                if (share == 0) continue;
                const real* from = dfused + ((at.image * fused_height + y) * fused_width + x) * channels;
                CHANNEL_LOOP(c, at) plain[c] += share * from[c];
                const int64_t dy = y - corner.y, dx = x - corner.x;
                if (dy < 0 || dy >= detail_height || dx < 0 || dx >= detail_width) continue;
                const real* there = detail + ((at.image * detail_height + dy) * detail_width + dx) * channels;
                CHANNEL_LOOP(c, at) seen[c] += share * from[c] * there[c];
            }
        }
        CHANNEL_LOOP(c, at) {
            const real a = attention[cell + c];
            seen[c] = a * (1 - a) * (seen[c] - context[cell + c] * plain[c]);
            plain[c] *= 1 - a;
        }
    }
}
