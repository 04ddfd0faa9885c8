//! Photometric distortion of source images: brightness, contrast, saturation and hue, as the
//! supervised pipelines of mmsegmentation distort them (`PhotoMetricDistortion`).
//!
//! Like there, images are bytes throughout, and saturation and hue go through OpenCV's 8-bit HSV:
//! hue in steps of two degrees, and a way back that truncates, as OpenCV's vector code does.

use std::sync::OnceLock;

use crate::rng::Draw;

/// Largest change of brightness, in gray levels.
const BRIGHTNESS: f32 = 32.0;
/// Range of the factors of contrast and saturation.
const FACTORS: (f32, f32) = (0.5, 1.5);
/// Largest change of hue, in steps of two degrees; the positive end is never drawn.
const HUE: i32 = 18;
/// Hues in a turn.
const TURN: i32 = 180;

/// Distorts RGB pixels in place. Each distortion happens with probability ½; contrast comes first
/// or last, which is equally likely.
pub fn distort(rgb: &mut [u8], draw: &mut Draw) {
    let pixels = rgb.as_chunks_mut::<3>().0;
    if draw.chance(0.5) {
        linear(pixels, 1.0, draw.range_f32(-BRIGHTNESS, BRIGHTNESS));
    }
    let contrast_first = draw.chance(0.5);
    let contrast = draw.chance(0.5).then(|| draw.range_f32(FACTORS.0, FACTORS.1));
    if let Some(factor) = contrast.filter(|_| contrast_first) {
        linear(pixels, factor, 0.0);
    }
    if draw.chance(0.5) {
        saturate(pixels, draw.range_f32(FACTORS.0, FACTORS.1));
    }
    if draw.chance(0.5) {
        turn(pixels, draw.below(2 * HUE as usize) as i32 - HUE);
    }
    if let Some(factor) = contrast.filter(|_| !contrast_first) {
        linear(pixels, factor, 0.0);
    }
}

/// Clips to the range of a byte and truncates.
fn scaled(value: u8, factor: f32, offset: f32) -> u8 {
    (value as f32 * factor + offset).clamp(0.0, 255.0) as u8
}

fn linear(pixels: &mut [[u8; 3]], factor: f32, offset: f32) {
    pixels.as_flattened_mut().iter_mut().for_each(|value| *value = scaled(*value, factor, offset));
}

fn saturate(pixels: &mut [[u8; 3]], factor: f32) {
    for pixel in pixels {
        let [hue, saturation, value] = to_hsv(*pixel);
        *pixel = to_rgb([hue, scaled(saturation, factor, 0.0), value]);
    }
}

fn turn(pixels: &mut [[u8; 3]], by: i32) {
    for pixel in pixels {
        let [hue, saturation, value] = to_hsv(*pixel);
        let hue = (hue as i32 + by).rem_euclid(TURN) as u8;
        *pixel = to_rgb([hue, saturation, value]);
    }
}

/// OpenCV's fixed-point reciprocals of the value and of the difference between the largest and the
/// smallest channel, with 12 bits after the point.
fn reciprocals() -> &'static [[i32; 2]; 256] {
    static TABLE: OnceLock<[[i32; 2]; 256]> = OnceLock::new();
    TABLE.get_or_init(|| {
        std::array::from_fn(|i| match i {
            0 => [0, 0],
            _ => [255.0, TURN as f64 / 6.0]
                .map(|of| (of * 4096.0 / i as f64).round_ties_even() as i32),
        })
    })
}

fn to_hsv(pixel: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = pixel.map(i32::from);
    let value = r.max(g).max(b);
    let difference = value - r.min(g).min(b);
    let rounded = |product: i32| (product + (1 << 11)) >> 12;
    let saturation = rounded(difference * reciprocals()[value as usize][0]);
    let hue = match value {
        _ if value == r => g - b,
        _ if value == g => b - r + 2 * difference,
        _ => r - g + 4 * difference,
    };
    let hue = rounded(hue * reciprocals()[difference as usize][1]);
    let hue = if hue < 0 { hue + TURN } else { hue };
    [hue as u8, saturation as u8, value as u8]
}

fn to_rgb([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    let hue = hue as f32 * (6.0 / TURN as f32);
    let (saturation, value) = (saturation as f32 * (1.0 / 255.0), value as f32 * (1.0 / 255.0));
    let sector = hue.floor();
    let within = hue - sector;
    let low = value * (1.0 - saturation);
    // Fused, as in OpenCV's code for processors with AVX2.
    let falling = value * (-saturation).mul_add(within, 1.0);
    let rising = value * (-saturation).mul_add(1.0 - within, 1.0);
    let rgb = match sector as usize % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    };
    rgb.map(|channel| (channel * 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, mix64};

    /// Every byte is the top byte of a hash of its position.
    fn noise() -> Vec<[u8; 3]> {
        let byte = |i: u64| {
            let z = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            ((z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 56) as u8
        };
        let bytes: Vec<u8> = (0..64 * 64 * 3).map(byte).collect();
        bytes.as_chunks::<3>().0.to_vec()
    }

    /// Sums every byte times an odd number derived from its position, modulo 2⁶⁴.
    fn digest(pixels: &[[u8; 3]]) -> u64 {
        pixels.as_flattened().iter().zip(0u64..).fold(0, |sum, (&v, i)| {
            sum.wrapping_add((v as u64).wrapping_mul(i.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
        })
    }

    /// The digests are those of the reference's expressions with NumPy 1.26 and OpenCV 4.5.5.
    #[test]
    fn each_distortion_is_that_of_the_reference() {
        type Distortion = fn(&mut [[u8; 3]]);
        let cases: [(Distortion, u64); 7] = [
            (|_| (), 0xb246_fde3_ce8e_5304),
            (|x| linear(x, 1.0, -20.7), 0x9956_fa36_4ba3_b334),
            (|x| linear(x, 1.37, 0.0), 0x78ee_d9e7_2301_086f),
            (|x| saturate(x, 1.3), 0x277d_c6e0_68c8_9470),
            (|x| saturate(x, 0.6), 0x6bd7_bb59_0606_f3c8),
            (|x| turn(x, 11), 0x7599_ef33_7f98_e11c),
            (|x| turn(x, -18), 0x991f_9fab_2d27_219a),
        ];
        for (i, (distortion, expected)) in cases.into_iter().enumerate() {
            let mut pixels = noise();
            distortion(&mut pixels);
            assert_eq!(digest(&pixels), expected, "case {i}");
        }
    }

    #[test]
    fn half_of_the_distortions_happen_in_either_order() {
        let original = noise();
        let mut same = 0;
        for seed in 0..320 {
            let mut pixels = original.clone();
            let rgb = pixels.as_flattened_mut();
            distort(rgb, &mut Draw::new(mix64(seed), 0, Purpose::Photometric, 0, 0));
            same += usize::from(pixels == original);
        }
        // None of four happens with probability 1/16.
        assert!((8..40).contains(&same), "{same} of 320 are unchanged");
    }
}
