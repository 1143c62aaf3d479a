//! Opens what is in the data directory: its lock, the key of the audit chain, the store.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use interlock_kit::{
    clock::Clock,
    config::Profile,
    health_state::Health,
    secret_file::{self, SecretFileError},
    store::{
        ChainKeyError, Fault, Observer, Store, StoreLock,
        audit::{ChainKey, Trail},
        postgres::{self, Sharing, Target},
        sqlite::{self, OpenError, Options, Place},
        writer::QueueLimits,
    },
};
use parking_lot::Mutex;
use thiserror::Error;

use crate::{
    barrier::Barrier,
    limits::LEASE,
    replicas::Wake,
    revocation::Revocation,
    store::{Auth, Signal},
    verdicts::Verdicts,
    vouch::Vouch,
};

/// The store's file.
pub const STORE_FILE: &str = "auth.db";
/// The key of the audit chain: outside the store, so that who can write the store cannot forge the chain.
pub const CHAIN_KEY_FILE: &str = "audit.key";
/// The longest lease that may still be in use: see [`unknown_leases`].
const LEASE_FILE: &str = "lease";
const LEASE_FILE_BYTES_MAX: u64 = 32;

/// The condition of health that the store stands for.
pub const STORE_CONDITION: &str = "store";

/// Why the data directory cannot be used. One line that says what to do.
#[derive(Debug, Error)]
pub enum OpeningError {
    /// It cannot be made.
    #[error("data_dir {path}: cannot be made: {source}; set it to a folder that this user can write", path = path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its lock.
    #[error("data_dir {0}")]
    Lock(io::Error),
    /// The key of the audit chain.
    #[error(transparent)]
    ChainKey(#[from] ChainKeyError),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store, in a database.
    #[error(transparent)]
    Database(#[from] postgres::OpenError),
}

impl OpeningError {
    /// Whether somebody has to mend a file first: exit code 64.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::ChainKey(error) if error.is_configuration())
    }
}

/// An opened data directory. The lock is held as long as this lives.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store<Auth>,
    /// Its audit rows.
    pub trail: Trail,
    /// Tells of commits, once it knows whom to tell.
    pub announcer: Arc<Announcer>,
    _lock: StoreLock,
}

/// Whether it is a folder, or may become one. Changes nothing.
///
/// # Errors
/// [`OpeningError::Folder`]
pub fn check_folder(folder: &Path) -> Result<(), OpeningError> {
    let refused = |source| Err(OpeningError::Folder { path: folder.to_owned(), source });
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => refused(io::ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => refused(error),
    }
}

/// A store in a database.
#[derive(Clone, Copy, Debug)]
pub struct Database<'a> {
    /// Which.
    pub target: &'a Target,
    /// Whether other programs use it at the same time.
    pub sharing: Sharing,
}

/// Opens the store: in this database, or in the folder. Its audit chain has the key of that file.
///
/// # Errors
/// [`OpeningError`]; what was there is left as it was.
pub fn open(
    folder: &Path,
    key: &Path,
    database: Option<Database<'_>>,
    profile: Profile,
    clock: Clock,
) -> Result<Opened, OpeningError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| OpeningError::Folder { path: folder.to_owned(), source })?;
    let lock = StoreLock::take(folder).map_err(OpeningError::Lock)?;
    let announcer = Arc::new(Announcer::default());
    let observer: Arc<dyn Observer<Auth>> = announcer.clone();
    let (store, trail) = match database {
        Some(database) => in_database(folder, database, key, profile, clock, observer)?,
        None => in_folder(folder, key, profile, clock, observer)?,
    };
    Ok(Opened { store, trail, announcer, _lock: lock })
}

fn in_folder(
    folder: &Path,
    key: &Path,
    profile: Profile,
    clock: Clock,
    observer: Arc<dyn Observer<Auth>>,
) -> Result<(Store<Auth>, Trail), OpeningError> {
    let place = folder.join(STORE_FILE);
    let options = Options {
        chain_key: ChainKey::of_file(key, &place, profile)?,
        place: Place::File(place),
        clock,
        limits: QueueLimits::default(),
        inline: false,
        inject_misses: false,
    };
    let trail = options.trail().expect("a store in a file");
    Ok((sqlite::open(&options, observer)?, trail))
}

