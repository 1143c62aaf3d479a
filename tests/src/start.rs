//! Starts that are to be refused: what a program says, how it ends, and what changed on the disk.
//!
//! A [`Yard`] is a world's folder at rest, with a copy aside. An [`Attempt`] spoils something in it and runs a
//! program, which is expected to end by itself; [`Yard::refused`] judges that: the exit code, one clear line, no
//! secret, no panic, not a byte changed. Then everything is put back.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{patience::eventually_sync, service::program};

/// Files that a start may touch, refused or not: locks, and SQLite's index of a log that was there.
const MAY_CHANGE: [&str; 2] = ["store.lock", "-shm"];
/// What is beside the folders and not of the programs.
const OURS: [&str; 2] = [".faults", ".trace"];

/// A folder, path by path: kind, mode, owner and contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, String>);

impl Snapshot {
    /// As it is now.
    ///
    /// # Panics
    /// Where it cannot be read.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let mut found = BTreeMap::new();
        look(folder, folder, &mut found);
        Self(found)
    }

    /// The paths at which the two differ.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<PathBuf> {
        let paths = self.0.keys().chain(other.0.keys());
        let mut found: Vec<_> =
            paths.filter(|path| self.0.get(*path) != other.0.get(*path)).cloned().collect();
        found.sort();
        found.dedup();
        found
    }
}

fn look(top: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).expect("a folder that can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if MAY_CHANGE.iter().chain(&OURS).any(|ending| name.ends_with(ending)) {
            continue;
        }
        let at = path.strip_prefix(top).expect("beneath it").to_owned();
        let metadata = fs::symlink_metadata(&path).expect("there");
        let about = format!("{:o} {}", metadata.mode(), metadata.uid());
        let what = if metadata.is_dir() {
            look(top, &path, found);
            "folder".to_owned()
        } else if metadata.is_symlink() {
            format!("link to {}", fs::read_link(&path).expect("a link").display())
        } else if metadata.is_file() {
            let contents = fs::read(&path).expect("a file that can be read");
            format!("{} bytes, {:x?}", contents.len(), Sha256::digest(&contents))
        } else {
            "other".to_owned()
        };
        found.insert(at, format!("{about} {what}"));
    }
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Told {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// How long that took.
    pub took: Duration,
}

impl Told {
    /// Runs a program that ends by itself.
    ///
    /// # Panics
    /// Where it does not end.
    #[must_use]
    pub fn by(mut command: Command) -> Self {
        let began = Instant::now();
        let child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        Self::at_end(child, began)
    }

    fn at_end(mut child: Child, began: Instant) -> Self {
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let reader = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut pipe) = pipe {
                    pipe.read_to_end(&mut bytes).expect("a pipe");
                }
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let out = reader(out.take().map(|pipe| Box::new(pipe) as _));
        let err = reader(err.take().map(|pipe| Box::new(pipe) as _));
        let mut status = None;
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually_sync("the end of the program", || {
                status = child.try_wait().expect("a child");
                status.is_some()
            });
        }));
        if let Err(silent) = ended {
            let _ = (child.kill(), child.wait());
            eprintln!("it was still running, and had said: {}", err.join().expect("a reader"));
            std::panic::resume_unwind(silent);
        }
        let took = began.elapsed();
        let [stdout, stderr] = [out, err].map(|reader| reader.join().expect("a reader"));
        Self { code: status.and_then(|status| status.code()), stdout, stderr, took }
    }

    /// The lines in which the program speaks for itself. All others must be lines of its log.
    ///
    /// # Panics
    /// Where one is neither: a panic, a backtrace, a library's complaint.
    #[must_use]
    pub fn lines(&self, name: &str) -> Vec<&str> {
        let prefix = format!("{name}: ");
        let (said, other): (Vec<_>, Vec<_>) = self.stderr.lines().partition(|line| line.starts_with(&prefix));
        let logged =
            |line: &&&str| line.starts_with("20") && (line.contains("Z  INFO ") || line.contains("Z  WARN "));
        let strange: Vec<_> = other.iter().filter(|line| !logged(line)).collect();
        assert!(strange.is_empty(), "neither its own line nor one of its log: {strange:#?}");
        said
    }
}

/// What a refusal has to be.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// The exit code.
    pub code: i32,
    /// Words of its line: what is wrong, where, what to do.
    pub says: &'static [&'static str],
}

