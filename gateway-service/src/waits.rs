//! WaitJob: parked until a job has ended, its time is up, or the ground that the call stands on is gone.

use std::{sync::Arc, time::Duration};

use interlock_kit::{authn::Call, error::Error};
use tokio::time::Instant;

use crate::{
    admit::{Admitted, auth_unavailable},
    grpc::{Front, draining},
    hub::Topic,
    ids::JobId,
    job::{GetJob, JobState, JobWhole, Phase},
    outlet::ground_gone,
    store::Told,
    stream::{GONE_WITHIN, is_unknown, payer, session_ended},
};

/// A wake-up that was lost is made good after this.
const SLOW_POLL: Duration = Duration::from_secs(15);
/// How long after its time a call may find that nothing may be delivered.
const PAUSED_MAX: Duration = Duration::from_secs(1);

/// The job when it has ended, or as it is after `wait`.
///
/// # Errors
/// What reading the job is refused with; `LIMIT_REACHED`; `SESSION_ENDED`, `REVOKED`, `TOKEN_EXPIRED`, `DRAINING`
/// or `AUTH_UNAVAILABLE` where the call cannot be answered any more.
pub(crate) async fn until_ended(
    front: &Arc<Front>,
    call: &Call,
    admitted: &Admitted,
    job: JobId,
    wait: Duration,
) -> Result<Told<JobWhole>, Error> {
    let deadline = Instant::now() + wait;
    let mut bell = front.hub.bell([Topic::Job(job.clone())]);
    let standing = admitted.standing(&front.verifier);
    let (mut place, mut session) = (None, None);
    loop {
        let asked = front.ask(call, &admitted.caller, JobState { job: job.clone() }).await;
        let told = match asked {
            // It was there when this began: its session has gone meanwhile.
            Err(error) if is_unknown(&error) => {
                let gone = match &session {
                    Some(session) => {
                        // The hub need not hear of what another gateway has ended.
                        bell.goes_within(GONE_WITHIN).await || front.end_of(session, 0).await.is_some()
                    }
                    None => false,
                };
                return Err(if gone { session_ended() } else { error });
            }
            asked => asked?,
        };
        if matches!(told.out.phase, Phase::Ended(_)) || Instant::now() >= deadline {
            break;
        }
        if place.is_none() {
            place = Some(front.streams.place(&payer(&admitted.caller, &told.out.session))?);
            bell.add(Topic::Session(told.out.session.clone()));
            session = Some(told.out.session.clone());
            standing.enter(Some(told.out.binding.project.as_str()));
            // What was read before the registrations is read again: an end in between was heard by nobody.
            continue;
        }
        tokio::select! {
            biased;
            reason = standing.ended() => return Err(ground_gone(reason)),
            () = front.draining.cancelled() => return Err(draining()),
            () = bell.rung() => {}
            () = tokio::time::sleep_until(deadline.min(Instant::now() + SLOW_POLL)) => {}
        }
        if bell.gone().is_some() {
            return Err(session_ended());
        }
        front.gate.recheck(call, &admitted.caller)?;
    }
    match tokio::time::timeout_at(deadline + PAUSED_MAX, standing.open()).await {
        Ok(open) => open.map_err(ground_gone)?,
        Err(_) => return Err(auth_unavailable()),
    }
    front.ask(call, &admitted.caller, GetJob { job }).await
}
