//! The stream to the gateway: down, being opened, or up.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use interlock_proto::gateway::v1::{self as wire, WorkRequest, WorkResponse, work_request};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    call::Opened,
    connect::{Line, Place},
    credentials::Presented,
    error::{Error, Reason},
    gateway::Gateway,
    path,
    renewal::Renewal,
};

/// Messages on their way to the gateway.
const OUTBOX: usize = 16;

pub(super) enum Link {
    /// Until when the next try waits.
    Down(Pin<Box<Sleep>>),
    Opening(Pin<Box<dyn Future<Output = Result<Up, Error>> + Send>>),
    Up(Box<Up>),
}

/// An open stream.
pub(super) struct Up {
    messages: tonic::Streaming<WorkResponse>,
    line: Place,
    presented: Option<Presented>,
    pub(super) outbox: mpsc::Sender<WorkRequest>,
    /// Whether the gateway has said which jobs are still ours. Nothing is sent before.
    pub(super) welcomed: bool,
    /// When the heartbeats without an answer were sent.
    pub(super) beats: VecDeque<Instant>,
    pub(super) beat_due: Instant,
    /// A lease was lost: the gateway gives no jobs to whom it does not hear, so that a heartbeat is due although
    /// nothing may be held.
    pub(super) is_to_be_heard: bool,
    pub(super) renewal: Renewal,
}

/// What happens on a link.
pub(super) enum News {
    /// It is time to try again.
    Due,
    Opened(Box<Up>),
    Message(WorkResponse),
    Broken(Error),
    /// Nothing that concerns jobs.
    Nothing,
}

impl Link {
    pub(super) fn down(pause: Duration) -> Self {
        Self::Down(Box::pin(sleep(pause)))
    }

    /// Starts opening a stream with this hello.
    pub(super) fn opening(gateway: Gateway, hello: work_request::Hello) -> Self {
        Self::Opening(Box::pin(async move { Up::open(gateway, hello).await }))
    }

    /// What happens next. May be dropped at any await and called again.
    pub(super) async fn news(&mut self) -> News {
        match self {
            Self::Down(pause) => {
                pause.await;
                News::Due
            }
            Self::Opening(opening) => match opening.await {
                Ok(up) => News::Opened(Box::new(up)),
                Err(error) => News::Broken(error),
            },
            Self::Up(up) => tokio::select! {
                message = up.messages.message() => match message {
                    Ok(Some(message)) => News::Message(message),
                    Ok(None) => News::Broken(Error::transport("the gateway ended the stream")),
                    Err(status) => News::Broken(Error::from_status(&status)),
                },
                () = up.renewal.step() => News::Nothing,
            },
        }
    }

    pub(super) fn up(&mut self) -> Option<&mut Up> {
        match self {
            Self::Up(up) => Some(up),
            Self::Down(_) | Self::Opening(_) => None,
        }
    }

    /// Makes what can be made of why it broke, for the next try.
    pub(super) fn learn(&self, gateway: &Gateway, error: &Error) {
        let Self::Up(up) = self else { return };
        match (error.reason(), &up.presented) {
            (Some(Reason::TokenExpired), Some(presented)) => {
                let _ = gateway.identity().credentials.expired(presented);
            }
            (Some(Reason::Draining), _) => up.leave(gateway),
            _ => {}
        }
    }
}

impl Up {
    async fn open(gateway: Gateway, hello: work_request::Hello) -> Result<Self, Error> {
        let (outbox, sending) = mpsc::channel(OUTBOX);
        let first = WorkRequest { message: Some(work_request::Message::Hello(hello)) };
        outbox.try_send(first).expect("an empty queue has room");
        let opened = gateway.connection().open(path::WORK, gateway.identity(), ReceiverStream::new(sending));
        let Opened { messages, line, presented } = opened.await?;
        Ok(Self {
            messages,
            line,
            presented,
            outbox,
            welcomed: false,
            beats: VecDeque::new(),
            beat_due: Instant::now(),
            is_to_be_heard: false,
            renewal: Renewal::of(gateway, String::new(), None),
        })
    }

    /// The gateway shuts down: the next stream goes elsewhere, where there is an elsewhere.
    pub(super) fn leave(&self, gateway: &Gateway) {
        if gateway.connection().has_choice() {
            gateway.connection().move_on(&self.line);
        }
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Gives all jobs back and waits a moment for the gateway to end the stream.
    pub(super) async fn goodbye(&mut self, within: Duration) {
        let goodbye = work_request::Message::Goodbye(work_request::Goodbye {});
        let parting = async {
            let _ = self.outbox.send(WorkRequest { message: Some(goodbye) }).await;
            while let Ok(Some(_)) = self.messages.message().await {}
        };
        let _ = tokio::time::timeout(within, parting).await;
    }
}

/// The hello of a worker that holds these jobs.
pub(super) fn hello(
    worker: &str,
    agents: &[String],
    capacity: u32,
    held: Vec<wire::Held>,
) -> work_request::Hello {
    work_request::Hello { worker: worker.to_owned(), agent_ids: agents.to_vec(), capacity, held }
}
