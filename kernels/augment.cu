// Strong augmentation of mixed and masked images, as kornia 0.5.8 does it: colour jitter on RGB in
// [0, 1], then Gaussian blur on normalised values.
//
// Jitter applies, in the order given, brightness clamp(x + f - 1), contrast clamp(x · f), saturation
// S ← clamp(S · f) and hue H ← fmod(H + 2π · f, 2π) in HSV. Blur is separable, its weights
// e^(-d² / 2σ²) normalised, borders reflected. Both do nothing where their switch is 0.
#include "simt.cuh"

constexpr real TWO_PI = real(6.283185307179586);

struct Colour {
    real a, b, c;
};

// Remainder with the sign of the divisor.
DEVICE real positive_mod(real x, real n) { return x - floor_of(x / n) * n; }

// Hue in radians, saturation, value. Among equal largest channels the first decides the hue.
DEVICE Colour hsv_of(Colour rgb) {
    const real high = max_of(rgb.a, max_of(rgb.b, rgb.c));
    const real low = min_of(rgb.a, min_of(rgb.b, rgb.c));
    const real span = high - low;
    const real saturation = span / (high + real(1e-6));
    const real divisor = span == 0 ? real(1) : span;
    real hue;
    if (rgb.a == high) {
        hue = rgb.b - rgb.c;
    } else if (rgb.b == high) {
        hue = 2 * divisor + rgb.c - rgb.a;
    } else {
        hue = 4 * divisor + rgb.a - rgb.b;
    }
    return {TWO_PI * positive_mod(hue / divisor / 6, 1), saturation, high};
}

DEVICE Colour rgb_of(Colour hsv) {
    const real turn = positive_mod(hsv.a / TWO_PI * 6, 6);
    const real sector = floor_of(turn);
    const real f = turn - sector;
    const real v = hsv.c, p = v * (1 - hsv.b), q = v * (1 - f * hsv.b), t = v * (1 - (1 - f) * hsv.b);
    if (sector == 0) return {v, t, p};
    if (sector == 1) return {q, v, p};
    if (sector == 2) return {p, v, t};
    if (sector == 3) return {p, q, v};
    if (sector == 4) return {t, p, v};
    return {v, p, q};
}

// x: values that (x · std + mean) · unit brings to [0, 1]. factors: brightness, contrast, saturation,
// hue; order: which of the four comes first, second, … (a negative entry is left out).
KERNEL(color_jitter, real* x /* B,pixels,3 */, const real* factors /* B,4 */, const int32_t* order /* B,4 */, const int32_t* switches /* 2 */, const real* mean /* 3 */, const real* std /* 3 */, real unit, int64_t batch, int64_t pixels) {
    if (!switches[0]) return;
    GRID_LOOP(i, batch * pixels) {
        const int64_t b = i / pixels;
        const real* f = factors + 4 * b;
        Colour colour = {
            (x[3 * i] * std[0] + mean[0]) * unit,
            (x[3 * i + 1] * std[1] + mean[1]) * unit,
            (x[3 * i + 2] * std[2] + mean[2]) * unit,
        };
        for (int64_t k = 0; k < 4; ++k) {
            const int32_t what = order[4 * b + k];
            if (what == 0) {
                const real add = f[0] - 1;
                colour = {clamp_to(colour.a + add, 0, 1), clamp_to(colour.b + add, 0, 1),
                          clamp_to(colour.c + add, 0, 1)};
            } else if (what == 1) {
                colour = {clamp_to(colour.a * f[1], 0, 1), clamp_to(colour.b * f[1], 0, 1),
                          clamp_to(colour.c * f[1], 0, 1)};
            } else if (what == 2) {
                const Colour hsv = hsv_of(colour);
                colour = rgb_of({hsv.a, clamp_to(hsv.b * f[2], 0, 1), hsv.c});
            } else if (what == 3) {
                const Colour hsv = hsv_of(colour);
                const real hue = hsv.a + f[3] * TWO_PI;
                // The sign of the dividend is kept, as C's fmod does.
                const real wrapped = hue < 0 ? -positive_mod(-hue, TWO_PI) : positive_mod(hue, TWO_PI);
                colour = rgb_of({wrapped, hsv.b, hsv.c});
            }
        }
        x[3 * i] = (colour.a / unit - mean[0]) / std[0];
        x[3 * i + 1] = (colour.b / unit - mean[1]) / std[1];
        x[3 * i + 2] = (colour.c / unit - mean[2]) / std[2];
    }
}

