//! The rules: one verb, one transaction, `None` where it is refused. What a verb decides on it reads here, from
//! the rows that it changes; a flawed one decides on what it was `seen` before.

use super::{
    Flaw,
    rows::{ATTEMPTS_MAX, Binding, Job, LEASE, Phase, Rows, State, may_use},
};

/// What runs in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    /// Moves a session to an agent and a project.
    Attach { session: u8, agent: u8, project: u8 },
    /// Queues a job under its session's binding.
    Submit { session: u8, request: u8 },
    /// Leases the oldest queued job of an agent.
    Claim { worker: u8, agent: u8 },
    /// A heartbeat of a job in hand.
    Renew { held: Held },
    /// Ends a job with its outcome.
    Finish { held: Held },
    /// Gives a job back.
    Goodbye { held: Held },
    /// Ends what is queued, asks for what runs.
    Cancel { job: u8 },
    /// Ends a session, its jobs with it.
    Close { session: u8, force: bool },
    /// Takes a lease that is over.
    Sweep { job: u8 },
}

/// A job in a worker's hands, as the worker believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) worker: u8,
    pub(crate) job: u8,
    pub(crate) fencing: u8,
}

/// What a verb looked at before its transaction, where it is flawed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Seen {
    /// Nothing in the way of an attach.
    Free,
    /// The binding for a submission.
    Bound(Binding),
}

/// What a verb answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Done,
    /// Job `job` is the one of this request.
    Submitted {
        request: u8,
        job: u8,
    },
    Assigned(Held),
}

impl Verb {
    /// Runs it on the rows.
    pub(crate) fn run(self, rows: &mut Rows, flaw: Flaw, seen: Option<Seen>) -> Option<Answer> {
        match self {
            Self::Attach { session, agent, project } => attach(rows, flaw, seen, session, (agent, project)),
            Self::Submit { session, request } => submit(rows, flaw, seen, session, request),
            Self::Claim { worker, agent } => claim(rows, worker, agent),
            Self::Renew { held } => {
                let job = fenced(rows, held)?;
                (job.state != State::Running { left: LEASE }).then_some(())?;
                job.state = State::Running { left: LEASE };
                Some(Answer::Done)
            }
            Self::Finish { held } => finish(rows, flaw, held),
            Self::Goodbye { held } => {
                fenced(rows, held)?;
                release(rows, held.job);
                Some(Answer::Done)
            }
            Self::Cancel { job } => cancel(rows, flaw, job),
            Self::Close { session, force } => close(rows, flaw, session, force),
            Self::Sweep { job } => sweep(rows, flaw, job),
        }
    }
}

/// DESIGN section 7, steps 1 to 4.
fn attach(
    rows: &mut Rows,
    flaw: Flaw,
    seen: Option<Seen>,
    session: u8,
    (agent, project): (u8, u8),
) -> Option<Answer> {
    let present = rows.sessions[usize::from(session)];
    (present.phase == Phase::Open && may_use(session, agent)).then_some(())?;
    if present.binding.is_some_and(|b| b.agent == agent && b.project == project) {
        return Some(Answer::Done); // 1
    }
    if seen != Some(Seen::Free) && attach_is_busy(rows, flaw, session, (agent, project)) {
        return None; // 2, 3
    }
    let epoch = present.binding.map_or(1, |b| b.epoch + 1);
    rows.sessions[usize::from(session)].binding = Some(Binding { agent, project, epoch }); // 4
    Some(Answer::Done)
}

/// Steps 2 and 3: the present agent has a job in flight, or the one asked for has one elsewhere.
pub(crate) fn attach_is_busy(rows: &Rows, flaw: Flaw, session: u8, (agent, project): (u8, u8)) -> bool {
    let counts = |job: &&Job| flaw != Flaw::OwnJobsOnly || job.session == session;
    let present = rows.sessions[usize::from(session)].binding;
    if flaw == Flaw::BusyStored && present.is_some_and(|b| rows.busy[usize::from(b.agent)] > 0) {
        return true;
    }
    let rebind = present.is_some_and(|b| rows.in_flight_of(b.agent).any(|job| counts(&job)));
    rebind || rows.in_flight_of(agent).filter(counts).any(|job| job.binding.project != project)
}

