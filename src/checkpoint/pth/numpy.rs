//! Scalars of NumPy, which checkpoints have among their metadata: `numpy.float64(0.5)` is pickled
//! as a call of `scalar` with a dtype and bytes, which is plain data.

use super::value::Value;

/// Longest scalar in bytes; longer byte strings are not kept.
pub(super) const MAX_BYTES: usize = 16;

/// Returns whether a function makes a scalar of a dtype and bytes.
pub(super) fn is_scalar(function: &str) -> bool {
    ["numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"].contains(&function)
}

/// Returns the value of a scalar. `dtype` is NumPy's code, such as `i8` or `f4`; bytes are in
/// little-endian order. Returns `None` for types that have no plain value.
pub(super) fn scalar(dtype: &str, bytes: &[u8]) -> Option<Value> {
    let (kind, width) = dtype.split_at_checked(1)?;
    if width.parse() != Ok(bytes.len()) || bytes.len() > 8 {
        return None;
    }
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let word = u64::from_le_bytes(word);
    let unused = 64 - 8 * bytes.len() as u32;
    Some(match (kind, bytes) {
        ("b", [value]) => Value::Bool(*value != 0),
        // The shifts extend the sign.
        ("i", [_, ..]) => Value::Int((word << unused) as i64 >> unused),
        ("u", [_, ..]) => Value::Int(i64::try_from(word).ok()?),
        ("f", [_, _, _, _]) => Value::Float(f32::from_bits(word as u32).into()),
        ("f", [_, _, _, _, _, _, _, _]) => Value::Float(f64::from_bits(word)),
        _ => return None,
    })
}

/// Returns the bytes of a text in Latin-1, as protocols before 3 pickle bytes.
pub(super) fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().take(MAX_BYTES + 1).map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_have_their_values() {
        let shown = |dtype: &str, bytes: &[u8]| format!("{:?}", scalar(dtype, bytes));
        assert_eq!(shown("i8", &2i64.to_le_bytes()), "Some(Int(2))");
        assert_eq!(shown("i4", &(-7i32).to_le_bytes()), "Some(Int(-7))");
        assert_eq!(shown("u1", &[200]), "Some(Int(200))");
        assert_eq!(shown("u8", &u64::MAX.to_le_bytes()), "None");
        assert_eq!(shown("f8", &0.5f64.to_le_bytes()), "Some(Float(0.5))");
        assert_eq!(shown("f4", &0.5f32.to_le_bytes()), "Some(Float(0.5))");
        assert_eq!(shown("b1", &[1]), "Some(Bool(true))");
        // A width that is not that of the bytes, and types without a plain value.
        for (dtype, bytes) in [("i8", &[0u8; 4][..]), ("", &[]), ("c16", &[0; 16]), ("i0", &[])] {
            assert!(scalar(dtype, bytes).is_none(), "{dtype}");
        }
        assert_eq!(latin1("\u{2}\u{ff}"), Some(vec![2, 255]));
        assert_eq!(latin1("€"), None);
    }
}
