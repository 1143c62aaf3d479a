//! What the command lines of our servers share: `--set`, usage errors, one line on stderr, exit codes.

use std::{ffi::OsString, process::ExitCode};

use interlock_proto::credential;

use crate::config::{EXIT_OK, EXIT_USAGE, Mistake};

/// Parses arguments, the first of which is the program's name.
///
/// # Errors
/// The exit code, once help or what is wrong has been printed: 0 for help and version, 64 otherwise.
pub fn parse<C: clap::Parser>(args: impl Iterator<Item = OsString>) -> Result<C, ExitCode> {
    C::try_parse_from(args).map_err(|said| {
        let shown = said.print().is_ok();
        ExitCode::from(if said.use_stderr() || !shown { EXIT_USAGE } else { EXIT_OK })
    })
}

/// The value of `--set KEY=VALUE`.
///
/// # Errors
/// What it must be.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

/// Says every mistake of a configuration, and gives exit code 64.
#[must_use]
pub fn misconfigured(program: &str, mistakes: &[Mistake]) -> ExitCode {
    for mistake in mistakes {
        say(&format!("{program}: {mistake}"));
    }
    ExitCode::from(EXIT_USAGE)
}

/// One line on stderr, for what must be said where no log goes. A secret that was written where a path or a number
/// belongs is not said again.
pub fn say(line: &str) {
    use std::io::Write as _;
    let mut line = credential::masked(line.as_bytes()).into_owned();
    line.push(b'\n');
    // Who closed stderr wants no answer.
    let _ = std::io::stderr().write_all(&line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_has_a_key_and_the_first_equals_sign_ends_it() {
        assert_eq!(key_value("a.b=c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert_eq!(key_value("a="), Ok(("a".to_owned(), String::new())));
        for bad in ["", "a", "=b"] {
            assert!(key_value(bad).is_err(), "{bad}");
        }
    }
}
