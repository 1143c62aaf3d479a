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
    failure::Failure,
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
    /// Its addresses.
    pub(crate) ready: Ready,
}

impl Program {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// Where it ends or is silent instead: with the end of its log.
    pub(crate) async fn start(&self) -> Result<Running, Failure> {
        let log = File::options().create(true).append(true).open(&self.log)?;
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
                return Ok(Running { program: self.clone(), child, ready });
            }
            if let Some(status) = child.try_wait()? {
                return Err(self.did_not_start(&format!("ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(self.did_not_start("did not serve in time"));
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

    fn did_not_start(&self, what: &str) -> Failure {
        let tail = tail(&self.log).unwrap_or_default();
        Failure::local(format!("{}-service {what}; the end of its log:\n{}", self.service, tail.trim_end()))
            .next(format!("the whole log is {}", self.log.display()))
    }
}

impl Running {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.ready.pid
    }

    /// Until it ends by itself.
    pub(crate) async fn ended(&mut self) -> Failure {
        let status = self.child.wait().await;
        let said = status.map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string());
        self.program.did_not_start(&format!("ended with {said}"))
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

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
