//! Who is woken after a commit.
//!
//! Parked calls, streams and workers wait on a [`Bell`]: one wake-up for any number of [`Topic`]s. The store
//! tells the hub after each commit what has changed, on the writer's thread; the hub rings, and whoever is
//! woken reads the store. So a signal is never the truth, a lost one costs at most a slow poll, and a slow
//! reader holds nothing here: a bell that has rung ten times has rung once.
//!
//! Where several gateways share a store, what the others have committed is heard too ([`Observer::heard`]); after a
//! break everyone is woken.
//!
//! One thing cannot be read any more when it is heard of: the last events of a session that is gone. So while
//! someone listens to a session, the hub keeps a ring of its newest events, and hands the last of them to those
//! listeners when the session goes. Until then they find there what each would have to read and decode by itself. And
//! what concerns one attempt of a job is told as a [`Note`], so that its worker hears of it before its next heartbeat
//! tells.

mod bell;
mod ring;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use interlock_kit::{
    home,
    store::{Fault, Observer},
};
use parking_lot::Mutex;

pub use self::bell::Bell;
use self::{
    bell::Clapper,
    ring::{LAST_BYTES_MAX, RING_BYTES_MAX, RINGS_BYTES_MAX, Ring},
};
use crate::{
    event::SharedEvent,
    ids::{AgentId, JobId, SessionId},
    lease::Held,
    store::{Gateway, Signal},
};

/// Something that one can wait for a change of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A session's log.
    Session(SessionId),
    /// An agent's queue.
    Agent(AgentId),
    /// A job's state.
    Job(JobId),
    /// The attaches that wait for an agent.
    Line(AgentId),
}

/// What a worker is told of before its next heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An agent of the bell's topics has a job queued.
    Queued,
    /// Someone asked to cancel this attempt.
    Cancel(Held),
    /// This attempt is over, and its worker did not end it.
    Taken(Held),
}

/// Rings bells. Cheap to clone.
#[derive(Clone, Default)]
pub struct Hub(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lines: Mutex<HashMap<Topic, Line>>,
    next: AtomicU64,
    /// The last batch failed: what is acknowledged is safe, and nothing new can be.
    store_failed: AtomicBool,
    /// An invariant of ours was found broken: no write heals that.
    broken: OnceLock<String>,
}

/// All who listen to one topic.
#[derive(Default)]
struct Line {
    bells: HashMap<u64, Arc<Clapper>>,
    ring: Option<Arc<Mutex<Ring>>>,
}

impl Hub {
    /// A hub that nobody listens to yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A bell for these topics. A change between this call and [`Bell::rung`] is not missed.
    #[must_use]
    pub fn bell(&self, topics: impl IntoIterator<Item = Topic>) -> Bell {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut bell = Bell::new(self, id);
        topics.into_iter().for_each(|topic| bell.add(topic));
        bell
    }

    /// Whether the store took its last batch.
    #[must_use]
    pub fn store_works(&self) -> bool {
        !self.0.store_failed.load(Ordering::Relaxed)
    }

    /// It took one again.
    pub(crate) fn mark_working(&self) {
        self.0.store_failed.store(false, Ordering::Relaxed);
    }

