//! Jobs: work submitted to the agent that a session is bound to.

use std::fmt;

use interlock_kit::clock::Timestamp;
use serde::{Deserialize, Serialize};

use interlock_kit::error::{Error, Reason};
use interlock_proto::text;
use sha2::{Digest as _, Sha256};

use crate::{
    binding::{Binding, refuse_other_project},
    data::Length,
    event::{EventKind, ReleaseCause},
    ids::{ClientId, JobId, OwnerId, ProjectId, RequestId, SessionId},
    lease::Lease,
    limits::Limits,
    page::Page,
    policy::{Act, Permit},
    request::{Request, RequestKey},
    session,
    store::{Found, JobsOf, Query, Stop, Tx, Verb, View},
    waiter::refuse_while_pending,
};

/// A job. Payload and result are kept apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which.
    pub id: JobId,
    /// The session it was submitted to.
    pub session: SessionId,
    /// The session's owner.
    pub owner: OwnerId,
    /// The client that submitted it; none where a bearer credential did.
    pub client: Option<ClientId>,
    /// The binding it runs under, for its whole life.
    pub binding: Binding,
    /// Where it is in its life.
    pub phase: Phase,
    /// How many attempts have started.
    pub attempt: u32,
    /// How many attempts ended because their lease ran out.
    pub lost: u32,
    /// The fencing token of the newest lease; 0 before the first.
    pub fencing: u64,
    /// The owner that the worker of the newest lease acts as: nobody else can use that lease.
    pub holder: Option<OwnerId>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When its first attempt started.
    pub first_started_at: Option<Timestamp>,
    /// When the present or last attempt started.
    pub started_at: Option<Timestamp>,
    /// When someone asked to cancel it while it ran.
    pub cancel_requested_at: Option<Timestamp>,
}

/// Where a job is in its life. Queued and running are in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits for a worker.
    Queued,
    /// Leased by a worker.
    Running(Lease),
    /// Ended, once.
    Ended(End),
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// Why it failed or was cancelled.
    pub cause: String,
    /// Who ended it.
    pub by: EndedBy,
}

/// The three ways to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its worker finished it.
    Succeeded,
    /// Its worker, or a bound, failed it.
    Failed,
    /// Cancelled.
    Cancelled,
}

/// Who ended a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The worker that held its newest lease.
    Worker,
    /// A caller or a bound.
    Gateway,
}

/// A job with what went in and what came out.
#[derive(Clone, PartialEq, Eq)]
pub struct JobWhole {
    /// The job.
    pub job: Job,
    /// What was submitted.
    pub payload: Vec<u8>,
    /// What its worker answered.
    pub result: Vec<u8>,
}

/// Queues a job under the session's binding. Answers with the job as it was queued, or as it is now
/// where the request id was seen before.
#[derive(Clone)]
pub struct Submit {
    /// The new job's id: [`JobId::new`].
    pub id: JobId,
    /// The session.
    pub session: SessionId,
    /// The same id and payload get the first job again.
    pub request: RequestId,
    /// Handed to the worker as it is.
    pub payload: Vec<u8>,
}

/// Cancels a queued job at once; asks the worker of a running one. Answers with the job as it is then.
#[derive(Clone, Debug)]
pub struct Cancel {
    /// Which.
    pub job: JobId,
}

/// Fails a job in flight, whatever its worker says. Administrators only. Answers with the job as it is then.
#[derive(Clone, Debug)]
pub struct ForceFail {
    /// Which.
    pub job: JobId,
    /// Why, for people; at most `cause_bytes_max`.
    pub cause: String,
}

/// Reads one job with its payload and result.
#[derive(Clone, Debug)]
pub struct GetJob {
    /// Which.
    pub job: JobId,
}

/// Reads where a job is in its life: what a wait asks again on each wake-up.
#[derive(Clone, Debug)]
pub struct JobState {
    /// Which.
    pub job: JobId,
}

