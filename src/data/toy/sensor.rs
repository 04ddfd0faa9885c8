//! Sensor model: exposure, color cast, contrast, vignette, blur and noise.

use super::dice::Dice;
use super::look::Look;
use super::render::Canvas;
use crate::rng::{GOLDEN, mix64};

/// Sensor parameters of one image.
pub struct Sensor {
    gain: [f32; 3],
    contrast: f32,
    vignette: f32,
    /// Radius of the blur, relative to the image height.
    blur: f32,
    /// Standard deviation of the noise.
    noise: f32,
    key: u64,
}

impl Sensor {
    /// Draws the exposure and white balance of an image. All other parameters depend only on the
    /// domain.
    pub fn new(look: &Look, dice: &mut Dice) -> Self {
        let exposure = dice.range(0.92, 1.08);
        let warmth = dice.range(-0.02, 0.02);
        let cast = [look.between(1.0, 1.05), look.between(1.0, 0.98), look.between(1.0, 0.88)];
        Sensor {
            gain: [
                cast[0] * (exposure + warmth),
                cast[1] * exposure,
                cast[2] * (exposure - warmth),
            ],
            contrast: look.between(1.0, 0.78),
            vignette: look.between(0.0, 0.22),
            blur: look.between(0.0, 0.006),
            noise: look.between(0.006, 0.030),
            key: dice.bits(),
        }
    }

    /// Converts a canvas to 8-bit RGB, `height · width · 3`.
    pub fn expose(&self, mut canvas: Canvas) -> Vec<u8> {
        let (width, height) = (canvas.width, canvas.height);
        soften(&mut canvas.rgb, width, height, self.blur * height as f32);
        let (cx, cy) = (0.5 * width as f32, 0.5 * height as f32);
        let reach = 1.0 / (cx * cx + cy * cy);
        let mut out = Vec::with_capacity(width * height * 3);
        for (i, pixel) in canvas.rgb.iter().enumerate() {
            let (dx, dy) = ((i % width) as f32 + 0.5 - cx, (i / width) as f32 + 0.5 - cy);
            let dim = 1.0 - self.vignette * (dx * dx + dy * dy) * reach;
            let grain = self.grain(i as u64);
            for c in 0..3 {
                let seen = pixel[c] * self.gain[c];
                let value = (0.5 + (seen - 0.5) * self.contrast) * dim + grain[c];
                out.push((value * 255.0 + 0.5).clamp(0.0, 255.0) as u8);
            }
        }
        out
    }

    /// Returns the noise of one pixel: mostly luma, some chroma. Sums of bytes are close enough to
    /// a normal distribution, and avoid logarithms, whose results differ between machines.
    fn grain(&self, pixel: u64) -> [f32; 3] {
        let bytes = mix64(self.key ^ pixel.wrapping_mul(GOLDEN)).to_le_bytes();
        let sum = |range: std::ops::Range<usize>| {
            let n = range.len() as f32;
            let total: u32 = bytes[range].iter().map(|&b| u32::from(b)).sum();
            // The standard deviation of a uniform byte is 73.9.
            (total as f32 - 127.5 * n) / (73.9 * n.sqrt())
        };
        let luma = sum(0..4);
        [sum(4..6), sum(5..7), sum(6..8)].map(|chroma| self.noise * (0.85 * luma + 0.5 * chroma))
    }
}

/// Blurs with a tent filter of `radius` pixels, first along rows and then along columns.
fn soften(rgb: &mut [[f32; 3]], width: usize, height: usize, radius: f32) {
    let reach = radius.floor() as usize + 1;
    let taps: Vec<f32> = (0..=reach).map(|d| (1.0 - d as f32 / (radius + 1.0)).max(0.0)).collect();
    let total = taps[0] + 2.0 * taps[1..].iter().sum::<f32>();
    if radius <= 0.0 {
        return;
    }
    let mut line = vec![[0.0; 3]; width.max(height)];
    let mut pass = |start: usize, step: usize, count: usize| {
        for i in 0..count {
            line[i] = rgb[start + i * step];
        }
        for i in 0..count {
            let mut sum = [0.0; 3];
            for (d, &tap) in taps.iter().enumerate() {
                let (a, b) = (line[i.saturating_sub(d)], line[(i + d).min(count - 1)]);
                let tap = if d == 0 { 0.5 * tap } else { tap };
                for c in 0..3 {
                    sum[c] += tap * (a[c] + b[c]);
                }
            }
            rgb[start + i * step] = sum.map(|s| s / total);
        }
    };
    for y in 0..height {
        pass(y * width, 1, width);
    }
    for x in 0..width {
        pass(x, width, height);
    }
}
