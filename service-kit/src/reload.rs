//! Certificates, tokens and the like change while a service runs: reloads on file change and on SIGHUP.
//!
//! Folders are watched, not files, since a file that is replaced by rename is another file. Changes are marks,
//! not a queue: however many come, each reload runs once for them. What a failed reload would have replaced
//! stays as it was; the failure is logged and counted (`interlock_reloads_total`).

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use notify::{
    EventKind, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// A burst of changes counts as one: a certificate and its key are two files.
const QUIET: Duration = Duration::from_millis(200);
/// However long the burst goes on.
const QUIET_WAITS_MAX: u32 = 5;

/// What a reload may fail with: one clear line, no secret.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Reload = Box<dyn Fn() -> Result<bool, BoxError> + Send + Sync>;

/// Why reloads could not be started.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// A folder cannot be watched.
    #[error("{folder}: cannot be watched: {source}", folder = folder.display())]
    Watch {
        /// Which folder.
        folder: PathBuf,
        /// What the system said.
        source: notify::Error,
    },
    /// The system gives no watcher or no signals.
    #[error("no watcher for file changes: {0}")]
    System(#[from] io::Error),
}

/// Reloads to be registered.
#[derive(Default)]
pub struct Reloads {
    entries: Vec<Entry>,
}

struct Entry {
    name: &'static str,
    paths: BTreeSet<PathBuf>,
    reload: Reload,
    changed: AtomicBool,
}

/// What the watcher's thread and the task share.
struct Shared {
    entries: Vec<Entry>,
    wake: Notify,
}

impl Reloads {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a reload that runs when one of the files changes, and on SIGHUP. It answers whether anything
    /// changed, and keeps the last good state where it fails. It may block.
    #[must_use]
    pub fn on(
        mut self,
        paths: impl IntoIterator<Item = PathBuf>,
        name: &'static str,
        reload: impl Fn() -> Result<bool, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.entries.push(Entry {
            name,
            paths: paths.into_iter().collect(),
            reload: Box::new(reload),
            // The files may have changed between their first load and the watch.
            changed: AtomicBool::new(true),
        });
        self
    }

    /// Starts watching, in a task of the current runtime, until `shutdown`. Runs each reload once at first.
    ///
    /// # Errors
    /// [`ReloadError`] where a folder cannot be watched.
    pub fn start(mut self, shutdown: CancellationToken) -> Result<JoinHandle<()>, ReloadError> {
        for entry in &mut self.entries {
            let absolute: io::Result<BTreeSet<PathBuf>> =
                entry.paths.iter().map(std::path::absolute).collect();
            entry.paths = absolute?;
        }
        let shared = Arc::new(Shared { entries: self.entries, wake: Notify::new() });
        let marks = Arc::clone(&shared);
        let mut watcher = notify::recommended_watcher(move |event| marks.mark(event))
            .map_err(|e| ReloadError::System(io::Error::other(e)))?;
        let folders: BTreeSet<&Path> =
            shared.entries.iter().flat_map(|e| &e.paths).filter_map(|path| path.parent()).collect();
        for folder in folders {
            watcher
                .watch(folder, RecursiveMode::NonRecursive)
                .map_err(|source| ReloadError::Watch { folder: folder.to_owned(), source })?;
        }
        let mut hangups = signal(SignalKind::hangup())?;
        shared.wake.notify_one();
        Ok(tokio::spawn(async move {
            let _watches = watcher;
            let work = async {
                loop {
                    tokio::select! {
                        () = shared.wake.notified() => settle(&shared.wake).await,
                        _ = hangups.recv() => shared.mark_all(),
                    }
                    let turn = Arc::clone(&shared);
                    if tokio::task::spawn_blocking(move || turn.run_marked()).await.is_err() {
                        tracing::error!("a reload panicked; the last good state stays");
                    }
                }
            };
            shutdown.run_until_cancelled(work).await;
        }))
    }
}

impl fmt::Debug for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|e| e.name)).finish()
    }
}

