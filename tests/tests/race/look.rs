//! Looks at the store itself while they race, as another process may: each look is of one instant. I1: no agent has
//! jobs in flight in two projects. I3: every job in flight is under its session's binding.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use interlock_tests::PATIENCE;
use rusqlite::OpenFlags;
use tokio_postgres::NoTls;

/// Between two looks.
const LOOK: Duration = Duration::from_micros(500);
/// Jobs in flight; agents with such in two projects; jobs in flight under another binding than their session's.
const SQL: &str = "
    SELECT (SELECT COUNT(*) FROM job WHERE state < 2),
           (SELECT COUNT(*) FROM (SELECT agent FROM job WHERE state < 2
                                  GROUP BY agent HAVING COUNT(DISTINCT project) > 1) AS torn),
           (SELECT COUNT(*) FROM job JOIN session ON session.id = job.session
            WHERE job.state < 2 AND (job.agent, job.project, job.epoch)
                  IS DISTINCT FROM (session.agent, session.project, session.epoch))";

/// How often the store was looked at, and how often it had jobs in flight.
#[derive(Clone, Copy, Default)]
pub(crate) struct Looks {
    pub(crate) all: usize,
    pub(crate) busy: usize,
}

/// Where the gateways keep what they know.
pub(crate) enum Store {
    /// Embedded.
    File(PathBuf),
    /// A database's URL.
    Database(String),
}

impl Looks {
    fn saw(&mut self, [in_flight, torn, strayed]: [i64; 3]) {
        assert_eq!(torn, 0, "I1: agents with jobs in flight in two projects");
        assert_eq!(strayed, 0, "I3: jobs in flight under another binding than their session's");
        self.all += 1;
        self.busy += usize::from(in_flight > 0);
    }
}

impl Store {
    /// Looks again and again until it is over.
    pub(crate) async fn watch(self, over: Arc<AtomicBool>) -> Looks {
        match self {
            Self::File(path) => {
                let watching = tokio::task::spawn_blocking(move || watch_file(&path, &over));
                watching.await.expect("I1 and I3 hold in the store")
            }
            Self::Database(url) => watch_database(&url, &over).await,
        }
    }
}

fn watch_file(path: &std::path::Path, over: &AtomicBool) -> Looks {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let store = rusqlite::Connection::open_with_flags(path, flags).expect("the store");
    store.busy_timeout(PATIENCE).expect("a time-out");
    let mut look = store.prepare(SQL).expect("the tables of the store");
    let mut looks = Looks::default();
    while !over.load(Ordering::Relaxed) {
        let seen = look.query_row([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]));
        looks.saw(seen.expect("a look"));
        // Not all of a processor: they race meanwhile.
        std::thread::sleep(LOOK);
    }
    looks
}

async fn watch_database(url: &str, over: &AtomicBool) -> Looks {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the database");
    let connection = tokio::spawn(connection);
    let look = client.prepare(SQL).await.expect("the tables of the store");
    let mut looks = Looks::default();
    while !over.load(Ordering::Relaxed) {
        let seen = client.query_one(&look, &[]).await.expect("a look");
        looks.saw([0, 1, 2].map(|column| seen.get(column)));
        tokio::time::sleep(LOOK).await;
    }
    drop(client);
    connection.await.expect("no panic").expect("a connection that was closed");
    looks
}
