// Cross-entropy of logits that are bilinearly upsampled to the label's resolution on the fly.
//   value = 1/N · Σ weight·(log Σ_c e^(z_c − m) − (z_label − m)),  m = max z
// summed over the pixels whose label is a class; N counts all pixels, including the others. The
// same pass computes the gradient for an upstream gradient of 1, in two steps:
//   row_gradient[b,y,j,c]       = Σ_x u(x,j) · weight·(softmax_c − [c = label])
//   dvalue/dlogits[i,j]  = 1/N · Σ_y u(y,i) · row_gradient[y,j]
// where u(x,j) is the interpolation weight of cell j in pixel x, and u(y,i) that of row i in row y.
// The logits are batch,height,width,channels; the label is batch,out_height,out_width.
#include "label.cuh"
#include "upsample.cuh"

// One output row at a time: stores the row's loss, hits (correct predictions) and invalid labels
// (neither a class nor 255) in `partial`, and its gradient over the input's columns in `row_gradient`.
KERNEL(cross_entropy_rows,
       const real* logits /* batch,height,width,channels */,
       const uint8_t* labels /* batch,out_height,out_width */,
       const real* OPTIONAL weight /* batch,out_height,out_width */,
       real* partial /* batch*out_height,3 */,
       real* OPTIONAL row_gradient /* batch,out_height,width,channels */,
       int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height,
       int64_t out_width, real ratio_y, real ratio_x, int64_t run, int64_t cells) {
    real* rest;
    Tile tile = tile_in(shared_memory(), channels, cells, run, &rest);
    real* loss = rest;
    real* hits = rest + run;
    real* unknown = rest + 2 * run;
    ROW_LOOP(r, batch * out_height) {
        const Taps row = taps_at(r % out_height, ratio_y, height);
        const real* image = logits + r / out_height * height * width * channels;
        if (row_gradient) BLOCK_LOOP(k, width * channels) row_gradient[r * width * channels + k] = 0;
        BLOCK_LOOP(p, run) loss[p] = hits[p] = unknown[p] = 0;

        for (int64_t x = 0; x < out_width; x += run) {
            const int64_t n = least_of(out_width - x, run);
            tile_load(tile, image, row, width, ratio_x, x, n);
            BLOCK_LOOP(p, n) {
                const int64_t label = labels[r * out_width + x + p];
                real* z = tile.pixels + p * tile.stride;
                if (label >= channels) {
                    unknown[p] += label != IGNORED;
                    for (int64_t c = 0; c < channels; c += LANES) LANE_LOOP(l) z[c + l] = 0;
                } else {
                    const real scale = weight ? weight[r * out_width + x + p] : real(1);
                    const real top = tile_pixel(tile, p);
                    const real logit = z[label];
                    bool hit = logit == top;
                    for (int64_t c = 0; hit && c < label; ++c) hit = z[c] != top;
                    const real sum = tile_exp(tile, p, top);
                    loss[p] += scale * (log_of(sum) - (logit - top));
                    hits[p] += hit;
                    const real normal = scale / sum;
                    for (int64_t c = 0; c < channels; c += LANES) LANE_LOOP(l) z[c + l] *= normal;
                    z[label] -= scale;
                }
            }
            barrier();
            if (row_gradient) {
                // Each cell gathers from the pixels of this run that it contributes to.
                BLOCK_LOOP(k, tile.count * tile.groups) {
                    const int64_t cell = k / tile.groups, c = (k - cell * tile.groups) * LANES;
                    int64_t p = most_of(reach_begin(tile.first + cell, ratio_x) - x, 0);
                    while (p < n && tile.low[p] + 1 < cell) ++p;
                    real sum[LANES];
                    LANE_LOOP(l) sum[l] = 0;
                    for (; p < n && tile.low[p] <= cell; ++p) {
                        // The last cell is its own upper neighbor: its weights there sum to 1.
                        const bool low = tile.low[p] == cell;
                        const real upper = tile.upper[p];
                        const real share = !low ? upper : cell + 1 < tile.count ? 1 - upper : real(1);
                        const real* z = tile.pixels + p * tile.stride + c;
                        LANE_LOOP(l) sum[l] += share * z[l];
                    }
                    real* gathered = row_gradient + (r * width + tile.first + cell) * channels + c;
                    LANE_LOOP(l) if (c + l < channels) gathered[l] += sum[l];
                }
            }
            barrier();
        }
        const real row_loss = block_sum(run, [&](int64_t p) { return loss[p]; });
        const real row_hits = block_sum(run, [&](int64_t p) { return hits[p]; });
        const real row_unknown = block_sum(run, [&](int64_t p) { return unknown[p]; });
        BLOCK_LOOP(k, 3) partial[r * 3 + k] = k == 0 ? row_loss : k == 1 ? row_hits : row_unknown;
    }
}

// One block reduces the rows. accuracy: percentage of all pixels; unknown: labels that are neither
// a class nor 255.
KERNEL(cross_entropy_final,
       const real* partial /* rows,3 */, real* value /* 1 */, real* accuracy /* 1 */,
       real* unknown /* 1 */,
       int64_t rows, int64_t pixels) {
    const real loss = block_sum(rows, [&](int64_t r) { return partial[r * 3]; });
    const real hits = block_sum(rows, [&](int64_t r) { return partial[r * 3 + 1]; });
    const real strange = block_sum(rows, [&](int64_t r) { return partial[r * 3 + 2]; });
    BLOCK_LOOP(k, 1) {
        value[k] = loss / static_cast<real>(pixels);
        accuracy[k] = 100 * hits / static_cast<real>(pixels);
        unknown[k] = strange;
    }
}

// gradient[b,i] = scale · Σ_y u(y,i) · row_gradient[b,y], where u(y,i) is the interpolation weight of
// input row i in output row y. A row has width·channels elements.
KERNEL(cross_entropy_gather,
       const real* row_gradient /* batch,out_height,row */, real* gradient /* batch,height,row */,
       int64_t batch, int64_t height, int64_t out_height, int64_t row, real ratio_y, real scale) {
    ROW_LOOP(r, batch * height) {
        const int64_t image = r / height, i = r - image * height;
        real* gathered = gradient + r * row;
        BLOCK_LOOP(k, row) gathered[k] = 0;
        const int64_t end = reach_end(i, ratio_y, out_height);
        for (int64_t y = reach_begin(i, ratio_y); y < end; ++y) {
            const real share = weight_of(taps_at(y, ratio_y, height), i) * scale;
            if (share == 0) continue;
            const real* from = row_gradient + (image * out_height + y) * row;
            BLOCK_LOOP(k, row) gathered[k] += share * from[k];
        }
    }
}

// dx (+)= gradient · upstream
KERNEL(cross_entropy_backward,
       const real* gradient /* elements */, const real* upstream /* 1 */, real* dx /* elements */,
       bool accumulate, int64_t elements) {
    const real factor = upstream[0];
    GRID_LOOP(i, elements) dx[i] = accumulated(dx, i, accumulate) + gradient[i] * factor;
}
