//! The store of this service: what verbs run on, and the door that shells use.
//!
//! | file | what |
//! |---|---|
//! | `rows` | [`Rows`]: the keyed reads of one transaction; [`Change`], [`Key`] |
//! | `view` | [`View`]: reads, each with its decision |
//! | `tx` | [`Tx`]: planned writes, each with its permit |
//! | `sqlite`, `postgres`, `model`, `missing` | the engines |
//!
//! A [`Verb`] writes, a [`Query`] only reads; a [`Shell`] runs both, resolves what they cannot know,
//! and adds the audit row of each refusal.

use std::{future::Future, sync::Arc};

use interlock_kit::{
    clock::{Clock, Timestamp},
    error::{Error, Reason},
    store::{
        Domain, Halt, Observer, Ran, Store,
        audit::Entry,
        model::Plain,
        sqlite::{OpenError, Options},
    },
};
use parking_lot::Mutex;

use crate::{
    adopt::OwnerFacts,
    caller::{Caller, Reach},
    event::SharedEvent,
    ids::{AgentId, JobId, OwnerId, ProjectId, SessionId},
    limits::Limits,
};

mod codes;
mod missing;
mod model;
mod postgres;
mod record;
mod rows;
mod sqlite;
mod tx;
mod view;

pub use model::Model;
pub use rows::{Change, Key, Rows};
pub(crate) use rows::{JobsOf, Load};
pub(crate) use tx::Entrance;
pub use tx::Tx;
pub(crate) use view::broken;
pub use view::{Found, Shelf, View};

/// The domain of this service's store.
#[derive(Debug)]
pub struct Gateway;

impl Domain for Gateway {
    type Rows<'t> = dyn Rows + 't;
    type Key = Key;
    type Change = Change;
    type Signal = Signal;
    type Question = Question;
}

/// Why a verb stopped.
pub type Stop = interlock_kit::store::Stop<Gateway>;

/// What a verb cannot know from its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether this owner may enter this project.
    Membership {
        /// The owner.
        owner: OwnerId,
        /// The project.
        project: ProjectId,
    },
    /// What is known of this owner.
    Owner {
        /// The owner.
        owner: OwnerId,
    },
}

/// Told after a commit: a wake-up, never the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A session's log has grown.
    Logged {
        /// The session.
        session: SessionId,
        /// What was appended.
        event: SharedEvent,
    },
    /// Another gateway has appended to a session's log.
    Grown {
        /// The session.
        session: SessionId,
    },
    /// An agent has a job queued.
    AgentQueued {
        /// The agent.
        agent: AgentId,
    },
    /// A job has changed.
    JobChanged {
        /// The job.
        job: JobId,
        /// Whether it has ended.
        ended: bool,
    },
    /// Someone asked to cancel a running job: tell its worker.
    CancelRequested {
        /// The job.
        job: JobId,
        /// Of the attempt that is asked.
        fencing: u64,
    },
    /// An attempt is over that its worker did not end: tell it.
    LeaseTaken {
        /// The job.
        job: JobId,
        /// Of the attempt that is over.
        fencing: u64,
    },
    /// An agent may be free by now, or its line is shorter: look, who waits in it.
    LineMoved {
        /// The agent.
        agent: AgentId,
    },
    /// A session is gone: end its streams.
    SessionGone {
        /// The session.
        session: SessionId,
    },
}

/// One thing that changes the store, in one transaction. Can be run again with the same result.
pub trait Verb: Send + Sync + 'static {
    /// The answer.
    type Out: Send + 'static;
    /// The audit action: that of the method's policy, or of a sweep.
    const ACTION: &'static str;

    /// Runs it: finds what it concerns (which authorizes), checks, changes, plans the writes.
    ///
    /// # Errors
    /// [`Stop`]; a refusal has written nothing but its audit row.
    fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Stop>;
}

/// One thing that only reads.
pub trait Query: Send + Sync + 'static {
    /// The answer.
    type Out: Send + 'static;
    /// The audit action of its refusals.
    const ACTION: &'static str;

    /// Whether it reads a few rows by their keys, and no more however many there are ([`Store::look`]).
    fn is_keyed(&self) -> bool {
        false
    }

    /// Runs it.
    ///
    /// # Errors
    /// [`Stop`].
    fn run(&self, view: &mut View<'_>) -> Result<Self::Out, Stop>;
}

/// An answer, and what the call should be told beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<T> {
    /// The answer.
    pub out: T,
    /// The call named no project where it should have: answer with `deprecation` and `sunset`.
    pub unscoped: bool,
}

/// Answers what verbs cannot know. The gateway asks its verifier.
pub trait Resolver: Send + Sync {
    /// Whether this owner may enter this project, where that is known without asking.
    fn known(&self, owner: &str, project: &ProjectId) -> Option<bool> {
        let _ = (owner, project);
        None
    }

    /// Whether this owner may enter this project.
    fn may_enter(
        &self,
        owner: &OwnerId,
        project: &ProjectId,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// What is known of this owner.
    fn owner(&self, owner: &OwnerId) -> impl Future<Output = Result<OwnerFacts, Error>> + Send;
}

/// The door to the store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shell {
    store: Store<Gateway>,
    limits: Arc<Limits>,
}

/// Questions that one call may ask.
const QUESTIONS_MAX: usize = 64;

impl Shell {
    /// Opens the embedded store.
    ///
    /// # Errors
    /// [`OpenError`]; the store is then as it was.
    pub fn open(
        options: &Options,
        limits: Arc<Limits>,
        observer: Arc<dyn Observer<Gateway>>,
    ) -> Result<Self, OpenError> {
        Ok(Self { store: interlock_kit::store::sqlite::open(options, observer)?, limits })
    }

