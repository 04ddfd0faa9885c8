// Statistics of feature vectors by class over all cells ever seen, and the bank of class means (SePiCo,
// Xie et al. 2023). Features are rows,channels with a label per row; a label that is no
// class takes part in nothing. Of a batch, class c has n' cells with mean m and squared deviations s:
//   w = n' / (n' + n)
//   variance ← (1 - w)·variance + w·s/n' + w·(1 - w)·(mean - m)²,   mean ← (1 - w)·mean + w·m,   n ← n + n'
// A class without cells keeps its numbers. Sums and counts of the batch are results of their own, so that
// they can be those of a larger batch.
#include "counting.cuh"
#include "label.cuh"

// partial[p,k,c] = Σ x[r,c] over the rows of part p that have label k, or Σ (x[r,c] - means[k,c])² with
// `means`; one block per part.
KERNEL(class_sums,
       const real* x /* rows,channels */, const uint8_t* labels /* rows */,
       const real* OPTIONAL means /* classes,channels */, real* partial /* blocks,classes,channels */,
       int64_t rows, int64_t classes, int64_t channels) {
    real* sums = partial + block_index() * classes * channels;
    // In all of these loops a thread has the same channels, so it adds to what it wrote itself.
    for (int64_t k = 0; k < classes; ++k) BLOCK_LOOP(c, channels) sums[k * channels + c] = 0;
    ROW_LOOP(r, rows) {
        const int64_t k = labels[r];
        if (k >= classes) continue;
        const real* row = x + r * channels;
        real* sum = sums + k * channels;
        if (means == nullptr) {
            BLOCK_LOOP(c, channels) sum[c] += row[c];
        } else {
            const real* mean = means + k * channels;
            BLOCK_LOOP(c, channels) sum[c] += (row[c] - mean[c]) * (row[c] - mean[c]);
        }
    }
}

// counts[k] = number of labels k, from the histograms of `parts` parts.
KERNEL(class_counts,
       const int32_t* partial /* parts,LABEL_VALUES */, int64_t* counts /* classes */,
       int64_t parts, int64_t classes) {
    GRID_LOOP(k, classes) {
        int64_t sum = 0;
        for (int64_t p = 0; p < parts; ++p) sum += partial[p * LABEL_VALUES + k];
        counts[k] = sum;
    }
}

// means[k,c] = sums[k,c] / counts[k], or 0 for a class without cells.
KERNEL(class_means,
       const real* sums /* classes,channels */, const int64_t* counts /* classes */,
       real* means /* classes,channels */,
       int64_t classes, int64_t channels) {
    GRID_LOOP(i, classes * channels) {
        const int64_t n = counts[i / channels];
        means[i] = n > 0 ? sums[i] / static_cast<real>(n) : real(0);
    }
}

// Merges a batch into the statistics, as at the top of the file. `amount` is n.
KERNEL(merge_class_statistics,
       const real* means /* classes,channels */, const real* squares /* classes,channels */,
       const int64_t* counts /* classes */, real* mean /* classes,channels */,
       real* variance /* classes,channels */, int64_t* amount /* classes */,
       int64_t classes, int64_t channels) {
    ROW_LOOP(k, classes) {
        const int64_t added = counts[k], before = amount[k];
        if (added > 0) {  // uniform over the block
            const real share = static_cast<real>(added) / static_cast<real>(added + before), rest = 1 - share;
            BLOCK_LOOP(c, channels) {
                const int64_t i = k * channels + c;
                const real off = mean[i] - means[i], own = squares[i] / static_cast<real>(added);
                variance[i] = variance[i] * rest + own * share + share * rest * off * off;
                mean[i] = mean[i] * rest + means[i] * share;
            }
        }
        barrier();  // every thread has read the amount
        BLOCK_LOOP(one, 1) amount[k] = before + added;
    }
}

// Appends the batch's mean of each class that has cells to the class's queue, a ring of `length` vectors.
// `pushed` counts all that were ever appended: the next place is pushed % length.
KERNEL(push_class_means,
       const real* means /* classes,channels */, const int64_t* counts /* classes */,
       real* bank /* classes,length,channels */, int64_t* pushed /* classes */,
       int64_t classes, int64_t length, int64_t channels) {
    ROW_LOOP(k, classes) {
        const int64_t before = pushed[k];
        if (counts[k] > 0) {  // uniform over the block
            real* to = bank + (k * length + before % length) * channels;
            BLOCK_LOOP(c, channels) to[c] = means[k * channels + c];
        }
        barrier();  // every thread has read where to append
        BLOCK_LOOP(one, 1) pushed[k] = before + (counts[k] > 0);
    }
}

// centers[k,c] = mean of the vectors in class k's queue.
KERNEL(bank_centers,
       const real* bank /* classes,length,channels */, const int64_t* pushed /* classes */,
       real* centers /* classes,channels */,
       int64_t classes, int64_t length, int64_t channels) {
    GRID_LOOP(i, classes * channels) {
        const int64_t k = i / channels, c = i - k * channels, held = least_of(pushed[k], length);
        real sum = 0;
        for (int64_t m = 0; m < held; ++m) sum += bank[(k * length + m) * channels + c];
        centers[i] = sum / static_cast<real>(held);
    }
}
