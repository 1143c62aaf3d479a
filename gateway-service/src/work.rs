//! WorkerService.Work: one worker's stream.
//!
//! hello → welcome → assignments up to the worker's capacity; heartbeats, progress and finishes are answered once
//! they are durable, one after another in their order. A goodbye gives all held jobs back; any other end of the
//! stream gives nothing back: leases end by themselves, and a worker that reconnects within a lease's life keeps
//! its jobs.
//!
//! While auth's lease is lapsed, what concerns attempts that were admitted before goes on, since an outage of auth
//! must not run jobs twice; new jobs are not claimed (DESIGN 14.11).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use interlock_kit::{
    authn::Call,
    error::{Error, Reason},
    field,
};
use interlock_proto::gateway::v1::{
    WorkRequest, WorkResponse,
    work_request::{self, Message as Asked},
    work_response::{self, Message as Told},
};
use tokio::time::{Instant, timeout};
use tonic::{Status, Streaming};

mod hello;
mod said;

use hello::Hello;
use said::{Requests, Said};

use crate::{
    admit::{self, Admitted},
    caller::Caller,
    grpc::{Front, draining, refuse, wire},
    hub::{Bell, Note, Topic},
    ids::JobId,
    lease::{Held, Kept, Release, Renew, Resume},
    outlet::{self, Answers, Gone, Outlet, WhenLapsed},
    standing::Standing,
    streams::Opened,
    worker::Serve,
};

/// What a project token needs for a worker's stream, to open it and to keep it.
const SCOPE: &str = "jobs:work";
/// Messages between this task and the connection.
const ROOM: usize = 64;
/// The first message must come within this.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// A wake-up that was lost is made good after this.
const SLOW_POLL: Duration = Duration::from_secs(5);
/// For how long a worker that was not heard gets no jobs. The connection of a program that does nothing at all is
/// closed by then: it answers no pings.
const UNHEARD_MAX: Duration = Duration::from_secs(30);

/// Opens a worker's stream; what its hello is refused with ends it.
///
/// # Errors
/// `LIMIT_REACHED`; `DRAINING`.
pub(crate) fn open(
    front: &Arc<Front>,
    call: &Arc<Call>,
    admitted: &Admitted,
    requests: Streaming<WorkRequest>,
) -> Result<Answers<WorkResponse>, Error> {
    if front.draining.is_cancelled() {
        return Err(draining());
    }
    let standing = Arc::new(admitted.standing(&front.verifier));
    let project = admitted.verdict.as_ref().and_then(|verdict| verdict.project_id.as_deref());
    standing.enter(project);
    let owner = admitted.caller.owner().map(|owner| owner.to_string()).unwrap_or_default();
    let place = front.streams.place(&owner)?;
    let opened = front.streams.open(place, admitted.principal(), SCOPE, &standing);
    let (outlet, answers) = outlet::open(ROOM, Arc::clone(&standing), WhenLapsed::Deliver, &call.request_id);
    let desk = Desk {
        front: Arc::clone(front),
        call: Arc::clone(call),
        caller: Arc::clone(&admitted.caller),
        bell: front.hub.bell([]),
        standing,
        outlet,
        opened,
        held: BTreeMap::new(),
        heard: Instant::now(),
        unheard: None,
        pause_ends: None,
    };
    front.tasks.spawn(desk.serve(requests));
    Ok(answers)
}

/// What one worker's stream stands on.
struct Desk {
    front: Arc<Front>,
    call: Arc<Call>,
    caller: Arc<Caller>,
    bell: Bell,
    standing: Arc<Standing>,
    outlet: Outlet<WorkResponse>,
    opened: Opened,
    held: BTreeMap<JobId, Attempt>,
    /// When the worker last said something.
    heard: Instant,
    /// Since when it is known to be silent: a lease of its ran out, and nothing was heard of it meanwhile. It is
    /// frozen, or cut off, and would let the next job's lease run out, too, while others wait for jobs.
    unheard: Option<Instant>,
    /// When a job may start that paused when jobs were last looked for.
    pause_ends: Option<Instant>,
}

/// A job in this worker's hands, as far as this stream knows.
struct Attempt {
    fencing: u64,
    cancel_told: bool,
}

