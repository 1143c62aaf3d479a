//! What the command lines of our servers share: `--set`, usage errors, one line on stderr, exit codes.

use std::{
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use interlock_proto::credential;

mod accept;

pub use accept::{AuditCommand, Place, audit};

use crate::{
    config::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE, Mistake, Profile},
    store::{
        audit::ChainKey,
        copy::{self, Copied},
        postgres::{PostgresDomain, Target},
        sqlite::SqliteDomain,
    },
};

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

/// What can be done to a store while no program uses it.
#[derive(Debug, clap::Subcommand)]
pub enum StoreCommand {
    /// Copy the whole embedded store into an empty database. Both are had alone meanwhile; what was written is read
    /// again and compared before it is committed. Start the service on the copy then, and no more on the file.
    Copy {
        /// The store's file, as `sqlite:FILE`.
        #[arg(long, value_name = "sqlite:FILE", value_parser = sqlite_file)]
        from: PathBuf,
        /// The database; its password stands in a file.
        #[arg(long, value_name = "postgres://...")]
        to: String,
    },
}

/// The value of `--from sqlite:FILE`.
///
/// # Errors
/// What it must be.
pub fn sqlite_file(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err("must be sqlite:FILE".to_owned()),
    }
}

/// Runs such a command for `program`, whose key of the audit chain is in the file `key`. Prints a line for each table:
/// its name, its rows, their hash.
#[must_use]
pub fn store<D: SqliteDomain + PostgresDomain>(
    program: &str,
    command: &StoreCommand,
    key: &Path,
    profile: Profile,
) -> ExitCode {
    let StoreCommand::Copy { from, to } = command;
    let usage = |said: String| {
        say(&format!("{program}: {said}"));
        ExitCode::from(EXIT_USAGE)
    };
    let to = match Target::parse(to, profile) {
        Ok(target) if target.has_password() => {
            return usage("--to: no password on a command line: use password_file".to_owned());
        }
        Ok(target) => target,
        Err(error) => return usage(format!("--to: {error}")),
    };
    let key = match ChainKey::beside(key, true, profile) {
        Ok(key) => key,
        Err(error) => return usage(error.to_string()),
    };
    match copy::sqlite_to_postgres::<D>(from, &key, &to) {
        Ok(copied) => {
            for Copied { table, rows, hash } in copied {
                let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                // What was copied is copied, whoever reads of it.
                let _ = writeln!(std::io::stdout(), "{table} {rows} {hash}");
            }
            ExitCode::from(EXIT_OK)
        }
        Err(error) => {
            say(&format!("{program}: {error}"));
            ExitCode::from(EXIT_FAILURE)
        }
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
    let mut line = credential::masked(line.as_bytes()).into_owned();
    line.push(b'\n');
    // Who closed stderr wants no answer.
    let _ = std::io::stderr().write_all(&line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_to_copy_is_named_by_its_kind() {
        assert_eq!(sqlite_file("sqlite:a/b.db"), Ok(PathBuf::from("a/b.db")));
        for bad in ["", "a/b.db", "sqlite:", "postgres://db/auth"] {
            assert!(sqlite_file(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_setting_has_a_key_and_the_first_equals_sign_ends_it() {
        assert_eq!(key_value("a.b=c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert_eq!(key_value("a="), Ok(("a".to_owned(), String::new())));
        for bad in ["", "a", "=b"] {
            assert!(key_value(bad).is_err(), "{bad}");
        }
    }
}
