//! The embedded engine: SQLite in WAL mode with `synchronous=FULL`, one writer, grouped commits.
//!
//! A batch is one transaction: its verbs run one after another on the rows as they are, the changes of
//! each are applied before the next one looks, then audit rows, chain link and the instant go in, then
//! one commit. Reads run in groups on a connection of their own, each group on one snapshot.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::{
    clock::{Clock, Timestamp},
    random,
    store::{
        Domain, Fault, Observer, Store,
        audit::{ChainKey, Entry, Head},
        writer::{Command, Engine, QueueLimits, Step, Writer},
    },
};

mod audit;

pub use audit::{Damage, Filter, rows, verify};

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

/// File or memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file in an existing folder; made where it is missing.
    File(PathBuf),
    /// Gone with the process.
    Memory,
}

/// Why a store cannot be opened. One line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be opened, or is no database.
    #[error("cannot open the store {place}: {source}; it was left as it is")]
    Open {
        /// Which.
        place: String,
        /// Why.
        source: rusqlite::Error,
    },
    /// It is of a newer version, or a migration failed.
    #[error(
        "cannot bring the store {place} to this version: {source}; use the program that last wrote it, or a newer one"
    )]
    Migrate {
        /// Which.
        place: String,
        /// Why.
        source: Box<refinery::Error>,
    },
    /// No thread to run it.
    #[error("cannot start the store's thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The chain's start could not be written.
    #[error("cannot write to the store {place}: {source}")]
    Write {
        /// Which.
        place: String,
        /// Why.
        source: Fault,
    },
}

/// Opens a store, brings it to this version, seals the chains of earlier writers.
///
/// # Errors
/// [`OpenError`]; the store is then as it was.
pub fn open<D: SqliteDomain>(
    options: &Options,
    observer: Arc<dyn Observer<D>>,
) -> Result<Store<D>, OpenError> {
    let place = options.place.to_string();
    let mut connection =
        connect(&options.place).map_err(|source| OpenError::Open { place: place.clone(), source })?;
    migrate::<D>(&mut connection, &place)?;
    let last: i64 = connection
        .query_row("SELECT at FROM moment", [], |row| row.get(0))
        .map_err(|source| OpenError::Open { place: place.clone(), source })?;
    let moment = Arc::new(AtomicI64::new(last));
    let mut engine = Sqlite::<D> {
        connection,
        clock: options.clock.clone(),
        moment: Arc::clone(&moment),
        key: options.chain_key.clone(),
        head: Head::start(random::id("wrt")),
        inject_misses: options.inject_misses,
        log: options.place.log(),
        look_in: LOOK_EVERY.0,
        look_every: LOOK_EVERY.0,
        _domain: std::marker::PhantomData,
    };
    engine.seal_earlier().map_err(|source| OpenError::Write { place: place.clone(), source })?;
    if options.inline {
        return Ok(Store::new(Writer::inline(Box::new(engine), observer), None));
    }
    let reader = match &options.place {
        Place::Memory => None,
        Place::File(_) => {
            let connection = connect(&options.place).map_err(|source| OpenError::Open { place, source })?;
            let snapshot = Snapshot::<D> {
                connection,
                clock: options.clock.clone(),
                moment,
                inject_misses: options.inject_misses,
                _domain: std::marker::PhantomData,
            };
            Some(Writer::thread("store-reader", Box::new(snapshot), Arc::clone(&observer), options.limits)?)
        }
    };
    let writer = Writer::thread("store-writer", Box::new(engine), observer, options.limits)?;
    Ok(Store::new(writer, reader))
}

impl Place {
    fn log(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => {
                let mut log = path.clone().into_os_string();
                log.push("-wal");
                Some(log.into())
            }
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

/// Beyond this the log is written back and cut, and readers wait for it: those that never pause keep the
/// ordinary checkpoints, which wait for nobody, from ever coming to the log's end.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// How long that waits for the reads in hand.
const CUT_WITHIN: std::time::Duration = std::time::Duration::from_millis(250);
/// How many commits lie between two looks at the log; twice as many after each that found it held by a long
/// read, up to the second number.
const LOOK_EVERY: (u32, u32) = (16, 4_096);

/// How long another program's lock is waited for: a write that fails for it still fails in its deadline.
const BUSY_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Opens a connection as every part of ours does.
///
/// # Errors
/// What SQLite says.
pub fn connect(place: &Place) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match place {
        Place::File(path) => {
            make_private(path);
            Connection::open_with_flags(path, flags)?
        }
        Place::Memory => Connection::open_in_memory_with_flags(flags)?,
    };
    connection.busy_timeout(BUSY_WITHIN)?;
    connection.set_prepared_statement_cache_capacity(128);
    // Fewer checkpoints: measured 15 % faster, at 40 MB of log, and `LOG_BYTES_MAX` beside busy readers.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 10000;
         PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;",
    )?;
    Ok(connection)
}

