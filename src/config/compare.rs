//! Which keys of two configurations differ.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::renamed;
use super::schema::Config;
use crate::error::{Error, Result};

/// Keys, or sections, that change nothing of what a run computes: where it reads and writes, how often
/// it saves, how it is spread over the machine. (Another device rounds otherwise, no more.)
const FREE: [&str; 13] = [
    "run.",
    "eval.",
    "device.kind",
    "device.cuda_graph",
    "network.activation_checkpointing",
    "device.threads",
    "data.workers",
    "data.prefetch",
    "data.toy",
    "data.max_bad_files",
    "source.root",
    "target.root",
    "weights.init",
];

impl Config {
    /// The keys whose values in another configuration, as [`Config::to_toml`] of this version or an
    /// earlier one wrote it, make it another run: `key: was …, is …`.
    ///
    /// Keys of earlier versions are converted first. A key that the other does not have is newer
    /// than it.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when it is no TOML, or holds an old key that cannot be converted.
    pub fn differences(&self, other: &str) -> Result<Vec<String>> {
        let (old, renamed) = renamed::saved(other)
            .map_err(|e| Error::config(format!("the saved configuration: {e}")))?;
        let (new, _) = renamed::saved(&self.to_toml()?)?;
        let (old, new) = (flat(old), flat(new));
        let free = |key: &str| {
            FREE.iter().any(|free| key == *free || (free.ends_with('.') && key.starts_with(free)))
        };
        let shown = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
        Ok(old
            .iter()
            .filter(|(key, value)| !free(key) && new.get(*key) != Some(value))
            .map(|(key, value)| {
                let old = renamed.get(key.as_str()).map(|old| format!(" (then {old})"));
                let old = old.unwrap_or_default();
                format!("{key}{old}: was {value}, is {}", shown(new.get(key)))
            })
            .collect())
    }
}

/// Values by their dotted keys.
pub(super) fn flat(table: Table) -> BTreeMap<String, Value> {
    let mut open = vec![(String::new(), table)];
    let mut flat = BTreeMap::new();
    while let Some((prefix, table)) = open.pop() {
        for (key, value) in table {
            match value {
                Value::Table(section) => open.push((format!("{prefix}{key}."), section)),
                value => drop(flat.insert(format!("{prefix}{key}"), value)),
            }
        }
    }
    flat
}
