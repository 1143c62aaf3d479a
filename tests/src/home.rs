//! A user's home whose `interlock` commands talk to a pair.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use interlock_client::OwnerSession;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{Pair, patience::eventually, service::program, up};

/// The home.
#[derive(Debug)]
pub struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    /// With a context for this pair, and nobody signed in. The pair must have served.
    ///
    /// # Panics
    /// Where files cannot be made.
    #[must_use]
    pub fn of(pair: &Pair) -> Self {
        let home = Self { folder: tempfile::tempdir().expect("a folder") };
        let context = json!({
            "auth": format!("https://{}", pair.auth.address("public")),
            "gateway": format!("https://{}", pair.gateway.address("public")),
            "ca_file": pair.world.ca(),
        });
        std::fs::create_dir_all(home.kept()).expect("a folder");
        std::fs::write(home.kept().join("context.json"), context.to_string()).expect("written");
        home
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the commands keep what they keep.
    #[must_use]
    pub fn kept(&self) -> PathBuf {
        self.path("config/interlock")
    }

    /// The file of the kept owner session.
    #[must_use]
    pub fn session_file(&self) -> PathBuf {
        self.kept().join("context.session")
    }

    /// Keeps an owner session, as a sign-in would.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn keep(&self, session: &OwnerSession) {
        std::fs::write(self.session_file(), session.to_json().as_bytes()).expect("written");
    }

    /// A command of `interlock`, ready to be started.
    #[must_use]
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(program("interlock"));
        command.args(arguments).env_clear().envs(up::environment(self.folder.path())).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn run(&self, arguments: &str) -> Output {
        self.command(arguments.split_whitespace()).output().expect("interlock runs")
    }
}

/// A worker: `interlock worker run` with a program, as a process of its own. Killed on drop.
#[derive(Debug)]
pub struct Hand {
    name: String,
    child: Child,
}

impl Hand {
    /// Starts one that runs `script` in a shell for each job of the agent.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start(home: &Home, agent: &str, name: &str, capacity: u32, script: &str) -> Self {
        Self::start_with(home, agent, name, capacity, "0s", script)
    }

    /// The same, where what runs may end within `drain` once the worker is asked to end.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start_with(
        home: &Home,
        agent: &str,
        name: &str,
        capacity: u32,
        drain: &str,
        script: &str,
    ) -> Self {
        let capacity = capacity.to_string();
        let arguments = [
            "worker",
            "run",
            "--agent",
            agent,
            "--name",
            name,
            "--capacity",
            &capacity,
            "--drain",
            drain,
            "--",
            "sh",
            "-c",
            script,
        ];
        let log = |what: &str| {
            let path = home.path(&format!("{name}.{what}"));
            std::fs::File::options().create(true).append(true).open(path).expect("a log")
        };
        let child = home.command(arguments).stdout(log("out")).stderr(log("err")).spawn();
        Self { name: name.to_owned(), child: child.expect("a worker") }
    }

    /// As it is called in events.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has said of its jobs.
    ///
    /// # Panics
    /// Where its log is gone.
    #[must_use]
    pub fn said(&self, home: &Home) -> String {
        read(&home.path(&format!("{}.out", self.name)))
    }

    /// `kill -9`, and waits for its end.
    ///
    /// # Panics
    /// Where it ended by itself: a worker survives whatever services do.
    pub fn kill(&mut self) {
        let ended = self.child.try_wait().expect("a child");
        assert!(ended.is_none(), "{} ended by itself: {ended:?}", self.name);
        self.child.kill().expect("it runs");
        self.child.wait().expect("a dead process has a status");
    }

    /// Asks it to end, and waits until it has: SIGTERM.
    ///
    /// # Panics
    /// Where it does not end well.
    pub async fn drain(&mut self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::TERM).expect("it is ours and has not been waited for");
        let child = &mut self.child;
        let ended = eventually("a worker's end", async || child.try_wait().expect("a child")).await;
        assert!(ended.success(), "{}: {ended}", self.name);
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a log")
}
