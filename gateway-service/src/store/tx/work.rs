//! Jobs, agents and leases: the reads that their verbs rest on, and the writes that they plan.

use interlock_kit::{
    error::{Error, Reason},
    store::audit::Outcome,
};

use super::Tx;
use crate::{
    agent::{Agent, AgentSeen},
    event::EventKind,
    ids::{AgentId, JobId, OwnerId},
    job::{Job, Phase},
    lease::Held,
    policy::{Ask, Permit},
    request::Request,
    session::Session,
    store::{
        Stop,
        rows::{Change, Load},
        view::{Found, broken},
    },
};

/// Jobs.
impl Tx<'_> {
    /// Refuses where the session's owner may no longer use the agent that it is bound to.
    ///
    /// # Errors
    /// `FORBIDDEN`.
    pub fn may_use(&mut self, found: &Found, agent: &AgentId) -> Result<(), Stop> {
        let row = self.rows().agent(agent)?;
        let owner = &found.session.owner;
        self.view.decide(&Ask::Use { id: agent, agent: row.as_ref(), owner })?;
        Ok(())
    }

    /// Refuses where the owner has as many jobs in flight as it may have.
    ///
    /// # Errors
    /// `LIMIT_REACHED`.
    pub fn need_room_for_job(&mut self, owner: &OwnerId) -> Result<(), Stop> {
        if self.rows().owner_load(owner)? >= self.limits().jobs_in_flight_max {
            let refusal = Error::new(Reason::LimitReached, "this owner has too many jobs in flight");
            return Err(refusal.retry_after(std::time::Duration::from_secs(1)).into());
        }
        Ok(())
    }

    /// Adds a job with what was submitted, and the first answer to this call.
    pub fn add_job(&mut self, found: &Found, job: Job, payload: Vec<u8>, request: Request) {
        assert!(found.permit.covers_job(&job), "a job without a permit");
        assert!(found.session.binding.as_ref() == Some(&job.binding), "a job under another binding (I3)");
        let now = self.now();
        self.change(Change::AddJob(job, payload.into()));
        self.change(Change::PutRequest(request, now));
    }

    /// A job changes.
    pub fn set_job(&mut self, permit: &Permit, before: &Job, after: &Job, result: Option<Vec<u8>>) {
        assert_step(permit, before, after);
        self.change(Change::SetJob(Box::new((before.clone(), after.clone())), result.map(Into::into)));
    }

    /// A job's lease changes, and nothing that an audit row must tell of.
    pub fn touch_job(&mut self, permit: &Permit, before: &Job, after: &Job) {
        assert_step(permit, before, after);
        self.changes.push(Change::SetJob(Box::new((before.clone(), after.clone())), None));
    }

    /// A session's jobs in flight, oldest first: as many as its owner may have.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn session_jobs(&mut self, session: &Session) -> Result<Vec<Job>, Stop> {
        self.rows()
            .session_jobs(session, usize::try_from(self.limits().jobs_in_flight_max).unwrap_or(usize::MAX))
    }

    /// Appends to the log that a job belongs to.
    pub fn append_of(&mut self, permit: &Permit, job: &Job, kind: EventKind) {
        assert!(permit.covers_job(job), "an event without a permit");
        let (session, binding) = (job.session.clone(), Some(job.binding.clone()));
        self.changes.push(Change::Append { session, binding, kind });
    }

    /// Appends to a session's log.
    pub fn append(&mut self, permit: &Permit, session: &Session, kind: EventKind) {
        assert!(permit.covers_session(&session.id), "an event without a permit");
        let (session, binding) = (session.id.clone(), session.binding.clone());
        self.changes.push(Change::Append { session, binding, kind });
    }

    /// The job of a first answer.
    ///
    /// # Errors
    /// `NOT_FOUND` where it is kept no longer.
    pub fn made_job(&mut self, found: &Found, id: &JobId) -> Result<Job, Stop> {
        let job = self.rows().job(id)?;
        let job = job.ok_or_else(|| Error::new(Reason::NotFound, "that job is kept no longer"))?;
        assert!(found.permit.covers_job(&job), "a first answer names a job of another session");
        Ok(job)
    }
}

