//! SessionService.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use interlock_kit::{
    authn::{Call, login_required},
    error::Error,
    random,
    seal::Seal,
};
use interlock_proto::{
    credential::{Credential, Kind},
    gateway::v1::{
        AckRequest, AckResponse, AdoptSessionRequest, AdoptSessionResponse, AttachSessionRequest,
        AttachSessionResponse, CloseSessionRequest, CloseSessionResponse, CreateSessionRequest,
        CreateSessionResponse, EvictClientRequest, EvictClientResponse, GetSessionRequest,
        GetSessionResponse, JoinSessionRequest, JoinSessionResponse, ListClientsRequest, ListClientsResponse,
        ListSessionsRequest, ListSessionsResponse, OnBusy, PostMessageRequest, PostMessageResponse,
        QuitRequest, QuitResponse, RenewStreamRequest, RenewStreamResponse, SetSessionPasswordRequest,
        SetSessionPasswordResponse, StreamEventsRequest, StreamEventsResponse,
        session_service_server::SessionService,
    },
    metadata,
};
use tonic::{Request, Response, Status};

use super::{
    Front, StreamMessage,
    client::{self, Cookie, set_cookie},
    parts, refuse, wire,
};
use crate::{
    admit::Admitted,
    adopt::AdoptSession,
    anonymous,
    attaching::{self, Waits},
    binding::Attach,
    caller::Principal,
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

#[derive(Clone)]
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
            let told = match attach(request)? {
                (attach, None) => self.0.run(&call, &admitted.for_session(&attach.session), attach).await?,
                (attach, Some(how)) => attaching::attach(&self.0, &call, &admitted, attach, how).await?,
            };
            if told.out.changed {
                let session = &told.out.seen.session;
                let acting = admitted.caller.owner();
                self.0.after_binding(admitted.verdict.as_ref(), acting, session).await?;
            }
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

    async fn adopt_session(
        &self,
        request: Request<AdoptSessionRequest>,
    ) -> Result<Response<AdoptSessionResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let session = SessionId::parse(request.session_id)?;
            let (caller, owner) = (admitted.for_session(&session), wire::owner(request.owner_id)?);
            let told = self.0.run(&call, &caller, AdoptSession { session, owner }).await?;
            Ok(told.map(|adopted| AdoptSessionResponse {
                session: Some(wire::session(adopted.seen)),
                evicted: adopted.evicted,
            }))
        };
        self.0.answer(&call, work).await
    }

    type StreamEventsStream = Answers<StreamEventsResponse>;

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let answers = self.follow(request).await?;
        Ok(answers.map(|answers| -> Self::StreamEventsStream {
            Box::pin(answers.map_ok(StreamMessage::into_message))
        }))
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

    async fn set_session_password(
        &self,
        request: Request<SetSessionPasswordRequest>,
    ) -> Result<Response<SetSessionPasswordResponse>, Status> {
        let (call, admitted, request) = parts(request);
        self.0.answer(&call, client::set_password(&self.0, &call, &admitted, request)).await
    }

    async fn join_session(
        &self,
        request: Request<JoinSessionRequest>,
    ) -> Result<Response<JoinSessionResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let joined = client::join(&self.0, &call, &admitted, request).await;
        let (told, cookie) = joined.map_err(|error| refuse(&error, &call.request_id))?;
        let mut response = self.0.answer(&call, async { Ok(told) }).await?;
        response.metadata_mut().insert(metadata::SET_COOKIE, cookie);
        Ok(response)
    }

    async fn list_clients(
        &self,
        request: Request<ListClientsRequest>,
    ) -> Result<Response<ListClientsResponse>, Status> {
        let (call, admitted, request) = parts(request);
        self.0.answer(&call, client::list(&self.0, &call, &admitted, request)).await
    }

    async fn evict_client(
        &self,
        request: Request<EvictClientRequest>,
    ) -> Result<Response<EvictClientResponse>, Status> {
        let (call, admitted, request) = parts(request);
        self.0.answer(&call, client::evict(&self.0, &call, &admitted, request)).await
    }

    async fn quit(&self, request: Request<QuitRequest>) -> Result<Response<QuitResponse>, Status> {
        let (call, admitted, request) = parts(request);
        self.0.answer(&call, client::quit(&self.0, &call, &admitted, request)).await
    }

    async fn post_message(
        &self,
        request: Request<PostMessageRequest>,
    ) -> Result<Response<PostMessageResponse>, Status> {
        let (call, admitted, request) = parts(request);
        self.0.answer(&call, client::post(&self.0, &call, &admitted, request)).await
    }
}

impl Rpc {
    /// StreamEvents, in what its codec encodes.
    pub(super) async fn follow(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Answers<StreamMessage>>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let session = SessionId::parse(request.session_id)?;
            let from = if request.from_cursor { From::Cursor } else { From::After(request.after) };
            stream::open(&self.0, &call, &admitted, session, from).await
        };
        self.0.answer(&call, work).await
    }

    /// Makes a session and the cookie of its first client. A retry with the same request id and credential
    /// gets the same cookie: it is kept sealed under what only the caller has. Who shows no credential has the request
    /// id alone.
    async fn create(
        &self,
        call: &Call,
        admitted: &Admitted,
        request: CreateSessionRequest,
    ) -> Result<(Told<CreateSessionResponse>, Option<Cookie>), Error> {
        let name = wire::name(request.name)?;
        let owner = wire::owner(request.owner_id)?;
        let request_id = RequestId::parse(request.request_id)?;
        let (caller_only, request_id) = match admitted.caller.principal {
            Principal::Anonymous => anonymous::retried_by(&request_id)?,
            _ => (admitted.sealing_secret(call).ok_or_else(login_required)?, request_id),
        };
        let secret = Credential::new(Kind::Client, &random::bytes());
        let seal = Seal::of(caller_only.as_bytes(), SEAL_LABEL);
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
        self.0.after_opening(admitted.verdict.as_ref(), &told.out.seen.session.id).await?;
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
    set_cookie(&created.seen.session.id, &secret)
}

fn attach(request: AttachSessionRequest) -> Result<(Attach, Option<Waits>), Error> {
    let cancel = match OnBusy::try_from(request.on_busy) {
        Ok(OnBusy::Unspecified | OnBusy::Reject) => None,
        Ok(OnBusy::Wait) => Some(false),
        Ok(OnBusy::Cancel) => Some(true),
        Err(_) => return Err(Error::invalid_field("on_busy", "REJECT, WAIT or CANCEL")),
    };
    if cancel.is_none() && request.wait.is_some() {
        return Err(Error::invalid_field("wait", "only with an on_busy that waits"));
    }
    let wait = wire::attach_wait(request.wait)?;
    let attach = Attach {
        session: SessionId::parse(request.session_id)?,
        agent: AgentId::parse(request.agent_id)?,
        project: ProjectId::parse(request.project_id)?,
        keep_clients: request.keep_clients,
    };
    Ok((attach, cancel.map(|cancel| Waits { wait, cancel })))
}
