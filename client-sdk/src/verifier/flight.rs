//! Questions to auth: one in flight for each credential, and a bound on how many.

use std::{collections::HashMap, sync::Arc, time::Duration};

use interlock_proto::{auth::v1 as wire, credential::Hash};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{ASKS_MAX, Core, VerifyError, log::Standing, verdict::Verdict};
use crate::{
    call::Identity,
    error::{Code, Error, Reason},
    path,
};

/// How long auth may take to answer: less than a lease.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// More unknown credentials than this at once are refused as if auth could not be asked.
const FLIGHTS_MAX: usize = 1_024;
/// Between two questions for a verdict that came too late.
const ASK_AGAIN: Duration = Duration::from_millis(10);

type Landed = Option<Result<Arc<Verdict>, VerifyError>>;

#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Hash, watch::Receiver<Landed>>>);

impl Flights {
    /// Asks auth, or waits for the answer that somebody else is waiting for. The question goes on
    /// when its asker goes away: others may be waiting.
    pub(super) async fn ask(&self, core: &Arc<Core>, hash: Hash) -> Result<Arc<Verdict>, VerifyError> {
        let mut landed = {
            let mut flights = self.0.lock();
            if let Some(landed) = flights.get(&hash) {
                landed.clone()
            } else if flights.len() >= FLIGHTS_MAX {
                return Err(VerifyError::AuthUnavailable);
            } else {
                let (land, landed) = watch::channel(None);
                flights.insert(hash, landed.clone());
                let flight = Flight { core: Arc::clone(core), hash };
                tokio::spawn(async move {
                    let answer = flight.core.ask(hash).await;
                    drop(flight);
                    let _ = land.send(Some(answer));
                });
                landed
            }
        };
        let answer = landed.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        answer.unwrap_or(Err(VerifyError::AuthUnavailable))
    }
}

/// Gives up its place when it ends, however it ends.
struct Flight {
    core: Arc<Core>,
    hash: Hash,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.core.flights.0.lock().remove(&self.hash);
    }
}

impl Core {
    /// Asks auth until the answer is no older than what has been applied here meanwhile: a slow
    /// answer must not bring back what was revoked.
    pub(super) async fn ask(&self, hash: Hash) -> Result<Arc<Verdict>, VerifyError> {
        for _ in 0..ASKS_MAX {
            let request = wire::ValidateRequest { credential_sha256: hash.to_vec().into() };
            let nobody = Identity::default();
            let asked = self.clock.wall();
            let answer = self.trust.unary(path::VALIDATE, &nobody, request, ANSWER_WITHIN).await;
            let answer: wire::ValidateResponse = answer.map_err(|error| refusal(&error))?.message;
            let Some(verdict) = Verdict::from_wire(hash, answer, asked) else {
                tracing::warn!("auth answered with nobody");
                return Err(VerifyError::AuthUnavailable);
            };
            if self.standing(&verdict) == Standing::Good {
                let verdict = Arc::new(verdict);
                self.verdicts.insert(hash, Arc::clone(&verdict));
                return Ok(verdict);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Err(VerifyError::AuthUnavailable)
    }
}

/// What auth's refusal says of the credential. A refusal of this verifier itself (its certificate or
/// internal token) says nothing of any credential, and signs nobody out.
fn refusal(error: &Error) -> VerifyError {
    match (error.code(), error.reason()) {
        (Code::Unauthenticated, Some(reason)) if reason != Reason::InternalTokenRequired => {
            VerifyError::Unauthenticated(reason)
        }
        (Code::Unavailable | Code::DeadlineExceeded, _) => VerifyError::AuthUnavailable,
        _ => {
            tracing::warn!(%error, "auth refuses this verifier");
            VerifyError::AuthUnavailable
        }
    }
}
