//! An empty store, filled in one transaction: for whoever moves one here.

use tokio_postgres::Client;

use super::{
    Lane, PostgresDomain, Sharing,
    holding::lock,
    link::{Kind, Link},
    opening::{OpenError, Refused, has_the_key, is_fit, is_of_this_version, migrate, tables},
    target::Target,
    trouble::Trouble,
};
use crate::store::{Fault, audit::ChainKey, copy::CopyError};

/// Whether any program has used it.
const USED: &str = "SELECT WHERE EXISTS (SELECT FROM moment) OR EXISTS (SELECT FROM audit_batch)
                           OR EXISTS (SELECT FROM chain_key)";

/// Makes the tables, lets `work` fill them in one transaction, and commits. The store is had alone meanwhile.
///
/// # Errors
/// [`CopyError::To`] for a store that is not empty; what `work` says; the target is then as it was.
pub(in crate::store) fn fill<D: PostgresDomain, T: Send>(
    target: &Target,
    key: &ChainKey,
    work: impl AsyncFnOnce(&Client) -> Result<T, CopyError> + Send,
) -> Result<T, CopyError> {
    let lane = Lane::new().map_err(OpenError::from)?;
    lane.apart(move |lane| {
        lane.wait(async {
            let mut link = empty::<D>(target, key).await.map_err(|refused| refused.of(target))?;
            let filled = work(link.client()).await?;
            match link.commit().await {
                Ok(()) => Ok(filled),
                Err(Trouble::Lost(why) | Trouble::Again(why)) => Err(CopyError::Commit(why)),
                Err(Trouble::Fault(fault) | Trouble::Unmet(fault)) => {
                    Err(CopyError::Table { table: "the commit".to_owned(), why: fault.to_string() })
                }
            }
        })
    })
}

/// In a transaction that has as long as it takes.
async fn empty<D: PostgresDomain>(target: &Target, key: &ChainKey) -> Result<Link, Refused> {
    let mut link = Link::connect(target, Kind::Write).await?;
    is_fit(&mut link).await?;
    match lock(&mut link, Sharing::Alone).await {
        Err(Trouble::Fault(Fault::Unavailable(_))) => return Err(Refused::Held),
        taken => taken?,
    }
    let is_new = tables(&mut link).await?.is_empty();
    let is_of_this_version = is_of_this_version::<D>(&mut link).await?;
    if !is_new && (!is_of_this_version || !link.rows(USED, &[]).await?.is_empty()) {
        return Err(Refused::Unfit("is not empty: name an empty database".to_owned()));
    }
    if !is_of_this_version {
        migrate::<D>(&mut link).await?;
    }
    link.load(Vec::new(), &mut ()).await?;
    link.run("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
    has_the_key(key, &mut link).await?;
    Ok(link)
}
