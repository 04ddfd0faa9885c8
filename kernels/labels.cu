// Downscaling of labels by majority vote, and labels of pixels that count.
#include "counting.cuh"
#include "label.cuh"

// Each output cell gets the most frequent value of its scale×scale pixels if at least the fraction
// `min_share` of them have it, else 255. The value 255 takes part in the vote; ties go to the
// smallest value. Rows and columns past the last whole cell are ignored. A block takes one cell at
// a time.
KERNEL(downscale_labels,
       const uint8_t* labels /* batch,height,width */,
       uint8_t* small /* batch,floor(height/scale),floor(width/scale) */,
       int64_t batch, int64_t height, int64_t width, int64_t scale, real min_share) {
    SHARED(int32_t, votes, LABEL_VALUES);
    const int64_t h = height / scale, w = width / scale, pixels = scale * scale;
    ROW_LOOP(cell, batch * h * w) {
        const int64_t row = cell / w, image = row / h;
        const uint8_t* corner = labels + (image * height + (row - image * h) * scale) * width + (cell - row * w) * scale;
        BLOCK_LOOP(k, LABEL_VALUES) votes[k] = 0;
        barrier();
        for (int64_t i = thread_index(); i < pixels; i += thread_count()) count_one(votes + corner[i / scale * width + i % scale]);
        barrier();
        const real most = block_max(LABEL_VALUES, [&](int64_t k) { return static_cast<real>(votes[k]); });
        const real winner = -block_max(LABEL_VALUES, [&](int64_t k) { return static_cast<real>(votes[k]) == most ? -static_cast<real>(k) : -real(IGNORED); });
        // block_max ends in a barrier, so all threads have read the votes: the next cell may clear
        // them.
        BLOCK_LOOP(k, 1) small[cell] = most / static_cast<real>(pixels) < min_share ? uint8_t(IGNORED) : static_cast<uint8_t>(winner);
    }
}

// to = label where the pixel has a weight, else 255.
KERNEL(ignore_unweighted,
       const uint8_t* label /* elements */, const real* weight /* elements */,
       uint8_t* to /* elements */,
       int64_t elements) {
    GRID_LOOP(i, elements) to[i] = weight[i] != 0 ? label[i] : static_cast<uint8_t>(IGNORED);
}