/// Lists a session's jobs under its present project, newest first.
#[derive(Clone, Debug)]
pub struct ListJobs {
    /// The session.
    pub session: SessionId,
    /// Only jobs in flight.
    pub in_flight: bool,
    /// 1 to 500; 0 means 100.
    pub page_size: u32,
    /// From the page before; empty for the first.
    pub page_token: String,
}

/// A page of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPage {
    /// Newest first.
    pub jobs: Vec<Job>,
    /// Empty on the last page.
    pub next_page_token: String,
}

impl fmt::Debug for JobWhole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, payload, result } = self;
        let (payload, result) = (Length(payload.len()), Length(result.len()));
        let mut shown = f.debug_struct("JobWhole");
        shown.field("job", job).field("payload", &payload).field("result", &result).finish()
    }
}

impl fmt::Debug for Submit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, session, request, payload } = self;
        f.debug_struct("Submit")
            .field("id", id)
            .field("session", session)
            .field("request", request)
            .field("payload", &Length(payload.len()))
            .finish()
    }
}

impl Job {
    /// What its audit rows say besides: its session, and what was done where the action does not tell.
    pub(crate) fn facts(&self, what: &str) -> String {
        session::facts(&self.session, what)
    }

    /// Whether it is queued or running.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        !matches!(self.phase, Phase::Ended(_))
    }

    /// The instant at which it has queued or run for as long as it may: then a bound fails it. A job that was
    /// given back has what is left of its run time, queued too: without any, nobody could run it.
    #[must_use]
    pub fn deadline(&self, limits: &Limits) -> Timestamp {
        let queues_until = self.submitted_at.after(limits.queue_age_max);
        let runs_until = self.first_started_at.map(|first| first.after(limits.run_time_max));
        match (&self.phase, runs_until) {
            (Phase::Running(_), Some(runs_until)) => runs_until,
            (Phase::Queued, Some(runs_until)) => queues_until.min(runs_until),
            (Phase::Running(_) | Phase::Queued | Phase::Ended(_), _) => queues_until,
        }
    }

    /// When the next attempt may start of a job that is queued again because its lease ran out; none where it does not
    /// pause. Counted from where the lost lease would have ended without a heartbeat: what fails at once pauses, and
    /// what had run for long goes on.
    #[must_use]
    pub fn pauses_until(&self, limits: &Limits) -> Option<Timestamp> {
        let (Phase::Queued, 1.., Some(started)) = (&self.phase, self.lost, self.started_at) else {
            return None;
        };
        Some(started.after(limits.lease_ttl).after(limits.retry_pause(self.lost)))
    }

    /// The same job, ended.
    #[must_use]
    pub(crate) fn ended(
        &self,
        outcome: Outcome,
        at: Timestamp,
        cause: impl Into<String>,
        by: EndedBy,
    ) -> Self {
        Self { phase: Phase::Ended(End { outcome, at, cause: cause.into(), by }), ..self.clone() }
    }

    fn project(&self) -> &ProjectId {
        &self.binding.project
    }
}

impl Outcome {
    /// For audit rows.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Verb for Submit {
    type Out = Job;
    const ACTION: &'static str = "job.submit";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Job, Stop> {
        if self.payload.len() > tx.limits().payload_bytes_max {
            let accepted = format!("0 to {} bytes", tx.limits().payload_bytes_max);
            return Err(Error::invalid_field("payload", accepted).into());
        }
        let key = RequestKey::Submit(self.session.clone(), self.request.clone());
        tx.expect_call(&self.session, &key)?;
        let found = tx.session(Act::Submit, &self.session)?;
        let hash = Sha256::digest(&self.payload).into();
        if let Some(first) = tx.request(&key)? {
            if first.hash != hash {
                return Err(
                    Error::new(Reason::RequestIdReused, "this request id came with another payload").into()
                );
            }
            let job = tx.made_job(&found, &JobId::stored(first.made))?;
            // The session may have moved since: the answer is of the job's own project.
            return Ok(tx.job(Act::Submit, &job.id)?.0);
        }
        let binding = self.binding(tx, &found)?;
        tx.need_room_for_job(&found.session.owner)?;
        let job = self.queued(tx.now(), &found, binding);
        let kept_until = tx.now().after(tx.limits().submit_kept);
        let request = Request { key, hash, made: job.id.to_string(), sealed: Vec::new(), kept_until };
        tx.add_job(&found, job.clone(), self.payload.clone(), request);
        tx.append_of(&found.permit, &job, EventKind::JobQueued { job: job.id.clone() });
        tx.done(job.id.as_str(), Some(job.project()), &job.facts(""));
        Ok(job)
    }
}

