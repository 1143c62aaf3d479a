//! A database that is not there yet: made, where the role may; and removed again, for whoever made it to play with.

use tokio_postgres::{Client, error::SqlState};

use super::{
    Lane, hosts,
    target::Target,
    trouble::{Trouble, told},
};
use crate::store::Fault;

/// The database that every server has, to make others from.
const MAINTENANCE: &str = "postgres";

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is new, and empty.
    New,
    /// It was there already.
    There,
}

/// Why a database could not be made or removed. Never says a password.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The role has no right to.
    #[error("the role {role} may not {verb} the database {database} on {hosts}")]
    NotAllowed {
        /// Which role.
        role: String,
        /// What it wanted to do.
        verb: &'static str,
        /// To which.
        database: String,
        /// Where.
        hosts: String,
    },
    /// The server cannot be reached, or says no.
    #[error("cannot use {place}: {why}")]
    Unusable {
        /// Which database.
        place: String,
        /// Why.
        why: String,
    },
}

/// Makes the database, encoded in UTF8, where it is missing. Waits for the server.
///
/// # Errors
/// [`MakeError`]
pub fn make(target: &Target) -> Result<Made, MakeError> {
    apart(target, async |client| {
        let sql = "SELECT FROM pg_database WHERE datname = $1";
        if client.query_opt(sql, &[&target.database()]).await?.is_some() {
            return Ok(Made::There);
        }
        // Texts are compared by their bytes in any case.
        let made = client
            .batch_execute(&format!(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'",
                quoted(target.database())
            ))
            .await;
        match made {
            // Two have made it at once.
            Err(error)
                if [SqlState::DUPLICATE_DATABASE, SqlState::UNIQUE_VIOLATION]
                    .iter()
                    .any(|code| error.code() == Some(code)) =>
            {
                Ok(Made::There)
            }
            made => made.map(|()| Made::New),
        }
    })
    .map_err(|why| failed(target, "make", why))
}

/// Removes the database with all that is in it. Who uses it loses the connection.
///
/// # Errors
/// [`MakeError`]
pub fn remove(target: &Target) -> Result<(), MakeError> {
    apart(target, async |client| {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(target.database()));
        client.batch_execute(&sql).await
    })
    .map_err(|why| failed(target, "remove", why))
}

enum Why {
    Unreached(Trouble),
    Said(tokio_postgres::Error),
}

fn apart<T: Send>(
    target: &Target,
    work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error> + Send,
) -> Result<T, Why> {
    let lane = Lane::new().map_err(|error| Why::Unreached(Fault::Unavailable(error.to_string()).into()))?;
    lane.apart(move |lane| {
        lane.wait(async {
            let found = hosts::find(&target.with_database(MAINTENANCE), "").await.map_err(Why::Unreached)?;
            let driver = tokio::spawn(found.connection);
            let worked = work(&found.client).await.map_err(Why::Said);
            driver.abort();
            worked
        })
    })
}

fn failed(target: &Target, verb: &'static str, why: Why) -> MakeError {
    let why = match why {
        Why::Said(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            let hosts: Vec<_> = (0..target.hosts()).map(|at| target.host(at)).collect();
            return MakeError::NotAllowed {
                role: target.user().to_owned(),
                verb,
                database: target.database().to_owned(),
                hosts: hosts.join(","),
            };
        }
        Why::Said(error) => told(&error),
        Why::Unreached(Trouble::Lost(why) | Trouble::Again(why)) => why,
        Why::Unreached(Trouble::Fault(fault) | Trouble::Unmet(fault)) => fault.to_string(),
    };
    MakeError::Unusable { place: target.to_string(), why }
}

/// A name as an identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
