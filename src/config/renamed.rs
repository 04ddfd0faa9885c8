//! Converts keys that had another name in an earlier version.
//!
//! Files, overrides and checkpoints that use an old name stay readable. Each layer is converted
//! before the layers are merged, so that an old key in an upper layer wins over the new key in a
//! lower one, and errors still point at the text the user wrote.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::lookup;
use super::report::Problem;
use crate::error::{Error, Result};

/// A key's old and new name.
pub(super) struct Rename {
    pub old: &'static str,
    /// The names of the keys that replaced it.
    pub new: &'static [&'static str],
    pub convert: Convert,
}

/// The conversion of a renamed key's value.
#[derive(Clone, Copy)]
pub(super) enum Convert {
    /// The value stays the same.
    Keep,
    /// A threshold that a uniform draw must exceed becomes the probability that it does.
    OneMinus,
    /// A method becomes switches.
    Switches,
}

/// Values of the former key `method`, and the switches of teacher, mask and QuadMix that each
/// stands for.
const METHODS: [(&str, [bool; 3]); 4] = [
    ("source_only", [false, false, false]),
    ("dacs", [true, false, false]),
    ("mic", [true, true, false]),
    ("quadmix", [true, true, true]),
];

const fn same(old: &'static str, new: &'static [&'static str]) -> Rename {
    Rename { old, new, convert: Convert::Keep }
}

const fn one_minus(old: &'static str, new: &'static [&'static str]) -> Rename {
    Rename { old, new, convert: Convert::OneMinus }
}

/// All renames since version 0.1.0. A renamed list comes before the renamed keys of its entries.
pub(super) const RENAMES: &[Rename] = &[
    Rename {
        old: "method",
        new: &["teacher.enabled", "mask.enabled", "quadmix.enabled"],
        convert: Convert::Switches,
    },
    same("device.graph", &["device.cuda_graph"]),
    same("source.fit", &["source.resize"]),
    same("target.fit", &["target.resize"]),
    same("network.recompute", &["network.activation_checkpointing"]),
    same("network.join_passes", &["network.batch_student_passes"]),
    same("teacher.alpha", &["teacher.ema_decay"]),
    one_minus("augment.jitter_threshold", &["augment.jitter_prob"]),
    one_minus("augment.blur_threshold", &["augment.blur_prob"]),
    same("mix.released_unlabelled", &["mix.released_unlabeled"]),
    same("quadmix.released_colours", &["quadmix.released_colors"]),
    same("optimizer.rules", &["optimizer.param_groups"]),
    same("optimizer.rules.lr", &["optimizer.param_groups.lr_mult"]),
    same("optimizer.rules.decay", &["optimizer.param_groups.decay_mult"]),
    same("eval.fit", &["eval.resize"]),
];

/// Keys that were added since version 0.1.0.
pub(super) const ADDED: &[&str] = &[
    "data.photometric_distortion",
    "network.hrda.attention",
    "network.hrda.context_scale",
    "network.hrda.overlap",
    "mask.labels",
    "mask.confidence_weight",
    "run.keep_best",
    "run.tensorboard",
    "run.image_interval",
    "device.memory_limit",
    "source.skip_unlabeled",
    "target.skip_unlabeled",
    "network.projection",
    "augment.unmixed",
    "contrast.enabled",
    "contrast.kind",
    "contrast.temperature",
    "contrast.regularizer",
    "contrast.start",
    "contrast.min_share",
    "contrast.memory",
    "class_balanced_crop.enabled",
    "class_balanced_crop.boxes",
    "parallel.launcher",
    "parallel.batch_norm",
];

impl Convert {
    fn describe(self) -> String {
        match self {
            Convert::Keep => "unchanged".into(),
            Convert::OneMinus => "1 minus the old value".into(),
            Convert::Switches => {
                let methods = METHODS.iter().map(|(name, [teacher, mask, quadmix])| {
                    format!("`{name}`: {teacher}, {mask}, {quadmix}")
                });
                methods.collect::<Vec<_>>().join("; ")
            }
        }
    }

    /// Returns the values of the new keys, or what was expected of the old value.
    fn apply<'a>(self, value: &DeValue<'a>, texts: &'a Texts) -> Result<Vec<DeValue<'a>>, String> {
        match self {
            Convert::Keep => Ok(vec![value.clone()]),
            Convert::OneMinus => {
                let text = match value {
                    DeValue::Float(number) => number.as_str().replace('_', ""),
                    DeValue::Integer(number) => number.to_string(),
                    // The wrong type is reported later, under the new name.
                    _ => return Ok(vec![value.clone()]),
                };
                let threshold = text.parse().ok().filter(|x| (0.0..=1.0).contains(x));
                let threshold: f64 = threshold
                    .ok_or_else(|| format!("expected a number from 0 to 1, got {text}"))?;
                // Single precision, as the value is used: 0.2 becomes 0.8, not 0.7999999999999999.
                let probability = texts.keep(format!("{:?}", (1.0 - threshold) as f32));
                let parsed = DeValue::parse(probability).map(Spanned::into_inner);
                Ok(vec![parsed.unwrap_or(DeValue::String(probability.into()))])
            }
            Convert::Switches => {
                let method = METHODS.iter().find(|(name, _)| value.as_str() == Some(*name));
                let (_, switches) = method.ok_or_else(|| {
                    let names: Vec<String> =
                        METHODS.iter().map(|(n, _)| format!("{n:?}")).collect();
                    format!("expected {}, got {}", names.join(" or "), shown(value))
                })?;
                Ok(switches.iter().map(|&on| DeValue::Boolean(on)).collect())
            }
        }
    }
}

/// Owns the texts of converted numbers, because a parsed TOML number borrows its text.
#[derive(Default)]
pub(super) struct Texts {
    text: OnceCell<String>,
    next: OnceCell<Box<Texts>>,
}

impl Texts {
    fn keep(&self, text: String) -> &str {
        match self.text.set(text) {
            Ok(()) => self.text.get().map_or("", String::as_str),
            Err(text) => self.next.get_or_init(Box::default).keep(text),
        }
    }
}

/// An old key that was found and converted.
pub(super) struct Converted {
    rename: &'static Rename,
    /// The span of the old key.
    pub span: Range<usize>,
    /// The new keys, each with its value.
    values: Vec<(&'static str, String)>,
}

impl Converted {
    /// Returns the old name.
    pub fn key(&self) -> &'static str {
        self.rename.old
    }

    /// Describes the conversion for the user: the new names and the values that were read.
    pub fn message(&self) -> String {
        let names: Vec<String> = self.values.iter().map(|(key, _)| format!("`{key}`")).collect();
        let values: Vec<String> =
            self.values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        format!("is now {}, read as {}", listed(&names), values.join(", "))
    }
}

/// Converts every old key in the tree of one layer.
///
/// It is a problem if an old key cannot be converted, or if the layer has its new key too.
pub(super) fn convert<'a>(
    tree: &mut DeTable<'a>,
    texts: &'a Texts,
    problems: &mut Vec<Problem>,
) -> Vec<Converted> {
    let mut found = Vec::new();
    for rename in RENAMES {
        // Only the last part of a name differs, and an outer list has been renamed already.
        let home: Vec<&str> = rename.home().collect();
        let mut first = None;
        visit(tree, &home, &mut |section| match rename.convert_in(section, texts) {
            Ok(converted) => first = first.take().or(converted),
            Err(problem) => problems.push(problem),
        });
        found.extend(first);
    }
    found.sort_by_key(|converted| converted.span.start);
    // Keys inside a list may have been renamed after the list itself.
    for converted in &mut found {
        for (key, value) in &mut converted.values {
            let path: Vec<&str> = key.split('.').collect();
            if let Some(list) = lookup(tree, &path).filter(|list| list.get_ref().is_array()) {
                *value = shown(list.get_ref());
            }
        }
    }
    found
}

impl Rename {
    /// Returns the section of the new key.
    fn home(&self) -> impl Iterator<Item = &'static str> {
        let section = match self.new {
            [one] => one.rsplit_once('.').map(|(section, _)| section),
            _ => None,
        };
        section.into_iter().flat_map(|section| section.split('.'))
    }

    fn convert_in<'a>(
        &'static self,
        section: &mut DeTable<'a>,
        texts: &'a Texts,
    ) -> Result<Option<Converted>, Problem> {
        let old = last(self.old);
        let Some((key, value)) = section.remove_entry(old) else { return Ok(None) };
        let span = key.span();
        let problem = |message: String| Problem::new(self.old, span.clone(), message);
        let new = self.convert.apply(value.get_ref(), texts).map_err(|expected| {
            let names: Vec<String> = self.new.iter().map(|new| format!("`{new}`")).collect();
            problem(format!("{expected} (the key is now {})", listed(&names)))
        })?;
        let mut values = Vec::new();
        for (new, inner) in self.new.iter().copied().zip(new) {
            values.push((new, shown(&inner)));
            let path: Vec<&str> = match self.new {
                [_] => vec![last(new)],
                _ => new.split('.').collect(),
            };
            if lookup(section, &path).is_some() {
                let both = format!("is the old name of `{new}`, which is set too: keep one");
                return Err(problem(both));
            }
            insert(section, &path, &span, Spanned::new(value.span(), inner));
        }
        Ok(Some(Converted { rename: self, span, values }))
    }
}

