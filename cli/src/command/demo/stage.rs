//! What the acts stand on: both services, the people, the workers, the gate, the second stream.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    pin::pin,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use interlock_client::{
    Auth, Connection, Credentials, Event, EventKind, Gateway, Job, Jobs, OwnerSession, StreamFrom,
    StreamItem, Tls,
};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat, open},
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use tokio::{
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    command::{demo::report::Seen, up::DEV},
    context::Context,
    failure::Failure,
    keep::read_token,
    pair::{Program, Running},
    world::{Account, Alone, World},
};

/// The agent's owner, as whom workers sign in.
pub(crate) const BOT: Account =
    Account { username: "builder-bot", role: "user", display_name: "Builder Bot" };
/// The agent that has workers.
pub(crate) const AGENT: &str = "builder";
/// The agent that a session tries to move to.
pub(crate) const OTHER_AGENT: &str = "reviewer";
/// Nothing here takes longer, or it does not come at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the gate is opened while a job has to come through.
const LOOK: Duration = Duration::from_millis(10);
/// The file that the jobs read: a part of this program.
const FILE: &[u8] = include_bytes!("../../../../proto/proto/interlock/gateway/v1/session.proto");
/// A job: reads a file's name, waits at the gate, answers with the file's digest.
const JOB: &str = r#"read -r file; echo "at the gate"; read -r word < "$INTERLOCK_DEMO_GATE"; sha256sum < "$file" | cut -d" " -f1"#;
/// What it says before it waits.
const AT_THE_GATE: &[u8] = b"at the gate";

/// Everything.
pub(crate) struct Stage {
    world: World,
    _alone: Alone,
    services: Option<(Running, Running)>,
    workers: Vec<(String, Child)>,
    gate: PathBuf,
    /// The file that jobs read.
    pub(crate) file: PathBuf,
    /// The project's id, once it is made.
    pub(crate) project: String,
    /// The session's id, once it is made.
    pub(crate) session: String,
    dev: Option<OwnerSession>,
    watch: Option<Watch>,
}

