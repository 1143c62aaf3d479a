//! The engine for more than one machine: PostgreSQL 15 and later, whole batches in memory, one flush, one commit.
//!
//! A batch runs on a **working set**: the rows that it has loaded, and what its verbs have planned since. A verb
//! that finds a row missing stops with [`crate::store::Stop::Miss`]; what all of them missed is loaded, and locked
//! until the commit, in one flight, and the whole batch runs again from what was loaded. Then all writes go in one
//! flight, each with the count of the rows it met, then audit rows, chain link and witness, then the commit.
//! Nothing is kept from one batch to the next.
//!
//! **One way back**: after a miss, a deadlock, a serialization failure or a lost connection the batch is run
//! again, a bounded number of times. Only a commit whose answer is lost leaves a doubt. It is settled before
//! anything else happens: on a new connection the writer's row of `moment`, which every batch updates, is locked.
//! That waits for the old transaction to end, so its number tells how; and it is written and committed once more,
//! so that what it tells is as durable as any answer. A commit is never cancelled, and a connection that has
//! failed is not used again.
//!
//! **Several programs** may share a store. A verb rests on rows that are locked, each batch takes its locks in one order
//! (see [`PostgresDomain::place`]), instants are the database's, and each writer has a chain of its own.
//!
//! - [`Target`]: the URL. [`Ask`], [`Flush`]: what a service sends. `link`: one connection.
//! - `working`: a batch on its working set. `writer`: the writing side; `doubt`: its way back. `snapshot`: the
//!   reading side, unlocked loads from one snapshot.
//! - `hosts`, `epoch`: which of several hosts is the store, also when an old one comes back. `making`: a database that
//!   is not there yet.
//! - `bell`: what programs tell each other after a commit. `opening`: what must hold first, migrations; `holding`: alone or shared; `filling`: an empty one. `moment`: the time. `audit`: rows and chains.

use std::{collections::BTreeSet, future::Future, io, sync::Arc};

use tokio::runtime::Runtime;

use crate::{
    clock::{Clock, Timestamp},
    store::{
        Domain, Fault, Observer, Stop, Store,
        audit::{ChainKey, Trail},
        writer::{QueueLimits, Writer},
    },
};

mod audit;
mod bell;
mod doubt;
mod epoch;
mod filling;
mod flush;
mod holding;
mod hosts;
mod keeping;
mod link;
mod making;
mod moment;
mod opening;
mod retention;
mod snapshot;
mod statement;
mod target;
mod trouble;
mod working;
mod writer;

pub(in crate::store) use audit::{look, newest, report};
pub(in crate::store) use keeping::{heads, remembered};
pub(in crate::store) use retention::{first, oldest};
pub(in crate::store) use {filling::fill, trouble::told};

pub use tokio_postgres::{Row, types::ToSql};
pub use {
    audit::{rows, verify},
    flush::{Columns, Flush, Update},
    keeping::keep,
    making::{Made, MakeError, make, remove},
    opening::{OpenError, is_begun},
    statement::{Ask, Param, bind, each, found, pairs_of, rows_of},
    target::{Target, TargetError},
};

/// What a service brings to this engine.
pub trait PostgresDomain: Domain {
    /// The rows of one batch, as far as they are loaded. A copy is taken for each run.
    type Working: Clone + Default + Send + 'static;

    /// The service's migrations.
    fn postgres_migrations() -> refinery::Runner;

    /// How these rows are loaded: one flight, in the order in which they are to be locked. A row that is not
    /// there is known to be missing from then on, and is not locked: another program may add it. So a decision may rest
    /// on the absence of a row only where it adds that row itself, or holds a lock that whoever adds it has, too. Time goes on between the runs of a batch: what was loaded for an
    /// instant must do for a later one, too.
    fn ask(keys: &BTreeSet<Self::Key>, access: Access) -> Vec<Ask<Self::Working>>;

    /// The place of a key's lock in the order of [`PostgresDomain::ask`]; none where it locks nothing. A batch that
    /// misses a key whose place is not behind all that it holds lets go, and takes its locks anew: so two programs do
    /// not wait for each other.
    fn place(key: &Self::Key) -> Option<u8>;