fn in_database(
    folder: &Path,
    Database { target, sharing }: Database<'_>,
    key: &Path,
    profile: Profile,
    clock: Clock,
    observer: Arc<dyn Observer<Auth>>,
) -> Result<(Store<Auth>, Trail), OpeningError> {
    target.remember_in(folder)?;
    let options = postgres::Options {
        target: target.clone(),
        sharing,
        clock,
        chain_key: ChainKey::beside(key, postgres::is_begun(target)?, profile)?,
        limits: QueueLimits::default(),
    };
    Ok((postgres::open(&options, observer)?, options.trail()))
}

/// How long leases of earlier processes may still be in use, and keeps a note for the next start.
///
/// An earlier process may have been configured with a longer lease. The note is never shorter than the
/// longest lease that can be in use: it grows before the first grant, and shrinks only after the earlier
/// leases must have run out, which [`LeaseNote::shrink`] is called for.
///
/// # Errors
/// [`SecretFileError`] where the note cannot be read or written.
pub fn unknown_leases(folder: &Path, lease: Duration) -> Result<LeaseNote, SecretFileError> {
    let path = folder.join(LEASE_FILE);
    let noted = match secret_file::read(&path, LEASE_FILE_BYTES_MAX, Profile::Local) {
        Ok(secret) => Some(noted(&secret.contents)),
        Err(SecretFileError::TooLong { .. }) => Some(LEASE.max),
        Err(SecretFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let earlier = noted.unwrap_or(lease);
    let note = LeaseNote { path, lease, longest: earlier.max(lease) };
    if noted.is_none() || earlier < lease {
        note.write(lease)?;
    }
    Ok(note)
}

/// A damaged note may have said anything: the longest lease that could be configured is the safe reading.
fn noted(contents: &[u8]) -> Duration {
    let millis = std::str::from_utf8(contents).ok().and_then(|text| text.trim().parse().ok());
    let lease = millis.map(Duration::from_millis).filter(|lease| (LEASE.min..=LEASE.max).contains(lease));
    lease.unwrap_or_else(|| {
        tracing::warn!(assumed_s = LEASE.max.as_secs(), "the note of the longest lease is damaged");
        LEASE.max
    })
}

/// What the next start is told of leases.
#[derive(Debug)]
pub struct LeaseNote {
    path: PathBuf,
    lease: Duration,
    /// The longest lease that may be in use.
    pub longest: Duration,
}

impl LeaseNote {
    /// The earlier leases have run out: the present length is the longest.
    ///
    /// # Errors
    /// [`SecretFileError::Write`]; the longer note is safe.
    pub fn shrink(&self) -> Result<(), SecretFileError> {
        if self.longest > self.lease { self.write(self.lease) } else { Ok(()) }
    }

    fn write(&self, lease: Duration) -> Result<(), SecretFileError> {
        secret_file::write(&self.path, format!("{}\n", lease.as_millis()).as_bytes())
    }
}

/// Hears of commits on the store's thread, before they are answered.
#[derive(Debug, Default)]
pub struct Announcer {
    verdicts: Arc<Verdicts>,
    told: OnceLock<Told>,
    /// The last row of the log that was published here. Held while one is: they go out in order.
    newest: Mutex<u64>,
    wake: Arc<Wake>,
}

/// Whom commits are told.
#[derive(Debug)]
struct Told {
    barrier: Barrier,
    health: Health,
    /// Whether others add to the log, too.
    shared: bool,
}

impl Announcer {
    /// What is kept under the revocations of this store.
    #[must_use]
    pub fn verdicts(&self) -> Arc<Verdicts> {
        Arc::clone(&self.verdicts)
    }

    /// Wakes who follows the log of a store that others use, too.
    #[must_use]
    pub fn wake(&self) -> Arc<Wake> {
        Arc::clone(&self.wake)
    }

    /// From now on these are told, and verdicts are kept as long as this program may `vouch`. Before, nobody can hold a
    /// lease of this process.
    pub fn tell(&self, barrier: Barrier, health: Health, vouch: &Vouch) {
        let mut newest = self.newest.lock();
        *newest = barrier.newest();
        self.verdicts.begin(vouch.clone(), *newest);
        // A second call has nobody else to tell.
        let _ = self.told.set(Told { barrier, health, shared: vouch.is_leased() });
    }

    /// Publishes rows of the log: from the return on no kept verdict that they match is used, and all verifiers hear of
    /// them. Rows that have been published are passed over; behind a hole nothing is, and whoever follows is woken.
    pub fn publish(&self, rows: Vec<Revocation>) {
        let mut newest = self.newest.lock();
        let told = self.told.get();
        let mut next = Vec::with_capacity(rows.len());
        for row in rows {
            // Without others there are no holes.
            if told.is_some_and(|told| told.shared) {
                if row.sequence <= *newest {
                    continue;
                }
                if row.sequence > *newest + 1 {
                    self.wake.log();
                    break;
                }
            }
            *newest = row.sequence;
            // This process is a verifier, too: the one that acknowledges at once.
            self.verdicts.revoked(&row);
            next.push(row);
        }
        if let Some(told) = told.filter(|_| !next.is_empty()) {
            told.barrier.published(next);
        }
    }

    /// Rows before this one are gone, and not all of them were published: nothing that was known counts any more.
    pub fn start_over(&self, newest: u64) {
        let mut last = self.newest.lock();
        *last = newest;
        self.verdicts.forget(newest);
        if let Some(told) = self.told.get() {
            told.barrier.start_over(newest);
        }
    }
}

impl Observer<Auth> for Announcer {
    fn committed(&self, signals: Vec<Signal>) {
        let revoked: Vec<_> = signals
            .into_iter()
            .filter_map(|signal| match signal {
                Signal::Revoked(revocation) => Some(revocation),
                Signal::RoleTokensChanged(_) | Signal::LogGrown | Signal::Reached => None,
            })
            .collect();
        if !revoked.is_empty() {
            self.publish(revoked);
        }
    }

    fn heard(&self, signals: Vec<Signal>) {
        for signal in signals {
            match signal {
                Signal::LogGrown | Signal::Revoked(_) => self.wake.log(),
                Signal::Reached => self.wake.look(),
                Signal::RoleTokensChanged(_) => {}
            }
        }
    }

    fn missed(&self) {
        self.wake.log();
        self.wake.look();
    }

    fn failed(&self, fault: &Fault) {
        tracing::error!(%fault, "the store failed");
        let Some(Told { health, .. }) = self.told.get() else { return };
        health.set(
            STORE_CONDITION,
            Err(match fault {
                Fault::Unavailable(_) | Fault::Full(_) | Fault::Uncertain(_) => UNAVAILABLE.to_owned(),
                Fault::Broken(_) => "an invariant is broken".to_owned(),
            }),
        );
    }
}

/// Why the store is not ready where trying again may help.
pub const UNAVAILABLE: &str = "cannot be written or read";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_of_leases_is_never_shorter_than_one_in_use() {
        let folder = tempfile::tempdir().expect("a folder");
        let (short, long) = (Duration::from_secs(3), Duration::from_secs(30));
        let start = |lease| unknown_leases(folder.path(), lease).expect("noted");
        assert_eq!(start(short).longest, short);
        assert_eq!(start(long).longest, long, "grows before the first grant");
        let first = start(short);
        assert_eq!(first.longest, long, "leases of 30 s may be in use");
        let crashed_before_shrinking = start(short);
        assert_eq!(crashed_before_shrinking.longest, long);
        crashed_before_shrinking.shrink().expect("written");
        assert_eq!(start(short).longest, short);
    }

    #[test]
    fn a_damaged_note_of_leases_is_read_as_the_longest() {
        let folder = tempfile::tempdir().expect("a folder");
        for damaged in ["", "soon", "0", "99999999999999", &"1".repeat(64)] {
            fs::write(folder.path().join(LEASE_FILE), damaged).expect("written");
            let note = unknown_leases(folder.path(), Duration::from_secs(3)).expect("read");
            assert_eq!(note.longest, LEASE.max, "{damaged:?}");
        }
    }

    #[test]
    fn a_store_without_its_chain_key_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join(CHAIN_KEY_FILE);
        let open = || open(folder.path(), &key, None, Profile::Hardened, Clock::system());
        drop(open().expect("made"));
        fs::remove_file(&key).expect("there");
        let refused = open().expect_err("no key").to_string();
        assert!(refused.contains("restore it"), "{refused}");
        fs::write(&key, "short").expect("written");
        assert!(open().is_err());
    }
}
