//! Hexadecimal formatting.

/// Formats bytes as two lowercase hexadecimal digits each, like `sha256sum`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
