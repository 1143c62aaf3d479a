//! `ElevationService`.

use std::{sync::Arc, time::Duration};

use interlock_kit::{
    authn::Admit as _,
    error::{Error, Reason},
    field,
};
use interlock_proto::{
    auth::v1::{
        ElevationServiceGetStatusRequest, ElevationServiceGetStatusResponse, LockRequest, LockResponse,
        UnlockRequest, UnlockResponse, elevation_service_server::ElevationService,
    },
    credential::{Credential, Kind},
};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::{Asked, answer, wire};
use crate::{elevation::ElevationStatus, limits, parts::Parts, root};

pub(super) struct Elevations(pub(super) Arc<Parts>);

#[tonic::async_trait]
impl ElevationService for Elevations {
    async fn unlock(&self, mut request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let UnlockRequest { password, ttl } = std::mem::take(request.get_mut());
        let password = Zeroizing::new(password.into_bytes());
        answer(request, async |asked| {
            wire::bytes("password", &password, limits::PASSWORD_BYTES_MAX)?;
            let ask = root::Ask {
                source: asked.served.source(),
                password,
                ttl: asked_ttl(ttl)?,
                certificate: asked.served.cert_fingerprint,
            };
            match root::unlock(&self.0, &asked.call(), ask).await {
                Ok((unlocked, reached)) => Ok(wire::unlocked(unlocked.until, reached)),
                Err(refusal) => Err(self.noted(asked, refusal).await),
            }
        })
        .await
    }

    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        answer(request, async |asked| {
            let reached = root::lock(&self.0, &asked.call()).await?;
            Ok(LockResponse { reached: reached.map(wire::reached) })
        })
        .await
    }

    async fn get_status(
        &self,
        request: Request<ElevationServiceGetStatusRequest>,
    ) -> Result<Response<ElevationServiceGetStatusResponse>, Status> {
        answer(request, async |asked| {
            let presented = asked.bearer.as_ref().filter(|bearer| bearer.kind() == Kind::Owner);
            let query = ElevationStatus {
                presented: presented.map(Credential::hash),
                certificate: asked.served.cert_fingerprint,
            };
            Ok(wire::elevation(self.0.shell.ask(&asked.call(), query).await?))
        })
        .await
    }
}

/// Absent and none at all say the same: as long as is configured.
fn asked_ttl(ttl: Option<prost_types::Duration>) -> Result<Option<Duration>, Error> {
    let accepted = "1 min to 1 h, or 0";
    let ttl = field::span("ttl", ttl, &(Duration::ZERO..=limits::ROOT_TTL.max), accepted)?;
    match ttl.filter(|ttl| !ttl.is_zero()) {
        Some(ttl) if ttl < limits::ROOT_TTL.min => Err(Error::invalid_field("ttl", accepted)),
        ttl => Ok(ttl),
    }
}

impl Elevations {
    /// A try that was turned away before the verb has its row as any other.
    async fn noted<T>(&self, asked: &Asked<T>, refusal: Error) -> Error {
        if matches!(refusal.reason(), Reason::RateLimited | Reason::LimitReached) {
            self.0.gate.refused(&asked.served, Some(&asked.caller), &refusal).await;
        }
        refusal
    }
}