/// Agents, workers and leases.
impl Tx<'_> {
    /// Permission to register or change an agent, and the agent as it is.
    ///
    /// # Errors
    /// `FORBIDDEN`, `ROOT_REQUIRED`; `LIMIT_REACHED` where the owner has too many.
    pub fn may_set_agent(&mut self, id: &AgentId, share: bool) -> Result<(Option<Agent>, Permit), Stop> {
        self.view.concern(id.as_str());
        let agent = self.rows().agent(id)?;
        let permit = self.view.decide(&Ask::SetAgent { id, agent: agent.as_ref(), share })?;
        if let (None, Some(owner)) = (&agent, self.caller().owner())
            && self.rows().agents_of(&owner)? >= self.limits().agents_max
        {
            return Err(Error::new(Reason::LimitReached, "this owner has too many agents").into());
        }
        Ok((agent, permit))
    }

    /// Registers or changes an agent.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn set_agent(
        &mut self,
        permit: &Permit,
        before: Option<Agent>,
        after: Agent,
    ) -> Result<AgentSeen, Stop> {
        assert!(permit.covers_agent(&after.id), "an agent without a permit");
        match before {
            None => self.change(Change::AddAgent(after.clone())),
            Some(before) if before == after => {}
            Some(before) => self.change(Change::SetAgent(before, after.clone())),
        }
        self.view.with_load(after)
    }

    /// An agent that the caller may remove.
    ///
    /// # Errors
    /// `FORBIDDEN`, `NOT_FOUND`; `ROOT_REQUIRED` for a built-in one.
    pub fn may_remove_agent(&mut self, id: &AgentId) -> Result<(Agent, Permit), Stop> {
        self.view.concern(id.as_str());
        let agent = self.rows().agent(id)?;
        let permit = self.view.decide(&Ask::RemoveAgent { id, agent: agent.as_ref() })?;
        let agent = agent.ok_or_else(|| broken("a permit for an agent that does not exist"))?;
        Ok((agent, permit))
    }

    /// How many jobs of an agent are in flight.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn load_of(&mut self, permit: &Permit, id: &AgentId) -> Result<Load, Stop> {
        assert!(permit.covers_agent(id), "a load without a permit");
        self.rows().load(id)
    }

    /// An agent goes.
    pub fn remove_agent(&mut self, permit: &Permit, agent: Agent) {
        assert!(permit.covers_agent(&agent.id), "an agent without a permit");
        self.change(Change::DropAgent(agent));
    }

    /// The oldest queued jobs of an agent that the permit lets one run.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn queue(&mut self, permit: &Permit, agent: &AgentId, limit: usize) -> Result<Vec<Job>, Stop> {
        let queue = self.rows().queue(agent, limit)?;
        assert!(queue.iter().all(|job| permit.covers_job(job)), "a queue without a permit");
        Ok(queue)
    }

    /// What was submitted with a job that the permit covers.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn payload(&mut self, permit: &Permit, job: &Job) -> Result<Vec<u8>, Stop> {
        assert!(permit.covers_job(job), "a payload without a permit");
        self.rows().payload(&job.id)
    }

    /// A job that the caller's worker holds or has held with this fencing token. Whether the lease lives
    /// is for the verb to ask.
    ///
    /// # Errors
    /// `LEASE_LOST`.
    pub fn held(&mut self, held: &Held) -> Result<(Job, Permit), Stop> {
        let job = self.rows().job(&held.job)?;
        self.view.concern_job(&held.job, job.as_ref().map(|job| &job.session));
        let ask = Ask::Lease { id: &held.job, job: job.as_ref(), fencing: held.fencing };
        let permit = self.view.decide(&ask)?;
        let job = job.ok_or_else(|| broken("a permit for a job that does not exist"))?;
        Ok((job, permit))
    }

    /// Records one refused part of a verb that answers on the whole.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn lost(&mut self, held: &Held) -> Result<(), Stop> {
        let facts = self.rows().job(&held.job)?.map(|job| job.facts("")).unwrap_or_default();
        let row = self.view.entry(Outcome::Refused(Reason::LeaseLost)).on(held.job.as_str());
        self.view.record(row.detailed(facts));
        Ok(())
    }
}

/// One terminal transition (I5); the binding and whose it is never change (I3); fencing only grows.
fn assert_step(permit: &Permit, before: &Job, after: &Job) {
    assert!(permit.covers_job(before), "a job without a permit");
    assert!(!matches!(before.phase, Phase::Ended(_)), "a job that has ended changes no more (I5)");
    assert!(
        before.id == after.id && before.session == after.session && before.binding == after.binding,
        "a job's binding never changes (I3)"
    );
    assert!(after.fencing >= before.fencing, "a fencing token never goes back (I5)");
}
