//! The bare grouped writer: hand-written statements, many calls in one commit, no check of anything. The store is
//! one that our own engine has made, so that both sides write the same rows into the same indexes; the connection
//! is opened as the services open theirs (WAL, `synchronous=FULL`).

use std::{cell::Cell, path::Path, sync::Arc};

use interlock_gateway::store::{Gateway, Signal};
use interlock_kit::{
    clock::{Clock, Timestamp},
    store::{
        Fault, Observer,
        audit::ChainKey,
        sqlite::{self, Options, Place},
        writer::QueueLimits,
    },
};
use rusqlite::{Connection, Params, params};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

pub(crate) const PROJECT: &str = "prj_0190a3b0f5d27c5e8a1b2c3d4e5f6071";
pub(crate) const AGENT: &str = "a-o127";
pub(crate) const OWNER: &str = "o127";
pub(crate) const WRITER: &str = "wrt_0190a3b0f5d27c5e8a1b2c3d4e5f6071";
pub(crate) const CREDENTIAL: &str = "crd_0190a3b0f5d27c5e8a1b2c3d4e5f6071";

/// Whose a session is, and what it is bound to: each has an owner, an agent and a project of its own, as the sessions
/// of the load have. So rows lie as far apart in the indexes as ours do.
pub(crate) struct Belongs {
    pub(crate) owner: String,
    pub(crate) agent: String,
    pub(crate) project: String,
}

impl Belongs {
    pub(crate) fn of(session: &str) -> Self {
        let (_, id) = session.split_once('_').expect("a session's id");
        // Its end is random.
        let owner = format!("o{}", &id[id.len() - 3..]);
        Self { agent: format!("a-{owner}"), owner, project: format!("prj_{id}") }
    }
}

/// The queue before the one thread that writes.
pub(crate) struct Grouped {
    queue: mpsc::Sender<Box<dyn Waiting>>,
}

/// One call on its way to the writer.
trait Waiting: Send {
    /// Its rows, in the transaction of its batch.
    fn write(&mut self, batch: &Batch<'_>) -> rusqlite::Result<()>;
    /// They are durable.
    fn answer(self: Box<Self>);
}

struct Call<W, T> {
    write: Option<W>,
    written: Option<T>,
    reply: oneshot::Sender<T>,
}

/// One transaction.
pub(crate) struct Batch<'c> {
    connection: &'c Connection,
    number: u64,
    now: Timestamp,
    entries: Cell<u64>,
}

impl Grouped {
    /// Makes the store in this folder and starts its writer.
    pub(crate) fn open(folder: &Path) -> Self {
        Self::committing(folder, QueueLimits::default().batch_max)
    }

    /// The same, which commits so many calls together at most.
    pub(crate) fn committing(folder: &Path, together: usize) -> Self {
        let place = Place::File(folder.join("bare.db"));
        let limits = QueueLimits::default();
        make(&place, limits);
        let connection = sqlite::connect(&place).expect("a store");
        let (queue, waiting) = mpsc::channel(limits.waiting_max);
        let writer = std::thread::Builder::new().name("bare-writer".to_owned());
        writer.spawn(move || drain(connection, waiting, together)).expect("a thread");
        Self { queue }
    }

    /// What `write` gives, once its rows are durable.
    pub(crate) async fn durable<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Call { write: Some(write), written: None, reply });
        self.queue.try_send(call).map_err(|_| Status::resource_exhausted("the queue is full"))?;
        answer.await.map_err(|_| Status::unavailable("the writer has ended"))
    }
}

impl<T: Send, W: FnOnce(&Batch<'_>) -> rusqlite::Result<T> + Send> Waiting for Call<W, T> {
    fn write(&mut self, batch: &Batch<'_>) -> rusqlite::Result<()> {
        let write = self.write.take().expect("written once");
        self.written = Some(write(batch)?);
        Ok(())
    }

    fn answer(self: Box<Self>) {
        // Who has gone is told nothing.
        let _ = self.reply.send(self.written.expect("written before"));
    }
}

