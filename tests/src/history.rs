//! Histories: what callers were answered and what streams delivered while something was broken, with the
//! instants of it, and the judgement of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use interlock_proto::{
    credential::Credential,
    gateway::v1::{StreamEventsRequest, StreamEventsResponse, stream_events_response::Message},
};
use prost::Message as _;
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Streaming, transport::Channel};

use crate::{
    Pair,
    patience::{eventually, within},
    wire::{self, Metadata, Outcome},
};

const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";
const STREAM_EVENTS: &str = "/interlock.gateway.v1.SessionService/StreamEvents";
/// Between two calls of one caller: a history is kept in memory.
const PACE: Duration = Duration::from_millis(8);

/// One call at the gateway.
#[derive(Clone, Debug)]
pub struct Call {
    /// On whose credential.
    pub who: String,
    /// Before it was sent.
    pub began: Instant,
    /// When the answer was here.
    pub ended: Instant,
    /// The answer.
    pub outcome: Outcome,
}

/// Callers that call on and on, each on one credential.
#[derive(Debug)]
pub struct Callers {
    calls: Arc<Mutex<Vec<Call>>>,
    over: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// All that they were answered.
#[derive(Clone, Debug)]
pub struct History(Vec<Call>);

impl Callers {
    /// So many callers on each credential. Returns once each credential was admitted.
    ///
    /// # Panics
    /// Where that does not come.
    pub async fn begin(pair: &Pair, credentials: &[(&str, &Credential)], each: usize) -> Self {
        let (calls, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let mut callers = Self { calls, over, tasks: JoinSet::new() };
        for (who, credential) in credentials {
            for _ in 0..each {
                let (channel, metadata) = (pair.gateway_public(), Metadata::bearer(credential));
                let (calls, over) = (Arc::clone(&callers.calls), Arc::clone(&callers.over));
                let who = (*who).to_owned();
                callers.tasks.spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        let outcome =
                            wire::call(&channel, LIST_SESSIONS, Vec::new(), &metadata).await.outcome;
                        let call = Call { who: who.clone(), began, ended: Instant::now(), outcome };
                        calls.lock().expect("no caller panics").push(call);
                        tokio::time::sleep(PACE).await;
                    }
                });
            }
        }
        for (who, _) in credentials {
            callers.answered(who, "OK", Duration::ZERO).await;
        }
        callers
    }

    /// Waits until a call of theirs that began from now on (and `later`) was answered so: with the status
    /// code, or the reason. When that was.
    ///
    /// # Panics
    /// Where it does not come.
    pub async fn answered(&self, who: &str, answer: &str, later: Duration) -> Instant {
        let from = Instant::now() + later;
        let fits = |call: &&Call| call.who == who && call.began >= from && call.outcome.short() == answer;
        eventually(&format!("{answer} for {who}"), async || {
            self.calls.lock().expect("no caller panics").iter().rev().find(fits).map(|call| call.ended)
        })
        .await
    }

    /// Ends them; what they were answered.
    ///
    /// # Panics
    /// Where one has panicked.
    pub async fn end(self) -> History {
        self.over.store(true, Ordering::Relaxed);
        within("the end of the callers", self.tasks.join_all()).await;
        let calls = std::mem::take(&mut *self.calls.lock().expect("no caller panics"));
        History(calls)
    }
}

impl History {
    /// I8: no call that began after `returned` was admitted. How many there were.
    ///
    /// # Panics
    /// Where one was.
    #[must_use]
    pub fn none_admitted_after(&self, who: &str, returned: Instant) -> usize {
        let after: Vec<_> = self.0.iter().filter(|call| call.who == who && call.began > returned).collect();
        for call in &after {
            let late = call.began.duration_since(returned);
            assert_ne!(
                call.outcome,
                Outcome::ok(),
                "I8: {who}: admitted {late:?} after the revocation returned"
            );
        }
        after.len()
    }

    /// Every answer to `who` was one of these. Their counts.
    ///
    /// # Panics
    /// Where one was not.
    pub fn only(&self, who: &str, expected: &[&str]) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in self.0.iter().filter(|call| call.who == who) {
            let answer = call.outcome.short();
            assert!(expected.contains(&answer), "{who}: {}", call.outcome);
            *counts.entry(answer.to_owned()).or_default() += 1;
        }
        counts
    }
}

/// An open stream of a session's log.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Vec<Seen>>>,
    silenced: Arc<AtomicBool>,
    reader: JoinHandle<Outcome>,
}

/// One event that it delivered.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its number.
    pub sequence: u64,
    /// What it was, for people and for searches.
    pub text: String,
    /// Whether [`Watch::silence`] was on.
    pub silenced: bool,
}

impl Watch {
    /// Opens it and waits for its first message.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn open(channel: &Channel, metadata: &Metadata, session: &str) -> Self {
        let request = StreamEventsRequest { session_id: session.to_owned(), ..Default::default() };
        let opened = wire::open(channel, STREAM_EVENTS, request.encode_to_vec(), metadata).await;
        let (_, mut messages) = opened.expect("the log of this session may be read");
        within("the first message", messages.message()).await.expect("living").expect("a message");
        let (seen, silenced) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let reader = tokio::spawn(read(messages, Arc::clone(&seen), Arc::clone(&silenced)));
        Self { seen, silenced, reader }
    }

    /// Notes with each event from now on that nothing should have come.
    pub fn silence(&self, on: bool) {
        self.silenced.store(on, Ordering::SeqCst);
    }

    /// What it has delivered.
    ///
    /// # Panics
    /// Where its reader has.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("the reader does not panic").clone()
    }

    /// Waits for an event that shows this text.
    ///
    /// # Panics
    /// Where none comes.
    pub async fn shows(&self, text: &str) -> Seen {
        eventually(&format!("an event with {text}"), async || {
            self.seen().into_iter().find(|seen| seen.text.contains(text))
        })
        .await
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.reader.is_finished()
    }

    /// I15: each event once and in order, from the first on. How many.
    ///
    /// # Panics
    /// Where one is missing, or came twice.
    pub fn in_order(&self) -> usize {
        let seen = self.seen();
        for (place, event) in seen.iter().enumerate() {
            assert_eq!(event.sequence, place as u64 + 1, "I15: {event:?}");
        }
        seen.len()
    }

    /// How it ends.
    ///
    /// # Panics
    /// Where it does not.
    pub async fn end(&mut self) -> Outcome {
        within("the end of a stream", &mut self.reader).await.expect("the reader does not panic")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(
    mut messages: Streaming<Bytes>,
    seen: Arc<Mutex<Vec<Seen>>>,
    silenced: Arc<AtomicBool>,
) -> Outcome {
    loop {
        let message = match messages.message().await {
            Ok(Some(message)) => StreamEventsResponse::decode(message).expect("a message"),
            Ok(None) => return Outcome::ok(),
            Err(status) => return Outcome::of(&status),
        };
        match message.message.expect("one of them") {
            Message::Event(event) => {
                let silenced = silenced.load(Ordering::SeqCst);
                let event = Seen { sequence: event.sequence, text: format!("{:?}", event.kind), silenced };
                seen.lock().expect("nobody panics with it").push(event);
            }
            Message::Gap(gap) => panic!("retention took {gap:?}"),
            Message::Opened(_) | Message::CaughtUp(_) => {}
        }
    }
}
