//! Opening a store: what must hold before anything of it may change.
//!
//! A program has the store alone, or shares it with others: by a lock of the session of the writing connection, so
//! that who has lost the connection has lost the lock. It is taken first, and who brings the store to another version
//! has it alone: several that start at once do not meet in the migrations, and nobody's store changes under its feet.
//! What the database holds is read and compared before it is brought to this version.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use refinery::Runner;

use super::{
    Ask, Flush, Options, PostgresDomain, Sharing, audit, bind, each,
    holding::{alone, hold, shared},
    link::{Kind, Link},
    moment::Moment,
    target::Target,
    trouble::Trouble,
    writer::{Desk, Schema},
};
use crate::{
    clock::Timestamp,
    random,
    store::{
        Fault,
        audit::{ChainKey, Head},
        migrations::{self, Applied, OURS, THEIRS, Unlike},
    },
};

/// The oldest version that is tested, as the server tells it.
const VERSION_MIN: i32 = 150_000;
/// For how long a writer that was taken for ended may come back and settle its last commit.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(86_400);

/// Why a store cannot be opened. One line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be reached or asked.
    #[error("cannot use the store {place}: {why}; it was left as it is")]
    Open {
        /// Which.
        place: String,
        /// Why.
        why: String,
    },
    /// Another program has it.
    #[error("another program uses the store {place}; end that one, or use another database")]
    Held {
        /// Which.
        place: String,
    },
    /// It does not keep what a store must keep.
    #[error("the store {place} {why}; it was left as it is")]
    Unfit {
        /// Which.
        place: String,
        /// What is to be changed.
        why: String,
    },
    /// It is not whole.
    #[error("the store {place} is damaged: {why}; it was left as it is: restore it from a backup")]
    Damaged {
        /// Which.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is something else.
    #[error(
        "{place} is not a store of this program: {why}; it was left as it is: name this service's own database"
    )]
    Foreign {
        /// Which.
        place: String,
        /// How that is seen.
        why: String,
    },
    /// A newer program wrote it.
    #[error(
        "the store {place} is of a newer version (it has {migration}); it was left as it is: use the program that last wrote it, or a newer one"
    )]
    Newer {
        /// Which.
        place: String,
        /// What this program does not know.
        migration: String,
    },
    /// A program with other migrations wrote it.
    #[error(
        "the store {place} is of another build ({migration} is not the one of this program); it was left as it is: use the program that last wrote it"
    )]
    Changed {
        /// Which.
        place: String,
        /// Which of the two differ.
        migration: String,
    },
    /// Its audit chains are made with another key.
    #[error(
        "the audit chains of the store {place} are made with another key; it was left as it is: use the file of the key of the program that made the store"
    )]
    OtherKey {
        /// Which.
        place: String,
    },
    /// A migration failed.
    #[error("cannot bring the store {place} to this version: {source}; it is as it was")]
    Migrate {
        /// Which.
        place: String,
        /// Why.
        source: Box<refinery::Error>,
    },
    /// The file that remembers the store's epoch cannot be used.
    #[error(
        "{file}: the epoch of the store cannot be remembered: {why}; mend that, or remove the file where no old \
         primary can come back",
        file = file.display()
    )]
    Epoch {
        /// Which.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// No thread to run it.
    #[error("cannot start the store's thread: {0}")]
    Thread(#[from] io::Error),
}

/// Why one step of the opening failed; [`OpenError`] adds which store it is.
pub(super) enum Refused {
    Trouble(Trouble),
    Held,
    Unfit(String),
    OtherKey,
    Unlike(Unlike),
    Migrate(Box<refinery::Error>),
}

impl From<Trouble> for Refused {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Trouble(fault.into())
    }
}

impl Refused {
    pub(super) fn of(self, target: &Target) -> OpenError {
        let place = target.to_string();
        match self {
            Self::Trouble(Trouble::Again(why) | Trouble::Lost(why)) => OpenError::Open { place, why },
            Self::Trouble(Trouble::Fault(fault) | Trouble::Unmet(fault)) => {
                OpenError::Open { place, why: fault.to_string() }
            }
            Self::Held => OpenError::Held { place },
            Self::OtherKey => OpenError::OtherKey { place },
            Self::Unfit(why) => OpenError::Unfit { place, why },
            Self::Unlike(Unlike::Newer(migration)) => OpenError::Newer { place, migration },
            Self::Unlike(Unlike::Changed(migration)) => OpenError::Changed { place, migration },
            Self::Unlike(Unlike::Foreign(why)) => OpenError::Foreign { place, why },
            Self::Unlike(Unlike::Damaged(why)) => OpenError::Damaged { place, why },
            Self::Migrate(source) => OpenError::Migrate { place, source },
        }
    }
}