    /// What is wrong beyond healing, if anything is.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.0.broken.get().cloned()
    }

    fn ring(&self, topic: &Topic, note: Option<&Note>) {
        if let Some(line) = self.0.lines.lock().get(topic) {
            line.ring(note);
        }
    }

    /// Keeps an event for the listeners of its session.
    fn keep(&self, session: &SessionId, event: &SharedEvent) {
        let lines = self.0.lines.lock();
        let ring = lines.get(&Topic::Session(session.clone())).and_then(|line| line.ring.as_ref());
        if let Some(ring) = ring {
            let most = (RINGS_BYTES_MAX / lines.len()).clamp(LAST_BYTES_MAX, RING_BYTES_MAX);
            ring.lock().keep(event, most);
        }
    }

    /// Hands the listeners of a session what was kept.
    fn gone(&self, session: &SessionId) {
        if let Some(line) = self.0.lines.lock().get(&Topic::Session(session.clone())) {
            let last = line.ring.as_ref().map(|ring| ring.lock().last()).unwrap_or_default();
            for bell in line.bells.values() {
                // A session goes once; a second signal finds it said.
                let _ = bell.gone.set(Arc::clone(&last));
            }
        }
    }

    /// Wakes whom these concern.
    fn pass(&self, signals: Vec<Signal>) {
        // Whoever is woken finds said what cannot be read any more: so first the rings, then what has gone, and
        // only then the bells.
        for signal in &signals {
            if let Signal::Logged { session, event } = signal {
                self.keep(session, event);
            }
        }
        for signal in &signals {
            if let Signal::SessionGone { session } = signal {
                self.gone(session);
            }
        }
        // However much a batch has logged of a session, its listeners are woken once.
        let mut rung = HashSet::new();
        for signal in signals {
            match signal {
                Signal::Logged { session, .. }
                | Signal::Grown { session }
                | Signal::SessionGone { session } => {
                    let topic = Topic::Session(session);
                    if !rung.contains(&topic) {
                        self.ring(&topic, None);
                        rung.insert(topic);
                    }
                }
                Signal::AgentQueued { agent } => self.ring(&Topic::Agent(agent), Some(&Note::Queued)),
                Signal::LineMoved { agent } => self.ring(&Topic::Line(agent), None),
                Signal::JobChanged { job, .. } => self.ring(&Topic::Job(job), None),
                Signal::CancelRequested { job, fencing } => {
                    let note = Note::Cancel(Held { job: job.clone(), fencing });
                    self.ring(&Topic::Job(job), Some(&note));
                }
                Signal::LeaseTaken { job, fencing } => {
                    let note = Note::Taken(Held { job: job.clone(), fencing });
                    self.ring(&Topic::Job(job), Some(&note));
                }
            }
        }
    }

    fn forget(&self, topic: &Topic, id: u64) {
        let mut lines = self.0.lines.lock();
        if let Some(line) = lines.get_mut(topic) {
            line.bells.remove(&id);
            if line.bells.is_empty() {
                lines.remove(topic);
            }
        }
    }
}

impl Line {
    fn ring(&self, note: Option<&Note>) {
        if let Some(note) = note {
            self.bells.values().for_each(|bell| bell.leave(note));
        }
        home::together(self.bells.values().cloned(), |bell| &bell.home, |bell| bell.strike());
    }
}

impl Observer<Gateway> for Hub {
    fn committed(&self, signals: Vec<Signal>) {
        self.mark_working();
        self.pass(signals);
    }

    fn heard(&self, signals: Vec<Signal>) {
        self.pass(signals);
    }

    fn missed(&self) {
        for (topic, line) in self.0.lines.lock().iter() {
            line.ring(matches!(topic, Topic::Agent(_)).then_some(&Note::Queued));
        }
    }

