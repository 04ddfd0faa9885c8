//! The values of section `[device]` that are more than words.

use std::str::FromStr;

use super::schema::DeviceConfig;

/// The most memory that tensors may take on a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryLimit {
    /// As much as there is.
    None,
    /// This many bytes.
    Bytes(usize),
    /// This share of the device's memory.
    Share(f64),
}

impl MemoryLimit {
    /// What a valid limit looks like, for messages.
    pub(super) const EXPECTED: &str = "\"none\", a size like \"20GiB\" or a share like \"75%\"";

    /// Returns the limit in bytes on a device with this much memory.
    pub fn bytes(self, total: usize) -> Option<usize> {
        match self {
            MemoryLimit::None => None,
            MemoryLimit::Bytes(bytes) => Some(bytes),
            MemoryLimit::Share(share) => Some((total as f64 * share) as usize),
        }
    }
}

/// Parses `none`, a number with a unit (`MiB`, `GiB`, `MB`, `GB`) or a number with `%`.
impl FromStr for MemoryLimit {
    type Err = ();

    fn from_str(text: &str) -> Result<MemoryLimit, ()> {
        if text == "none" {
            return Ok(MemoryLimit::None);
        }
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(())?;
        let (number, unit) = text.split_at(unit_at);
        let number: f64 = number.parse().map_err(|_| ())?;
        let limit = match unit.trim() {
            "%" if number <= 100.0 => MemoryLimit::Share(number / 100.0),
            "MiB" => MemoryLimit::Bytes((number * f64::from(1 << 20)) as usize),
            "GiB" => MemoryLimit::Bytes((number * f64::from(1 << 30)) as usize),
            "MB" => MemoryLimit::Bytes((number * 1e6) as usize),
            "GB" => MemoryLimit::Bytes((number * 1e9) as usize),
            _ => return Err(()),
        };
        if number > 0.0 { Ok(limit) } else { Err(()) }
    }
}

impl DeviceConfig {
    /// Returns the index of the GPU that `kind` requires: 0 for `cuda`, 1 for `cuda:1`; None for
    /// other devices.
    pub fn gpu(&self) -> Option<usize> {
        gpu_index(&self.kind)
    }

    /// Returns the limit of the device's memory. An invalid one, which loading refuses, is none.
    pub fn memory_limit(&self) -> MemoryLimit {
        self.memory_limit.parse().unwrap_or(MemoryLimit::None)
    }
}

/// Returns whether a text is a value of `device.kind`.
pub fn is_device(kind: &str) -> bool {
    matches!(kind, "auto" | "host") || gpu_index(kind).is_some()
}

fn gpu_index(kind: &str) -> Option<usize> {
    match kind.strip_prefix("cuda")? {
        "" => Some(0),
        index => index.strip_prefix(':').filter(|i| !i.starts_with('+'))?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_sizes_or_shares() {
        let bytes = |text: &str| text.parse::<MemoryLimit>().map(|limit| limit.bytes(1000));
        assert_eq!(bytes("none"), Ok(None));
        assert_eq!(bytes("20GiB"), Ok(Some(20 << 30)));
        assert_eq!(bytes("1.5 GiB"), Ok(Some(3 << 29)));
        assert_eq!(bytes("512MiB"), Ok(Some(512 << 20)));
        assert_eq!(bytes("2GB"), Ok(Some(2_000_000_000)));
        assert_eq!(bytes("75%"), Ok(Some(750)));
        for wrong in ["", "20", "GiB", "-1GiB", "0GiB", "0%", "101%", "20gib", "1.2.3GB", "all"] {
            assert_eq!(bytes(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn gpus_are_counted_from_0() {
        let of = |kind: &str| gpu_index(kind);
        assert_eq!([of("cuda"), of("cuda:0"), of("cuda:12")], [Some(0), Some(0), Some(12)]);
        for wrong in ["auto", "host", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda1", "CUDA"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert!(is_device("auto") && is_device("cuda:3") && !is_device("gpu"));
    }
}
