//! `OwnerSessionService`.

use std::sync::Arc;

use interlock_kit::{authn::Admit as _, error::Error, field};
use interlock_proto::{
    auth::v1::{
        ListOwnerSessionsRequest, ListOwnerSessionsResponse, LoginRequest, LoginResponse, LogoutRequest,
        LogoutResponse, OwnerSessionServiceGetStatusRequest, OwnerSessionServiceGetStatusResponse,
        RefreshRequest, RefreshResponse, RevokeOwnerSessionsRequest, RevokeOwnerSessionsResponse,
        owner_session_service_server::OwnerSessionService,
    },
    credential::{Credential, Kind},
};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::{Asked, answer, wire};
use crate::{
    caller::{Principal, Proof},
    ids::{OwnerId, OwnerSessionId},
    limits,
    owner_session::{ListSessions, OwnerSession, RevokeAll, RevokeSession, SessionStatus, Whose},
    parts::Parts,
    policy, sign_in,
};

pub(super) struct OwnerSessions(pub(super) Arc<Parts>);

#[tonic::async_trait]
impl OwnerSessionService for OwnerSessions {
    async fn login(&self, mut request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        let LoginRequest { username, password } = std::mem::take(request.get_mut());
        let password = Zeroizing::new(password.into_bytes());
        answer(request, async |asked| {
            let owner = OwnerId::parse("username", &username)?;
            wire::bytes("password", &password, limits::PASSWORD_BYTES_MAX)?;
            let source = asked.served.source();
            let (session, pair) = sign_in::login(&self.0, &asked.call(), source, owner, password).await?;
            Ok(wire::signed_in(session, pair.access.expose(), pair.refresh.expose()))
        })
        .await
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        answer(request, async |asked| {
            // Missing, malformed, unknown and of another kind get one answer.
            let issued = match &asked.bearer {
                Some(presented) => {
                    sign_in::refresh(&self.0, &asked.call(), asked.served.source(), presented).await?
                }
                None => None,
            };
            match issued {
                Some((successors, pair)) => {
                    Ok(wire::refreshed(&successors, pair.access.expose(), pair.refresh.expose()))
                }
                None => Err(self.stranger(asked, policy::wrong_credentials()).await),
            }
        })
        .await
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        answer(request, async |asked| {
            let presented = match asked.bearer() {
                Ok(presented) if matches!(presented.kind(), Kind::Owner | Kind::Refresh) => presented,
                Ok(_) => return Err(self.stranger(asked, policy::of_another_kind()).await),
                Err(missing) => return Err(self.stranger(asked, missing).await),
            };
            let reached = sign_in::logout(&self.0, &asked.call(), presented).await?;
            Ok(LogoutResponse { reached: reached.map(wire::reached) })
        })
        .await
    }

    async fn get_status(
        &self,
        request: Request<OwnerSessionServiceGetStatusRequest>,
    ) -> Result<Response<OwnerSessionServiceGetStatusResponse>, Status> {
        answer(request, async |asked| {
            let presented = asked.bearer.as_ref().filter(|bearer| bearer.kind() == Kind::Owner);
            let query = SessionStatus { presented: presented.map(Credential::hash) };
            Ok(wire::status(self.0.shell.ask(&asked.call(), query).await?))
        })
        .await
    }

    async fn list_owner_sessions(
        &self,
        request: Request<ListOwnerSessionsRequest>,
    ) -> Result<Response<ListOwnerSessionsResponse>, Status> {
        answer(request, async |asked| {
            let page = self.0.shell.ask(&asked.call(), list(&asked.message)?).await?;
            let caller = asked.caller.principal();
            let shown = |session: &OwnerSession| wire::owner_session(session, is_of(caller, session));
            let next_page_token = page.next.as_ref().map(wire::page_token).unwrap_or_default();
            Ok(ListOwnerSessionsResponse {
                sessions: page.sessions.iter().map(shown).collect(),
                next_page_token,
            })
        })
        .await
    }

    async fn revoke_owner_sessions(
        &self,
        request: Request<RevokeOwnerSessionsRequest>,
    ) -> Result<Response<RevokeOwnerSessionsResponse>, Status> {
        answer(request, async |asked| {
            let revocation = match target(&asked.message)? {
                Target::One(verb) => self.0.shell.run(&asked.call(), verb).await?,
                Target::All(verb) => Some(self.0.shell.run(&asked.call(), verb).await?),
            };
            let Some(row) = revocation else {
                // An earlier call has ended it, and may still wait: its repetition promises the same.
                self.0.wait_for_all().await;
                return Ok(RevokeOwnerSessionsResponse { reached: None });
            };
            let reached = self.0.wait_for(row).await;
            Ok(RevokeOwnerSessionsResponse { reached: Some(wire::reached(reached)) })
        })
        .await
    }
}

fn list(asked: &ListOwnerSessionsRequest) -> Result<ListSessions, Error> {
    if asked.page_size > limits::PAGE_MAX {
        return Err(Error::invalid_field("page_size", format!("0 to {}", limits::PAGE_MAX)));
    }
    let whose = match (asked.owner_id.as_str(), asked.everybody) {
        ("", false) => Whose::Own,
        ("", true) => Whose::Everybody,
        (owner, false) => Whose::Owner(OwnerId::parse("owner_id", owner)?),
        (_, true) => return Err(Error::invalid_field("everybody", "not beside owner_id")),
    };
    Ok(ListSessions { whose, after: wire::session_place(&asked.page_token)?, limit: asked.page_size })
}

enum Target {
    One(RevokeSession),
    All(RevokeAll),
}

fn target(asked: &RevokeOwnerSessionsRequest) -> Result<Target, Error> {
    const ONE: &str = "one of owner_session_id, owner_id and everybody";
    let issued_before = field::instant("issued_before", asked.issued_before)?;
    match (asked.owner_session_id.as_str(), asked.owner_id.as_str(), asked.everybody) {
        ("", "", false) => Err(Error::missing_field("owner_session_id")),
        ("", "", true) => Ok(Target::All(RevokeAll { owner: None, issued_before })),
        ("", owner, false) => {
            let owner = Some(OwnerId::parse("owner_id", owner)?);
            Ok(Target::All(RevokeAll { owner, issued_before }))
        }
        (_, _, true) => Err(Error::invalid_field("everybody", ONE)),
        (_, "", false) if issued_before.is_some() => {
            Err(Error::invalid_field("issued_before", "not beside owner_session_id"))
        }
        (session, "", false) => {
            let session = OwnerSessionId::parse("owner_session_id", session)?;
            Ok(Target::One(RevokeSession { session }))
        }
        (_, _, false) => Err(Error::invalid_field("owner_id", ONE)),
    }
}

/// Whether the caller calls on this very session.
fn is_of(caller: Option<&Principal>, session: &OwnerSession) -> bool {
    caller.is_some_and(
        |caller| matches!(&caller.proof, Proof::OwnerSession { session: calling } if *calling == session.id),
    )
}

impl OwnerSessions {
    /// Records the refusal of someone unknown, as gate 1 does where it refuses.
    async fn stranger<T>(&self, asked: &Asked<T>, refusal: Error) -> Error {
        self.0.gate.refused(&asked.served, None, &refusal).await;
        refusal
    }
}
