//! What a failure of the database means for the batch that met it.

use std::error::Error as _;

use tokio_postgres::{
    Error,
    error::{DbError, Severity, SqlState},
    types::WrongType,
};

use crate::store::Fault;

/// Why a batch could not be carried on.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The database undid the transaction for the sake of another one: run it again.
    Again(String),
    /// A row was not as it was planned on: one that was not there has come in the meantime. Run again, that is seen;
    /// where it goes on, it is this fault.
    Unmet(Fault),
    /// The connection is of no use any more. What was sent last may or may not have been done.
    Lost(String),
    /// The database, a verb or a change says no. The transaction is undone.
    Fault(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let Some(said) = error.as_db_error() else {
            // A value of another type than its statement has was never sent.
            let is_ours = error.source().is_some_and(<dyn std::error::Error>::is::<WrongType>);
            return if is_ours { Self::Fault(Fault::Broken(told(&error))) } else { Self::Lost(told(&error)) };
        };
        match *said.code() {
            // A server that ends or that takes no writes any more. Nothing was done, and the next connection
            // may find another one.
            _ if is_last(said) => Self::Lost(said.message().to_owned()),
            SqlState::READ_ONLY_SQL_TRANSACTION => Self::Lost(said.message().to_owned()),
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => {
                Self::Again(said.message().to_owned())
            }
            SqlState::UNIQUE_VIOLATION => Self::Unmet(fault(said)),
            _ => Self::Fault(fault(said)),
        }
    }
}

/// Whether the server has ended the connection with this.
fn is_last(said: &DbError) -> bool {
    matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

/// By the class of its code: <https://www.postgresql.org/docs/15/errcodes-appendix.html>.
fn fault(said: &DbError) -> Fault {
    let text = format!("{} ({})", said.message(), said.code().code());
    match said.code().code().get(..2) {
        _ if *said.code() == SqlState::DISK_FULL => Fault::Full(text),
        // Insufficient resources, operator intervention, object not in prerequisite state, connection, system.
        Some("53" | "57" | "55" | "08" | "58") => Fault::Unavailable(text),
        _ => Fault::Broken(text),
    }
}

/// With its cause, which the client's errors leave out.
pub(in crate::store) fn told(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    match error.source() {
        Some(cause) if !error.to_string().contains(&cause.to_string()) => format!("{error}: {cause}"),
        _ => error.to_string(),
    }
}

/// Rows that do not have the form that a program of ours gave them.
impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match Trouble::from(error) {
            Trouble::Fault(fault) | Trouble::Unmet(fault) => fault,
            Trouble::Again(why) | Trouble::Lost(why) => Self::Broken(why),
        }
    }
}