/// Waits until a burst is over.
async fn settle(wake: &Notify) {
    for _ in 0..QUIET_WAITS_MAX {
        if tokio::time::timeout(QUIET, wake.notified()).await.is_err() {
            return;
        }
    }
}

impl Shared {
    fn mark(&self, event: notify::Result<notify::Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "file changes may have been missed");
                return self.mark_all_and_wake();
            }
        };
        // A reload reads the files: taking note of that would never end.
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        if event.kind.is_access() && event.kind != written {
            return;
        }
        if event.need_rescan() {
            return self.mark_all_and_wake();
        }
        for entry in self.entries.iter().filter(|e| event.paths.iter().any(|path| e.concerns(path))) {
            entry.changed.store(true, Ordering::SeqCst);
            self.wake.notify_one();
        }
    }

    fn mark_all(&self) {
        for entry in &self.entries {
            entry.changed.store(true, Ordering::SeqCst);
        }
    }

    fn mark_all_and_wake(&self) {
        self.mark_all();
        self.wake.notify_one();
    }

    fn run_marked(&self) {
        for entry in self.entries.iter().filter(|e| e.changed.swap(false, Ordering::SeqCst)) {
            let result = match (entry.reload)() {
                Ok(true) => {
                    tracing::info!(what = entry.name, "reloaded");
                    "changed"
                }
                Ok(false) => "unchanged",
                Err(error) => {
                    tracing::error!(what = entry.name, %error, "reload failed; the last good state stays");
                    "failed"
                }
            };
            metrics::counter!("interlock_reloads_total", "what" => entry.name, "result" => result)
                .increment(1);
        }
    }
}

impl Entry {
    /// Whether a change at this path may be a change of one of ours. Kubernetes swaps a link named `..data`
    /// beside the files that point through it.
    fn concerns(&self, changed: &Path) -> bool {
        let swapped = changed.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
        self.paths.contains(changed)
            || swapped && self.paths.iter().any(|path| path.parent() == changed.parent())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::sync::mpsc;

    use super::*;

    /// No step of a test takes longer.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn next(seen: &mut mpsc::UnboundedReceiver<String>, wanted: &str) {
        let found = async {
            while let Some(text) = seen.recv().await {
                if text == wanted {
                    return true;
                }
            }
            false
        };
        assert!(tokio::time::timeout(PATIENCE, found).await.expect("in time"), "{wanted}");
    }

    #[tokio::test]
    async fn a_file_replaced_by_rename_is_read_again_and_a_failure_is_survived() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cert.pem");
        let replace = |text: &str| {
            let beside = folder.path().join("cert.new");
            fs::write(&beside, text).expect("written");
            fs::rename(&beside, &path).expect("renamed");
        };
        replace("one");
        let (tell, mut seen) = mpsc::unbounded_channel();
        let read = path.clone();
        let reloads = Reloads::new().on([path.clone()], "certificate", move || {
            let text = fs::read_to_string(&read)?;
            let bad = text == "bad";
            tell.send(text).map_err(|_| "the test is over")?;
            if bad { Err("no certificate".into()) } else { Ok(true) }
        });
        let shutdown = CancellationToken::new();
        let task = reloads.start(shutdown.clone()).expect("started");
        next(&mut seen, "one").await;
        replace("bad");
        next(&mut seen, "bad").await;
        replace("two");
        next(&mut seen, "two").await;
        let me = rustix::process::getpid();
        fs::write(folder.path().join("other"), "x").expect("written");
        rustix::process::kill_process(me, rustix::process::Signal::HUP).expect("sent");
        next(&mut seen, "two").await;
        shutdown.cancel();
        tokio::time::timeout(PATIENCE, task).await.expect("in time").expect("no panic");
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("no/cert.pem");
        let reloads = Reloads::new().on([path], "certificate", || Ok(false));
        let error = reloads.start(CancellationToken::new()).expect_err("no such folder");
        assert!(error.to_string().contains("cannot be watched"), "{error}");
    }
}
