//! Many callers on one credential, each call with the instant it began at; and many open streams.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use interlock_proto::{credential::Credential, gateway::v1::StreamEventsRequest};
use interlock_tests::{
    Pair, eventually,
    wire::{self, Metadata, Outcome},
    within,
};
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::Streaming;

const LIST_SESSIONS: &str = "/interlock.gateway.v1.SessionService/ListSessions";
const STREAM_EVENTS: &str = "/interlock.gateway.v1.SessionService/StreamEvents";
/// The gateway takes 64 calls of one connection at once.
const CALLERS_PER_CONNECTION: usize = 25;
/// Calls of each after the revocation.
const CALLS_AFTER: usize = 5;

/// Callers that call without a pause.
pub(crate) struct Crowd {
    callers: JoinSet<Vec<(Instant, Outcome)>>,
    ending: Arc<AtomicBool>,
}

/// How many calls there were.
pub(crate) struct Calls {
    pub(crate) before: usize,
    pub(crate) after: usize,
}

impl Crowd {
    /// Returns once each of them was admitted.
    pub(crate) async fn gather(pair: &Pair, credential: &Credential, size: usize) -> Self {
        let (ending, admitted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut callers = JoinSet::new();
        let mut channel = pair.gateway_public();
        for n in 0..size {
            if n % CALLERS_PER_CONNECTION == 0 {
                channel = pair.gateway_public();
            }
            let (channel, metadata) = (channel.clone(), Metadata::bearer(credential));
            let (ending, admitted) = (Arc::clone(&ending), Arc::clone(&admitted));
            callers.spawn(async move {
                let (mut calls, mut after) = (Vec::new(), 0);
                while after < CALLS_AFTER {
                    after += usize::from(ending.load(Ordering::SeqCst));
                    let began = Instant::now();
                    let outcome = wire::call(&channel, LIST_SESSIONS, Vec::new(), &metadata).await.outcome;
                    if calls.is_empty() && outcome == Outcome::ok() {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                    calls.push((began, outcome));
                }
                calls
            });
        }
        eventually("a crowd that is admitted", async || {
            (admitted.load(Ordering::Relaxed) == size).then_some(())
        })
        .await;
        Self { callers, ending }
    }

    /// Each calls a few times more; none of the calls that began after `returned` was admitted, and each was
    /// refused for the one reason.
    pub(crate) async fn end_after(self, returned: Instant) -> Calls {
        self.ending.store(true, Ordering::SeqCst);
        let all = within("the end of the crowd", self.callers.join_all()).await.into_iter().flatten();
        let (after, before): (Vec<_>, Vec<_>) = all.partition(|(began, _)| *began > returned);
        for (began, outcome) in &after {
            let late = began.duration_since(returned);
            assert_eq!(
                outcome.reason, "PROVIDER_AUTH_FAILED",
                "I8: a call that began {late:?} after the answer: {outcome}"
            );
        }
        for (_, outcome) in &before {
            assert!(matches!(outcome.short(), "OK" | "PROVIDER_AUTH_FAILED"), "{outcome}");
        }
        Calls { before: before.len(), after: after.len() }
    }
}

/// Open streams of one session's log.
pub(crate) struct Watched {
    streams: JoinSet<Outcome>,
    ends: Vec<Outcome>,
}

impl Watched {
    pub(crate) async fn open(pair: &Pair, credential: &Credential, session: &str, count: usize) -> Self {
        let (channel, metadata) = (pair.gateway_public(), Metadata::bearer(credential));
        let request = StreamEventsRequest { session_id: session.to_owned(), ..Default::default() };
        let mut streams = JoinSet::new();
        for _ in 0..count {
            let opened = wire::open(&channel, STREAM_EVENTS, request.encode_to_vec(), &metadata).await;
            let (_, mut stream) = opened.expect("a stream");
            within("the first message", stream.message()).await.expect("living").expect("a message");
            streams.spawn(read_to_end(stream));
        }
        Self { streams, ends: Vec::new() }
    }

    /// How many have ended by now.
    pub(crate) fn ended(&mut self) -> usize {
        while let Some(end) = self.streams.try_join_next() {
            self.ends.push(end.expect("no reader panics"));
        }
        self.ends.len()
    }

    pub(crate) async fn all_end_with(mut self, reason: &str) {
        self.ended();
        self.ends.extend(within("the end of each stream", self.streams.join_all()).await);
        for end in &self.ends {
            assert_eq!((end.code.as_str(), end.reason.as_str()), ("UNAUTHENTICATED", reason), "{end}");
        }
    }
}

async fn read_to_end(mut stream: Streaming<Bytes>) -> Outcome {
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Outcome::ok(),
            Err(status) => return Outcome::of(&status),
        }
    }
}
