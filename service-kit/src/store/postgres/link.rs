//! One connection, and the flights of statements on it.
//!
//! A flight is sent as a whole and answered in order: it costs one round trip. The first answer that is an
//! error counts; those behind it only say that the transaction has failed. A connection that has had an error
//! of its own, or that was silent for too long, is not used again.

use std::{
    collections::HashMap,
    error::Error as StdError,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::BytesMut;
use futures_util::future::{MaybeDone, maybe_done};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_postgres::{
    AsyncMessage, Client, Error, Row, Statement,
    error::Severity,
    types::{IsNull, ToSql, Type},
};

use super::{
    epoch::Seen,
    flush::{Body, Flush, Rows},
    hosts,
    moment::Stamp,
    statement::{Ask, Param},
    target::Target,
    trouble::Trouble,
};
use crate::{clock::Timestamp, store::Fault};

/// How long the database may take for one statement, and how long it waits for a lock. Short: the callers of
/// a batch wait for both. A program that stops in the middle of a batch loses its locks before others give up on them.
const SETTINGS: &str = "-c statement_timeout=5s -c lock_timeout=2s -c idle_in_transaction_session_timeout=1500ms \
    -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=10000 \
    -c search_path=public -c enable_seqscan=off -c enable_mergejoin=off -c enable_hashjoin=off -c jit=off -c TimeZone=UTC";
/// How long an answer is waited for: longer than the database takes to give up on its own.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// How long the answer to a commit is waited for. The database is never asked to give up on one.
const COMMIT_WITHIN: Duration = Duration::from_secs(10);

/// The database's time, and the last instant that any writer has committed.
const STAMP: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT, \
                     (SELECT COALESCE(MAX(at), 0)::BIGINT FROM moment)";

/// How a transaction reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rows are locked and then read as they are.
    Write,
    /// All from one snapshot.
    Read,
}

