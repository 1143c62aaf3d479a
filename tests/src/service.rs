//! One of the programs, as a process of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{canary, patience::eventually};

/// How much of a log is printed when a test fails, in bytes.
const LOG_SHOWN: usize = 12_000;

/// A program and the process it runs in, if it runs. Killed on drop; the end of its log is printed where
/// the test fails. A test fails whose service has left a secret in its log or its data folder.
#[derive(Debug)]
pub struct Service {
    /// Which program it is.
    program: &'static str,
    /// Of its files.
    name: &'static str,
    config: PathBuf,
    ready_file: PathBuf,
    log: PathBuf,
    /// Its whole environment, beside the one for backtraces.
    environment: BTreeMap<String, String>,
    /// How many file descriptors it may have open, where that is not the system's choice.
    descriptors: Option<u32>,
    child: Option<Child>,
    /// By listener. Kept over restarts.
    addresses: BTreeMap<String, SocketAddr>,
}

/// The path of a program.
///
/// # Panics
/// With one line that says what to do, where it is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let folder = match std::env::var_os("INTERLOCK_PROGRAMS") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let test = std::env::current_exe().expect("the path of this test");
            test.parent().and_then(Path::parent).expect("a test stands in target/…/deps").to_owned()
        }
    };
    let path = folder.join(name);
    assert!(
        path.exists(),
        "no {}: run ./check, or `cargo build --workspace --bins` and set INTERLOCK_PROGRAMS to its folder",
        path.display()
    );
    path
}

impl Service {
    /// `auth` or `gateway` in a world's folder. Starts nothing.
    #[must_use]
    pub fn new(name: &'static str, folder: &Path) -> Self {
        Self::another(name, name, folder)
    }

    /// A further one of a program, with files of that name.
    #[must_use]
    pub fn another(program: &'static str, name: &'static str, folder: &Path) -> Self {
        Self {
            program,
            name,
            config: folder.join(format!("{name}.toml")),
            ready_file: folder.join(format!("{name}.ready.json")),
            log: folder.join(format!("{name}.log")),
            environment: BTreeMap::new(),
            descriptors: None,
            child: None,
            addresses: BTreeMap::new(),
        }
    }

    /// Sets a variable of its environment, which is empty otherwise. Counts from the next start.
    pub fn env(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Bounds its open file descriptors, for good: it cannot raise this. Counts from the next start.
    pub fn limit_descriptors(&mut self, most: u32) {
        self.descriptors = Some(most);
    }

    /// The process, where it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its addresses, once it has served.
    #[must_use]
    pub fn addresses(&self) -> &BTreeMap<String, SocketAddr> {
        &self.addresses
    }

    /// Where a listener is.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn address(&self, listener: &str) -> SocketAddr {
        let found = self.addresses.get(listener);
        *found.unwrap_or_else(|| panic!("{} has no listener `{listener}`: {:?}", self.name, self.addresses))
    }

    /// Starts it and waits until it says that it serves; gives the time that took.
    ///
    /// # Panics
    /// Where it runs already, or ends or is silent instead.
    pub async fn start(&mut self) -> Duration {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let began = Instant::now();
        let mut pid = self.spawn();
        self.addresses = eventually("the ready file", async || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            if ended.is_some() && self.has_lost_its_port() {
                pid = self.spawn();
                return None;
            }
            assert!(ended.is_none(), "{} ended before it served: {ended:?}", self.name);
            ready(&self.ready_file, pid)
        })
        .await;
        began.elapsed()
    }

    fn spawn(&mut self) -> u32 {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log");
        let child = self
            .command()
            .arg("--config")
            .arg(&self.config)
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let pid = child.id();
        self.child = Some(child);
        pid
    }

    /// While it was dead, somebody else's connection or listener was given the port that it had; that one passes.
    fn has_lost_its_port(&self) -> bool {
        let log = self.log();
        !self.addresses.is_empty()
            && log.trim_end().lines().last().is_some_and(|line| line.contains("Address already in use"))
    }

    fn command(&self) -> Command {
        let program = program(&format!("interlock-{}", self.program));
        let Some(most) = self.descriptors else { return Command::new(program) };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"ulimit -n "$0"; exec "$@""#]).arg(most.to_string()).arg(program);
        command
    }

    /// `kill -9`, and waits for its end.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let mut child = self.child.take().expect("it ran");
        child.wait().expect("a dead process has a status");
    }

    /// Stops it where it stands: it keeps its sockets and does nothing.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn wake(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to drain.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// Where it does not.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let status = eventually("the end of the process", async || child.try_wait().expect("a child")).await;
        if ready(&self.ready_file, child.id()).is_some() {
            panic!("{} left its ready file behind", self.name);
        }
        status
    }

    /// Asks it to drain and waits for its end.
    ///
    /// # Panics
    /// Where it does not end, or does not run.
    pub async fn drain(&mut self) -> ExitStatus {
        self.terminate();
        self.ended().await
    }

    /// All it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name));
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the process is ours and has not been waited for");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(LOG_SHOWN);
            let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("--- the end of {}:\n{}\n---", self.log.display(), &log[from..]);
            return;
        }
        // I16, of every test.
        let folder = self.log.parent().expect("a log stands in a folder");
        let leaks = canary::left_by(folder, self.name);
        assert!(leaks.is_empty(), "secrets leaked:\n{}", leaks.join("\n"));
    }
}

/// The addresses, where the file is that of this process.
fn ready(path: &Path, pid: u32) -> Option<BTreeMap<String, SocketAddr>> {
    let text = fs::read_to_string(path).ok()?;
    let said: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).ok()?;
    if said.get("pid")?.as_u64()? != u64::from(pid) {
        return None;
    }
    let addresses = said.iter().filter(|(name, _)| *name != "pid");
    addresses.map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?))).collect()
}
