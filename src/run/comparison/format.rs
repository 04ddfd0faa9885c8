//! Formats numbers and names for display.

use super::published::Row;

/// Returns the notes of these rows, each with the row's name, where the rows were published, and which of
/// their methods this program trains.
pub fn footnotes(rows: &[&Row]) -> Vec<String> {
    let noted = rows.iter().filter_map(|row| Some((row, row.note.as_ref()?)));
    let notes = noted.map(|(row, note)| format!("{}: {note}", marked(row)));
    let mut origins: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in rows {
        match origins.iter_mut().find(|(origin, _)| *origin == row.origin) {
            Some((_, names)) => names.push(&row.name),
            None => origins.push((&row.origin, vec![&row.name])),
        }
    }
    let origins = origins.iter().map(|(origin, names)| format!("{}: {origin}", names.join(", ")));
    notes.chain(origins).chain(trained(rows)).collect()
}

/// Says which of the rows' methods this program trains.
fn trained(rows: &[&Row]) -> Option<String> {
    let names = |here: bool| -> Vec<&str> {
        let rows = rows.iter().filter(|row| row.method.is_some() == here);
        rows.map(|row| row.name.as_str()).collect()
    };
    let (here, elsewhere) = (names(true).join(", "), names(false).join(", "));
    match (here.is_empty(), elsewhere.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("This program trains {here}.")),
        (true, false) => Some(format!("This program does not train {elsewhere}.")),
        (false, false) => {
            Some(format!("This program trains {here}; it does not train {elsewhere}."))
        }
    }
}

/// Returns a row's name, with a dagger if it has a note.
pub fn marked(row: &Row) -> String {
    format!("{}{}", row.name, if row.note.is_some() { "†" } else { "" })
}

/// Formats a number with one decimal, like the published results; NaN becomes a dash.
pub fn number(percent: f64) -> String {
    if percent.is_nan() { "–".into() } else { format!("{percent:.1}") }
}

/// Formats a difference with its sign; NaN becomes a dash.
pub fn signed(points: f64) -> String {
    if points.is_nan() {
        return "–".into();
    }
    // A value that rounds to zero has no sign.
    let rounded = (points * 10.0).round() / 10.0;
    if rounded == 0.0 { "0.0".into() } else { format!("{rounded:+.1}").replace('-', "−") }
}