impl Kind {
    fn begin(self) -> &'static str {
        match self {
            Self::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
            Self::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// The same, where one is to be undone first.
    fn begin_anew(self) -> &'static str {
        match self {
            Self::Write => "ROLLBACK; BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
            Self::Read => "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }
}

/// Where what is notified on a connection goes.
pub(super) struct Ear {
    pub(super) notes: mpsc::Sender<String>,
    /// Set where one did not fit.
    pub(super) overflown: Arc<AtomicBool>,
}

/// An open connection.
pub(super) struct Link {
    client: Client,
    driver: JoinHandle<()>,
    kind: Kind,
    statements: HashMap<String, Statement>,
    /// Whether a transaction has been begun. Still set where a verb has panicked in one.
    begun: bool,
    /// Whether that one is undone before the next flight.
    over: bool,
    /// Whether the database has warned of something.
    warned: Arc<AtomicBool>,
    reign: Reign,
}

/// For how long a host is the store: until one of a newer epoch was seen.
#[derive(Clone)]
pub(super) struct Reign {
    seen: Arc<Seen>,
    timeline: u32,
}

impl Reign {
    /// Ends when another host is the store.
    pub(super) async fn passed(&self) {
        self.seen.passed(self.timeline).await;
    }

    /// The answer, unless it takes too long or another host takes over meanwhile. An answer that comes then does not
    /// count: what became of a commit is asked of the new one.
    async fn answered<T>(
        &self,
        within: Duration,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Trouble> {
        tokio::select! {
            biased;
            () = self.passed() => Err(taken_over()),
            answer = timeout(within, answer) => Ok(answer.map_err(|_| silent())??),
        }
    }
}

impl Link {
    /// Connects to the host that is the store.
    pub(super) async fn connect(target: &Target, kind: Kind) -> Result<Self, Trouble> {
        Self::connect_and_hear(target, kind, None).await
    }

    /// The same; what is notified on it goes to `ear`, which is closed when the connection has ended.
    pub(super) async fn connect_and_hear(
        target: &Target,
        kind: Kind,
        ear: Option<Ear>,
    ) -> Result<Self, Trouble> {
        let hosts::Found { client, mut connection, timeline } = hosts::find(target, SETTINGS).await?;
        let reign = Reign { seen: Arc::clone(target.seen()), timeline };
        let warned = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&warned);
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                match (message, &ear) {
                    (AsyncMessage::Notice(notice), _)
                        if notice.parsed_severity() == Some(Severity::Warning) =>
                    {
                        tracing::warn!(said = notice.message(), "the database warns");
                        heard.store(true, Ordering::SeqCst);
                    }
                    (AsyncMessage::Notification(note), Some(ear)) => {
                        let told = ear.notes.try_send(note.payload().to_owned());
                        ear.overflown.fetch_or(told.is_err(), Ordering::SeqCst);
                    }
                    _ => {}
                }
            }
        });
        let mut link = Self {
            client,
            driver,
            kind,
            statements: HashMap::new(),
            begun: false,
            over: false,
            warned,
            reign,
        };
        // A commit is durable when it is answered, whatever the server's default: more than `on` may be asked.
        link.run(
            "SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') IN ('off', 'local')",
        )
        .await?;
        Ok(link)
    }

    /// Runs statements without parameters, outside of what is counted and begun.
    pub(super) async fn run(&mut self, sql: &str) -> Result<(), Trouble> {
        self.reign.answered(ANSWER_WITHIN, self.client.batch_execute(sql)).await
    }

    /// For how long it may be used.
    pub(super) fn reign(&self) -> Reign {
        self.reign.clone()
    }

    /// Whether another host is the store now.
    pub(super) fn is_behind(&self) -> bool {
        self.reign.seen.timeline() > self.reign.timeline
    }

    /// One flight of reads. Outside a transaction each stands alone.
    pub(super) async fn rows(&mut self, sql: &str, params: &[Param]) -> Result<Vec<Row>, Trouble> {
        let statement = self.statement(sql).await?;
        self.reign.answered(ANSWER_WITHIN, query(&self.client, &statement, params)).await
    }

    /// Loads what is asked into `into`, and asks for the time last, when all of it is locked; begins the transaction
    /// where there is none.
    pub(super) async fn load<W>(&mut self, asks: Vec<Ask<W>>, into: &mut W) -> Result<Stamp, Trouble> {
        let mut statements = Vec::with_capacity(asks.len() + 1);
        for ask in &asks {
            statements.push(self.statement(&ask.sql).await?);
        }
        statements.push(self.statement(STAMP).await?);
        let begin = self.begin();
        let params = asks.iter().map(|ask| &ask.params[..]).chain([&[][..]]);
        let flight = params.zip(&statements).map(|(params, statement)| {
            let client = &self.client;
            async move { query(client, statement, params).await }
        });
        let mut found = fly(&self.client, &self.reign, begin, flight).await?;
        let stamp = stamp(found.pop().as_deref())?;
        for (ask, rows) in asks.into_iter().zip(found) {
            (ask.take)(into, &rows)?;
        }
        Ok(stamp)
    }

    /// What the database says of time.
    pub(super) async fn stamp(&mut self) -> Result<Stamp, Trouble> {
        Ok(stamp(Some(&self.rows(STAMP, &[]).await?))?)
    }

    /// The transaction is undone before the next flight, and another one begun: its locks are let go.
    pub(super) fn start_over(&mut self) {
        self.over = self.begun;
    }

    /// Writes in one flight, and compares the counts.
    pub(super) async fn write(&mut self, flush: &Flush) -> Result<(), Trouble> {
        let mut statements = Vec::with_capacity(flush.writes.len());
        for write in &flush.writes {
            statements.push(match &write.body {
                Body::Statement { sql, .. } => self.statement(sql).await?,
                Body::Rows(rows) => self.rows_statement(rows).await?,
            });
        }
        let begin = self.begin();
        let flight = flush.writes.iter().zip(&statements).map(|(write, statement)| {
            let client = &self.client;
            async move {
                match &write.body {
                    Body::Statement { params, .. } => execute(client, statement, params).await,
                    Body::Rows(rows) => execute_all(client, statement, rows).await,
                }
            }
        });
        let met = fly(&self.client, &self.reign, begin, flight).await?;
        for (write, met) in flush.writes.iter().zip(met) {
            if let Some(wanted) = write.meets {
                Fault::unless(met, wanted, write.what).map_err(Trouble::Unmet)?;
            }
        }
        Ok(())
    }

    /// Commits. [`Trouble::Lost`] where nobody knows what became of it; all else is a refusal.
    ///
    /// The bound on statements is lifted first: a commit that waits for a standby and is given up on is
    /// durable here only, and said to be done. So a warning counts as no answer, too.
    pub(super) async fn commit(&mut self) -> Result<(), Trouble> {
        self.warned.store(false, Ordering::SeqCst);
        let sql = match self.kind {
            Kind::Write => "SET LOCAL statement_timeout = 0; COMMIT",
            Kind::Read => "COMMIT",
        };
        self.reign.answered(COMMIT_WITHIN, self.client.batch_execute(sql)).await?;
        self.begun = false;
        if self.warned.load(Ordering::SeqCst) {
            return Err(Trouble::Lost("the database warned in a commit".to_owned()));
        }
        Ok(())
    }

    /// Undoes the transaction, if one was begun.
    pub(super) async fn undo(&mut self) -> Result<(), Trouble> {
        if self.begun {
            self.run("ROLLBACK").await?;
            (self.begun, self.over) = (false, false);
        }
        Ok(())
    }

    /// The client itself, for migrations.
    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// What a flight begins with. From then on there is something to undo, however the flight ends.
    fn begin(&mut self) -> Option<&'static str> {
        let begun = std::mem::replace(&mut self.begun, true);
        let over = std::mem::take(&mut self.over);
        if begun && over { Some(self.kind.begin_anew()) } else { (!begun).then(|| self.kind.begin()) }
    }

    async fn statement(&mut self, sql: &str) -> Result<Statement, Trouble> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.reign.answered(ANSWER_WITHIN, self.client.prepare(sql)).await?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// The statement for rows that are written alike: of arrays, where there are several.
    async fn rows_statement(&mut self, rows: &Rows) -> Result<Statement, Trouble> {
        let one = self.statement(&rows.one()).await?;
        if rows.rows.len() == 1 {
            return Ok(one);
        }
        // What the columns are is what their parameters are.
        let types = one.params().iter().take(rows.width()).map(Type::name);
        self.statement(&rows.all(types)).await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // With the driver goes the socket: nothing is said to a server that may not listen.
        self.driver.abort();
    }
}

