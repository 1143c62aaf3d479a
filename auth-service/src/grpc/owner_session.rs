//! `OwnerSessionService`.

use std::sync::Arc;

use interlock_kit::{authn::Admit as _, error::Error};
use interlock_proto::{
    auth::v1::{
        LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, OwnerSessionServiceGetStatusRequest,
        OwnerSessionServiceGetStatusResponse, RefreshRequest, RefreshResponse,
        owner_session_service_server::OwnerSessionService,
    },
    credential::{Credential, Kind},
};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::{Asked, answer, wire};
use crate::{ids::OwnerId, limits, owner_session::SessionStatus, parts::Parts, policy, sign_in};

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
                Some(presented) => sign_in::refresh(&self.0, &asked.call(), presented).await?,
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
}

impl OwnerSessions {
    /// Records the refusal of someone unknown, as gate 1 does where it refuses.
    async fn stranger<T>(&self, asked: &Asked<T>, refusal: Error) -> Error {
        self.0.gate.refused(&asked.served, None, &refusal).await;
        refusal
    }
}
