//! The known keys, which are those of the complete preset. All unknown and missing keys are
//! reported at once, before any value is checked.

use std::ops::Range;
use std::sync::OnceLock;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::presets::{COMPLETE, PRESETS};
use super::report::{Problem, nearest};
use crate::error::{Error, Result};

/// Returns the parsed complete preset.
pub(super) fn complete() -> Result<&'static DeTable<'static>> {
    static TREE: OnceLock<Result<DeTable<'static>, String>> = OnceLock::new();
    let tree = TREE.get_or_init(|| {
        let (_, text) = PRESETS[0];
        DeTable::parse(text).map(Spanned::into_inner).map_err(|e| e.to_string())
    });
    tree.as_ref().map_err(|text| Error::config(format!("preset {COMPLETE}: {text}")))
}

/// Returns the keys that do not exist and those that are missing.
pub(super) fn compare(tree: &DeTable) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    section(tree, complete()?, "", &mut problems);
    Ok(problems)
}

fn section(tree: &DeTable, schema: &DeTable, prefix: &str, problems: &mut Vec<Problem>) {
    for (key, value) in tree {
        let name = key.get_ref().as_ref();
        let path = join(prefix, name);
        match (schema.get(name).map(Spanned::get_ref), value.get_ref()) {
            (None, _) => problems.push(unknown(name, key.span(), schema, prefix)),
            (Some(DeValue::Table(schema)), DeValue::Table(tree)) => {
                section(tree, schema, &path, problems);
            }
            // A section in a list may leave out keys with defaults; deserializing it reports the
            // required ones.
            (Some(DeValue::Array(schema)), DeValue::Array(items)) => {
                let known = union(schema);
                let tables = items.iter().filter_map(|item| item.get_ref().as_table());
                for key in tables.flat_map(DeTable::keys) {
                    let name = key.get_ref().as_ref();
                    if !known.contains_key(name) {
                        problems.push(unknown(name, key.span(), &known, &path));
                    }
                }
            }
            _ => {}
        }
    }
    for key in schema.keys().map(|key| key.get_ref().as_ref()) {
        if !tree.contains_key(key) {
            let key = Some(join(prefix, key));
            let message = format!(
                "is missing; start the file with `base = \"{COMPLETE}\"` to list only what \
                 differs from that preset"
            );
            problems.push(Problem { key, span: None, message });
        }
    }
}

fn unknown(name: &str, span: Range<usize>, section: &DeTable, prefix: &str) -> Problem {
    let message = format!("unknown key; {}", suggestion(name, section, prefix));
    Problem::new(&join(prefix, name), span, message)
}

/// Merges the keys of all sections in a list.
fn union<'a>(items: &[Spanned<DeValue<'a>>]) -> DeTable<'a> {
    let mut all = DeTable::new();
    for table in items.iter().filter_map(|item| item.get_ref().as_table()) {
        all.extend(table.clone());
    }
    all
}

/// Suggests what the user may have meant by `name` in section `prefix`.
fn suggestion(name: &str, section: &DeTable, prefix: &str) -> String {
    let known = || section.keys().map(|key| key.get_ref().as_ref());
    if let Some(near) = nearest(name, known()) {
        return format!("did you mean `{}`?", join(prefix, near));
    }
    let mut elsewhere = Vec::new();
    if let Ok(schema) = complete() {
        homes(schema, name, "", &mut elsewhere);
    }
    if elsewhere.is_empty() {
        format!("known here: {}", known().collect::<Vec<_>>().join(", "))
    } else {
        format!("did you mean `{}`?", elsewhere.join("` or `"))
    }
}

/// Collects the paths of all keys called `name`.
fn homes(schema: &DeTable, name: &str, prefix: &str, found: &mut Vec<String>) {
    for (key, value) in schema {
        let path = join(prefix, key.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            homes(inner, name, &path, found);
        }
        if key.get_ref() == name {
            found.push(path);
        }
    }
}

/// Finds lists of fixed length that were given too many values: those in `kept`, which was read from
/// `tree`, are shorter, because the deserializer drops the rest silently.
pub(super) fn overlong(tree: &DeTable, kept: &toml::Table, prefix: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, value) in tree {
        let path = join(prefix, key.get_ref());
        match (value.get_ref(), kept.get(key.get_ref().as_ref())) {
            (DeValue::Table(tree), Some(toml::Value::Table(kept))) => {
                problems.extend(overlong(tree, kept, &path));
            }
            (DeValue::Array(given), Some(toml::Value::Array(kept))) if given.len() > kept.len() => {
                let message = format!("expected a list of {}, got {}", kept.len(), given.len());
                problems.push(Problem::new(&path, value.span(), message));
            }
            _ => {}
        }
    }
    problems
}

/// Finds whole numbers that cannot be written as TOML again, although some types could hold them.
pub(super) fn oversized(tree: &DeTable) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, value) in tree {
        in_value(key.get_ref(), value, &mut problems);
    }
    problems
}

fn in_value(path: &str, value: &Spanned<DeValue>, problems: &mut Vec<Problem>) {
    match value.get_ref() {
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            if i64::from_str_radix(&digits, number.radix()).is_err() {
                let message = format!("expected at most {}, got {number}", i64::MAX);
                problems.push(Problem::new(path, value.span(), message));
            }
        }
        DeValue::Array(items) => items.iter().for_each(|item| in_value(path, item, problems)),
        DeValue::Table(section) => {
            for (key, value) in section {
                in_value(&join(path, key.get_ref()), value, problems);
            }
        }
        _ => {}
    }
}

pub(super) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.into() } else { format!("{prefix}.{key}") }
}

/// Returns the value at a path of keys.
pub(super) fn lookup<'t, 'a>(
    tree: &'t DeTable<'a>,
    path: &[&str],
) -> Option<&'t Spanned<DeValue<'a>>> {
    let (last, sections) = path.split_last()?;
    let mut table = tree;
    for key in sections {
        table = table.get(*key)?.get_ref().as_table()?;
    }
    table.get(*last)
}

/// Returns the path of the innermost value or key at a span.
pub(super) fn path_at(tree: &DeTable, span: &Range<usize>, prefix: &str) -> Option<String> {
    let covers = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in tree {
        let path = join(prefix, key.get_ref());
        let inside = match value.get_ref() {
            DeValue::Table(table) => path_at(table, span, &path),
            DeValue::Array(items) => items
                .iter()
                .filter_map(|item| item.get_ref().as_table())
                .find_map(|table| path_at(table, span, &path)),
            _ => None,
        };
        if inside.is_some() {
            return inside;
        }
        if covers(value.span()) || covers(key.span()) {
            return Some(path);
        }
    }
    None
}
