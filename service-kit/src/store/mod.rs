//! The seam between verbs and engines.
//!
//! A **verb** runs on the rows of one transaction, synchronously, and can be run again with the same
//! result. What it wants written it only plans: a [`Ran`] carries its answer, its changes and its audit
//! entries. The engine applies the changes of verbs that succeeded, keeps the audit entries of all, and
//! commits a whole batch at once; only then are the answers given. So a refused verb has written nothing
//! but its audit entry, and an acknowledged one is durable.
//!
//! - [`Domain`]: what a service's store consists of. Services implement it, and one of
//!   [`sqlite::SqliteDomain`], [`postgres::PostgresDomain`] and [`model::ModelDomain`] for each engine.
//! - [`Store`]: the handle that shells use: [`Store::write`], [`Store::read`], [`Store::record`].
//! - [`writer`]: the bounded queue and the thread that drains it in batches.
//! - [`sqlite`]: the embedded engine. [`postgres`]: the one for more than one machine. [`model`]: the plain
//!   in-memory engine, the twin in tests.
//! - [`copy`]: moves an embedded store into a database.
//! - `reserve`: the space that is kept for what must be done though the disk is full.
//! - [`audit`]: audit entries and the hash chain of each writer, in the same commit.

use std::{fmt, sync::Arc};

use tokio::sync::oneshot;

use crate::{
    clock::Timestamp,
    error::{Error, Reason},
    store::{
        audit::Entry,
        command::{Command, Pending},
        writer::Writer,
    },
};

pub mod audit;
mod chain_key;
mod command;
pub mod copy;
mod lock;
mod migrations;
pub mod model;
pub mod postgres;
mod reserve;
pub mod sqlite;
pub mod writer;

pub use {chain_key::ChainKeyError, lock::StoreLock};

/// What a service's store consists of.
pub trait Domain: Sized + Send + Sync + 'static {
    /// The keyed reads of one transaction: usually `dyn Rows + 't` of the service.
    type Rows<'t>: ?Sized;
    /// The name of a row, for [`Stop::Miss`].
    type Key: Clone + Ord + fmt::Debug + Send;
    /// One planned write.
    type Change: Send;
    /// Told after a commit. A wake-up, never the truth.
    type Signal: Send + 'static;
    /// What a verb cannot know from its rows and the shell must ask elsewhere.
    type Question: Send + fmt::Debug + 'static;
}

/// Why a verb stopped without an answer.
#[derive(Debug)]
pub enum Stop<D: Domain> {
    /// The caller is refused; audit entries are kept.
    Refused(Error),
    /// Rows that this engine has not loaded yet; it loads them and runs the verb again.
    Miss(Vec<D::Key>),
    /// The shell must ask outside the transaction, and run the verb again.
    Unresolved(D::Question),
    /// The store failed under the verb.
    Fault(Fault),
}

impl<D: Domain> From<Error> for Stop<D> {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl<D: Domain> From<Fault> for Stop<D> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Looks each up. What is missed is missed together, so that an engine that loads rows does so in a few flights however
/// long the list is.
///
/// # Errors
/// What `look` says of the first that has no answer; once some are missed, only what is missed counts.
pub fn all<D: Domain, I, T>(
    items: impl IntoIterator<Item = I>,
    mut look: impl FnMut(I) -> Result<T, Stop<D>>,
) -> Result<Vec<T>, Stop<D>> {
    let (mut found, mut missed) = (Vec::new(), Vec::new());
    for item in items {
        match look(item) {
            Ok(one) => found.push(one),
            Err(Stop::Miss(keys)) => missed.extend(keys),
            Err(stop) if missed.is_empty() => return Err(stop),
            Err(_) => {}
        }
    }
    if missed.is_empty() { Ok(found) } else { Err(Stop::Miss(missed)) }
}

/// What one run of a verb gives: its answer and what it wants written.
#[derive(Debug)]
pub struct Ran<D: Domain, T> {
    /// The answer.
    pub result: Result<T, Stop<D>>,
    /// Applied only where the result is `Ok`.
    pub changes: Vec<D::Change>,
    /// Kept where the result is `Ok` or `Refused`.
    pub audit: Vec<Entry>,
}

/// Why the shell got no answer.
#[derive(Debug)]
pub enum Halt<D: Domain> {
    /// Refused, or the store failed.
    Refused(Error),
    /// Ask this, then run the verb again.
    Unresolved(D::Question),
}

/// A failure of the store itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// It cannot be read or written now: locked, gone. Trying again may help.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// There is no space. Only what may use the space that is kept goes on.
    #[error("the disk is full: {0}")]
    Full(String),
    /// It failed under a commit, and could not be asked what became of that.
    #[error("the store failed in a commit: {0}")]
    Uncertain(String),
    /// Rows are not as an invariant of ours says. Trying again will not help.
    #[error("a store invariant is broken: {0}")]
    Broken(String),
}