// The colour conversion alone: a test compares it.
KERNEL(rgb_to_hsv, const real* rgb /* pixels,3 */, real* hsv /* pixels,3 */, int64_t pixels) {
    GRID_LOOP(i, pixels) {
        const Colour colour = hsv_of({rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]});
        hsv[3 * i] = colour.a;
        hsv[3 * i + 1] = colour.b;
        hsv[3 * i + 2] = colour.c;
    }
}

// weights[b, d] = e^(-d² / 2σ²) / Σ for offsets d of 0 to half; one block an image.
KERNEL(blur_weights, const real* sigma /* B */, real* weights /* B,half+1 */, int64_t half) {
    const real s = sigma[block_index()];
    real* w = weights + block_index() * (half + 1);
    auto bell = [&](int64_t d) { return exp_of(real(d * d) / (-2 * s * s)); };
    const real sum = block_sum(2 * half + 1, [&](int64_t i) { return bell(i - half); });
    BLOCK_LOOP(d, half + 1) w[d] = bell(d) / sum;
}

DEVICE int64_t reflected(int64_t i, int64_t n) {
    i = i < 0 ? -i : i;
    return i < n ? i : 2 * (n - 1) - i;
}

// Offsets that a blur reaches: beyond the bell's underflow every weight is zero.
DEVICE int64_t reach_of(const real* weights, int64_t half) {
    int64_t reach = half;
    while (reach > 0 && weights[reach] == 0) --reach;
    return reach;
}

// y = x blurred along its rows.
KERNEL(blur_rows, const real* x /* B,H,W,3 */, const real* weights /* B,half+1 */, const int32_t* switches /* 2 */, real* y /* B,H,W,3 */, int64_t half, int64_t batch, int64_t height, int64_t width) {
    if (!switches[1]) return;
    ROW_LOOP(row, batch * height) {
        const real* w = weights + row / height * (half + 1);
        const int64_t reach = reach_of(w, half);
        const real* in = x + row * width * 3;
        real* out = y + row * width * 3;
        const int64_t edge = reach * 3, end = width * 3;
        BLOCK_LOOP(i, end) out[i] = in[i] * w[0];
        // A thread stays with its elements, so no barrier is needed between offsets.
        for (int64_t d = 1; d <= reach; ++d) {
            const real weight = w[d];
            BLOCK_LOOP(i, end) {
                if (i >= edge && i + edge < end) {
                    out[i] += (in[i - 3 * d] + in[i + 3 * d]) * weight;
                } else {
                    const int64_t p = i / 3, c = i % 3;
                    const real left = in[reflected(p - d, width) * 3 + c];
                    out[i] += (left + in[reflected(p + d, width) * 3 + c]) * weight;
                }
            }
        }
    }
}

// y = x blurred along its columns.
KERNEL(blur_columns, const real* x /* B,H,W,3 */, const real* weights /* B,half+1 */, const int32_t* switches /* 2 */, real* y /* B,H,W,3 */, int64_t half, int64_t batch, int64_t height, int64_t width) {
    if (!switches[1]) return;
    const int64_t n = width * 3;
    ROW_LOOP(row, batch * height) {
        const int64_t image = row / height, r = row % height;
        const real* w = weights + image * (half + 1);
        const int64_t reach = reach_of(w, half);
        const real* in = x + image * height * n;
        real* out = y + row * n;
        BLOCK_LOOP(i, n) out[i] = in[r * n + i] * w[0];
        for (int64_t d = 1; d <= reach; ++d) {
            const real* above = in + reflected(r - d, height) * n;
            const real* below = in + reflected(r + d, height) * n;
            const real weight = w[d];
            BLOCK_LOOP(i, n) out[i] += (above[i] + below[i]) * weight;
        }
    }
}
