// The confusion matrix of predictions: K classes, counts[label,prediction].
#include "counting.cuh"
#include "label.cuh"

// One block a part, each with counters of its own. The last counter takes pixels that no other can:
// a label that is neither class nor 255, or a prediction that is no class.
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

// counts += Σ partial
KERNEL(confusion_final,
       const int32_t* partial /* parts,counters */, int64_t* counts /* counters */,
       int64_t parts, int64_t counters) {
    GRID_LOOP(k, counters) {
        int64_t sum = counts[k];
        for (int64_t p = 0; p < parts; ++p) sum += partial[p * counters + k];
        counts[k] = sum;
    }
}
