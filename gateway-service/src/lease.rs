//! Leases: a worker's right to one job until a deadline, fenced by a token that grows.

use std::fmt;

use interlock_kit::clock::Timestamp;

use interlock_kit::error::{Error, Reason};

use crate::{
    data::Length,
    event::{EventKind, ReleaseCause},
    ids::{JobId, WorkerName},
    job::{EndedBy, Job, Outcome, Phase, release},
    limits::Limits,
    policy::Permit,
    store::{Stop, Tx, Verb, View},
};

/// A worker's right to one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// As the worker names itself.
    pub worker: WorkerName,
    /// It is over at this instant.
    pub until: Timestamp,
    /// The number of the newest stored line of progress.
    pub progress: u64,
}

/// A job in a worker's hands, as the worker says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The job.
    pub job: JobId,
    /// From its assignment.
    pub fencing: u64,
}

/// Asks for more time for held jobs: a heartbeat.
#[derive(Clone, Debug)]
pub struct Renew {
    /// The jobs it holds, at most `capacity_max`.
    pub held: Vec<Held>,
}

/// The jobs that a hello named: which leases live on. They are renewed by this too.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The jobs it says it holds, at most `capacity_max`.
    pub held: Vec<Held>,
}

/// What became of the jobs that a worker named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Renewed.
    pub kept: Vec<Renewed>,
    /// Lost: stop them.
    pub lost: Vec<Held>,
    /// When this was so.
    pub at: Timestamp,
}

/// A lease that lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The job.
    pub held: Held,
    /// It is over at this instant.
    pub until: Timestamp,
    /// Whether someone asked to cancel the job.
    pub cancel_requested: bool,
}

/// A line from a job. Answers with the number up to which lines are stored.
#[derive(Clone)]
pub struct Progress {
    /// The job.
    pub held: Held,
    /// From 1 within the attempt; a number that is stored has no further effect.
    pub number: u64,
    /// As the worker sent it.
    pub data: Vec<u8>,
}

/// A job's outcome. The same again answers the same; another outcome, cause or result of an attempt that has ended is
/// `LEASE_LOST`, and changes nothing. Answers with the job.
#[derive(Clone)]
pub struct Finish {
    /// The job.
    pub held: Held,
    /// How it ended.
    pub outcome: Outcome,
    /// What the worker answers.
    pub result: Vec<u8>,
    /// Why it failed or was cancelled.
    pub cause: String,
}

/// Gives held jobs back: a goodbye, or a drain. Does not count as an attempt. Answers with the jobs
/// that were given back; those it no longer held are passed over.
#[derive(Clone, Debug)]
pub struct Release {
    /// The jobs it holds.
    pub held: Vec<Held>,
}

/// The jobs that a goodbye gave back.
pub type Released = Vec<Job>;

impl Lease {
    /// Until when a lease lives that is given or renewed now: never past the job's own deadline, nor
    /// far beyond a cancel request.
    #[must_use]
    pub(crate) fn until(job: &Job, now: Timestamp, limits: &Limits) -> Timestamp {
        let asked = now.after(limits.lease_ttl);
        let runs_until = job.first_started_at.unwrap_or(now).after(limits.run_time_max);
        let until = asked.min(runs_until);
        job.cancel_requested_at.map_or(until, |at| until.min(at.after(limits.cancel_grace)))
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { held, number, data } = self;
        let data = Length(data.len());
        f.debug_struct("Progress").field("held", held).field("number", number).field("data", &data).finish()
    }
}

impl fmt::Debug for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { held, outcome, result, cause } = self;
        f.debug_struct("Finish")
            .field("held", held)
            .field("outcome", outcome)
            .field("result", &Length(result.len()))
            .field("cause", &Length(cause.len()))
            .finish()
    }
}

impl Verb for Renew {
    type Out = Kept;
    const ACTION: &'static str = "worker.renew";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Kept, Stop> {
        renew_all(tx, &self.held)
    }
}

impl Verb for Resume {
    type Out = Kept;
    const ACTION: &'static str = "worker.hello";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Kept, Stop> {
        renew_all(tx, &self.held)
    }
}

impl Verb for Progress {
    type Out = u64;
    const ACTION: &'static str = "worker.progress";

    fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Stop> {
        if self.data.len() > tx.limits().progress_bytes_max {
            let accepted = format!("0 to {} bytes", tx.limits().progress_bytes_max);
            return Err(Error::invalid_field("data", accepted).into());
        }
        let (job, permit, lease) = running(tx, &self.held)?;
        if self.number <= lease.progress && self.number > 0 {
            return Ok(lease.progress);
        }
        if self.number != lease.progress + 1 {
            let accepted = format!("the next one is {}", lease.progress + 1);
            return Err(Error::invalid_field("number", accepted).into());
        }
        let lease = Lease { progress: self.number, ..lease };
        let after = Job { phase: Phase::Running(lease), ..job.clone() };
        tx.touch_job(&permit, &job, &after);
        let (id, attempt, data) = (job.id.clone(), job.attempt, self.data.clone().into());
        tx.append_of(&permit, &job, EventKind::JobProgress { job: id, attempt, data });
        Ok(self.number)
    }
}

