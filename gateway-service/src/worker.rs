//! Workers: the programs that run jobs for agents, and how they get jobs.

use std::{fmt, time::Duration};

use interlock_kit::clock::Timestamp;

use std::collections::BTreeSet;

use interlock_kit::error::{Error, Reason};

use crate::{
    binding::Binding,
    data::Length,
    event::EventKind,
    ids::{AgentId, OwnerId, SessionId, WorkerName},
    job::{Job, Phase},
    lease::{Held, Lease},
    limits::Limits,
    policy::Permit,
    store::{Query, Stop, Tx, Verb, View},
};

/// Checks that the caller may serve these agents; answers nothing. For a worker's hello.
#[derive(Clone, Debug)]
pub struct Serve {
    /// 1 to 32.
    pub agents: Vec<AgentId>,
}

/// Leases the oldest queued jobs of these agents.
#[derive(Clone, Debug)]
pub struct Claim {
    /// 1 to 32.
    pub agents: Vec<AgentId>,
    /// As the worker names itself.
    pub worker: WorkerName,
    /// At most so many jobs.
    pub up_to: u32,
}

/// What a claim got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Jobs to run, oldest first.
    pub jobs: Vec<Assignment>,
    /// How long until the first of those may start that pause after a lost lease; none where none pauses.
    pub next_in: Option<Duration>,
}

/// A job to run.
#[derive(Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The job, and the right to it.
    pub held: Held,
    /// The session it was submitted to.
    pub session: SessionId,
    /// The binding it runs under.
    pub binding: Binding,
    /// From 1.
    pub attempt: u32,
    /// What was submitted.
    pub payload: Vec<u8>,
    /// The lease is over at this instant.
    pub until: Timestamp,
    /// How long the lease lives without a heartbeat.
    pub lease: Duration,
    /// How long the job may run in all.
    pub run_time_left: Duration,
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { held, session, binding, attempt, payload, until, lease, run_time_left } = self;
        f.debug_struct("Assignment")
            .field("held", held)
            .field("session", session)
            .field("binding", binding)
            .field("attempt", attempt)
            .field("payload", &Length(payload.len()))
            .field("until", until)
            .field("lease", lease)
            .field("run_time_left", run_time_left)
            .finish()
    }
}

impl Query for Serve {
    type Out = ();
    const ACTION: &'static str = "worker.work";

    fn run(&self, view: &mut View<'_>) -> Result<(), Stop> {
        let agents = each(&self.agents, view.limits())?;
        view.expect_agents(agents.iter().copied(), None)?;
        for agent in agents {
            view.serve(agent)?;
        }
        Ok(())
    }
}

impl Verb for Claim {
    type Out = Claimed;
    const ACTION: &'static str = "worker.claim";

    fn run(&self, tx: &mut Tx<'_>) -> Result<Claimed, Stop> {
        let holder = tx.caller().owner();
        let holder = holder.ok_or_else(|| Error::new(Reason::Forbidden, "a client runs no jobs"))?;
        let up_to = usize::try_from(self.up_to.min(tx.limits().capacity_max)).unwrap_or(usize::MAX);
        let (mut queued, mut next): (Vec<(Job, Permit)>, Option<Timestamp>) = (Vec::new(), None);
        let agents = each(&self.agents, tx.limits())?;
        tx.expect_agents(agents.iter().copied(), Some(up_to))?;
        for agent in agents {
            let permit = tx.serve(agent)?;
            let queue = look(tx, &permit, agent, up_to)?;
            next = [next, queue.next].into_iter().flatten().min();
            queued.extend(queue.open.into_iter().map(|job| (job, permit.clone())));
        }
        queued.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        let oldest = queued.into_iter().take(up_to);
        let jobs = oldest.map(|(job, permit)| self.assign(tx, &permit, &job, &holder));
        let jobs = jobs.collect::<Result<_, _>>()?;
        Ok(Claimed { jobs, next_in: next.map(|at| at.since(tx.now())) })
    }
}

/// What of an agent's queue may run.
struct Queue {
    /// Now, oldest first.
    open: Vec<Job>,
    /// When the first of those may that pause.
    next: Option<Timestamp>,
}

/// Looks at the beginning of an agent's queue, and on behind those that pause: they hold up nobody.
fn look(tx: &mut Tx<'_>, permit: &Permit, agent: &AgentId, up_to: usize) -> Result<Queue, Stop> {
    let most = up_to.max(tx.limits().sweep_rows_max);
    let mut part = up_to;
    loop {
        let queue = tx.queue(permit, agent, part)?;
        let whole = queue.len() < part;
        let reached = queue.iter().filter(|job| tx.works_in(&job.binding.project));
        let next = reached.filter_map(|job| pause(tx, job)).min();
        let open: Vec<Job> = queue.into_iter().filter(|job| may_run(tx, job)).take(up_to).collect();
        if whole || open.len() == up_to || next.is_none() || part == most {
            return Ok(Queue { open, next });
        }
        part = part.saturating_mul(4).min(most);
    }
}

impl Claim {
    fn assign(
        &self,
        tx: &mut Tx<'_>,
        permit: &Permit,
        job: &Job,
        holder: &OwnerId,
    ) -> Result<Assignment, Stop> {
        let now = tx.now();
        let first_started_at = Some(job.first_started_at.unwrap_or(now));
        let (attempt, fencing) = (job.attempt + 1, job.fencing + 1);
        let until = Lease::until(job, now, tx.limits());
        let lease = Lease { worker: self.worker.clone(), until, progress: 0 };
        let after = Job {
            phase: Phase::Running(lease),
            attempt,
            fencing,
            holder: Some(holder.clone()),
            first_started_at,
            started_at: Some(now),
            ..job.clone()
        };
        let payload = tx.payload(permit, job)?;
        let run_time_left = after.deadline(tx.limits()).since(now);
        tx.set_job(permit, job, &after, None);
        let worker = self.worker.clone();
        tx.append_of(permit, job, EventKind::JobStarted { job: job.id.clone(), attempt, worker });
        let facts = serde_json::json!({
            "session": job.session.as_str(), "attempt": attempt, "worker": self.worker.as_str(),
        });
        tx.done(job.id.as_str(), Some(&job.binding.project), &facts.to_string());
        Ok(Assignment {
            held: Held { job: job.id.clone(), fencing },
            session: job.session.clone(),
            binding: job.binding.clone(),
            attempt,
            payload,
            until,
            lease: tx.limits().lease_ttl,
            run_time_left,
        })
    }
}

/// Not too old, not out of run time, not pausing, and in a project that the caller's locks lead to.
fn may_run(tx: &Tx<'_>, job: &Job) -> bool {
    let may = tx.works_in(&job.binding.project) && !job.deadline(tx.limits()).is_over(tx.now());
    may && pause(tx, job).is_none()
}

/// Until when it pauses, where it does so now.
fn pause(tx: &Tx<'_>, job: &Job) -> Option<Timestamp> {
    job.pauses_until(tx.limits()).filter(|at| !at.is_over(tx.now()))
}

fn each<'a>(agents: &'a [AgentId], limits: &Limits) -> Result<BTreeSet<&'a AgentId>, Error> {
    if agents.is_empty() {
        return Err(Error::missing_field("agent_ids"));
    }
    if agents.len() > limits.served_agents_max {
        return Err(Error::invalid_field("agent_ids", format!("1 to {} agents", limits.served_agents_max)));
    }
    Ok(agents.iter().collect())
}