impl Stage {
    /// Makes the folder's contents; starts nothing.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn set(folder: &Path) -> Result<Self, Failure> {
        let (world, alone) = World::open(folder, &[DEV, BOT])?;
        let (gate, file) = (world.folder().join("gate"), world.folder().join("input.txt"));
        mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|error| Failure::local(format!("no gate at {}: {error}", gate.display())))?;
        std::fs::write(&file, FILE)?;
        Ok(Self {
            world,
            _alone: alone,
            services: None,
            workers: Vec::new(),
            gate,
            file,
            project: String::new(),
            session: String::new(),
            dev: None,
            watch: None,
        })
    }

    /// Starts both services; a lease of two seconds keeps the demo short.
    ///
    /// # Errors
    /// Where one does not serve.
    pub(crate) async fn start(&mut self) -> Result<Seen, Failure> {
        let auth = self.world.program("auth", Vec::new()).start().await?;
        let gateway = self.world.program("gateway", vec!["lease_ttl=2s".to_owned()]).start().await?;
        let saw = format!(
            "auth-service is process {} on {}, gateway-service is process {} on {}",
            auth.pid(),
            auth.ready.public,
            gateway.pid(),
            gateway.ready.public
        );
        self.services = Some((auth, gateway));
        Ok(Seen::that(true, saw))
    }

    /// `kill -9` of both, then both again.
    ///
    /// # Errors
    /// Where one does not come back.
    pub(crate) async fn crash(&mut self) -> Result<String, Failure> {
        let (auth, gateway) = self.services.take().ok_or_else(not_started)?;
        let pids = format!("{} and {}", auth.pid(), gateway.pid());
        // Both are dead before either comes back.
        let (gateway, auth): (Program, Program) = (gateway.kill().await?, auth.kill().await?);
        let (auth, gateway) = (auth.start().await?, gateway.start().await?);
        let now = format!("killed {pids}; now {} and {}", auth.pid(), gateway.pid());
        self.services = Some((auth, gateway));
        Ok(now)
    }

    /// Ends everything that was started.
    pub(crate) async fn strike(&mut self) {
        self.watch = None;
        for (_, mut worker) in self.workers.drain(..) {
            // One of them was killed in the play.
            let _ = worker.kill().await;
        }
        if let Some((auth, gateway)) = self.services.take() {
            gateway.drain().await;
            auth.drain().await;
        }
    }

    /// The context of commands that run as children; `name` keeps their sign-ins apart.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn context(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.world.folder().join(format!("{name}.json"));
        self.addresses()?.write(&path)?;
        Ok(path)
    }

    fn addresses(&self) -> Result<Context, Failure> {
        let (auth, gateway) = self.services.as_ref().ok_or_else(not_started)?;
        Ok(self.world.context(auth.ready.public, gateway.ready.public))
    }

    /// Runs one command of this program to its end and gives what it printed.
    ///
    /// # Errors
    /// Where it fails.
    pub(crate) async fn command(
        &self,
        who: &str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<String, Failure> {
        let output = self.program(who)?.args(arguments).stdin(Stdio::null()).output();
        let output = timeout(PATIENCE, output).await.map_err(|_| too_late("a command"))??;
        if !output.status.success() {
            return Err(Failure::local(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn program(&self, who: &str) -> Result<Command, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--context").arg(self.context(who)?).arg("--output").arg("json");
        command.env_remove("INTERLOCK_TOKEN_FILE").env_remove("INTERLOCK_PROJECT");
        if !self.project.is_empty() {
            command.env("INTERLOCK_PROJECT", &self.project);
        }
        Ok(command)
    }

    /// Calls to auth-service with no credential.
    ///
    /// # Errors
    /// Where the CA cannot be read.
    pub(crate) fn auth(&self) -> Result<Auth, Failure> {
        let context = self.addresses()?;
        Ok(Auth::new(Connection::to(&context.auth).tls(Tls::ca_file(&context.ca_file)).open()?))
    }

    /// Calls to gateway-service.
    ///
    /// # Errors
    /// Where the CA cannot be read.
    pub(crate) fn gateway(&self, credentials: Credentials) -> Result<Gateway, Failure> {
        let context = self.addresses()?;
        let connection = Connection::to(&context.gateway).tls(Tls::ca_file(&context.ca_file)).open()?;
        let gateway = Gateway::new(connection, credentials);
        Ok(if self.project.is_empty() { gateway } else { gateway.with_project(self.project.clone()) })
    }

    /// Signs `dev` in, once more.
    ///
    /// # Errors
    /// What auth-service refuses.
    pub(crate) async fn sign_in(&self) -> Result<OwnerSession, Failure> {
        Ok(self.auth()?.login(DEV.username, &self.world.password(DEV.username)?).await?)
    }

    /// Keeps the sign-in that the acts use.
    pub(crate) fn keep(&mut self, dev: OwnerSession) {
        self.dev = Some(dev);
    }

    /// The credential that the acts use.
    ///
    /// # Errors
    /// Before the sign-in.
    pub(crate) fn dev(&self) -> Result<Credentials, Failure> {
        let dev = self.dev.as_ref().ok_or_else(not_started)?;
        Ok(Credentials::bearer(dev.access_token.clone()))
    }

    /// The admin role token's bearer.
    ///
    /// # Errors
    /// Where the file of the first start is not there.
    pub(crate) fn admin(&self) -> Result<Credentials, Failure> {
        Ok(Credentials::bearer(read_token(&self.world.role_tokens_file())?))
    }

    /// Where `BOT`'s password is.
    pub(crate) fn bot_password_file(&self) -> PathBuf {
        self.world.password_file(BOT.username)
    }

    /// Starts a worker as a process of its own; gives its process id.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) fn start_worker(&mut self, name: &str) -> Result<u32, Failure> {
        let worker = self
            .program("bot")?
            .args(["worker", "run", "--agent", AGENT, "--name", name, "--", "sh", "-c", JOB])
            .env("INTERLOCK_DEMO_GATE", &self.gate)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let pid = worker.id().ok_or_else(|| Failure::local("the worker ended at once"))?;
        self.workers.push((name.to_owned(), worker));
        Ok(pid)
    }

    /// The process id of the worker of that name.
    ///
    /// # Errors
    /// Where none was started under it, or it has ended.
    pub(crate) fn worker_named(&self, name: &str) -> Result<u32, Failure> {
        let found = self.workers.iter().find(|(known, _)| known == name);
        found
            .and_then(|(_, worker)| worker.id())
            .ok_or_else(|| Failure::local(format!("no worker `{name}` runs")))
    }

    /// `kill -9` of a worker.
    ///
    /// # Errors
    /// Where there is no such process.
    pub(crate) fn kill_worker(&self, pid: u32) -> Result<(), Failure> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(not_started)?;
        kill_process(pid, Signal::KILL).map_err(|error| Failure::local(format!("kill -9: {error}")))
    }

    /// Keeps the gate open until the job has ended. However often it comes there: an attempt that lost its
    /// lease meanwhile stands at the gate too, beside the one that counts.
    ///
    /// # Errors
    /// Where the job does not end, or its state cannot be asked.
    pub(crate) async fn let_through(&self, jobs: &Jobs, job: &str) -> Result<Job, Failure> {
        let open = async {
            let mut ended = pin!(jobs.wait(job));
            loop {
                tokio::select! {
                    job = &mut ended => return Ok(job?),
                    () = sleep(LOOK) => self.open_gate()?,
                }
            }
        };
        timeout(PATIENCE, open).await.map_err(|_| too_late("a job's end"))?
    }

    /// Lets whoever waits at the gate go on, if anybody does.
    fn open_gate(&self) -> Result<(), Failure> {
        let failed =
            |error: io::Error| Failure::local(format!("the gate at {}: {error}", self.gate.display()));
        let gate = match open(&self.gate, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        {
            Ok(gate) => gate,
            // Nobody is there.
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(failed(error.into())),
        };
        match File::from(gate).write_all(b"go\n") {
            Ok(()) => Ok(()),
            // Who was there has gone on, or its program has ended.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Opens the second stream: it sees the session's whole life.
    ///
    /// # Errors
    /// Before the sign-in.
    pub(crate) fn start_watch(&mut self) -> Result<(), Failure> {
        let gateway = self.gateway(self.dev()?)?;
        self.watch = Some(Watch::on(&gateway, &self.session));
        Ok(())
    }

    /// What the second stream has seen, once it has seen what `wanted` looks for.
    ///
    /// # Errors
    /// Where that does not come, or the stream ends.
    pub(crate) async fn seen(
        &self,
        what: &str,
        wanted: impl Fn(&[Event]) -> bool,
    ) -> Result<Vec<Event>, Failure> {
        let watch = self.watch.as_ref().ok_or_else(not_started)?;
        let mut events = watch.events.clone();
        let seen = timeout(PATIENCE, events.wait_for(|events| wanted(events))).await;
        match seen {
            Ok(Ok(events)) => Ok(events.to_vec()),
            Ok(Err(_)) => Err(Failure::local(format!("the second stream ended before {what}"))),
            Err(_) => Err(too_late(what)),
        }
    }

    /// Until that attempt of the job waits at the gate.
    ///
    /// # Errors
    /// As [`Stage::seen`].
    pub(crate) async fn at_the_gate(&self, job: &str, attempt: u32) -> Result<(), Failure> {
        let at_gate = |event: &Event| {
            matches!(&event.kind, EventKind::JobProgress { job_id, attempt: a, data }
                if job_id == job && *a == attempt && data.as_ref() == AT_THE_GATE)
        };
        self.seen("a job at the gate", |events| events.iter().any(at_gate)).await?;
        Ok(())
    }
}

/// A stream that is read all the time.
struct Watch {
    events: watch::Receiver<Arc<Vec<Event>>>,
    task: JoinHandle<()>,
}

impl Watch {
    fn on(gateway: &Gateway, session: &str) -> Self {
        let mut stream = gateway.sessions().stream(session, StreamFrom::Start);
        let (sender, events) = watch::channel(Arc::new(Vec::new()));
        let task = tokio::spawn(async move {
            while let Some(Ok(item)) = stream.next().await {
                if let StreamItem::Event(event) = item {
                    sender.send_modify(|events| Arc::make_mut(events).push(event));
                }
            }
        });
        Self { events, task }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn not_started() -> Failure {
    Failure::local("an act came before the one that it stands on")
}

fn too_late(what: &str) -> Failure {
    Failure::local(format!("{what} did not come within {} s", PATIENCE.as_secs()))
}
