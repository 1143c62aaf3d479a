//! Sweeps: what ends by time. Each listing is bounded, and each entry is one verb.
//!
//! The loop that runs them is the shell's: it asks [`Due`], then runs [`Sweep`] for each entry, as
//! [`crate::caller::Caller::gateway`].

use std::time::Duration;

use crate::{
    client::{Client, LeaveCause, leave},
    event::ReleaseCause,
    file,
    ids::{AgentId, ClientId, FileId, JobId, SessionId, WaiterId},
    job::{Outcome, Phase, end_by_gateway, release},
    policy::Permit,
    session::{self, end, wind_up},
    store::{Query, Stop, Tx, Verb, View},
};

/// What is due now but logs, at most `sweep_rows_max` of each kind. A listing, no truth: each verb looks again.
#[derive(Clone, Debug)]
pub struct Due;

/// Which logs are due, among the next `sweep_logs_max` of them. There are as many as sessions, and most are not:
/// so one look goes through a bounded part, and the next one on from there.
#[derive(Clone, Debug, Default)]
pub struct DueLogs {
    /// Where the last look ended; none: from the first one.
    pub after: Option<SessionId>,
}

/// What one look at logs found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogsFound {
    /// Those beyond their retention, at most `sweep_rows_max`.
    pub due: Vec<SessionId>,
    /// Where to go on; none: all have been looked at.
    pub next: Option<SessionId>,
}

/// One thing to sweep.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// A running job whose lease or run time is over.
    Lease(JobId),
    /// A queued job that is too old, or that was given back and has no run time left.
    Overdue(JobId),
    /// A closing session with no job in flight, or a gone one with rows left.
    Session(SessionId),
    /// A log beyond its retention.
    Log(SessionId),
    /// First answers that are kept no longer.
    Requests,
    /// Ended jobs of this session that are kept no longer.
    Jobs(SessionId),
    /// A client of this session that was not seen for too long.
    Idle(SessionId, ClientId),
    /// A waiter for this agent whose caller is gone.
    Waiter(AgentId, WaiterId),
    /// A file of this session that nobody sees, or shall see any more: once it is swept its contents are to be taken
    /// away, and then its row.
    File(SessionId, FileId),
}

/// Does one duty. Answers whether it changed anything; repeat while it says [`Swept::More`].
#[derive(Clone, Debug)]
pub struct Sweep(pub Duty);

/// What a sweep found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Swept {
    /// Nothing was due.
    Nothing,
    /// Done.
    Done,
    /// A bounded part is done; more is left.
    More,
}

/// How long until the next lease is over: how long a sweep may sleep at most. By the store's clock.
#[derive(Clone, Debug)]
pub struct NextDeadline;

/// How long until the first of the leases is over; none where nothing runs.
pub type Deadline = Option<Duration>;

impl Query for Due {
    type Out = Vec<Duty>;
    const ACTION: &'static str = "sweep.due";

    fn run(&self, view: &mut View<'_>) -> Result<Vec<Duty>, Stop> {
        let permit = view.upkeep()?;
        view.due(&permit)
    }
}

impl Query for DueLogs {
    type Out = LogsFound;
    const ACTION: &'static str = "sweep.due";

    fn run(&self, view: &mut View<'_>) -> Result<LogsFound, Stop> {
        let permit = view.upkeep()?;
        view.due_logs(&permit, self.after.as_ref())
    }
}

impl Query for NextDeadline {
    type Out = Deadline;
    const ACTION: &'static str = "sweep.due";

    fn run(&self, view: &mut View<'_>) -> Result<Deadline, Stop> {
        let permit = view.upkeep()?;
        Ok(view.next_deadline(&permit)?.map(|at| at.since(view.now())))
    }
}

impl Verb for Sweep {
    type Out = Swept;
    const ACTION: &'static str = "sweep";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Swept, Stop> {
        let permit = tx.upkeep()?;
        match &self.0 {
            Duty::Lease(job) | Duty::Overdue(job) => sweep_job(tx, &permit, job),
            Duty::Session(session) => sweep_session(tx, &permit, session),
            Duty::Log(session) => sweep_log(tx, &permit, session),
            Duty::Waiter(agent, waiter) => sweep_waiter(tx, &permit, agent, waiter),
            Duty::File(session, id) => file::sweep(tx, session, id),
            Duty::Idle(session, client) => sweep_idle(tx, &permit, session, client),
            Duty::Jobs(session) => {
                let by = tx.now().before(tx.limits().ended_jobs_kept);
                let count = tx.drop_jobs(&permit, session, by)?;
                Ok(swept(count, tx.limits().sweep_rows_max))
            }
            Duty::Requests => {
                let count = tx.drop_requests(&permit)?;
                Ok(swept(count, tx.limits().sweep_rows_max))
            }
        }
    }
}

