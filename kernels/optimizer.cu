// AdamW (Loshchilov & Hutter 2019) over the flat parameter store, fused with the update of the mean
// teacher by exponential moving average (EMA).
//
//   p ← p · (1 - lr·decay)
//   m ← β1·m + (1 - β1)·g          v ← β2·v + (1 - β2)·g²
//   p ← p - lr / (1 - β1^t) · m / (√v / √(1 - β2^t) + eps)
//   teacher ← α·teacher + (1 - α)·p
//
// The names are p: values, g: grads, m: exp_avg, v: exp_avg_sq. A row of the store is a chunk of
// one parameter, and `multipliers` are the factors of its lr and decay. `schedule` consists of lr,
// decay, the bias corrections 1 - β1^t and √(1 - β2^t), and α. rest1 and rest2 are 1 - β1 and
// 1 - β2, rounded only once: in single precision, 1 - 0.999 would be off by 1e-5. Nothing is
// written if `failed` is set.
#include "simt.cuh"

// AdamW and EMA step, see the top of the file. `low_precision` and `teacher_low_precision` receive the
// low-precision copies of values and teacher that matmuls read.
KERNEL(adamw,
       real* values /* chunks,chunk_size */, const real* grads /* chunks,chunk_size */,
       real* exp_avg /* chunks,chunk_size */, real* exp_avg_sq /* chunks,chunk_size */,
       real* OPTIONAL teacher /* chunks,chunk_size */, T* OPTIONAL low_precision /* chunks,chunk_size */,
       T* OPTIONAL teacher_low_precision /* chunks,chunk_size */, const real* multipliers /* chunks,2 */,
       const real* schedule /* 5 */, const int32_t* failed /* 1 */,
       real beta1, real rest1, real beta2, real rest2, real eps, int64_t chunks,
       int64_t chunk_size) {
    if (*failed) return;
    const real bias_correction1 = schedule[2], bias_correction2 = schedule[3], alpha = schedule[4];
    ROW_LOOP(chunk, chunks) {
        const real lr = schedule[0] * multipliers[2 * chunk];
        const real keep = 1 - lr * (schedule[1] * multipliers[2 * chunk + 1]);
        const real step = lr / bias_correction1;
        const int64_t first = chunk * chunk_size;
        BLOCK_LOOP(j, chunk_size) {
            const int64_t i = first + j;
            const real gradient = grads[i];
            const real m1 = beta1 * exp_avg[i] + rest1 * gradient;
            const real v1 = beta2 * exp_avg_sq[i] + rest2 * gradient * gradient;
            const real p1 = values[i] * keep - step * (m1 / (sqrt_of(v1) / bias_correction2 + eps));
            exp_avg[i] = m1;
            exp_avg_sq[i] = v1;
            values[i] = p1;
        }
        if (teacher != nullptr) {
            BLOCK_LOOP(j, chunk_size) {
                const int64_t i = first + j;
                teacher[i] = alpha * teacher[i] + (1 - alpha) * values[i];
            }
        }
        if (low_precision != nullptr) BLOCK_LOOP(j, chunk_size) low_precision[first + j] = values[first + j];
        if (teacher_low_precision != nullptr) BLOCK_LOOP(j, chunk_size) teacher_low_precision[first + j] = teacher[first + j];
    }
}

// to = from, unless the step failed: commits buffers and templates for the next step.
KERNEL(commit_real,
       const real* from /* elements */, real* to /* elements */, const int32_t* failed /* 1 */,
       int64_t elements) {
    if (*failed) return;
    GRID_LOOP(i, elements) to[i] = from[i];
}
// The same for bytes.
KERNEL(commit_bytes,
       const uint8_t* from /* elements */, uint8_t* to /* elements */,
       const int32_t* failed /* 1 */,
       int64_t elements) {
    if (*failed) return;
    GRID_LOOP(i, elements) to[i] = from[i];
}
// The same for counts.
KERNEL(commit_counts,
       const int64_t* from /* elements */, int64_t* to /* elements */,
       const int32_t* failed /* 1 */,
       int64_t elements) {
    if (*failed) return;
    GRID_LOOP(i, elements) to[i] = from[i];
}
