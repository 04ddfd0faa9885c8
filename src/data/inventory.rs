//! The files that a run trains on, so that a resumed run notices if they changed.
//!
//! Names and sizes of all files are compared, and the start of some: reading all of a large dataset
//! would take minutes. Modification times are not, because a copy of a dataset has others.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::file;
use crate::hex::hex;

/// Number of files of a list whose content is compared.
const READ: usize = 64;
/// Number of bytes that are compared of each of them.
const START: u64 = 1 << 20;
/// Number of differences that are shown of a list.
const SHOWN: usize = 3;

/// Lists of files, by name of the list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    lists: BTreeMap<String, BTreeMap<String, Entry>>,
}

/// The facts that are compared of a file; none, if it cannot be opened.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    bytes: Option<u64>,
    /// CRC-32 of its start.
    start: Option<u32>,
}

impl Inventory {
    /// Adds a list of files. Their names are relative to `root`, so that a dataset can move.
    pub fn add<'a>(
        &mut self,
        list: &str,
        root: &Path,
        files: impl ExactSizeIterator<Item = &'a Path>,
    ) {
        let count = files.len();
        let entries = self.lists.entry(list.into()).or_default();
        for (index, path) in files.enumerate() {
            // Evenly spread, and all of a list that is short enough.
            let read = count <= READ || index * READ / count != (index + 1) * READ / count;
            let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy();
            let most = if read { START } else { 0 };
            entries.insert(name.escape_debug().to_string(), Entry::of(path, most));
        }
    }

    /// Adds a list of one file, all of which is compared.
    pub fn add_whole(&mut self, list: &str, path: &Path) {
        let entries = self.lists.entry(list.into()).or_default();
        let name = path.to_string_lossy().escape_debug().to_string();
        entries.insert(name, Entry::of(path, u64::MAX));
    }

    /// Returns, for each list, the number of files and a digest of what is compared.
    pub fn summary(&self) -> BTreeMap<String, (usize, String)> {
        let digest = |(list, entries): (&String, &BTreeMap<String, Entry>)| {
            let mut hash = Sha256::new();
            entries.iter().for_each(|(name, entry)| hash.update(entry.line(list, name)));
            (list.clone(), (entries.len(), hex(&hash.finalize()[..8])))
        };
        self.lists.iter().map(digest).collect()
    }

    /// Returns the inventory as text, with a line for each file: list, bytes, CRC-32, name.
    pub fn to_text(&self) -> String {
        let lines = self.lists.iter().flat_map(|(list, entries)| {
            entries.iter().map(move |(name, entry)| entry.line(list, name))
        });
        lines.collect()
    }

    /// Reads what [`Inventory::to_text`] wrote; lines that are none of its are left out.
    pub fn from_text(text: &str) -> Inventory {
        let mut inventory = Inventory::default();
        for line in text.lines() {
            let mut parts = line.splitn(4, '\t');
            let mut part = || parts.next().unwrap_or_default();
            let (list, bytes, start, name) = (part(), part(), part(), part());
            let entry =
                Entry { bytes: bytes.parse().ok(), start: u32::from_str_radix(start, 16).ok() };
            inventory.lists.entry(list.into()).or_default().insert(name.into(), entry);
        }
        inventory
    }

    /// Describes the differences from an earlier inventory, a line for each list that changed. Of
    /// the earlier one, only the summary may be known.
    pub fn changes(
        &self,
        summary: &BTreeMap<String, (usize, String)>,
        earlier: &Inventory,
    ) -> Vec<String> {
        let now = self.summary();
        let known = earlier.summary() == *summary;
        let lists = summary.keys().chain(now.keys().filter(|list| !summary.contains_key(*list)));
        let changed = lists.filter(|list| summary.get(*list) != now.get(*list));
        let count = |summary: &BTreeMap<String, (usize, String)>, list: &str| {
            summary.get(list).map_or(0, |(count, _)| *count)
        };
        let told = |list: &String| {
            let mut line =
                format!("{list}: {} files, were {}", count(&now, list), count(summary, list));
            if known {
                line += &self.first_changes(earlier, list);
            }
            line
        };
        changed.map(told).collect()
    }

    fn first_changes(&self, earlier: &Inventory, list: &str) -> String {
        let none = BTreeMap::new();
        let (now, then) = (self.lists.get(list), earlier.lists.get(list));
        let (now, then) = (now.unwrap_or(&none), then.unwrap_or(&none));
        let new = now.keys().filter(|name| !then.contains_key(*name));
        let other = then.iter().filter_map(|(name, before)| match now.get(name) {
            None => Some((name, "gone")),
            Some(entry) if entry.bytes != before.bytes => Some((name, "another size")),
            Some(entry) if entry.starts_otherwise(before) => Some((name, "another content")),
            Some(_) => None,
        });
        let all: Vec<_> = new.map(|name| (name, "new")).chain(other).collect();
        let mut text = String::new();
        for (name, what) in all.iter().take(SHOWN) {
            // Writing to a string cannot fail.
            let _ = write!(text, "; {name}: {what}");
        }
        if all.len() > SHOWN {
            let _ = write!(text, "; and {} more", all.len() - SHOWN);
        }
        text
    }
}

impl Entry {
    /// Describes a file, of which at most `most` bytes are read.
    fn of(path: &Path, most: u64) -> Entry {
        let metadata = std::fs::metadata(path).ok().filter(|metadata| metadata.is_file());
        let bytes = metadata.map(|metadata| metadata.len());
        let start = (bytes.is_some() && most > 0).then(|| crc_of_start(path, most).ok());
        Entry { bytes, start: start.flatten() }
    }

    /// Returns whether both starts are known, and differ. Which files are read depends on the length
    /// of the list.
    fn starts_otherwise(&self, other: &Entry) -> bool {
        self.start.zip(other.start).is_some_and(|(one, other)| one != other)
    }

    fn line(&self, list: &str, name: &str) -> String {
        let bytes = self.bytes.map_or("-".into(), |bytes| bytes.to_string());
        let start = self.start.map_or("-".into(), |crc| format!("{crc:08x}"));
        format!("{list}\t{bytes}\t{start}\t{name}\n")
    }
}

fn crc_of_start(path: &Path, most: u64) -> io::Result<u32> {
    let mut start = BufReader::with_capacity(1 << 20, file::open(path)?).take(most);
    let mut hash = crc32fast::Hasher::new();
    loop {
        let part = start.fill_buf()?;
        if part.is_empty() {
            return Ok(hash.finalize());
        }
        hash.update(part);
        let read = part.len();
        start.consume(read);
    }
}