/// A new store file is nobody else's to read. What cannot be made here fails at the open that follows.
fn make_private(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
}

fn migrate<D: SqliteDomain>(connection: &mut Connection, place: &str) -> Result<(), OpenError> {
    mod kit {
        refinery::embed_migrations!("migrations/sqlite");
    }
    let mut ours = kit::migrations::runner();
    ours.set_migration_table_name("kit_migrations");
    for runner in [ours, D::migrations()] {
        runner
            .set_grouped(true)
            .run(connection)
            .map_err(|source| OpenError::Migrate { place: place.to_owned(), source: Box::new(source) })?;
    }
    Ok(())
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // The statement met rows that an invariant of ours excludes.
            Some(rusqlite::ErrorCode::ConstraintViolation | rusqlite::ErrorCode::TypeMismatch) | None => {
                Self::Broken(error.to_string())
            }
            Some(_) => Self::Unavailable(error.to_string()),
        }
    }
}

struct Sqlite<D> {
    connection: Connection,
    clock: Clock,
    moment: Arc<AtomicI64>,
    key: ChainKey,
    head: Head,
    inject_misses: bool,
    /// The write-ahead log's file; none in memory.
    log: Option<PathBuf>,
    /// Commits until the next look at it.
    look_in: u32,
    look_every: u32,
    _domain: std::marker::PhantomData<fn() -> D>,
}

impl<D: SqliteDomain> Engine<D> for Sqlite<D> {
    fn batch(&mut self, commands: &mut [Box<dyn Command<D>>]) -> Result<Vec<D::Signal>, Fault> {
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
            transaction.commit()?;
            self.head = head;
            self.moment.store(now.as_micros(), Ordering::SeqCst);
            self.bound_log();
            return Ok(planned.signals);
        }
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
    /// Keeps the log short. What was committed is durable whether it can be cut now or not.
    fn bound_log(&mut self) {
        self.look_in -= 1;
        if self.look_in > 0 {
            return;
        }
        self.look_in = self.look_every;
        let long = |log: &PathBuf| std::fs::metadata(log).is_ok_and(|log| log.len() > LOG_BYTES_MAX);
        if !self.log.as_ref().is_some_and(long) {
            return;
        }
        let cut = || {
            self.connection.busy_timeout(CUT_WITHIN)?;
            let busy =
                self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, bool>(0));
            self.connection.busy_timeout(BUSY_WITHIN)?;
            busy
        };
        let is_cut = match cut() {
            Ok(busy) => !busy,
            Err(error) => {
                tracing::warn!(%error, "the store's log cannot be cut");
                false
            }
        };
        self.look_every = if is_cut { LOOK_EVERY.0 } else { (self.look_every * 2).min(LOOK_EVERY.1) };
        self.look_in = self.look_every;
    }

    /// Writers whose process has ended can add nothing: a last link says so.
    fn seal_earlier(&mut self) -> Result<(), Fault> {
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

/// The reading side: groups of reads, each group on one snapshot.
struct Snapshot<D> {
    connection: Connection,
    clock: Clock,
    moment: Arc<AtomicI64>,
    inject_misses: bool,
    _domain: std::marker::PhantomData<fn() -> D>,
}

impl<D: SqliteDomain> Engine<D> for Snapshot<D> {
    fn batch(&mut self, commands: &mut [Box<dyn Command<D>>]) -> Result<Vec<D::Signal>, Fault> {
        let mut loaded = BTreeSet::new();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        for command in commands {
            loop {
                let now = instant(&self.clock, &self.moment);
                let known = self.inject_misses.then_some(&loaded);
                match run_one::<D>(&transaction, known, command.as_mut(), now) {
                    Step::Write(changes, audit) if changes.is_empty() && audit.is_empty() => break,
                    Step::Write(..) => return Err(Fault::Broken("a read planned a write".to_owned())),
                    Step::Miss(keys) => loaded.extend(keys),
                    Step::Fault(fault) => return Err(fault),
                }
            }
        }
        transaction.finish()?;
        Ok(Vec::new())
    }
}