fn stamp(rows: Option<&[Row]>) -> Result<Stamp, Fault> {
    let row = rows.and_then(<[Row]>::first).ok_or_else(|| Fault::Broken("no time".to_owned()))?;
    let at = |column| Ok::<_, Fault>(Timestamp::from_micros(row.try_get(column)?));
    Ok(Stamp { now: at(0)?, floor: at(1)? })
}

/// Sends all of it at once, after `begin` where that is to be first; gives the answers in order, or the first
/// error.
async fn fly<T, F>(
    client: &Client,
    reign: &Reign,
    begin: Option<&'static str>,
    flight: impl Iterator<Item = F>,
) -> Result<Vec<T>, Trouble>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut begin: Pin<Box<MaybeDone<_>>> = Box::pin(maybe_done(async {
        match begin {
            Some(sql) => client.batch_execute(sql).await,
            None => Ok(()),
        }
    }));
    let mut flight: Vec<Pin<Box<MaybeDone<F>>>> = flight.map(|one| Box::pin(maybe_done(one))).collect();
    let all = async {
        poll_fn(|cx| {
            // The first poll of each one sends it. What is done already keeps its answer.
            let _ = begin.as_mut().poll(cx);
            for one in &mut flight {
                let _ = one.as_mut().poll(cx);
            }
            Poll::Ready(())
        })
        .await;
        begin.as_mut().await;
        begin.as_mut().take_output().expect("it has been waited for")?;
        let mut answers = Vec::with_capacity(flight.len());
        for mut one in flight {
            one.as_mut().await;
            answers.push(one.as_mut().take_output().expect("it has been waited for")?);
        }
        Ok(answers)
    };
    reign.answered(ANSWER_WITHIN, all).await
}

async fn query(client: &Client, statement: &Statement, params: &[Param]) -> Result<Vec<Row>, Error> {
    client.query(statement, &borrowed(params)).await
}

async fn execute(client: &Client, statement: &Statement, params: &[Param]) -> Result<u64, Error> {
    client.execute(statement, &borrowed(params)).await
}

/// One column of the rows after the other.
async fn execute_all(client: &Client, statement: &Statement, rows: &Rows) -> Result<u64, Error> {
    let [row] = &rows.rows[..] else {
        let column = |nth: usize| rows.rows.iter().map(|row| Element(&*row[nth])).collect();
        let columns: Vec<Vec<Element<'_>>> = (0..rows.width()).map(column).collect();
        let mut params: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
        params.extend(borrowed(&rows.rest));
        return client.execute(statement, &params).await;
    };
    let mut params = borrowed(row);
    params.extend(borrowed(&rows.rest));
    client.execute(statement, &params).await
}

/// A value of any type in an array. Whether it fits is looked at when it is written.
#[derive(Debug)]
struct Element<'v>(&'v (dyn ToSql + Sync));

impl ToSql for Element<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        self.0.to_sql_checked(kind, out)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        self.0.to_sql_checked(kind, out)
    }
}

fn borrowed(params: &[Param]) -> Vec<&(dyn ToSql + Sync)> {
    params.iter().map(|param| &**param as &(dyn ToSql + Sync)).collect()
}

fn silent() -> Trouble {
    Trouble::Lost("the database does not answer".to_owned())
}

/// To be met by a new connection, to whichever host is the store then.
pub(super) fn taken_over() -> Trouble {
    Trouble::Lost("another host of the store has been promoted".to_owned())
}
