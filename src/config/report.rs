//! Reports problems in a configuration with file, line, key and a caret.

use std::fmt::Write;
use std::ops::Range;

use crate::error::Error;

/// Number of problems that are told one by one.
const LISTED: usize = 10;
/// Bytes of a line that are shown.
const MAX_LINE: usize = 200;
/// Names that are longer, in bytes, are not misspellings of a key.
const MAX_NAME: usize = 64;

/// A text that values come from.
pub(super) struct Layer {
    /// The name in errors: a path, or `preset gta_vit`. Empty for an override.
    title: String,
    pub text: String,
    /// Whether the text is a command-line override, `section.key=value`.
    pub over: bool,
    /// Whether the text is a method's preset that is applied over a base.
    pub over_base: bool,
    /// The offset of the text, as if the texts of all layers were one.
    pub start: usize,
}

impl Layer {
    pub fn file(title: String, text: String) -> Self {
        Layer { title, text, over: false, over_base: false, start: 0 }
    }

    pub fn over(text: String) -> Self {
        Layer { over: true, ..Layer::file(String::new(), text) }
    }

    /// Returns whether the layer is this built-in preset.
    pub fn is_preset(&self, name: &str) -> bool {
        !self.over && self.title.strip_prefix("preset ") == Some(name)
    }

    /// Returns the layer on its own, at offset 0.
    pub fn alone(&self) -> Self {
        let (title, text) = (self.title.clone(), self.text.clone());
        Layer { title, text, start: 0, ..*self }
    }
}

/// All layers, the lowest first.
pub(super) struct Sources {
    pub layers: Vec<Layer>,
}

/// Something wrong with a key, or (`key` is none) with the text itself.
pub(super) struct Problem {
    pub key: Option<String>,
    /// The span, as if the texts of all layers were one.
    pub span: Option<Range<usize>>,
    pub message: String,
}

impl Problem {
    pub fn new(key: &str, span: Range<usize>, message: impl Into<String>) -> Self {
        Problem { key: Some(key.into()), span: Some(span), message: message.into() }
    }
}

impl Sources {
    pub fn new(mut layers: Vec<Layer>) -> Self {
        let mut start = 0;
        for layer in &mut layers {
            layer.start = start;
            // One byte apart, so that an empty span at the end of a layer is not in the next one.
            start += layer.text.len() + 1;
        }
        Sources { layers }
    }

    /// Combines all problems into one error, in the order of the sources. Of many, it tells the
    /// first few and their number, since each is found by going through its text again.
    pub fn error(&self, mut problems: Vec<Problem>) -> Error {
        problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |s| s.start));
        // Those without a place are of keys that are missing, which are never many.
        let placed = problems.iter().filter(|problem| problem.span.is_some()).count();
        let more = placed.saturating_sub(LISTED);
        let (few, rest) = problems.split_at(placed - more);
        let mut told: Vec<String> = few.iter().map(|problem| self.tell(problem)).collect();
        if more > 0 {
            told.push(format!("… and {more} more problems, {placed} in all"));
        }
        told.extend(rest[more..].iter().map(|problem| self.tell(problem)));
        Error::config(told.join("\n"))
    }

    /// Returns the layer that contains an offset.
    pub fn layer(&self, at: usize) -> Option<&Layer> {
        self.layers.iter().rfind(|layer| layer.start <= at)
    }

    /// Says which text an offset is in, and on which line.
    pub fn place(&self, at: usize) -> Option<String> {
        let layer = self.layer(at)?;
        if layer.over {
            return Some(format!("--set {}", layer.text));
        }
        let (number, _) = position(&layer.text, floor(&layer.text, at - layer.start));
        Some(format!("{}:{number}", layer.title))
    }

    /// Formats a message about a key as one line with its position.
    pub fn line(&self, problem: &Problem) -> String {
        let key = problem.key.as_ref().map(|key| format!("`{key}` ")).unwrap_or_default();
        let what = format!("{key}{}", problem.message);
        let start = problem.span.as_ref().map(|span| span.start);
        match start.and_then(|start| Some((start, self.layer(start)?))) {
            None => what,
            Some((_, layer)) if layer.over => format!("--set {}: {what}", layer.text),
            Some((start, layer)) => {
                let (number, column) =
                    position(&layer.text, floor(&layer.text, start - layer.start));
                format!("{}:{number}:{column}: {what}", layer.title)
            }
        }
    }

    fn tell(&self, problem: &Problem) -> String {
        let key = problem.key.as_ref().map(|key| format!("`{key}`: ")).unwrap_or_default();
        let what = format!("{key}{}", problem.message);
        let Some((span, layer)) =
            problem.span.clone().and_then(|s| Some((s.clone(), self.layer(s.start)?)))
        else {
            // Without a span, point at the topmost file, which is the one the user can change.
            let file = self.layers.iter().rfind(|layer| !layer.over);
            return file.map_or(what.clone(), |file| format!("{}: {what}", file.title));
        };
        if layer.over {
            return format!("--set {}: {what}", layer.text);
        }
        let (start, end) = (span.start - layer.start, span.end - layer.start);
        point(&layer.title, &layer.text, start..end, &what)
    }
}

/// `title:line:column: what`, the line, and carets under the span.
fn point(title: &str, text: &str, span: Range<usize>, what: &str) -> String {
    let start = floor(text, span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or("");
    let (number, column) = position(text, start);
    // A long line is cut down to the neighborhood of the span.
    let seen = floor(text, start.saturating_sub(MAX_LINE / 2).max(line_start));
    let (before, line) = (&text[seen..start], &line[seen - line_start..]);
    let line = &line[..floor(line, MAX_LINE)];
    let line_start = seen;
    let end = floor(text, span.end).clamp(start, line_start + line.len().max(before.len()));
    let carets = text[start..end].chars().count().max(1);
    // Tabs are kept, so that the caret lines up with the text in a terminal.
    let indent: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let gutter = " ".repeat(number.to_string().len());
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "{title}:{number}:{column}: {what}\n {gutter} |\n {number} | {line}\n {gutter} | \
         {indent}{}",
        "^".repeat(carets)
    );
    out
}

/// Returns the line and column of a byte, counted from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    (text[..line_start].matches('\n').count() + 1, text[line_start..at].chars().count() + 1)
}

/// Returns the nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

/// Returns the known name that `name` is most likely a misspelling of.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_NAME {
        return None;
    }
    let scored = known.map(|other| (strsim::damerau_levenshtein(name, other), other));
    let (distance, best) = scored.min_by_key(|(distance, _)| *distance)?;
    let part = best.contains(name) || name.contains(best);
    (distance <= 2.max(name.len() / 3) || (part && name.len() > 2)).then_some(best)
}

/// Rewords serde's messages for people who edit a file: `expected usize` says little.
pub(super) fn plain(message: &str) -> String {
    let Some((got, expected)) = message.split_once(", expected ") else {
        return message.replace("missing field", "missing key");
    };
    let expected = match expected {
        "u64" | "usize" => "a whole number, 0 or more",
        "u8" => "a whole number from 0 to 255",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "text in quotes",
        "a sequence" => "a list in [ ]",
        "an array of length 2" => "a list of 2 values",
        "an array of length 4" => "a list of 4 values",
        other if other.starts_with("struct ") => "a section of keys",
        other => return format!("{got}, expected {other}"),
    };
    let got = got.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    let got = got.replace("integer ", "").replace("floating point ", "").replace("boolean ", "");
    format!("expected {expected}, got {got}")
}
