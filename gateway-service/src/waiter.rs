//! Attaches that wait: a line for each agent, first come, first served.
//!
//! A waiter is a row with a deadline and a lease of its own, which the gateway that parks its call keeps alive: so the
//! line is one for all gateways on a store, and a waiter whose caller or gateway is gone holds nobody up for longer
//! than that lease. The parked call runs [`AttachWaiting`] whenever something has changed; the transaction that finds
//! it free and first in line attaches, and decides on everything again.

use std::{sync::Arc, time::Duration};

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
};

use crate::{
    binding::{Attach, Attached, BusyKind, cancel_own},
    ids::{AgentId, OwnerId, ProjectId, SessionId, WaiterId},
    session::Session,
    standing::Standing,
    store::{Stop, Tx, Verb},
};

/// An attach that waits for its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Which: earlier ones sort first.
    pub id: WaiterId,
    /// Of this session.
    pub session: SessionId,
    /// Whose it is: that owner's submits to both agents are refused meanwhile.
    pub owner: OwnerId,
    /// The agent that it wants.
    pub agent: AgentId,
    /// The agent that it leaves.
    pub present: Option<AgentId>,
    /// The project that it wants.
    pub project: ProjectId,
    /// From then on it waits no longer.
    pub deadline: Timestamp,
    /// From then on its caller is taken for gone.
    pub alive_until: Timestamp,
}

impl Waiter {
    /// Whether it still waits.
    #[must_use]
    pub fn is_waiting(&self, now: Timestamp) -> bool {
        !self.deadline.is_over(now) && !self.alive_until.is_over(now)
    }

    /// Whether it concerns this agent: as the one it wants, or the one it leaves.
    #[must_use]
    pub fn concerns(&self, agent: &AgentId) -> bool {
        self.agent == *agent || self.present.as_ref() == Some(agent)
    }
}

/// Attaches if it is free and first in line; else waits in line.
#[derive(Clone, Debug)]
pub struct AttachWaiting {
    /// What is wanted.
    pub attach: Attach,
    /// This waiter's id: [`WaiterId::new`].
    pub waiter: WaiterId,
    /// How long it waits, from its first run on.
    pub wait: Duration,
    /// What the first run said.
    pub deadline: Option<Timestamp>,
    /// Ask to cancel the caller's own jobs that keep it busy.
    pub cancel: bool,
    /// What the parked call stands on.
    pub ground: Arc<Ground>,
}

/// What a parked attach stands on: looked at in the transaction that attaches.
#[derive(Debug)]
pub struct Ground {
    standing: Standing,
    given_up: std::sync::atomic::AtomicBool,
}

/// What one run has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It is attached, and waits no longer.
    Attached(Attached),
    /// It waits.
    Waiting {
        /// Until then.
        deadline: Timestamp,
        /// The agent that the session leaves.
        present: Option<AgentId>,
    },
    /// Its time is up, and it waits no longer.
    TimeUp,
}

/// The last word of an attach whose time is up: it attaches where nothing hinders it and nobody who came earlier still
/// waits, and is refused with what it waited for.
#[derive(Clone, Debug)]
pub struct LastAttach {
    /// What is wanted.
    pub attach: Attach,
    /// Its place in line, given up by now.
    pub waiter: WaiterId,
}

/// A waiter waits no longer: its call was given up. Run by the gateway itself.
#[derive(Clone, Debug)]
pub struct GiveUp {
    /// The agent that it wanted.
    pub agent: AgentId,
    /// Which.
    pub waiter: WaiterId,
}

impl Ground {
    /// On this.
    #[must_use]
    pub fn new(standing: Standing) -> Self {
        Self { standing, given_up: false.into() }
    }

    /// The credential.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The caller has gone: what still runs for it changes nothing.
    pub fn give_up(&self) {
        self.given_up.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// DESIGN 14.8: a waiting attach is admitted again inside the transaction that attaches.
    pub(crate) fn holds(&self) -> Result<(), Error> {
        if self.given_up.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(Error::new(Reason::DeadlineExceeded, "the call was given up"));
        }
        if !self.standing.delivers() {
            return Err(Error::new(Reason::AuthUnavailable, "the credential cannot be judged now"));
        }
        Ok(())
    }
}

impl Verb for AttachWaiting {
    type Out = Attempt;
    const ACTION: &'static str = Attach::ACTION;