impl Fault {
    /// A write that should have met exactly one row met `count`.
    ///
    /// # Errors
    /// [`Fault::Broken`] for any other count.
    pub fn unless_one(count: usize, what: &str) -> Result<(), Self> {
        Self::unless(count as u64, 1, what)
    }

    /// A write that should have met exactly `wanted` rows met `count`.
    ///
    /// # Errors
    /// [`Fault::Broken`] for any other count.
    pub fn unless(count: u64, wanted: u64, what: &str) -> Result<(), Self> {
        if count == wanted {
            return Ok(());
        }
        Err(Self::Broken(format!("{what}: {count} rows instead of {wanted}")))
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unavailable(_) => {
                Self::new(Reason::StoreUnavailable, "the store is unavailable; nothing was changed")
                    .caused_by(fault)
            }
            Fault::Full(_) => {
                Self::new(Reason::StoreUnavailable, "the disk is full; nothing was changed").caused_by(fault)
            }
            Fault::Uncertain(_) => Self::new(
                Reason::StoreUnavailable,
                "the store failed; whether this was done is not known: ask again, with the same request id",
            )
            .caused_by(fault),
            Fault::Broken(_) => Self::internal(fault),
        }
    }
}

/// Hears of commits and failures, on the writer's thread, before the answers are given.
pub trait Observer<D: Domain>: Send + Sync + 'static {
    /// A batch has been committed.
    fn committed(&self, signals: Vec<D::Signal>);
    /// A batch or a verb has failed.
    fn failed(&self, fault: &Fault);
    /// Another program on the same store has committed. On a thread apart.
    fn heard(&self, signals: Vec<D::Signal>) {
        drop(signals);
    }
    /// What other programs have committed may not have been heard. On a thread apart.
    fn missed(&self) {}
}

/// The handle to a service's store. Cheap to clone.
pub struct Store<D: Domain> {
    writer: Arc<Writer<D>>,
    reader: Option<Arc<Writer<D>>>,
    here: Arc<[Writer<D>]>,
}

impl<D: Domain> Clone for Store<D> {
    fn clone(&self) -> Self {
        Self { writer: Arc::clone(&self.writer), reader: self.reader.clone(), here: Arc::clone(&self.here) }
    }
}

impl<D: Domain> fmt::Debug for Store<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("own_reader", &self.reader.is_some()).finish_non_exhaustive()
    }
}

impl<D: Domain> Store<D> {
    /// Reads go to `reader` where the engine has one apart, else through the writer.
    #[must_use]
    pub fn new(writer: Writer<D>, reader: Option<Writer<D>>) -> Self {
        Self { writer: Arc::new(writer), reader: reader.map(Arc::new), here: Arc::new([]) }
    }

    /// With readers that [`Store::look`] may use on its caller's thread.
    #[must_use]
    pub fn with_readers_here(self, readers: impl IntoIterator<Item = Writer<D>>) -> Self {
        Self { here: readers.into_iter().collect(), ..self }
    }