/// Calls `f` with the table at a path, or with each of the tables in a list.
fn visit<'a>(tree: &mut DeTable<'a>, path: &[&str], f: &mut dyn FnMut(&mut DeTable<'a>)) {
    let Some((first, rest)) = path.split_first() else { return f(tree) };
    match tree.get_mut(*first).map(Spanned::get_mut) {
        Some(DeValue::Table(table)) => visit(table, rest, f),
        Some(DeValue::Array(items)) => {
            for item in items.iter_mut() {
                if let DeValue::Table(table) = item.get_mut() {
                    visit(table, rest, f);
                }
            }
        }
        _ => {}
    }
}

/// Inserts a value, creating the sections that are missing.
fn insert<'a>(
    table: &mut DeTable<'a>,
    path: &[&'static str],
    span: &Range<usize>,
    value: Spanned<DeValue<'a>>,
) {
    let [section, rest @ ..] = path else { return };
    let key = Spanned::new(span.clone(), (*section).into());
    if rest.is_empty() {
        table.insert(key, value);
        return;
    }
    if !table.contains_key(*section) {
        table.insert(key, Spanned::new(span.clone(), DeValue::Table(DeTable::new())));
    }
    // If the section is not a table, deserializing it reports that.
    if let Some(DeValue::Table(inner)) = table.get_mut(*section).map(Spanned::get_mut) {
        insert(inner, rest, span, value);
    }
}

