//! What a server serves, and the start-up check that all of it has a policy.
//!
//! A call goes to the service that its policy is of, and that one knows its methods. A general router between the two
//! costs a call a fifth of all its allocations: it matches patterns, and wraps both bodies once more.

use std::{collections::HashMap, convert::Infallible, fmt, sync::Arc};

use http::{Request, Response};
use interlock_proto::policy::{self, MethodPolicy, Policies};
use prost::Message as _;
use tonic::{Status, body::Body, codegen::BoxFuture, server::NamedService};
use tower::Service;

use super::{bounds::Answer, call::Call, peer::Peer};

/// gRPC services by name. The same ones are served on every TLS listener; each method's policy says
/// which listeners may reach it.
#[derive(Clone, Default)]
pub struct Services {
    served: Vec<Arc<Serve>>,
    names: Vec<&'static str>,
}

type Serve = dyn Fn(Request<Body>) -> BoxFuture<Response<Body>, Infallible> + Send + Sync;

/// Who answers the calls of which method, by the number of its policy.
#[derive(Clone)]
pub(crate) struct Routes(Arc<[Option<Arc<Serve>>]>);

/// Methods that would be served without a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("served without a policy: {}", .0.join(", "))]
pub struct WithoutPolicy(pub Vec<String>);

impl Services {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a generated service. Tell it `max_decoding_message_size` first: `ServerLimits` has it.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<
                Request<Body>,
                Response = Response<Body>,
                Error = Infallible,
                Future = BoxFuture<Response<Body>, Infallible>,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        self.names.push(S::NAME);
        // Generated services are always ready.
        let serve: Arc<Serve> = Arc::new(move |request| service.clone().call(request));
        self.served.push(serve);
        self
    }

    /// The full names of the services.
    #[must_use]
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    pub(super) fn into_routes(self) -> Routes {
        let by_name: HashMap<_, _> = self.names.into_iter().zip(self.served).collect();
        let of = |policy: &MethodPolicy| {
            let (service, _) = policy.path.strip_prefix('/')?.split_once('/')?;
            by_name.get(service).cloned()
        };
        Routes(Policies::all().iter().map(of).collect())
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Routes {
    /// The answer to a request for a method; for one of a service that is not here, that there is none.
    pub(crate) async fn serve(&self, method: &MethodPolicy, request: Request<Body>) -> Response<Body> {
        let Some(serve) = self.0.get(method.number).and_then(Option::as_ref) else {
            return Status::unimplemented("").into_http();
        };
        match serve(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }
}

/// Without a gate before them: what anyone may call.
impl Answer for Routes {
    async fn answer(&self, call: Call, _: &Peer, request: Request<Body>) -> Response<Body> {
        self.serve(call.policy, request).await
    }
}

/// Whether every method of these services has a policy, health and reflection included.
///
/// # Errors
/// [`WithoutPolicy`], naming each method that has none, and each service that no descriptor tells of.
pub fn check_policies(services: &[&str]) -> Result<(), WithoutPolicy> {
    let policies = Policies::all();
    let mut faults = Vec::new();
    for service in services {
        match methods(service) {
            None => faults.push(format!("/{service}/*")),
            Some(paths) => faults.extend(paths.into_iter().filter(|path| policies.of(path).is_none())),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(WithoutPolicy(faults)) }
}

/// The paths of a service's methods, as its descriptor has them.
fn methods(service: &str) -> Option<Vec<String>> {
    let path = |method: &str| format!("/{service}/{method}");
    if let Some(ours) = policy::descriptors().get_service_by_name(service) {
        return Some(ours.methods().map(|method| path(method.name())).collect());
    }
    let foreign = [
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files = foreign
        .into_iter()
        .flat_map(|set| prost_types::FileDescriptorSet::decode(set).expect("the library read its own").file);
    files.into_iter().find_map(|file| {
        let package = file.package().to_owned();
        let found = file.service.iter().find(|s| format!("{package}.{}", s.name()) == service)?;
        Some(found.method.iter().map(|method| path(method.name())).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_served_today_has_a_policy() {
        let ours: Vec<_> = policy::descriptors().services().map(|s| s.full_name().to_owned()).collect();
        let mut names: Vec<_> = ours.iter().map(String::as_str).collect();
        names.extend([
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ]);
        assert_eq!(check_policies(&names), Ok(()));
    }

    #[test]
    fn a_service_that_nobody_described_is_named() {
        let fault = check_policies(&["backdoor.v1.Shell"]).expect_err("unknown");
        assert_eq!(fault.to_string(), "served without a policy: /backdoor.v1.Shell/*");
    }
}