/// A world's folder at rest, and how it was.
#[derive(Debug)]
pub struct Yard {
    folder: PathBuf,
    aside: TempDir,
    before: Snapshot,
    secrets: Vec<String>,
    slowest: Duration,
    refused: usize,
}

impl Yard {
    /// Of this folder, in which nothing runs. None of the secrets may ever be said.
    ///
    /// # Panics
    /// Where it cannot be copied.
    #[must_use]
    pub fn new(folder: &Path, secrets: Vec<String>) -> Self {
        let aside = tempfile::tempdir().expect("a folder");
        for entry in fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            copy(&entry.path(), &aside.path().join(entry.file_name()));
        }
        let before = Snapshot::of(folder);
        assert_eq!(Snapshot::of(aside.path()), before, "the copy is one");
        Self { folder: folder.to_owned(), aside, before, secrets, slowest: Duration::ZERO, refused: 0 }
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Spoils, runs, judges, puts back.
    ///
    /// # Panics
    /// Where the refusal is not what it should be.
    pub fn refused(
        &mut self,
        what: &str,
        service: &'static str,
        spoil: fn(&mut Attempt) -> &mut Attempt,
        wanted: Refusal,
    ) {
        println!("{service}: {what}");
        let mut attempt = Attempt::new(&self.folder, service);
        spoil(&mut attempt);
        let spoiled = Snapshot::of(&self.folder);
        let told = Told::by(attempt.command());
        let context = format!("{service}: {what}\n{}", told.stderr);
        self.judge(&told, attempt.name(), wanted, &context);
        let changed = spoiled.differences(&Snapshot::of(&self.folder));
        assert!(changed.is_empty(), "a refused start changed {changed:?}: {context}");
        self.repair();
    }

    fn judge(&mut self, told: &Told, name: &str, wanted: Refusal, context: &str) {
        assert_eq!(told.code, Some(wanted.code), "{context}");
        let said = told.lines(name);
        assert_eq!(said.len(), 1, "one line: {context}");
        for word in wanted.says {
            assert!(said[0].contains(word), "it does not say `{word}`: {context}");
        }
        assert!(said[0].chars().count() < 600 && !said[0].chars().any(char::is_control), "{context}");
        assert!(!told.stderr.contains("panicked") && !told.stderr.contains("ilk_"), "{context}");
        for secret in &self.secrets {
            assert!(!told.stderr.contains(secret) && !told.stdout.contains(secret), "a secret: {context}");
        }
        assert_eq!(told.stdout, "", "{context}");
        self.slowest = self.slowest.max(told.took);
        self.refused += 1;
    }

    /// Puts everything back as it was.
    ///
    /// # Panics
    /// Where that does not succeed.
    pub fn repair(&self) {
        for path in self.before.differences(&Snapshot::of(&self.folder)) {
            let (to, from) = (self.folder.join(&path), self.aside.path().join(&path));
            match fs::symlink_metadata(&to) {
                Ok(found) if found.is_dir() && !from.is_dir() => fs::remove_dir_all(&to).expect("removed"),
                Ok(found) if !found.is_dir() => fs::remove_file(&to).expect("removed"),
                // Removed with its folder, or a folder whose mode or owner differs.
                _ => {}
            }
            if from.symlink_metadata().is_ok() {
                copy(&from, &to);
            }
        }
        self.forget_indexes();
        let left = self.before.differences(&Snapshot::of(&self.folder));
        assert!(left.is_empty(), "not put back: {left:?}");
    }

    /// An index belongs to the log that was there.
    fn forget_indexes(&self) {
        for index in ["auth/auth.db-shm", "gateway/gateway.db-shm"] {
            let _ = fs::remove_file(self.folder.join(index));
        }
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        println!("{} starts refused; the slowest took {} ms", self.refused, self.slowest.as_millis());
    }
}

fn copy(from: &Path, to: &Path) {
    let metadata = fs::symlink_metadata(from).expect("there");
    if metadata.is_dir() {
        if !to.is_dir() {
            fs::create_dir(to).expect("made");
        }
        for entry in fs::read_dir(from).expect("a folder") {
            let entry = entry.expect("an entry");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else if metadata.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from).expect("a link"), to).expect("linked");
        return;
    } else {
        fs::copy(from, to).expect("copied");
    }
    fs::set_permissions(to, metadata.permissions()).expect("its mode");
    if to.metadata().expect("there").uid() != metadata.uid() {
        std::os::unix::fs::chown(to, Some(metadata.uid()), Some(metadata.gid())).expect("its owner");
    }
}

