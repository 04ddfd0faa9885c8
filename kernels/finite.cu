// The sticky flag that prevents a step with non-finite values from being committed.
#include "simt.cuh"

// bad[block] = 1 if the block's part of x contains a non-finite value, else 0.
KERNEL(not_finite_partial,
       const real* x /* elements */, int32_t* bad /* blocks */,
       int64_t elements) {
    const int64_t begin = chunk_begin(elements);
    const real found = block_max(chunk_end(elements) - begin, [&](int64_t i) { return is_finite(x[begin + i]) ? real(0) : real(1); });
    BLOCK_LOOP(k, 1) bad[block_index()] = found > 0;
}

// One block sets the flag if any part is bad; it never clears the flag.
KERNEL(not_finite_final, const int32_t* bad /* parts */, int32_t* flag /* 1 */, int64_t parts) {
    const real found = block_max(parts, [&](int64_t i) { return static_cast<real>(bad[i]); });
    BLOCK_LOOP(k, 1) flag[k] |= found > 0;
}