    fn failed(&self, fault: &Fault) {
        match fault {
            Fault::Unavailable(_) | Fault::Full(_) | Fault::Uncertain(_) => {
                self.0.store_failed.store(true, Ordering::Relaxed);
            }
            Fault::Broken(_) => {
                let _ = self.0.broken.set("an invariant of the store is broken; see the log".to_owned());
            }
        }
        tracing::error!(%fault, "the store failed");
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("topics", &self.0.lines.lock().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use interlock_kit::clock::Timestamp;

    use super::*;
    use crate::event::{Event, EventKind};

    async fn rings(bell: &Bell) -> bool {
        let mut rung = std::pin::pin!(bell.rung());
        poll_fn(|cx| Poll::Ready(rung.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn a_ring_before_the_wait_is_not_lost_and_many_are_one() {
        let hub = Hub::new();
        let (a, b) = (JobId::new(), JobId::new());
        let bell = hub.bell([Topic::Job(a.clone()), Topic::Job(b.clone())]);
        assert!(!rings(&bell).await);
        hub.committed(vec![
            Signal::JobChanged { job: a, ended: false },
            Signal::LeaseTaken { job: b.clone(), fencing: 1 },
            Signal::JobChanged { job: JobId::new(), ended: true },
        ]);
        assert!(rings(&bell).await);
        assert!(!rings(&bell).await);
        assert_eq!(bell.notes(), [Note::Taken(Held { job: b, fencing: 1 })]);
        assert!(bell.notes().is_empty());
    }

    #[tokio::test]
    async fn all_who_listen_to_one_topic_are_woken_once() {
        let (hub, job) = (Hub::new(), JobId::new());
        let bells: Vec<_> = (0..3).map(|_| hub.bell([Topic::Job(job.clone())])).collect();
        hub.committed(vec![Signal::LeaseTaken { job: job.clone(), fencing: 1 }]);
        for bell in &bells {
            bell.rung().await;
            assert_eq!(bell.notes(), [Note::Taken(Held { job: job.clone(), fencing: 1 })]);
        }
        for bell in &bells {
            assert!(!rings(bell).await);
        }
    }

    #[test]
    fn the_last_events_of_a_session_outlive_it_for_its_listeners() {
        let hub = Hub::new();
        let session = SessionId::new();
        let bell = hub.bell([Topic::Session(session.clone())]);
        for sequence in 1..=100 {
            let kind = EventKind::Closing;
            let event = Event { sequence, at: Timestamp::default(), project: None, epoch: 0, kind };
            hub.committed(vec![Signal::Logged { session: session.clone(), event: event.into() }]);
        }
        assert!(bell.gone().is_none());
        hub.committed(vec![Signal::SessionGone { session }]);
        let last: Vec<_> = bell.gone().expect("gone").iter().map(|event| event.sequence).collect();
        assert_eq!(last, (37..=100).collect::<Vec<_>>());
    }

    // I17
    #[test]
    fn what_is_kept_of_a_session_is_bounded_in_bytes() {
        let hub = Hub::new();
        let session = SessionId::new();
        let bell = hub.bell([Topic::Session(session.clone())]);
        for sequence in 1..=64 {
            let kind =
                EventKind::JobProgress { job: JobId::new(), attempt: 1, data: vec![0; 16 * 1024].into() };
            let event = Event { sequence, at: Timestamp::default(), project: None, epoch: 0, kind };
            hub.committed(vec![Signal::Logged { session: session.clone(), event: event.into() }]);
        }
        hub.committed(vec![Signal::SessionGone { session }]);
        let last = bell.gone().expect("gone");
        assert!(last.iter().map(SharedEvent::held).sum::<usize>() <= RING_BYTES_MAX);
        assert_eq!(last.last().map(|event| event.sequence), Some(64));
    }

    #[tokio::test]
    async fn what_another_gateway_did_is_heard_and_after_a_break_all_are_woken() {
        let hub = Hub::new();
        let (session, agent) = (SessionId::new(), AgentId::stored("builder".to_owned()));
        let stream = hub.bell([Topic::Session(session.clone())]);
        let worker = hub.bell([Topic::Agent(agent.clone())]);
        hub.heard(vec![Signal::Grown { session: session.clone() }]);
        assert!(rings(&stream).await && !rings(&worker).await);
        hub.heard(vec![Signal::AgentQueued { agent }]);
        assert!(!rings(&stream).await && rings(&worker).await);
        assert_eq!(worker.notes(), [Note::Queued]);
        hub.missed();
        assert!(rings(&stream).await && rings(&worker).await);
        assert_eq!(worker.notes(), [Note::Queued], "it looks for jobs");
        assert!(stream.gone().is_none());
        hub.heard(vec![Signal::SessionGone { session }]);
        assert!(stream.gone().is_some_and(<[_]>::is_empty), "the store may have its last events");
    }

    #[test]
    fn what_is_kept_is_told_on_without_a_hole() {
        let hub = Hub::new();
        let session = SessionId::new();
        let bell = hub.bell([Topic::Session(session.clone())]);
        // Another writer of the same store made the sixth.
        for sequence in [3, 4, 5, 7, 8] {
            let kind = EventKind::Closing;
            let event = Event { sequence, at: Timestamp::default(), project: None, epoch: 0, kind };
            hub.committed(vec![Signal::Logged { session: session.clone(), event: event.into() }]);
        }
        let after = |sequence, most| {
            bell.kept_after(sequence, most).iter().map(|event| event.sequence).collect::<Vec<_>>()
        };
        assert_eq!(after(2, 9), [3, 4, 5]);
        assert_eq!(after(3, 1), [4]);
        assert_eq!(after(6, 9), [7, 8]);
        for not_kept in [0, 1, 5, 8, 9] {
            assert_eq!(after(not_kept, 9), [0; 0], "after {not_kept}");
        }
        assert!(hub.bell([Topic::Job(JobId::new())]).kept_after(2, 9).is_empty(), "of no session");
    }

    #[test]
    fn nothing_stays_of_dropped_bells() {
        let hub = Hub::new();
        let same = Topic::Job(JobId::new());
        let bells: Vec<_> =
            (0..100).map(|_| hub.bell([same.clone(), Topic::Session(SessionId::new())])).collect();
        assert_eq!(hub.0.lines.lock().len(), 101);
        drop(bells);
        assert!(hub.0.lines.lock().is_empty());
    }
}
