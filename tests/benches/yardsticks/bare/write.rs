//! Answers `SubmitJob` when the rows of a submit are durable: hand-written statements, many calls in one
//! commit, no check of anything. The tables are the services' own, so that both sides write the same rows into
//! the same indexes; the connection is opened as the services open theirs (WAL, `synchronous=FULL`).

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use interlock_kit::{
    clock::{Clock, Timestamp},
    random,
    store::{
        sqlite::{self, Place},
        writer::QueueLimits,
    },
};
use interlock_proto::gateway::v1::{
    Binding, CancelJobRequest, CancelJobResponse, GetJobRequest, GetJobResponse, Job, JobState,
    ListJobsRequest, ListJobsResponse, SubmitJobRequest, SubmitJobResponse, WaitJobRequest, WaitJobResponse,
    job_service_server::JobService,
};
use rusqlite::{Connection, params};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

const TABLES: [&str; 2] = [
    include_str!("../../../../service-kit/migrations/sqlite/V1__audit.sql"),
    include_str!("../../../../gateway-service/migrations/sqlite/V1__gateway.sql"),
];
const WRITER: &str = "wrt_0190a3b0f5d27c5e8a1b2c3d4e5f6071";
const PROJECT: &str = "prj_0190a3b0f5d27c5e8a1b2c3d4e5f6071";
const AGENT: &str = "a-o127";
const OWNER: &str = "o127";
const CREDENTIAL: &str = "crd_0190a3b0f5d27c5e8a1b2c3d4e5f6071";
const DAY_US: i64 = 86_400_000_000;

/// One submit on its way to the writer.
struct Waiting {
    request: SubmitJobRequest,
    reply: oneshot::Sender<Job>,
}

pub(crate) struct Write {
    queue: mpsc::Sender<Waiting>,
}

impl Write {
    /// Makes the store in this folder and starts its writer.
    pub(crate) fn open(folder: &Path) -> Self {
        let connection = sqlite::connect(&Place::File(folder.join("bare.db"))).expect("a store");
        connection.execute_batch(&TABLES.concat()).expect("tables");
        let limits = QueueLimits::default();
        let (queue, waiting) = mpsc::channel(limits.waiting_max);
        let writer = std::thread::Builder::new().name("bare-writer".to_owned());
        writer.spawn(move || drain(connection, waiting, limits.batch_max)).expect("a thread");
        Self { queue }
    }
}

/// Takes what waits, writes it in one transaction, and answers.
fn drain(mut connection: Connection, mut waiting: mpsc::Receiver<Waiting>, batch_max: usize) {
    let (clock, number) = (Clock::system(), AtomicU64::new(0));
    let mut batch = Vec::with_capacity(batch_max);
    while waiting.blocking_recv_many(&mut batch, batch_max) > 0 {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let jobs = write(&mut connection, &batch, number, clock.now()).expect("written");
        for (waiting, job) in batch.drain(..).zip(jobs) {
            // Who has gone is told nothing.
            let _ = waiting.reply.send(job);
        }
    }
}

fn write(
    connection: &mut Connection,
    batch: &[Waiting],
    number: u64,
    now: Timestamp,
) -> rusqlite::Result<Vec<Job>> {
    let transaction = connection.transaction()?;
    let jobs = batch.iter().map(|waiting| submit(&transaction, &waiting.request, number, now));
    let jobs = jobs.collect::<rusqlite::Result<_>>()?;
    transaction
        .prepare_cached(
            "INSERT INTO audit_batch (writer, number, at, entries, sealed, link) VALUES (?1, ?2, ?3, ?4, 0, ?5)",
        )?
        .execute(params![WRITER, number, now.as_micros(), batch.len(), [7_u8; 32]])?;
    transaction.prepare_cached("UPDATE moment SET at = ?1")?.execute([now.as_micros()])?;
    transaction.commit()?;
    Ok(jobs)
}

fn submit(
    connection: &Connection,
    request: &SubmitJobRequest,
    number: u64,
    now: Timestamp,
) -> rusqlite::Result<Job> {
    let (id, session, at) = (random::id("job"), &request.session_id, now.as_micros());
    connection
        .prepare_cached(
            "INSERT INTO job (id, session, owner, client, agent, project, epoch, state, attempt, lost, fencing,
                              progress, submitted_at, cause, ended_by)
             VALUES (?1, ?2, ?3, NULL, ?4, ?5, 1, 0, 0, 0, 0, 0, ?6, '', 0)",
        )?
        .execute(params![id, session, OWNER, AGENT, PROJECT, at])?;
    connection
        .prepare_cached("INSERT INTO payload (job, data) VALUES (?1, ?2)")?
        .execute(params![id, &request.payload[..]])?;
    let hash: [u8; 32] = Sha256::digest(&request.payload).into();
    connection
        .prepare_cached(
            "INSERT INTO request (kind, scope, id, hash, made, sealed, kept_until)
             VALUES (1, ?1, ?2, ?3, ?4, x'', ?5)",
        )?
        .execute(params![session, request.request_id, hash, id, at + DAY_US])?;
    let facts = format!(r#"{{"job_queued":{{"job":"{id}"}}}}"#);
    let sequence: u64 = connection
        .prepare_cached(
            "INSERT INTO log_head (session, first, last, bytes, first_at) VALUES (?1, 1, 1, ?2, ?3)
             ON CONFLICT (session) DO UPDATE SET last = last + 1, bytes = bytes + ?2 RETURNING last",
        )?
        .query_row(params![session, facts.len(), at], |row| row.get(0))?;
    connection
        .prepare_cached(
            "INSERT INTO event (session, sequence, at, project, epoch, format, facts, data)
             VALUES (?1, ?2, ?3, ?4, 1, 1, ?5, x'')",
        )?
        .execute(params![session, sequence, at, PROJECT, facts])?;
    connection
        .prepare_cached(
            "INSERT INTO audit (writer, number, at, principal, role, credential_id, peer, request_id, rpc, action,
                                outcome, reason, subject, scope, detail, count)
             VALUES (?1, ?2, ?3, ?4, 'user', ?5, '127.0.0.1:50000', ?6,
                     '/interlock.gateway.v1.JobService/SubmitJob', 'job.submit', 'done', '', ?7, ?8, '', 1)",
        )?
        .execute(params![WRITER, number, at, OWNER, CREDENTIAL, WRITER, id, PROJECT])?;
    Ok(Job {
        job_id: id,
        session_id: session.clone(),
        binding: Some(Binding { agent_id: AGENT.to_owned(), project_id: PROJECT.to_owned(), epoch: 1 }),
        state: JobState::Queued.into(),
        submitted_at: Some(now.to_wire()),
        ..Job::default()
    })
}

#[tonic::async_trait]
impl JobService for Write {
    async fn submit_job(
        &self,
        request: Request<SubmitJobRequest>,
    ) -> Result<Response<SubmitJobResponse>, Status> {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { request: request.into_inner(), reply };
        self.queue.try_send(waiting).map_err(|_| Status::resource_exhausted("the queue is full"))?;
        let job = answer.await.map_err(|_| Status::unavailable("the writer has ended"))?;
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
}

fn writes_only() -> Status {
    Status::unimplemented("takes submits only")
}
