//! Output: lines that survive a closed pipe, tables, lists of members, and times.

use std::io::{self, Write};

use serde_json::Value;

mod time;

pub(crate) use time::{moment, moment_of_s, now, rfc3339_us, until};

/// Prints a line. A reader that went away (`| head`) is no reason to stop.
pub(crate) fn say(line: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{}", line.as_ref());
    let _ = out.flush();
}

/// Prints bytes as they are.
pub(crate) fn say_raw(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes);
    let _ = out.flush();
}

/// Prints what belongs to no output: what a program that reads the output need not know.
pub(crate) fn remark(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "holdfast: {}", line.as_ref());
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

/// The title of a column, and what stands in it.
pub(crate) type Column<'a> = (&'a str, fn(&Value) -> String);

/// A table of the elements of a list: for each column its title and what stands in it. Without elements a phrase.
pub(crate) fn listing(list: &Value, none: &str, columns: &[Column<'_>]) -> String {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return none.to_owned();
    }
    let head: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let rows: Vec<Vec<String>> =
        items.iter().map(|item| columns.iter().map(|(_, show)| show(item)).collect()).collect();
    table(&head, &rows)
}

/// Names and values below each other.
pub(crate) fn members(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = pairs.iter().map(|(name, value)| format!("{name:<width$}  {value}")).collect();
    lines.join("\n")
}

/// A member of a JSON object as a cell: text without quotes, `-` where it is absent or null.
pub(crate) fn cell(object: &Value, member: &str) -> String {
    bare(&object[member])
}

/// A value as a cell. Names in a list stand behind each other.
pub(crate) fn bare(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => harmless(text),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(bare).collect::<Vec<_>>().join(", "),
        Value::Object(map) if map.is_empty() => "-".to_owned(),
        Value::Object(map) => {
            map.iter().map(|(name, value)| format!("{}={}", harmless(name), bare(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// A member that is a time, with how far it is from now.
pub(crate) fn time(object: &Value, member: &str) -> String {
    object[member].as_str().map_or_else(|| "-".to_owned(), |text| moment(text, now()))
}

/// A text that moves no cursor and colours nothing, whoever wrote it.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .flat_map(|letter| match letter.is_control() {
            true => letter.escape_default().collect::<Vec<_>>(),
            false => vec![letter],
        })
        .collect()
}

/// Members below each other, and what is in them further to the right: for what has no table of its own.
pub(crate) fn outline(value: &Value) -> String {
    let mut lines = Vec::new();
    into_lines(value, 0, &mut lines);
    lines.join("\n")
}

fn into_lines(value: &Value, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    let is_deep = |value: &Value| match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => items.iter().any(|item| item.is_object() || item.is_array()),
        _ => false,
    };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let name = harmless(name);
                match is_deep(value) {
                    true => {
                        lines.push(format!("{indent}{name}:"));
                        into_lines(value, depth + 1, lines);
                    }
                    false => lines.push(format!("{indent}{name}: {}", bare(value))),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                let from = lines.len();
                into_lines(item, depth + 1, lines);
                if let Some(first) = lines.get_mut(from) {
                    first.replace_range(indent.len()..indent.len() + 2, "- ");
                }
            }
        }
        other => lines.push(format!("{indent}{}", bare(other))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["udc1".to_owned(), "x".to_owned()], vec!["a".to_owned(), String::new()]];
        assert_eq!(table(&["S", "HOST"], &rows), "S     HOST\nudc1  x\na");
    }

    #[test]
    fn a_list_is_a_table_or_a_phrase() {
        let columns: [Column<'_>; 2] = [("NAME", |item| cell(item, "name")), ("BLOCKED", |item| cell(item, "blocked"))];
        let list = json!([{"name": "acme", "blocked": true}, {"name": "b"}]);
        assert_eq!(listing(&list, "no tenants", &columns), "NAME  BLOCKED\nacme  yes\nb     -");
        assert_eq!(listing(&json!([]), "no tenants", &columns), "no tenants");
    }

    #[test]
    fn a_cell_is_bare_text() {
        let object = json!({"a": "b", "n": 3, "z": null, "l": ["x", "y"], "e": [], "o": {"g": "read"}});
        let cells = ["a", "n", "z", "q", "l", "e", "o"].map(|member| cell(&object, member));
        assert_eq!(cells, ["b", "3", "-", "-", "x, y", "-", "g=read"]);
    }

    #[test]
    fn nobodys_name_moves_the_cursor() {
        assert_eq!(cell(&json!({"a": "\u{1b}[2Jann\n"}), "a"), "\\u{1b}[2Jann\\n");
    }

    #[test]
    fn members_stand_below_each_other() {
        assert_eq!(members(&[("a", "1".to_owned()), ("long", "2".to_owned())]), "a     1\nlong  2");
    }

    #[test]
    fn an_outline_shows_all_there_is() {
        let value = json!({"a": 1, "b": {"c": [1, 2], "d": []}, "e": [{"f": 1, "g": {"h": 2}}, {"f": 3}]});
        let lines = "a: 1\nb:\n  c: 1, 2\n  d: -\ne:\n  - f: 1\n    g:\n      h: 2\n  - f: 3";
        assert_eq!(outline(&value), lines);
    }
}
