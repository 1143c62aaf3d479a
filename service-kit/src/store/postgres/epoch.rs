//! Which of several hosts is the store: the one of the newest epoch that takes writes.
//!
//! PostgreSQL counts promotions: each begins a new *timeline*, and all hosts of one cluster have one system identifier.
//! The highest timeline that was seen on any host is remembered, here and in a file beside the service's data, and a
//! host with a lower one is an old primary that has come back: nothing is written to it, and nothing is read from
//! it, since it may have been left behind at any commit. A host of another cluster is refused, too: its timelines
//! mean nothing beside ours.

use std::{
    fmt,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::opening::OpenError;
use crate::{
    config::Profile,
    secret_file::{self, SecretFileError},
};

/// The file's name, in the service's data folder.
pub(super) const FILE: &str = "store.epoch";
/// It is no longer, bytes.
const FILE_BYTES_MAX: u64 = 64;

/// A cluster, and how often one of its hosts was promoted, plus one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    pub(super) system: u64,
    pub(super) timeline: u32,
}

/// Why a host is not the store. For people, without the host's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Outdated {
    /// It was left behind by a promotion.
    #[error(
        "is of an earlier epoch (timeline {found}, and {known} was seen): an old primary that came back; make it a standby"
    )]
    Behind { found: u32, known: u32 },
    /// It is of another cluster.
    #[error(
        "is another cluster ({found}) than before ({known}): where the store was moved on purpose, {remedy}"
    )]
    Other { found: u64, known: u64, remedy: &'static str },
}

/// The newest epoch that was seen. Shared by all connections of a program to its store.
pub(super) struct Seen {
    known: Mutex<Known>,
    /// The timeline of that; 0 before any.
    timeline: watch::Sender<u32>,
}

#[derive(Default)]
struct Known {
    epoch: Option<Epoch>,
    file: Option<PathBuf>,
    /// Whether the file is written: not before the store was opened.
    kept: bool,
}

impl Default for Seen {
    fn default() -> Self {
        Self { known: Mutex::default(), timeline: watch::Sender::new(0) }
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").field("epoch", &self.known.lock().epoch).finish_non_exhaustive()
    }
}

impl Seen {
    /// Reads what a file says, and keeps it there from then on.
    pub(super) fn remember_in(&self, file: &Path) -> Result<(), OpenError> {
        let refused = |why: String| OpenError::Epoch { file: file.to_owned(), why };
        let noted = match secret_file::read(file, FILE_BYTES_MAX, Profile::Local) {
            Ok(noted) => Some(noted.contents),
            Err(SecretFileError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(refused(error.to_string())),
        };
        let mut known = self.known.lock();
        if let Some(noted) = noted {
            let epoch = std::str::from_utf8(&noted).ok().and_then(read);
            let epoch = epoch.ok_or_else(|| refused("it is not an epoch".to_owned()))?;
            known.epoch = Some(epoch);
            self.timeline.send_replace(epoch.timeline);
        }
        known.file = Some(file.to_owned());
        Ok(())
    }

    /// What is known is written from now on: the store is this service's.
    pub(super) fn keep(&self) -> Result<(), OpenError> {
        let mut known = self.known.lock();
        known.kept = true;
        match (&known.file, write(&known)) {
            (Some(file), Err(error)) => Err(OpenError::Epoch { file: file.clone(), why: error.to_string() }),
            _ => Ok(()),
        }
    }

    /// The timeline of the newest epoch; 0 before any was seen.
    pub(super) fn timeline(&self) -> u32 {
        *self.timeline.borrow()
    }

    /// Ends when a newer one than this timeline is known.
    pub(super) async fn passed(&self, timeline: u32) {
        // The sender lives as long as this does.
        let _ = self.timeline.subscribe().wait_for(|known| *known > timeline).await;
    }

    /// A host of this epoch was met, whether it takes writes or not.
    pub(super) fn look(&self, epoch: Epoch) -> Result<(), Outdated> {
        let mut known = self.known.lock();
        match known.epoch {
            Some(before) if before.system != epoch.system => {
                let remedy = if known.file.is_some() {
                    "remove the file store.epoch in data_dir"
                } else {
                    "start this program again"
                };
                return Err(Outdated::Other { found: epoch.system, known: before.system, remedy });
            }
            Some(before) if before.timeline > epoch.timeline => {
                return Err(Outdated::Behind { found: epoch.timeline, known: before.timeline });
            }
            Some(before) if before == epoch => return Ok(()),
            Some(before) => {
                let (was, timeline) = (before.timeline, epoch.timeline);
                tracing::warn!(was, timeline, "another host of the store has been promoted");
            }
            None => {}
        }
        known.epoch = Some(epoch);
        if known.kept
            && let Err(error) = write(&known)
        {
            // This program goes by it all the same; only its next start may not know.
            tracing::error!(%error, "the epoch of the store is not remembered over a start");
        }
        self.timeline.send_replace(epoch.timeline);
        Ok(())
    }
}

fn write(known: &Known) -> Result<(), SecretFileError> {
    match (&known.file, known.epoch) {
        (Some(file), Some(Epoch { system, timeline })) => {
            secret_file::write_open(file, format!("{system} {timeline}\n").as_bytes())
        }
        _ => Ok(()),
    }
}

fn read(text: &str) -> Option<Epoch> {
    let (system, timeline) = text.strip_suffix('\n')?.split_once(' ')?;
    Some(Epoch { system: system.parse().ok()?, timeline: timeline.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timeline: u32) -> Epoch {
        Epoch { system: 7, timeline }
    }

    #[test]
    fn a_host_that_was_left_behind_is_refused_and_so_is_another_cluster() {
        let seen = Seen::default();
        assert_eq!(seen.look(at(1)), Ok(()));
        assert_eq!(seen.look(at(1)), Ok(()), "nothing has changed");
        assert_eq!(seen.look(at(3)), Ok(()));
        assert_eq!(seen.look(at(2)), Err(Outdated::Behind { found: 2, known: 3 }));
        let other = seen.look(Epoch { system: 8, timeline: 9 });
        assert!(matches!(other, Err(Outdated::Other { found: 8, known: 7, .. })), "{other:?}");
        assert_eq!((seen.timeline(), seen.look(at(3))), (3, Ok(())));
    }

    #[test]
    fn what_was_seen_outlives_the_program_once_the_store_was_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("store.epoch");
        let first = Seen::default();
        first.remember_in(&file).expect("there is none");
        first.look(at(1)).expect("the first");
        assert!(!file.exists(), "a start that fails leaves nothing behind");
        first.keep().expect("written");
        first.look(at(4)).expect("a newer one");

        let next = Seen::default();
        next.remember_in(&file).expect("well-formed");
        assert_eq!(next.timeline(), 4);
        assert!(next.look(at(3)).is_err());
        for bad in ["", "7 4", "7\n", "7 x\n", "7 4 4\n", "-7 4\n"] {
            std::fs::write(&file, bad).expect("written");
            assert!(Seen::default().remember_in(&file).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_newer_epoch_hears_of_it() {
        let seen = Seen::default();
        seen.look(at(1)).expect("the first");
        let ((), ()) = tokio::join!(seen.passed(1), async {
            tokio::task::yield_now().await;
            seen.look(at(2)).expect("a newer one");
        });
        assert_eq!(seen.timeline(), 2);
    }
}
