// Elementwise arithmetic, casts and column sums.
#include "columns.cuh"

// y = value
KERNEL(fill, real* y /* elements */, real value, int64_t elements) {
    GRID_LOOP(i, elements) y[i] = value;
}

// y = x·scale, or y += x·scale if `accumulate`; without it, y is not read.
KERNEL(add_scaled,
       const real* x /* elements */, real* y /* elements */,
       real scale, bool accumulate, int64_t elements) {
    GRID_LOOP(i, elements) y[i] = accumulated(y, i, accumulate) + x[i] * scale;
}

// y = x, cast from the compute type to the storage type T.
KERNEL(downcast, const real* x /* elements */, T* y /* elements */, int64_t elements) {
    GRID_LOOP(i, elements) y[i] = x[i];
}
// y (+)= x, cast from the storage type T to the compute type.
KERNEL(upcast,
       const T* x /* elements */, real* y /* elements */,
       bool accumulate, int64_t elements) {
    GRID_LOOP(i, elements) y[i] = accumulated(y, i, accumulate) + real(x[i]);
}

// z = x + y, followed by the ReLU if `relu`. z may be x or y.
KERNEL(add,
       const T* x /* elements */, const T* y /* elements */, T* z /* elements */,
       bool relu, int64_t elements) {
    if (relu) {
        GRID_LOOP(i, elements) z[i] = max_of(real(x[i]) + real(y[i]), real(0));
    } else {
        GRID_LOOP(i, elements) z[i] = real(x[i]) + real(y[i]);
    }
}

// dx = dz where the ReLU's output z is positive, and 0 elsewhere. dx may be dz.
KERNEL(relu_backward,
       const T* z /* elements */, const T* dz /* elements */, T* dx /* elements */,
       int64_t elements) {
    GRID_LOOP(i, elements) dx[i] = real(z[i]) > 0 ? real(dz[i]) : real(0);
}

// Fills every row of y, or of `wide`, with the bias; a matmul or convolution then accumulates onto
// it.
KERNEL(fill_rows,
       const real* bias /* channels */, T* OPTIONAL y /* rows,channels */,
       real* OPTIONAL wide /* rows,channels */,
       int64_t rows, int64_t channels) {
    auto fill = [&](auto* to) {
        GRID_LOOP(r, rows) {
            for (int64_t c = 0; c < channels; ++c) to[r * channels + c] = bias[c];
        }
    };
    if (y != nullptr) fill(y);
    else fill(wide);
}

// partial[p,c] = Σ x[r,c] over part p of the rows; one block per part.
KERNEL(column_sums_partial,
       const T* x /* rows,channels */, real* partial /* blocks,channels */,
       int64_t rows, int64_t channels) {
    real* sums = partial + block_index() * channels;
    BLOCK_LOOP(c, channels) sums[c] = 0;
    int64_t r = chunk_begin(rows);
    const int64_t end = chunk_end(rows);
    for (; r + 4 <= end; r += 4) {
        const T* row = x + r * channels;
        BLOCK_LOOP(c, channels)
            sums[c] += (real(row[c]) + real(row[channels + c])) + (real(row[2 * channels + c]) + real(row[3 * channels + c]));
    }
    for (; r < end; ++r) BLOCK_LOOP(c, channels) sums[c] += real(x[r * channels + c]);
}

// sums[c] += Σ_p partial[p,c]
KERNEL(column_sums_final,
       const real* partial /* parts,channels */, real* sums /* channels */,
       int64_t parts, int64_t channels) {
    each_sum(partial, parts, channels, [&](int64_t c, real sum) { sums[c] += sum; });
}
