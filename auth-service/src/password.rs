//! Stored passwords, and what a new one must be like. Hashing itself is the kit's: on threads of its own.

use std::fmt;

use interlock_kit::{
    error::{Error, Reason},
    hasher::{HashFormatError, check_stored},
};

use crate::limits;

/// The stored form of a password: argon2id in PHC form, or an imported PBKDF2 or bcrypt hash until the
/// first good sign-in. Its parameters are within the hasher's bounds.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Checks the form and the parameters.
    ///
    /// # Errors
    /// What is wrong, without the hash.
    pub fn parse(text: &str) -> Result<Self, HashFormatError> {
        check_stored(text).map(|()| Self(text.to_owned()))
    }

    /// One that the store gave back: it was checked before it went in.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// In the place of a removed owner's: no password has it, and nobody is to verify one against it.
    #[must_use]
    pub(crate) fn nobodys() -> Self {
        Self("$removed".to_owned())
    }

    /// For the hasher and the store. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash")
    }
}

/// Whether a password may be set: long enough to guess at, short enough to hash.
///
/// # Errors
/// `WEAK_PASSWORD` under 12 characters; `INVALID_FIELD` where it is empty or over 1024 bytes.
pub fn check(field: &str, password: &str) -> Result<(), Error> {
    check_size(field, password)?;
    if password.chars().count() < limits::PASSWORD_CHARS_MIN {
        return Err(Error::new(Reason::WeakPassword, "a password has at least 12 characters"));
    }
    Ok(())
}

/// Whether a password may be presented.
///
/// # Errors
/// `MISSING_FIELD` where it is empty, `INVALID_FIELD` where it has over 1024 bytes.
pub fn check_size(field: &str, password: &str) -> Result<(), Error> {
    match password.len() {
        0 => Err(Error::missing_field(field)),
        1..=limits::PASSWORD_BYTES_MAX => Ok(()),
        _ => Err(Error::invalid_field(field, "1 to 1024 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_counts_characters_and_bytes() {
        check("password", "åååååååååååå").expect("twelve characters");
        let refused = |text: &str| check("password", text).expect_err("refused").reason();
        assert_eq!(refused("eleven char"), Reason::WeakPassword);
        assert_eq!(refused(""), Reason::MissingField);
        assert_eq!(refused(&"x".repeat(1025)), Reason::InvalidField);
    }

    #[test]
    fn only_hashes_are_stored() {
        PasswordHash::parse("correct horse battery staple").expect_err("a password is no hash");
        let vector =
            "pbkdf2_sha256$310000$AAECAwQFBgcICQoLDA0ODw==$e4rSQ5KQXKoMyeu1tFpEU3HMo6tplYmG7eJ280WPc/o=";
        let hash = PasswordHash::parse(vector).expect("the vector of ACCEPTANCE.md");
        assert_eq!(format!("{hash:?}"), "PasswordHash");
    }
}
