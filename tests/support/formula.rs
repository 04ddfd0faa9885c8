//! The formula that generates every weight and input of the stored cases, so that none is shipped.
//!
//! A tensor is identified by its name: the name's FNV-1a hash seeds a SplitMix64 sequence, one
//! number per element in row-major order of the reference's layout.

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// 64-bit FNV-1a.
pub fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Element `index` of the sequence that `hash` seeds.
pub fn bits(hash: u64, index: usize) -> u64 {
    let mut z = hash.wrapping_add((index as u64).wrapping_mul(GAMMA));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number in [-1, 1), a multiple of 2^-23: exact in f32.
fn signed(bits: u64) -> f64 {
    (bits >> 40) as f64 / 8_388_608.0 - 1.0
}

fn fill(name: &str, len: usize, value: impl Fn(f64) -> f64) -> Vec<f32> {
    let hash = name_hash(name);
    (0..len).map(|i| value(signed(bits(hash, i))) as f32).collect()
}

/// Generates a weight of the reference's state dict by its full key, in the reference's layout.
/// Computes in f64 and rounds once. Returns `None` for a key that the formula has no rule for.
pub fn weight(key: &str, shape: &[usize]) -> Option<Vec<f32>> {
    let len: usize = shape.iter().product();
    if shape.len() >= 2 {
        let fan_in = len as f64 / shape[0] as f64;
        let bound = (3.0 / fan_in).sqrt();
        return Some(fill(key, len, |u| u * bound));
    }
    let rule: fn(f64) -> f64 = match key.rsplit('.').next()? {
        "weight" => |u| 1.0 + 0.1 * u,
        "bias" => |u| 0.05 * u,
        "running_mean" => |u| 0.1 * u,
        "running_var" => |u| 1.0 + 0.5 * u.abs(),
        _ => return None,
    };
    Some(fill(key, len, rule))
}

/// Like [`weight`], then multiplied in f32 by the factor of each `scale` whose substring the key
/// contains.
pub fn scaled_weight(key: &str, shape: &[usize], scale: &[(String, f32)]) -> Option<Vec<f32>> {
    let mut values = weight(key, shape)?;
    for (_, factor) in scale.iter().filter(|(part, _)| key.contains(part.as_str())) {
        values.iter_mut().for_each(|v| *v *= factor);
    }
    Some(values)
}

/// Numbers in [-2, 2), the range of normalized images.
pub fn image(name: &str, len: usize) -> Vec<f32> {
    fill(name, len, |u| 2.0 * u)
}

/// Numbers in [0, 1).
pub fn unit(name: &str, len: usize) -> Vec<f32> {
    fill(name, len, |u| (u + 1.0) / 2.0)
}

pub fn bytes(name: &str, len: usize) -> Vec<u8> {
    let hash = name_hash(name);
    (0..len).map(|i| (bits(hash, i) >> 56) as u8).collect()
}

/// Label maps B,H,W: square blocks of one class each, with every eleventh block ignored (255). An
/// empty `classes` means 0..19.
pub fn label(name: &str, [b, h, w]: [usize; 3], block: usize, classes: &[u8]) -> Vec<u8> {
    let hash = name_hash(name);
    let (rows, cols) = (h.div_ceil(block), w.div_ceil(block));
    let class_of = |k: usize| match (k % 11, classes) {
        (10, _) => 255,
        (_, []) => (bits(hash, k) % 19) as u8,
        _ => classes[(bits(hash, k) % classes.len() as u64) as usize],
    };
    let mut out = Vec::with_capacity(b * h * w);
    for image in 0..b {
        for y in 0..h {
            for x in 0..w {
                out.push(class_of((image * rows + y / block) * cols + x / block));
            }
        }
    }
    out
}
