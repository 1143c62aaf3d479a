//! Text for people, JSON for programs.

use std::{
    io::{self, Write as _},
    time::SystemTime,
};

use serde_json::Value;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Format {
    /// Prints one answer: `text` for people, `json` for programs.
    ///
    /// # Errors
    /// What standard output says, but for a closed pipe, which ends the output quietly.
    pub(crate) fn print(self, text: &str, json: &Value) -> io::Result<()> {
        let line = match self {
            Self::Text => text.trim_end().to_owned(),
            Self::Json => json.to_string(),
        };
        let mut out = anstream::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done,
        }
    }
}

/// Columns under a heading, two spaces apart.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
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
}
