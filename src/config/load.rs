//! Reads a configuration: presets, files, inheritance through `base`, and `--set` overrides.
//!
//! All texts are collected first, from the lowest `base` to the overrides. Each is parsed, its
//! spans are shifted to a range of their own, as if all texts were one, and the trees are merged. A
//! wrong type or a value out of range can therefore be traced to the file and line, or the
//! override, that it came from.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check;
use super::keys::{self, lookup, path_at};
use super::notes::Notes;
use super::origins;
use super::presets::{METHODS, PRESETS, preset_names};
use super::renamed::{self, Texts};
use super::report::{Layer, Problem, Sources, nearest, plain};
use super::schema::Config;
use super::sizes;
use crate::error::{Error, Result};
use crate::file;

/// A longer chain of `base`s is taken for a cycle.
const MAX_DEPTH: usize = 16;
/// Maximum number of parts of a key; the longest has three.
const MAX_KEYS: usize = 16;
/// Maximum size of a configuration in bytes; a long one has 10 000.
const MAX_BYTES: u64 = 4 << 20;

impl Config {
    /// Reads a configuration.
    ///
    /// A bare name (`gta_vit`) is searched as `configs/<name>.toml` in the working directory, then
    /// among the built-in presets; anything with a `/` or ending in `.toml` is a path, and a folder
    /// is a run's, which holds its configuration as `config.toml`. A file may
    /// name another as its `base` (searched in the file's folder first) and lists only what
    /// differs. In a list of bases, the first is used with its own bases, and the keys that the
    /// others themselves state are applied on top in order. `overrides` are `section.key=value`;
    /// later ones win, and a value that is not TOML is a string. Keys may have the names of earlier
    /// versions: [`Config::notes`] says what they are called today.
    ///
    /// # Errors
    /// [`Error::Config`] names file, line and key, and the nearest known key if one is unknown;
    /// [`Error::Io`] if a file cannot be read.
    pub fn load(name_or_path: &str, overrides: &[String]) -> Result<Self> {
        Self::load_with(name_or_path, None, overrides)
    }

    /// Reads a configuration like [`Config::load`] and applies one of the [`METHODS`] below the
    /// overrides: every switch, and the published values that do not depend on a size.
    /// [`Config::notes`] lists the sizes that stay the configuration's and differ from the
    /// published ones.
    ///
    /// # Errors
    /// The same as for [`Config::load`]; also if the method does not exist.
    pub fn load_with(
        name_or_path: &str,
        method: Option<&str>,
        overrides: &[String],
    ) -> Result<Self> {
        let mut layers = Vec::new();
        collect(&mut layers, find(name_or_path, None)?)?;
        layers.reverse();
        let mut run = Path::new(name_or_path).file_stem().unwrap_or_default().to_os_string();
        if let Some(method) = method {
            run.push("_");
            run.push(method);
        }
        over(layers, method, overrides, &Path::new("runs").join(run))
    }

    /// Returns the whole configuration as TOML in which a comment says where each value comes from: a
    /// file or preset with its line, or an override.
    ///
    /// # Errors
    /// The same as for [`Config::to_toml`].
    pub fn explained(&self) -> Result<String> {
        Ok(origins::annotated(&self.to_toml()?, &self.notes))
    }

    /// Reads a complete configuration like [`Config::from_toml`], and applies a method and overrides
    /// to it like [`Config::load_with`].
    ///
    /// # Errors
    /// The same as for [`Config::load_with`].
    pub fn from_toml_with(
        text: &str,
        origin: &str,
        method: Option<&str>,
        overrides: &[String],
    ) -> Result<Self> {
        if text.len() as u64 > MAX_BYTES {
            let problem = format!("{origin}: has more than {} MiB", MAX_BYTES >> 20);
            return Err(Error::config(problem));
        }
        let layers = vec![Layer::file(origin.into(), text.into())];
        over(layers, method, overrides, Path::new(""))
    }

    /// Returns whether [`Config::load`] would take this word for the name of a configuration: a
    /// path that ends in `.toml`, a name in `configs/`, or a preset.
    pub fn is_name(word: &str) -> bool {
        word.ends_with(".toml") || (!word.contains(['/', '\\']) && find(word, None).is_ok())
    }

    /// Reads a built-in preset, ignoring `configs/` in the working directory.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no preset of that name.
    pub fn preset(name: &str) -> Result<Self> {
        let none = || Error::config(format!("there is no preset `{name}`"));
        let mut layers = Vec::new();
        collect(&mut layers, preset(name).ok_or_else(none)?)?;
        layers.reverse();
        assemble(&Sources::new(layers), &Path::new("runs").join(name), None)
    }

