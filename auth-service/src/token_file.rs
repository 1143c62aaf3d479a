//! The recoverable copy of the role tokens: `<data_dir>/auth_tokens.json`, mode 0600.
//!
//! The store has hashes only. `role_token.rs` has the protocol by which store and file stay in step; this file
//! is the file: its form, and what of it agrees with the store. A copy that cannot be read is never replaced.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use interlock_kit::{
    config::Profile,
    secret_file::{self, SecretFileError},
};
use interlock_proto::credential::Credential;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::role_token::{Role, RoleToken};

/// Its name in the data directory.
pub const FILE_NAME: &str = "auth_tokens.json";
const FORMAT: u32 = 1;
const FILE_BYTES_MAX: u64 = 4_096;

/// Why the copy cannot be used. Names the path, never a token.
#[derive(Debug, Error)]
pub enum TokenFileError {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// It is not what this program writes.
    #[error("{path}: not a copy of the role tokens ({why}); it was left as it is: move it away, or restore it", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong. Never the content.
        why: &'static str,
    },
}

impl TokenFileError {
    /// As [`SecretFileError::is_configuration`].
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::File(error) => error.is_configuration(),
            Self::Corrupt { .. } => true,
        }
    }
}

/// Where the copy is.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
    profile: Profile,
}

/// What is in it: the tokens of the last finished change, those of one that may not have finished, and the next ones of
/// open rotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    present: BTreeMap<Role, Credential>,
    pending: BTreeMap<Role, Credential>,
    candidates: BTreeMap<Role, Credential>,
}

/// The text form. Tokens stand in it by role; what is wiped is wiped by [`Credential`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    format: u32,
    #[serde(borrow)]
    tokens: BTreeMap<&'a str, &'a str>,
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    pending: BTreeMap<&'a str, &'a str>,
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    candidates: BTreeMap<&'a str, &'a str>,
}

impl TokenFile {
    /// The copy of this data directory.
    #[must_use]
    pub fn of(data_dir: &Path, profile: Profile) -> Self {
        Self { path: data_dir.join(FILE_NAME), profile }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; `None` where there is none: it may be deleted after hand-over.
    ///
    /// # Errors
    /// [`TokenFileError`]; the file is left as it is.
    pub fn read(&self) -> Result<Option<Tokens>, TokenFileError> {
        let secret = match secret_file::read(&self.path, FILE_BYTES_MAX, self.profile) {
            Ok(secret) => secret,
            Err(SecretFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(exposed) = &secret.exposed {
            tracing::warn!("{exposed}");
        }
        let corrupt = |why| TokenFileError::Corrupt { path: self.path.clone(), why };
        let written: Written<'_> =
            serde_json::from_slice(&secret.contents).map_err(|_| corrupt("not its JSON"))?;
        if written.format != FORMAT {
            return Err(corrupt("of another format"));
        }
        let (present, pending) = (parse(&written.tokens), parse(&written.pending));
        match (present, pending, parse(&written.candidates)) {
            (Some(present), Some(pending), Some(candidates)) => {
                Ok(Some(Tokens { present, pending, candidates }))
            }
            _ => Err(corrupt("a token is damaged")),
        }
    }

    /// Writes it whole or not at all: temporary file, sync, rename, sync of the folder. A copy of nothing is
    /// no file.
    ///
    /// # Errors
    /// [`TokenFileError::File`]; the earlier copy is still there.
    pub fn write(&self, copy: &Tokens) -> Result<(), TokenFileError> {
        if *copy == Tokens::default() {
            return self.remove();
        }
        let text = |tokens| -> BTreeMap<&str, &str> {
            let tokens: &BTreeMap<Role, Credential> = tokens;
            tokens.iter().map(|(role, token)| (role.text(), token.expose())).collect()
        };
        let written = Written {
            format: FORMAT,
            tokens: text(&copy.present),
            pending: text(&copy.pending),
            candidates: text(&copy.candidates),
        };
        // Room for all of it, so that the buffer never moves and leaves a copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(FILE_BYTES_MAX).unwrap_or(4_096)));
        serde_json::to_writer_pretty(&mut *bytes, &written).map_err(|source| {
            TokenFileError::from(SecretFileError::Write { path: self.path.clone(), source: source.into() })
        })?;
        bytes.push(b'\n');
        Ok(secret_file::write(&self.path, &bytes)?)
    }

    /// Removes what a write left behind that was killed: tokens that nobody would ever look for.
    ///
    /// # Errors
    /// [`TokenFileError::File`]
    pub fn sweep(&self) -> Result<(), TokenFileError> {
        Ok(secret_file::sweep(&self.path)?)
    }

    fn remove(&self) -> Result<(), TokenFileError> {
        match std::fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(SecretFileError::Write { path: self.path.clone(), source }.into())
            }
            _ => Ok(()),
        }
    }
}

fn parse(written: &BTreeMap<&str, &str>) -> Option<BTreeMap<Role, Credential>> {
    let token = |(role, text): (&&str, &&str)| {
        let role = Role::ALL.into_iter().find(|known| known.text() == *role)?;
        let token = Credential::parse(text).ok().filter(|token| token.kind() == role.kind())?;
        Some((role, token))
    };
    written.iter().map(token).collect()
}

impl Tokens {
    /// With this token beside the present one, before the store hears of it.
    #[must_use]
    pub fn with_pending(mut self, role: Role, token: Credential) -> Self {
        self.pending.insert(role, token);
        self
    }

