//! Attaches that wait: the reads that their verbs rest on, and the writes that they plan. Waiting changes nothing that an
//! audit row must tell of: what comes of it has its own.

use interlock_kit::error::{Error, Reason};

use super::Tx;
use crate::{
    ids::AgentId,
    job::Job,
    policy::{Act, Ask, Permit},
    store::{Found, Key, Stop, rows::Change},
    waiter::Waiter,
};

impl Tx<'_> {
    /// The attaches that wait and concern an agent, for a session that may use or want it.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn line(&mut self, found: &Found, agent: &AgentId) -> Result<Vec<Waiter>, Stop> {
        assert!(found.permit.covers_session(&found.session.id), "a line without a permit");
        self.rows().waiters(agent)
    }

    /// The same, for a sweep.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn any_line(&mut self, permit: &Permit, agent: &AgentId) -> Result<Vec<Waiter>, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        self.rows().waiters(agent)
    }

    /// Refuses where an owner, or an agent's line, has as many as it may.
    ///
    /// # Errors
    /// `LIMIT_REACHED`.
    pub fn need_room_for_waiter(&mut self, waiter: &Waiter) -> Result<(), Stop> {
        let full = self.rows().waiters_of(&waiter.owner)? >= self.limits().waiters_max
            || self.rows().waiters(&waiter.agent)?.len() >= self.limits().line_max;
        if full {
            let refusal = Error::new(Reason::LimitReached, "too many attaches wait");
            return Err(refusal.retry_after(std::time::Duration::from_secs(1)).into());
        }
        Ok(())
    }

    /// An attach waits from here on.
    pub fn add_waiter(&mut self, waiter: Waiter) {
        self.changes.push(Change::AddWaiter(waiter));
    }

    /// It goes on waiting.
    pub fn set_waiter(&mut self, before: &Waiter, after: Waiter) {
        self.changes.push(Change::SetWaiter(before.clone(), after));
    }

    /// It waits no longer.
    pub fn drop_waiter(&mut self, waiter: &Waiter) {
        self.changes.push(Change::DropWaiter(waiter.clone()));
    }

    /// An agent's jobs in flight of the acting owner's sessions that this caller may cancel, a bounded part of them.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn own_jobs(&mut self, found: &Found, agent: &AgentId) -> Result<Vec<(Job, Permit)>, Stop> {
        let jobs = self.rows().in_flight_of(agent, &found.acting, self.limits().evidence_max)?;
        let each = |job: &Job| [Key::Session(job.session.clone()), Key::Job(job.id.clone())];
        self.rows().expect(&mut jobs.iter().flat_map(each))?;
        let mut own = Vec::with_capacity(jobs.len());
        for job in jobs {
            let Some(session) = self.rows().session(&job.session)? else { continue };
            let client = found.client.as_ref();
            let (act, id) = (Act::Cancel, &session.id);
            let reached =
                self.view.decide(&Ask::Session { act, id, session: Some(&session), client }).is_ok();
            let ask = Ask::CancelJob { session: &session, client, job: &job };
            if let (true, Ok(permit)) = (reached, self.view.decide(&ask))
                && let Some(job) = self.rows().job(&job.id)?
                && job.is_in_flight()
            {
                own.push((job, permit));
            }
        }
        Ok(own)
    }
}
