// Labels scaled down by a majority vote.
#include "counting.cuh"
#include "label.cuh"

// One cell at a time: the value that most of its scale×scale pixels hold, if their share is at
// least min_share, else 255. 255 votes as a value; of equals the smallest wins. Rows and columns
// beyond the last whole cell are left out.
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
        // The votes' last reading ended in a barrier: the next cell may clear them.
        BLOCK_LOOP(k, 1) small[cell] = most / static_cast<real>(pixels) < min_share ? uint8_t(IGNORED) : static_cast<uint8_t>(winner);
    }
}
