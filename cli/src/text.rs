//! Output: lines that survive a closed pipe, and tables.

use std::io::{self, Write};

use serde_json::Value;

/// Prints a line. A reader that went away (`| head`) is no reason to stop.
pub(crate) fn say(line: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{}", line.as_ref());
    let _ = out.flush();
}

/// Prints a reply as indented JSON.
pub(crate) fn say_json(value: &Value) {
    say(format!("{value:#}"));
}

/// A left-aligned table with two blanks between columns; no trailing blanks.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|title| title.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// A member of a JSON object as a cell: text without quotes, `-` where it is absent or null.
pub(crate) fn cell(object: &Value, member: &str) -> String {
    match &object[member] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["udc1".to_owned(), "x".to_owned()], vec!["a".to_owned(), String::new()]];
        assert_eq!(table(&["S", "HOST"], &rows), "S     HOST\nudc1  x\na");
    }

    #[test]
    fn a_cell_is_bare_text() {
        let object = serde_json::json!({"a": "b", "n": 3, "z": null});
        assert_eq!(["a", "n", "z", "q"].map(|m| cell(&object, m)), ["b", "3", "-", "-"]);
    }
}
