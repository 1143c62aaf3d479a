//! The wire: each file turns one service's messages into verbs and answers back. At most ten lines a method.

use std::sync::Arc;

use interlock_kit::{
    authn,
    error::{Error, Reason},
    serve::{self, Services},
};
use interlock_proto::{
    auth::v1::{
        elevation_service_server::ElevationServiceServer, identity_service_server::IdentityServiceServer,
        owner_service_server::OwnerServiceServer, owner_session_service_server::OwnerSessionServiceServer,
        project_service_server::ProjectServiceServer, role_token_service_server::RoleTokenServiceServer,
    },
    credential::Credential,
    metadata,
};
use tonic::{Request, Response, Status};

use crate::{
    admit,
    caller::{Call, Caller},
    parts::Parts,
};

mod elevation;
mod identity;
mod in_use;
mod owner;
mod owner_session;
mod project;
mod role_token;
mod trust;
mod validate;
mod wire;

/// Every service of auth; each method's policy says on which listener it is reached.
#[must_use]
pub fn services(parts: &Arc<Parts>, message_bytes: usize) -> Services {
    let sessions = owner_session::OwnerSessions(Arc::clone(parts));
    let elevations = elevation::Elevations(Arc::clone(parts));
    let owners = owner::Owners(Arc::clone(parts));
    let tokens = role_token::RoleTokens(Arc::clone(parts));
    let projects = project::Projects(Arc::clone(parts));
    let identity = identity::Identity(Arc::clone(parts));
    let trust = validate::Trusts::new(trust::Trust(Arc::clone(parts)), message_bytes);
    Services::new()
        .with(OwnerSessionServiceServer::new(sessions).max_decoding_message_size(message_bytes))
        .with(ElevationServiceServer::new(elevations).max_decoding_message_size(message_bytes))
        .with(OwnerServiceServer::new(owners).max_decoding_message_size(message_bytes))
        .with(RoleTokenServiceServer::new(tokens).max_decoding_message_size(message_bytes))
        .with(ProjectServiceServer::new(projects).max_decoding_message_size(message_bytes))
        .with(IdentityServiceServer::new(identity).max_decoding_message_size(message_bytes))
        .with(trust)
}

/// One request behind gate 1.
struct Asked<T> {
    /// What the server knows of it.
    served: Arc<serve::Call>,
    /// Who asks.
    caller: Caller,
    /// The bearer credential, where there is a well-formed one.
    bearer: Option<Credential>,
    /// The message.
    message: T,
}

impl<T> Asked<T> {
    fn of(mut request: Request<T>) -> Self {
        let (served, caller) = authn::caller::<Caller, T>(&mut request);
        let bearer = bearer(&request);
        Self { served, caller, bearer, message: request.into_inner() }
    }

    /// What verbs see of it.
    fn call(&self) -> Call {
        admit::call_of(&self.served, self.caller.clone())
    }

    /// The bearer credential.
    ///
    /// # Errors
    /// The one refusal for a missing and a malformed one.
    fn bearer(&self) -> Result<&Credential, Error> {
        self.bearer.as_ref().ok_or_else(authn::login_required)
    }

    /// The answer to a refusal or a fault. Faults are logged here, once.
    fn refuse(&self, error: &Error) -> Status {
        refuse(&self.served.request_id, error)
    }
}

fn refuse(request_id: &str, error: &Error) -> Status {
    if matches!(error.reason(), Reason::Internal | Reason::StorageError | Reason::StoreUnavailable) {
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(request_id, reason = %error.reason(), source, "{error}");
    }
    error.to_status(request_id)
}

/// RFC 6750 section 2.1. Gate 1 has refused more than one.
fn bearer<T>(request: &Request<T>) -> Option<Credential> {
    let text = request.metadata().get(metadata::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credential) = text.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("bearer");
    known.then(|| Credential::parse(credential.trim()).ok()).flatten()
}

/// Decode, verb, encode: `work` gets the request, and its refusal gets the request's id.
async fn answer<T, R>(
    request: Request<T>,
    work: impl AsyncFnOnce(&Asked<T>) -> Result<R, Error>,
) -> Result<Response<R>, Status> {
    let asked = Asked::of(request);
    work(&asked).await.map(Response::new).map_err(|error| asked.refuse(&error))
}
