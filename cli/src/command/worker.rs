//! `worker run`: a program for each job, in a process group of its own.
//!
//! The payload comes on standard input, each line of standard output is a progress event, the exit
//! code decides. When the lease is lost or a cancel is asked, the whole group is ended. The program is
//! started through [`crate::launcher`], which asks the kernel to end it with its worker:
//! a worker that dies by `kill -9` leaves nothing running that could outlive its lease.

use std::{ffi::OsString, process::Stdio, sync::Arc, time::Duration};

use interlock_client::{Outcome, Task, Worker as Loop};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::Child,
};

use crate::{
    args::Common,
    command::{duration, signed_in},
    failure::Failure,
    launcher::{self, OnParentDeath},
    output::Format,
};

/// The longest progress event, in bytes; longer lines are split.
const LINE_MAX: usize = 16 * 1024;
/// How much of the last output is kept as the result, in bytes.
const RESULT_MAX: usize = 64 * 1024;
/// How long an asked group may take before it is killed.
const MERCY: Duration = Duration::from_secs(5);

/// What to do as a worker.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Worker {
    /// Take jobs of these agents and run the program for each.
    ///
    /// The program gets the payload on standard input and INTERLOCK_JOB_ID, INTERLOCK_SESSION_ID,
    /// INTERLOCK_AGENT_ID, INTERLOCK_PROJECT_ID, INTERLOCK_ATTEMPT and INTERLOCK_FENCING_TOKEN in its
    /// environment. Exit code 0 is success.
    Run {
        /// An agent to serve; may be given several times.
        #[arg(long, required = true)]
        agent: Vec<String>,
        /// How many jobs to run at once.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
        capacity: u32,
        /// The worker's name in events; the host's process id by default.
        #[arg(long)]
        name: Option<String>,
        /// After Ctrl-C, how long running jobs may still finish before they are handed back.
        #[arg(long, value_parser = duration, default_value = "0s")]
        drain: Duration,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// What gateway-service refuses.
pub(crate) async fn run(worker: Worker, common: &Common) -> Result<(), Failure> {
    let Worker::Run { agent, capacity, name, drain, command } = worker;
    let caller = signed_in(common)?;
    let name = name.unwrap_or_else(|| format!("worker-{}", std::process::id()));
    let format = common.output;
    let program = Arc::new(command);
    let text = format!("{name} serves {} with {capacity} at once; Ctrl-C ends it", agent.join(", "));
    format.print(&text, &json!({ "worker": name, "agents": agent, "capacity": capacity }))?;
    let worker = Loop::new(caller.scoped().await?, agent, capacity, name).drain(drain);
    let handler = move |task: Task| {
        let program = Arc::clone(&program);
        async move { told(&program, task, format).await }
    };
    worker.run(handler, crate::stop::asked()?).await?;
    Ok(())
}

/// Runs one job and says so on standard output.
async fn told(program: &[OsString], task: Task, format: Format) -> Outcome {
    let (job, attempt) = (task.job_id().to_owned(), task.attempt());
    let said = |what: &str| {
        // The worker goes on although nobody reads its output.
        let _ = format.print(
            &format!("{job} attempt {attempt}: {what}"),
            &json!({ "job_id": job, "attempt": attempt, "what": what }),
        );
    };
    said("started");
    let outcome = match attempt_to_run(program, &task).await {
        Ok(outcome) => outcome,
        Err(error) => {
            Outcome::Failed { cause: format!("the program did not run: {error}"), result: Default::default() }
        }
    };
    said(match &outcome {
        Outcome::Succeeded { .. } => "succeeded",
        Outcome::Failed { .. } => "failed",
        Outcome::Cancelled { .. } => "cancelled",
    });
    outcome
}

async fn attempt_to_run(program: &[OsString], task: &Task) -> std::io::Result<Outcome> {
    let mut child = launcher::command(OnParentDeath::Kill)?
        .args(program)
        .env("INTERLOCK_JOB_ID", task.job_id())
        .env("INTERLOCK_SESSION_ID", task.session_id())
        .env("INTERLOCK_AGENT_ID", task.agent_id())
        .env("INTERLOCK_PROJECT_ID", task.project_id())
        .env("INTERLOCK_ATTEMPT", task.attempt().to_string())
        .env("INTERLOCK_FENCING_TOKEN", task.fencing_token().to_string())
        // What the worker itself signs in with is none of its jobs' business.
        .env_remove("INTERLOCK_TOKEN_FILE")
        .env_remove("INTERLOCK_CONTEXT")
        // Nor are the passwords that a service on this host may be started with.
        .env_remove("INTERLOCK_ACCOUNTS_JSON")
        .env_remove("INTERLOCK_OWNERS_JSON")
        .env_remove("INTERLOCK_ROOT_PASSWORD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let group = Group::of(&child);
    let mut stdin = child.stdin.take();
    let payload = task.payload().clone();
    let feed = async move {
        if let Some(mut stdin) = stdin.take() {
            // A program that does not read its input is no fault.
            let _ = stdin.write_all(&payload).await;
        }
    };
    let output = child.stdout.take().map(BufReader::new);
    let mut tail = Vec::new();
    let read = async {
        if let Some(output) = output {
            lines(output, task, &mut tail).await?;
        }
        std::io::Result::Ok(())
    };
    let stopped = tokio::select! {
        ((), read) = async { tokio::join!(feed, read) } => { read?; None }
        () = task.cancelled() => Some("asked to stop"),
        () = task.lost() => Some("the lease was lost"),
    };
    if let Some(why) = stopped {
        group.end(&mut child).await;
        return Ok(Outcome::Cancelled { cause: why.to_owned() });
    }
    let status = tokio::select! {
        status = child.wait() => status?,
        () = task.cancelled() => { group.end(&mut child).await; return Ok(Outcome::Cancelled { cause: "asked to stop".to_owned() }); }
        () = task.lost() => { group.end(&mut child).await; return Ok(Outcome::Cancelled { cause: "the lease was lost".to_owned() }); }
    };
    // What the program left running in its group ends with it.
    group.kill();
    if status.success() {
        return Ok(Outcome::Succeeded { result: tail.into() });
    }
    Ok(Outcome::Failed { cause: status.to_string(), result: tail.into() })
}

/// Sends each line as progress and keeps the end of the output.
async fn lines(
    mut output: BufReader<tokio::process::ChildStdout>,
    task: &Task,
    tail: &mut Vec<u8>,
) -> std::io::Result<()> {
    loop {
        let mut line = Vec::new();
        let read = (&mut output).take(LINE_MAX as u64).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(());
        }
        tail.extend_from_slice(&line);
        let excess = tail.len().saturating_sub(RESULT_MAX);
        tail.drain(..excess);
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if task.progress(line).await.is_err() {
            // The lease is gone; `lost` ends the attempt.
            task.lost().await;
            return Ok(());
        }
    }
}

/// The process group of one job.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    /// Asks the group to end, and kills what has not ended in time.
    async fn end(&self, child: &mut Child) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::TERM);
        }
        let _ = tokio::time::timeout(MERCY, child.wait()).await;
        self.kill();
        let _ = child.wait().await;
    }

    fn kill(&self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
