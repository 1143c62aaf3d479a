//! `--store postgres://…`: both services' stores in databases of one server, made where they are missing.
//!
//! The URL names no database of its own: `…/interlock` stands for `interlock_auth` and `interlock_gateway`. Its password,
//! if it holds one, goes into a file that only this user can read; no service finds it in its arguments, its
//! environment or its configuration.

use std::{convert::Infallible, fmt, path::Path, str::FromStr};

use interlock_kit::{
    config::Profile,
    random,
    store::postgres::{MakeError, Target, make, remove},
};
use zeroize::Zeroizing;

use crate::failure::{DENIED, Failure, UNAVAILABLE};

/// The services that have one.
const SERVICES: [&str; 2] = ["auth", "gateway"];

/// PostgreSQL cuts longer names off: 63 bytes, less what is put behind.
const NAME_BYTES_MAX: usize = 32;

/// What stands on the command line. Never shown: it may hold a password.
#[derive(Clone)]
pub(crate) struct StoreUrl(Zeroizing<String>);

impl FromStr for StoreUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreUrl")
    }
}

/// Where the stores are.
#[derive(Clone, Debug)]
pub(crate) struct Database(Target);

impl Database {
    /// Reads the flag. Opens nothing.
    ///
    /// # Errors
    /// What is wrong with it, without saying it.
    pub(crate) fn of(url: &StoreUrl) -> Result<Self, Failure> {
        let refused = |why: String| {
            Failure::usage(format!("--store: {why}"))
                .next("docs/several.md has the form; INTERLOCK_STORE keeps it off the command line")
        };
        let target = Target::parse(&url.0, Profile::Local).map_err(|error| refused(error.to_string()))?;
        if target.database().len() > NAME_BYTES_MAX {
            return Err(refused(format!("the name at its end has at most {NAME_BYTES_MAX} bytes")));
        }
        Ok(Self(target))
    }

    /// The same for stores of another name, which nobody has used.
    pub(crate) fn apart(&self) -> Self {
        let id: String = random::bytes::<6>().iter().map(|byte| format!("{byte:02x}")).collect();
        Self(self.0.with_database(&format!("{}_demo_{id}", self.0.database())))
    }

    /// A service's own.
    pub(crate) fn of_service(&self, service: &str) -> Target {
        self.0.with_database(&format!("{}_{service}", self.0.database()))
    }

    /// The password that the URL held, and the same with that password in a file.
    pub(crate) fn with_password_in(&self, file: &Path) -> (Self, Option<&[u8]>) {
        match self.0.password() {
            Some(password) => (Self(self.0.with_password_file(file)), Some(password)),
            None => (self.clone(), None),
        }
    }

    /// Makes those of both services where they are missing.
    ///
    /// # Errors
    /// Where the role may not, or the server cannot be used.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        for service in SERVICES {
            make(&self.of_service(service)).map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    /// Removes both.
    ///
    /// # Errors
    /// As [`Database::make`].
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        for service in SERVICES {
            remove(&self.of_service(service)).map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    fn failed(&self, error: &MakeError) -> Failure {
        match error {
            MakeError::NotAllowed { role, .. } => {
                let names = SERVICES.map(|service| self.of_service(service).database().to_owned());
                Failure::coded(DENIED, error.to_string())
                    .fact(format!("either `ALTER ROLE {role} CREATEDB`"))
                    .fact(format!(
                        "or, for {} and for {}, `CREATE DATABASE … OWNER {role} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'`",
                        names[0], names[1]
                    ))
                    .next("have one of these done by who may, then start again")
            }
            MakeError::Unusable { .. } => Failure::coded(UNAVAILABLE, error.to_string())
                .next("is the server there, and may the role connect to its database `postgres`?"),
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_*", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_being_said() {
        let long = format!("postgres://u:secret@127.0.0.1/{}?sslmode=disable", "x".repeat(33));
        for bad in ["postgres://u:secret@db", "postgres://u:secret@db/d?sslmode=prefer", "secret", "", &long]
        {
            let refused = Database::of(&bad.parse().expect("any text")).expect_err(bad);
            assert!(!format!("{refused:?}").contains("secret"), "{refused:?}");
        }
    }

    #[test]
    fn each_service_has_a_database_and_the_password_has_a_file() {
        let url: StoreUrl = "postgres://u:secret@127.0.0.1/il?sslmode=disable".parse().expect("any text");
        let database = Database::of(&url).expect("good");
        let (kept, password) = database.with_password_in(Path::new("/w/database.password"));
        assert_eq!(password, Some(&b"secret"[..]));
        let url = kept.of_service("auth").url();
        let file = "password_file=%2Fw%2Fdatabase%2Epassword";
        assert_eq!(url, format!("postgres://u@127.0.0.1:5432/il%5Fauth?sslmode=disable&{file}"));
        assert!(!format!("{database:?} {database} {kept:?}").contains("secret"));
    }
}