    // SW-34
    fn run(&self, tx: &mut Tx<'_>) -> Result<Attempt, Stop> {
        self.ground.holds()?;
        let (found, entrance) = self.attach.enter(tx)?;
        let line = tx.line(&found, &self.attach.agent)?;
        let own = line.iter().find(|waiter| waiter.id == self.waiter);
        if self.attach.is_present(&found.session) {
            self.leave_line(tx, own);
            let seen = tx.seen(found.session, 0)?;
            return Ok(Attempt::Attached(Attached { seen, changed: false }));
        }
        let now = tx.now();
        let deadline = self.deadline.unwrap_or_else(|| now.after(self.wait));
        if deadline.is_over(now) {
            self.leave_line(tx, own);
            return Ok(Attempt::TimeUp);
        }
        let hindrance = self.attach.hindrance(tx, &found)?;
        let first = !line
            .iter()
            .any(|other| other.agent == self.attach.agent && other.id < self.waiter && other.is_waiting(now));
        match hindrance {
            None if first => {
                self.leave_line(tx, own);
                return Ok(Attempt::Attached(self.attach.bind(tx, &found, &entrance)?));
            }
            Some((agent, BusyKind::Rebind | BusyKind::Project)) if self.cancel => {
                cancel_own(tx, &found, &agent)?;
            }
            Some(_) | None => {}
        }
        self.wait_on(tx, &found.session, own, deadline)?;
        let present = found.session.binding.as_ref().map(|binding| binding.agent.clone());
        Ok(Attempt::Waiting { deadline, present })
    }
}

impl Verb for LastAttach {
    type Out = Attached;
    const ACTION: &'static str = Attach::ACTION;

    // SW-34
    fn run(&self, tx: &mut Tx<'_>) -> Result<Attached, Stop> {
        let (found, _) = self.attach.enter(tx)?;
        let line = tx.line(&found, &self.attach.agent)?;
        let now = tx.now();
        let mut earlier =
            line.iter().filter(|other| other.agent == self.attach.agent && other.id < self.waiter);
        let passes = earlier.any(|other| other.is_waiting(now)) && !self.attach.is_present(&found.session);
        if passes && self.attach.hindrance(tx, &found)?.is_none() {
            let message = "attaches that came earlier wait for the agent";
            let refusal = Error::new(Reason::AttachPending, message);
            return Err(refusal.retry_after(Duration::from_secs(1)).into());
        }
        self.attach.run(tx)
    }
}

impl AttachWaiting {
    fn leave_line(&self, tx: &mut Tx<'_>, own: Option<&Waiter>) {
        if let Some(own) = own {
            tx.drop_waiter(own);
        }
    }

    /// Takes a place in line, or keeps it.
    fn wait_on(
        &self,
        tx: &mut Tx<'_>,
        session: &Session,
        own: Option<&Waiter>,
        deadline: Timestamp,
    ) -> Result<(), Stop> {
        let (now, lease) = (tx.now(), tx.limits().waiter_lease);
        let waiter = Waiter {
            id: self.waiter.clone(),
            session: session.id.clone(),
            owner: session.owner.clone(),
            agent: self.attach.agent.clone(),
            present: session.binding.as_ref().map(|binding| binding.agent.clone()),
            project: self.attach.project.clone(),
            deadline,
            alive_until: now.after(lease),
        };
        match own {
            None => {
                tx.need_room_for_waiter(&waiter)?;
                tx.add_waiter(waiter);
            }
            Some(own) if own.present != waiter.present || own.alive_until.since(now) < lease / 2 => {
                tx.set_waiter(own, waiter);
            }
            Some(_) => {}
        }
        Ok(())
    }
}

impl Verb for GiveUp {
    type Out = bool;
    const ACTION: &'static str = "sweep";

    fn run(&self, tx: &mut Tx<'_>) -> Result<bool, Stop> {
        let permit = tx.upkeep()?;
        let line = tx.any_line(&permit, &self.agent)?;
        let Some(waiter) = line.iter().find(|waiter| waiter.id == self.waiter) else { return Ok(false) };
        tx.drop_waiter(waiter);
        Ok(true)
    }
}

/// Refuses a submit to an agent that an attach of the same owner waits for.
///
/// # Errors
/// `ATTACH_PENDING`.
pub(crate) fn refuse_while_pending(
    tx: &mut Tx<'_>,
    found: &crate::store::Found,
    agent: &AgentId,
) -> Result<(), Stop> {
    let (now, owner) = (tx.now(), &found.session.owner);
    let line = tx.line(found, agent)?;
    if line.iter().any(|waiter| waiter.owner == *owner && waiter.is_waiting(now)) {
        let message = "an attach of this owner waits for the agent; try again when it is through";
        let refusal = Error::new(Reason::AttachPending, message);
        return Err(refusal.retry_after(Duration::from_secs(1)).into());
    }
    Ok(())
}
