//! Text for people, JSON for programs. Much of what is printed others wrote: a worker, a program, another owner.
//! None of it steers the terminal that it is shown on; what would is escaped, in both forms.

use std::{
    io::{self, Write as _},
    time::SystemTime,
};

use interlock_proto::text::{escaped, escaped_json, escaped_lines};
use serde_json::Value;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    #[value(alias = "jsonl")]
    Json,
}

/// The part of a line that stands out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark<'t> {
    /// In which colour, where standard output is a terminal.
    pub(crate) colour: Colour,
    /// What.
    pub(crate) text: &'t str,
}

/// Colours of terminals: ECMA-48 section 8.3.117.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    /// The terminal's own.
    Plain,
    /// It went well.
    Green,
    /// It did not.
    Red,
    /// It may not.
    Yellow,
    /// Someone did something.
    Cyan,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Green => ";32",
            Self::Red => ";31",
            Self::Yellow => ";33",
            Self::Cyan => ";36",
        }
    }
}

impl Format {
    /// Prints one answer: `text` for people, `json` for programs.
    ///
    /// # Errors
    /// What standard output says, but for a closed pipe, which ends the output quietly.
    pub(crate) fn print(self, text: &str, json: &Value) -> io::Result<()> {
        self.print_marked("", Mark { colour: Colour::Plain, text: "" }, text, json)
    }

    /// The same, with a mark before the text that is bold, and of its colour, where standard output is a terminal.
    ///
    /// # Errors
    /// As [`Self::print`].
    pub(crate) fn print_marked(
        self,
        before: &str,
        mark: Mark<'_>,
        text: &str,
        json: &Value,
    ) -> io::Result<()> {
        let (marked, rest) = (escaped(mark.text), escaped_lines(text.trim_end()));
        let colour = mark.colour.code();
        let line = match self {
            Self::Text if marked.is_empty() => rest.into_owned(),
            // For pipes and files the styling is taken off again by what writes it.
            Self::Text => format!("{}\u{1b}[1{colour}m{marked}\u{1b}[0m{rest}", escaped(before)),
            Self::Json => plain_json(json),
        };
        let mut out = anstream::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done,
        }
    }
}

/// JSON in which every character shows: serde_json escapes the controls of ASCII, and no others.
pub(crate) fn plain_json(json: &Value) -> String {
    escaped_json(&json.to_string()).into_owned()
}

/// Columns under a heading, two spaces apart; one line for each row, whatever is in it.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| escaped(cell).into_owned()).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heading[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(heading.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

/// RFC 3339 in UTC with milliseconds; empty for none.
pub(crate) fn instant(at: impl Into<Option<SystemTime>>) -> String {
    let at = at.into().map(jiff::Timestamp::try_from);
    at.and_then(Result::ok).map_or_else(String::new, |at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["a".to_owned(), "long cell".to_owned()], vec!["bcd".to_owned(), String::new()]];
        assert_eq!(table(&["ID", "NAME"], &rows), "ID   NAME\na    long cell\nbcd");
    }

    #[test]
    fn no_cell_breaks_its_row() {
        let rows = vec![vec!["a\nb".to_owned(), "\u{1b}[2J\u{202e}".to_owned()]];
        assert_eq!(table(&["ID", "NAME"], &rows), "ID    NAME\na\\nb  \\u{1b}[2J\\u{202e}");
    }

    #[test]
    fn json_shows_every_character_and_stays_the_same() {
        let value = serde_json::json!({ "k": "\u{1b}\u{9b}\u{7f}\u{202e}\u{e0041}é\n" });
        let text = plain_json(&value);
        assert!(!text.chars().any(interlock_proto::text::is_hidden), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }
}
