// Per-pixel predictions: class and confidence, and a teacher's pseudo-labels derived from them. The
// logits (batch,height,width,channels) are bilinearly upsampled to the image's out_height ×
// out_width on the fly.
#include "upsample.cuh"

// label: argmax, the first among equals, or 255 if a logit is NaN. probability: largest softmax
// probability. confident: probability >= confident_from. counts: pixels of each row with
// probability >= counted_from. The softmax is computed only if one of the optional outputs is
// present.
KERNEL(classify_rows,
       const real* logits /* batch,height,width,channels */,
       uint8_t* label /* batch,out_height,out_width */,
       real* OPTIONAL probability /* batch,out_height,out_width */,
       uint8_t* OPTIONAL confident /* batch,out_height,out_width */,
       real* OPTIONAL counts /* batch*out_height */,
       int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t out_height,
       int64_t out_width, real ratio_y, real ratio_x, int64_t run, int64_t cells,
       real confident_from, real counted_from) {
    real* counted;
    Tile tile = tile_in(shared_memory(), channels, cells, run, &counted);
    const bool softmax = probability || confident || counts;
    ROW_LOOP(r, batch * out_height) {
        const Taps row = taps_at(r % out_height, ratio_y, height);
        const real* image = logits + r / out_height * height * width * channels;
        BLOCK_LOOP(p, run) counted[p] = 0;
        for (int64_t x = 0; x < out_width; x += run) {
            const int64_t n = least_of(out_width - x, run);
            tile_load(tile, image, row, width, ratio_x, x, n);
            BLOCK_LOOP(p, n) {
                const int64_t pixel = r * out_width + x + p;
                const real top = tile_pixel(tile, p);
                label[pixel] = static_cast<uint8_t>(tile_class(tile, p, top));
                if (softmax) {
                    const real likely = 1 / tile_exp(tile, p, top);
                    if (probability) probability[pixel] = likely;
                    if (confident) confident[pixel] = likely >= confident_from;
                    counted[p] += likely >= counted_from;
                }
            }
            barrier();
        }
        if (counts) {
            const real sum = block_sum(run, [&](int64_t p) { return counted[p]; });
            BLOCK_LOOP(k, 1) counts[r] = sum;
        }
    }
}

// One block: the fraction of the batch's pixels that were counted.
KERNEL(pseudo_share,
       const real* counts /* rows */, real* share /* 1 */,
       int64_t rows, int64_t pixels) {
    const real sum = block_sum(rows, [&](int64_t r) { return counts[r]; });
    BLOCK_LOOP(k, 1) share[k] = sum / static_cast<real>(pixels);
}

// weight = share where valid, else 0. Without `valid`, all pixels are valid.
KERNEL(pseudo_weight,
       const real* share /* 1 */, const uint8_t* OPTIONAL valid /* elements */,
       real* weight /* elements */,
       int64_t elements) {
    const real everywhere = share[0];
    GRID_LOOP(i, elements) weight[i] = !valid || valid[i] ? everywhere : real(0);
}
