// Labels scaled down by a majority vote.
#include "counting.cuh"

// One cell at a time: the value that most of its scale×scale pixels hold, if their share is at
// least min_share, else 255. 255 votes as a value; of equals the smallest wins. Rows and columns
// beyond the last whole cell are left out.
KERNEL(downscale_labels, const uint8_t* labels /* B,H,W */, uint8_t* small /* B,H/scale,W/scale */, int64_t batch, int64_t height, int64_t width, int64_t scale, real min_share) {
    SHARED(int32_t, votes, 256);
    const int64_t h = height / scale, w = width / scale, pixels = scale * scale;
    for (int64_t cell = chunk_begin(batch * h * w); cell < chunk_end(batch * h * w); ++cell) {
        const int64_t row = cell / w, image = row / h;
        const uint8_t* corner = labels + (image * height + (row - image * h) * scale) * width + (cell - row * w) * scale;
        BLOCK_LOOP(k, 256) votes[k] = 0;
        barrier();
        for (int64_t i = thread_index(); i < pixels; i += thread_count()) count_one(votes + corner[i / scale * width + i % scale]);
        barrier();
        const real most = block_max(256, [&](int64_t k) { return static_cast<real>(votes[k]); });
        const real winner = -block_max(256, [&](int64_t k) { return static_cast<real>(votes[k]) == most ? -static_cast<real>(k) : real(-255); });
        // The votes' last reading ended in a barrier: the next cell may clear them.
        BLOCK_LOOP(k, 1) small[cell] = most / static_cast<real>(pixels) < min_share ? uint8_t(255) : static_cast<uint8_t>(winner);
    }
}
