//! Rotation of the internal token, on a host that has the file. The services go on meanwhile: they read it again.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use interlock_kit::internal_token::rotation::{self, Done, RotationError, Step};
use zeroize::Zeroizing;

use crate::{
    config::Config,
    offline::{self, Failed},
};

/// What to do with it.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum What {
    /// Take the next step of a rotation. After each, bring the file to every service's host before the one that
    /// follows.
    Rotate(Rotate),
}

/// Which step.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Rotate {
    /// Make a new token, which is accepted from now on and not sent yet.
    #[arg(long)]
    begin: bool,
    /// Send the new one from now on; the old one is still accepted.
    #[arg(long)]
    promote: bool,
    /// Drop the old one.
    #[arg(long)]
    finish: bool,
}

/// Runs a command; the exit code says whether it was done. No token is printed.
#[must_use]
pub fn main(config: &Config, what: What) -> ExitCode {
    let What::Rotate(rotate) = what;
    offline::ended(run(config, rotate))
}

fn run(config: &Config, rotate: Rotate) -> Result<Zeroizing<String>, Failed> {
    let path = config.common.internal_token_file.as_ref().ok_or(Failed::NoInternalToken)?;
    let (step, now) = match rotate {
        Rotate { begin: true, .. } => {
            (Step::Begin, "both tokens are accepted, the old one is sent; next: --promote")
        }
        Rotate { promote: true, .. } => {
            (Step::Promote, "both tokens are accepted, the new one is sent; next: --finish")
        }
        Rotate { .. } => (Step::Finish, "the new token alone is accepted"),
    };
    let done = rotation::step(path, config.common.profile, step)?;
    let before = if done == Done::Before { " (done before)" } else { "" };
    let bring = if done == Done::Now { "; bring the file to every service first" } else { "" };
    Ok(Zeroizing::new(format!("{}: {now}{bring}{before}\n", path.display())))
}

impl From<RotationError> for Failed {
    fn from(error: RotationError) -> Self {
        Self::InternalToken(Box::new(error))
    }
}
