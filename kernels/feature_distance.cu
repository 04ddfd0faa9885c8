// Distance between the student's features and those of the frozen ImageNet model, over positions
// whose label is one of the given classes (the mask). Features are rows,channels.
//   value = mean over masked positions of ‖f1 − f2‖,  ‖·‖ over channels; 0 if the mask is empty
//   df1   = upstream/count · (f1 − f2)/‖f1 − f2‖ on the mask; 0 where the norm is 0
#include "label.cuh"
#include "simt.cuh"

// distance[r] = ‖f1 − f2‖ on the mask, and -1 off it; a block takes one row at a time.
KERNEL(feature_distance_rows,
       const T* f1 /* rows,channels */, const T* f2 /* rows,channels */,
       const uint8_t* labels /* rows */, const uint8_t* classes /* LABEL_VALUES */,
       real* distance /* rows */,
       int64_t rows, int64_t channels) {
    ROW_LOOP(r, rows) {
        const T* a = f1 + r * channels;
        const T* b = f2 + r * channels;
        real norm = -1;
        if (classes[labels[r]]) {  // uniform over the block
            norm = sqrt_of(block_sum(channels, [&](int64_t c) {
                const real d = static_cast<real>(a[c]) - static_cast<real>(b[c]);
                return d * d;
            }));
        }
        BLOCK_LOOP(k, 1) distance[r] = norm;
    }
}

// One block averages over the mask. A NaN distance counts as on the mask.
KERNEL(feature_distance_final,
       const real* distance /* rows */, real* value /* 1 */, real* count /* 1 */,
       int64_t rows) {
    const real masked = block_sum(rows, [&](int64_t r) { return distance[r] < 0 ? real(0) : real(1); });
    const real sum = block_sum(rows, [&](int64_t r) { return max_of(distance[r], 0); });
    BLOCK_LOOP(k, 1) {
        count[k] = masked;
        value[k] = masked > 0 ? sum / masked : real(0);
    }
}

// df1 (+)= upstream/count · (f1 − f2)/distance on the mask; zero where the distance is 0.
KERNEL(feature_distance_backward,
       const T* f1 /* rows,channels */, const T* f2 /* rows,channels */,
       const real* distance /* rows */, const real* count /* 1 */, const real* upstream /* 1 */,
       T* df1 /* rows,channels */,
       bool accumulate, int64_t rows, int64_t channels) {
    ROW_LOOP(r, rows) {
        const real norm = distance[r];
        const bool still = norm <= 0;
        const real factor = still ? real(0) : upstream[0] / (count[0] * norm);
        BLOCK_LOOP(c, channels) {
            const int64_t i = r * channels + c;
            const real before = accumulate ? static_cast<real>(df1[i]) : real(0);
            df1[i] = before + factor * (static_cast<real>(f1[i]) - static_cast<real>(f2[i]));
        }
    }
}