    /// Reads a complete configuration from text that [`Config::to_toml`] wrote. Errors call the text
    /// `origin`.
    ///
    /// # Errors
    /// The same as for [`Config::load`].
    pub fn from_toml(text: &str, origin: &str) -> Result<Self> {
        Self::from_toml_with(text, origin, None, &[])
    }

    /// Returns the whole configuration as TOML without comments, as checkpoints store it.
    ///
    /// # Errors
    /// [`Error::Config`] if a value has no TOML form, such as a path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|e| Error::config(format!("cannot serialize the configuration: {e}")))
    }
}

enum Found {
    File(PathBuf),
    Preset(&'static str, &'static str),
}

/// Puts a method and overrides on top of a configuration's layers, and assembles them.
fn over(
    mut layers: Vec<Layer>,
    method: Option<&str>,
    overrides: &[String],
    out: &Path,
) -> Result<Config> {
    if let Some(method) = method {
        let (mut layer, _) = open(self::method(method)?)?;
        layer.over_base = true;
        layers.push(layer);
    }
    layers.extend(overrides.iter().map(|text| Layer::over(text.trim().into())));
    assemble(&Sources::new(layers), out, method)
}

/// Finds a configuration: a path is relative to the folder of the file that names it, a bare name
/// is searched.
fn find(name: &str, base_folder: Option<&Path>) -> Result<Found> {
    if name.contains(['/', '\\']) || name.ends_with(".toml") {
        let path = base_folder.unwrap_or(Path::new("")).join(name);
        return Ok(Found::File(if path.is_dir() { path.join("config.toml") } else { path }));
    }
    let file = format!("{name}.toml");
    let here = Path::new("configs").join(&file);
    let in_folder = base_folder.map(|folder| folder.join(&file));
    if let Some(path) = in_folder.into_iter().chain([here.clone()]).find(|path| path.is_file()) {
        return Ok(Found::File(path));
    }
    preset(name).ok_or_else(|| {
        let hint = match nearest(name, preset_names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the presets are {}", preset_names().collect::<Vec<_>>().join(", ")),
        };
        Error::config(format!(
            "no configuration `{name}`: there is neither a file {} nor a preset of that name; \
             {hint}\n(to use another file, give its path, ending in .toml)",
            here.display()
        ))
    })
}

fn preset(name: &str) -> Option<Found> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(name, text)| Found::Preset(name, text))
}

fn method(name: &str) -> Result<Found> {
    let known = METHODS.contains(&name).then(|| preset(name)).flatten();
    known.ok_or_else(|| {
        let names = METHODS.join(", ");
        Error::config(format!("there is no method `{name}`; the methods are {names}"))
    })
}

/// Reads the text, and returns it with the folder of its file.
fn open(found: Found) -> Result<(Layer, Option<PathBuf>)> {
    match found {
        Found::Preset(name, text) => Ok((Layer::file(format!("preset {name}"), text.into()), None)),
        Found::File(path) => {
            let text = file::read_text(&path, MAX_BYTES)
                .map_err(|e| Error::io(&path, "read the configuration", e))?;
            let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
            Ok((Layer::file(path.display().to_string(), text), Some(folder)))
        }
    }
}

/// Adds a file followed by its bases, so that the lowest layer comes last.
fn collect(layers: &mut Vec<Layer>, found: Found) -> Result<()> {
    let (layer, folder) = open(found)?;
    let text = layer.text.clone();
    let here = layer.alone();
    layers.push(layer);
    // A file that does not parse is reported later, with the others.
    let Ok(table) = DeTable::parse(&text) else { return Ok(()) };
    let Some(base) = table.get_ref().get("base") else { return Ok(()) };
    let wrong = |base: &Spanned<DeValue>, message: String| {
        let problem = Problem::new("base", base.span(), message);
        Sources::new(vec![here.alone()]).error(vec![problem])
    };
    if layers.len() >= MAX_DEPTH {
        let message =
            format!("more than {MAX_DEPTH} files, each based on the next: is this a cycle?");
        return Err(wrong(base, message));
    }
    let find_base = |base: &Spanned<DeValue>| {
        let Some(name) = base.get_ref().as_str() else {
            let message =
                "expected the name of a preset or the path of a file, in quotes, or a list of them";
            return Err(wrong(base, message.into()));
        };
        let next = match &folder {
            Some(folder) => find(name, Some(folder)).map_err(|e| wrong(base, e.to_string()))?,
            // A preset is based on the built-in preset of that name, whatever `configs/` holds.
            None => {
                let none = || wrong(base, "expected the name of a preset".into());
                preset(name).ok_or_else(none)?
            }
        };
        match &next {
            Found::File(path) if !path.is_file() => {
                Err(wrong(base, format!("there is no file {}", path.display())))
            }
            _ => Ok(next),
        }
    };
    let (first, others) = match base.get_ref() {
        DeValue::Array(list) => match list.iter().as_slice() {
            [first, others @ ..] => (first, others),
            [] => return Err(wrong(base, "the list is empty".into())),
        },
        _ => (base, &[][..]),
    };
    for other in others.iter().rev() {
        let (mut layer, _) = open(find_base(other)?)?;
        layer.over_base = other.get_ref().as_str().is_some_and(|name| METHODS.contains(&name));
        layers.push(layer);
    }
    collect(layers, find_base(first)?)
}

