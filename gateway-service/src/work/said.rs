//! What a worker says of its attempts: lines of progress and finishes. All that it has said by now goes to the
//! store at once, in its order, and jobs for the slots that become free are asked for behind it: so one commit
//! serves them all, where each on its own would wait for one.

use std::collections::BTreeSet;

use futures_util::{FutureExt as _, future};
use interlock_kit::error::{Error, Reason};
use interlock_proto::gateway::v1::{
    JobState, WorkRequest,
    work_request::{self, Message as Asked},
    work_response::{self, Message as Told},
};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::{Desk, End, Step, hello::Hello, passes, within};
use crate::{
    admit,
    grpc::wire,
    lease::{Finish, Held, Progress, Release},
    worker::{Claim, Claimed},
};

/// Messages of one worker that go to the store at once. The rest waits on its connection.
const AT_ONCE: usize = 30;

/// What comes from a worker. A message that was read too far stays here.
pub(super) struct Requests {
    stream: Streaming<WorkRequest>,
    next: Option<Result<Option<WorkRequest>, Status>>,
}

impl Requests {
    pub(super) fn new(stream: Streaming<WorkRequest>) -> Self {
        Self { stream, next: None }
    }

    /// The next message. Cancel-safe.
    pub(super) async fn message(&mut self) -> Result<Option<WorkRequest>, Status> {
        match self.next.take() {
            Some(message) => message,
            None => self.stream.message().await,
        }
    }

    /// The next one, where it is a line or a finish that is here already.
    fn said(&mut self) -> Option<Said> {
        match self.message().now_or_never()? {
            Ok(Some(WorkRequest { message: Some(Asked::Progress(line)) })) => Some(Said::Line(line)),
            Ok(Some(WorkRequest { message: Some(Asked::Finish(finish)) })) => Some(Said::Finish(finish)),
            other => {
                self.next = Some(other);
                None
            }
        }
    }
}

/// One message about one attempt.
pub(super) enum Said {
    Line(work_request::Progress),
    Finish(work_request::Finish),
}

/// The same, read.
enum Entry {
    Line(Progress),
    Finish(Finish),
}

/// What became of it.
enum Stored {
    /// Lines are stored up to this number.
    Line(u64),
    /// The job as it is then.
    Finished(JobState),
}

impl Entry {
    fn read(said: Said) -> Result<Self, End> {
        match said {
            Said::Line(line) => {
                let held = wire::held_from(line.held).map_err(End::from).map_err(within("progress"))?;
                Ok(Self::Line(Progress { held, number: line.number, data: line.data.into() }))
            }
            Said::Finish(asked) => {
                let read = || {
                    let outcome = wire::outcome_from(asked.state())?;
                    let held = wire::held_from(asked.held.clone())?;
                    Ok::<_, Error>((outcome, held))
                };
                let (outcome, held) = read().map_err(End::from).map_err(within("finish"))?;
                let (result, cause) = (asked.result.into(), asked.cause);
                Ok(Self::Finish(Finish { held, outcome, result, cause }))
            }
        }
    }

    fn held(&self) -> &Held {
        match self {
            Self::Line(line) => &line.held,
            Self::Finish(finish) => &finish.held,
        }
    }

    fn field(&self) -> &'static str {
        match self {
            Self::Line(_) => "progress",
            Self::Finish(_) => "finish",
        }
    }
}

impl Desk {
    /// Stores what was said, with all that follows it by now, and answers each in its order. Where slots became
    /// free it looks for jobs, too.
    pub(super) async fn hear(&mut self, first: Said, requests: &mut Requests, hello: &Hello) -> Step {
        let mut entries = vec![Entry::read(first)?];
        let mut unread = None;
        while entries.len() < AT_ONCE
            && let Some(said) = requests.said()
        {
            match Entry::read(said) {
                Ok(entry) => entries.push(entry),
                Err(end) => {
                    unread = Some(end);
                    break;
                }
            }
        }
        self.store(entries, hello).await?;
        unread.map_or(Ok(()), Err)
    }

