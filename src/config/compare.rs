//! Which keys of two configurations differ.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::schema::Config;
use crate::error::{Error, Result};

/// Keys, or sections, that change nothing of what a run computes: where it reads and writes, how often
/// it saves, how it is spread over the machine. (Another device rounds otherwise, no more.)
const FREE: [&str; 13] = [
    "run.",
    "eval.",
    "device.kind",
    "device.graph",
    "network.recompute",
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
    /// What another configuration, as [`Config::to_toml`] wrote it, has otherwise, so that this one
    /// would go on with another run than that one: `key: was …, is …`. A key that the other does not
    /// know is newer than it.
    ///
    /// # Errors
    /// [`Error::Config`] when it is no TOML.
    pub fn differences(&self, other: &str) -> Result<Vec<String>> {
        let parse = |text: &str| text.parse::<Table>().map_err(|e| Error::config(e.to_string()));
        let (old, new) = (flat(parse(other)?), flat(parse(&self.to_toml()?)?));
        let free = |key: &str| {
            FREE.iter().any(|free| key == *free || (free.ends_with('.') && key.starts_with(free)))
        };
        let shown = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
        Ok(old
            .iter()
            .filter(|(key, value)| !free(key) && new.get(*key) != Some(value))
            .map(|(key, value)| format!("{key}: was {value}, is {}", shown(new.get(key))))
            .collect())
    }
}

/// Values by their dotted keys.
fn flat(table: Table) -> BTreeMap<String, Value> {
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