/// One start: of what, with what, after what was done to the folder.
#[derive(Debug)]
pub struct Attempt {
    folder: PathBuf,
    service: &'static str,
    config: OsString,
    flags: Vec<(String, String)>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    unprivileged: bool,
}

impl Attempt {
    /// As the folder's configuration says, but on ports that nobody else can have taken meanwhile.
    #[must_use]
    pub fn new(folder: &Path, service: &'static str) -> Self {
        let any = |listener: &str| (format!("{listener}.address"), "127.0.0.1:0".to_owned());
        Self {
            folder: folder.to_owned(),
            service,
            config: folder.join(format!("{service}.toml")).into(),
            flags: ["public", "internal", "health", "metrics"].map(any).into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            unprivileged: false,
        }
    }

    /// What begins its own lines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        if self.service == "auth" { "interlock-auth" } else { "interlock-gateway" }
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `name` for auth, `other` for the gateway.
    #[must_use]
    pub fn either<'a>(&self, auth: &'a str, gateway: &'a str) -> &'a str {
        if self.service == "auth" { auth } else { gateway }
    }

    /// The store's file.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path(self.either("auth/auth.db", "gateway/gateway.db"))
    }

    /// Sets a key over the configuration.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.flags.retain(|(set, _)| set != key);
        self.flags.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Leaves a key to the configuration.
    pub fn leave(&mut self, key: &str) -> &mut Self {
        self.flags.retain(|(set, _)| set != key);
        self
    }

    /// Sets a key to a path in the folder.
    pub fn set_path(&mut self, key: &str, name: &str) -> &mut Self {
        let path = self.path(name).display().to_string();
        self.set(key, &path)
    }

    /// Profile `hardened`.
    pub fn hardened(&mut self) -> &mut Self {
        self.set("profile", "hardened")
    }

    /// Another configuration file.
    pub fn config(&mut self, path: impl Into<OsString>) -> &mut Self {
        self.config = path.into();
        self
    }

    /// A configuration file with this in it.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn config_of(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let path = self.path("spoiled.toml");
        fs::write(&path, text).expect("written");
        self.config(path)
    }

    /// A further argument.
    pub fn argument(&mut self, argument: &str) -> &mut Self {
        self.arguments.push(argument.into());
        self
    }

    /// A variable of its environment, which is empty otherwise.
    pub fn env(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// As a user who may do nothing, to whom the folder belongs all the same.
    ///
    /// # Panics
    /// Where the folder cannot be given to that user.
    pub fn unprivileged(&mut self) -> &mut Self {
        if rustix::process::geteuid().is_root() {
            give(&self.folder);
            self.unprivileged = true;
        }
        self
    }

    /// Puts these bytes into a file; its mode stays.
    ///
    /// # Panics
    /// Where they cannot be written.
    pub fn write(&mut self, name: &str, contents: impl AsRef<[u8]>) -> &mut Self {
        fs::write(self.path(name), contents).expect("written");
        self
    }

    /// Changes a file's bytes.
    ///
    /// # Panics
    /// Where it cannot be read or written.
    pub fn change(&mut self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let mut contents = fs::read(path).expect("read");
        change(&mut contents);
        fs::write(path, contents).expect("written");
        self
    }

    /// Removes a file.
    ///
    /// # Panics
    /// Where it is not there.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        fs::remove_file(self.path(name)).expect("removed");
        self
    }

    /// Sets a mode.
    ///
    /// # Panics
    /// Where it is not there.
    pub fn mode(&mut self, name: &str, mode: u32) -> &mut Self {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("its mode");
        self
    }

    /// A folder in a file's place.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn folder_at(&mut self, name: &str) -> &mut Self {
        let path = self.path(name);
        if path.is_file() {
            fs::remove_file(&path).expect("removed");
        }
        fs::create_dir(path).expect("made");
        self
    }

    /// The program, ready to be started.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(program(self.name()));
        command.args(&self.arguments).arg("--config").arg(&self.config);
        for (key, value) in &self.flags {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.env_clear().env("RUST_BACKTRACE", "1").envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).current_dir(&self.folder);
        if self.unprivileged {
            use std::os::unix::process::CommandExt as _;
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

/// Who may do nothing.
const NOBODY: u32 = 65_534;

fn give(folder: &Path) {
    std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).expect("given");
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.is_symlink() {
            give(&path);
        } else {
            std::os::unix::fs::lchown(&path, Some(NOBODY), Some(NOBODY)).expect("given");
        }
    }
}
