//! What all self-contained HTML pages share.

/// The style of every page, light and dark.
const STYLE: &str = include_str!("page.css");

/// Returns a page. `style` is added to the common one; `title` is plain text and `body` HTML.
pub fn document(title: &str, style: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n{body}</body>\n\
         </html>\n"
    )
}

/// Escapes a text for HTML, attributes included.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
