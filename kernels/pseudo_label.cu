// What a network says of each pixel: class, confidence, and from them a teacher's pseudo-labels.
// Logits are upsampled to the picture on the fly. B, h, w, C: logits; H, W: picture.
#include "upsample.cuh"

// label = argmax, the first of equals; 255 where a logit is NaN. probability = max softmax;
// confident = probability >= confident_from; counts: pixels of each row with probability
// >= counted_from. Softmax is computed only where something asks for it.
KERNEL(classify_rows, const real* logits /* B,h,w,C */, uint8_t* label /* B,H,W */, real* OPTIONAL probability /* B,H,W */, uint8_t* OPTIONAL confident /* B,H,W */, real* OPTIONAL counts /* B*H */, int64_t batch, int64_t h, int64_t w, int64_t channels, int64_t height, int64_t width, real ratio_y, real ratio_x, int64_t run, int64_t cells, real confident_from, real counted_from) {
    real* counted;
    Tile tile = tile_in(shared_memory(), channels, cells, run, &counted);
    const bool softmax = probability || confident || counts;
    ROW_LOOP(r, batch * height) {
        const Taps row = taps_at(r % height, ratio_y, h);
        const real* image = logits + r / height * h * w * channels;
        BLOCK_LOOP(p, run) counted[p] = 0;
        for (int64_t x = 0; x < width; x += run) {
            const int64_t n = least_of(width - x, run);
            tile_load(tile, image, row, w, ratio_x, x, n);
            BLOCK_LOOP(p, n) {
                const int64_t pixel = r * width + x + p;
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

// One block: the share of the batch's pixels that were counted.
KERNEL(pseudo_share, const real* counts /* rows */, real* share /* 1 */, int64_t rows, int64_t pixels) {
    const real sum = block_sum(rows, [&](int64_t r) { return counts[r]; });
    BLOCK_LOOP(k, 1) share[k] = sum / static_cast<real>(pixels);
}

// weight = share where valid, else 0.
KERNEL(pseudo_weight, const real* share /* 1 */, const uint8_t* OPTIONAL valid /* n */, real* weight /* n */, int64_t n) {
    const real everywhere = share[0];
    GRID_LOOP(i, n) weight[i] = !valid || valid[i] ? everywhere : real(0);
}