impl Verb for Finish {
    type Out = Job;
    const ACTION: &'static str = "worker.finish";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Job, Stop> {
        if self.result.len() > tx.limits().payload_bytes_max {
            let accepted = format!("0 to {} bytes", tx.limits().payload_bytes_max);
            return Err(Error::invalid_field("result", accepted).into());
        }
        if self.cause.len() > tx.limits().cause_bytes_max {
            let accepted = format!("0 to {} bytes", tx.limits().cause_bytes_max);
            return Err(Error::invalid_field("cause", accepted).into());
        }
        let (job, permit) = tx.held(&self.held)?;
        if let Phase::Ended(end) = &job.phase
            && end.by == EndedBy::Worker
            && end.outcome == self.outcome
            && end.cause == self.cause
            && tx.result(&permit, &job)? == self.result
        {
            return Ok(job);
        }
        must_live(tx, &job)?;
        let after = job.ended(self.outcome, tx.now(), self.cause.clone(), EndedBy::Worker);
        tx.set_job(&permit, &job, &after, Some(self.result.clone()));
        let (id, cause) = (job.id.clone(), self.cause.clone());
        tx.append_of(&permit, &job, EventKind::JobEnded { job: id, outcome: self.outcome, cause });
        tx.done(job.id.as_str(), Some(&job.binding.project), &job.facts(self.outcome.text()));
        Ok(after)
    }
}

impl Verb for Release {
    type Out = Released;
    const ACTION: &'static str = "worker.goodbye";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Released, Stop> {
        let mut released = Vec::new();
        let all = each(&self.held, tx.limits())?;
        tx.expect_jobs(all.iter().map(|held| &held.job))?;
        for held in all {
            let Some((job, permit, _)) = living(tx, held)? else { continue };
            released.push(release(tx, &permit, &job, ReleaseCause::Goodbye));
            tx.done(job.id.as_str(), Some(&job.binding.project), &job.facts(""));
        }
        Ok(released)
    }
}

fn renew_all(tx: &mut Tx<'_>, held: &[Held]) -> Result<Kept, Stop> {
    let mut answer = Kept { kept: Vec::new(), lost: Vec::new(), at: tx.now() };
    let all = each(held, tx.limits())?;
    tx.expect_jobs(all.iter().map(|held| &held.job))?;
    for held in all {
        let Some((job, permit, lease)) = living(tx, held)? else {
            tx.lost(held)?;
            answer.lost.push(held.clone());
            continue;
        };
        let until = Lease::until(&job, tx.now(), tx.limits());
        // A lease never gets shorter by being renewed, and a renewal that gains nothing writes nothing.
        if until > lease.until {
            let after = Job { phase: Phase::Running(Lease { until, ..lease.clone() }), ..job.clone() };
            tx.touch_job(&permit, &job, &after);
        }
        let cancel_requested = job.cancel_requested_at.is_some();
        answer.kept.push(Renewed { held: held.clone(), until: until.max(lease.until), cancel_requested });
    }
    Ok(answer)
}

/// Each held job once, in order, and not too many of them.
fn each<'h>(held: &'h [Held], limits: &Limits) -> Result<std::collections::BTreeSet<&'h Held>, Error> {
    if held.len() > usize::try_from(limits.capacity_max).unwrap_or(usize::MAX) {
        return Err(Error::invalid_field("held", format!("at most {} jobs", limits.capacity_max)));
    }
    Ok(held.iter().collect())
}

/// A held job whose lease lives; `None` where it is lost.
fn living(tx: &mut Tx<'_>, held: &Held) -> Result<Option<(Job, Permit, Lease)>, Stop> {
    match running(tx, held) {
        Ok(found) => Ok(Some(found)),
        Err(Stop::Refused(error)) if error.reason() == Reason::LeaseLost => Ok(None),
        Err(stop) => Err(stop),
    }
}

/// The fence: the job, if its present attempt is this one and its lease lives.
fn running(tx: &mut Tx<'_>, held: &Held) -> Result<(Job, Permit, Lease), Stop> {
    let (job, permit) = tx.held(held)?;
    let lease = must_live(tx, &job)?;
    Ok((job, permit, lease))
}

pub(crate) fn must_live(view: &View<'_>, job: &Job) -> Result<Lease, Error> {
    match &job.phase {
        Phase::Running(lease) if !lease.until.is_over(view.now()) => Ok(lease.clone()),
        Phase::Running(_) | Phase::Queued | Phase::Ended(_) => {
            Err(Error::new(Reason::LeaseLost, "the lease of this attempt is over: stop the job"))
        }
    }
}
