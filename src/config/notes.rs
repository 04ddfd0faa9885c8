//! Warnings and notes that reading a configuration produces.

use std::collections::{BTreeMap, BTreeSet};

/// Warnings and notes about a valid configuration, for example about old names of keys.
///
/// The library prints nothing, so callers show [`Notes::lines`] to the user; training passes the
/// lines that are left to its observer. They also say where each value comes from, for
/// [`Config::explained`](super::Config::explained). Notes are not part of a configuration's value: any two are
/// equal.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    lines: Vec<String>,
    /// The origin of each key's value.
    pub(super) origins: BTreeMap<String, String>,
}

impl Notes {
    /// Returns the lines, each beginning with `warning:` or `note:`.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Removes and returns the lines.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Returns where the values come from, each once: presets, files and overrides, without lines.
    pub fn sources(&self) -> BTreeSet<&str> {
        let without_line = |origin: &'_ String| match origin.rsplit_once(':') {
            Some((source, line)) if line.bytes().all(|byte| byte.is_ascii_digit()) => source.len(),
            _ => origin.len(),
        };
        self.origins.values().map(|origin| &origin[..without_line(origin)]).collect()
    }

    /// Says where the value of a key comes from that was changed after the configuration was read.
    pub fn set_origin(&mut self, key: &str, origin: String) {
        self.origins.insert(key.into(), origin);
    }

    pub(super) fn warn(&mut self, text: String) {
        self.lines.push(format!("warning: {text}"));
    }

    pub(super) fn note(&mut self, text: String) {
        self.lines.push(format!("note: {text}"));
    }
}

impl PartialEq for Notes {
    fn eq(&self, _: &Notes) -> bool {
        true
    }
}
