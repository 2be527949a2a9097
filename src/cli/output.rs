//! Output for people and for programs. Everything that came from a record is shown with control
//! characters spelled out: whoever can name a file must not be able to move an analyst's cursor.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::failure::{Code, Failure, Outcome};

/// How results are written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
}

/// Bytes of lines that are written at a time.
const WRITE_BYTES: usize = 64 << 10;
/// Longest cell, in characters; longer ones end in `…`.
const CELL_MAX: usize = 80;

/// Text with control, bidirectional and zero-width characters spelled out (`\u{1b}`).
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || hidden {
            // Writing to a String cannot fail.
            write!(out, "{}", c.escape_unicode()).unwrap_or_default();
        } else {
            out.push(c);
        }
    }
    out
}

fn cell(text: &str) -> String {
    let text = plain(text);
    if text.chars().count() <= CELL_MAX {
        return text;
    }
    let mut cut: String = text.chars().take(CELL_MAX - 1).collect();
    cut.push('…');
    cut
}

/// A table: a head and rows, columns as wide as their longest cell.
#[derive(Debug, Clone, Default)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(head: &[&'static str]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|text| cell(&text)).collect());
    }

    /// The table as text.
    pub fn text(&self) -> String {
        let head: Vec<String> = self.head.iter().map(|h| (*h).to_owned()).collect();
        let lines = std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| {
            lines
                .clone()
                .filter_map(|r| r.get(column))
                .map(|c| c.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut text = String::new();
        for line in lines.clone() {
            let cells = line
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            let joined = cells.collect::<Vec<_>>().join("  ");
            text.push_str(joined.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Writes text to standard output. A closed pipe ends the command with a clear sentence.
pub fn print(text: &str) -> Outcome {
    write(text.as_bytes())
}

fn write(bytes: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| {
            Failure::caused(
                Code::Receiver,
                "standard output could not be written",
                &error,
            )
        })
}

/// Writes items in the wanted form.
pub fn print_items<T: Serialize>(output: Output, items: &[T], table: &Table) -> Outcome {
    match output {
        Output::Table => print(&table.text()),
        Output::Json => {
            let mut text =
                serde_json::to_string_pretty(items).map_err(|error| unwritten(&error))?;
            text.push('\n');
            print(&text)
        }
        Output::Ndjson => print_lines(items),
    }
}

/// Writes each item as a line of JSON. Lines go out some at a time: they may be many.
pub fn print_lines(items: impl IntoIterator<Item = impl Serialize>) -> Outcome {
    let mut lines = Vec::new();
    for item in items {
        serde_json::to_writer(&mut lines, &item).map_err(|error| unwritten(&error))?;
        lines.push(b'\n');
        if lines.len() >= WRITE_BYTES {
            write(&lines)?;
            lines.clear();
        }
    }
    write(&lines)
}

/// What is no JSON after all.
pub fn unwritten(error: &serde_json::Error) -> Failure {
    Failure::caused(Code::State, "writing JSON", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_reaches_the_terminal() {
        let shown = plain("a\u{1b}[2J\u{202e}b\nc\u{0}");
        assert_eq!(shown, "a\\u{1b}[2J\\u{202e}b\\u{a}c\\u{0}");
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let mut table = Table::new(&["NAME", "N"]);
        table.row(["alice".into(), "1".into()]);
        table.row(["b".into(), "22".into()]);
        assert_eq!(table.text(), "NAME   N\nalice  1\nb      22\n");
    }
}
