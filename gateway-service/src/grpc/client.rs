//! The part of SessionService that is about clients: passwords, joining, leaving, messages.

use interlock_kit::{authn::Call, error::Error};
use interlock_proto::{
    credential::cookie_name,
    gateway::v1::{
        self as proto, EvictClientRequest, EvictClientResponse, JoinSessionRequest, JoinSessionResponse,
        ListClientsRequest, ListClientsResponse, PostMessageRequest, PostMessageResponse, QuitRequest,
        QuitResponse, SetSessionPasswordRequest, SetSessionPasswordResponse,
    },
};
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use super::{Front, wire};
use crate::{
    admit::Admitted,
    client::{ClientRole, Evict, ListClients, Quit},
    ids::{ClientId, OwnerId, RequestId, SessionId, SessionName},
    joining::{self, Joining, NewPassword},
    message::{Address, Post},
    password::Target,
    store::Told,
};

/// A cookie as it leaves: RFC 6265 section 4.1.
pub(super) type Cookie = MetadataValue<Ascii>;

/// The credential of a client in the cookie of its session. NC-25
pub(super) fn set_cookie(session: &SessionId, secret: &[u8]) -> Option<Cookie> {
    let secret = std::str::from_utf8(secret).ok()?;
    let name = cookie_name(session.as_str());
    let text = Zeroizing::new(format!("{name}={secret}; Path=/; HttpOnly; Secure; SameSite=Strict"));
    let mut value = Cookie::try_from(text.as_str()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(super) async fn set_password(
    front: &Front,
    call: &Call,
    admitted: &Admitted,
    request: SetSessionPasswordRequest,
) -> Result<Told<SetSessionPasswordResponse>, Error> {
    let joiners = match proto::ClientRole::try_from(request.joiners) {
        Ok(proto::ClientRole::Unspecified | proto::ClientRole::Operator) => ClientRole::Operator,
        Ok(proto::ClientRole::Observer) => ClientRole::Observer,
        Ok(proto::ClientRole::Host) | Err(_) => {
            return Err(Error::invalid_field("joiners", "OPERATOR or OBSERVER"));
        }
    };
    let password = Zeroizing::new(request.password.into_bytes());
    let session = SessionId::parse(request.session_id)?;
    let new = NewPassword { session, password, joiners, evict_others: request.evict_others };
    let told = joining::set_password(front, call, admitted, new).await?;
    Ok(told.map(|evicted| SetSessionPasswordResponse { evicted }))
}

pub(super) async fn join(
    front: &Front,
    call: &Call,
    admitted: &Admitted,
    request: JoinSessionRequest,
) -> Result<(Told<JoinSessionResponse>, Cookie), Error> {
    let password = Zeroizing::new(request.password.into_bytes());
    let named = !request.owner_id.is_empty() || !request.name.is_empty();
    let target = match (request.session_id.is_empty(), named) {
        (false, false) => Target::Id(SessionId::parse(request.session_id)?),
        (true, true) => Target::Named(OwnerId::parse(request.owner_id)?, SessionName::parse(request.name)?),
        (true, false) => return Err(Error::missing_field("session_id")),
        (false, true) => {
            let beside = if request.name.is_empty() { "owner_id" } else { "name" };
            return Err(Error::invalid_field(beside, "empty beside session_id"));
        }
    };
    let request = RequestId::parse(request.request_id)?;
    let joining = Joining { target, password, request };
    let (told, secret) = joining::join(front, call, admitted, joining).await?;
    let session = &told.out.seen.session.id;
    let cookie = set_cookie(session, &secret).ok_or_else(|| Error::internal("a cookie that is no text"))?;
    let told = told.map(|joined| JoinSessionResponse {
        client_id: joined.client.id.to_string(),
        role: wire::client_role(joined.client.role).into(),
        clients: joined.clients.iter().map(|client| wire::client(client, Some(&joined.client.id))).collect(),
        session: Some(wire::session(joined.seen)),
    });
    Ok((told, cookie))
}

pub(super) async fn list(
    front: &Front,
    call: &Call,
    admitted: &Admitted,
    request: ListClientsRequest,
) -> Result<Told<ListClientsResponse>, Error> {
    let session = SessionId::parse(request.session_id)?;
    let caller = admitted.for_session(&session);
    let told = front.ask(call, &caller, ListClients { session }).await?;
    Ok(told.map(|all| ListClientsResponse {
        clients: all.clients.iter().map(|client| wire::client(client, all.calling.as_ref())).collect(),
    }))
}

pub(super) async fn evict(
    front: &Front,
    call: &Call,
    admitted: &Admitted,
    request: EvictClientRequest,
) -> Result<Told<EvictClientResponse>, Error> {
    let session = SessionId::parse(request.session_id)?;
    let client = ClientId::parse(request.client_id)?;
    let caller = admitted.for_session(&session);
    let told = front.run(call, &caller, Evict { session, client }).await?;
    Ok(told.map(|evicted| EvictClientResponse { evicted }))
}

pub(super) async fn quit(
    front: &Front,
    call: &Call,
    admitted: &Admitted,
    request: QuitRequest,
) -> Result<Told<QuitResponse>, Error> {
    let session = SessionId::parse(request.session_id)?;
    let caller = admitted.for_session(&session);
    let told = front.run(call, &caller, Quit { session }).await?;
    Ok(told.map(|left| QuitResponse { session_ends: left.session_ends, jobs_in_flight: left.jobs_in_flight }))
}

pub(super) async fn post(
    front: &Front,
    call: &Call,
    admitted: &Admitted,
    request: PostMessageRequest,
) -> Result<Told<PostMessageResponse>, Error> {
    let session = SessionId::parse(request.session_id)?;
    let to = match (request.to_client_id.is_empty(), request.to_others) {
        (true, false) => Address::All,
        (true, true) => Address::Others,
        (false, false) => Address::One(ClientId::parse_as("to_client_id", request.to_client_id)?),
        (false, true) => {
            return Err(Error::invalid_field("to_client_id", "none beside to_others"));
        }
    };
    let caller = admitted.for_session(&session);
    let data = Vec::from(request.data).into();
    let post = Post { session, request: RequestId::parse(request.request_id)?, to, data };
    let told = front.run(call, &caller, post).await?;
    Ok(told.map(|sequence| PostMessageResponse { sequence }))
}
