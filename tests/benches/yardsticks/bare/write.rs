//! Answers `SubmitJob` when the rows of a submit are durable.

use std::path::Path;

use interlock_kit::{clock::Timestamp, random, store::postgres::bind};
use interlock_proto::gateway::v1::{
    self as wire, Binding, CancelJobRequest, CancelJobResponse, GetJobRequest, GetJobResponse, Job, JobState,
    ListJobsRequest, ListJobsResponse, SubmitJobRequest, SubmitJobResponse, WaitJobRequest, WaitJobResponse,
    job_service_server::JobService,
};
use rusqlite::params;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use super::{
    grouped::{AGENT, Batch, Belongs, Grouped, PROJECT},
    there::{Rows, There},
};

const DAY_US: i64 = 86_400_000_000;

pub(crate) enum Write {
    Here(Grouped),
    There(There),
}

impl Write {
    /// Makes the store in this folder and starts its writer, which commits so many calls together at most.
    pub(crate) fn open(folder: &Path, together: usize) -> Self {
        Self::Here(Grouped::committing(folder, together))
    }

    /// The same in this database.
    pub(crate) fn open_there(url: &str, together: usize) -> Self {
        Self::There(There::committing(url, together))
    }
}

/// The rows of a submit.
pub(crate) fn submit(batch: &Batch<'_>, request: &SubmitJobRequest) -> rusqlite::Result<Job> {
    let (id, session, at) = (random::id("job"), &request.session_id, batch.at());
    let Belongs { owner, agent, project } = Belongs::of(session);
    batch.one(
        "INSERT INTO job (id, session, owner, client, agent, project, epoch, state, attempt, lost, fencing,
                          progress, submitted_at, cause, ended_by)
         VALUES (?1, ?2, ?3, NULL, ?4, ?5, 1, 0, 0, 0, 0, 0, ?6, '', 0)",
        params![id, session, owner, agent, project, at],
    )?;
    batch.one("INSERT INTO payload (job, data) VALUES (?1, ?2)", params![id, &request.payload[..]])?;
    let hash: [u8; 32] = Sha256::digest(&request.payload).into();
    batch.one(
        "INSERT INTO request (kind, scope, id, hash, made, sealed, kept_until)
         VALUES (1, ?1, ?2, ?3, ?4, x'', ?5)",
        params![session, request.request_id, hash, id, at + DAY_US],
    )?;
    batch.append(session, 1, &format!(r#"{{"job_queued":{{"job":"{id}"}}}}"#))?;
    batch.audit("/interlock.gateway.v1.JobService/SubmitJob", "job.submit", &id, "")?;
    Ok(queued(id, session, batch.now()))
}

/// The same in PostgreSQL.
fn submit_there(there: &There, request: SubmitJobRequest) -> (Job, Rows) {
    let mut rows = there.rows();
    let (id, session, at) = (random::id("job"), request.session_id, rows.at());
    let Belongs { owner, agent, project } = Belongs::of(&session);
    rows.one(
        "INSERT INTO job (id, session, owner, client, agent, project, epoch, state, attempt, lost, fencing,
                          progress, submitted_at, cause, ended_by)
         VALUES ($1, $2, $3, NULL, $4, $5, 1, 0, 0, 0, 0, 0, $6, '', 0)",
        [bind(id.clone()), bind(session.clone()), bind(owner), bind(agent), bind(project), bind(at)],
    );
    let hash = Sha256::digest(&request.payload).to_vec();
    rows.one(
        "INSERT INTO payload (job, data) VALUES ($1, $2)",
        [bind(id.clone()), bind(request.payload.to_vec())],
    );
    rows.one(
        "INSERT INTO request (kind, scope, id, hash, made, sealed, kept_until) VALUES (1, $1, $2, $3, $4, '', $5)",
        [
            bind(session.clone()),
            bind(request.request_id),
            bind(hash),
            bind(id.clone()),
            bind(at + DAY_US),
        ],
    );
    rows.append(&session, 1, format!(r#"{{"job_queued":{{"job":"{id}"}}}}"#));
    rows.audit("/interlock.gateway.v1.JobService/SubmitJob", "job.submit", &id, String::new());
    (queued(id, &session, rows.now()), rows)
}

fn queued(job_id: String, session: &str, at: Timestamp) -> Job {
    Job {
        job_id,
        session_id: session.to_owned(),
        binding: Some(Binding { agent_id: AGENT.to_owned(), project_id: PROJECT.to_owned(), epoch: 1 }),
        state: JobState::Queued.into(),
        submitted_at: Some(at.to_wire()),
        ..Job::default()
    }
}

#[tonic::async_trait]
impl JobService for Write {
    async fn submit_job(
        &self,
        request: Request<SubmitJobRequest>,
    ) -> Result<Response<SubmitJobResponse>, Status> {
        let request = request.into_inner();
        let job = match self {
            Self::Here(grouped) => grouped.durable(move |batch| submit(batch, &request)).await?,
            Self::There(there) => {
                let (job, rows) = submit_there(there, request);
                there.durable(rows).await?;
                job
            }
        };
        Ok(Response::new(SubmitJobResponse { job: Some(job) }))
    }

    async fn get_job(&self, _: Request<GetJobRequest>) -> Result<Response<GetJobResponse>, Status> {
        Err(writes_only())
    }

    async fn list_jobs(&self, _: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        Err(writes_only())
    }

    async fn wait_job(&self, _: Request<WaitJobRequest>) -> Result<Response<WaitJobResponse>, Status> {
        Err(writes_only())
    }

    async fn cancel_job(&self, _: Request<CancelJobRequest>) -> Result<Response<CancelJobResponse>, Status> {
        Err(writes_only())
    }

    async fn force_fail_job(
        &self,
        _: Request<wire::ForceFailJobRequest>,
    ) -> Result<Response<wire::ForceFailJobResponse>, Status> {
        Err(writes_only())
    }
}

fn writes_only() -> Status {
    Status::unimplemented("takes submits only")
}