impl Submit {
    /// The binding that the job runs under: the guard's rules for submits.
    fn binding(&self, tx: &mut Tx<'_>, found: &Found) -> Result<Binding, Stop> {
        found.session.must_be_open()?;
        let Some(binding) = found.session.binding.clone() else {
            return Err(
                Error::new(Reason::SessionUnbound, "attach the session to an agent and a project").into()
            );
        };
        tx.expect_queueing(found, &binding.agent)?;
        tx.may_use(found, &binding.agent)?;
        refuse_other_project(tx, found, &binding.agent, &binding.project)?;
        refuse_while_pending(tx, found, &binding.agent)?;
        Ok(binding)
    }

    fn queued(&self, now: Timestamp, found: &Found, binding: Binding) -> Job {
        Job {
            id: self.id.clone(),
            session: found.session.id.clone(),
            owner: found.session.owner.clone(),
            client: found.client.as_ref().map(|client| client.id.clone()),
            binding,
            phase: Phase::Queued,
            attempt: 0,
            lost: 0,
            fencing: 0,
            holder: None,
            submitted_at: now,
            first_started_at: None,
            started_at: None,
            cancel_requested_at: None,
        }
    }
}

impl Verb for Cancel {
    type Out = Job;
    const ACTION: &'static str = "job.cancel";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Job, Stop> {
        let (job, found) = tx.job(Act::Cancel, &self.job)?;
        match &job.phase {
            Phase::Ended(end) if end.outcome == Outcome::Cancelled => Ok(job),
            Phase::Ended(_) => Err(Error::new(Reason::JobTerminal, "the job has ended").into()),
            Phase::Running(_) if job.cancel_requested_at.is_some() => Ok(job),
            Phase::Queued | Phase::Running(_) => {
                let after = cancelled(tx, &found.permit, &job, "cancelled on request");
                tx.done(job.id.as_str(), Some(job.project()), &job.facts(""));
                Ok(after)
            }
        }
    }
}

impl Verb for ForceFail {
    type Out = Job;
    const ACTION: &'static str = "job.force_fail";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Job, Stop> {
        let most = tx.limits().cause_bytes_max;
        if !self.cause.is_empty() && !text::is_label(&self.cause, most) {
            let accepted = format!("0 to {most} bytes that all show, without blanks at the ends");
            return Err(Error::invalid_field("cause", accepted).into());
        }
        let (job, found) = tx.job(Act::ForceFail, &self.job)?;
        match &job.phase {
            Phase::Ended(end) if end.outcome == Outcome::Failed && end.by == EndedBy::Gateway => Ok(job),
            Phase::Ended(_) => Err(Error::new(Reason::JobTerminal, "the job has ended").into()),
            Phase::Queued | Phase::Running(_) => {
                let cause = match self.cause.as_str() {
                    "" => "failed by an administrator",
                    cause => cause,
                };
                let after = end_by_gateway(tx, &found.permit, &job, Outcome::Failed, cause);
                tx.done(job.id.as_str(), Some(job.project()), &job.facts("failed"));
                Ok(after)
            }
        }
    }
}

/// Cancels what is queued and asks for what runs; answers how many still run.
pub(crate) fn end_all(tx: &mut Tx<'_>, permit: &Permit, jobs: &[Job], cause: &str) -> u32 {
    let mut running = 0;
    for job in jobs {
        running += u32::from(matches!(job.phase, Phase::Running(_)));
        if job.phase == Phase::Queued || job.cancel_requested_at.is_none() {
            cancelled(tx, permit, job, cause);
            tx.done(job.id.as_str(), Some(job.project()), &job.facts(""));
        }
    }
    running
}

