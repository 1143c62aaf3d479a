//! Opening a store: what must hold before anything of it may change.
//!
//! One program at a time: a lock of the session of the writing connection, so that who has lost the connection
//! has lost the lock. It is taken first, so several that start at once do not meet in the migrations. What the
//! database holds is read and compared before it is brought to this version.

use std::{
    io,
    sync::{Arc, atomic::AtomicI64},
};

use refinery::Runner;

use super::{
    Flush, Options, PostgresDomain, audit, bind,
    link::{Kind, Link},
    target::Target,
    trouble::Trouble,
    writer::{Desk, instant},
};
use crate::{
    clock::Timestamp,
    random,
    store::{
        Fault,
        audit::Head,
        migrations::{self, Applied, OURS, THEIRS, Unlike},
    },
};

/// The oldest version that is tested, as the server tells it.
const VERSION_MIN: i32 = 150_000;
/// The key of the lock: of this program, in any database.
const LOCK: i64 = 0x696e_7465_726c_6f63;

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
    /// A migration failed.
    #[error("cannot bring the store {place} to this version: {source}; it is as it was")]
    Migrate {
        /// Which.
        place: String,
        /// Why.
        source: Box<refinery::Error>,
    },
    /// No thread to run it.
    #[error("cannot start the store's thread: {0}")]
    Thread(#[from] io::Error),
}

/// Why one step of the opening failed; [`OpenError`] adds which store it is.
enum Refused {
    Trouble(Trouble),
    Held,
    Unfit(String),
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
    fn of(self, target: &Target) -> OpenError {
        let place = target.to_string();
        match self {
            Self::Trouble(Trouble::Again(why) | Trouble::Lost(why)) => OpenError::Open { place, why },
            Self::Trouble(Trouble::Fault(fault)) => OpenError::Open { place, why: fault.to_string() },
            Self::Held => OpenError::Held { place },
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
    match lock(&mut link).await {
        Err(Trouble::Fault(Fault::Unavailable(_))) => return Err(Refused::Held),
        taken => taken?,
    }
    check::<D>(&mut link).await?;
    migrate::<D>(&mut link).await?;
    begin(options, link).await
}

/// Takes the lock, which goes with the connection. Waits a moment: that of a program that has just ended may
/// not have been let go yet.
///
/// # Errors
/// [`Fault::Unavailable`] where another program has it.
pub(super) async fn lock(link: &mut Link) -> Result<(), Trouble> {
    match link.rows("SELECT pg_advisory_lock($1)", &[bind(LOCK)]).await {
        Ok(_) => Ok(()),
        Err(Trouble::Fault(Fault::Unavailable(_))) => {
            Err(Fault::Unavailable("another program uses this store".to_owned()).into())
        }
        Err(trouble) => Err(trouble),
    }
}

/// Whether the server can keep a store as it must be kept.
async fn is_fit(link: &mut Link) -> Result<(), Refused> {
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

/// Refuses what is there and must not be touched. Writes nothing.
async fn check<D: PostgresDomain>(link: &mut Link) -> Result<(), Refused> {
    let tables = tables(link).await?;
    let Some(first) = tables.first() else { return Ok(()) };
    if !tables.iter().any(|table| table == OURS) {
        return Err(Refused::Unlike(Unlike::Foreign(format!("it has a table {first} and none {OURS}"))));
    }
    for (table, runner) in [(OURS, kit_migrations()), (THEIRS, D::postgres_migrations())] {
        if tables.iter().any(|found| found == table) {
            let applied = applied(link, table).await?;
            migrations::compare(&applied, &runner).map_err(Refused::Unlike)?;
        }
    }
    Ok(())
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

async fn tables(link: &mut Link) -> Result<Vec<String>, Refused> {
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

async fn migrate<D: PostgresDomain>(link: &mut Link) -> Result<(), Refused> {
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

/// Begins this writer's chain. Writers whose process has ended can add nothing: a last link says so, and their
/// rows of `moment` go.
async fn begin(options: &Options, mut link: Link) -> Result<Desk, Refused> {
    let rows = link.rows("SELECT COALESCE(MAX(at), 0) FROM moment", &[]).await?;
    let row = rows.first().ok_or_else(|| Fault::Broken("no moment".to_owned()))?;
    let last: i64 = row.try_get(0).map_err(Fault::from)?;
    options.clock.not_before(Timestamp::from_micros(last));
    options.clock.not_before(link.now().await?);
    let moment = Arc::new(AtomicI64::new(last));
    let now = instant(&options.clock, &moment);
    let head = Head::start(random::id("wrt"));
    let mut flush = Flush::default();
    for earlier in audit::open_heads(&mut link).await? {
        audit::append(&mut flush, &options.chain_key, &earlier, now, &[], true);
    }
    flush.any("moments of earlier writers", "DELETE FROM moment", []);
    flush.one(
        "moment of this writer",
        "INSERT INTO moment (writer, batch, at) VALUES ($1, 0, $2)",
        [bind(head.writer.clone()), bind(last)],
    );
    link.write(&flush).await?;
    link.commit().await?;
    Ok(Desk { options: options.clone(), link: Some(link), moment, head, batch: 0, doubt: None })
}
