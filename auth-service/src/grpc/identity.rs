//! `IdentityService`.

use std::sync::Arc;

use interlock_proto::auth::v1::{WhoAmIRequest, WhoAmIResponse, identity_service_server::IdentityService};
use tonic::{Request, Response, Status};

use super::{answer, wire};
use crate::{owner_session::WhoAmI, parts::Parts, policy};

pub(super) struct Identity(pub(super) Arc<Parts>);

#[tonic::async_trait]
impl IdentityService for Identity {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        answer(request, async |asked| {
            let known = self.0.shell.ask(&asked.call(), WhoAmI).await?;
            let principal = asked.caller.principal().ok_or_else(policy::login_required)?;
            Ok(WhoAmIResponse {
                principal: Some(wire::principal(principal)),
                display_name: known.display_name,
                project_name: known.project_name.unwrap_or_default(),
            })
        })
        .await
    }
}
