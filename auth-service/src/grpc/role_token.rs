//! `RoleTokenService`.

use std::sync::Arc;

use interlock_kit::{error::Error, field};
use interlock_proto::{
    auth::v1::{
        AbortRotationRequest, AbortRotationResponse, BeginRotationRequest, BeginRotationResponse,
        CommitRotationRequest, CommitRotationResponse, RoleTokenServiceGetStatusRequest,
        RoleTokenServiceGetStatusResponse, RotateRequest, RotateResponse,
        role_token_service_server::RoleTokenService,
    },
    credential::Credential,
};
use tonic::{Request, Response, Status};

use super::{Asked, answer, wire};
use crate::{
    ids::{CredentialId, RequestId},
    limits,
    parts::Parts,
    policy::{self, Act},
    role_token::{self, Reveal, Role},
    rotation::{self, Ask, AskBegin, AskEnd},
};

pub(super) struct RoleTokens(pub(super) Arc<Parts>);

#[tonic::async_trait]
impl RoleTokenService for RoleTokens {
    async fn get_status(
        &self,
        request: Request<RoleTokenServiceGetStatusRequest>,
    ) -> Result<Response<RoleTokenServiceGetStatusResponse>, Status> {
        answer(request, async |asked| {
            self.store_uses(asked).await;
            if asked.message.reveal {
                return self.revealed(asked).await;
            }
            let stored = self.0.shell.ask(&asked.call(), role_token::Status).await?;
            let (_, recoverable) = rotation::known(&self.0, &stored).await;
            let tokens = stored.into_iter().map(|found| wire::role_token(found, None)).collect();
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

    async fn begin_rotation(
        &self,
        request: Request<BeginRotationRequest>,
    ) -> Result<Response<BeginRotationResponse>, Status> {
        answer(request, async |asked| {
            let role = Role::parse("role", &asked.message.role)?;
            let request = RequestId::parse("request_id", &asked.message.request_id)?;
            let ask = AskBegin { role, request, presented: asked.bearer()?.clone() };
            let opened = rotation::begin(&self.0, &asked.call(), ask).await?;
            Ok(BeginRotationResponse {
                role: role.text().to_owned(),
                token: opened.token.expose().to_owned(),
                generation: opened.generation,
                credential_id: opened.id.to_string(),
                path: opened.path,
            })
        })
        .await
    }

    async fn commit_rotation(
        &self,
        request: Request<CommitRotationRequest>,
    ) -> Result<Response<CommitRotationResponse>, Status> {
        answer(request, async |asked| {
            let CommitRotationRequest { role, credential_id, force, request_id } = &asked.message;
            let ask = ask_end(role, credential_id, request_id)?;
            let (ended, reached) = rotation::commit(&self.0, &asked.call(), ask, *force).await?;
            let reached = Some(wire::reached(reached));
            Ok(CommitRotationResponse { role: role.clone(), generation: ended.generation, reached })
        })
        .await
    }

    async fn abort_rotation(
        &self,
        request: Request<AbortRotationRequest>,
    ) -> Result<Response<AbortRotationResponse>, Status> {
        answer(request, async |asked| {
            let AbortRotationRequest { role, credential_id, request_id } = &asked.message;
            let ask = ask_end(role, credential_id, request_id)?;
            let (ended, reached) = rotation::abort(&self.0, &asked.call(), ask).await?;
            let reached = Some(wire::reached(reached));
            Ok(AbortRotationResponse { role: role.clone(), generation: ended.generation, reached })
        })
        .await
    }
}

fn ask_end(role: &str, candidate: &str, request: &str) -> Result<AskEnd, Error> {
    Ok(AskEnd {
        role: Role::parse("role", role)?,
        candidate: CredentialId::parse("credential_id", candidate)?,
        request: RequestId::parse("request_id", request)?,
    })
}

impl RoleTokens {
    /// What is known here by now is to be shown, too; without that it shows what was stored some seconds ago.
    async fn store_uses<T>(&self, asked: &Asked<T>) {
        if policy::decide(&asked.caller, Act::ReadRoleTokens, self.0.clock.now()).is_ok()
            && let Err(error) = self.0.census.store().await
        {
            tracing::warn!(%error, "the status shows no uses of the last seconds");
        }
    }

    /// The tokens and the path; its audit row is durable before anything is shown.
    async fn revealed(
        &self,
        asked: &Asked<RoleTokenServiceGetStatusRequest>,
    ) -> Result<RoleTokenServiceGetStatusResponse, Error> {
        let stored = self.0.shell.run(&asked.call(), Reveal).await?;
        let (copy, recoverable) = rotation::known(&self.0, &stored).await;
        let shown = stored.into_iter().map(|found| {
            let text = copy.token_of(&found.token).map(Credential::expose).map(str::to_owned);
            wire::role_token(found, text.as_deref())
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