/// Ends what a bound ends: a job that queued or ran too long fails, a lease that is over is taken.
fn sweep_job(tx: &mut Tx<'_>, permit: &Permit, id: &JobId) -> Result<Swept, Stop> {
    let Some(job) = tx.any_job(permit, id)? else { return Ok(Swept::Nothing) };
    let now = tx.now();
    let over = job.deadline(tx.limits()).is_over(now);
    let ran_out = job.first_started_at.is_some_and(|at| at.after(tx.limits().run_time_max).is_over(now));
    let ended = match &job.phase {
        Phase::Running(_) | Phase::Queued if over && ran_out => {
            end_by_gateway(tx, permit, &job, Outcome::Failed, "it ran for longer than max_run_time")
        }
        Phase::Running(lease) if lease.until.is_over(now) => {
            release(tx, permit, &job, ReleaseCause::LeaseExpired)
        }
        Phase::Queued if over => {
            end_by_gateway(tx, permit, &job, Outcome::Failed, "it was queued for longer than max_queue_age")
        }
        Phase::Running(_) | Phase::Queued | Phase::Ended(_) => return Ok(Swept::Nothing),
    };
    let what = match &ended.phase {
        Phase::Ended(end) => end.outcome.text(),
        Phase::Queued | Phase::Running(_) => "lease expired",
    };
    tx.done(job.id.as_str(), Some(&job.binding.project), &job.facts(what));
    Ok(Swept::Done)
}

/// A closing session without jobs in flight is gone; what is left of a gone one is taken away, and the
/// row itself last: until then a repeated close finds it.
fn sweep_session(tx: &mut Tx<'_>, permit: &Permit, id: &SessionId) -> Result<Swept, Stop> {
    let Some((session, in_flight, log)) = tx.any_session(permit, id)? else { return Ok(Swept::Nothing) };
    match session.phase {
        session::Phase::Open => Ok(Swept::Nothing),
        session::Phase::Closing if in_flight > 0 => Ok(Swept::Nothing),
        session::Phase::Closing => {
            end(tx, permit, &session, session::Phase::Gone);
            Ok(Swept::More)
        }
        session::Phase::Gone => {
            let rows = tx.limits().sweep_rows_max;
            if log.first <= log.last {
                let events = tx.oldest_events(id, rows)?;
                tx.trim_log(permit, id, &events);
                return Ok(Swept::More);
            }
            if tx.drop_jobs(permit, id, tx.now())? > 0 {
                return Ok(Swept::More);
            }
            let kept_until = session.ended_at.unwrap_or(session.created_at).after(tx.limits().creation_kept);
            if !kept_until.is_over(tx.now()) {
                return Ok(Swept::Nothing);
            }
            if tx.has_files(permit, id)? {
                return Ok(Swept::Nothing);
            }
            tx.drop_session(permit, &session);
            Ok(Swept::Done)
        }
    }
}

/// A waiter that nobody has kept alive waits no longer.
fn sweep_waiter(tx: &mut Tx<'_>, permit: &Permit, agent: &AgentId, id: &WaiterId) -> Result<Swept, Stop> {
    let line = tx.any_line(permit, agent)?;
    let over = line.iter().find(|waiter| waiter.id == *id && waiter.alive_until.is_over(tx.now()));
    let Some(over) = over else { return Ok(Swept::Nothing) };
    tx.drop_waiter(over);
    Ok(Swept::Done)
}

/// A client that was not seen for too long is no longer of its session; the last one takes the session with it.
// NC-19, NC-20
fn sweep_idle(tx: &mut Tx<'_>, permit: &Permit, id: &SessionId, client: &ClientId) -> Result<Swept, Stop> {
    let Some((session, ..)) = tx.any_session(permit, id)? else { return Ok(Swept::Nothing) };
    if session.phase == session::Phase::Gone {
        return Ok(Swept::Nothing);
    }
    let clients = tx.clients_of(permit, id)?;
    let idle = |other: &&Client| other.id == *client && other.is_idle(tx.now(), tx.limits());
    let Some(gone) = clients.iter().find(idle).cloned() else { return Ok(Swept::Nothing) };
    leave(tx, permit, &session, &gone, LeaveCause::Idle);
    let scope = session.binding.as_ref().map(|binding| &binding.project);
    tx.done(gone.id.as_str(), scope, &session::facts(id, "idle"));
    if clients.len() == 1 {
        wind_up(tx, permit, &session)?;
    }
    Ok(Swept::Done)
}

/// Takes the oldest events of a log that is too long, too heavy or too old.
fn sweep_log(tx: &mut Tx<'_>, permit: &Permit, id: &SessionId) -> Result<Swept, Stop> {
    let Some((_, _, log)) = tx.any_session(permit, id)? else { return Ok(Swept::Nothing) };
    let limits = tx.limits();
    let too_old = tx.now().before(limits.log_age_max);
    let (mut count, mut bytes) = ((log.last + 1).saturating_sub(log.first), log.bytes);
    let mut events = tx.oldest_events(id, limits.sweep_rows_max)?;
    let keep = events.iter().position(|event| {
        let goes = count > limits.log_events_max || bytes > limits.log_bytes_max || event.at <= too_old;
        if goes {
            count -= 1;
            bytes -= event.bytes;
        }
        !goes
    });
    events.truncate(keep.unwrap_or(events.len()));
    tx.trim_log(permit, id, &events);
    Ok(swept(events.len(), limits.sweep_rows_max))
}

fn swept(rows: usize, part: usize) -> Swept {
    match rows {
        0 => Swept::Nothing,
        rows if rows < part => Swept::Done,
        _ => Swept::More,
    }
}
