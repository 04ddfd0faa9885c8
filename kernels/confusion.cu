// Confusion matrix of predictions over K classes: counts[label,prediction].
#include "counting.cuh"
#include "label.cuh"

// Counts one part of the pixels per block, in counters of its own. The last counter counts invalid
// pixels: a label that is neither a class nor 255 (ignored), or a prediction that is not a class.
KERNEL(confusion_partial,
       const uint8_t* prediction /* pixels */, const uint8_t* labels /* pixels */,
       int32_t* partial /* blocks,classes*classes+1 */,
       int64_t classes, int64_t pixels) {
    const int64_t odd = classes * classes;
    int32_t* counters = partial + block_index() * (odd + 1);
    BLOCK_LOOP(k, odd + 1) counters[k] = 0;
    barrier();
    const int64_t end = chunk_end(pixels);
    for (int64_t i = chunk_begin(pixels) + thread_index(); i < end; i += thread_count()) {
        const int64_t label = labels[i], said = prediction[i];
        if (label == IGNORED) continue;
        count_one(counters + (label < classes && said < classes ? label * classes + said : odd));
    }
}

// counts[k] += Σ_p partial[p,k]
KERNEL(confusion_final,
       const int32_t* partial /* parts,counters */, int64_t* counts /* counters */,
       int64_t parts, int64_t counters) {
    GRID_LOOP(k, counters) {
        int64_t sum = counts[k];
        for (int64_t p = 0; p < parts; ++p) sum += partial[p * counters + k];
        counts[k] = sum;
    }
}