/// Parses, merges and checks the sources. `out` replaces an empty `run.out`. `method` is the method
/// whose keys are among the sources.
fn assemble(sources: &Sources, out: &Path, method: Option<&str>) -> Result<Config> {
    let texts = Texts::default();
    let mut tree = added_keys()?;
    let mut notes = Notes::default();
    let mut problems = Vec::new();
    for layer in &sources.layers {
        let mut above =
            if layer.over { set(&tree, layer, sources)? } else { parse(layer, sources)? };
        if layer.over_base {
            sizes::OF_THE_BASE.iter().for_each(|section| drop(above.remove(*section)));
        }
        for old in renamed::convert(&mut above, &texts, &mut problems) {
            notes.warn(sources.line(&Problem::new(old.key(), old.span.clone(), old.message())));
        }
        merge(&mut tree, above);
    }
    tree.remove("base");

    if problems.is_empty() {
        problems = keys::compare(&tree)?;
    }
    if problems.is_empty() {
        problems = keys::oversized(&tree);
    }
    if !problems.is_empty() {
        return Err(sources.error(problems));
    }
    let deserializer = toml::Deserializer::from(Spanned::new(0..0, tree.clone()));
    let mut config = Config::deserialize(deserializer).map_err(|e| {
        let key = e.span().and_then(|span| path_at(&tree, &span, ""));
        sources.error(vec![Problem { key, span: e.span(), message: plain(e.message()) }])
    })?;
    notes.origins = origins::of(&tree, sources);
    config.notes = notes;
    if config.run.out.as_os_str().is_empty() {
        config.run.out = out.into();
        config.notes.origins.insert("run.out".into(), "the configuration's name".into());
    }
    let kept = toml::Table::try_from(&config)
        .map_err(|e| Error::config(format!("cannot serialize the configuration: {e}")))?;
    let mut problems = keys::overlong(&tree, &kept, "");
    problems.extend(check::problems(&config).into_iter().map(|(key, message)| {
        let path: Vec<&str> = key.split('.').collect();
        Problem { span: lookup(&tree, &path).map(Spanned::span), key: Some(key), message }
    }));
    if !problems.is_empty() {
        return Err(sources.error(problems));
    }
    if config.schedule.end == 0 {
        config.schedule.end = config.run.max_iters;
        config.notes.origins.insert("schedule.end".into(), "run.max_iters".into());
    }
    if let Some(method) = method {
        let from_base = |key: &str| {
            let path: Vec<&str> = key.split('.').collect();
            let layer = lookup(&tree, &path).and_then(|value| sources.layer(value.span().start));
            layer.is_some_and(|layer| !layer.over && !layer.is_preset(method))
        };
        for note in sizes::notes(&config, method, &from_base)? {
            config.notes.note(note);
        }
    }
    Ok(config)
}

fn parse<'a>(layer: &'a Layer, sources: &Sources) -> Result<DeTable<'a>> {
    match DeTable::parse(&layer.text) {
        Ok(table) => Ok(shift_table(table.into_inner(), layer.start)),
        Err(e) => {
            let span = e.span().map(|span| shift(span, layer.start));
            Err(sources.error(vec![Problem { key: None, span, message: e.message().into() }]))
        }
    }
}

