// Vectors of unit length over channels, as contrast losses compare them: rows,channels.
//   y = x / max(‖x‖, least)
//   dx = (dy - y·Σ y·dy) / ‖x‖   where ‖x‖ > least,   dy / least elsewhere
#include "group.cuh"

// norms[r] = ‖x‖ of row r.
KERNEL(l2_normalize,
       const T* x /* rows,channels */, real* y /* rows,channels */, real* norms /* rows */,
       int64_t rows, int64_t channels, real least) {
    GROUP_ROWS(r, rows) {
        const T* from = x + r * channels;
        real* to = y + r * channels;
        const real square = group_sum(channels, [&](int64_t c) { return real(from[c]) * real(from[c]); });
        const real norm = sqrt_of(square), inverse = 1 / max_of(norm, least);
        GROUP_LOOP(c, channels) to[c] = real(from[c]) * inverse;
        GROUP_LOOP(k, 1) norms[r] = norm;
    }
}

// dx (+)= the gradient above.
KERNEL(l2_normalize_backward,
       const real* y /* rows,channels */, const real* norms /* rows */,
       const real* dy /* rows,channels */, T* dx /* rows,channels */,
       bool accumulate, int64_t rows, int64_t channels, real least) {
    GROUP_ROWS(r, rows) {
        const real* unit = y + r * channels;
        const real* given = dy + r * channels;
        T* to = dx + r * channels;
        const real norm = norms[r];
        const real along = norm > least ? group_sum(channels, [&](int64_t c) { return unit[c] * given[c]; }) : real(0);
        const real inverse = 1 / max_of(norm, least);
        GROUP_LOOP(c, channels) {
            const real before = accumulate ? real(to[c]) : real(0);
            to[c] = before + (given[c] - unit[c] * along) * inverse;
        }
    }
}
