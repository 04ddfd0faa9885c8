// Pixel colors, and color jitter equivalent to kornia 0.5.8 on RGB in [0, 1], applied in a given
// order: brightness clamp(x + f - 1), contrast clamp(x · f), and in HSV saturation S ← clamp(S · f)
// and hue H ← fmod(H + 2π · f, 2π).
#pragma once
#include "simt.cuh"

constexpr real TWO_PI = real(6.283185307179586);

struct Color {
    real a, b, c;
};

DEVICE Color color_at(const real* image, int64_t i) { return {image[3 * i], image[3 * i + 1], image[3 * i + 2]}; }
DEVICE void set_color(real* image, int64_t i, Color color) {
    image[3 * i] = color.a;
    image[3 * i + 1] = color.b;
    image[3 * i + 2] = color.c;
}

// Remainder with the sign of the divisor.
DEVICE real positive_mod(real x, real n) { return x - floor_of(x / n) * n; }

// Converts to hue in radians, saturation and value. If several channels share the maximum, the
// first of them determines the hue.
DEVICE Color hsv_of(Color rgb) {
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

DEVICE Color rgb_of(Color hsv) {
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

// Color jitter of a normalized pixel: (x · std + mean) · unit is in [0, 1]. `factors` are those of
// brightness, contrast, saturation and hue; order[k] is the operation applied k-th, and a negative
// entry is skipped.
DEVICE Color jittered(Color x, const real* factors, const int32_t* order, const real* mean, const real* std, real unit) {
    Color color = {
        (x.a * std[0] + mean[0]) * unit,
        (x.b * std[1] + mean[1]) * unit,
        (x.c * std[2] + mean[2]) * unit,
    };
    for (int64_t k = 0; k < 4; ++k) {
        const int32_t what = order[k];
        if (what == 0) {
            const real add = factors[0] - 1;
            color = {clamp_to(color.a + add, 0, 1), clamp_to(color.b + add, 0, 1),
                      clamp_to(color.c + add, 0, 1)};
        } else if (what == 1) {
            color = {clamp_to(color.a * factors[1], 0, 1), clamp_to(color.b * factors[1], 0, 1),
                      clamp_to(color.c * factors[1], 0, 1)};
        } else if (what == 2) {
            const Color hsv = hsv_of(color);
            color = rgb_of({hsv.a, clamp_to(hsv.b * factors[2], 0, 1), hsv.c});
        } else if (what == 3) {
            const Color hsv = hsv_of(color);
            const real hue = hsv.a + factors[3] * TWO_PI;
            // The sign of the dividend is kept, like in C's fmod.
            const real wrapped = hue < 0 ? -positive_mod(-hue, TWO_PI) : positive_mod(hue, TWO_PI);
            color = rgb_of({wrapped, hsv.b, hsv.c});
        }
    }
    return {
        (color.a / unit - mean[0]) / std[0],
        (color.b / unit - mean[1]) / std[1],
        (color.c / unit - mean[2]) / std[2],
    };
}
