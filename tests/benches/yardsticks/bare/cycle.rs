//! The bare pair of handlers that a job goes through: queued by `SubmitJob`, leased to the worker whose stream
//! is named like the session, finished by that worker. Three grouped transactions with the rows that ours writes;
//! each message is served by itself, in whatever order they become durable.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use interlock_proto::gateway::v1::{
    self as wire, Binding, CancelJobRequest, CancelJobResponse, GetJobRequest, GetJobResponse, Held,
    JobState, ListJobsRequest, ListJobsResponse, SubmitJobRequest, SubmitJobResponse, WaitJobRequest,
    WaitJobResponse, WorkRequest, WorkResponse,
    job_service_server::JobService,
    work_request::{Finish, Message as Asked},
    work_response::{Assignment, Finished, Message as Told, Welcome},
    worker_service_server::WorkerService,
};
use rusqlite::params;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    grouped::{AGENT, Batch, Grouped, OWNER, PROJECT},
    write,
};

/// Messages between a worker's task and its connection.
const ROOM: usize = 64;
const LEASE: prost_types::Duration = prost_types::Duration { seconds: 10, nanos: 0 };
const RUN_TIME: prost_types::Duration = prost_types::Duration { seconds: 21_600, nanos: 0 };
const LEASE_US: i64 = 10_000_000;
const WORK: &str = "/interlock.gateway.v1.WorkerService/Work";

/// Both handlers, over one writer.
#[derive(Clone)]
pub(crate) struct Cycle {
    writer: Arc<Grouped>,
    workers: Arc<Mutex<HashMap<String, mpsc::UnboundedSender<Queued>>>>,
}

/// A durable job on its way to its worker.
struct Queued {
    job: String,
    request: SubmitJobRequest,
}

/// What a worker's stream does next.
enum Step {
    Lease(Queued),
    Finish(Finish, String),
}

impl Cycle {
    /// Makes the store in this folder and starts its writer.
    pub(crate) fn open(folder: &Path) -> Self {
        Self { writer: Arc::new(Grouped::open(folder)), workers: Arc::default() }
    }

    async fn step(&self, step: Step) -> Result<WorkResponse, Status> {
        let told = match step {
            Step::Lease(Queued { job, request }) => {
                let (id, session) = (job.clone(), request.session_id.clone());
                self.writer.durable(move |batch| lease(batch, &id, &session)).await?;
                let binding =
                    Binding { agent_id: AGENT.to_owned(), project_id: PROJECT.to_owned(), epoch: 1 };
                Told::Assignment(Assignment {
                    held: Some(Held { job_id: job, fencing_token: 1 }),
                    session_id: request.session_id,
                    binding: Some(binding),
                    attempt: 1,
                    payload: request.payload,
                    lease: Some(LEASE),
                    run_time_left: Some(RUN_TIME),
                })
            }
            Step::Finish(finish, session) => {
                let held = finish.held.clone();
                self.writer.durable(move |batch| end(batch, &finish, &session)).await?;
                Told::Finished(Finished { held, state: JobState::Succeeded.into() })
            }
        };
        Ok(WorkResponse { message: Some(told) })
    }

    /// One worker's stream, until it ends.
    async fn serve(
        self,
        mut asked: Streaming<WorkRequest>,
        told: mpsc::Sender<Result<WorkResponse, Status>>,
    ) -> Result<(), Status> {
        let Some(WorkRequest { message: Some(Asked::Hello(hello)) }) = asked.message().await? else {
            return Err(Status::invalid_argument("hello first"));
        };
        let session = hello.worker;
        let (queue, mut queued) = mpsc::unbounded_channel();
        self.workers.lock().expect("not poisoned").insert(session.clone(), queue);
        let welcome = Told::Welcome(Welcome { lease: Some(LEASE), ..Welcome::default() });
        // Who has gone is told nothing; then the stream ends, too.
        let _ = told.send(Ok(WorkResponse { message: Some(welcome) })).await;
        let mut steps = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(done) = steps.next() => {
                    let _ = told.send(done).await;
                }
                Some(job) = queued.recv() => steps.push(self.step(Step::Lease(job))),
                message = asked.message() => match message? {
                    Some(WorkRequest { message: Some(Asked::Finish(finish)) }) => {
                        steps.push(self.step(Step::Finish(finish, session.clone())));
                    }
                    Some(_) => return Err(Status::unimplemented("hello and finish only")),
                    None => return Ok(()),
                },
            }
        }
    }
}