    /// Opens a store in a database.
    ///
    /// # Errors
    /// [`postgres::OpenError`](interlock_kit::store::postgres::OpenError); the store is then as it was.
    pub fn open_database(
        options: &interlock_kit::store::postgres::Options,
        limits: Arc<Limits>,
        observer: Arc<dyn Observer<Gateway>>,
    ) -> Result<Self, interlock_kit::store::postgres::OpenError> {
        Ok(Self { store: interlock_kit::store::postgres::open(options, observer)?, limits })
    }

    /// Opens an empty plain store, for tests and simulations; the second part shows its rows.
    #[must_use]
    pub fn plain(
        clock: Clock,
        limits: Arc<Limits>,
        observer: Arc<dyn Observer<Gateway>>,
    ) -> (Self, Arc<Mutex<Plain<Gateway>>>) {
        let (store, plain) = interlock_kit::store::model::open(clock, observer);
        (Self { store, limits }, plain)
    }

    /// The limits that verbs run under.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs a verb; asks the resolver what it cannot know, and runs it again.
    ///
    /// # Errors
    /// The verb's refusal, the resolver's, or the store's.
    pub async fn run<V: Verb>(
        &self,
        caller: &Arc<Caller>,
        verb: V,
        resolver: &impl Resolver,
    ) -> Result<Told<V::Out>, Error> {
        let verb = Arc::new(verb);
        let mut reach = anticipated(caller, resolver);
        loop {
            let (verb, limits) = (Arc::clone(&verb), Arc::clone(&self.limits));
            let (caller, known) = (Arc::clone(caller), reach.clone());
            let ran = self
                .store
                .write(move |rows: &mut (dyn Rows + '_), now: Timestamp| {
                    run_verb(&*verb, rows, now, (&caller, &known), &limits)
                })
                .await;
            match ran {
                Ok(told) => return Ok(told),
                Err(Halt::Refused(error)) => return Err(error),
                Err(Halt::Unresolved(question)) => {
                    // In a box: what most calls do not need makes theirs no larger.
                    Box::pin(resolve(&mut reach, question, resolver)).await?;
                }
            }
        }
    }

    /// Runs a query, likewise.
    ///
    /// # Errors
    /// As [`Shell::run`].
    pub async fn ask<Q: Query>(
        &self,
        caller: &Arc<Caller>,
        query: Q,
        resolver: &impl Resolver,
    ) -> Result<Told<Q::Out>, Error> {
        let query = Arc::new(query);
        let mut reach = anticipated(caller, resolver);
        loop {
            let (query, limits) = (Arc::clone(&query), Arc::clone(&self.limits));
            let is_keyed = query.is_keyed();
            let (caller, known) = (Arc::clone(caller), reach.clone());
            let read = move |rows: &mut (dyn Rows + '_), now: Timestamp| {
                run_query(&*query, rows, now, (&caller, &known), &limits)
            };
            let ran = if is_keyed { self.store.look(read).await } else { self.store.read(read).await };
            match ran {
                Ok(told) => return Ok(told),
                Err(Halt::Refused(error)) => return Err(error),
                Err(Halt::Unresolved(question)) => {
                    // In a box: what most calls do not need makes theirs no larger.
                    Box::pin(resolve(&mut reach, question, resolver)).await?;
                }
            }
        }
    }

    /// Commits audit entries on their own: refusals of the gate.
    ///
    /// # Errors
    /// As the store says.
    pub async fn record(&self, entries: Vec<Entry>) -> Result<(), Error> {
        self.store.record(entries).await
    }

    /// Lets no more in, finishes what is queued, ends the threads.
    pub async fn close(&self) {
        self.store.close().await;
    }
}

/// What is known about the project that the caller names: most verbs would stop to ask just that.
/// Learned for each run anew, so that nothing outlives what the resolver knows.
fn anticipated(caller: &Caller, resolver: &impl Resolver) -> Reach {
    let named = caller.named.as_ref().zip(caller.acts_as());
    Reach::of_named(named.and_then(|(project, owner)| resolver.known(owner, project)))
}

async fn resolve(reach: &mut Reach, question: Question, resolver: &impl Resolver) -> Result<(), Error> {
    if reach.asked() >= QUESTIONS_MAX {
        return Err(Error::new(Reason::LimitReached, "this call concerns too many projects"));
    }
    match question {
        Question::Membership { owner, project } => {
            let may = resolver.may_enter(&owner, &project).await?;
            reach.learn(owner, project, may);
        }
        Question::Owner { owner } => {
            let facts = resolver.owner(&owner).await?;
            reach.learn_owner(owner, facts);
        }
    }
    Ok(())
}

fn run_verb<V: Verb>(
    verb: &V,
    rows: &(dyn Rows + '_),
    now: Timestamp,
    caller: (&Caller, &Reach),
    limits: &Limits,
) -> Ran<Gateway, Told<V::Out>> {
    let mut tx = Tx::new(View::new(rows, now, caller, limits, V::ACTION));
    let result = verb.run(&mut tx);
    let (view, changes) = tx.into_parts(result.is_ok());
    let (unscoped, audit) = view.into_parts(result.as_ref().err());
    Ran { result: result.map(|out| Told { out, unscoped }), changes, audit }
}

fn run_query<Q: Query>(
    query: &Q,
    rows: &(dyn Rows + '_),
    now: Timestamp,
    caller: (&Caller, &Reach),
    limits: &Limits,
) -> Ran<Gateway, Told<Q::Out>> {
    let mut view = View::new(rows, now, caller, limits, Q::ACTION);
    let result = query.run(&mut view);
    let (unscoped, audit) = view.into_parts(result.as_ref().err());
    Ran { result: result.map(|out| Told { out, unscoped }), changes: Vec::new(), audit }
}
