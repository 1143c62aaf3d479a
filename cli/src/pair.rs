//! The two services as child processes: started, awaited, ended, killed.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};

use crate::{
    failure::{FAILED, Failure},
    launcher::{self, OnParentDeath},
};

/// How long a service may take until it serves.
const START: Duration = Duration::from_secs(30);
/// How long a service may drain before it is killed.
const DRAIN: Duration = Duration::from_secs(20);
/// How often the ready file is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// How much of a log is shown when a service does not start, in bytes.
const LOG_TAIL: u64 = 4 * 1024;

/// What a service says of itself once it serves.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ready {
    pid: u32,
    /// Where clients call.
    pub(crate) public: SocketAddr,
    /// Where other services do.
    pub(crate) internal: SocketAddr,
}

/// Which service, and its files.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// `auth` or `gateway`: the argument of `interlock serve`.
    pub(crate) service: &'static str,
    /// Its configuration.
    pub(crate) config: PathBuf,
    /// Settings over the configuration, `key=value`.
    pub(crate) settings: Vec<String>,
    /// Where it says that it serves.
    pub(crate) ready_file: PathBuf,
    /// Where its log goes.
    pub(crate) log: PathBuf,
}

/// A running service.
#[derive(Debug)]
pub(crate) struct Running {
    program: Program,
    child: Child,
    /// Where its part of the log begins.
    log_from: u64,
    /// Its addresses.
    pub(crate) ready: Ready,
}

impl Program {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// Where it ends or is silent instead: with what it said, and its exit code.
    pub(crate) async fn start(&self) -> Result<Running, Failure> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| Failure::local(format!("{}: {error}", self.log.display())))?;
        let log_from = log.metadata()?.len();
        let mut command = launcher::command(OnParentDeath::Terminate)?;
        command
            .arg(std::env::current_exe()?)
            .arg("serve")
            .arg(self.service)
            .arg("--config")
            .arg(&self.config);
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        // It may hold the database's password, which has a file.
        command.env_remove("INTERLOCK_STORE");
        if self.service != "auth" {
            // Passwords are for auth alone.
            for secret in ["INTERLOCK_ACCOUNTS_JSON", "INTERLOCK_OWNERS_JSON", "INTERLOCK_ROOT_PASSWORD"] {
                command.env_remove(secret);
            }
        }
        // A group of its own: Ctrl-C reaches us, and we drain them in the right order.
        let mut child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let deadline = Instant::now() + START;
        loop {
            if let Some(ready) = self.ready(child.id()) {
                return Ok(Running { program: self.clone(), child, log_from, ready });
            }
            if let Some(status) = child.try_wait()? {
                return Err(self.ended("did not start", status, log_from));
            }
            if Instant::now() > deadline {
                let silent = format!("{}-service did not serve in time", self.service);
                return Err(self.with_log(Failure::local(silent), log_from));
            }
            sleep(LOOK).await;
        }
    }

    /// The ready file, if it is this process's.
    fn ready(&self, pid: Option<u32>) -> Option<Ready> {
        let text = std::fs::read_to_string(&self.ready_file).ok()?;
        let ready: Ready = serde_json::from_str(&text).ok()?;
        (Some(ready.pid) == pid).then_some(ready)
    }

    /// Why it ended, as it said itself, with its exit code.
    fn ended(&self, what: &str, status: ExitStatus, log_from: u64) -> Failure {
        let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
        let code = code.unwrap_or(FAILED);
        let log = tail(&self.log, log_from).unwrap_or_default();
        let prefix = format!("interlock-{}: ", self.service);
        let mut said = log.lines().filter_map(|line| line.strip_prefix(&prefix));
        let Some(first) = said.next() else {
            let ended = format!("{}-service {what}: it ended with {status}", self.service);
            return self.with_log(Failure::coded(code, ended), log_from);
        };
        Failure::coded(code, format!("{}-service {what}: {first}", self.service))
            .facts(said.map(str::to_owned).collect())
            .next(format!("mend that and start again; its log is {}", self.log.display()))
    }

    /// With the end of what it has logged since it was started.
    fn with_log(&self, failure: Failure, log_from: u64) -> Failure {
        let log = tail(&self.log, log_from).unwrap_or_default();
        let whole = format!("the whole log is {}", self.log.display());
        if log.trim().is_empty() {
            return failure.next(format!("{whole}; nothing was written to it: is there room?"));
        }
        failure.facts(log.lines().map(str::to_owned).collect()).next(whole)
    }
}

impl Running {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.ready.pid
    }

    /// Until it ends by itself.
    pub(crate) async fn ended(&mut self) -> Failure {
        match self.child.wait().await {
            Ok(status) => self.program.ended("ended", status, self.log_from),
            Err(error) => Failure::local(format!("{}-service: {error}", self.program.service)),
        }
    }

    /// Asks it to drain and waits for its end.
    pub(crate) async fn drain(mut self) {
        self.signal(Signal::TERM);
        if timeout(DRAIN, self.child.wait()).await.is_err() {
            // Killed on drop; said, since something was cut off.
            anstream::eprintln!(
                "interlock: {}-service did not drain in time and is killed",
                self.program.service
            );
        }
    }

    /// `kill -9`, at once.
    ///
    /// # Errors
    /// Where its end cannot be awaited.
    pub(crate) async fn kill(mut self) -> Result<Program, Failure> {
        self.signal(Signal::KILL);
        self.child.wait().await?;
        Ok(self.program.clone())
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
    }
}

fn tail(path: &Path, from: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_TAIL))))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
