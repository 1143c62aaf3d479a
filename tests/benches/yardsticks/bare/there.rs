//! The bare grouped writer on PostgreSQL: hand-written statements, many calls in one transaction, each transaction one
//! flight of all its rows and a commit, no check of anything. The database's tables are those that our own engine has
//! made, so that both sides write the same rows into the same indexes.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::try_join_all;
use interlock_gateway::store::{Gateway, Signal};
use interlock_kit::{
    clock::{Clock, Timestamp},
    config::Profile,
    store::{
        Fault, Observer,
        audit::ChainKey,
        postgres::{self, Options, Param, Sharing, Target, ToSql, bind},
        writer::QueueLimits,
    },
};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::{Client, Error, NoTls, Statement};
use tonic::Status;

use super::grouped::{CREDENTIAL, OWNER, PROJECT, WRITER};

/// As our writing connections have it.
const SETTINGS: &str = "SET enable_seqscan = off; SET enable_mergejoin = off; SET jit = off";

/// One statement of a call.
pub(crate) type Row = (&'static str, Vec<Param>);

/// The queue before the one connection that writes.
pub(crate) struct There {
    queue: mpsc::Sender<Call>,
    clock: Clock,
}

struct Call {
    rows: Vec<Row>,
    reply: oneshot::Sender<()>,
}

/// The rows of one call, as they are put together.
pub(crate) struct Rows {
    now: Timestamp,
    rows: Vec<Row>,
}

impl There {
    /// Makes the tables of this database, which is empty, and starts the writer.
    pub(crate) fn open(url: &str) -> Self {
        Self::committing(url, QueueLimits::default().batch_max)
    }

    /// The same, which commits so many calls together at most.
    pub(crate) fn committing(url: &str, together: usize) -> Self {
        let limits = QueueLimits::default();
        make(url, limits);
        let (queue, waiting) = mpsc::channel(limits.waiting_max);
        let url = url.to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let writer = std::thread::Builder::new().name("bare-writer".to_owned());
        let work = move || runtime.block_on(drain(&url, waiting, together)).expect("written");
        writer.spawn(work).expect("a thread");
        Self { queue, clock: Clock::system() }
    }

    /// The rows of a call that begins now.
    pub(crate) fn rows(&self) -> Rows {
        Rows { now: self.clock.now(), rows: Vec::with_capacity(8) }
    }

    /// Returns when they are durable.
    pub(crate) async fn durable(&self, rows: Rows) -> Result<(), Status> {
        let (reply, answer) = oneshot::channel();
        let call = Call { rows: rows.rows, reply };
        self.queue.try_send(call).map_err(|_| Status::resource_exhausted("the queue is full"))?;
        answer.await.map_err(|_| Status::unavailable("the writer has ended"))
    }
}

impl Rows {
    /// Their instant.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Their instant, as rows have it.
    pub(crate) fn at(&self) -> i64 {
        self.now.as_micros()
    }

    /// One more statement.
    pub(crate) fn one(&mut self, sql: &'static str, params: impl IntoIterator<Item = Param>) {
        self.rows.push((sql, params.into_iter().collect()));
    }

    /// An event, at the end of its session's log; the first one begins it.
    pub(crate) fn append(&mut self, session: &str, epoch: i64, facts: String) {
        let params = [
            bind(session.to_owned()),
            bind(facts.len() as i64),
            bind(self.at()),
            bind(PROJECT),
            bind(epoch),
            bind(facts),
        ];
        self.one(
            "WITH head AS (
                 INSERT INTO log_head (session, first, last, bytes, first_at) VALUES ($1, 1, 1, $2, $3)
                 ON CONFLICT (session) DO UPDATE SET last = log_head.last + 1, bytes = log_head.bytes + $2
                 RETURNING last)
             INSERT INTO event (session, sequence, at, project, epoch, format, facts, data)
             SELECT $1, last, $3, $4, $5, 1, $6, '' FROM head",
            params,
        );
    }

    /// An audit row.
    pub(crate) fn audit(&mut self, rpc: &'static str, action: &'static str, subject: &str, detail: String) {
        let params = [
            bind(WRITER),
            bind(self.at()),
            bind(OWNER),
            bind(CREDENTIAL),
            bind(rpc),
            bind(action),
            bind(subject.to_owned()),
            bind(PROJECT),
            bind(detail),
        ];
        self.one(
            "INSERT INTO audit (writer, number, at, principal, role, credential_id, peer, request_id, rpc, action,
                                outcome, reason, subject, scope, detail, count)
             VALUES ($1, 1, $2, $3, 'user', $4, '127.0.0.1:50000', $1, $5, $6, 'done', '', $7, $8, $9, 1)",
            params,
        );
    }
}

/// A first start of the service's own engine, with all its migrations.
fn make(url: &str, limits: QueueLimits) {
    struct Nobody;
    impl Observer<Gateway> for Nobody {
        fn committed(&self, _: Vec<Signal>) {}
        fn failed(&self, fault: &Fault) {
            panic!("the store failed: {fault}");
        }
    }
    let options = Options {
        target: Target::parse(url, Profile::Local).expect("a URL of ours"),
        sharing: Sharing::Shared,
        clock: Clock::system(),
        chain_key: ChainKey::new([7; 32]),
        limits,
    };
    drop(postgres::open::<Gateway>(&options, Arc::new(Nobody)).expect("a first start"));
}

/// Takes what waits, writes it in one transaction, and answers.
async fn drain(url: &str, mut waiting: mpsc::Receiver<Call>, batch_max: usize) -> Result<(), Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(SETTINGS).await?;
    let mut statements = HashMap::new();
    let first = "INSERT INTO moment (writer, batch, at) VALUES ($1, 0, 0) ON CONFLICT DO NOTHING";
    client.execute(first, &[&WRITER]).await?;
    let (mut batch, mut number) = (Vec::with_capacity(batch_max), 0_i64);
    while waiting.recv_many(&mut batch, batch_max).await > 0 {
        number += 1;
        write(&client, &mut statements, &batch, number).await?;
        for call in batch.drain(..) {
            // Who has gone is told nothing.
            let _ = call.reply.send(());
        }
    }
    Ok(())
}

async fn write(
    client: &Client,
    statements: &mut HashMap<&'static str, Statement>,
    calls: &[Call],
    number: i64,
) -> Result<(), Error> {
    let at = Clock::system().now().as_micros();
    let last: [Row; 2] = [
        (
            "INSERT INTO audit_batch (writer, number, at, entries, sealed, link) VALUES ($1, $2, $3, $4, FALSE, $5)",
            vec![bind(WRITER), bind(number), bind(at), bind(calls.len() as i64), bind(vec![7_u8; 32])],
        ),
        (
            "UPDATE moment SET batch = $2, at = $3 WHERE writer = $1",
            vec![bind(WRITER), bind(number), bind(at)],
        ),
    ];
    let rows: Vec<_> = calls.iter().flat_map(|call| &call.rows).chain(&last).collect();
    for (sql, _) in &rows {
        if !statements.contains_key(sql) {
            statements.insert(*sql, client.prepare(sql).await?);
        }
    }
    client.batch_execute("BEGIN").await?;
    let flight = rows.iter().map(|(sql, params)| {
        let statement = &statements[sql];
        async move {
            let params: Vec<_> = params.iter().map(|param| &**param as &(dyn ToSql + Sync)).collect();
            client.execute(statement, &params).await
        }
    });
    try_join_all(flight).await?;
    client.batch_execute("COMMIT").await
}