fn submit(rows: &mut Rows, flaw: Flaw, seen: Option<Seen>, session: u8, request: u8) -> Option<Answer> {
    let first = rows.jobs.iter().position(|job| job.request == request);
    if let Some(first) = first.filter(|_| flaw != Flaw::ForgetsRequests) {
        // I7: the same id gets the first answer, also when the session has moved on.
        return Some(Answer::Submitted { request, job: number(first) });
    }
    let present = rows.sessions[usize::from(session)];
    (present.phase == Phase::Open).then_some(())?;
    let binding = match seen {
        Some(Seen::Bound(binding)) => binding,
        Some(Seen::Free) | None => present.binding?,
    };
    let elsewhere = |job: &Job| job.binding.project != binding.project;
    if flaw != Flaw::OwnJobsOnly && rows.in_flight_of(binding.agent).any(elsewhere) {
        return None;
    }
    let job = Job {
        session,
        request,
        binding,
        state: State::Queued,
        fencing: 0,
        lost: 0,
        cancel_requested: false,
        endings: 0,
    };
    rows.jobs.push(job);
    if flaw == Flaw::BusyStored {
        rows.busy[usize::from(binding.agent)] += 1;
    }
    Some(Answer::Submitted { request, job: number(rows.jobs.len() - 1) })
}

fn claim(rows: &mut Rows, worker: u8, agent: u8) -> Option<Answer> {
    let at = rows.jobs.iter().position(|j| j.state == State::Queued && j.binding.agent == agent)?;
    let job = &mut rows.jobs[at];
    job.fencing += 1;
    job.state = State::Running { left: LEASE };
    Some(Answer::Assigned(Held { worker, job: number(at), fencing: job.fencing }))
}

/// The fence: the present attempt is this one, and its lease lives by the store's clock.
fn fenced(rows: &mut Rows, held: Held) -> Option<&mut Job> {
    let job = &mut rows.jobs[usize::from(held.job)];
    let lives = matches!(job.state, State::Running { left } if left > 0);
    (job.fencing == held.fencing && lives).then_some(job)
}

fn finish(rows: &mut Rows, flaw: Flaw, held: Held) -> Option<Answer> {
    let job = match flaw {
        Flaw::NoFence => {
            let job = &mut rows.jobs[usize::from(held.job)];
            matches!(job.state, State::Running { .. }).then_some(job)?
        }
        Flaw::EndsTwice if rows.jobs[usize::from(held.job)].state == State::Cancelled => {
            &mut rows.jobs[usize::from(held.job)]
        }
        _ => fenced(rows, held)?,
    };
    job.end(if job.cancel_requested { State::Cancelled } else { State::Succeeded });
    let agent = usize::from(job.binding.agent);
    if flaw == Flaw::BusyStored {
        rows.busy[agent] = rows.busy[agent].saturating_sub(1);
    }
    rows.settle();
    Some(Answer::Done)
}

/// An attempt ends without an outcome: queued again, or cancelled where that was asked.
fn release(rows: &mut Rows, job: u8) {
    let job = &mut rows.jobs[usize::from(job)];
    if job.cancel_requested {
        job.end(State::Cancelled);
    } else if job.lost >= ATTEMPTS_MAX {
        job.end(State::Failed);
    } else {
        job.state = State::Queued;
    }
    rows.settle();
}

fn cancel(rows: &mut Rows, flaw: Flaw, job: u8) -> Option<Answer> {
    let row = &mut rows.jobs[usize::from(job)];
    match row.state {
        State::Queued => {
            row.end(State::Cancelled);
            let agent = usize::from(row.binding.agent);
            if flaw == Flaw::BusyStored {
                rows.busy[agent] = rows.busy[agent].saturating_sub(1);
            }
        }
        State::Running { .. } if flaw == Flaw::EndsTwice => row.end(State::Cancelled),
        State::Running { .. } if !row.cancel_requested => row.cancel_requested = true,
        State::Running { .. } | State::Succeeded | State::Failed | State::Cancelled => return None,
    }
    rows.settle();
    Some(Answer::Done)
}

/// DESIGN section 9: with jobs in flight only by force; then queued ones end and running ones are asked.
fn close(rows: &mut Rows, flaw: Flaw, session: u8, force: bool) -> Option<Answer> {
    (rows.sessions[usize::from(session)].phase == Phase::Open).then_some(())?;
    let idle = rows.in_flight_in(session).next().is_none();
    // With force and idle it is the same as without: one of the two is enough to look at.
    (force != idle).then_some(())?;
    rows.sessions[usize::from(session)].phase = Phase::Closing;
    for job in 0..rows.jobs.len() {
        if rows.jobs[job].session == session && rows.jobs[job].in_flight() {
            let _ = cancel(rows, flaw, number(job));
        }
    }
    rows.settle();
    Some(Answer::Done)
}

/// A lease that is over by the store's clock is taken, whether or not its holder is still there.
fn sweep(rows: &mut Rows, flaw: Flaw, job: u8) -> Option<Answer> {
    let row = &mut rows.jobs[usize::from(job)];
    let over = row.state == State::Running { left: 0 };
    (over && flaw != Flaw::WorkersClock).then_some(())?;
    row.lost += 1;
    release(rows, job);
    Some(Answer::Done)
}

pub(crate) fn number(at: usize) -> u8 {
    u8::try_from(at).expect("a few")
}
