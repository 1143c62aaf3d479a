//! SessionService.

use std::sync::Arc;

use interlock_kit::{
    authn::{Call, login_required},
    error::Error,
    random,
    seal::Seal,
};
use interlock_proto::{
    credential::{Credential, Kind, cookie_name},
    gateway::v1::{
        AckRequest, AckResponse, AttachSessionRequest, AttachSessionResponse, CloseSessionRequest,
        CloseSessionResponse, CreateSessionRequest, CreateSessionResponse, GetSessionRequest,
        GetSessionResponse, ListSessionsRequest, ListSessionsResponse, OnBusy, RenewStreamRequest,
        RenewStreamResponse, StreamEventsRequest, StreamEventsResponse,
        session_service_server::SessionService,
    },
    metadata,
};
use tonic::{Request, Response, Status, metadata::MetadataValue};

use super::{Front, parts, refuse, wire};
use crate::{
    admit::Admitted,
    binding::Attach,
    client::Ack,
    event::From,
    ids::{AgentId, ClientId, ProjectId, RequestId, SessionId},
    outlet::Answers,
    session::{CloseSession, CreateSession, Created, GetSession, ListSessions},
    store::Told,
    stream,
};

/// What the sealed cookie of a creation is for.
const SEAL_LABEL: &str = "session cookie";

pub(super) struct Rpc(pub(super) Arc<Front>);

#[tonic::async_trait]
impl SessionService for Rpc {
    async fn create_session(
        &self,
        request: Request<CreateSessionRequest>,
    ) -> Result<Response<CreateSessionResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let created = self.create(&call, &admitted, request).await;
        let (told, cookie) = created.map_err(|error| refuse(&error, &call.request_id))?;
        let mut response = self.0.answer(&call, async { Ok(told) }).await?;
        if let Some(cookie) = cookie {
            response.metadata_mut().insert(metadata::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    async fn get_session(
        &self,
        request: Request<GetSessionRequest>,
    ) -> Result<Response<GetSessionResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let session = SessionId::parse(request.session_id)?;
            let told = self.0.ask(&call, &admitted.for_session(&session), GetSession { session }).await?;
            Ok(told.map(|seen| GetSessionResponse { session: Some(wire::session(seen)) }))
        };
        self.0.answer(&call, work).await
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let owner = wire::owner(request.owner_id)?;
            let list = ListSessions { page_size: request.page_size, page_token: request.page_token, owner };
            let told = self.0.ask(&call, &admitted.caller, list).await?;
            Ok(told.map(|page| ListSessionsResponse {
                sessions: page.sessions.into_iter().map(wire::session).collect(),
                next_page_token: page.next_page_token,
            }))
        };
        self.0.answer(&call, work).await
    }

    async fn attach_session(
        &self,
        request: Request<AttachSessionRequest>,
    ) -> Result<Response<AttachSessionResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let attach = attach(request)?;
            let told = self.0.run(&call, &admitted.for_session(&attach.session), attach).await?;
            Ok(told.map(|attached| AttachSessionResponse {
                session: Some(wire::session(attached.seen)),
                changed: attached.changed,
            }))
        };
        self.0.answer(&call, work).await
    }

    async fn close_session(
        &self,
        request: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let session = SessionId::parse(request.session_id)?;
            let caller = admitted.for_session(&session);
            let told = self.0.run(&call, &caller, CloseSession { session, force: request.force }).await?;
            Ok(told.map(|closed| CloseSessionResponse {
                gone: closed.gone,
                jobs_in_flight: closed.jobs_in_flight,
            }))
        };
        self.0.answer(&call, work).await
    }

    type StreamEventsStream = Answers<StreamEventsResponse>;

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let session = SessionId::parse(request.session_id)?;
            let from = if request.from_cursor { From::Cursor } else { From::After(request.after) };
            stream::open(&self.0, &call, &admitted, session, from).await
        };
        self.0.answer(&call, work).await
    }

    async fn renew_stream(
        &self,
        request: Request<RenewStreamRequest>,
    ) -> Result<Response<RenewStreamResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let stream = wire::stream_id(request.stream_id).map_err(|error| refuse(&error, &call.request_id))?;
        let renewed = self.0.streams.renew(&stream, &admitted.principal(), admitted.verdict.as_ref());
        if let Err(error) = &renewed {
            self.0.gate.record_refusal(&call, &admitted, error).await;
        }
        let expires_at = renewed.map_err(|error| refuse(&error, &call.request_id))?;
        Ok(Response::new(RenewStreamResponse { expires_at: expires_at.map(wire::instant) }))
    }

    async fn ack(&self, request: Request<AckRequest>) -> Result<Response<AckResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let session = SessionId::parse(request.session_id)?;
            let caller = admitted.for_session(&session);
            let told = self.0.run(&call, &caller, Ack { session, sequence: request.sequence }).await?;
            Ok(told.map(|sequence| AckResponse { sequence }))
        };
        self.0.answer(&call, work).await
    }
}

type Cookie = MetadataValue<tonic::metadata::Ascii>;

impl Rpc {
    /// Makes a session and the cookie of its first client. A retry with the same request id and credential
    /// gets the same cookie: it is kept sealed under what only the caller has.
    async fn create(
        &self,
        call: &Call,
        admitted: &Admitted,
        request: CreateSessionRequest,
    ) -> Result<(Told<CreateSessionResponse>, Option<Cookie>), Error> {
        let bearer = admitted.bearer.as_ref().ok_or_else(login_required)?;
        let name = wire::name(request.name)?;
        let owner = wire::owner(request.owner_id)?;
        let request_id = RequestId::parse(request.request_id)?;
        let secret = Credential::new(Kind::Client, &random::bytes());
        let seal = Seal::of(bearer.expose().as_bytes(), SEAL_LABEL);
        let context = request_id.to_string();
        let create = CreateSession {
            id: SessionId::new(),
            client: ClientId::new(),
            cookie: secret.hash(),
            sealed: seal.seal(random::bytes(), context.as_bytes(), secret.expose().as_bytes()),
            name,
            request: request_id,
            owner,
        };
        let told = self.0.run(call, &admitted.caller, create).await?;
        let cookie = cookie(&told.out, &seal, &context);
        let told = told.map(|created| CreateSessionResponse {
            session: Some(wire::session(created.seen)),
            client_id: created.client.to_string(),
        });
        Ok((told, cookie))
    }
}

/// The cookie of the first answer. A retry under another credential of the same owner gets none: only the
/// first one opens the seal.
fn cookie(created: &Created, seal: &Seal, context: &str) -> Option<Cookie> {
    let secret = seal.open(context.as_bytes(), &created.sealed)?;
    let secret = std::str::from_utf8(&secret).ok()?;
    let name = cookie_name(created.seen.session.id.as_str());
    let text = format!("{name}={secret}; Path=/; HttpOnly; Secure; SameSite=Strict");
    let mut value = Cookie::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn attach(request: AttachSessionRequest) -> Result<Attach, Error> {
    match request.on_busy() {
        OnBusy::Unspecified | OnBusy::Reject => {}
    }
    if OnBusy::try_from(request.on_busy).is_err() {
        return Err(Error::invalid_field("on_busy", "REJECT"));
    }
    if request.wait.is_some() {
        return Err(Error::invalid_field("wait", "only with an on_busy that waits"));
    }
    Ok(Attach {
        session: SessionId::parse(request.session_id)?,
        agent: AgentId::parse(request.agent_id)?,
        project: ProjectId::parse(request.project_id)?,
    })
}
