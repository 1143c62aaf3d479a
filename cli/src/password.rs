//! Where a password comes from: a prompt, a file, standard input. Never the command line, which others can read.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    path::PathBuf,
};

use zeroize::Zeroizing;

use crate::{failure::Failure, keep::read_secret};

/// A line that is longer is no password.
const LINE_BYTES_MAX: u64 = 4096;

/// Where to read it.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Password {
    /// Read the password from this file instead of the terminal.
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
}

impl Password {
    /// In this file.
    pub(crate) fn in_file(password_file: Option<PathBuf>) -> Self {
        Self { password_file, password_stdin: false }
    }

    /// Whether it is the first line of standard input.
    pub(crate) fn is_stdin(&self) -> bool {
        self.password_stdin
    }

    /// Whether a flag says where.
    pub(crate) fn is_given(&self) -> bool {
        self.password_file.is_some() || self.password_stdin
    }

    /// A new one: from a terminal it is asked for twice.
    ///
    /// # Errors
    /// As [`Password::ask`]; two that differ.
    pub(crate) fn ask_new(&self, prompt: &str) -> Result<Zeroizing<String>, Failure> {
        let password = self.ask(prompt)?;
        if self.is_given() || password == Zeroizing::new(rpassword::prompt_password("Again: ")?) {
            return Ok(password);
        }
        Err(Failure::usage("the two passwords differ"))
    }

    /// Reads it: from where the flags say, else from the terminal.
    ///
    /// # Errors
    /// A file that cannot be read; no terminal to ask on.
    pub(crate) fn ask(&self, prompt: &str) -> Result<Zeroizing<String>, Failure> {
        if let Some(file) = &self.password_file {
            let text = read_secret(file)?;
            return Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()));
        }
        if self.password_stdin {
            return stdin_line();
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::usage("no terminal to ask for the password on")
                .next("--password-file FILE or --password-stdin"));
        }
        Ok(Zeroizing::new(rpassword::prompt_password(prompt)?))
    }
}

/// The next line of standard input, without its end.
///
/// # Errors
/// What reading says.
pub(crate) fn stdin_line() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    io::Read::take(io::stdin().lock(), LINE_BYTES_MAX).read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}
