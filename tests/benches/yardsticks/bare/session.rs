//! Answers `GetSession` with a session of the usual size, and looks nothing up; answers `AttachSession` when the
//! rows of a changed binding are durable.

use std::path::Path;

use interlock_kit::store::postgres::bind;
use interlock_proto::gateway::v1::{
    self as wire, AckRequest, AckResponse, AttachSessionRequest, AttachSessionResponse, Binding,
    CloseSessionRequest, CloseSessionResponse, CreateSessionRequest, CreateSessionResponse,
    GetSessionRequest, GetSessionResponse, ListSessionsRequest, ListSessionsResponse, RenewStreamRequest,
    RenewStreamResponse, Session, SessionState, StreamEventsRequest, StreamEventsResponse,
    session_service_server::SessionService,
};
use rusqlite::params;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::{
    grouped::{AGENT, Batch, Grouped, OWNER, PROJECT},
    there::{Rows, There},
};

const DAY_S: i64 = 86_400;

pub(crate) enum Sessions {
    Here(Grouped),
    There(There),
}

impl Sessions {
    /// Makes the store in this folder and starts its writer.
    pub(crate) fn open(folder: &Path) -> Self {
        Self::Here(Grouped::open(folder))
    }

    /// The same in this database.
    pub(crate) fn open_there(url: &str) -> Self {
        Self::There(There::open(url))
    }
}

/// The rows of a changed binding. A session that is not there is made by the first one: callers warm up.
fn attach(batch: &Batch<'_>, request: &AttachSessionRequest) -> rusqlite::Result<Session> {
    let (session, agent) = (&request.session_id, &request.agent_id);
    let bind = "UPDATE session SET agent = ?2, project = ?3, epoch = epoch + 1, phase = 0, ended_at = NULL
                WHERE id = ?1 AND phase = 0";
    if batch.some(bind, params![session, agent, PROJECT])? == 0 {
        batch.one(
            "INSERT INTO session (id, owner, name, agent, project, epoch, phase, created_at, ended_at)
             VALUES (?1, ?2, NULL, ?3, ?4, 1, 0, ?5, NULL)",
            params![session, OWNER, agent, PROJECT, batch.at()],
        )?;
    }
    let last_sequence = batch.append(session, 1, &facts(agent))?;
    let detail = detail(agent);
    batch.audit("/interlock.gateway.v1.SessionService/AttachSession", "session.attach", session, &detail)?;
    Ok(seen(session.clone(), agent.clone(), last_sequence))
}

/// The same in PostgreSQL.
fn attach_there(there: &There, request: AttachSessionRequest) -> (Session, Rows) {
    let (session, agent, mut rows) = (request.session_id, request.agent_id, there.rows());
    rows.one(
        "INSERT INTO session (id, owner, name, agent, project, epoch, phase, created_at, ended_at)
         VALUES ($1, $2, NULL, $3, $4, 1, 0, $5, NULL)
         ON CONFLICT (id) DO UPDATE SET agent = $3, project = $4, epoch = session.epoch + 1, phase = 0, ended_at = NULL",
        [bind(session.clone()), bind(OWNER), bind(agent.clone()), bind(PROJECT), bind(rows.at())],
    );
    rows.append(&session, 1, facts(&agent));
    rows.audit(
        "/interlock.gateway.v1.SessionService/AttachSession",
        "session.attach",
        &session,
        detail(&agent),
    );
    (seen(session, agent, 0), rows)
}

fn facts(agent: &str) -> String {
    format!(r#"{{"attached":{{"binding":{{"agent":"{agent}","project":"{PROJECT}","epoch":1}}}}}}"#)
}

fn detail(agent: &str) -> String {
    format!(r#"{{"agent":"{agent}","epoch":1}}"#)
}

fn seen(session_id: String, agent_id: String, last_sequence: u64) -> Session {
    Session {
        session_id,
        name: OWNER.to_owned(),
        owner_id: OWNER.to_owned(),
        binding: Some(Binding { agent_id, project_id: PROJECT.to_owned(), epoch: 1 }),
        state: SessionState::Open.into(),
        created_at: Some(prost_types::Timestamp { seconds: 20_000 * DAY_S, nanos: 123_456_000 }),
        last_sequence,
        jobs_in_flight: 0,
    }
}

#[tonic::async_trait]
impl SessionService for Sessions {
    type StreamEventsStream = Empty<Result<StreamEventsResponse, Status>>;

    async fn get_session(
        &self,
        request: Request<GetSessionRequest>,
    ) -> Result<Response<GetSessionResponse>, Status> {
        let session = seen(request.into_inner().session_id, AGENT.to_owned(), 2);
        Ok(Response::new(GetSessionResponse { session: Some(session) }))
    }

    async fn attach_session(
        &self,
        request: Request<AttachSessionRequest>,
    ) -> Result<Response<AttachSessionResponse>, Status> {
        let request = request.into_inner();
        let session = match self {
            Self::Here(grouped) => grouped.durable(move |batch| attach(batch, &request)).await?,
            Self::There(there) => {
                let (session, rows) = attach_there(there, request);
                there.durable(rows).await?;
                session
            }
        };
        Ok(Response::new(AttachSessionResponse { session: Some(session), changed: true }))
    }

    async fn create_session(
        &self,
        _: Request<CreateSessionRequest>,
    ) -> Result<Response<CreateSessionResponse>, Status> {
        Err(no_more())
    }

    async fn list_sessions(
        &self,
        _: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        Err(no_more())
    }

    async fn close_session(
        &self,
        _: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        Err(no_more())
    }

    async fn stream_events(
        &self,
        _: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        Err(no_more())
    }

    async fn renew_stream(
        &self,
        _: Request<RenewStreamRequest>,
    ) -> Result<Response<RenewStreamResponse>, Status> {
        Err(no_more())
    }

    async fn ack(&self, _: Request<AckRequest>) -> Result<Response<AckResponse>, Status> {
        Err(no_more())
    }

    async fn set_session_password(
        &self,
        _: Request<wire::SetSessionPasswordRequest>,
    ) -> Result<Response<wire::SetSessionPasswordResponse>, Status> {
        Err(no_more())
    }

    async fn join_session(
        &self,
        _: Request<wire::JoinSessionRequest>,
    ) -> Result<Response<wire::JoinSessionResponse>, Status> {
        Err(no_more())
    }

    async fn list_clients(
        &self,
        _: Request<wire::ListClientsRequest>,
    ) -> Result<Response<wire::ListClientsResponse>, Status> {
        Err(no_more())
    }

    async fn adopt_session(
        &self,
        _: Request<wire::AdoptSessionRequest>,
    ) -> Result<Response<wire::AdoptSessionResponse>, Status> {
        Err(no_more())
    }

    async fn evict_client(
        &self,
        _: Request<wire::EvictClientRequest>,
    ) -> Result<Response<wire::EvictClientResponse>, Status> {
        Err(no_more())
    }

    async fn quit(&self, _: Request<wire::QuitRequest>) -> Result<Response<wire::QuitResponse>, Status> {
        Err(no_more())
    }

    async fn post_message(
        &self,
        _: Request<wire::PostMessageRequest>,
    ) -> Result<Response<wire::PostMessageResponse>, Status> {
        Err(no_more())
    }
}

fn no_more() -> Status {
    Status::unimplemented("reads and attaches only")
}
