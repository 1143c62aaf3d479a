//! Faults of the disk and the clock for one program, switched on and off while it runs.
//!
//! `tests/faults/faults.c` stands between the program and the kernel; this is the other half of its layouts.
//! It touches files under one folder only, and the wall clock of that one process.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use crate::service::Service;

mod trace;

pub use trace::{Inode, Operation, read};

const SOURCE: &str = include_str!("../faults/faults.c");

/// One switch.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Files may grow by so many bytes more.
    SpaceLeft(u64),
    /// They may grow again.
    SpaceBack,
    /// After so many that pass, so many syncs fail with EIO; `None`: all of them.
    SyncsFail(u32, Option<u32>),
    /// No sync fails any more.
    SyncsPass,
    /// Each sync takes so much longer.
    SyncsTake(Duration),
    /// After so many that pass, so many writes fail with EIO; `None`: all of them.
    WritesFail(u32, Option<u32>),
    /// No write fails any more.
    WritesPass,
    /// A write takes at most so many bytes, and says so; 0: all.
    WritesAtMost(u32),
    /// The wall clock is so many seconds ahead; behind, where negative.
    ClockAhead(i64),
    /// Every operation is kept for [`Faults::trace`].
    Traced(bool),
}

/// What has been seen since the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Writes, whatever became of them.
    pub writes: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Syncs, whatever became of them.
    pub syncs: u64,
    /// Syncs that failed here.
    pub syncs_failed: u64,
    /// Writes that failed here.
    pub writes_failed: u64,
    /// Writes that found too little space.
    pub writes_refused: u64,
}

/// The faults of the files under one folder.
#[derive(Debug)]
pub struct Faults {
    folder: PathBuf,
    control: File,
    control_path: PathBuf,
    trace_path: PathBuf,
    shim: PathBuf,
}

/// The words of the control file: `enum word` in the shim.
#[derive(Clone, Copy)]
enum Word {
    Space,
    SyncPass,
    SyncFail,
    SyncDelay,
    WritePass,
    WriteFail,
    WriteMax,
    Clock,
    Trace,
    Writes,
    Bytes,
    Syncs,
    SyncsFailed,
    WritesFailed,
    WritesRefused,
    Count,
}

impl Faults {
    /// None yet, for the files under `folder`. It keeps two files beside that one.
    ///
    /// # Panics
    /// Where the folder does not exist, or there is no C compiler.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let folder = fs::canonicalize(folder).expect("the folder exists");
        let beside = |ending| folder.with_extension(ending);
        let (control_path, trace_path) = (beside("faults"), beside("trace"));
        let control = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&control_path)
            .expect("ours");
        control.set_len(Word::Count as u64 * 8).expect("room for it");
        let faults = Self { folder, control, control_path, trace_path, shim: shim() };
        faults.clear();
        faults
    }

    /// The environment of a program that is to have them.
    ///
    /// # Panics
    /// Where a path is no text.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("LD_PRELOAD", &self.shim),
            ("INTERLOCK_FAULTS_FOLDER", &self.folder),
            ("INTERLOCK_FAULTS_CONTROL", &self.control_path),
            ("INTERLOCK_FAULTS_TRACE", &self.trace_path),
        ]
        .map(|(name, path)| (name, path.to_str().expect("paths of ours are text")))
    }

    /// From its next start on, the service has them.
    pub fn attach(&self, service: &mut Service) {
        for (name, value) in self.environment() {
            service.env(name, value);
        }
    }

    /// Switches one on or off.
    ///
    /// # Panics
    /// Where the control file cannot be written.
    pub fn set(&self, fault: Fault) {
        let micros = |span: Duration| i64::try_from(span.as_micros()).expect("a short span");
        let times = |times: Option<u32>| times.map_or(-1, i64::from);
        match fault {
            Fault::SpaceLeft(bytes) => self.put(Word::Space, i64::try_from(bytes).expect("a disk")),
            Fault::SpaceBack => self.put(Word::Space, -1),
            Fault::SyncsFail(pass, fail) => {
                self.put(Word::SyncPass, pass.into());
                self.put(Word::SyncFail, times(fail));
            }
            Fault::SyncsPass => self.put(Word::SyncFail, 0),
            Fault::SyncsTake(span) => self.put(Word::SyncDelay, micros(span)),
            Fault::WritesFail(pass, fail) => {
                self.put(Word::WritePass, pass.into());
                self.put(Word::WriteFail, times(fail));
            }
            Fault::WritesPass => self.put(Word::WriteFail, 0),
            Fault::WritesAtMost(bytes) => self.put(Word::WriteMax, bytes.into()),
            Fault::ClockAhead(seconds) => self.put(Word::Clock, seconds * 1_000_000),
            Fault::Traced(on) => self.put(Word::Trace, on.into()),
        }
    }

    /// Switches all off.
    pub fn clear(&self) {
        self.set(Fault::SpaceBack);
        self.set(Fault::SyncsPass);
        self.set(Fault::SyncsTake(Duration::ZERO));
        self.set(Fault::WritesPass);
        self.set(Fault::WritesAtMost(0));
        self.set(Fault::ClockAhead(0));
        self.set(Fault::Traced(false));
    }

    /// What has been seen: a test that expects a fault can tell whether it happened.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen {
            writes: self.counted(Word::Writes),
            bytes: self.counted(Word::Bytes),
            syncs: self.counted(Word::Syncs),
            syncs_failed: self.counted(Word::SyncsFailed),
            writes_failed: self.counted(Word::WritesFailed),
            writes_refused: self.counted(Word::WritesRefused),
        }
    }

    /// Puts a mark into the trace, after everything that has happened until now.
    ///
    /// # Panics
    /// Where the trace cannot be written.
    pub fn mark(&self, text: &str) {
        let mut trace =
            File::options().append(true).create(true).open(&self.trace_path).expect("a trace of ours");
        trace.write_all(&trace::mark(text)).expect("room for it");
    }

    /// Everything that was traced, in its order.
    ///
    /// # Panics
    /// Where it cannot be read.
    #[must_use]
    pub fn trace(&self) -> Vec<Operation> {
        trace::read(&fs::read(&self.trace_path).expect("a trace"), &self.folder)
    }

    fn put(&self, word: Word, value: i64) {
        self.control.write_all_at(&value.to_ne_bytes(), word as u64 * 8).expect("a file of ours");
    }

    fn counted(&self, word: Word) -> u64 {
        let mut value = [0; 8];
        self.control.read_exact_at(&mut value, word as u64 * 8).expect("a file of ours");
        u64::from_ne_bytes(value)
    }
}

/// The shim, built where it is not there yet: beside the programs, by the name of what it was built from.
fn shim() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.parent().expect("it stands in a folder");
    let digest = Sha256::digest(SOURCE.as_bytes());
    let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let built = folder.join(format!("faults-{name}.so"));
    if !built.exists() {
        // Tests that run at once build it at once: each its own, and the last name stays.
        let own = folder.join(format!("faults-{name}-{}.so", std::process::id()));
        let mut cc = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-pthread", "-x", "c", "-", "-o"])
            .arg(&own)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a C compiler: ./check names its package");
        cc.stdin.take().expect("piped").write_all(SOURCE.as_bytes()).expect("it reads its source");
        assert!(cc.wait().expect("it ends").success(), "the shim is no C");
        fs::rename(&own, &built).expect("a file of ours");
    }
    built
}
