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
    random,
    secret_file::{self, SecretFileError},
    store::{
        Fault, Observer, Store, StoreLock,
        audit::ChainKey,
        sqlite::{self, OpenError, Options, Place},
        writer::QueueLimits,
    },
};
use thiserror::Error;

use crate::{
    barrier::Barrier,
    store::{Auth, Signal},
};

/// The store's file.
pub const STORE_FILE: &str = "auth.db";
/// The key of the audit chain: outside the store, so that who can write the store cannot forge the chain.
pub const CHAIN_KEY_FILE: &str = "audit.key";
/// The longest lease that may still be in use: see [`unknown_leases`].
const LEASE_FILE: &str = "lease";
const CHAIN_KEY_BYTES: u64 = 32;
const LEASE_FILE_BYTES_MAX: u64 = 32;

/// The condition of health that the store stands for.
pub const STORE_CONDITION: &str = "store";

/// Why the data directory cannot be used. One line that says what to do.
#[derive(Debug, Error)]
pub enum OpeningError {
    /// It cannot be made.
    #[error("{path}: cannot be made: {source}", path = path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its lock.
    #[error("{0}; is the service running?")]
    Lock(io::Error),
    /// A file in it.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The chain key is missing beside a store, or damaged.
    #[error("{path}: {why}; restore it: without it the audit chain cannot go on", path = path.display())]
    ChainKey {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
}

/// An opened data directory. The lock is held as long as this lives.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store<Auth>,
    /// Tells of commits, once it knows whom to tell.
    pub announcer: Arc<Announcer>,
    _lock: StoreLock,
}

/// Opens.
///
/// # Errors
/// [`OpeningError`]; what was there is left as it was.
pub fn open(folder: &Path, profile: Profile, clock: Clock) -> Result<Opened, OpeningError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| OpeningError::Folder { path: folder.to_owned(), source })?;
    let lock = StoreLock::take(folder).map_err(OpeningError::Lock)?;
    let place = folder.join(STORE_FILE);
    let options = Options {
        chain_key: chain_key(&folder.join(CHAIN_KEY_FILE), place.exists(), profile)?,
        place: Place::File(place),
        clock,
        limits: QueueLimits::default(),
        inline: false,
        inject_misses: false,
    };
    let announcer = Arc::new(Announcer::default());
    let observer: Arc<dyn Observer<Auth>> = announcer.clone();
    Ok(Opened { store: sqlite::open(&options, observer)?, announcer, _lock: lock })
}

fn chain_key(path: &Path, store_exists: bool, profile: Profile) -> Result<ChainKey, OpeningError> {
    let wrong = |why| OpeningError::ChainKey { path: path.to_owned(), why };
    match secret_file::read(path, CHAIN_KEY_BYTES, profile) {
        Ok(secret) => {
            let bytes = secret.contents.as_slice().try_into();
            bytes.map(ChainKey::new).map_err(|_| wrong("not 32 bytes"))
        }
        Err(SecretFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            if store_exists {
                return Err(wrong("missing beside its store"));
            }
            let bytes: [u8; 32] = random::bytes();
            secret_file::create(path, &bytes)?;
            Ok(ChainKey::new(bytes))
        }
        Err(error) => Err(error.into()),
    }
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
        Ok(secret) => std::str::from_utf8(&secret.contents).ok().and_then(|text| text.trim().parse().ok()),
        Err(SecretFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let earlier = noted.map_or(lease, Duration::from_millis);
    let note = LeaseNote { path, lease, longest: earlier.max(lease) };
    if noted.is_none() || earlier < lease {
        note.write(lease)?;
    }
    Ok(note)
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
    barrier: OnceLock<Barrier>,
    health: OnceLock<Health>,
}

impl Announcer {
    /// From now on these are told. Before, nobody can hold a lease of this process.
    pub fn tell(&self, barrier: Barrier, health: Health) {
        // A second call has nobody else to tell.
        let _ = (self.barrier.set(barrier), self.health.set(health));
    }
}

impl Observer<Auth> for Announcer {
    fn committed(&self, signals: Vec<Signal>) {
        let Some(barrier) = self.barrier.get() else { return };
        barrier.published(signals.into_iter().filter_map(|signal| match signal {
            Signal::Revoked(revocation) => Some(revocation),
            Signal::RoleTokensChanged(_) => None,
        }));
    }

    fn failed(&self, fault: &Fault) {
        tracing::error!(%fault, "the store failed");
        let Some(health) = self.health.get() else { return };
        health.set(
            STORE_CONDITION,
            Err(match fault {
                Fault::Unavailable(_) => UNAVAILABLE.to_owned(),
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
    fn a_store_without_its_chain_key_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || open(folder.path(), Profile::Hardened, Clock::system());
        drop(open().expect("made"));
        fs::remove_file(folder.path().join(CHAIN_KEY_FILE)).expect("there");
        let refused = open().expect_err("no key").to_string();
        assert!(refused.contains("restore it"), "{refused}");
        fs::write(folder.path().join(CHAIN_KEY_FILE), "short").expect("written");
        assert!(open().is_err());
    }
}