/// Why a stream ends.
enum End {
    /// The worker has gone, or has said goodbye.
    Quiet,
    /// It is told why.
    Refused(Error),
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> Self {
        Self::Quiet
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

type Step = Result<(), End>;

impl Desk {
    async fn serve(mut self, requests: Streaming<WorkRequest>) {
        let mut requests = Requests::new(requests);
        let ended = match self.welcome(&mut requests).await {
            Ok(hello) => self.work(&hello, &mut requests).await,
            Err(end) => Err(end),
        };
        if let Err(End::Refused(error)) = ended {
            // Logged where it is a fault of ours; the worker gets it with the end of its stream.
            drop(refuse(&error, &self.call.request_id));
            self.outlet.close(error);
        }
    }

    async fn welcome(&mut self, requests: &mut Requests) -> Result<Hello, End> {
        let first = tokio::select! {
            biased;
            () = self.outlet.gone() => return Err(End::Quiet),
            _ = self.standing.ended() => return Err(End::Quiet),
            first = timeout(HELLO_WITHIN, requests.message()) => first,
        };
        let asked = match first {
            Ok(Ok(Some(WorkRequest { message: Some(Asked::Hello(asked)) }))) => asked,
            Ok(Err(status)) => return Err(self.unreadable(&status)),
            // Nothing in time, or something else.
            Ok(Ok(_)) | Err(_) => return Err(Error::missing_field("hello").into()),
        };
        let read = hello::read(asked, self.front.shell.limits());
        let (hello, held) = read.map_err(|error| error.within("hello"))?;
        let agents = hello.agents.clone();
        self.front.ask(&self.call, &self.caller, Serve { agents }).await?;
        let resumed = self.front.run(&self.call, &self.caller, Resume { held }).await?.out;
        hello.agents.iter().for_each(|agent| self.bell.add(Topic::Agent(agent.clone())));
        for renewed in &resumed.kept {
            self.hold(&renewed.held);
        }
        let welcome = work_response::Welcome {
            stream_id: self.opened.id().to_owned(),
            lease: Some(wire::duration(self.front.shell.limits().lease_ttl)),
            expires_at: self.standing.expires_at().map(wire::instant),
            kept: resumed.kept.iter().map(|renewed| wire::held(&renewed.held)).collect(),
        };
        self.send(Told::Welcome(welcome)).await?;
        self.tell_cancels(&resumed).await?;
        Ok(hello)
    }

    async fn work(&mut self, hello: &Hello, requests: &mut Requests) -> Step {
        let mut told_draining = false;
        let mut look = true;
        // From the last look on, whatever the worker says meanwhile: its heartbeats come more often than this.
        let mut slow = Instant::now();
        loop {
            if look {
                self.pause_ends = None;
                slow = Instant::now() + SLOW_POLL;
                if let Some(claim) = self.claim_for(hello, 0)? {
                    let claimed = self.claimed(claim).await?;
                    self.assign(claimed).await?;
                }
            }
            let next_look = self.pause_ends.map_or(slow, |at| at.min(slow));
            look = tokio::select! {
                biased;
                () = self.outlet.gone() => return Err(End::Quiet),
                _ = self.standing.ended() => return Err(End::Quiet),
                () = self.front.ending.cancelled() => return Err(draining().into()),
                () = self.front.draining.cancelled(), if !told_draining => {
                    told_draining = true;
                    self.send(Told::Draining(work_response::Draining {})).await?;
                    false
                }
                message = requests.message() => match message {
                    Ok(Some(WorkRequest { message: Some(asked) })) => self.take(asked, requests, hello).await?,
                    Ok(Some(WorkRequest { message: None })) => return Err(Error::missing_field("message").into()),
                    // Nothing is released: leases end by themselves.
                    Ok(None) => return Err(End::Quiet),
                    Err(status) => return Err(self.unreadable(&status)),
                },
                () = self.bell.rung() => false,
                () = self.lease_back() => true,
                () = tokio::time::sleep_until(next_look) => true,
            };
            look |= self.heed().await?;
            if told_draining && self.held.is_empty() {
                return Err(draining().into());
            }
        }
    }

    /// The end of a stream that brought no message: the worker is told of what cannot be decoded, and no fault of
    /// ours is logged.
    fn unreadable(&self, status: &Status) -> End {
        if let Some(error) = field::unreadable(status) {
            self.outlet.close(error);
        }
        End::Quiet
    }

    /// Waits for auth's lease to come back where it is lapsed now: jobs may be claimed again then.
    async fn lease_back(&self) {
        if self.standing.delivers() || self.standing.open().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether it has not been heard of for a while, so that it is given no more.
    fn is_unheard(&self) -> bool {
        self.unheard.is_some_and(|since| since.elapsed() < UNHEARD_MAX)
    }

    /// One message of the worker's; whether to look for jobs after it.
    async fn take(&mut self, asked: Asked, requests: &mut Requests, hello: &Hello) -> Result<bool, End> {
        self.heard = Instant::now();
        let back = self.unheard.take().is_some();
        self.caller = admit::following(&self.caller, &self.standing)?;
        match asked {
            Asked::Hello(_) => Err(Error::invalid_field("hello", "first, and once").into()),
            Asked::Heartbeat(beat) => self.renew(beat).await.map(|()| back).map_err(within("heartbeat")),
            Asked::Progress(line) => self.hear(Said::Line(line), requests, hello).await.map(|()| back),
            Asked::Finish(finish) => self.hear(Said::Finish(finish), requests, hello).await.map(|()| back),
            Asked::Goodbye(_) => {
                let held = self
                    .held
                    .iter()
                    .map(|(job, attempt)| Held { job: job.clone(), fencing: attempt.fencing });
                let release = Release { held: held.collect() };
                self.front.run(&self.call, &self.caller, release).await?;
                Err(End::Quiet)
            }
        }
    }

    /// Exactly one `Renewed` for each heartbeat, in order.
    async fn renew(&mut self, beat: work_request::Heartbeat) -> Step {
        let held = wire::all_held(beat.held, self.front.shell.limits().capacity_max)?;
        let kept = self.front.run(&self.call, &self.caller, Renew { held }).await?.out;
        // By the clock that judges it, which need not be this machine's.
        let shortest = kept.kept.iter().map(|renewed| renewed.until.since(kept.at)).min();
        let renewed = work_response::Renewed {
            held: kept.kept.iter().map(|renewed| wire::held(&renewed.held)).collect(),
            lease: Some(wire::duration(shortest.unwrap_or(self.front.shell.limits().lease_ttl))),
        };
        self.send(Told::Renewed(renewed)).await?;
        for held in &kept.lost {
            self.lost(held).await?;
        }
        self.tell_cancels(&kept).await
    }

    /// What the hub has noted; whether to look for jobs.
    async fn heed(&mut self) -> Result<bool, End> {
        let mut queued = false;
        for note in self.bell.notes() {
            match note {
                Note::Queued => queued = true,
                Note::Cancel(held) => self.tell_cancel(&held).await?,
                Note::Taken(held) => {
                    if self.holds(&held) {
                        // Heartbeats come three times in a lease's life.
                        let silent = self.heard.elapsed() >= self.front.shell.limits().lease_ttl / 2;
                        self.unheard = silent.then(Instant::now);
                        self.lost(&held).await?;
                        queued = true;
                    }
                }
            }
        }
        Ok(queued)
    }

    async fn tell_cancels(&mut self, kept: &Kept) -> Step {
        for renewed in kept.kept.iter().filter(|renewed| renewed.cancel_requested) {
            self.tell_cancel(&renewed.held).await?;
        }
        Ok(())
    }

    /// Once an attempt.
    async fn tell_cancel(&mut self, held: &Held) -> Step {
        let attempt = self.held.get_mut(&held.job).filter(|attempt| attempt.fencing == held.fencing);
        let Some(attempt) = attempt.filter(|attempt| !attempt.cancel_told) else { return Ok(()) };
        attempt.cancel_told = true;
        let asked = work_response::CancelRequested { held: Some(wire::held(held)) };
        Ok(self.send(Told::CancelRequested(asked)).await?)
    }

    async fn lost(&mut self, held: &Held) -> Step {
        self.let_go(held);
        let lost = work_response::LeaseLost { held: Some(wire::held(held)) };
        Ok(self.send(Told::LeaseLost(lost)).await?)
    }

    fn hold(&mut self, held: &Held) {
        self.bell.add(Topic::Job(held.job.clone()));
        self.held.insert(held.job.clone(), Attempt { fencing: held.fencing, cancel_told: false });
    }

    fn holds(&self, held: &Held) -> bool {
        self.held.get(&held.job).is_some_and(|attempt| attempt.fencing == held.fencing)
    }

    fn let_go(&mut self, held: &Held) {
        if self.holds(held) {
            self.held.remove(&held.job);
            self.bell.remove(&Topic::Job(held.job.clone()));
        }
    }

    async fn send(&self, told: Told) -> Result<(), Gone> {
        self.outlet.send(WorkResponse { message: Some(told) }).await
    }
}

/// Names fields by their path from the message.
fn within(path: &str) -> impl Fn(End) -> End {
    move |end| match end {
        End::Refused(error) => End::Refused(error.within(path)),
        End::Quiet => End::Quiet,
    }
}

/// Whether a worker's stream outlives a claim that was answered so.
fn passes(reason: Reason) -> bool {
    matches!(reason, Reason::AuthUnavailable | Reason::StoreUnavailable | Reason::LimitReached)
}