/// Returns the tree of one `section.key=value`, to be merged over `tree`.
fn set<'a>(tree: &DeTable<'a>, layer: &'a Layer, sources: &Sources) -> Result<DeTable<'a>> {
    let text = layer.text.as_str();
    let usage =
        || Error::config(format!("--set {text}: expected KEY=VALUE, such as --set data.batch=1"));
    let (path, raw) = text.split_once('=').ok_or_else(usage)?;
    let raw = raw.trim();
    let keys: Vec<&str> = path.split('.').map(str::trim).collect();
    if keys.iter().any(|key| key.is_empty()) {
        return Err(usage());
    }
    if keys.len() > MAX_KEYS {
        let first = keys[..MAX_KEYS].join(".");
        return Err(Error::config(format!("--set {first}.…: no key has so many parts")));
    }
    let span = shift(0..text.len(), layer.start);
    // If the key holds a string, a number or a date is one too (`run.out=2024`).
    let text_wanted = lookup(keys::complete()?, &keys).is_some_and(|v| v.get_ref().is_str());
    let value = match DeValue::parse(raw) {
        Ok(value) if !text_wanted || value.get_ref().is_str() => value.into_inner(),
        _ => DeValue::String(raw.into()),
    };
    let mut value = cover(value, &span);
    for (depth, key) in keys.iter().enumerate().rev() {
        let section = &keys[..depth];
        if lookup(tree, section).is_some_and(|v| !v.get_ref().is_table()) {
            let problem = Problem::new(
                &section.join("."),
                span,
                "has no keys inside it: set the whole value",
            );
            return Err(sources.error(vec![problem]));
        }
        let mut table = DeTable::new();
        table.insert(Spanned::new(span.clone(), (*key).into()), value);
        value = Spanned::new(span.clone(), DeValue::Table(table));
    }
    Ok(match value.into_inner() {
        DeValue::Table(table) => table,
        _ => DeTable::new(),
    })
}

/// Returns the keys that a complete configuration of an earlier version lacks, with the complete
/// preset's values.
fn added_keys() -> Result<DeTable<'static>> {
    let mut added = DeTable::new();
    for key in renamed::ADDED {
        let path: Vec<&str> = key.split('.').collect();
        let Some(value) = lookup(keys::complete()?, &path) else { continue };
        let nested = path.iter().rev().fold(value.clone(), |value, key| {
            let entry = (Spanned::new(0..0, (*key).into()), value);
            Spanned::new(0..0, DeValue::Table(DeTable::from_iter([entry])))
        });
        if let DeValue::Table(nested) = nested.into_inner() {
            merge(&mut added, nested);
        }
    }
    Ok(added)
}

/// Merges sections key by key; any other value replaces the one below.
fn merge<'a>(below: &mut DeTable<'a>, above: DeTable<'a>) {
    for (key, value) in above {
        let span = value.span();
        let old = below.remove(key.get_ref().as_ref()).map(Spanned::into_inner);
        let value = match (old, value.into_inner()) {
            (Some(DeValue::Table(mut old)), DeValue::Table(new)) => {
                merge(&mut old, new);
                DeValue::Table(old)
            }
            (_, new) => new,
        };
        below.insert(key, Spanned::new(span, value));
    }
}

fn shift(span: Range<usize>, by: usize) -> Range<usize> {
    span.start + by..span.end + by
}

fn shift_table(table: DeTable, by: usize) -> DeTable {
    respan_table(table, &|span| shift(span, by))
}

/// Sets the span of a value and of everything inside it to that of an override.
fn cover<'a>(value: DeValue<'a>, span: &Range<usize>) -> Spanned<DeValue<'a>> {
    Spanned::new(span.clone(), respan(value, &|_| span.clone()))
}

fn respan_table<'a>(table: DeTable<'a>, to: &dyn Fn(Range<usize>) -> Range<usize>) -> DeTable<'a> {
    let moved = table.into_iter().map(|(key, value)| {
        let key = Spanned::new(to(key.span()), key.into_inner());
        (key, Spanned::new(to(value.span()), respan(value.into_inner(), to)))
    });
    moved.collect()
}

fn respan<'a>(value: DeValue<'a>, to: &dyn Fn(Range<usize>) -> Range<usize>) -> DeValue<'a> {
    match value {
        DeValue::Table(table) => DeValue::Table(respan_table(table, to)),
        DeValue::Array(mut items) => {
            for item in items.iter_mut() {
                let span = to(item.span());
                let inner = std::mem::replace(item.get_mut(), DeValue::Boolean(false));
                *item = Spanned::new(span, respan(inner, to));
            }
            DeValue::Array(items)
        }
        other => other,
    }
}
