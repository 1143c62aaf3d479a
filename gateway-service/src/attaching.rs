//! AttachSession with an `on_busy` that waits: parked until it is free and first in line, its time is up, or the ground
//! that the call stands on is gone.

use std::{sync::Arc, time::Duration};

use interlock_kit::{
    authn::Call,
    error::{Error, Reason},
};
use tokio::time::Instant;

use crate::{
    admit::{Admitted, auth_unavailable},
    binding::{Attach, Attached},
    caller::Caller,
    grpc::{Front, draining},
    hub::Topic,
    ids::{AgentId, WaiterId},
    outlet::ground_gone,
    store::Told,
    stream::{payer, session_ended},
    waiter::{AttachWaiting, Attempt, GiveUp, Ground, LastAttach},
};

/// How often a waiter looks by itself: far oftener than its lease ends.
const LOOK: Duration = Duration::from_secs(2);
/// The pause after an answer that says to try again.
const PAUSE: Duration = Duration::from_millis(250);
/// How long after its time a call may find that nothing can be decided.
const PAUSED_MAX: Duration = Duration::from_secs(1);

/// How a call waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// How long.
    pub(crate) wait: Duration,
    /// Whether the caller's own jobs are to be cancelled first.
    pub(crate) cancel: bool,
}

/// A place in line, given up on drop: however the call ends.
struct Place {
    front: Arc<Front>,
    agent: AgentId,
    waiter: WaiterId,
    ground: Arc<Ground>,
    /// Whether there may be a row of it.
    taken: bool,
}

/// Attaches, and waits for it.
///
/// # Errors
/// What an attach is refused with, `SESSION_BUSY` when the time is up; `LIMIT_REACHED`; `REVOKED`, `TOKEN_EXPIRED`,
/// `SESSION_ENDED`, `DRAINING` or `AUTH_UNAVAILABLE` where it cannot wait any longer.
pub(crate) async fn attach(
    front: &Arc<Front>,
    call: &Call,
    admitted: &Admitted,
    attach: Attach,
    how: Waits,
) -> Result<Told<Attached>, Error> {
    let caller = admitted.for_session(&attach.session);
    let _parked = front.streams.place(&payer(&caller, &attach.session))?;
    // Made here: whoever came earlier goes before it, to its last word.
    let waiter = WaiterId::new();
    match in_line(front, call, admitted, (&caller, &waiter), &attach, how).await? {
        Some(attached) => Ok(attached),
        // The last word, with its evidence and its row.
        None => front.run(call, &caller, LastAttach { attach, waiter }).await,
    }
}

/// Waits in line; nothing, when the time is up.
async fn in_line(
    front: &Arc<Front>,
    call: &Call,
    admitted: &Admitted,
    (caller, waiter): (&Arc<Caller>, &WaiterId),
    attach: &Attach,
    how: Waits,
) -> Result<Option<Told<Attached>>, Error> {
    let until = Instant::now() + how.wait;
    let standing = admitted.standing(&front.verifier);
    standing.enter(Some(attach.project.as_str()));
    let ground = Arc::new(Ground::new(standing));
    let mut bell =
        front.hub.bell([Topic::Session(attach.session.clone()), Topic::Line(attach.agent.clone())]);
    let mut place = Place::new(front, attach, waiter, &ground);
    let (mut deadline, mut left) = (None, None);
    loop {
        hold(front, &ground, until).await?;
        front.gate.recheck(call, caller)?;
        let verb = AttachWaiting {
            attach: attach.clone(),
            waiter: place.waiter.clone(),
            wait: how.wait,
            deadline,
            cancel: how.cancel,
            ground: Arc::clone(&ground),
        };
        place.taken = true;
        match front.run(call, caller, verb).await {
            Ok(Told { out: Attempt::Attached(attached), unscoped }) => {
                place.taken = false;
                return Ok(Some(Told { out: attached, unscoped }));
            }
            Ok(Told { out: Attempt::TimeUp, .. }) => {
                place.taken = false;
                return Ok(None);
            }
            Ok(Told { out: Attempt::Waiting { deadline: at, present }, .. }) => {
                deadline = Some(at);
                if present != left {
                    // What was read before this registration is read again.
                    bell.add(Topic::Line(present.clone().unwrap_or_else(|| attach.agent.clone())));
                    left = present;
                    continue;
                }
            }
            Err(_) if bell.gone().is_some() => return Err(session_ended()),
            Err(error) if passes(error.reason()) && Instant::now() < until => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        tokio::select! {
            biased;
            reason = ground.standing().ended() => return Err(ground_gone(reason)),
            () = front.draining.cancelled() => return Err(draining()),
            () = bell.rung() => {}
            () = tokio::time::sleep_until(until.min(Instant::now() + LOOK)) => {}
        }
        if bell.gone().is_some() {
            return Err(session_ended());
        }
    }
}

/// Waits while nothing can be decided: a lease from auth that has lapsed decides nothing.
async fn hold(front: &Front, ground: &Ground, until: Instant) -> Result<(), Error> {
    tokio::select! {
        biased;
        open = ground.standing().open() => open.map_err(ground_gone),
        () = front.draining.cancelled() => Err(draining()),
        () = tokio::time::sleep_until(until + PAUSED_MAX) => Err(auth_unavailable()),
    }
}

fn passes(reason: Reason) -> bool {
    matches!(reason, Reason::AuthUnavailable | Reason::StoreUnavailable)
}

impl Place {
    fn new(front: &Arc<Front>, attach: &Attach, waiter: &WaiterId, ground: &Arc<Ground>) -> Self {
        Self {
            front: Arc::clone(front),
            agent: attach.agent.clone(),
            waiter: waiter.clone(),
            ground: Arc::clone(ground),
            taken: false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.taken {
            return;
        }
        // What still runs for this call attaches no more; then its row goes. Where that fails, its lease ends.
        self.ground.give_up();
        let (front, agent, waiter) = (Arc::clone(&self.front), self.agent.clone(), self.waiter.clone());
        self.front.tasks.spawn(async move {
            let caller = Arc::new(Caller::gateway());
            if let Err(error) = front.shell.run(&caller, GiveUp { agent, waiter }, &*front).await {
                tracing::debug!(reason = %error.reason(), "a waiter that was given up stays for its lease");
            }
        });
    }
}
