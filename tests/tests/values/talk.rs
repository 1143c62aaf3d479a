//! What is said to a service with a hostile value in it, and what it answers: one message, or a stream up to
//! the answer that shows whether the value was taken.

use bytes::Bytes;
use interlock_proto::{
    auth::v1 as auth,
    gateway::v1::{self as gateway, work_request, work_response},
};
use interlock_tests::{
    eventually,
    wire::{self, Metadata, Outcome},
    within,
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt as _;

const WORK: &str = "/interlock.gateway.v1.WorkerService/Work";
const HOLD_LEASE: &str = "/interlock.auth.v1.TrustService/HoldLease";

/// All that came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) outcome: Outcome,
    /// The fields that a refusal names.
    pub(crate) violations: Vec<String>,
    /// Answers before it.
    pub(crate) messages: Vec<Bytes>,
}

impl Reply {
    fn of(end: Result<(), Status>, messages: Vec<Bytes>) -> Self {
        let Err(status) = end else {
            return Self { outcome: Outcome::ok(), violations: Vec::new(), messages };
        };
        let named = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        let violations = named.into_iter().map(|violation| violation.field).collect();
        Self { outcome: Outcome::of(&status), violations, messages }
    }
}

/// One message; of a stream of answers, the first.
pub(crate) async fn once(channel: &Channel, path: &str, message: Vec<u8>, metadata: &Metadata) -> Reply {
    let mut messages = Vec::new();
    let told = async {
        let (_, mut answers) = wire::open(channel, path, message, metadata).await?;
        messages.extend(answers.message().await?);
        Ok(())
    };
    let end = within(path, told).await;
    Reply::of(end, messages)
}

/// A stream in both directions.
struct Line {
    say: mpsc::Sender<Bytes>,
    answers: Streaming<Bytes>,
    heard: Vec<Bytes>,
}

impl Line {
    async fn open(channel: &Channel, path: &str, metadata: &Metadata) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(16);
        let (_, answers) = wire::open_with(channel, path, ReceiverStream::new(said), metadata).await?;
        Ok(Self { say, answers, heard: Vec::new() })
    }

    async fn say(&self, message: Vec<u8>) {
        // Who has hung up has said why.
        let _ = self.say.send(message.into()).await;
    }

    /// The next answer; `None`: the end.
    async fn hear(&mut self) -> Result<Option<Bytes>, Status> {
        let next = self.answers.message().await?;
        self.heard.extend(next.clone());
        Ok(next)
    }

    async fn hear_work(&mut self) -> Result<Option<work_response::Message>, Status> {
        let next = self.hear().await?;
        Ok(next.and_then(|next| gateway::WorkResponse::decode(next).expect("an answer").message))
    }
}

/// A worker's job, as its last stream left it.
#[derive(Clone, Debug, Default)]
pub(crate) struct InHand {
    pub(crate) held: Option<gateway::Held>,
    /// Lines that are stored.
    pub(crate) lines: u64,
}

/// Says hello, takes the job, says the hostile message, and waits until it was taken or refused. `of` makes
/// that message for the job in hand; of the hello itself, it is the hello.
pub(crate) async fn work(
    channel: &Channel,
    metadata: &Metadata,
    hand: &mut InHand,
    variant: &str,
    hello: Vec<u8>,
    of: impl FnOnce(&InHand) -> Vec<u8>,
) -> Reply {
    let mut heard = Vec::new();
    let told = async {
        let mut line = Line::open(channel, WORK, metadata).await?;
        let told = match variant {
            "hello" => greet(&mut line, of(hand)).await,
            _ => take_and_say(&mut line, hand, variant, hello, of).await,
        };
        heard = line.heard;
        told
    };
    let end = within(WORK, told).await;
    Reply::of(end, heard)
}

/// A hostile hello. Its job is given back, so that the next one gets it.
async fn greet(line: &mut Line, hello: Vec<u8>) -> Result<(), Status> {
    line.say(hello).await;
    line.say(ask(work_request::Message::Heartbeat(work_request::Heartbeat::default()))).await;
    line.say(ask(work_request::Message::Goodbye(work_request::Goodbye {}))).await;
    while line.hear().await?.is_some() {}
    Ok(())
}

