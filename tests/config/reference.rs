//! docs/configuration.md: the comments and values of the complete preset, as a page.

use std::fmt::Write;
use std::fs;

use udass_raw::config::renamed_keys;

const PAGE: &str = "docs/configuration.md";

const INTRODUCTION: &str = "\
# Configuration reference

<!-- Generated from configs/gta_vit.toml and the table of renamed keys in src/config/renamed.rs by
     `UDASS_WRITE_DOCS=1 cargo test --release --test config`. Edit those, not this page. -->

A configuration is a TOML file. It usually starts with `base = \"gta_vit\"`, or the name of another preset
in [configs](../configs), and lists only what differs; `--set section.key=value` changes one key for one
run. The defaults below are those of `gta_vit`, the published setting for GTA to Cityscapes.

\"Reference\" is the released PyTorch code of UDASS. \"As released\" marks behavior of that code that was
probably not intended; set the key to get what was.
";

const RENAMED: &str = "\
## Renamed keys

The old names are still read, in files, in `--set`, and in checkpoints. A warning gives the new name and
value.

| Old key | New key | Value |
| --- | --- | --- |
";

#[test]
fn the_configuration_reference_is_up_to_date() {
    let page = page(&fs::read_to_string("configs/gta_vit.toml").unwrap());
    if std::env::var_os("UDASS_WRITE_DOCS").is_some() {
        fs::write(PAGE, &page).unwrap();
    }
    let written = fs::read_to_string(PAGE).unwrap_or_default();
    let outdated = page.lines().zip(written.lines()).find(|(is, was)| is != was);
    assert!(
        written == page,
        "{PAGE} is not what configs/gta_vit.toml says ({outdated:?}): write it with \
         UDASS_WRITE_DOCS=1 cargo test --release --test config"
    );
}

/// The lines of a file that belong together.
#[derive(Default)]
struct Block<'a> {
    comment: Vec<&'a str>,
    /// Full names and values.
    keys: Vec<(String, &'a str)>,
}

fn page(preset: &str) -> String {
    let mut page = INTRODUCTION.to_string();
    let mut section = String::new();
    let mut block = Block::default();
    // The description of the file ends at the first blank line.
    let (_, body) = preset.split_once("\n\n").unwrap();
    page.push_str("\n## Top level\n");
    for line in body.lines().chain([""]) {
        let is_comment = line.starts_with('#');
        if (is_comment || line.is_empty()) && !block.keys.is_empty() {
            block.write(&mut page);
            block = Block::default();
        }
        if let Some(list) = line.strip_prefix("[[").and_then(|line| line.strip_suffix("]]")) {
            if !block.comment.is_empty() {
                let comment = std::mem::take(&mut block.comment);
                let all = entries(preset, list);
                Block { comment, keys: vec![(list.into(), &all)] }.write(&mut page);
            }
            section = format!("[[{list}]]");
        } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
            writeln!(page, "\n## `[{name}]`").unwrap();
            if !block.comment.is_empty() {
                write!(page, "\n{}", paragraphs(&block.comment)).unwrap();
            }
            block = Block::default();
        } else if is_comment {
            block.comment.push(line.trim_start_matches(['#', ' ']));
        } else if let Some((key, value)) = line.split_once(" = ")
            && !section.starts_with("[[")
        {
            block.keys.push((format!("{section}{key}"), value));
        }
    }
    page.push('\n');
    page.push_str(RENAMED);
    for (old, new, value) in renamed_keys() {
        let new: Vec<String> = new.iter().map(|key| format!("`{key}`")).collect();
        writeln!(page, "| `{old}` | {} | {value} |", new.join(", ")).unwrap();
    }
    page
}

/// All entries of a list of sections, as one value.
fn entries(preset: &str, list: &str) -> String {
    let table: toml::Table = preset.parse().unwrap();
    let (section, key) = list.split_once('.').unwrap();
    let entries = table[section][key].as_array().unwrap();
    let shown = entries.iter().map(|entry| {
        let fields = entry.as_table().unwrap().iter();
        let fields: Vec<String> = fields.map(|(key, value)| format!("{key} = {value}")).collect();
        format!("{{ {} }}", fields.join(", "))
    });
    format!("[{}]", shown.collect::<Vec<_>>().join(", "))
}

impl Block<'_> {
    fn write(&self, page: &mut String) {
        let names: Vec<String> = self.keys.iter().map(|(name, _)| format!("`{name}`")).collect();
        let values: Vec<String> = self.keys.iter().map(|(_, value)| format!("`{value}`")).collect();
        writeln!(page, "\n### {}\n\nDefault: {}", names.join(", "), values.join(", ")).unwrap();
        if !self.comment.is_empty() {
            write!(page, "\n{}", paragraphs(&self.comment)).unwrap();
        }
    }
}

/// A comment as Markdown; where several lines begin with a value in quotes, each begins an item.
fn paragraphs(comment: &[&str]) -> String {
    let is_value = |line: &&str| line.starts_with('"') && line.contains("\":");
    let list = comment.iter().filter(|line| is_value(line)).count() > 1;
    let mut text = String::new();
    let mut in_list = false;
    for line in comment {
        if list && is_value(line) {
            text.push_str(match (text.is_empty(), in_list) {
                (true, _) => "- ",
                (_, false) => "\n\n- ",
                (_, true) => "\n- ",
            });
            in_list = true;
        } else if !text.is_empty() {
            text.push_str(if in_list { "\n  " } else { "\n" });
        }
        text.push_str(&escaped(line));
    }
    text.push('\n');
    text
}

/// Without what Markdown would take for markup, but for code.
fn escaped(line: &str) -> String {
    let parts = line.split('`').enumerate().map(|(i, part)| match i % 2 {
        0 => part.replace('*', r"\*").replace('_', r"\_").replace('<', r"\<"),
        _ => part.into(),
    });
    parts.collect::<Vec<String>>().join("`")
}
