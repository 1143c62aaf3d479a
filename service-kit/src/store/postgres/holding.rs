//! Who has a store: one program alone, or several that share it. By locks of the sessions of their writing connections,
//! so that who has lost the connection has lost its part.

use std::time::{Duration, Instant};

use super::{
    PostgresDomain, Sharing, bind,
    link::Link,
    opening::{Refused, is_of_this_version, migrate},
    trouble::Trouble,
};
use crate::{clock::Clock, random, store::Fault};

/// The key of the lock: of this program, in any database.
const LOCK: i64 = 0x696e_7465_726c_6f63;
/// How long a program waits for its part of a store: others may bring it to this version.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
const OPEN_PAUSE: Duration = Duration::from_millis(50);

/// Takes the store for this program alone, and brings it to this version.
pub(super) async fn alone<D: PostgresDomain>(link: &mut Link) -> Result<(), Refused> {
    match lock(link, Sharing::Alone).await {
        Err(Trouble::Fault(Fault::Unavailable(_))) => return Err(Refused::Held),
        taken => taken?,
    }
    if !is_of_this_version::<D>(link).await? {
        migrate::<D>(link).await?;
    }
    Ok(())
}

/// Takes a part of the store. Who has to bring it to this version has it alone for that; the others wait, so several
/// may start at once.
pub(super) async fn shared<D: PostgresDomain>(link: &mut Link) -> Result<(), Refused> {
    let began: Instant = Clock::instant();
    loop {
        let refused = if is(link, "SELECT pg_try_advisory_lock_shared($1)").await? {
            if is_of_this_version::<D>(link).await? {
                return Ok(());
            }
            is(link, "SELECT pg_advisory_unlock_shared($1)").await?;
            if is(link, "SELECT pg_try_advisory_lock($1)").await? {
                if !is_of_this_version::<D>(link).await? {
                    migrate::<D>(link).await?;
                }
                is(link, "SELECT pg_try_advisory_lock_shared($1)").await?;
                is(link, "SELECT pg_advisory_unlock($1)").await?;
                return Ok(());
            }
            let used =
                "is of an earlier version, and in use: end the programs that use it, then start this one";
            Refused::Unfit(used.to_owned())
        } else {
            Refused::Held
        };
        if Clock::instant().duration_since(began) >= OPEN_WITHIN {
            return Err(refused);
        }
        // Those that start together do not go on in step.
        let jitter = u64::from(random::bytes::<1>()[0]) / 8;
        tokio::time::sleep(OPEN_PAUSE + Duration::from_millis(jitter)).await;
    }
}

async fn is(link: &mut Link, sql: &str) -> Result<bool, Trouble> {
    let rows = link.rows(sql, &[bind(LOCK)]).await?;
    let row = rows.first().ok_or_else(|| Fault::Broken("no answer to a lock".to_owned()))?;
    Ok(row.try_get(0)?)
}

/// Takes the lock, which goes with the connection. Waits a moment: that of a program that has just ended may
/// not have been let go yet.
///
/// # Errors
/// [`Fault::Unavailable`] where another program has it.
pub(super) async fn lock(link: &mut Link, sharing: Sharing) -> Result<(), Trouble> {
    let sql = match sharing {
        Sharing::Alone => "SELECT pg_advisory_lock($1)",
        Sharing::Shared => "SELECT pg_advisory_lock_shared($1)",
    };
    match link.rows(sql, &[bind(LOCK)]).await {
        Ok(_) => Ok(()),
        Err(Trouble::Fault(Fault::Unavailable(_))) => {
            Err(Fault::Unavailable("another program uses this store".to_owned()).into())
        }
        Err(trouble) => Err(trouble),
    }
}

/// Shows as long as the connection lives that this writer has not ended.
pub(super) async fn hold(link: &mut Link, writer: &str) -> Result<(), Trouble> {
    let sql = "SELECT pg_advisory_lock_shared(hashtextextended($1, 0))";
    link.rows(sql, &[bind(writer.to_owned())]).await.map(drop)
}
