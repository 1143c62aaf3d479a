//! Calls that are made once: what they are told is looked at, not healed.

use interlock_client::OwnerSession;
use interlock_proto::{
    auth::v1::{CreateProjectRequest, LoginRequest, RotateRequest},
    credential::Credential,
    gateway::v1::{AttachSessionRequest, SubmitJobRequest, SubmitJobResponse},
};
use interlock_tests::{
    Pair,
    wire::{self, Answer, Metadata, Outcome},
};
use tonic::transport::Channel;

/// A connection to one service, as somebody.
pub(crate) struct Bare {
    channel: Channel,
    metadata: Metadata,
}

impl Bare {
    pub(crate) fn gateway(pair: &Pair, who: &OwnerSession) -> Self {
        Self { channel: pair.gateway_public(), metadata: Metadata::bearer(&who.access_token) }
    }

    pub(crate) fn auth(pair: &Pair, who: &Credential) -> Self {
        Self { channel: pair.auth_public(), metadata: Metadata::bearer(who) }
    }

    /// The id of the job, or what it is refused with.
    pub(crate) async fn submit(
        &self,
        session: &str,
        request: &str,
        payload: &[u8],
    ) -> Result<String, Outcome> {
        let message = SubmitJobRequest {
            session_id: session.to_owned(),
            request_id: request.to_owned(),
            payload: payload.to_vec().into(),
        };
        let answer = self.ask("/interlock.gateway.v1.JobService/SubmitJob", &message).await?;
        Ok(answer.read::<SubmitJobResponse>().job.expect("a job").job_id)
    }

    pub(crate) async fn attach(&self, session: &str, agent: &str, project: &str) -> Result<(), Outcome> {
        let message = AttachSessionRequest {
            session_id: session.to_owned(),
            agent_id: agent.to_owned(),
            project_id: project.to_owned(),
            ..Default::default()
        };
        self.ask("/interlock.gateway.v1.SessionService/AttachSession", &message).await.map(drop)
    }

    pub(crate) async fn project(&self, name: &str) -> Result<(), Outcome> {
        let message = CreateProjectRequest { name: name.to_owned(), request_id: name.to_owned() };
        self.ask("/interlock.auth.v1.ProjectService/CreateProject", &message).await.map(drop)
    }

    pub(crate) async fn rotate(&self, role: &str, request: &str) -> Result<(), Outcome> {
        let message =
            RotateRequest { role: role.to_owned(), request_id: request.to_owned(), ..Default::default() };
        self.ask("/interlock.auth.v1.RoleTokenService/Rotate", &message).await.map(drop)
    }

    async fn ask(&self, path: &str, message: &impl prost::Message) -> Result<Answer, Outcome> {
        succeeded(wire::ask(&self.channel, path, message, &self.metadata).await)
    }
}

/// A sign-in.
pub(crate) async fn login(pair: &Pair, owner: &str) -> Result<(), Outcome> {
    let password = pair.world.password(owner).to_owned();
    let message = LoginRequest { username: owner.to_owned(), password };
    let path = "/interlock.auth.v1.OwnerSessionService/Login";
    succeeded(wire::ask(&pair.auth_public(), path, &message, &Metadata::none()).await).map(drop)
}

fn succeeded(answer: Answer) -> Result<Answer, Outcome> {
    if answer.outcome.code == "OK" { Ok(answer) } else { Err(answer.outcome) }
}

/// Asserts what a service says whose store does not take a write: it says so itself, within its own deadline.
pub(crate) fn is_unavailable(told: &Outcome) {
    assert_eq!((told.code.as_str(), told.short()), ("UNAVAILABLE", "STORE_UNAVAILABLE"), "{told}");
}
