//! `audit accept`: on the host of a service whose store was restored from a backup, and while nothing uses that store.
//!
//! What was lost with the backup is named by a file of `interlock audit verify --lost`. Each end in it that is not there
//! is named in a row of the log, and told apart by verifications from then on. A log that is damaged in itself is no
//! backup that was put back: nothing of it is accepted.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use thiserror::Error as ThisError;

use super::say;
use crate::{
    clock::Clock,
    config::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE, Profile},
    error::Error,
    secret_file::{self, SecretFileError},
    store::{
        ChainKeyError, Domain, Fault, Observer, Store, StoreLock,
        audit::{
            ACCEPT, ACCEPTED_MAX, ChainKey, Damage, Entry, Head, Known, Lost, Origin, Outcome, Trail,
            accepting,
        },
        postgres::{self, PostgresDomain, Sharing, Target},
        sqlite::{self, Options, SqliteDomain},
        writer::QueueLimits,
    },
};

/// The file has as many ends as a verification tells of, for two services.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What can be done to an audit log while no program uses its store.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Accept that ends of chains were lost with a backup that was put back. Says which; leaves a row in the log.
    Accept {
        /// What `interlock audit verify --lost FILE` has written since the backup was put back.
        #[arg(long, value_name = "FILE")]
        lost: PathBuf,
        /// Do it. Without this nothing is changed, and the command fails.
        #[arg(long)]
        yes: bool,
    },
}

/// Where a service has its store.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The data directory, with the lock.
    pub folder: &'a Path,
    /// The name of the embedded store's file in it.
    pub file: &'a str,
    /// The database, where the store is in one.
    pub database: Option<&'a Target>,
    /// The key of the audit chain.
    pub key: &'a Path,
    /// How files of secrets are judged.
    pub profile: Profile,
}

