//! Inputs of the gradient checks.

/// The inputs and parameters of an op, given by shape.
pub struct Case<'a> {
    pub inputs: &'a [&'a [usize]],
    pub params: &'a [&'a [usize]],
    /// Applied to the uniform numbers in [-1, 1) that fill inputs and parameters.
    pub map: fn(f64) -> f64,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Case { inputs: &[], params: &[], map: |x| x }
    }
}

/// A deterministic sequence in [-1, 1).
pub fn numbers(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}
