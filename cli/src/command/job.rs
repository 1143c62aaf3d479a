//! `job submit|list|get|wait|cancel|force-fail`.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use interlock_client::{Job as Found, JobState, Jobs};
use interlock_proto::text::escaped;
use serde_json::{Value, json};

use crate::{
    args::Common,
    command::{
        duration,
        member::{gateway_of, id_of},
        signed_in,
    },
    context::Caller,
    failure::{FAILED, Failure},
    output::{Format, instant, table},
};

/// The largest payload that the gateway takes, in bytes.
const PAYLOAD_MAX: u64 = 256 * 1024;

/// What to do with jobs.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Job {
    /// Submit a job to a session.
    Submit {
        /// The session, by name or id.
        session: String,
        /// What to run, as the worker gets it on standard input; `-` reads standard input.
        #[arg(required_unless_present = "file")]
        payload: Option<String>,
        /// Read it from this file.
        #[arg(long, conflicts_with = "payload")]
        file: Option<PathBuf>,
        /// Your own id for this request: the same id and payload is one job, however often it is sent.
        #[arg(long)]
        request_id: Option<String>,
        /// Wait until it has ended; exit code 1 unless it succeeded.
        #[arg(long)]
        wait: bool,
    },
    /// List a session's jobs, newest first.
    List {
        /// The session, by name or id.
        session: String,
        /// Only jobs in flight.
        #[arg(long)]
        in_flight: bool,
    },
    /// Show a job with its result.
    Get {
        /// The job.
        job: String,
        #[command(flatten)]
        of: Of,
    },
    /// Wait until a job has ended; exit code 1 unless it succeeded.
    Wait {
        /// The job.
        job: String,
        /// Give up after this long, with exit code 1.
        #[arg(long, value_parser = duration)]
        timeout: Option<Duration>,
        #[command(flatten)]
        of: Of,
    },
    /// Fail a job in flight, whatever its worker says: for administrators, with root unlocked or the admin token.
    ForceFail {
        /// The job.
        job: String,
        /// Why.
        #[arg(long, default_value = "")]
        cause: String,
    },
    /// Cancel a queued job; ask the worker of a running one.
    Cancel {
        /// The job.
        job: String,
        #[command(flatten)]
        of: Of,
    },
}

/// On what to call about a job.
#[derive(Debug, clap::Args)]
pub(crate) struct Of {
    /// The job's session: who has joined it and is not signed in calls as its client.
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
}

impl Of {
    async fn jobs(&self, caller: &Caller, common: &Common) -> Result<Jobs, Failure> {
        let gateway = match &self.session {
            Some(session) => gateway_of(caller, common, &id_of(caller, common, session).await?).await?,
            None => signed_in(common)?.scoped().await?,
        };
        Ok(gateway.jobs())
    }
}

/// Does it.
///
/// # Errors
/// What gateway-service refuses.
pub(crate) async fn run(job: Job, common: &Common) -> Result<ExitCode, Failure> {
    let caller = Caller::open(common)?;
    match job {
        Job::Submit { session, payload, file, request_id, wait } => {
            let id = id_of(&caller, common, &session).await?;
            let payload = read_payload(payload.as_deref(), file.as_deref())?;
            let jobs = gateway_of(&caller, common, &id).await?.jobs();
            let submitted = match request_id {
                Some(request_id) => jobs.submit_as(&id, &request_id, payload).await?,
                None => jobs.submit(&id, payload).await?,
            };
            if wait {
                return ended(&jobs, &submitted.job_id, None, common.output).await;
            }
            print(&submitted, common.output)?;
        }
        Job::List { session, in_flight } => {
            let id = id_of(&caller, common, &session).await?;
            let found = gateway_of(&caller, common, &id).await?.jobs().list(&id, in_flight).await?;
            let rows: Vec<_> = found.iter().map(row).collect();
            let heading = ["ID", "STATE", "AGENT", "ATTEMPT", "SUBMITTED", "ENDED"];
            common.output.print(&table(&heading, &rows), &Value::Array(found.iter().map(shown).collect()))?;
        }
        Job::Get { job, of } => print(&of.jobs(&caller, common).await?.get(&job).await?, common.output)?,
        Job::Wait { job, timeout, of } => {
            return ended(&of.jobs(&caller, common).await?, &job, timeout, common.output).await;
        }
        Job::ForceFail { job, cause } => {
            let jobs = signed_in(common)?.scoped().await?.jobs();
            print(&jobs.force_fail(&job, &cause).await?, common.output)?;
        }
        Job::Cancel { job, of } => {
            print(&of.jobs(&caller, common).await?.cancel(&job).await?, common.output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn ended(
    jobs: &Jobs,
    id: &str,
    timeout: Option<Duration>,
    format: Format,
) -> Result<ExitCode, Failure> {
    let job = match timeout {
        Some(at_most) => jobs.wait_for(id, at_most).await?,
        None => jobs.wait(id).await?,
    };
    print(&job, format)?;
    Ok(ExitCode::from(if job.state == JobState::Succeeded { 0 } else { FAILED }))
}

fn read_payload(payload: Option<&str>, file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    match (payload, file) {
        (Some("-"), _) => io::stdin().lock().take(PAYLOAD_MAX + 1).read_to_end(&mut bytes)?,
        (Some(text), _) => io::copy(&mut text.as_bytes(), &mut bytes)? as usize,
        (None, Some(path)) => {
            let file = std::fs::File::open(path)
                .map_err(|error| Failure::local(format!("cannot read {}: {error}", path.display())))?;
            file.take(PAYLOAD_MAX + 1).read_to_end(&mut bytes)?
        }
        (None, None) => 0,
    };
    if bytes.len() as u64 > PAYLOAD_MAX {
        return Err(Failure::usage("a payload has at most 256 KiB"));
    }
    Ok(bytes)
}

fn print(job: &Found, format: Format) -> io::Result<()> {
    let attempt = if job.attempt == 0 { String::new() } else { format!(" (attempt {})", job.attempt) };
    let mut lines = vec![format!("{} {}{attempt}", job.job_id, job.state)];
    if !job.cause.is_empty() {
        lines.push(format!("cause: {}", escaped(&job.cause)));
    }
    if job.cancel_requested && job.ended_at.is_none() {
        lines.push("its worker has been asked to stop".to_owned());
    }
    if !job.result.is_empty() {
        lines.push(String::from_utf8_lossy(&job.result).into_owned());
    }
    format.print(&lines.join("\n"), &shown(job))
}

fn row(job: &Found) -> Vec<String> {
    vec![
        job.job_id.clone(),
        job.state.to_string(),
        job.binding.agent_id.clone(),
        job.attempt.to_string(),
        instant(job.submitted_at),
        instant(job.ended_at),
    ]
}

fn shown(job: &Found) -> Value {
    json!({
        "job_id": job.job_id, "session_id": job.session_id, "state": job.state.to_string(),
        "agent_id": job.binding.agent_id, "project_id": job.binding.project_id, "epoch": job.binding.epoch,
        "attempt": job.attempt, "submitted_at": instant(job.submitted_at),
        "started_at": job.started_at.map(instant), "ended_at": job.ended_at.map(instant), "cause": job.cause,
        "cancel_requested": job.cancel_requested, "result": String::from_utf8_lossy(&job.result),
    })
}
