//! The color conversion of the color jitter, in plain arithmetic.

/// Returns hue as a fraction of the circle, saturation and value.
pub fn hsv([r, g, b]: [f64; 3]) -> [f64; 3] {
    let (high, low) = (r.max(g).max(b), r.min(g).min(b));
    let (span, sixth) = (high - low, 1.0 / 6.0);
    let hue = match span {
        0.0 => 0.0,
        _ if r == high => sixth * (g - b) / span,
        _ if g == high => sixth * (2.0 + (b - r) / span),
        _ => sixth * (4.0 + (r - g) / span),
    };
    [hue.rem_euclid(1.0), span / (high + 1e-6), high]
}
