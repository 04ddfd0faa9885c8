//! Finds the file and line that each value of a configuration comes from.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::notes::Notes;
use super::report::Sources;
use crate::printable::shown;

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
    // The quotes at the end of a text of several lines, and where it comes from.
    let mut text_end: Option<(&str, Option<&String>)> = None;
    let mut lines: Vec<(&str, Option<&String>)> = Vec::new();
    let mut finish = |lines: &mut Vec<(&str, Option<&String>)>| {
        let wide = lines.iter().filter(|(_, origin)| origin.is_some());
        let wide = wide.map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(MOST_COLUMNS);
        for (line, origin) in lines.drain(..) {
            match origin {
                // A line end in an override would end the comment.
                Some(origin) => {
                    out += &format!("{line:wide$}  # {}\n", shown(Path::new(origin)));
                }
                None => out += &format!("{line}\n"),
            }
        }
    };
    for line in text.lines() {
        if let Some((quotes, origin)) = text_end {
            let ends = line.ends_with(quotes);
            lines.push((line, origin.filter(|_| ends)));
            text_end = text_end.filter(|_| !ends);
            continue;
        }
        if line.starts_with('[') {
            finish(&mut lines);
            section = line.trim_matches(['[', ']']).to_owned();
            // The tables of an array come from one place, which stands at their heads.
            let array = line.starts_with("[[").then(|| notes.origins.get(&section)).flatten();
            lines.push((line, array));
            finish(&mut lines);
            continue;
        }
        let (key, value) = line.split_once(" = ").unwrap_or_default();
        let key = if section.is_empty() { key.into() } else { format!("{section}.{key}") };
        let origin = notes.origins.get(&key);
        let opens =
            |quotes: &&str| value.strip_prefix(quotes).is_some_and(|v| !v.ends_with(quotes));
        text_end = ["\"\"\"", "'''"].into_iter().find(|q| opens(q)).map(|quotes| (quotes, origin));
        lines.push((line, origin.filter(|_| text_end.is_none())));
    }
    finish(&mut lines);
    out
}

/// Comments stand further right only behind longer values.
const MOST_COLUMNS: usize = 48;
