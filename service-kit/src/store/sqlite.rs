//! The embedded engine: SQLite in WAL mode with `synchronous=FULL`, one writer, grouped commits.
//!
//! A batch is one transaction: its verbs run one after another on the rows as they are, the changes of
//! each are applied before the next one looks, then audit rows, chain link and the instant go in, then
//! one commit. Reads run in groups on a connection of their own, each group on one snapshot; small ones
//! ([`Store::look`]) on connections for their callers' own threads.
//!
//! **A sync that failed** leaves a commit in the log of which nobody knows whether it lasts: the system may have
//! dropped the pages and call them clean. So a failed commit is settled before anything else happens: on a new
//! connection its witness is looked for, and a commit of our own takes its place in the log. Nothing of an
//! earlier process's log is built upon either: it is written back at the start. **A full disk** refuses all but
//! what may use the `reserve`.

use std::{
    collections::BTreeSet,
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use rusqlite::{Connection, TransactionBehavior};

use crate::{
    clock::{Clock, Timestamp},
    random,
    store::{
        Domain, Fault, Observer, Store,
        audit::{ChainKey, Entry, Head, Trail},
        reserve::Reserve,
        writer::{Command, Engine, QueueLimits, Step, Writer},
    },
};

mod audit;
mod doubt;
mod keeping;
mod log;
mod opening;
mod retention;
mod snapshot;

pub(in crate::store) use audit::{look, newest, report};
use doubt::Doubt;
pub(in crate::store) use keeping::{heads, remembered};
pub(in crate::store) use opening::BUSY_WITHIN;
use opening::{beside, migrate};
pub(in crate::store) use retention::{first, oldest};
use snapshot::{Readers, Snapshot};
pub use {
    super::audit::{Damage, Filter},
    audit::{rows, verify},
    keeping::keep,
    opening::{OpenError, connect},
};

/// Readers on their callers' threads: one a core, up to so many.
const READERS_HERE_MAX: usize = 8;

/// What a service brings to this engine.
pub trait SqliteDomain: Domain {
    /// The service's migrations.
    fn migrations() -> refinery::Runner;

    /// Hands `work` this engine's rows over `connection`. With `misses`, each row that is not in the
    /// set stops the verb with [`crate::store::Stop::Miss`] first: so tests prove that every verb can
    /// be run again.
    fn rows(
        connection: &Connection,
        misses: Option<&BTreeSet<Self::Key>>,
        work: &mut dyn FnMut(&mut Self::Rows<'_>),
    );

    /// Applies one planned change.
    ///
    /// # Errors
    /// [`Fault::Broken`] where it does not meet exactly the rows that it was planned on.
    fn apply(
        connection: &Connection,
        change: Self::Change,
        now: Timestamp,
        signals: &mut Vec<Self::Signal>,
    ) -> Result<(), Fault>;
}

/// Where a store lives, and how it runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file, or memory.
    pub place: Place,
    /// Where instants come from.
    pub clock: Clock,
    /// Of the audit chain.
    pub chain_key: ChainKey,
    /// Of both queues.
    pub limits: QueueLimits,
    /// No threads: each verb is run on its caller's thread, alone.
    pub inline: bool,
    /// Each first look-up misses.
    pub inject_misses: bool,
}

impl Options {
    /// The audit rows of this store; `None` in memory, where nobody else can look.
    #[must_use]
    pub fn trail(&self) -> Option<Trail> {
        match &self.place {
            Place::File(path) => Some(Trail::in_file(path.clone(), self.chain_key.clone())),
            Place::Memory => None,
        }
    }
}

/// File or memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file in an existing folder; made where it is missing.
    File(PathBuf),
    /// Gone with the process.
    Memory,
}

/// Opens a store, brings it to this version, seals the chains of earlier writers.
///
/// # Errors
/// [`OpenError`]; the store is then as it was.
pub fn open<D: SqliteDomain>(
    options: &Options,
    observer: Arc<dyn Observer<D>>,
) -> Result<Store<D>, OpenError> {
    let engine = engine::<D>(options)?;
    if options.inline {
        return Ok(Store::new(Writer::inline(Box::new(engine), observer), None));
    }
    let snapshot = |waits| Snapshot::<D>::open(options, &engine, waits);
    let (mut reader, mut here) = (None, Vec::new());
    if let Place::File(_) = &options.place {
        let waits = Box::new(snapshot(true)?);
        reader = Some(Writer::thread("store-reader", waits, Arc::clone(&observer), options.limits)?);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 0..cores.min(READERS_HERE_MAX) {
            here.push(Writer::inline(Box::new(snapshot(false)?), Arc::clone(&observer)));
        }
    }
    let writer = Writer::thread("store-writer", Box::new(engine), observer, options.limits)?;
    Ok(Store::new(writer, reader).with_readers_here(here))
}

