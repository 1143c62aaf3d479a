//! WorkerService.

use std::sync::Arc;

use interlock_proto::gateway::v1::{WorkRequest, WorkResponse, worker_service_server::WorkerService};
use tonic::{Request, Response, Status, Streaming};

use super::{Front, parts, refuse};
use crate::{outlet::Answers, work};

pub(super) struct Rpc(pub(super) Arc<Front>);

#[tonic::async_trait]
impl WorkerService for Rpc {
    type WorkStream = Answers<WorkResponse>;

    async fn work(
        &self,
        request: Request<Streaming<WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let (call, admitted, requests) = parts(request);
        let opened = work::open(&self.0, &call, &admitted, requests);
        opened.map(Response::new).map_err(|error| refuse(&error, &call.request_id))
    }
}
