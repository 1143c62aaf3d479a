//! JobService.

use std::sync::Arc;

use interlock_proto::gateway::v1::{
    CancelJobRequest, CancelJobResponse, ForceFailJobRequest, ForceFailJobResponse, GetJobRequest,
    GetJobResponse, ListJobsRequest, ListJobsResponse, SubmitJobRequest, SubmitJobResponse, WaitJobRequest,
    WaitJobResponse, job_service_server::JobService,
};
use tonic::{Request, Response, Status};

use super::{Front, parts, wire};
use crate::{
    ids::{JobId, RequestId, SessionId},
    job::{Cancel, ForceFail, GetJob, ListJobs, Submit},
    waits,
};

pub(super) struct Rpc(pub(super) Arc<Front>);

#[tonic::async_trait]
impl JobService for Rpc {
    async fn submit_job(
        &self,
        request: Request<SubmitJobRequest>,
    ) -> Result<Response<SubmitJobResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let session = SessionId::parse(request.session_id)?;
            let caller = admitted.for_session(&session);
            let ticket = RequestId::parse(request.request_id)?;
            let submit =
                Submit { id: JobId::new(), session, request: ticket, payload: request.payload.into() };
            let told = self.0.run(&call, &caller, submit).await?;
            Ok(told.map(|job| SubmitJobResponse { job: Some(wire::job(job)) }))
        };
        self.0.answer(&call, work).await
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<GetJobResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let job = JobId::parse(request.job_id)?;
            let told = self.0.ask(&call, &admitted.caller, GetJob { job }).await?;
            Ok(told.map(|whole| GetJobResponse { job: Some(wire::whole_job(whole)) }))
        };
        self.0.answer(&call, work).await
    }

    async fn list_jobs(
        &self,
        request: Request<ListJobsRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let ListJobsRequest { session_id, in_flight, page_size, page_token } = request;
            let session = SessionId::parse(session_id)?;
            let caller = admitted.for_session(&session);
            let told =
                self.0.ask(&call, &caller, ListJobs { session, in_flight, page_size, page_token }).await?;
            Ok(told.map(|page| ListJobsResponse {
                jobs: page.jobs.into_iter().map(wire::job).collect(),
                next_page_token: page.next_page_token,
            }))
        };
        self.0.answer(&call, work).await
    }

    async fn wait_job(&self, request: Request<WaitJobRequest>) -> Result<Response<WaitJobResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let job = JobId::parse(request.job_id)?;
            let told = waits::until_ended(&self.0, &call, &admitted, job, wire::wait(request.wait)?).await?;
            Ok(told.map(|whole| WaitJobResponse { job: Some(wire::whole_job(whole)) }))
        };
        self.0.answer(&call, work).await
    }

    async fn force_fail_job(
        &self,
        request: Request<ForceFailJobRequest>,
    ) -> Result<Response<ForceFailJobResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let force = ForceFail { job: JobId::parse(request.job_id)?, cause: request.cause };
            let told = self.0.run(&call, &admitted.caller, force).await?;
            Ok(told.map(|job| ForceFailJobResponse { job: Some(wire::job(job)) }))
        };
        self.0.answer(&call, work).await
    }

    async fn cancel_job(
        &self,
        request: Request<CancelJobRequest>,
    ) -> Result<Response<CancelJobResponse>, Status> {
        let (call, admitted, request) = parts(request);
        let work = async {
            let job = JobId::parse(request.job_id)?;
            let told = self.0.run(&call, &admitted.caller, Cancel { job }).await?;
            Ok(told.map(|job| CancelJobResponse { job: Some(wire::job(job)) }))
        };
        self.0.answer(&call, work).await
    }
}
