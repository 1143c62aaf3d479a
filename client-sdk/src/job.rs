//! Jobs: work submitted to the agent that a session is bound to.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use interlock_proto::gateway::v1 as wire;
use tokio::time::Instant;

use crate::{
    clock::from_wire,
    error::Error,
    event::{Binding, JobState},
    gateway::{Gateway, PAGE, PAGES_MAX, present},
    path, random,
};

/// The longest that the server parks one wait.
const PARK_MAX: Duration = Duration::from_secs(60);
/// How long one question of an endless wait parks.
const PARK: Duration = Duration::from_secs(30);

/// A job. `Debug` shows neither payload nor result.
#[derive(Clone, PartialEq, Eq)]
pub struct Job {
    /// `job_…`.
    pub job_id: String,
    /// The session it was submitted to.
    pub session_id: String,
    /// The binding it runs under, for its whole life.
    pub binding: Binding,
    /// Where it is in its life.
    pub state: JobState,
    /// How many attempts have started.
    pub attempt: u32,
    /// When it was submitted.
    pub submitted_at: Option<SystemTime>,
    /// When the present or last attempt started.
    pub started_at: Option<SystemTime>,
    /// When it ended.
    pub ended_at: Option<SystemTime>,
    /// What was submitted. Empty in lists.
    pub payload: Bytes,
    /// What its worker answered. Empty in lists.
    pub result: Bytes,
    /// Why it failed or was cancelled.
    pub cause: String,
    /// Whether someone asked to cancel it.
    pub cancel_requested: bool,
}

/// Jobs, as one caller sees them. From [`Gateway::jobs`].
#[derive(Clone, Debug)]
pub struct Jobs(Gateway);

impl Jobs {
    pub(crate) fn of(gateway: Gateway) -> Self {
        Self(gateway)
    }

    /// Queues a job under the session's binding; `payload` is 0 to 256 KiB. Makes a request id, so
    /// that a repetition after a lost answer queues nothing twice.
    ///
    /// # Errors
    /// `SESSION_BUSY`, `SESSION_UNBOUND`, `SESSION_CLOSING`, `LIMIT_REACHED`.
    pub async fn submit(&self, session_id: &str, payload: impl Into<Bytes>) -> Result<Job, Error> {
        self.submit_as(session_id, &random::id(), payload).await
    }

    /// The same under the caller's own request id (1 to 64 characters): for programs that may die and
    /// come back between asking and hearing the answer.
    ///
    /// # Errors
    /// As [`Jobs::submit`]; `REQUEST_ID_REUSED` where the id went with another payload.
    pub async fn submit_as(
        &self,
        session_id: &str,
        request_id: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Job, Error> {
        let request = wire::SubmitJobRequest {
            session_id: session_id.to_owned(),
            request_id: request_id.to_owned(),
            payload: payload.into(),
        };
        let answer: wire::SubmitJobResponse = self.0.call(path::SUBMIT_JOB, request).await?;
        Ok(present(answer.job, "job")?.into())
    }

    /// Reads one job with its payload and result.
    ///
    /// # Errors
    /// `OWNER_MISMATCH` where it is another owner's or does not exist.
    pub async fn get(&self, job_id: &str) -> Result<Job, Error> {
        let request = wire::GetJobRequest { job_id: job_id.to_owned() };
        let answer: wire::GetJobResponse = self.0.call(path::READ_JOB, request).await?;
        Ok(present(answer.job, "job")?.into())
    }

    /// A session's jobs, newest first, without payloads and results. All pages, at most 50,000.
    ///
    /// # Errors
    /// `OWNER_MISMATCH` where the session is another owner's or does not exist.
    pub async fn list(&self, session_id: &str, in_flight: bool) -> Result<Vec<Job>, Error> {
        let mut jobs = Vec::new();
        let mut page_token = String::new();
        for _ in 0..PAGES_MAX {
            let request = wire::ListJobsRequest {
                session_id: session_id.to_owned(),
                in_flight,
                page_size: PAGE,
                page_token,
            };
            let page: wire::ListJobsResponse = self.0.call(path::LIST_JOBS, request).await?;
            jobs.extend(page.jobs.into_iter().map(Job::from));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(jobs)
    }

    /// Waits until a job has ended, however long that takes.
    ///
    /// # Errors
    /// What a question ended in, after the repetitions that make sense.
    pub async fn wait(&self, job_id: &str) -> Result<Job, Error> {
        loop {
            let job = self.wait_once(job_id, PARK).await?;
            if !job.state.is_in_flight() {
                return Ok(job);
            }
        }
    }

    /// Waits until a job has ended or `at_most` has passed, and answers with the job as it is then.
    ///
    /// # Errors
    /// As [`Jobs::wait`].
    pub async fn wait_for(&self, job_id: &str, at_most: Duration) -> Result<Job, Error> {
        let until = Instant::now() + at_most;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let job = self.wait_once(job_id, left.min(PARK_MAX)).await?;
            if !job.state.is_in_flight() || Instant::now() >= until {
                return Ok(job);
            }
        }
    }

    async fn wait_once(&self, job_id: &str, wait: Duration) -> Result<Job, Error> {
        let parked = wait.try_into().map_err(|_| Error::invalid("wait", "0 to 60 s"))?;
        let request = wire::WaitJobRequest { job_id: job_id.to_owned(), wait: Some(parked) };
        let answer: wire::WaitJobResponse = self.0.call_parking(path::WAIT_JOB, request, wait).await?;
        Ok(present(answer.job, "job")?.into())
    }

    /// Cancels a queued job at once; asks the worker of a running one. Repeating it is no error.
    ///
    /// # Errors
    /// `JOB_TERMINAL` where it has ended.
    pub async fn cancel(&self, job_id: &str) -> Result<Job, Error> {
        let request = wire::CancelJobRequest { job_id: job_id.to_owned() };
        let answer: wire::CancelJobResponse = self.0.call(path::CANCEL_JOB, request).await?;
        Ok(present(answer.job, "job")?.into())
    }
}

impl Jobs {
    /// Fails a job in flight, whatever its worker says. For administrators with the root condition.
    ///
    /// # Errors
    /// `FORBIDDEN`, `ROOT_REQUIRED`; `JOB_TERMINAL` where it has ended otherwise.
    pub async fn force_fail(&self, job_id: &str, cause: &str) -> Result<Job, Error> {
        let request = wire::ForceFailJobRequest { job_id: job_id.to_owned(), cause: cause.to_owned() };
        let answer: wire::ForceFailJobResponse = self.0.call(path::FORCE_FAIL_JOB, request).await?;
        Ok(present(answer.job, "job")?.into())
    }
}

impl From<wire::Job> for Job {
    fn from(j: wire::Job) -> Self {
        let state = j.state().into();
        Self {
            job_id: j.job_id,
            session_id: j.session_id,
            binding: j.binding.unwrap_or_default().into(),
            state,
            attempt: j.attempt,
            submitted_at: from_wire(j.submitted_at),
            started_at: from_wire(j.started_at),
            ended_at: from_wire(j.ended_at),
            payload: j.payload,
            result: j.result,
            cause: j.cause,
            cancel_requested: j.cancel_requested,
        }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("job_id", &self.job_id)
            .field("state", &self.state)
            .field("binding", &self.binding)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