    /// What the store's present tokens and candidates are: found ones are kept as such, all others are dropped.
    #[must_use]
    pub fn settled(&self, stored: &[RoleToken]) -> Self {
        let found = |candidate: bool| {
            let of_kind = stored.iter().filter(move |token| token.candidate == candidate);
            of_kind.filter_map(|token| Some((token.role, self.token_of(token)?.clone()))).collect()
        };
        Self { present: found(false), pending: BTreeMap::new(), candidates: found(true) }
    }

    /// The token of a stored generation, whatever it is here.
    #[must_use]
    pub fn token_of(&self, stored: &RoleToken) -> Option<&Credential> {
        let known = [&self.present, &self.pending, &self.candidates].map(|tokens| tokens.get(&stored.role));
        known.into_iter().flatten().find(|token| token.hash() == stored.hash)
    }

    /// Whether it has every one of these.
    #[must_use]
    pub fn has_all(&self, stored: &[RoleToken]) -> bool {
        stored.iter().all(|token| self.token_of(token).is_some())
    }

    /// The token of a role that a change left behind before any store knew it, else the present one.
    #[must_use]
    pub fn latest(&self, role: Role) -> Option<&Credential> {
        self.pending.get(&role).or_else(|| self.present.get(&role))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use interlock_kit::clock::Timestamp;

    use super::*;
    use crate::ids::CredentialId;

    fn token(role: Role, seed: u8) -> Credential {
        Credential::new(role.kind(), &[seed; 32])
    }

    fn candidate(role: Role, seed: u8) -> RoleToken {
        RoleToken { candidate: true, ..stored(role, seed) }
    }

    fn stored(role: Role, seed: u8) -> RoleToken {
        let token = token(role, seed);
        RoleToken {
            hash: token.hash(),
            id: CredentialId::made("crd_1"),
            role,
            generation: 1,
            issuance: 1,
            masked: token.masked(),
            created_at: Timestamp::default(),
            valid_until: None,
            candidate: false,
        }
    }

    fn both() -> Tokens {
        let pending = Tokens::default().with_pending(Role::Admin, token(Role::Admin, 1));
        let pending = pending.with_pending(Role::User, token(Role::User, 2));
        pending.settled(&[stored(Role::Admin, 1), stored(Role::User, 2)])
    }

    // SW-15: mode 0600, and what is written is what is read.
    #[test]
    fn a_copy_is_its_owners_only_and_round_trips() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = TokenFile::of(folder.path(), Profile::Hardened);
        assert_eq!(file.read().expect("none is fine"), None);
        let copy = both().with_pending(Role::User, token(Role::User, 3));
        file.write(&copy).expect("written");
        assert_eq!(file.read().expect("read"), Some(copy));
        let mode = std::fs::metadata(file.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        file.write(&Tokens::default()).expect("removed");
        assert!(!file.path().exists());
    }

    // SW-15: wherever a rotation was cut off, the store decides which token is present.
    #[test]
    fn a_cut_off_rotation_is_finished_or_dropped() {
        let cut = both().with_pending(Role::Admin, token(Role::Admin, 9));
        let before_commit = [stored(Role::Admin, 1), stored(Role::User, 2)];
        assert_eq!(cut.settled(&before_commit), both());
        let after_commit = [stored(Role::Admin, 9), stored(Role::User, 2)];
        let settled = cut.settled(&after_commit);
        assert_eq!(settled.latest(Role::Admin), Some(&token(Role::Admin, 9)));
        assert!(settled.has_all(&after_commit) && !settled.has_all(&before_commit));
        assert_eq!(settled.settled(&after_commit), settled, "settling twice changes nothing");
        let elsewhere = [stored(Role::Admin, 30), stored(Role::User, 31)];
        assert_eq!(cut.settled(&elsewhere), Tokens::default(), "a stale copy is dropped");
    }

    // SW-15: the same of one in two phases, which adds a token and then takes one away.
    #[test]
    fn a_cut_off_rotation_in_two_phases_is_finished_or_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = TokenFile::of(folder.path(), Profile::Hardened);
        let present = [stored(Role::Admin, 1), stored(Role::User, 2)];
        let open = [candidate(Role::Admin, 9), stored(Role::Admin, 1), stored(Role::User, 2)];
        let committed = [stored(Role::Admin, 9), stored(Role::User, 2)];
        let cut = both().with_pending(Role::Admin, token(Role::Admin, 9));
        assert_eq!(cut.settled(&present), both(), "before the commit");
        let begun = cut.settled(&open);
        assert!(begun.has_all(&open) && begun.settled(&open) == begun);
        file.write(&begun).expect("written");
        assert_eq!(file.read().expect("read"), Some(begun.clone()), "a place of its own");
        assert_eq!(begun.latest(Role::Admin), Some(&token(Role::Admin, 1)), "not the one that others know");
        assert_eq!(begun.settled(&present), both(), "aborted");
        let done = begun.settled(&committed);
        assert_eq!(done.latest(Role::Admin), Some(&token(Role::Admin, 9)), "committed");
        assert!(done.has_all(&committed) && done.token_of(&open[1]).is_none(), "the old one is gone");
    }

    // SW-17: a corrupt file is refused and left as it is.
    #[test]
    fn a_corrupt_copy_is_refused_and_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = TokenFile::of(folder.path(), Profile::Local);
        let user = token(Role::User, 2);
        for text in [
            String::new(),
            "{}".to_owned(),
            r#"{"format":2,"tokens":{}}"#.to_owned(),
            r#"{"format":1,"tokens":{"admin":"ilk_adm_typo"}}"#.to_owned(),
            format!(r#"{{"format":1,"tokens":{{"admin":"{}"}}}}"#, user.expose()),
            format!(r#"{{"format":1,"tokens":{{"root":"{}"}}}}"#, user.expose()),
        ] {
            std::fs::write(file.path(), &text).expect("written");
            let refused = file.read().expect_err("corrupt").to_string();
            assert!(refused.contains("left as it is") && !refused.contains("ilk_"), "{refused}");
            assert_eq!(std::fs::read_to_string(file.path()).expect("there"), text);
        }
    }
}