/// Opens, on the connection that the writer goes on with.
pub(super) async fn open<D: PostgresDomain>(options: &Options) -> Result<Desk, OpenError> {
    opened::<D>(options).await.map_err(|refused| refused.of(&options.target))
}

async fn opened<D: PostgresDomain>(options: &Options) -> Result<Desk, Refused> {
    let mut link = Link::connect(&options.target, Kind::Write).await?;
    is_fit(&mut link).await?;
    match options.sharing {
        Sharing::Alone => alone::<D>(&mut link).await?,
        Sharing::Shared => shared::<D>(&mut link).await?,
    }
    begin(options, link).await
}

/// Whether the server can keep a store as it must be kept.
pub(super) async fn is_fit(link: &mut Link) -> Result<(), Refused> {
    const ASKED: &str = "SELECT current_setting('server_version_num')::INTEGER, \
                         current_setting('server_version'), current_setting('server_encoding'), \
                         current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on'";
    let rows = link.rows(ASKED, &[]).await?;
    let row = rows.first().ok_or_else(|| Fault::Broken("no settings".to_owned()))?;
    let of_row = |error| Refused::from(Fault::from(error));
    let (number, version): (i32, String) = (row.try_get(0).map_err(of_row)?, row.try_get(1).map_err(of_row)?);
    let (encoding, is_durable): (String, bool) =
        (row.try_get(2).map_err(of_row)?, row.try_get(3).map_err(of_row)?);
    if number < VERSION_MIN {
        return Err(Refused::Unfit(format!("is on PostgreSQL {version}: use 15 or later")));
    }
    if encoding != "UTF8" {
        return Err(Refused::Unfit(format!("is encoded in {encoding}: make the database with UTF8")));
    }
    if !is_durable {
        tracing::warn!("fsync or full_page_writes is off: a power cut loses what was acknowledged");
    }
    Ok(())
}

/// Refuses what is there and must not be touched; whether it is of this version. Writes nothing.
pub(super) async fn is_of_this_version<D: PostgresDomain>(link: &mut Link) -> Result<bool, Refused> {
    let tables = tables(link).await?;
    let Some(first) = tables.first() else { return Ok(false) };
    if !tables.iter().any(|table| table == OURS) {
        return Err(Refused::Unlike(Unlike::Foreign(format!("it has a table {first} and none {OURS}"))));
    }
    let mut is = true;
    for (table, runner) in [(OURS, kit_migrations()), (THEIRS, D::postgres_migrations())] {
        let mut applied = Vec::new();
        if tables.iter().any(|found| found == table) {
            applied = self::applied(link, table).await?;
            migrations::compare(&applied, &runner).map_err(Refused::Unlike)?;
        }
        is &= applied.len() == runner.get_migrations().len();
    }
    Ok(is)
}

