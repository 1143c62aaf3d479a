//! `interlock demo`: the guarantees, shown on real processes in under a minute.
//!
//! Both services run in a temporary folder over mTLS; workers are processes of `interlock worker run`
//! whose jobs read a real file and then wait at a gate (a FIFO) that the demo opens. Each act prints what
//! it did, what was expected and what it saw; [`acts`] has them in order, [`stage`] what they stand on.

use std::process::ExitCode;

use crate::{args::Common, failure::Failure};

mod acts;
mod report;
mod stage;

use report::Report;
use stage::Stage;

/// Nothing to choose but whether to keep the folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Leave the folder with stores and logs behind, and print where it is.
    #[arg(long)]
    keep: bool,
}

/// Plays all acts; the exit code is 1 unless every one held.
///
/// # Errors
/// Where the stage cannot be set.
pub(crate) async fn run(demo: Demo, common: &Common) -> Result<ExitCode, Failure> {
    let folder = tempfile::Builder::new().prefix("interlock-demo-").tempdir()?;
    let mut stage = Stage::set(folder.path())?;
    let mut report = Report::new(common.output, acts::COUNT);
    // An act that fails ends the play: the later ones stand on it.
    let stopped = crate::stop::asked()?;
    let played = tokio::select! {
        played = acts::play(&mut stage, &mut report) => played,
        () = stopped => Err(Failure::local("stopped")),
    };
    stage.strike().await;
    if demo.keep {
        anstream::eprintln!("kept in {}", folder.keep().display());
    }
    report.close(&played)
}