    /// Hands `work` the rows of a working set. A row that is not among the loaded ones stops the verb with
    /// [`Stop::Miss`].
    fn working_rows(
        working: &Self::Working,
        loaded: &BTreeSet<Self::Key>,
        work: &mut dyn FnMut(&mut Self::Rows<'_>),
    );

    /// Applies one planned change to the working set, for the verbs that come later in the batch, and plans
    /// its write.
    ///
    /// # Errors
    /// [`Unmet::Fault`] with [`Fault::Broken`] where it does not meet exactly the rows that it was planned on;
    /// [`Unmet::Miss`] for rows that no verb has to read, like the end of a log.
    fn working_apply(
        working: &mut Self::Working,
        loaded: &BTreeSet<Self::Key>,
        change: Self::Change,
        now: Timestamp,
        out: &mut Out<'_, Self>,
    ) -> Result<(), Unmet<Self>>;

    /// What other programs on the store are told of a signal: one short line; none where nobody there waits for it.
    fn tell(signal: &Self::Signal) -> Option<String> {
        let _ = signal;
        None
    }

    /// What another program has told; none where it is not understood.
    fn hear(told: &str) -> Option<Self::Signal> {
        let _ = told;
        None
    }

    /// Plans the writes of rows that many verbs of a batch change, like counters: one for all.
    fn finish(working: &Self::Working, flush: &mut Flush) {
        let _ = (working, flush);
    }
}

/// What a change leaves behind.
#[derive(Debug)]
pub struct Out<'a, D: Domain> {
    /// Told after the commit.
    pub signals: &'a mut Vec<D::Signal>,
    /// Written before it.
    pub flush: &'a mut Flush,
}

/// Whether rows are locked where they are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Until the commit.
    Locked,
    /// Not at all: all loads are of one snapshot.
    Snapshot,
}

impl Access {
    /// What goes to the end of a statement that reads whole rows.
    #[must_use]
    pub fn clause(self) -> &'static str {
        match self {
            Self::Locked => " FOR UPDATE",
            Self::Snapshot => "",
        }
    }
}

/// Why a change could not be applied.
#[derive(Debug)]
pub enum Unmet<D: Domain> {
    /// These rows are needed first.
    Miss(Vec<D::Key>),
    /// It does not fit.
    Fault(Fault),
}

impl<D: Domain> From<Fault> for Unmet<D> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl<D: Domain> From<Stop<D>> for Unmet<D> {
    fn from(stop: Stop<D>) -> Self {
        match stop {
            Stop::Miss(keys) => Self::Miss(keys),
            Stop::Fault(fault) => Self::Fault(fault),
            Stop::Refused(_) | Stop::Unresolved(_) => {
                Self::Fault(Fault::Broken("a change was refused".to_owned()))
            }
        }
    }
}

/// Who uses a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// This program alone: others are refused while it runs.
    #[default]
    Alone,
    /// Any number of programs that share it. Those that want it alone are refused.
    Shared,
}

/// Where a store lives, and how it runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database.
    pub target: Target,
    /// Whether others use it at the same time.
    pub sharing: Sharing,
    /// Kept from falling behind the database's clock, which instants are of; but a manual one is where they come from.
    pub clock: Clock,
    /// Of the audit chain.
    pub chain_key: ChainKey,
    /// Of both queues.
    pub limits: QueueLimits,
}

impl Options {
    /// The audit rows of this store.
    #[must_use]
    pub fn trail(&self) -> Trail {
        Trail::in_database(self.target.clone(), self.chain_key.clone())
    }
}

/// Opens a store, brings it to this version, seals the chains of earlier writers. Waits for the database.
///
/// # Errors
/// [`OpenError`]; the store is then as it was.
pub fn open<D: PostgresDomain>(
    options: &Options,
    observer: Arc<dyn Observer<D>>,
) -> Result<Store<D>, OpenError> {
    let lane = Lane::new()?;
    let desk = lane.apart(|lane| lane.wait(opening::open::<D>(options)))?;
    options.target.seen().keep()?;
    let watch = hosts::Watch::start(&options.target)?;
    let snapshot = snapshot::Snapshot::<D>::new(options, Arc::clone(&desk.moment))?;
    let engine = writer::Postgres::<D>::new(desk, lane, watch);
    let reader = Writer::thread("store-reader", Box::new(snapshot), Arc::clone(&observer), options.limits)?;
    let observer = match options.sharing {
        Sharing::Alone => observer,
        Sharing::Shared => bell::start(&options.target, observer)?,
    };
    let writer = Writer::thread("store-writer", Box::new(engine), observer, options.limits)?;
    Ok(Store::new(writer, Some(reader)))
}

/// What drives the connections of one thread. It may be dropped anywhere.
struct Lane(Option<Runtime>);

impl Lane {
    fn new() -> io::Result<Self> {
        Ok(Self(Some(tokio::runtime::Builder::new_current_thread().enable_all().build()?)))
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.0.as_ref().expect("it is there until it is dropped").block_on(work)
    }

    /// Waits on a thread of its own: the caller may be on one that must not wait.
    fn apart<T: Send>(&self, work: impl FnOnce(&Self) -> T + Send) -> T {
        std::thread::scope(|threads| {
            let done = threads.spawn(|| work(self)).join();
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Its tasks go, and their sockets; nothing is waited for.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
