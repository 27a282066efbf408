//! **Pure**: text for a terminal. Names and messages come from anyone, and may hold commands of terminals.

use std::fmt::Write;

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table with a line of titles.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, whose cells are shown without control characters.
    pub(super) fn row<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) {
        self.rows.push(cells.into_iter().map(shown).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let titles = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        let rows: Vec<&Vec<String>> = std::iter::once(&titles).chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for row in rows {
            let mut line = String::new();
            for ((cell, (_, align)), width) in row.iter().zip(&self.columns).zip(&widths) {
                match align {
                    Align::Left => write!(line, "{cell:<width$}  ")?,
                    Align::Right => write!(line, "{cell:>width$}  ")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A text without characters that move the cursor, change colours, or reverse the text beside them.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        let is_hidden = matches!(char,
            '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if char.is_control() || is_hidden {
            shown.extend(char.escape_unicode());
        } else {
            shown.push(char);
        }
    }
    shown
}

/// JSON for programs, and for terminals that take the control characters which JSON leaves alone.
pub(super) fn safe_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for char in json.chars() {
        if matches!(char, '\u{7f}'..='\u{9f}') {
            // Writing to a text cannot fail. Outside of texts JSON has none of these.
            let _ = write!(safe, "\\u{:04x}", u32::from(char));
        } else {
            safe.push(char);
        }
    }
    safe
}

/// A duration in seconds, as people read it.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 60.0 => format!("{seconds:.0} s"),
        seconds if seconds < 3600.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut table = Table::new(&[("n", Align::Right), ("name", Align::Left), ("room", Align::Left)]);
        table.row(["1", "Ada Lovelace", "r"]);
        table.row(["200", "é", ""]);
        assert_eq!(table.to_string(), "  n  name          room\n  1  Ada Lovelace  r\n200  é\n");
    }

    #[test]
    fn commands_of_terminals_are_shown_as_text() {
        assert_eq!(
            shown("a\u{1b}]0;x\u{7}\r\n\u{9b}2J\u{202e}b"),
            r"a\u{1b}]0;x\u{7}\u{d}\u{a}\u{9b}2J\u{202e}b"
        );
        assert_eq!(shown("Zoë नमस्ते 👩\u{200d}🚀"), "Zoë नमस्ते 👩\u{200d}🚀");
        let json = safe_json("{\"name\":\"\u{9b}2J\u{7f}é\"}");
        assert_eq!(json, r#"{"name":"\u009b2J\u007fé"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["name"], "\u{9b}2J\u{7f}é");
    }

    #[test]
    fn durations_are_rounded() {
        for (value, text) in [(1.557, "2 s"), (90.0, "2 min"), (5400.0, "1.5 h")] {
            assert_eq!(seconds(value), text);
        }
    }
}
