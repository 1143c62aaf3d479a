//! `interlock up` in a folder and with a home of its own, and commands run beside it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{patience::eventually_sync, service::program};

/// A running `interlock up`; ended with this value.
#[derive(Debug)]
pub struct Up {
    home: tempfile::TempDir,
    child: Child,
    flags: Vec<String>,
}

impl Up {
    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// Where it does not become ready.
    #[must_use]
    pub fn start(flags: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(home.path().join("work")).expect("a folder");
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let child = spawn(home.path(), &flags);
        let mut up = Self { home, child, flags };
        up.serves();
        up
    }

    /// Starts it again where it was, and waits until it is ready.
    ///
    /// # Panics
    /// Where it does not become ready.
    pub fn again(&mut self) {
        // The earlier one's says nothing of this one.
        std::fs::remove_file(self.home.path().join("ready.json")).expect("it was ready before");
        self.child = spawn(self.home.path(), &self.flags);
        self.serves();
    }

    fn serves(&mut self) {
        let ready = self.home.path().join("ready.json");
        eventually_sync("up's ready file", || {
            let ended = self.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "up ended: {ended:?}");
            ready.exists()
        });
    }

    /// Asks it to end, as Ctrl-C does, and waits until both services have drained.
    ///
    /// # Panics
    /// Where it does not end well.
    pub fn end(&mut self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::TERM).expect("it is ours");
        let mut status = None;
        eventually_sync("the end of up", || {
            status = self.child.try_wait().expect("a child of ours");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "up ended badly: {status:?}");
    }

    /// The home folder of its commands.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The folder in which both services run.
    #[must_use]
    pub fn world(&self) -> PathBuf {
        self.home.path().join("world")
    }

    /// What it said when it was ready.
    ///
    /// # Panics
    /// Where that is no JSON.
    #[must_use]
    pub fn ready(&self) -> serde_json::Value {
        let text = std::fs::read_to_string(self.home.path().join("ready.json")).expect("it was ready");
        serde_json::from_str(&text).expect("JSON")
    }

    /// A line of shell in the home's folder `work`, with `interlock` on the path.
    ///
    /// # Panics
    /// Where there is no shell.
    #[must_use]
    pub fn shell(&self, line: &str) -> Output {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(self.home().join("work"));
        command.envs(environment(self.home())).stdin(Stdio::null());
        command.output().expect("sh runs")
    }

    /// A command of `interlock` in the home's folder `work`, ready to be started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("interlock"));
        command.args(arguments).current_dir(self.home().join("work"));
        command.envs(environment(self.home())).stdin(Stdio::null());
        command
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it cannot be awaited.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("a child of ours")
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Its children end with it: they ask the kernel for that. It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(home: &Path, flags: &[String]) -> Child {
    Command::new(program("interlock"))
        .args(["up", "--dir"])
        .arg(home.join("world"))
        .arg("--ready-file")
        .arg(home.join("ready.json"))
        .args(flags)
        .envs(environment(home))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("interlock up starts")
}

/// What commands of a home find in their environment.
pub(crate) fn environment(home: &Path) -> Vec<(&'static str, String)> {
    let programs = program("interlock");
    let programs = programs.parent().expect("a program stands in a folder").display();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    vec![
        ("PATH", path),
        ("HOME", home.display().to_string()),
        ("XDG_CONFIG_HOME", home.join("config").display().to_string()),
        ("XDG_DATA_HOME", home.join("data").display().to_string()),
        ("INTERLOCK_UP", home.join("world").display().to_string()),
    ]
}
