// Copies and dropout of whole channels. A row is a pixel: rows = batch·height·width.
#include "random.cuh"

// y[r, y_first + c] (+)= x[r, x_first + c] for c < channels: copies a tensor's channels into a
// wider tensor, or out of one. The pitches are the numbers of channels of x and y.
KERNEL(move_channels,
       const T* x /* rows,x_pitch */, T* y /* rows,y_pitch */,
       bool accumulate, int64_t rows, int64_t channels, int64_t x_pitch, int64_t x_first,
       int64_t y_pitch, int64_t y_first) {
    ROW_LOOP(r, rows) {
        const T* from = x + r * x_pitch + x_first;
        T* to = y + r * y_pitch + y_first;
        if (accumulate) {
            BLOCK_LOOP(c, channels) to[c] = real(to[c]) + real(from[c]);
        } else {
            BLOCK_LOOP(c, channels) to[c] = from[c];
        }
    }
}

// Dropout mask of whole channels: mask[b,c] = 0 with the given probability p, else 1/(1-p).
KERNEL(channel_mask,
       const uint64_t* key /* 1 */, real* mask /* batch,channels */,
       int64_t batch, int64_t channels, real probability, int64_t stream, int64_t first_slot,
       int64_t slots, int64_t all_slots) {
    GRID_LOOP(i, batch * channels) {
        const int64_t slot = slot_of(i / channels, first_slot, slots, all_slots);
        const real u = uniform_of(key[0], stream, slot * channels + i % channels);
        mask[i] = u < probability ? real(0) : 1 / (1 - probability);
    }
}

// y[b,i,c] (+)= x[b,i,c] · mask[b,c]
KERNEL(scale_channels,
       const T* x /* batch,pixels,channels */, const real* mask /* batch,channels */,
       T* y /* batch,pixels,channels */,
       bool accumulate, int64_t batch, int64_t pixels, int64_t channels) {
    const int64_t rows = batch * pixels;
    ROW_LOOP(r, rows) {
        const T* from = x + r * channels;
        T* to = y + r * channels;
        const real* factor = mask + r / pixels * channels;
        if (accumulate) {
            BLOCK_LOOP(c, channels) to[c] = real(to[c]) + real(from[c]) * factor[c];
        } else {
            BLOCK_LOOP(c, channels) to[c] = real(from[c]) * factor[c];
        }
    }
}
