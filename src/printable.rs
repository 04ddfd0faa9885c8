//! Text that comes from outside, as it is shown.

use std::borrow::Cow;
use std::path::Path;

/// Returns a text for a terminal or a page: characters that would control it are written as
/// `\u001b`, because names of tensors, files and keys may hold any. Line ends and tabs stay. JSON and
/// TOML keep their meaning, since both read that as the character.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && c != '\t' && controls(c))
}

/// Returns a path for a message, with line ends and tabs escaped too.
pub(crate) fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy(), controls).into_owned()
}

/// Returns whether a character moves the cursor, changes colors or the direction of the text.
fn controls(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(text: &str, wanted: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&wanted) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match wanted(c) {
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_control_a_terminal_is_escaped() {
        assert!(matches!(printable("größe\t1\n"), Cow::Borrowed("größe\t1\n")));
        assert_eq!(printable("a\u{1b}[31mb\r\u{7f}\u{9b}"), "a\\u001b[31mb\\u000d\\u007f\\u009b");
        assert_eq!(printable("gnp.\u{202e}exe"), "gnp.\\u202eexe");
        assert_eq!(shown(Path::new("a\nerror: b")), "a\\u000aerror: b");
    }
}
