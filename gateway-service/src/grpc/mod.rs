//! The services on the wire: decode, one verb, encode.
//!
//! | file | what |
//! |---|---|
//! | `session`, `job`, `file`, `agent`, `worker` | one a noun |
//! | `stream_events` | StreamEvents, with what an event is on the wire shared by all who follow its session |
//! | `client` | the part of SessionService that is about clients |
//! | `wire` | domain to wire and back |
//! | `busy` | the evidence of `SESSION_BUSY` |
//!
//! [`Front`] is what they all stand on. Streams and parked calls are in files of their own beside this folder.

use std::{future::Future, sync::Arc};

use interlock_client::verifier::{Verifier, VerifyError};
use interlock_kit::{
    audit_heads::AuditHeads,
    authn::{self, Call},
    clock::Clock,
    error::{Error, Reason},
    hasher::Hasher,
    serve::Services,
};
use interlock_proto::gateway::v1::{
    agent_service_server::AgentServiceServer, file_service_server::FileServiceServer,
    job_service_server::JobServiceServer, worker_service_server::WorkerServiceServer,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

use crate::{
    admit::{Admitted, Gate, auth_unavailable},
    adopt::OwnerFacts,
    caller::{Caller, Cookie, Principal, Unscoped},
    client::Seen,
    event::{End, LastEvents},
    following::Endings,
    guesses::GuessLimit,
    hub::Hub,
    ids::{OwnerId, ProjectId, SessionId},
    presence::Presence,
    store::{Query, Resolver, Shell, Told, Verb},
    streams::Streams,
    vault::Vault,
};

mod agent;
mod busy;
mod client;
mod file;
mod job;
mod session;
mod stream_events;
pub(crate) mod wire;
mod worker;

use stream_events::Sessions;
pub(crate) use stream_events::StreamMessage;

/// What every service of the gateway stands on.
pub(crate) struct Front {
    pub(crate) shell: Shell,
    pub(crate) hub: Hub,
    pub(crate) verifier: Verifier,
    /// What the verifier tells of.
    pub(crate) endings: Arc<Endings>,
    /// What auth remembers of this audit log, and this service of auth's.
    pub(crate) heads: Arc<AuditHeads>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) streams: Arc<Streams>,
    /// Where the contents of files are.
    pub(crate) vault: Vault,
    /// Hashes the passwords of sessions.
    pub(crate) hasher: Hasher,
    pub(crate) guesses: GuessLimit,
    pub(crate) presence: Presence,
    pub(crate) clock: Clock,
    /// What answers to calls without a project say.
    pub(crate) unscoped: Unscoped,
    /// Cancelled when the gateway begins to shut down.
    pub(crate) draining: CancellationToken,
    /// Cancelled when streams have had their time to end by themselves.
    pub(crate) ending: CancellationToken,
    /// The tasks behind streams.
    pub(crate) tasks: TaskTracker,
}

/// All services of the gateway.
pub(crate) fn services(front: &Arc<Front>, message_bytes: usize) -> Services {
    let front = || Arc::clone(front);
    Services::new()
        .with(Sessions::new(session::Rpc(front()), message_bytes))
        .with(JobServiceServer::new(job::Rpc(front())).max_decoding_message_size(message_bytes))
        .with(FileServiceServer::new(file::Rpc(front())).max_decoding_message_size(message_bytes))
        .with(AgentServiceServer::new(agent::Rpc(front())).max_decoding_message_size(message_bytes))
        .with(WorkerServiceServer::new(worker::Rpc(front())).max_decoding_message_size(message_bytes))
}

/// The parts of a request that came through gate 1.
pub(crate) fn parts<T>(mut request: Request<T>) -> (Arc<Call>, Admitted, T) {
    let (call, admitted) = authn::caller::<Admitted, T>(&mut request);
    (call, admitted, request.into_inner())
}

impl<T> Told<T> {
    /// The same, told of something else.
    pub(crate) fn map<U>(self, convert: impl FnOnce(T) -> U) -> Told<U> {
        Told { out: convert(self.out), unscoped: self.unscoped }
    }
}

impl Resolver for Front {
    fn known(&self, owner: &str, project: &ProjectId) -> Option<bool> {
        self.verifier.is_known_member(owner, project.as_str()).then_some(true)
    }

    async fn may_enter(&self, owner: &OwnerId, project: &ProjectId) -> Result<bool, Error> {
        self.verifier.may_enter(owner.as_str(), project.as_str()).await.map_err(|_| auth_unavailable())
    }