async fn take_and_say(
    line: &mut Line,
    hand: &mut InHand,
    variant: &str,
    hello: Vec<u8>,
    of: impl FnOnce(&InHand) -> Vec<u8>,
) -> Result<(), Status> {
    line.say(hello).await;
    let Some(work_response::Message::Welcome(welcome)) = line.hear_work().await? else {
        panic!("a good hello is answered with a welcome: {:?}", line.heard);
    };
    if hand.held.as_ref().is_none_or(|held| !welcome.kept.contains(held)) {
        let assigned = line.hear_work().await?;
        let Some(work_response::Message::Assignment(assignment)) = assigned else {
            panic!("there is one job for this worker: {assigned:?}");
        };
        *hand = InHand { held: assignment.held, lines: 0 };
    }
    line.heard.clear();
    line.say(of(hand)).await;
    let mut left = if variant == "heartbeat" { 2 } else { 1 };
    if variant != "goodbye" {
        line.say(ask(work_request::Message::Heartbeat(work_request::Heartbeat::default()))).await;
    }
    while left > 0 {
        match line.hear_work().await? {
            Some(work_response::Message::Renewed(_)) => left -= 1,
            Some(work_response::Message::ProgressStored(stored)) => hand.lines = stored.number,
            Some(_) => {}
            None => return Ok(()),
        }
    }
    if variant == "finish" {
        // Else the next job could be leased to this stream before the gateway has seen that it is gone.
        line.say(ask(work_request::Message::Goodbye(work_request::Goodbye {}))).await;
        while line.hear().await?.is_some() {}
    }
    Ok(())
}

/// A worker's message.
pub(crate) fn ask(message: work_request::Message) -> Vec<u8> {
    gateway::WorkRequest { message: Some(message) }.encode_to_vec()
}

/// Says hello, then the hostile message, and waits until a lease is granted after it.
pub(crate) async fn hold_lease(
    channel: &Channel,
    metadata: &Metadata,
    variant: &str,
    hello: Vec<u8>,
    hostile: Vec<u8>,
) -> Reply {
    use auth::hold_lease_request::{Message, Renew};
    let mut heard = Vec::new();
    let told = async {
        let mut line = match variant {
            "hello" => Line::open(channel, HOLD_LEASE, metadata).await?,
            _ => placed(channel, metadata, &hello).await?,
        };
        let told = async {
            if variant == "hello" {
                line.say(hostile).await;
                return granted(&mut line).await;
            }
            line.say(hostile).await;
            if variant != "renew" {
                let renew = Message::Renew(Renew { nonce: 2, ..Renew::default() });
                line.say(auth::HoldLeaseRequest { message: Some(renew) }.encode_to_vec()).await;
            }
            granted(&mut line).await
        };
        let told = told.await;
        heard = line.heard;
        told
    };
    let end = within(HOLD_LEASE, told).await;
    Reply::of(end, heard)
}

/// A verifier that holds a lease. Each hostile message has one of its own, and there may be so many at once: then it waits
/// until leases of those before have run out.
async fn placed(channel: &Channel, metadata: &Metadata, hello: &[u8]) -> Result<Line, Status> {
    eventually("room for a verifier", async || {
        let placed = async {
            let mut line = Line::open(channel, HOLD_LEASE, metadata).await?;
            line.say(hello.to_vec()).await;
            granted(&mut line).await?;
            line.heard.clear();
            Ok(line)
        };
        match placed.await {
            Err(status) if Status::code(&status) == Code::ResourceExhausted => None,
            placed => Some(placed),
        }
    })
    .await
}

/// Waits for a grant, and acknowledges what comes before it.
async fn granted(line: &mut Line) -> Result<(), Status> {
    use auth::{hold_lease_request as say, hold_lease_response::Message};
    while let Some(answer) = line.hear().await? {
        match auth::HoldLeaseResponse::decode(answer).expect("an answer").message {
            Some(Message::Granted(_)) => return Ok(()),
            Some(Message::Revoked(revoked)) => {
                let applied = say::Applied { sequence: revoked.sequence, streams_closed: 0 };
                let message = Some(say::Message::Applied(applied));
                line.say(auth::HoldLeaseRequest { message }.encode_to_vec()).await;
            }
            None => panic!("an answer without a message"),
        }
    }
    Ok(())
}