/// Why nothing was accepted.
#[derive(Debug, ThisError)]
enum NotAccepted {
    #[error("{0}; nothing was changed")]
    File(#[from] SecretFileError),
    #[error("{path}: {why}; nothing was changed", path = .0.display(), why = .1)]
    NotThat(PathBuf, String),
    #[error("{0}; nothing was changed")]
    Lock(std::io::Error),
    #[error("{0}: no such store; nothing was changed")]
    NoStore(String),
    #[error(transparent)]
    Key(#[from] ChainKeyError),
    #[error(transparent)]
    Open(#[from] sqlite::OpenError),
    #[error(transparent)]
    Database(#[from] postgres::OpenError),
    #[error("{0}; nothing was changed")]
    Read(#[from] Fault),
    #[error(
        "the log is damaged in itself, which putting back a backup does not do: {0:?}; nothing was accepted"
    )]
    Damaged(Box<Damage>),
    #[error(
        "this accepts that {0} of the audit log are lost for good; repeat with --yes. Nothing was changed"
    )]
    NotConfirmed(String),
    #[error("{0}")]
    Store(#[from] Error),
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl NotAccepted {
    fn is_usage(&self) -> bool {
        matches!(self, Self::File(_) | Self::NotThat(..) | Self::Key(_))
    }
}

/// Runs such a command for `program`, which is `service` in the file.
#[must_use]
pub fn audit<D: SqliteDomain + PostgresDomain>(
    program: &str,
    service: &str,
    command: &AuditCommand,
    place: &Place<'_>,
) -> ExitCode {
    let AuditCommand::Accept { lost, yes } = command;
    let said = read(lost, service).and_then(|lost| accept::<D>(place, lost, *yes));
    match said {
        Ok(said) => {
            // What was accepted is accepted, whoever reads of it.
            let _ = writeln!(std::io::stdout(), "{said}");
            ExitCode::from(EXIT_OK)
        }
        Err(error) => {
            say(&format!("{program}: {error}"));
            ExitCode::from(if error.is_usage() { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}

fn read(file: &Path, service: &str) -> Result<Vec<Head>, NotAccepted> {
    let not_that = |why: String| NotAccepted::NotThat(file.to_owned(), why);
    // It holds no secret.
    let text = secret_file::read(file, FILE_BYTES_MAX, Profile::Local)?.contents;
    let mut lost: BTreeMap<String, Vec<Lost>> =
        serde_json::from_slice(&text).map_err(|error| not_that(error.to_string()))?;
    let lost = lost.remove(service).unwrap_or_default();
    if lost.len() > ACCEPTED_MAX {
        return Err(not_that(format!("more than {ACCEPTED_MAX} ends")));
    }
    let heads: Option<Vec<Head>> = lost.iter().map(Lost::head).collect();
    heads.ok_or_else(|| not_that("a link is not 64 hexadecimal digits".to_owned()))
}

fn accept<D: SqliteDomain + PostgresDomain>(
    place: &Place<'_>,
    lost: Vec<Head>,
    yes: bool,
) -> Result<String, NotAccepted> {
    let path = place.folder.join(place.file);
    match place.database {
        Some(target) if !postgres::is_begun(target)? => return Err(NotAccepted::NoStore(target.to_string())),
        None if !path.is_file() => return Err(NotAccepted::NoStore(path.display().to_string())),
        Some(_) | None => {}
    }
    let _lock = StoreLock::take(place.folder).map_err(NotAccepted::Lock)?;
    let key = ChainKey::beside(place.key, true, place.profile)?;
    let trail = match place.database {
        Some(target) => Trail::in_database(target.clone(), key.clone()),
        None => Trail::in_file(path.clone(), key.clone()),
    };
    let known: Vec<_> = lost.into_iter().map(|head| Known { by: String::new(), head }).collect();
    let report = trail.verify(&known)?;
    if let Some(damage) = report.damages.into_iter().find(|damage| !matches!(damage, Damage::Cut { .. })) {
        return Err(NotAccepted::Damaged(Box::new(damage)));
    }
    if report.missing.is_empty() {
        return Ok("nothing to accept: each end that the file names is there, or was accepted".to_owned());
    }
    let end = |head: &Head| format!("batch {} of {}", head.number, head.writer);
    let shown: Vec<_> = report.missing.iter().map(end).collect();
    if !yes {
        return Err(NotAccepted::NotConfirmed(shown.join(", ")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = open::<D>(place, path, key)?;
        let origin = Origin { principal: "host".to_owned(), role: "host".to_owned(), ..Origin::default() };
        let entry = Entry::new(Arc::new(origin), ACCEPT, Outcome::Done).detailed(accepting(&report.missing));
        let recorded = store.record(vec![entry]).await;
        store.close().await;
        Ok::<_, NotAccepted>(recorded?)
    })?;
    let lines: Vec<_> = shown.iter().map(|end| format!("accepted as lost: {end}")).collect();
    Ok(lines.join("\n"))
}

fn open<D: SqliteDomain + PostgresDomain>(
    place: &Place<'_>,
    path: PathBuf,
    chain_key: ChainKey,
) -> Result<Store<D>, NotAccepted> {
    let (clock, limits, observer) = (Clock::system(), QueueLimits::default(), Arc::new(Told));
    if let Some(target) = place.database {
        target.remember_in(place.folder)?;
        // Alone, whatever the services are told: none of them runs meanwhile.
        let target = target.clone();
        let options = postgres::Options { target, sharing: Sharing::Alone, clock, chain_key, limits };
        return Ok(postgres::open(&options, observer)?);
    }
    let place = sqlite::Place::File(path);
    let options = Options { place, clock, chain_key, limits, inline: false, inject_misses: false };
    Ok(sqlite::open(&options, observer)?)
}

/// Nobody else is told of one row.
struct Told;

impl<D: Domain> Observer<D> for Told {
    fn committed(&self, _: Vec<D::Signal>) {}

    fn failed(&self, fault: &Fault) {
        say(&fault.to_string());
    }
}