/// Brings a store to this version and seals its chains, for a program that only reads it then.
pub(super) fn sealed<D: SqliteDomain>(options: &Options) -> Result<Connection, OpenError> {
    drop(engine::<D>(options)?);
    connect(&options.place).map_err(|source| OpenError::Open { place: options.place.to_string(), source })
}

fn engine<D: SqliteDomain>(options: &Options) -> Result<Sqlite<D>, OpenError> {
    let place = options.place.to_string();
    if let Place::File(path) = &options.place {
        opening::check::<D>(path)?;
    }
    let mut connection =
        connect(&options.place).map_err(|source| OpenError::Open { place: place.clone(), source })?;
    log::write_back(&connection).map_err(|source| OpenError::Open { place: place.clone(), source })?;
    migrate::<D>(&mut connection, &place)?;
    let last: i64 = connection
        .query_row("SELECT at FROM moment", [], |row| row.get(0))
        .map_err(|source| OpenError::Open { place: place.clone(), source })?;
    options.clock.not_before(Timestamp::from_micros(last));
    let readers = Arc::<Readers>::default();
    let mut engine = Sqlite::<D> {
        connection,
        clock: options.clock.clone(),
        moment: Arc::new(AtomicI64::new(last)),
        key: options.chain_key.clone(),
        head: Head::start(random::id("wrt")),
        inject_misses: options.inject_misses,
        place: options.place.clone(),
        doubt: None,
        untold: Vec::new(),
        reserve: options.place.beside("-reserve").map(Reserve::new),
        log: log::Bound::new(options.place.beside("-wal"), Arc::clone(&readers)),
        readers,
        _domain: std::marker::PhantomData,
    };
    engine.keep_space();
    engine.seal_earlier().map_err(|source| OpenError::Write { place, source })?;
    Ok(engine)
}

impl Place {
    /// The file beside the store's that has this after its name; none in memory.
    fn beside(&self, ending: &str) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(beside(path, ending)),
            Self::Memory => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Memory => f.write_str("in memory"),
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full(error.to_string()),
            // The index of the log cannot grow.
            Some(_) if extended(&error) == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => {
                Self::Full(error.to_string())
            }
            // The statement met rows that an invariant of ours excludes.
            Some(rusqlite::ErrorCode::ConstraintViolation | rusqlite::ErrorCode::TypeMismatch) | None => {
                Self::Broken(error.to_string())
            }
            Some(_) => Self::Unavailable(error.to_string()),
        }
    }
}

fn extended(error: &rusqlite::Error) -> i32 {
    error.sqlite_error().map_or(0, |error| error.extended_code)
}

struct Sqlite<D: Domain> {
    connection: Connection,
    clock: Clock,
    moment: Arc<AtomicI64>,
    key: ChainKey,
    head: Head,
    inject_misses: bool,
    place: Place,
    doubt: Option<Doubt<D>>,
    /// Of commits whose signals nobody has heard of yet: the last one's, and one's before that was in doubt.
    untold: Vec<D::Signal>,
    /// None in memory.
    reserve: Option<Reserve>,
    log: log::Bound,
    readers: Arc<Readers>,
    _domain: std::marker::PhantomData<fn() -> D>,
}

impl<D: SqliteDomain> Engine<D> for Sqlite<D> {
    fn room(&mut self) -> Result<(), Fault> {
        let Some(reserve) = self.reserve.as_mut().filter(|reserve| reserve.is_needed()) else {
            return Ok(());
        };
        reserve.refill().map_err(|error| Fault::Full(error.to_string()))?;
        tracing::info!("there is space for the store again");
        Ok(())
    }

    fn batch(&mut self, commands: &mut [Box<dyn Command<D>>]) -> Result<Vec<D::Signal>, Fault> {
        let on_full_disk = commands.iter().all(|command| command.goes_on_full_disk());
        loop {
            match self.attempt(commands, on_full_disk) {
                Err(Fault::Full(why)) => {
                    if !self.give_space(on_full_disk) {
                        return Err(Fault::Full(why));
                    }
                }
                done => return done,
            }
        }
    }
}

