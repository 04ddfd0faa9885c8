//! Numbers and names as they are shown.

use super::published::Row;

/// What is odd about these rows, with their names.
pub fn footnotes(rows: &[&Row]) -> Vec<String> {
    let noted = rows.iter().filter_map(|row| Some((row, row.note.as_ref()?)));
    noted.map(|(row, note)| format!("{}: {note}", marked(row))).collect()
}

/// A row's name, with a sign when there is a note about it.
pub fn marked(row: &Row) -> String {
    format!("{}{}", row.name, if row.note.is_some() { "†" } else { "" })
}

/// One decimal, as the published numbers; a dash where there is none.
pub fn number(percent: f64) -> String {
    if percent.is_nan() { "–".into() } else { format!("{percent:.1}") }
}

/// With a sign.
pub fn signed(points: f64) -> String {
    if points.is_nan() {
        return "–".into();
    }
    // What rounds to nothing has no sign.
    let rounded = (points * 10.0).round() / 10.0;
    if rounded == 0.0 { "0.0".into() } else { format!("{rounded:+.1}").replace('-', "−") }
}
