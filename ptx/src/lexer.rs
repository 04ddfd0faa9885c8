//! Splits PTX text into tokens.

use crate::error::SyntaxError;

/// A word, a number, a quoted string or a punctuation mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    pub text: &'a str,
    pub line: u32,
}

/// Characters of names, opcodes (`mma.sync.aligned`), registers (`%tid.x`) and numbers.
fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

/// Returns the tokens without comments. A quoted string keeps its opening quote.
pub fn tokens(text: &str) -> Result<Vec<Token<'_>>, SyntaxError> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let length = if first == '\n' {
            line += 1;
            1
        } else if first.is_ascii_whitespace() {
            1
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            let end = rest.find("*/").ok_or(SyntaxError::at(line, "a comment does not end"))? + 2;
            line += rest[..end].matches('\n').count() as u32;
            end
        } else if first == '"' {
            let end = rest[1..].find('"').ok_or(SyntaxError::at(line, "a string does not end"))?;
            found.push(Token { text: &rest[..1 + end], line });
            end + 2
        } else if in_word(first) {
            let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
            found.push(Token { text: &rest[..end], line });
            end
        } else if first.is_ascii() {
            found.push(Token { text: &rest[..1], line });
            1
        } else {
            return Err(SyntaxError::at(line, format!("`{first}` is not expected")));
        };
        rest = &rest[length..];
    }
    Ok(found)
}