/// A first start of the service's own engine, with all its migrations.
fn make(place: &Place, limits: QueueLimits) {
    struct Nobody;
    impl Observer<Gateway> for Nobody {
        fn committed(&self, _: Vec<Signal>) {}
        fn failed(&self, fault: &Fault) {
            panic!("the store failed: {fault}");
        }
    }
    let options = Options {
        place: place.clone(),
        clock: Clock::system(),
        chain_key: ChainKey::new([7; 32]),
        limits,
        inline: true,
        inject_misses: false,
    };
    drop(sqlite::open::<Gateway>(&options, Arc::new(Nobody)).expect("a first start"));
}

/// Takes what waits, writes it in one transaction, and answers.
fn drain(mut connection: Connection, mut waiting: mpsc::Receiver<Box<dyn Waiting>>, batch_max: usize) {
    let clock = Clock::system();
    let mut batch = Vec::with_capacity(batch_max);
    let mut number = 0;
    while waiting.blocking_recv_many(&mut batch, batch_max) > 0 {
        number += 1;
        write(&mut connection, &mut batch, number, clock.now()).expect("written");
        batch.drain(..).for_each(Waiting::answer);
    }
}

fn write(
    connection: &mut Connection,
    calls: &mut [Box<dyn Waiting>],
    number: u64,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let batch = Batch { connection: &transaction, number, now, entries: Cell::new(0) };
    calls.iter_mut().try_for_each(|call| call.write(&batch))?;
    batch.one(
        "INSERT INTO audit_batch (writer, number, at, entries, sealed, link) VALUES (?1, ?2, ?3, ?4, 0, ?5)",
        params![WRITER, number, batch.at(), batch.entries.get(), [7_u8; 32]],
    )?;
    batch.one("UPDATE moment SET at = ?1", [batch.at()])?;
    transaction.commit()
}

impl Batch<'_> {
    /// Its instant.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Its instant, as rows have it.
    pub(crate) fn at(&self) -> i64 {
        self.now.as_micros()
    }

    /// One statement, which must meet one row.
    pub(crate) fn one(&self, sql: &str, params: impl Params) -> rusqlite::Result<()> {
        match self.some(sql, params)? {
            1 => Ok(()),
            met => Err(rusqlite::Error::StatementChangedRows(met)),
        }
    }

    /// One statement; how many rows it met.
    pub(crate) fn some(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(params)
    }

    /// An event, at the end of its session's log; the first one begins it.
    pub(crate) fn append(&self, session: &str, epoch: u64, facts: &str) -> rusqlite::Result<u64> {
        let mut head = self.connection.prepare_cached(
            "INSERT INTO log_head (session, first, last, bytes, first_at) VALUES (?1, 1, 1, ?2, ?3)
             ON CONFLICT (session) DO UPDATE SET last = last + 1, bytes = bytes + ?2 RETURNING last",
        )?;
        let sequence: u64 = head.query_row(params![session, facts.len(), self.at()], |row| row.get(0))?;
        self.one(
            "INSERT INTO event (session, sequence, at, project, epoch, format, facts, data)
             VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, x'')",
            params![session, sequence, self.at(), PROJECT, epoch, facts],
        )?;
        Ok(sequence)
    }

    /// An audit row.
    pub(crate) fn audit(&self, rpc: &str, action: &str, subject: &str, detail: &str) -> rusqlite::Result<()> {
        self.entries.set(self.entries.get() + 1);
        self.one(
            "INSERT INTO audit (writer, number, at, principal, role, credential_id, peer, request_id, rpc, action,
                                outcome, reason, subject, scope, detail, count)
             VALUES (?1, ?2, ?3, ?4, 'user', ?5, '127.0.0.1:50000', ?6, ?7, ?8, 'done', '', ?9, ?10, ?11, 1)",
            params![
                WRITER,
                self.number,
                self.at(),
                OWNER,
                CREDENTIAL,
                WRITER,
                rpc,
                action,
                subject,
                PROJECT,
                detail
            ],
        )
    }
}
