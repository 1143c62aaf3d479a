//! `interlock demo`: the guarantees, shown on real processes in under a minute.
//!
//! Both services run in a temporary folder over mTLS, or two of each on PostgreSQL; workers are processes of `interlock worker run`
//! whose jobs read a real file and then wait at a gate (a FIFO) that the demo opens. Each act prints what
//! it did, what was expected and what it saw; [`acts`] has them in order, [`stage`] what they stand on.

use std::process::ExitCode;

use crate::{
    args::Common,
    database::{Database, StoreUrl},
    failure::Failure,
};

mod acts;
mod report;
mod stage;

use report::Report;
use stage::Stage;

/// What to run it on, and whether to keep what is left.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Play it with two auth-services and two gateways on PostgreSQL, and kill one of each in the middle. Databases of
    /// the demo's own are made beside NAME, as NAME_demo_…, and removed at the end.
    #[arg(long, value_name = "postgres://.../NAME", env = "INTERLOCK_STORE", hide_env_values = true)]
    store: Option<StoreUrl>,
    /// Leave the folder with stores and logs, and the databases, behind, and print where they are.
    #[arg(long)]
    keep: bool,
}

/// Plays all acts; the exit code is 1 unless every one held.
///
/// # Errors
/// Where the stage cannot be set.
pub(crate) async fn run(demo: Demo, common: &Common) -> Result<ExitCode, Failure> {
    let folder = tempfile::Builder::new().prefix("interlock-demo-").tempdir()?;
    let database = match &demo.store {
        Some(url) => Some(Database::of(url)?.apart()),
        None => None,
    };
    let mut stage = Stage::set(folder.path(), database.clone())?;
    let mut report = Report::new(common.output, acts::count(&stage));
    // An act that fails ends the play: the later ones stand on it.
    let stopped = crate::stop::asked()?;
    let played = tokio::select! {
        played = acts::play(&mut stage, &mut report) => played,
        () = stopped => Err(Failure::local("stopped")),
    };
    stage.strike().await;
    if demo.keep {
        anstream::eprintln!("kept in {}", folder.keep().display());
        if let Some(database) = database {
            anstream::eprintln!("and in {database}");
        }
    } else if let Some(Err(failure)) = database.map(|database| database.remove()) {
        // What was played is said all the same.
        let _ = failure.report(common.output);
    }
    report.close(&played)
}