impl<D: SqliteDomain> Sqlite<D> {
    fn attempt(
        &mut self,
        commands: &mut [Box<dyn Command<D>>],
        on_full_disk: bool,
    ) -> Result<Vec<D::Signal>, Fault> {
        if self.doubt.is_some() {
            self.settle(on_full_disk)?;
        }
        self.readers.let_go();
        let mut loaded = BTreeSet::new();
        loop {
            let now = instant(&self.clock, &self.moment);
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let known = self.inject_misses.then_some(&loaded);
            let planned = match run_all::<D>(&transaction, known, commands, now)? {
                Planned::Miss(keys) => {
                    transaction.rollback()?;
                    loaded.extend(keys);
                    continue;
                }
                Planned::Done(planned) => planned,
            };
            let head = audit::append(&transaction, &self.key, &self.head, now, &planned.audit, false)?;
            if planned.wrote {
                let moved =
                    transaction.prepare_cached("UPDATE moment SET at = ?1")?.execute([now.as_micros()])?;
                Fault::unless_one(moved, "moment")?;
            }
            let committed = transaction.commit();
            self.readers.outdate();
            if let Err(error) = committed {
                self.undone(error, head, now, planned.signals, on_full_disk)?;
            } else {
                self.head = head;
                self.moment.store(now.as_micros(), Ordering::SeqCst);
                self.untold.extend(planned.signals);
            }
            self.log.hold(&self.connection);
            return Ok(std::mem::take(&mut self.untold));
        }
    }

    /// Space is kept from the beginning; where there is none the store begins as one on a full disk.
    fn keep_space(&mut self) {
        if let Some(Err(error)) = self.reserve.as_mut().map(Reserve::keep) {
            tracing::warn!(%error, "there is too little space for the store");
        }
    }

    /// Makes room for what may be done on a full disk. Whether there is some.
    fn give_space(&mut self, on_full_disk: bool) -> bool {
        let Some(reserve) = &mut self.reserve else { return false };
        reserve.need();
        on_full_disk && reserve.give()
    }
}

enum Planned<D: Domain> {
    Done(Applied<D>),
    Miss(Vec<D::Key>),
}

struct Applied<D: Domain> {
    audit: Vec<Entry>,
    signals: Vec<D::Signal>,
    wrote: bool,
}

fn run_all<D: SqliteDomain>(
    connection: &Connection,
    known: Option<&BTreeSet<D::Key>>,
    commands: &mut [Box<dyn Command<D>>],
    now: Timestamp,
) -> Result<Planned<D>, Fault> {
    let mut done = Applied { audit: Vec::new(), signals: Vec::new(), wrote: false };
    for command in commands {
        match run_one::<D>(connection, known, command.as_mut(), now) {
            Step::Write(changes, audit) => {
                done.wrote |= !changes.is_empty() || !audit.is_empty();
                for change in changes {
                    D::apply(connection, change, now, &mut done.signals)?;
                }
                done.audit.extend(audit);
            }
            Step::Miss(keys) => return Ok(Planned::Miss(keys)),
            Step::Fault(fault) => return Err(fault),
        }
    }
    Ok(Planned::Done(done))
}

fn run_one<D: SqliteDomain>(
    connection: &Connection,
    known: Option<&BTreeSet<D::Key>>,
    command: &mut dyn Command<D>,
    now: Timestamp,
) -> Step<D> {
    let mut step = None;
    D::rows(connection, known, &mut |rows| step = Some(command.run(rows, now)));
    step.unwrap_or_else(|| Step::Fault(Fault::Broken("rows were never handed over".to_owned())))
}

impl<D: SqliteDomain> Sqlite<D> {
    /// Writers whose process has ended can add nothing: a last link says so.
    fn seal_earlier(&mut self) -> Result<(), Fault> {
        loop {
            match self.seal() {
                Err(Fault::Full(_)) if self.give_space(true) => {}
                sealed => return sealed,
            }
        }
    }

    fn seal(&mut self) -> Result<(), Fault> {
        let now = instant(&self.clock, &self.moment);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for head in audit::open_heads(&transaction)? {
            audit::append(&transaction, &self.key, &head, now, &[], true)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Now, and never before the last stored instant.
fn instant(clock: &Clock, moment: &AtomicI64) -> Timestamp {
    clock.now().max(Timestamp::from_micros(moment.load(Ordering::SeqCst)))
}
