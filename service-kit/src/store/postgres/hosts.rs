//! Finding the store among the hosts of a URL, and looking whether another one has taken over.
//!
//! All hosts are asked at once whenever a connection is made: an old primary that answers first is not taken for the
//! store while the new one answers, too. A program that is left at an old primary, cut off with it, hears of the new
//! one by a look at each host, twice a second: then no connection to the old one is used any more.

use std::{future::Future, io, pin::pin, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::join_all, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_postgres::{Client, Config, Connection, SimpleQueryMessage, Socket, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Lane,
    epoch::{Epoch, Outdated, Seen},
    link::ANSWER_WITHIN,
    target::Target,
    trouble::{Trouble, told},
};
use crate::store::Fault;

/// Whether writes are taken, which cluster, which timeline. A standby knows that of its last checkpoint.
const ASKED: &str = "SELECT current_setting('transaction_read_only'), (SELECT system_identifier FROM pg_control_system()), \
     CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id::BIGINT FROM pg_control_checkpoint()) \
     ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::BIT(32)::BIGINT END";
/// How long the others are waited for when one that takes writes has answered.
const OTHERS_WITHIN: Duration = Duration::from_millis(250);
/// How long, when a standby has.
const PRIMARY_WITHIN: Duration = Duration::from_secs(2);
/// How often each host is looked at.
const LOOK: Duration = Duration::from_millis(500);

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A connection to the store.
pub(super) struct Found {
    pub(super) client: Client,
    pub(super) connection: Connection<Socket, Stream>,
    /// The timeline of its host.
    pub(super) timeline: u32,
}

/// What a host has said of itself.
struct Said {
    takes_writes: bool,
    epoch: Epoch,
}

/// Connects to the host of the newest epoch that takes writes.
pub(super) async fn find(target: &Target, settings: &str) -> Result<Found, Trouble> {
    let (configs, tls) = prepared(target, settings)?;
    let asked = configs.iter().enumerate().map(|(at, config)| {
        let tls = tls.clone();
        async move { (at, open(config, tls).await) }
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let (mut found, mut why) = (None::<Found>, None::<String>);
    let mut until = Instant::now() + ANSWER_WITHIN;
    // Before any was seen, two clusters in one URL are one too many: nobody knows which is meant.
    let is_first = target.seen().timeline() == 0;
    while let Ok(Some((at, answer))) = timeout_at(until, asked.next()).await {
        let said = match answer {
            Ok((client, connection, said)) => match judge(target.seen(), &said) {
                Ok(()) => {
                    let timeline = said.epoch.timeline;
                    if found.as_ref().is_none_or(|found| found.timeline < timeline) {
                        found = Some(Found { client, connection, timeline });
                    }
                    until = until.min(Instant::now() + OTHERS_WITHIN);
                    continue;
                }
                Err(no) => {
                    let told = format!("{} {no}", target.host(at));
                    match no {
                        NotIt::Outdated(Outdated::Other { .. }) if is_first => {
                            return Err(Trouble::Lost(told));
                        }
                        NotIt::Standby => until = until.min(Instant::now() + PRIMARY_WITHIN),
                        NotIt::Outdated(_) => {}
                    }
                    told
                }
            },
            Err(trouble) if target.hosts() > 1 => format!("{}: {}", target.host(at), reason(trouble)),
            Err(trouble) => reason(trouble),
        };
        why = Some(match why {
            None => said,
            Some(earlier) => format!("{earlier}; {said}"),
        });
    }
    // A later answer may have shown that an earlier one was of an old primary.
    let newest = target.seen().timeline();
    found
        .filter(|found| found.timeline >= newest)
        .ok_or_else(|| Trouble::Lost(why.unwrap_or_else(|| "the database does not answer".to_owned())))
}

/// Why a host that answers is not the store.
#[derive(Debug, thiserror::Error)]
enum NotIt {
    #[error("takes no writes")]
    Standby,
    #[error(transparent)]
    Outdated(#[from] Outdated),
}

/// Whether it is. Its epoch is taken notice of in any case.
fn judge(seen: &Seen, said: &Said) -> Result<(), NotIt> {
    match seen.look(said.epoch) {
        Err(other @ Outdated::Other { .. }) => Err(other.into()),
        _ if !said.takes_writes => Err(NotIt::Standby),
        looked => Ok(looked?),
    }
}

fn prepared(target: &Target, settings: &str) -> Result<(Vec<Config>, MakeRustlsConnect), Fault> {
    target.prepare(settings).map_err(|error| Fault::Unavailable(error.to_string()))
}

fn reason(trouble: Trouble) -> String {
    match trouble {
        Trouble::Lost(why) | Trouble::Again(why) => why,
        Trouble::Fault(fault) | Trouble::Unmet(fault) => fault.to_string(),
    }
}

async fn open(
    config: &Config,
    tls: MakeRustlsConnect,
) -> Result<(Client, Connection<Socket, Stream>, Said), Trouble> {
    let opened = async {
        let (client, mut connection) =
            config.connect(tls).await.map_err(|error| Trouble::Lost(told(&error)))?;
        let said = ask(&client, &mut connection).await?;
        Ok((client, connection, said))
    };
    timeout(ANSWER_WITHIN, opened).await.map_err(|_| Trouble::Lost("does not answer".to_owned()))?
}

/// Asks on a connection that nothing else drives.
async fn ask<S, T>(client: &Client, connection: &mut Connection<S, T>) -> Result<Said, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut answer = pin!(client.simple_query(ASKED));
    let rows = tokio::select! {
        biased;
        rows = &mut answer => rows,
        ended = connection => match (answer.now_or_never(), ended) {
            // It says why, where it came to that.
            (Some(rows), _) => rows,
            (None, Err(error)) => Err(error),
            (None, Ok(())) => return Err(Trouble::Lost("the connection was closed".to_owned())),
        },
    };
    let rows = rows.map_err(|error| match Trouble::from(error) {
        Trouble::Lost(why) => Trouble::Lost(why),
        trouble => Trouble::Lost(format!("does not say its epoch: {}", reason(trouble))),
    })?;
    let said = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(Said {
            takes_writes: row.get(0)? == "off",
            epoch: Epoch { system: row.get(1)?.parse().ok()?, timeline: row.get(2)?.parse().ok()? },
        }),
        _ => None,
    });
    said.ok_or_else(|| Fault::Broken("a host without an epoch".to_owned()).into())
}

/// Looks at all hosts until this is dropped.
pub(super) struct Watch(#[expect(dead_code, reason = "its drop is the end")] oneshot::Sender<()>);

impl Watch {
    /// Starts, where there are several.
    pub(super) fn start(target: &Target) -> io::Result<Option<Self>> {
        if target.hosts() < 2 {
            return Ok(None);
        }
        let (alive, ended) = oneshot::channel();
        let (target, lane) = (target.clone(), Lane::new()?);
        let watch = move || {
            lane.wait(async {
                let looks = (0..target.hosts()).map(|at| look_at(&target, at));
                tokio::select! {
                    _ = ended => {}
                    _ = join_all(looks) => {}
                }
            });
        };
        std::thread::Builder::new().name("store-watch".to_owned()).spawn(watch)?;
        Ok(Some(Self(alive)))
    }
}

/// Asks a host for its epoch again and again, on one connection for as long as that lives: it outlives a promotion.
async fn look_at(target: &Target, at: usize) {
    loop {
        if let Ok((configs, tls)) = prepared(target, "")
            && let Ok((client, mut connection, said)) = open(&configs[at], tls).await
        {
            let mut said = Some(said);
            while let Some(found) = said {
                // What is refused is refused where it is connected to.
                let _ = judge(target.seen(), &found);
                sleep(LOOK).await;
                said = within_answer(ask(&client, &mut connection)).await;
            }
        }
        sleep(LOOK).await;
    }
}

async fn within_answer<T>(answer: impl Future<Output = Result<T, Trouble>>) -> Option<T> {
    timeout(ANSWER_WITHIN, answer).await.ok()?.ok()
}
