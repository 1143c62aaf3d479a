//! The reading side: groups of reads, each group on one snapshot.
//!
//! To begin a snapshot and to end it costs as much as a small read: so one is kept until something is committed.

use std::{
    collections::BTreeSet,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use rusqlite::Connection;

use super::{OpenError, Options, Sqlite, SqliteDomain, connect, instant, run_one};
use crate::{
    clock::Clock,
    store::{
        Fault,
        writer::{Command, Engine, Step},
    },
};

/// Pages that a reader on its caller's thread keeps, KiB.
const CACHE_KIB: i64 = 8_192;

/// What a writer and its readers know of each other.
#[derive(Default)]
pub(super) struct Readers {
    /// How often a commit was tried.
    commits: AtomicU64,
    /// Shared by groups of reads, and held alone by whoever cuts the log. SQLite waits for readers by asking again and
    /// again whether their place in the log is free; one whose next read takes the same place as its last is never seen
    /// without it. Behind whoever waits for this lock no further read begins.
    turn: RwLock<()>,
    open: Mutex<Vec<Arc<Mutex<Reading>>>>,
}

impl Readers {
    /// A commit was tried: what was read before is old, whatever became of it.
    pub(super) fn outdate(&self) {
        self.commits.fetch_add(1, Ordering::Release);
    }

    /// Ends the snapshots that nobody reads: one that is kept holds its place in the log.
    pub(super) fn let_go(&self) {
        for reading in &*self.open.lock() {
            if let Some(mut reading) = reading.try_lock() {
                reading.end();
            }
        }
    }

    /// Nobody reads while this is held; none where someone does for longer than `within`.
    pub(super) fn stop(&self, within: Duration) -> Option<RwLockWriteGuard<'_, ()>> {
        let stopped = self.turn.try_write_for(within)?;
        self.let_go();
        Some(stopped)
    }
}

/// One connection, and the snapshot that it has.
struct Reading {
    connection: Connection,
    /// As of how many commits.
    as_of: Option<u64>,
}

impl Reading {
    /// A snapshot of all that was committed by now.
    fn fresh(&mut self, readers: &Readers) -> rusqlite::Result<&Connection> {
        let commits = readers.commits.load(Ordering::Acquire);
        if self.as_of != Some(commits) {
            self.end();
            self.connection.prepare_cached("BEGIN DEFERRED")?.execute([])?;
            self.as_of = Some(commits);
        }
        Ok(&self.connection)
    }

    fn end(&mut self) {
        self.as_of = None;
        let ended = || self.connection.prepare_cached("COMMIT")?.execute([]);
        if !self.connection.is_autocommit()
            && let Err(error) = ended()
        {
            tracing::error!(%error, "a read could not be ended");
        }
    }
}

/// Reads what the writer has committed.
pub(super) struct Snapshot<D> {
    reading: Arc<Mutex<Reading>>,
    readers: Arc<Readers>,
    clock: Clock,
    moment: Arc<AtomicI64>,
    inject_misses: bool,
    /// Whether it waits for its turn, and for other programs. One that runs on its caller's thread does not.
    waits: bool,
    _domain: PhantomData<fn() -> D>,
}

impl<D: SqliteDomain> Snapshot<D> {
    /// A reader of what `engine` writes.
    pub(super) fn open(options: &Options, engine: &Sqlite<D>, waits: bool) -> Result<Self, OpenError> {
        let open = |source| OpenError::Open { place: options.place.to_string(), source };
        let connection = connect(&options.place).map_err(open)?;
        if !waits {
            connection.busy_timeout(Duration::ZERO).map_err(open)?;
            // There is one for each core, and none reads much at once.
            connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(open)?;
        }
        let reading = Arc::new(Mutex::new(Reading { connection, as_of: None }));
        engine.readers.open.lock().push(Arc::clone(&reading));
        Ok(Self {
            reading,
            readers: Arc::clone(&engine.readers),
            clock: options.clock.clone(),
            moment: Arc::clone(&engine.moment),
            inject_misses: options.inject_misses,
            waits,
            _domain: PhantomData,
        })
    }
}

impl<D: SqliteDomain> Engine<D> for Snapshot<D> {
    fn batch(&mut self, commands: &mut [Box<dyn Command<D>>]) -> Result<Vec<D::Signal>, Fault> {
        let turn = &self.readers.turn;
        let turn = if self.waits { Some(turn.read()) } else { turn.try_read() };
        let _turn = turn.ok_or_else(|| Fault::Unavailable("its log is being cut".to_owned()))?;
        let mut reading = self.reading.lock();
        let read = self.read(reading.fresh(&self.readers)?, commands);
        if read.is_err() {
            reading.end();
        }
        read.map(|()| Vec::new())
    }
}

impl<D: SqliteDomain> Snapshot<D> {
    fn read(&self, connection: &Connection, commands: &mut [Box<dyn Command<D>>]) -> Result<(), Fault> {
        let mut loaded = BTreeSet::new();
        for command in commands {
            loop {
                let now = instant(&self.clock, &self.moment);
                let known = self.inject_misses.then_some(&loaded);
                match run_one::<D>(connection, known, command.as_mut(), now) {
                    Step::Write(changes, audit) if changes.is_empty() && audit.is_empty() => break,
                    Step::Write(..) => return Err(Fault::Broken("a read planned a write".to_owned())),
                    Step::Miss(keys) => loaded.extend(keys),
                    Step::Fault(fault) => return Err(fault),
                }
            }
        }
        Ok(())
    }
}