    /// Runs a verb in a transaction and answers when that is durable.
    ///
    /// # Errors
    /// [`Halt::Refused`] with the verb's reason, `LIMIT_REACHED` where the queue is full,
    /// `STORE_UNAVAILABLE` or `INTERNAL` where the store failed; [`Halt::Unresolved`].
    pub async fn write<T, F>(&self, run: F) -> Result<T, Halt<D>>
    where
        T: Send + 'static,
        F: FnMut(&mut D::Rows<'_>, Timestamp) -> Ran<D, T> + Send + 'static,
    {
        through(&[], &self.writer, run, false).await
    }

    /// As [`Store::write`], for what must be done though the disk is full: it may use the space that is kept for
    /// that. For revocations; what uses it for more leaves none for them.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn write_on_full_disk<T, F>(&self, run: F) -> Result<T, Halt<D>>
    where
        T: Send + 'static,
        F: FnMut(&mut D::Rows<'_>, Timestamp) -> Ran<D, T> + Send + 'static,
    {
        through(&[], &self.writer, run, true).await
    }

    /// Runs a reading verb on a snapshot. Its refusals are recorded before they are answered.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn read<T, F>(&self, run: F) -> Result<T, Halt<D>>
    where
        T: Send + 'static,
        F: FnMut(&mut D::Rows<'_>, Timestamp) -> Ran<D, T> + Send + 'static,
    {
        self.read_on(&[], run).await
    }

    /// As [`Store::read`], for a verb that reads a few rows by their keys, and no more however many there are: on the
    /// caller's own thread where the engine has a reader at hand, since the way to another thread and back costs more
    /// than such a read.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn look<T, F>(&self, run: F) -> Result<T, Halt<D>>
    where
        T: Send + 'static,
        F: FnMut(&mut D::Rows<'_>, Timestamp) -> Ran<D, T> + Send + 'static,
    {
        self.read_on(&self.here, run).await
    }

    async fn read_on<T, F>(&self, here: &[Writer<D>], mut run: F) -> Result<T, Halt<D>>
    where
        T: Send + 'static,
        F: FnMut(&mut D::Rows<'_>, Timestamp) -> Ran<D, T> + Send + 'static,
    {
        let lane = self.reader.as_ref().unwrap_or(&self.writer);
        let read = move |rows: &mut D::Rows<'_>, now| {
            let ran = run(rows, now);
            assert!(ran.changes.is_empty(), "a read plans no changes");
            let result = match ran.result {
                Ok(out) => Ok((Ok(out), ran.audit)),
                Err(Stop::Refused(error)) => Ok((Err(error), ran.audit)),
                Err(Stop::Miss(keys)) => Err(Stop::Miss(keys)),
                Err(Stop::Unresolved(question)) => Err(Stop::Unresolved(question)),
                Err(Stop::Fault(fault)) => Err(Stop::Fault(fault)),
            };
            Ran { result, changes: Vec::new(), audit: Vec::new() }
        };
        let (result, audit) = through(here, lane, read, false).await?;
        if !audit.is_empty() {
            Box::pin(self.record(audit)).await.map_err(Halt::Refused)?;
        }
        result.map_err(Halt::Refused)
    }

    /// Commits audit entries on their own.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn record(&self, entries: Vec<Entry>) -> Result<(), Error> {
        let recorded =
            self.write(move |_, _| Ran { result: Ok(()), changes: Vec::new(), audit: entries.clone() });
        recorded.await.map_err(|halt| match halt {
            Halt::Refused(error) => error,
            Halt::Unresolved(question) => Error::internal(format!("recording asked {question:?}")),
        })
    }

    /// Lets no more in, finishes what is queued, and ends the threads.
    pub async fn close(&self) {
        self.writer.close().await;
        for reader in self.reader.iter().map(|reader| &**reader).chain(&*self.here) {
            reader.close().await;
        }
    }
}

async fn through<D, T, F>(
    here: &[Writer<D>],
    lane: &Writer<D>,
    run: F,
    on_full_disk: bool,
) -> Result<T, Halt<D>>
where
    D: Domain,
    T: Send + 'static,
    F: FnMut(&mut D::Rows<'_>, Timestamp) -> Ran<D, T> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let command: Box<dyn Command<D>> = Box::new(Pending::new(run, on_full_disk, reply));
    // What fails here has another thread wait for the store.
    let left = here.iter().try_fold(command, |command, reader| reader.try_here(command));
    if let Some(command) = left {
        lane.submit(command).map_err(Halt::Refused)?;
    }
    answer.await.unwrap_or_else(|_| {
        Err(Halt::Refused(Error::new(
            Reason::StoreUnavailable,
            "the store is closed; nothing is known of this call",
        )))
    })
}