    async fn owner(&self, owner: &OwnerId) -> Result<OwnerFacts, Error> {
        match self.verifier.describe_owner(owner.as_str()).await {
            Ok(facts) => Ok(OwnerFacts { known: facts.known, active: facts.active }),
            // An id that auth takes for none.
            Err(VerifyError::Unauthenticated(_)) => Ok(OwnerFacts { known: false, active: false }),
            Err(VerifyError::AuthUnavailable) => Err(auth_unavailable()),
        }
    }
}

/// Events of a session that has gone that are read for those who followed it.
const LAST_EVENTS_MAX: usize = 64;

impl Front {
    /// What is left of the log of a session, where that is gone: another gateway may have ended it.
    pub(crate) async fn end_of(&self, session: &SessionId, after: u64) -> Option<End> {
        let query = LastEvents { session: session.clone(), after, limit: LAST_EVENTS_MAX };
        self.shell.ask(&Arc::new(Caller::gateway()), query, self).await.ok()?.out
    }

    /// Runs a verb for a caller.
    pub(crate) async fn run<V: Verb>(
        &self,
        call: &Call,
        caller: &Arc<Caller>,
        verb: V,
    ) -> Result<Told<V::Out>, Error> {
        self.expect_cookie(call, caller).await?;
        let ran = self.shell.run(caller, verb, self).await;
        self.note_cookie(call, caller, ran.as_ref().err()).await;
        ran
    }

    /// Asks a query for a caller.
    pub(crate) async fn ask<Q: Query>(
        &self,
        call: &Call,
        caller: &Arc<Caller>,
        query: Q,
    ) -> Result<Told<Q::Out>, Error> {
        self.expect_cookie(call, caller).await?;
        let asked = self.shell.ask(caller, query, self).await;
        self.note_cookie(call, caller, asked.as_ref().err()).await;
        asked
    }

    /// The answer to a call, or its refusal.
    pub(crate) async fn answer<T>(
        &self,
        call: &Call,
        work: impl Future<Output = Result<Told<T>, Error>>,
    ) -> Result<Response<T>, Status> {
        let told = work.await.map_err(|error| refuse(&error, &call.request_id))?;
        let mut response = Response::new(told.out);
        if told.unscoped {
            self.deprecate(&mut response);
        }
        Ok(response)
    }

    /// Says that calls without a project end, and when. RFC 9745, RFC 8594.
    pub(crate) fn deprecate<T>(&self, response: &mut Response<T>) {
        self.unscoped.mark(response.metadata_mut());
    }

    /// Who comes with a cookie alone has proved nothing yet: one that was never good costs its source before it
    /// costs the store.
    async fn expect_cookie(&self, call: &Call, caller: &Caller) -> Result<(), Error> {
        let Some(cookie) = alone(caller) else { return Ok(()) };
        if let Err(error) = self.gate.spend(call, &cookie.hash) {
            Box::pin(self.gate.record_unknown_cookie(call, &error)).await;
            return Err(error);
        }
        Ok(())
    }

    /// Notes that a client was seen, where that was not noted lately. What is not noted now is noted later.
    async fn note_presence(&self, caller: &Arc<Caller>) {
        let Some(cookie) = &caller.cookie else { return };
        if self.presence.is_due(&cookie.hash, Clock::instant())
            && let Err(error) = Box::pin(self.shell.run(caller, Seen, self)).await
        {
            tracing::debug!(reason = %error.reason(), "a client that was seen could not be noted");
        }
    }

    /// Refusals of known callers have their audit row by now; a cookie that nobody knows is counted.
    async fn note_cookie(&self, call: &Call, caller: &Arc<Caller>, error: Option<&Error>) {
        if error.is_none() {
            self.note_presence(caller).await;
        }
        let Some(cookie) = alone(caller) else { return };
        match error {
            Some(error) if error.reason() == Reason::ProviderAuthFailed => {
                self.gate.forget(&cookie.hash);
                Box::pin(self.gate.record_unknown_cookie(call, error)).await;
            }
            // Another refusal need not have looked at it.
            Some(_) => {}
            None => self.gate.remember(cookie.hash),
        }
    }
}

/// The cookie of a caller who shows nothing else.
fn alone(caller: &Caller) -> Option<&Cookie> {
    caller.cookie.as_ref().filter(|_| caller.principal == Principal::Client)
}

/// A refusal as it leaves; faults of ours are logged with what lies behind them.
pub(crate) fn refuse(error: &Error, request_id: &str) -> Status {
    if matches!(error.reason(), Reason::Internal | Reason::StorageError | Reason::StoreUnavailable) {
        let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::error!(request_id, reason = %error.reason(), source, "a call failed");
    }
    error.to_status(request_id)
}

/// The refusal of whatever would go on while the gateway shuts down.
pub(crate) fn draining() -> Error {
    Error::new(Reason::Draining, "this gateway shuts down; go to another one, or try again")
        .retry_after(std::time::Duration::from_secs(1))
}
