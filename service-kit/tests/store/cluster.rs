//! A PostgreSQL cluster of a test's own: made from a template, and gone with the test.
//!
//! The template is made once for each build folder; a cluster is a copy of it, a few hundred milliseconds until
//! it serves. It listens on a socket in its own folder. The server ends with the thread that started it, also
//! where that panics or is killed. Servers do not run as root: there they run as `nobody`.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Nobody, of nobody's group.
const NOBODY: u32 = 65_534;
/// The versions that may be installed side by side, the newest first.
const VERSIONS: [&str; 4] = ["18", "17", "16", "15"];
/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(60);
/// How long what has to come may be away.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// What the services' role shows where it is asked for a password.
pub(crate) const PASSWORD: &str = "a password of tests";

/// A running server.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    settings: Vec<String>,
    server: Option<Child>,
}

impl Cluster {
    /// With a role `interlock` that may do nothing but own the database `store`.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With these settings besides. Those that name files find them in [`Cluster::path`].
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        let mut cluster = Self::made(settings);
        cluster.serve();
        cluster
    }

    /// Not started yet: for files that its settings name.
    pub(crate) fn made(settings: &[&str]) -> Self {
        let template = template();
        let folder = folder();
        run(Command::new("cp").arg("-a").arg(&template).arg(folder.path().join("data")));
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { folder, port: 5432, settings, server: None }
    }

    /// A standby of this one, which runs: a copy of its data that follows it once it serves.
    pub(crate) fn standby(&self, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let standby = Self { folder: folder(), port: 5432, settings, server: None };
        standby.copy(self);
        standby
    }

    /// Ends, and begins anew as a standby of another one.
    pub(crate) fn follow(&mut self, primary: &Self) {
        self.kill_at_once();
        fs::remove_dir_all(self.path("data")).expect("its own");
        self.copy(primary);
        self.serve();
    }

    fn copy(&self, primary: &Self) {
        let mut copy = as_server(&program("pg_basebackup"));
        copy.arg("-h").arg(primary.folder.path()).args(["-p", &primary.port.to_string(), "-U", "postgres"]);
        run(copy.arg("-D").arg(self.path("data")).args(["-X", "stream", "-c", "fast", "-N", "-R"]));
    }

    /// Has each commit wait for a standby from now on, over restarts, and waits until one follows.
    pub(crate) fn commits_wait(&self) {
        self.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.sql("postgres", "SELECT pg_reload_conf()");
        self.until("SELECT COUNT(*) FROM pg_stat_replication WHERE sync_state = 'sync'");
        // Who asks sees the setting before who commits waits: that begins when the checkpointer has read it, which it
        // does before it answers.
        self.sql("postgres", "CHECKPOINT");
    }

    /// A standby takes writes from now on: returns when it does.
    pub(crate) fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote(true, 60)"), "t", "promoted");
    }

    /// On 127.0.0.1, too, at a port that is free.
    pub(crate) fn on_tcp(mut self) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        self.port = free.local_addr().expect("bound").port();
        self.settings.push("listen_addresses=127.0.0.1".to_owned());
        self
    }

    /// Starts the server, again after [`Cluster::kill`].
    pub(crate) fn serve(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).expect("a log");
        let mut command = as_server(&program("postgres"));
        command.arg("-D").arg(self.path("data")).arg("-k").arg(self.folder.path());
        command.args(["-p", &self.port.to_string(), "-F", "-c", "listen_addresses="]);
        for setting in ["shared_buffers=16MB", "max_connections=20"] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let mut server = command.spawn().expect("the server starts");
        let began = Instant::now();
        while !self.serves(server.id()) {
            let ended = server.try_wait().expect("a child");
            let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(ended.is_none() && began.elapsed() < START_MAX, "no server: {ended:?}\n{}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.server = Some(server);
    }

    /// Whether the server has noted that it is ready.
    fn serves(&self, pid: u32) -> bool {
        let noted = fs::read_to_string(self.path("data/postmaster.pid")).unwrap_or_default();
        let mut lines = noted.lines();
        lines.next() == Some(&pid.to_string()) && lines.nth(6).is_some_and(|state| state.trim() == "ready")
    }

    /// Ends the server as a crash does: nothing is written back.
    pub(crate) fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // The server hands an immediate end on to its children.
        let quit = Command::new("sh").args(["-c", "kill -QUIT \"$0\""]).arg(server.id().to_string()).status();
        if !quit.is_ok_and(|quit| quit.success()) {
            server.kill().ok();
        }
        server.wait().ok();
    }

    /// Ends the server and each of its processes by `kill -9`, as they stand.
    pub(crate) fn kill_at_once(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // Stopped first: it starts nobody meanwhile.
        signal("STOP", &[server.id()]);
        signal("KILL", &children(server.id()));
        server.kill().expect("a child of ours");
        server.wait().expect("a dead process has a status");
    }

    /// Stops the server and each of its processes where they stand.
    pub(crate) fn freeze(&self) {
        let server = self.server.as_ref().expect("it runs").id();
        signal("STOP", &[server]);
        signal("STOP", &children(server));
    }

    /// Lets them go on.
    pub(crate) fn wake(&self) {
        let server = self.server.as_ref().expect("it runs").id();
        signal("CONT", &children(server));
        signal("CONT", &[server]);
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives a file to the server alone.
    pub(crate) fn give(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("set");
        if is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("given");
        }
        path
    }

    /// The socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path(&format!(".s.PGSQL.{}", self.port))
    }

    /// Of 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database for the services' role.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://interlock@{}/{database}", self.host())
    }

    /// Its part of a URL.
    pub(crate) fn host(&self) -> String {
        let host = self.folder.path().to_str().expect("a name of ours").replace('/', "%2F");
        format!("{host}:{}", self.port)
    }

    /// Makes an empty database, and gives its URL.
    pub(crate) fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER interlock"));
        self.url(name)
    }

    /// Runs SQL with every right; gives the rows, columns between bars.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(program("psql"));
        psql.arg("-h").arg(self.folder.path()).args(["-p", &self.port.to_string(), "-U", "postgres"]);
        run(psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql])).trim_end().to_owned()
    }

    /// Waits until this gives another number than 0.
    pub(crate) fn until(&self, sql: &str) {
        let began = Instant::now();
        while self.sql("postgres", sql) == "0" {
            assert!(began.elapsed() < WAIT_MAX, "still 0: {sql}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The data of a cluster that was never started, beside the tests' programs.
fn template() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let beside = test.parent().and_then(Path::parent).expect("a test stands in target/…/deps");
    let version = program("postgres").ancestors().nth(2).and_then(|of| of.file_name()).map(ToOwned::to_owned);
    let version = version.unwrap_or_default().to_string_lossy().into_owned();
    let template = beside.join(format!("postgres-{version}-{}", if is_root() { "nobody" } else { "own" }));
    if template.exists() {
        return template;
    }
    let folder = folder();
    let data = folder.path().join("data");
    let mut initdb = as_server(&program("initdb"));
    initdb.arg("-D").arg(&data).args(["-N", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]);
    run(initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256"]));
    let mut alone = as_server(&program("postgres"));
    alone.args(["--single", "-F", "-D"]).arg(&data).arg("postgres");
    let mut alone = alone.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a server");
    let mut sql = alone.stdin.take().expect("piped");
    writeln!(sql, "CREATE ROLE interlock LOGIN PASSWORD '{PASSWORD}'").expect("written");
    writeln!(sql, "CREATE DATABASE store OWNER interlock").expect("written");
    drop(sql);
    assert!(alone.wait().expect("a child").success(), "the template was not made");
    // Whole under another name first. Where another test has made it in the meantime, that one is as good.
    let new = beside.join(format!(".postgres-{}", std::process::id()));
    run(Command::new("cp").arg("-a").arg(&data).arg(&new));
    if fs::rename(&new, &template).is_err() {
        fs::remove_dir_all(&new).expect("ours");
    }
    template
}

/// A folder that the server can use.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("interlock-pg-").tempdir().expect("a folder");
    if is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("given");
    }
    folder
}

/// One of PostgreSQL's programs.
fn program(name: &str) -> PathBuf {
    let installed =
        VERSIONS.iter().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
    let told = || {
        let told = Command::new("pg_config").arg("--bindir").output().ok()?;
        Some(PathBuf::from(String::from_utf8(told.stdout).ok()?.trim()))
    };
    let folders = installed.chain(std::iter::once_with(told).flatten());
    let found = folders.map(|folder| folder.join(name)).find(|path| path.exists());
    found.expect("no PostgreSQL 15 or later: install it (Debian: postgresql-15), or run ./check as root once")
}

/// The processes that this one has started.
fn children(pid: u32) -> Vec<u32> {
    let parent = |entry: &fs::DirEntry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name before it may hold anything.
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let entries = fs::read_dir("/proc").expect("processes").flatten();
    let of_ours = entries.filter(|entry| parent(entry) == Some(pid));
    of_ours.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Sent to processes of ours. One may have ended.
fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(ToString::to_string);
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -$0 \"$@\"", name]).args(pids).stderr(Stdio::null());
    kill.status().expect("sh runs");
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Not as root, and not longer than the thread that starts it.
fn as_server(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        let nobody = NOBODY.to_string();
        command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]);
    }
    command.args(["--pdeathsig", "QUIT"]).arg(program).env_clear().current_dir("/");
    command
}

/// Its output, or a panic with what it says.
fn run(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output();
    let out = out.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