fn last(key: &'static str) -> &'static str {
    key.rsplit_once('.').map_or(key, |(_, last)| last)
}

fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Formats a value as it is written in a file.
fn shown(value: &DeValue) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| shown(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(table) => {
            let fields = table
                .iter()
                .map(|(key, value)| format!("{} = {}", key.get_ref(), shown(value.get_ref())));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Parses a complete configuration that any version saved as TOML. Returns it with today's keys,
/// and the old names of the keys that were converted.
pub(super) fn saved(text: &str) -> Result<(toml::Table, BTreeMap<&'static str, &'static str>)> {
    let texts = Texts::default();
    let mut tree = DeTable::parse(text).map_err(|e| Error::config(e.to_string()))?.into_inner();
    let mut problems = Vec::new();
    let converted = convert(&mut tree, &texts, &mut problems);
    if let Some(Problem { key, message, .. }) = problems.first() {
        let key = key.as_deref().unwrap_or_default();
        return Err(Error::config(format!("`{key}`: {message}")));
    }
    let deserializer = toml::Deserializer::from(Spanned::new(0..0, tree));
    let table = toml::Table::deserialize(deserializer).map_err(|e| Error::config(e.to_string()))?;
    let names = converted.iter().flat_map(|c| c.values.iter().map(|(new, _)| (*new, c.key())));
    Ok((table, names.collect()))
}

/// Converts a configuration in JSON, as logs and evaluations store it, to today's keys.
///
/// # Errors
/// [`Error::Config`] where an old key cannot be converted.
pub fn with_current_keys(config: serde_json::Value) -> Result<serde_json::Value> {
    // The caller rejects a value that is not a configuration.
    let Ok(text) = toml::to_string(&config) else { return Ok(config) };
    let (table, _) = saved(&text)?;
    serde_json::to_value(table).map_err(|e| Error::config(e.to_string()))
}

/// Returns every renamed key: its old name, its new names, and how its value is converted. The
/// configuration reference lists them.
pub fn renamed_keys() -> impl Iterator<Item = (&'static str, &'static [&'static str], String)> {
    RENAMES.iter().map(|rename| (rename.old, rename.new, rename.convert.describe()))
}