/// How many migrations the store has had.
pub(super) async fn schema(link: &mut Link) -> Result<Schema, Trouble> {
    let sql = format!("SELECT (SELECT COUNT(*) FROM {OURS}), (SELECT COUNT(*) FROM {THEIRS})");
    let rows = link.rows(&sql, &[]).await?;
    let row = rows.first().ok_or_else(|| Fault::Broken("no migrations".to_owned()))?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Whether there is a store: what goes with it must not be made anew.
///
/// # Errors
/// [`OpenError::Open`]
pub fn is_begun(target: &Target) -> Result<bool, OpenError> {
    let tables = audit::offline(target, async |link| {
        let sql = "SELECT FROM pg_tables WHERE schemaname = 'public' AND tablename = $1";
        link.rows(sql, &[bind(OURS)]).await
    });
    let open = |fault: Fault| OpenError::Open { place: target.to_string(), why: fault.to_string() };
    Ok(!tables.map_err(open)?.is_empty())
}

pub(super) async fn tables(link: &mut Link) -> Result<Vec<String>, Refused> {
    let sql = "SELECT tablename::TEXT FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";
    let rows = link.rows(sql, &[]).await?;
    let names: Result<_, _> = rows.iter().map(|row| row.try_get(0)).collect();
    names.map_err(|error| Fault::from(error).into())
}

async fn applied(link: &mut Link, table: &str) -> Result<Vec<Applied>, Refused> {
    let sql = format!("SELECT version, name, checksum, applied_on FROM {table} ORDER BY version");
    let rows = link.rows(&sql, &[]).await?;
    let applied = |row: &super::Row| -> Result<Applied, tokio_postgres::Error> {
        Ok(Applied {
            version: row.try_get::<_, i32>(0)?.into(),
            name: row.try_get(1)?,
            checksum: row.try_get::<_, &str>(2)?.parse().ok(),
            dated: row.try_get::<_, &str>(3)?.parse::<jiff::Timestamp>().is_ok(),
        })
    };
    let all: Result<_, _> = rows.iter().map(applied).collect();
    all.map_err(|error| Fault::from(error).into())
}

pub(super) async fn migrate<D: PostgresDomain>(link: &mut Link) -> Result<(), Refused> {
    // A migration takes as long as the rows that are there.
    link.run("SET statement_timeout = 0").await?;
    for runner in [kit_migrations(), D::postgres_migrations()] {
        let ran = runner.set_grouped(true).run_async(link.client()).await;
        ran.map_err(|error| Refused::Migrate(Box::new(error)))?;
    }
    Ok(link.run("RESET statement_timeout").await?)
}

fn kit_migrations() -> Runner {
    mod kit {
        refinery::embed_migrations!("migrations/postgres");
    }
    let mut ours = kit::migrations::runner();
    ours.set_migration_table_name(OURS);
    ours
}

/// Begins this writer's chain.
async fn begin(options: &Options, mut link: Link) -> Result<Desk, Refused> {
    has_the_key(&options.chain_key, &mut link).await?;
    let schema = schema(&mut link).await?;
    let moment = Arc::new(Moment::new(options.clock.clone()));
    let now = moment.heard(link.stamp().await?);
    let mut flush = Flush::default();
    seal_ended(&options.chain_key, &mut link, now, &mut flush).await?;
    let head = Head::start(random::id("wrt"));
    hold(&mut link, &head.writer).await?;
    enrol(&mut flush, &head);
    link.write(&flush).await?;
    link.commit().await?;
    Ok(Desk { options: options.clone(), link: Some(link), moment, schema, head, batch: 0, doubt: None })
}

/// All chains of a store are made with one key: the first program's.
pub(super) async fn has_the_key(key: &ChainKey, link: &mut Link) -> Result<(), Refused> {
    let mark = key.mark().to_vec();
    let first = "INSERT INTO chain_key (one, mark) VALUES (1, $1) ON CONFLICT (one) DO NOTHING";
    link.rows(first, &[bind(mark.clone())]).await?;
    let rows = link.rows("SELECT FROM chain_key WHERE mark = $1", &[bind(mark)]).await?;
    if rows.is_empty() { Err(Refused::OtherKey) } else { Ok(()) }
}

/// Writers whose connection has ended add nothing any more: a last link says so. Their rows of `moment` go when
/// nobody can come back to them, but for the one with the last instant.
async fn seal_ended(
    key: &ChainKey,
    link: &mut Link,
    now: Timestamp,
    flush: &mut Flush,
) -> Result<(), Trouble> {
    let mut ended: Vec<String> = Vec::new();
    // The lock of each is held until the commit: one that comes back waits for it, and finds itself sealed.
    let sql = "SELECT writer FROM moment
               WHERE NOT ended AND pg_try_advisory_xact_lock(hashtextextended(writer, 0)) ORDER BY writer";
    let ask = Ask::new(sql, [], |ended: &mut Vec<String>, rows| {
        *ended = each(rows, |row| Ok(row.try_get(0)?))?;
        Ok(())
    });
    link.load(vec![ask], &mut ended).await?;
    for earlier in audit::open_heads(link, &ended).await? {
        audit::append(flush, key, &earlier, now, &[], true);
    }
    flush.any(
        "moments of earlier writers",
        "UPDATE moment SET ended = TRUE WHERE writer = ANY($1)",
        [bind(ended)],
    );
    flush.any(
        "moments of earlier writers",
        "DELETE FROM moment WHERE ended AND at < $1 AND at < (SELECT MAX(at) FROM moment)",
        [bind(now.before(COMES_BACK_WITHIN).as_micros())],
    );
    Ok(())
}

/// Plans the row of a writer that begins.
pub(super) fn enrol(flush: &mut Flush, head: &Head) {
    flush.one(
        "moment of this writer",
        "INSERT INTO moment (writer, batch, at) SELECT $1, 0, COALESCE(MAX(at), 0) FROM moment",
        [bind(head.writer.clone())],
    );
}
