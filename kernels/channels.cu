// Copies and dropout of whole channels. A row is a pixel: rows = batch·height·width.
#include "random.cuh"
#include "strips.cuh"

template <class V>
DEVICE void move_strips(const T* x, T* y, bool accumulate, int64_t rows, int64_t channels, int64_t x_pitch, int64_t y_pitch) {
    each_strip<V, 1>(chunk_begin(rows), chunk_end(rows), channels, [&](int64_t c, auto some) {
        const T* from = x + c;
        T* to = y + c;
        each_row(some, [&](int64_t r, int64_t step, auto count) {
            if (!accumulate) {
                UNROLL for (int64_t k = 0; k < count.value; ++k) copy_if<V>(true, from + (r + k * step) * x_pitch, to + (r + k * step) * y_pitch);
                return;
            }
            V sum[count.value];
            UNROLL for (int64_t k = 0; k < count.value; ++k)
                sum[k] = Width<V>::load(to + (r + k * step) * y_pitch) + Width<V>::load(from + (r + k * step) * x_pitch);
            UNROLL for (int64_t k = 0; k < count.value; ++k) store(to + (r + k * step) * y_pitch, sum[k]);
        });
    });
}

// y[r, y_first + c] (+)= x[r, x_first + c] for c < channels: copies a tensor's channels into a
// wider tensor, or out of one. The pitches are the numbers of channels of x and y.
KERNEL(move_channels,
       const T* x /* rows,x_pitch */, T* y /* rows,y_pitch */,
       bool accumulate, int64_t rows, int64_t channels, int64_t x_pitch, int64_t x_first,
       int64_t y_pitch, int64_t y_first) {
    const T* from = x + x_first;
    T* to = y + y_first;
    const bool in_packs = channels % WIDE == 0 && x_pitch % WIDE == 0 && x_first % WIDE == 0 && y_pitch % WIDE == 0 && y_first % WIDE == 0;
    if (in_packs) move_strips<wide>(from, to, accumulate, rows, channels, x_pitch, y_pitch);
    else move_strips<real>(from, to, accumulate, rows, channels, x_pitch, y_pitch);
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

template <class V, bool accumulate>
DEVICE void scale_strips(const T* x, const real* mask, T* y, int64_t batch, int64_t pixels, int64_t channels) {
    const int64_t begin = chunk_begin(batch * pixels), end = chunk_end(batch * pixels);
    for (int64_t b = begin / pixels; b * pixels < end; ++b) {
        each_strip<V, 1>(most_of(begin, b * pixels), least_of(end, (b + 1) * pixels), channels, [&](int64_t c, auto some) {
            const V factor = Width<V>::load(mask + b * channels + c);
            each_row(some, [&](int64_t r, int64_t step, auto count) {
                V scaled[count.value];
                UNROLL for (int64_t k = 0; k < count.value; ++k) {
                    const int64_t at = (r + k * step) * channels + c;
                    scaled[k] = Width<V>::load(x + at) * factor;
                    if (accumulate) scaled[k] = Width<V>::load(y + at) + scaled[k];
                }
                UNROLL for (int64_t k = 0; k < count.value; ++k) store(y + (r + k * step) * channels + c, scaled[k]);
            });
        });
    }
}

// y[b,i,c] (+)= x[b,i,c] · mask[b,c]
KERNEL(scale_channels,
       const T* x /* batch,pixels,channels */, const real* mask /* batch,channels */,
       T* y /* batch,pixels,channels */,
       bool accumulate, int64_t batch, int64_t pixels, int64_t channels) {
    const auto run = [&](auto v) {
        using V = decltype(v);
        if (accumulate) scale_strips<V, true>(x, mask, y, batch, pixels, channels);
        else scale_strips<V, false>(x, mask, y, batch, pixels, channels);
    };
    if (channels % WIDE == 0) run(wide());
    else run(real());
}
