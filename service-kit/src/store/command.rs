//! A verb in the queue: what it is to run, and where its answer goes.

use tokio::sync::oneshot;

use crate::{
    clock::Timestamp,
    error::Error,
    home::Home,
    store::{Domain, Fault, Halt, Ran, Stop, audit::Entry},
};

/// One queued verb, its type erased.
pub trait Command<D: Domain>: Send {
    /// Runs it once more; only the last run counts.
    fn run(&mut self, rows: &mut D::Rows<'_>, now: Timestamp) -> Step<D>;
    /// Whether it may use the space that is kept for a full disk.
    fn goes_on_full_disk(&self) -> bool;
    /// Where its caller waits.
    fn home(&self) -> &Home;
    /// Gives the answer of the last run, or the failure of its commit.
    fn answer(self: Box<Self>, committed: Result<(), Fault>);
}

/// What a run asks of its engine.
#[derive(Debug)]
pub enum Step<D: Domain> {
    /// Apply and keep these (both may be empty).
    Write(Vec<D::Change>, Vec<Entry>),
    /// Load these, then run the batch again.
    Miss(Vec<D::Key>),
    /// The store failed.
    Fault(Fault),
}

type Answer<D, T> = Result<T, Halt<D>>;

/// A verb and its caller.
pub(super) struct Pending<D: Domain, T, F> {
    run: F,
    on_full_disk: bool,
    last: Option<Answer<D, T>>,
    home: Home,
    reply: oneshot::Sender<Answer<D, T>>,
}

impl<D: Domain, T, F> Pending<D, T, F> {
    pub(super) fn new(run: F, on_full_disk: bool, reply: oneshot::Sender<Answer<D, T>>) -> Self {
        Self { run, on_full_disk, last: None, home: Home::here(), reply }
    }
}

impl<D, T, F> Command<D> for Pending<D, T, F>
where
    D: Domain,
    T: Send,
    F: FnMut(&mut D::Rows<'_>, Timestamp) -> Ran<D, T> + Send,
{
    fn run(&mut self, rows: &mut D::Rows<'_>, now: Timestamp) -> Step<D> {
        let Ran { result, changes, audit } = (self.run)(rows, now);
        match result {
            Ok(out) => {
                self.last = Some(Ok(out));
                Step::Write(changes, audit)
            }
            Err(Stop::Refused(error)) => {
                self.last = Some(Err(Halt::Refused(error)));
                Step::Write(Vec::new(), audit)
            }
            Err(Stop::Unresolved(question)) => {
                self.last = Some(Err(Halt::Unresolved(question)));
                Step::Write(Vec::new(), Vec::new())
            }
            Err(Stop::Miss(keys)) => Step::Miss(keys),
            Err(Stop::Fault(fault)) => Step::Fault(fault),
        }
    }

    fn goes_on_full_disk(&self) -> bool {
        self.on_full_disk
    }

    fn home(&self) -> &Home {
        &self.home
    }

    fn answer(self: Box<Self>, committed: Result<(), Fault>) {
        let answer = match (committed, self.last) {
            (Ok(()), Some(last)) => last,
            (Ok(()), None) => Err(Halt::Refused(Error::internal("answered before it ran"))),
            (Err(fault), _) => Err(Halt::Refused(fault.into())),
        };
        // A caller that has gone away is told nothing; what was committed stays.
        let _ = self.reply.send(answer);
    }
}
