//! Finds the file and line that each value of a configuration comes from.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::notes::Notes;
use super::report::Sources;

/// Returns the place of every value, by its dotted key.
pub(super) fn of(tree: &DeTable, sources: &Sources) -> BTreeMap<String, String> {
    let mut origins = BTreeMap::new();
    let mut open = vec![(String::new(), tree)];
    while let Some((prefix, table)) = open.pop() {
        for (key, value) in table {
            let key = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(section) => open.push((format!("{key}."), section)),
                // A value that no text holds was added to a configuration of an earlier version.
                _ if value.span().is_empty() => {
                    origins.insert(key, "default of this version".into());
                }
                _ => {
                    let place = sources.place(value.span().start).unwrap_or_default();
                    origins.insert(key, place);
                }
            }
        }
    }
    origins
}

/// Adds the place of every value to a configuration's TOML, as comments that line up within each
/// section.
pub(super) fn annotated(text: &str, notes: &Notes) -> String {
    let mut out = String::new();
    let mut section = String::new();
    let mut lines: Vec<(&str, Option<&String>)> = Vec::new();
    let mut finish = |lines: &mut Vec<(&str, Option<&String>)>| {
        let wide = lines.iter().filter(|(_, origin)| origin.is_some());
        let wide = wide.map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(MOST_COLUMNS);
        for (line, origin) in lines.drain(..) {
            match origin {
                Some(origin) => out += &format!("{line:wide$}  # {origin}\n"),
                None => out += &format!("{line}\n"),
            }
        }
    };
    for line in text.lines() {
        if line.starts_with('[') {
            finish(&mut lines);
            section = line.trim_matches(['[', ']']).to_owned();
            // The tables of an array come from one place, which stands at their heads.
            let array = line.starts_with("[[").then(|| notes.origins.get(&section)).flatten();
            lines.push((line, array));
            finish(&mut lines);
            continue;
        }
        let key = line.split_once(" = ").map(|(key, _)| match section.as_str() {
            "" => key.to_owned(),
            section => format!("{section}.{key}"),
        });
        lines.push((line, key.and_then(|key| notes.origins.get(&key))));
    }
    finish(&mut lines);
    out
}

/// Comments stand further right only behind longer values.
const MOST_COLUMNS: usize = 48;
