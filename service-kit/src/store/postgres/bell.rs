//! What programs on one database tell each other after their commits: LISTEN and NOTIFY, on a connection apart.
//!
//! A wake-up, never the truth: it is sent when the commit is over, so that no commit waits for another one's, and what
//! is lost is found by whoever looks by itself now and then. After each break all are told that they may have missed
//! something.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Lane, PostgresDomain, bind,
    link::{Ear, Kind, Link, taken_over},
    target::Target,
    trouble::Trouble,
};
use crate::{
    random,
    store::{Fault, Observer},
};

const LISTEN: &str = "LISTEN interlock";
const NOTIFY: &str = "SELECT pg_notify('interlock', $1)";
/// Lines that wait to be told. What is beyond is not told.
const LINES_MAX: usize = 8_192;
/// Notes that wait to be heard.
const NOTES_MAX: usize = 1_024;
/// The bytes of one note: the database takes less than 8000.
const NOTE_BYTES_MAX: usize = 7_000;
/// How often a silent connection is tried.
const LOOK: Duration = Duration::from_secs(5);
/// The pause before a new connection.
const AGAIN: Duration = Duration::from_millis(250);

/// Tells what its writer has committed, here and to others.
struct Teller<D: PostgresDomain> {
    here: Arc<dyn Observer<D>>,
    others: mpsc::Sender<String>,
}

impl<D: PostgresDomain> Observer<D> for Teller<D> {
    fn committed(&self, signals: Vec<D::Signal>) {
        for line in signals.iter().filter_map(D::tell) {
            // What does not fit is found by a look.
            let _ = self.others.try_send(line);
        }
        self.here.committed(signals);
    }

    fn failed(&self, fault: &Fault) {
        self.here.failed(fault);
    }
}

/// Starts the thread; the observer for the writer. It ends when that one is dropped.
pub(super) fn start<D: PostgresDomain>(
    target: &Target,
    here: Arc<dyn Observer<D>>,
) -> io::Result<Arc<dyn Observer<D>>> {
    let (others, lines) = mpsc::channel(LINES_MAX);
    let bell = Bell { target: target.clone(), own: random::id("bel"), lines, here: Arc::clone(&here) };
    let lane = Lane::new()?;
    std::thread::Builder::new().name("store-bell".to_owned()).spawn(move || lane.wait(bell.run()))?;
    Ok(Arc::new(Teller { here, others }))
}

struct Bell<D: PostgresDomain> {
    target: Target,
    /// What its own notes begin with: the database gives them back.
    own: String,
    lines: mpsc::Receiver<String>,
    here: Arc<dyn Observer<D>>,
}

impl<D: PostgresDomain> Bell<D> {
    async fn run(mut self) {
        while let Err(trouble) = self.listen().await {
            tracing::warn!(?trouble, "other programs on the store are not heard");
            if !self.rest().await {
                return;
            }
        }
    }

    /// Lets what is to be told meanwhile go; whether there is a writer still.
    async fn rest(&mut self) -> bool {
        let end = Instant::now() + AGAIN;
        loop {
            match timeout_at(end, self.lines.recv()).await {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Tells and hears until the writer is gone.
    async fn listen(&mut self) -> Result<(), Trouble> {
        let (notes, mut heard) = mpsc::channel(NOTES_MAX);
        let overflown = Arc::new(AtomicBool::new(false));
        let ear = Ear { notes, overflown: Arc::clone(&overflown) };
        let mut link = Link::connect_and_hear(&self.target, Kind::Read, Some(ear)).await?;
        link.run(LISTEN).await?;
        self.here.missed();
        let mut lines = Vec::new();
        let reign = link.reign();
        loop {
            tokio::select! {
                () = reign.passed() => return Err(taken_over()),
                count = self.lines.recv_many(&mut lines, NOTES_MAX) => {
                    if count == 0 {
                        return Ok(());
                    }
                    self.tell(&mut link, std::mem::take(&mut lines)).await?;
                }
                note = heard.recv() => {
                    let note = note.ok_or_else(|| Trouble::Lost("the connection has ended".to_owned()))?;
                    self.hear(&note);
                }
                () = sleep(LOOK) => link.run("SELECT 1").await?,
            }
            if overflown.swap(false, Ordering::SeqCst) {
                self.here.missed();
            }
        }
    }

    /// Each line once, in as few notes as hold them.
    async fn tell(&self, link: &mut Link, lines: Vec<String>) -> Result<(), Trouble> {
        let mut said = BTreeSet::new();
        let mut note = self.own.clone();
        for line in lines.into_iter().filter(|line| line.len() < NOTE_BYTES_MAX / 2) {
            if said.contains(&line) {
                continue;
            }
            if note.len() + line.len() >= NOTE_BYTES_MAX {
                let full = std::mem::replace(&mut note, self.own.clone());
                link.rows(NOTIFY, &[bind(full)]).await?;
            }
            note.push('\n');
            note.push_str(&line);
            said.insert(line);
        }
        link.rows(NOTIFY, &[bind(note)]).await.map(drop)
    }

    fn hear(&self, note: &str) {
        let mut lines = note.lines();
        if lines.next() == Some(&self.own) {
            return;
        }
        let signals: Vec<_> = lines.filter_map(D::hear).collect();
        if !signals.is_empty() {
            self.here.heard(signals);
        }
    }
}
