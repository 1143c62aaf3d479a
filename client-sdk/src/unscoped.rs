//! Calls that named no project are marked by the server (RFC 9745, RFC 8594). Whoever runs the program is told once.

use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
};

use interlock_proto::{metadata as key, text::escaped};
use tonic::metadata::MetadataMap;

use crate::config;

static TOLD: AtomicBool = AtomicBool::new(false);

/// Looks whether an answer is marked; the first one of this process becomes one line on standard error.
pub(crate) fn heed(answer: &MetadataMap) {
    let marked = answer.get(key::DEPRECATION).is_some_and(|value| value == "true");
    if !marked || !config::warns_of_unscoped_calls() || TOLD.swap(true, Ordering::Relaxed) {
        return;
    }
    let sunset = answer.get(key::SUNSET).and_then(|at| at.to_str().ok());
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "{}", warning(sunset));
}

fn warning(sunset: Option<&str>) -> String {
    let until = sunset.map_or_else(String::new, |at| format!(", which ends on {}", escaped(at)));
    format!("interlock: warning: a call named no project{until}; run `interlock use PROJECT` in this folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    // SQ-29
    #[test]
    fn the_warning_is_one_line_that_names_use() {
        for text in [warning(None), warning(Some("Fri, 01 Jan 2027 00:00:00 GMT\n\u{1b}[2J"))] {
            assert!(text.contains("`interlock use PROJECT`") && !text.contains(['\n', '\u{1b}']), "{text}");
        }
    }
}
