//! Bytes as hexadecimal digits.

/// Two lowercase digits a byte, as `sha256sum` prints them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
