//! The bounded queue before an engine, and the thread that drains it in batches.
//!
//! A batch that fails is run again verb by verb, so that only the guilty one is refused; but not where nobody
//! knows whether it was committed. While the disk is full only verbs that may use the space that is kept for
//! them get as far as the engine. A verb that panics (a broken invariant) fails alone, and the observer hears of it.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use crate::store::command::{Command, Step};
use crate::{
    clock::Clock,
    error::{Error, Reason},
    home,
    store::{Domain, Fault, Observer},
};

/// Runs batches. One lives behind each [`Writer`].
pub trait Engine<D: Domain>: Send {
    /// Whether there is room for verbs that may not use the space that is kept.
    ///
    /// # Errors
    /// What to refuse them with.
    fn room(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// Runs the commands in order, commits what they planned, and tells what to signal. On a fault
    /// nothing of the batch has happened; only [`Fault::Uncertain`] says that this is not known.
    ///
    /// # Errors
    /// The fault that undid the batch.
    fn batch(&mut self, commands: &mut [Box<dyn Command<D>>]) -> Result<Vec<D::Signal>, Fault>;
}

/// How long the verbs of a failed batch are tried one by one while the store is unavailable to them.
/// What is left then fails as they did: a lock that another program holds costs one wait, not one each.
const ALONE_WITHIN: Duration = Duration::from_secs(1);

/// How many verbs wait, and how many share a commit.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Verbs waiting; beyond it `LIMIT_REACHED`.
    pub waiting_max: usize,
    /// Verbs in one commit.
    pub batch_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { waiting_max: 4096, batch_max: 256 }
    }
}

/// The door to one engine.
pub struct Writer<D: Domain>(Mode<D>);

enum Mode<D: Domain> {
    Thread { queue: Mutex<Option<mpsc::Sender<Box<dyn Command<D>>>>>, thread: Mutex<Option<JoinHandle<()>>> },
    Inline(Mutex<Option<Drain<D>>>),
}

struct Drain<D: Domain> {
    engine: Box<dyn Engine<D>>,
    observer: Arc<dyn Observer<D>>,
}

impl<D: Domain> fmt::Debug for Writer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self.0, Mode::Inline(_)) { "Writer(inline)" } else { "Writer(thread)" })
    }
}

impl<D: Domain> Writer<D> {
    /// A thread of its own with a bounded queue.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub fn thread(
        name: &str,
        engine: Box<dyn Engine<D>>,
        observer: Arc<dyn Observer<D>>,
        limits: QueueLimits,
    ) -> std::io::Result<Self> {
        let (queue, commands) = mpsc::channel(limits.waiting_max);
        let drain = Drain { engine, observer };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || drain.run(commands, limits.batch_max))?;
        Ok(Self(Mode::Thread { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) }))
    }

    /// No thread: each verb is a batch of one, run on the caller's thread. Deterministic.
    #[must_use]
    pub fn inline(engine: Box<dyn Engine<D>>, observer: Arc<dyn Observer<D>>) -> Self {
        Self(Mode::Inline(Mutex::new(Some(Drain { engine, observer }))))
    }

    /// Runs it on the caller's thread, if that is at hand at once; else gives it back.
    pub(super) fn try_here(&self, command: Box<dyn Command<D>>) -> Option<Box<dyn Command<D>>> {
        let Mode::Inline(drain) = &self.0 else { return Some(command) };
        let mut drain = drain.try_lock();
        match drain.as_mut().and_then(|drain| drain.as_mut()) {
            Some(drain) => drain.alone(command),
            None => Some(command),
        }
    }

    pub(super) fn submit(&self, command: Box<dyn Command<D>>) -> Result<(), Error> {
        match &self.0 {
            Mode::Thread { queue, .. } => {
                let queue = queue.lock();
                let queue = queue.as_ref().ok_or_else(closed)?;
                queue.try_send(command).map_err(|refused| match refused {
                    mpsc::error::TrySendError::Full(_) => full(),
                    mpsc::error::TrySendError::Closed(_) => closed(),
                })
            }
            Mode::Inline(drain) => {
                drain.lock().as_mut().ok_or_else(closed)?.one_batch(vec![command]);
                Ok(())
            }
        }
    }

    pub(super) async fn close(&self) {
        match &self.0 {
            Mode::Thread { queue, thread } => {
                queue.lock().take();
                let Some(thread) = thread.lock().take() else { return };
                // The thread ends once the queue is drained; joining it would block this runtime.
                let joined = tokio::task::spawn_blocking(move || thread.join());
                if !matches!(joined.await, Ok(Ok(()))) {
                    tracing::error!("a store thread did not end cleanly");
                }
            }
            Mode::Inline(drain) => drop(drain.lock().take()),
        }
    }
}

