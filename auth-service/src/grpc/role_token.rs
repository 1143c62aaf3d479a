//! `RoleTokenService`.

use std::sync::Arc;

use interlock_kit::{error::Error, field};
use interlock_proto::{
    auth::v1::{
        RoleTokenServiceGetStatusRequest, RoleTokenServiceGetStatusResponse, RotateRequest, RotateResponse,
        role_token_service_server::RoleTokenService,
    },
    credential::Credential,
};
use tonic::{Request, Response, Status};

use super::{Asked, answer, wire};
use crate::{
    ids::RequestId,
    limits,
    parts::Parts,
    role_token::{self, Reveal, Role},
    rotation::{self, Ask},
};

pub(super) struct RoleTokens(pub(super) Arc<Parts>);

#[tonic::async_trait]
impl RoleTokenService for RoleTokens {
    async fn get_status(
        &self,
        request: Request<RoleTokenServiceGetStatusRequest>,
    ) -> Result<Response<RoleTokenServiceGetStatusResponse>, Status> {
        answer(request, async |asked| {
            if asked.message.reveal {
                return self.revealed(asked).await;
            }
            let stored = self.0.shell.ask(&asked.call(), role_token::Status).await?;
            let (_, recoverable) = rotation::known(&self.0, &stored).await;
            let tokens = stored.into_iter().map(|token| wire::role_token(token, None)).collect();
            Ok(RoleTokenServiceGetStatusResponse { tokens, path: String::new(), recoverable })
        })
        .await
    }

    async fn rotate(&self, request: Request<RotateRequest>) -> Result<Response<RotateResponse>, Status> {
        answer(request, async |asked| {
            let answer = rotation::rotate(&self.0, &asked.call(), ask(asked)?).await?;
            Ok(RotateResponse {
                role: asked.message.role.clone(),
                token: answer.token.expose().to_owned(),
                generation: answer.generation,
                path: answer.path,
                reached: answer.reached.map(wire::reached),
            })
        })
        .await
    }
}

impl RoleTokens {
    /// The tokens and the path; its audit row is durable before anything is shown.
    async fn revealed(
        &self,
        asked: &Asked<RoleTokenServiceGetStatusRequest>,
    ) -> Result<RoleTokenServiceGetStatusResponse, Error> {
        let stored = self.0.shell.run(&asked.call(), Reveal).await?;
        let (copy, recoverable) = rotation::known(&self.0, &stored).await;
        let shown = stored.into_iter().map(|token| {
            let text = copy.token_of(&token).map(Credential::expose).map(str::to_owned);
            wire::role_token(token, text.as_deref())
        });
        let path = self.0.copy.lock().await.path().display().to_string();
        Ok(RoleTokenServiceGetStatusResponse { tokens: shown.collect(), path, recoverable })
    }
}

fn ask(asked: &Asked<RotateRequest>) -> Result<Ask, Error> {
    Ok(Ask {
        role: Role::parse("role", &asked.message.role)?,
        grace: field::span("grace", asked.message.grace, &limits::ROTATION_GRACE.bounds(), "0 to 24 h")?
            .unwrap_or(limits::ROTATION_GRACE.default),
        request: RequestId::parse("request_id", &asked.message.request_id)?,
        presented: asked.bearer()?.clone(),
    })
}
