//! What the acts stand on: the services, one or two of each, the people, the workers, the gate, the second stream.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use interlock_client::{
    Auth, Credentials, Event, EventKind, Gateway, Job, Jobs, OwnerSession, StreamFrom, StreamItem, Tls,
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
    database::Database,
    endpoints::Endpoints,
    failure::Failure,
    keep::read_token,
    pair::{Program, Ready, Running},
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
    /// Where the stores are, if not in the folder: two of each service run then.
    database: Option<Database>,
    /// What runs, in the order of its start, and what was killed.
    services: Vec<Service>,
    /// Where all of them are, killed ones too.
    addresses: Option<Context>,
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

/// One of them.
enum Service {
    Up(Box<Running>),
    Killed(Program),
}

impl Service {
    async fn kill(self) -> Result<Program, Failure> {
        match self {
            Self::Up(running) => running.kill().await,
            Self::Killed(program) => Ok(program),
        }
    }
}

/// How long leases of jobs live: short, since the demo waits for the end of one; but where a worker has to find another
/// gateway meanwhile, it has the time.
const LEASE: &str = "2s";
const LEASE_OF_SEVERAL: &str = "5s";

impl Stage {
    /// Makes the folder's contents, and the databases; starts nothing.
    ///
    /// # Errors
    /// What the file system or the database says.
    pub(crate) fn set(folder: &Path, database: Option<Database>) -> Result<Self, Failure> {
        let (world, alone) = World::open(folder, &[DEV, BOT], database.as_ref())?;
        let (gate, file) = (world.folder().join("gate"), world.folder().join("input.txt"));
        mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|error| Failure::local(format!("no gate at {}: {error}", gate.display())))?;
        std::fs::write(&file, FILE)?;
        Ok(Self {
            world,
            _alone: alone,
            database,
            services: Vec::new(),
            addresses: None,
            workers: Vec::new(),
            gate,
            file,
            project: String::new(),
            session: String::new(),
            dev: None,
            watch: None,
        })
    }

    /// Whether two of each service run.
    pub(crate) fn is_several(&self) -> bool {
        self.database.is_some()
    }

    /// How long a job's lease lives, for people.
    pub(crate) fn lease(&self) -> &'static str {
        if self.is_several() { LEASE_OF_SEVERAL } else { LEASE }
    }

    /// Starts the services.
    ///
    /// # Errors
    /// Where one does not serve.
    pub(crate) async fn start(&mut self) -> Result<Seen, Failure> {
        let of_auth = if self.is_several() { vec!["lease=1s".to_owned()] } else { Vec::new() };
        let of_gateway = vec![format!("lease_ttl={}", self.lease())];
        let (auth, mut saw) = self.start_one("auth", "auth", &of_auth).await?;
        let mut auths = vec![auth];
        if let Some(database) = self.database.clone() {
            self.world.add("auth", "auth-2", &database, &[])?;
            let (auth, told) = self.start_one("auth", "auth-2", &of_auth).await?;
            auths.push(auth);
            saw = format!("{saw}, {told}");
        }
        // Each begins at another one.
        let mut ports: Vec<_> = auths.iter().map(|auth| auth.internal.port()).collect();
        let mut settings = of_gateway.clone();
        if self.is_several() {
            let endpoints: Vec<_> = ports.iter().map(|port| format!("https://127.0.0.1:{port}")).collect();
            settings.push(format!("auth.endpoints={}", endpoints.join(",")));
        }
        let (gateway, told) = self.start_one("gateway", "gateway", &settings).await?;
        saw = format!("{saw}, {told}");
        let mut gateways = vec![gateway.public];
        if let Some(database) = self.database.clone() {
            ports.reverse();
            self.world.add("gateway", "gateway-2", &database, &ports)?;
            let (gateway, told) = self.start_one("gateway", "gateway-2", &of_gateway).await?;
            gateways.push(gateway.public);
            saw = format!("{saw}, {told}");
        }
        let at = |all: Vec<SocketAddr>| {
            Endpoints::of(all.iter().map(|address| format!("https://{address}")).collect())
                .ok_or_else(not_started)
        };
        let auth = at(auths.iter().map(|auth| auth.public).collect())?;
        self.addresses = Some(Context { auth, gateway: at(gateways)?, ca_file: self.world.ca() });
        Ok(Seen::that(true, saw))
    }

    async fn start_one(
        &mut self,
        service: &'static str,
        name: &str,
        settings: &[String],
    ) -> Result<(Ready, String), Failure> {
        let program = self.world.program_named(service, name, settings.to_vec());
        let running = program.start().await?;
        let ready = running.ready.clone();
        let saw = format!("{service}-service is process {} on {}", running.pid(), ready.public);
        self.services.push(Service::Up(Box::new(running)));
        Ok((ready, saw))
    }

    /// `kill -9` of the first auth-service and of the last gateway, where several run.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) async fn lose_one_of_each(&mut self) -> Result<String, Failure> {
        let last = self.services.len().checked_sub(1).filter(|last| *last > 0).ok_or_else(not_started)?;
        let mut killed = Vec::new();
        for at in [0, last] {
            let Service::Up(running) = self.services.remove(at) else { return Err(not_started()) };
            killed.push(running.pid().to_string());
            self.services.insert(at, Service::Killed(running.kill().await?));
        }
        Ok(killed.join(" and "))
    }

    /// `kill -9` of all that run, then all again.
    ///
    /// # Errors
    /// Where one does not come back.
    pub(crate) async fn crash(&mut self) -> Result<String, Failure> {
        let (mut killed, mut programs) = (Vec::new(), Vec::new());
        // All are dead before any comes back.
        for service in self.services.drain(..).rev() {
            if let Service::Up(running) = &service {
                killed.push(running.pid().to_string());
            }
            programs.push(service.kill().await?);
        }
        let mut now = Vec::new();
        for program in programs.into_iter().rev() {
            let running = program.start().await?;
            now.push(running.pid().to_string());
            self.services.push(Service::Up(Box::new(running)));
        }
        Ok(format!("killed {}; now {}", killed.join(" and "), now.join(" and ")))
    }

    /// Ends everything that was started.
    pub(crate) async fn strike(&mut self) {
        self.watch = None;
        for (_, mut worker) in self.workers.drain(..) {
            // One of them was killed in the play.
            let _ = worker.kill().await;
        }
        // Gateways first: they were started last.
        for service in self.services.drain(..).rev() {
            if let Service::Up(running) = service {
                running.drain().await;
            }
        }
    }

    /// The context of commands that run as children; `name` keeps their sign-ins apart. They begin at the last of several
    /// services, the acts at the first.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn context(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.world.folder().join(format!("{name}.json"));
        self.reversed()?.write(&path)?;
        Ok(path)
    }

    fn addresses(&self) -> Result<&Context, Failure> {
        self.addresses.as_ref().ok_or_else(not_started)
    }

    fn reversed(&self) -> Result<Context, Failure> {
        let Context { auth, gateway, ca_file } = self.addresses()?;
        Ok(Context { auth: auth.reversed(), gateway: gateway.reversed(), ca_file: ca_file.clone() })
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
        for variable in ["INTERLOCK_TOKEN_FILE", "INTERLOCK_PROJECT", "INTERLOCK_STORE"] {
            command.env_remove(variable);
        }
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
        Ok(Auth::new(context.auth.connection().tls(Tls::ca_file(&context.ca_file)).open()?))
    }

    /// Calls to gateway-service.
    ///
    /// # Errors
    /// Where the CA cannot be read.
    pub(crate) fn gateway(&self, credentials: Credentials) -> Result<Gateway, Failure> {
        self.gateway_at(self.addresses()?, credentials)
    }

    fn gateway_at(&self, context: &Context, credentials: Credentials) -> Result<Gateway, Failure> {
        let connection = context.gateway.connection().tls(Tls::ca_file(&context.ca_file)).open()?;
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

    /// Opens the second stream: it sees the session's whole life. Of several gateways it begins at the last.
    ///
    /// # Errors
    /// Before the sign-in.
    pub(crate) fn start_watch(&mut self) -> Result<(), Failure> {
        let gateway = self.gateway_at(&self.reversed()?, self.dev()?)?;
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