/// A queued job ends; the worker of a running one is asked.
pub(crate) fn cancelled(tx: &mut Tx<'_>, permit: &Permit, job: &Job, cause: &str) -> Job {
    match &job.phase {
        Phase::Queued => end_by_gateway(tx, permit, job, Outcome::Cancelled, cause),
        Phase::Running(_) | Phase::Ended(_) => {
            let after = Job { cancel_requested_at: Some(tx.now()), ..job.clone() };
            tx.set_job(permit, job, &after, None);
            tx.append_of(permit, job, EventKind::JobCancelRequested { job: job.id.clone() });
            after
        }
    }
}

/// A job ends, and not by its worker.
pub(crate) fn end_by_gateway(
    tx: &mut Tx<'_>,
    permit: &Permit,
    job: &Job,
    outcome: Outcome,
    cause: &str,
) -> Job {
    let after = job.ended(outcome, tx.now(), cause, EndedBy::Gateway);
    tx.set_job(permit, job, &after, None);
    tx.append_of(permit, job, EventKind::JobEnded { job: job.id.clone(), outcome, cause: cause.to_owned() });
    after
}

/// An attempt ends without an outcome: the job is queued again, or ended where it was to be cancelled
/// or has lost too many leases. Answers the job as it is then.
pub(crate) fn release(tx: &mut Tx<'_>, permit: &Permit, job: &Job, cause: ReleaseCause) -> Job {
    let lost = job.lost + u32::from(cause == ReleaseCause::LeaseExpired);
    if job.cancel_requested_at.is_some() {
        return end_by_gateway(tx, permit, job, Outcome::Cancelled, "cancelled on request");
    }
    let counted = Job { lost, ..job.clone() };
    if lost >= tx.limits().attempts_max {
        let cause = format!("{lost} attempts lost their lease");
        let after = counted.ended(Outcome::Failed, tx.now(), cause.clone(), EndedBy::Gateway);
        tx.set_job(permit, job, &after, None);
        let kind = EventKind::JobEnded { job: job.id.clone(), outcome: Outcome::Failed, cause };
        tx.append_of(permit, job, kind);
        return after;
    }
    let after = Job { phase: Phase::Queued, ..counted };
    tx.set_job(permit, job, &after, None);
    tx.append_of(permit, job, EventKind::JobReleased { job: job.id.clone(), attempt: job.attempt, cause });
    after
}

impl Query for GetJob {
    type Out = JobWhole;
    const ACTION: &'static str = "job.get";

    fn is_keyed(&self) -> bool {
        true
    }

    fn run(&self, view: &mut View<'_>) -> Result<JobWhole, Stop> {
        let (job, found) = view.job(Act::ReadJobs, &self.job)?;
        let (payload, result) = view.contents(&found, &job)?;
        Ok(JobWhole { job, payload, result })
    }
}

impl Query for JobState {
    type Out = Job;
    const ACTION: &'static str = "job.wait";

    fn is_keyed(&self) -> bool {
        true
    }

    fn run(&self, view: &mut View<'_>) -> Result<Job, Stop> {
        Ok(view.job(Act::ReadJobs, &self.job)?.0)
    }
}

impl Query for ListJobs {
    type Out = JobPage;
    const ACTION: &'static str = "job.list";

    fn run(&self, view: &mut View<'_>) -> Result<JobPage, Stop> {
        let page = Page::read(self.page_size, &self.page_token, JobId::parse, view.limits())?;
        let found = view.session(Act::ReadJobs, &self.session)?;
        let (session, before) = (&self.session, page.from.as_ref());
        let of = JobsOf { session, in_flight: self.in_flight, before, limit: page.limit + 1 };
        let mut jobs = view.jobs(&found, of)?;
        let next_page_token = page.next(&jobs, |job| job.id.as_str());
        jobs.truncate(page.limit);
        Ok(JobPage { jobs, next_page_token })
    }
}
