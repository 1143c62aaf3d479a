//! A command at a terminal of its own, at which one types.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread::JoinHandle,
};

use parking_lot::Mutex;
use rustix::{
    fs::OFlags,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};

use crate::patience::eventually_sync;

/// A command that runs, and all that its terminal has shown.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
    screen: JoinHandle<()>,
    /// How much of what was shown came before the last answer.
    answered: usize,
}

impl Terminal {
    /// Starts the command there.
    ///
    /// # Panics
    /// Where there is no terminal to be had.
    #[must_use]
    pub fn run(command: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("ours");
        let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("text");
        let flags = OFlags::NOCTTY.bits().cast_signed();
        let slave =
            File::options().read(true).write(true).custom_flags(flags).open(name).expect("its other end");
        let end = || Stdio::from(slave.try_clone().expect("a second handle"));
        // A program of util-linux gives it the terminal; whoever forks may not.
        let mut inside = Command::new("setsid");
        inside.arg("--ctty").arg("--wait").arg(command.get_program()).args(command.get_args()).env_clear();
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        let child = inside.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it runs");
        let keys = File::from(master);
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let screen = std::thread::spawn({
            let (mut screen, shown) = (keys.try_clone().expect("a second handle"), Arc::clone(&shown));
            move || {
                let mut buffer = [0; 4096];
                // Once nobody has the other end, reading ends, with an error on Linux.
                while let Ok(count @ 1..) = screen.read(&mut buffer) {
                    shown.lock().extend_from_slice(&buffer[..count]);
                }
            }
        });
        Self { child, keys, shown, screen, answered: 0 }
    }

    /// Waits until it asks for a secret with these words, and types it.
    ///
    /// # Panics
    /// Where it does not ask, or ends.
    pub fn answer(&mut self, prompt: &str, secret: &str) {
        eventually_sync(prompt, || {
            let modes = tcgetattr(&self.keys).expect("a terminal").local_modes;
            let is_asked = String::from_utf8_lossy(&self.shown.lock()[self.answered..]).contains(prompt);
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{ended:?}: {}", String::from_utf8_lossy(&self.shown.lock()));
            is_asked && !modes.contains(LocalModes::ECHO)
        });
        self.answered = self.shown.lock().len();
        self.keys.write_all(format!("{secret}\n").as_bytes()).expect("typed");
    }

    /// How it ended, and all that was shown.
    ///
    /// # Panics
    /// Where it cannot be awaited.
    #[must_use]
    pub fn end(mut self) -> (ExitStatus, Vec<u8>) {
        let status = self.child.wait().expect("a child");
        self.screen.join().expect("no panic");
        let shown = std::mem::take(&mut *self.shown.lock());
        (status, shown)
    }
}
