//! `grpc.health.v1.Health`, fed from the server's own state.
//!
//! tonic-health ends a `Watch` of an unknown service with NOT_FOUND; its .proto says that it must
//! stay open with SERVICE_UNKNOWN. So the service is written here, on the library's messages.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use tokio_stream::{StreamExt as _, wrappers::WatchStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health as HealthRpc, HealthServer},
};

use crate::{health_state, serve::Services};

/// Largest request, bytes: a service name.
const REQUEST_BYTES_MAX: usize = 1024;

/// Answers how the server is: the same for the whole and for each service it names.
#[derive(Clone, Debug)]
pub struct Health {
    state: health_state::Health,
    names: Arc<[&'static str]>,
    shutdown: CancellationToken,
}

impl Health {
    /// SERVING while all conditions of `state` hold, and until `shutdown`; streams end then.
    #[must_use]
    pub fn new(state: health_state::Health, names: &[&'static str], shutdown: CancellationToken) -> Self {
        Self { state, names: names.into(), shutdown }
    }

    /// The service, for a server's [`Services`].
    #[must_use]
    pub fn server(&self) -> HealthServer<Self> {
        HealthServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    /// Health alone: what a health listener serves.
    #[must_use]
    pub fn services(&self) -> Services {
        Services::new().with(self.server())
    }

    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.names.contains(&service)
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn serving(ready: bool) -> ServingStatus {
    if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tonic::async_trait]
impl HealthRpc for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(Status::not_found("unknown service"));
        }
        let ready = self.state.ready() && !self.shutdown.is_cancelled();
        Ok(Response::new(answer(serving(ready))))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.knows(&request.get_ref().service);
        // A change that changes nothing for the watcher is not sent.
        let mut last = None;
        let states = WatchStream::new(self.state.subscribe()).filter_map(move |conditions| {
            let status = if known {
                serving(health_state::all_hold(&conditions))
            } else {
                ServingStatus::ServiceUnknown
            };
            (last.replace(status) != Some(status)).then(|| Ok(answer(status)))
        });
        let shutdown = self.shutdown.clone().cancelled_owned();
        let states = futures_util::StreamExt::take_until(states, shutdown);
        // Who watches for the end is told of it.
        let farewell = if known { ServingStatus::NotServing } else { ServingStatus::ServiceUnknown };
        let end = tokio_stream::once(Ok(answer(farewell)));
        Ok(Response::new(Box::pin(states.chain(end))))
    }
}