fn full() -> Error {
    Error::new(Reason::LimitReached, "too many writes are waiting; nothing was changed")
        .retry_after(std::time::Duration::from_millis(100))
}

fn closed() -> Error {
    Error::new(Reason::StoreUnavailable, "the store is closed; nothing was changed")
}

impl<D: Domain> Drain<D> {
    fn run(mut self, mut commands: mpsc::Receiver<Box<dyn Command<D>>>, batch_max: usize) {
        let mut batch = Vec::with_capacity(batch_max);
        while commands.blocking_recv_many(&mut batch, batch_max) > 0 {
            self.one_batch(std::mem::take(&mut batch));
        }
    }

    fn one_batch(&mut self, mut batch: Vec<Box<dyn Command<D>>>) {
        if let Err(fault) = self.engine.room() {
            let (goes_on, stays) = batch.into_iter().partition(|command| command.goes_on_full_disk());
            batch = goes_on;
            self.fail(stays, &fault);
        }
        if batch.is_empty() {
            return;
        }
        match self.attempt(&mut batch) {
            Ok(()) => answer_all(batch, &Ok(())),
            Err(fault) if batch.len() == 1 || matches!(fault, Fault::Uncertain(_)) => {
                self.fail(batch, &fault);
            }
            Err(_) => self.one_by_one(batch),
        }
    }

    /// Runs it; gives it back where that failed.
    fn alone(&mut self, command: Box<dyn Command<D>>) -> Option<Box<dyn Command<D>>> {
        let mut batch = [command];
        let ran = self.attempt(&mut batch);
        let [command] = batch;
        match ran {
            Ok(()) => {
                command.answer(Ok(()));
                None
            }
            Err(_) => Some(command),
        }
    }

    /// Someone in the batch is guilty: each on its own.
    fn one_by_one(&mut self, batch: Vec<Box<dyn Command<D>>>) {
        let began: Instant = Clock::instant();
        let mut batch = batch.into_iter();
        while let Some(command) = batch.next() {
            let room = if command.goes_on_full_disk() { Ok(()) } else { self.engine.room() };
            let mut alone = vec![command];
            let Err(fault) = room.and_then(|()| self.attempt(&mut alone)) else {
                answer_all(alone, &Ok(()));
                continue;
            };
            if matches!(fault, Fault::Unavailable(_) | Fault::Uncertain(_))
                && Clock::instant().duration_since(began) >= ALONE_WITHIN
            {
                alone.extend(batch);
                return self.fail(alone, &fault);
            }
            self.fail(alone, &fault);
        }
    }

    fn fail(&self, batch: Vec<Box<dyn Command<D>>>, fault: &Fault) {
        if batch.is_empty() {
            return;
        }
        self.hear(|observer| observer.failed(fault));
        answer_all(batch, &Err(fault.clone()));
    }

    /// What an observer does with the news is no fault of the store: it goes on.
    fn hear(&self, tell: impl FnOnce(&dyn Observer<D>)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| tell(&*self.observer))) {
            tracing::error!(panic = said(&*panic), "an observer of the store panicked");
        }
    }

    fn attempt(&mut self, batch: &mut [Box<dyn Command<D>>]) -> Result<(), Fault> {
        let ran = catch_unwind(AssertUnwindSafe(|| self.engine.batch(batch)));
        let signals = ran.unwrap_or_else(|panic| Err(Fault::Broken(said(&*panic))))?;
        if !signals.is_empty() {
            self.hear(|observer| observer.committed(signals));
        }
        Ok(())
    }
}

fn answer_all<D: Domain>(batch: Vec<Box<dyn Command<D>>>, committed: &Result<(), Fault>) {
    let committed = committed.clone();
    home::together(batch, |command| command.home(), move |command| command.answer(committed.clone()));
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a verb panicked".to_owned())
}
