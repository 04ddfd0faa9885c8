//! Compares two configurations key by key.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::renamed;
use super::schema::Config;
use crate::error::{Error, Result};

/// Keys and sections that do not change the results of a run: paths, how often it saves, and how it
/// uses the machine. (Another device only rounds differently.)
const FREE: [&str; 15] = [
    "run.",
    "eval.",
    "device.kind",
    "device.cuda_graph",
    "device.memory_limit",
    "network.activation_checkpointing",
    "device.threads",
    "data.workers",
    "data.prefetch",
    "data.toy",
    "data.max_bad_files",
    "parallel.launcher",
    "source.root",
    "target.root",
    "weights.init",
];

impl Config {
    /// Returns the keys whose values differ from those of `other` in a way that changes the results
    /// of a run, as `key: was …, is …`. `other` is text that [`Config::to_toml`] of this or an
    /// earlier version wrote.
    ///
    /// Keys of earlier versions are converted first. Keys that `other` lacks were added later and
    /// do not count.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if `other` is not TOML or has an old key that cannot be
    /// converted.
    pub fn differences(&self, other: &str) -> Result<Vec<String>> {
        let (old, renamed) = renamed::saved(other)
            .map_err(|e| Error::config(format!("the saved configuration: {e}")))?;
        let (new, _) = renamed::saved(&self.to_toml()?)?;
        let (old, new) = (flat(old), flat(new));
        Ok(old
            .iter()
            .filter(|(key, value)| !is_free(key) && new.get(*key) != Some(value))
            .map(|(key, value)| {
                let old = renamed.get(key.as_str()).map(|old| format!(" (then {old})"));
                let old = old.unwrap_or_default();
                format!("{key}{old}: was {}, is {}", shown(Some(value)), shown(new.get(key)))
            })
            .collect())
    }

    /// Returns what the results of a run depend on, a line for each key.
    ///
    /// # Errors
    /// [`Error::Config`] if a value has no TOML form.
    pub fn determining(&self) -> Result<String> {
        let (table, _) = renamed::saved(&self.to_toml()?)?;
        let keys = flat(table).into_iter().filter(|(key, _)| !is_free(key));
        Ok(keys.map(|(key, value)| format!("{key} = {value}\n")).collect())
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        // In one line, whatever it holds.
        Some(Value::String(text)) => format!("{text:?}"),
        Some(value) => value.to_string(),
        None => "nothing".into(),
    }
}

fn is_free(key: &str) -> bool {
    FREE.iter().any(|free| key == *free || (free.ends_with('.') && key.starts_with(free)))
}

impl Config {
    /// Returns the keys whose values differ from those of `other`, with both values as TOML; one that
    /// a side lacks is `nothing`.
    ///
    /// # Errors
    /// [`Error::Config`] if a value has no TOML form, such as a path that is not UTF-8.
    pub fn compared(&self, other: &Config) -> Result<Vec<(String, [String; 2])>> {
        let table = |config: &Config| -> Result<_> {
            let text = config.to_toml()?;
            let table = toml::from_str(&text).map_err(|e| Error::config(e.to_string()))?;
            Ok(flat(table))
        };
        let (mine, others) = (table(self)?, table(other)?);
        let keys: BTreeSet<&String> = mine.keys().chain(others.keys()).collect();
        let differing = keys.into_iter().filter_map(|key| {
            let (mine, other) = (mine.get(key), others.get(key));
            (mine != other).then(|| (key.clone(), [shown(mine), shown(other)]))
        });
        Ok(differing.collect())
    }
}

/// Flattens sections: returns values by their dotted keys.
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