    async fn store(&mut self, entries: Vec<Entry>, hello: &Hello) -> Step {
        let finishes = entries.iter().filter(|entry| matches!(entry, Entry::Finish(_)));
        let ended: BTreeSet<&Held> = finishes.map(Entry::held).filter(|held| self.holds(held)).collect();
        let claim = if ended.is_empty() { None } else { self.claim_for(hello, ended.len())? };
        let told: Vec<(Held, &'static str)> =
            entries.iter().map(|entry| (entry.held().clone(), entry.field())).collect();
        let desk = &*self;
        // Each puts itself into the store's queue when it is first polled: in this order.
        let stored = future::join_all(entries.into_iter().map(|entry| desk.put(entry)));
        let claimed = async {
            match claim {
                Some(claim) => desk.claimed(claim).await,
                None => Ok(Claimed::default()),
            }
        };
        let turn = desk.front.streams.turn_to_write(told.len()).await;
        let (stored, claimed) = future::join(stored, claimed).await;
        drop(turn);
        for ((held, field), stored) in told.into_iter().zip(stored) {
            if let Err(end) = self.answer(&held, stored).await.map_err(within(field)) {
                self.give_back(claimed).await;
                return Err(end);
            }
        }
        self.assign(claimed?).await
    }

    async fn put(&self, entry: Entry) -> Result<Stored, Error> {
        match entry {
            Entry::Line(line) => Ok(Stored::Line(self.front.run(&self.call, &self.caller, line).await?.out)),
            Entry::Finish(finish) => {
                let job = self.front.run(&self.call, &self.caller, finish).await?.out;
                Ok(Stored::Finished(wire::job_state(&job.phase)))
            }
        }
    }

    async fn answer(&mut self, held: &Held, stored: Result<Stored, Error>) -> Step {
        match stored {
            Ok(Stored::Line(number)) => {
                let stored = work_response::ProgressStored { held: Some(wire::held(held)), number };
                Ok(self.send(Told::ProgressStored(stored)).await?)
            }
            Ok(Stored::Finished(state)) => {
                self.let_go(held);
                let finished = work_response::Finished { held: Some(wire::held(held)), state: state.into() };
                Ok(self.send(Told::Finished(finished)).await?)
            }
            Err(error) if error.reason() == Reason::LeaseLost => self.lost(held).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Jobs that were leased for a stream that has ended meanwhile: nobody will run them.
    async fn give_back(&self, claimed: Result<Claimed, End>) {
        let held = claimed.into_iter().flat_map(|claimed| claimed.jobs).map(|assignment| assignment.held);
        let held: Vec<Held> = held.collect();
        if !held.is_empty() {
            // What cannot be given back ends with its lease.
            let _ = self.front.run(&self.call, &self.caller, Release { held }).await;
        }
    }

    /// What to ask for once `ended` of its jobs are off its hands. Nothing where it has no room, while auth's lease
    /// is lapsed, while it is known to be silent, and once the gateway shuts down.
    pub(super) fn claim_for(&mut self, hello: &Hello, ended: usize) -> Result<Option<Claim>, End> {
        let holds = u32::try_from(self.held.len() - ended).unwrap_or(u32::MAX);
        let room = hello.capacity.saturating_sub(holds);
        if room == 0 || self.is_unheard() || !self.standing.delivers() || self.front.draining.is_cancelled() {
            return Ok(None);
        }
        let caller = self.front.gate.recheck(&self.call, &self.caller)?;
        self.caller = admit::following(&caller, &self.standing)?;
        Ok(Some(Claim { agents: hello.agents.clone(), worker: hello.worker.clone(), up_to: room }))
    }

    /// What was leased; nothing where it is to be tried again.
    pub(super) async fn claimed(&self, claim: Claim) -> Result<Claimed, End> {
        match self.front.run(&self.call, &self.caller, claim).await {
            Ok(claimed) => Ok(claimed.out),
            // The slow poll, or the lease when it is back, looks again.
            Err(error) if passes(error.reason()) => Ok(Claimed::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands a worker its jobs, and looks again when one may start that pauses now.
    pub(super) async fn assign(&mut self, claimed: Claimed) -> Step {
        if let Some(pause) = claimed.next_in {
            self.pause_ends = Some(Instant::now() + pause);
        }
        for assignment in claimed.jobs {
            // The attempt before was taken from it, and it has not been told so yet.
            if let Some(before) = self.held.get(&assignment.held.job) {
                let before = Held { job: assignment.held.job.clone(), fencing: before.fencing };
                self.lost(&before).await?;
            }
            self.hold(&assignment.held);
            self.send(Told::Assignment(wire::assignment(assignment))).await?;
        }
        Ok(())
    }
}