const SET_JOB: &str =
    "UPDATE job SET state = ?2, attempt = ?3, lost = ?4, fencing = ?5, holder = ?6, worker = ?7,
            lease_until = ?8, progress = ?9, first_started_at = COALESCE(first_started_at, ?10),
            started_at = COALESCE(started_at, ?10), cancel_requested_at = NULL, ended_at = ?11, cause = '',
            ended_by = ?12
     WHERE id = ?1 AND state = ?13 AND fencing = ?14";

fn lease(batch: &Batch<'_>, job: &str, session: &str) -> rusqlite::Result<()> {
    let (none, at) = (None::<i64>, batch.at());
    batch.one(SET_JOB, params![job, 1, 1, 0, 1, OWNER, session, at + LEASE_US, 0, at, none, 0, 0, 0])?;
    let facts = format!(r#"{{"job_started":{{"job":"{job}","attempt":1,"worker":"{session}"}}}}"#);
    batch.append(session, 1, &facts)?;
    batch.audit(WORK, "worker.claim", job, &format!(r#"{{"attempt":1,"worker":"{session}"}}"#))
}

fn end(batch: &Batch<'_>, finish: &Finish, session: &str) -> rusqlite::Result<()> {
    let job = finish.held.as_ref().map_or("", |held| &held.job_id);
    let (none, at) = (None::<i64>, batch.at());
    batch.one(SET_JOB, params![job, 2, 1, 0, 1, OWNER, None::<&str>, none, 0, at, at, 1, 1, 1])?;
    batch.one("INSERT INTO result (job, data) VALUES (?1, ?2)", params![job, &finish.result[..]])?;
    let facts = format!(r#"{{"job_ended":{{"job":"{job}","outcome":"succeeded","cause":""}}}}"#);
    batch.append(session, 1, &facts)?;
    batch.audit(WORK, "worker.finish", job, "succeeded")
}

#[tonic::async_trait]
impl WorkerService for Cycle {
    type WorkStream = ReceiverStream<Result<WorkResponse, Status>>;

    async fn work(
        &self,
        request: Request<Streaming<WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let (told, answers) = mpsc::channel(ROOM);
        let cycle = self.clone();
        tokio::spawn(async move {
            if let Err(status) = cycle.serve(request.into_inner(), told.clone()).await {
                // Who has gone is told nothing.
                let _ = told.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

#[tonic::async_trait]
impl JobService for Cycle {
    async fn submit_job(
        &self,
        request: Request<SubmitJobRequest>,
    ) -> Result<Response<SubmitJobResponse>, Status> {
        let request = request.into_inner();
        let asked = request.clone();
        let job = self.writer.durable(move |batch| write::submit(batch, &asked)).await?;
        let queued = Queued { job: job.job_id.clone(), request };
        let workers = self.workers.lock().expect("not poisoned");
        let worker = workers.get(&queued.request.session_id);
        let worker = worker.ok_or_else(|| Status::failed_precondition("no worker of that session"))?;
        worker.send(queued).map_err(|_| Status::failed_precondition("its worker has gone"))?;
        Ok(Response::new(SubmitJobResponse { job: Some(job) }))
    }

    async fn get_job(&self, _: Request<GetJobRequest>) -> Result<Response<GetJobResponse>, Status> {
        Err(no_more())
    }

    async fn list_jobs(&self, _: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        Err(no_more())
    }

    async fn wait_job(&self, _: Request<WaitJobRequest>) -> Result<Response<WaitJobResponse>, Status> {
        Err(no_more())
    }

    async fn cancel_job(&self, _: Request<CancelJobRequest>) -> Result<Response<CancelJobResponse>, Status> {
        Err(no_more())
    }

    async fn force_fail_job(
        &self,
        _: Request<wire::ForceFailJobRequest>,
    ) -> Result<Response<wire::ForceFailJobResponse>, Status> {
        Err(no_more())
    }
}

fn no_more() -> Status {
    Status::unimplemented("queues and works jobs only")
}
