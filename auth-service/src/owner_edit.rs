//! Around the verbs that change owners: hashing before them.

use interlock_kit::{
    error::Error,
    hasher::{Hasher, Priority},
    random,
    serve::Source,
};
use zeroize::Zeroizing;

use crate::{
    caller::Call,
    ids::OwnerId,
    owner::{ChangePassword, Edit, OwnerStored, ReadForEdit, ReadForLogin, SetOwner},
    parts::Parts,
    password::{self, PasswordHash},
    policy,
    store::Shell,
};

/// What an administrator asks for.
pub struct Ask {
    /// Whose.
    pub owner: OwnerId,
    /// All but a password that is to be hashed.
    pub edit: Edit,
    /// A new password, as people type it.
    pub password: Option<Zeroizing<String>>,
    /// It leaves the owner's sessions alive.
    pub keep_sessions: bool,
    /// The version that the change was made for.
    pub expected: Option<u64>,
    /// Where it ends the owner's sessions: work that was begun for them is to stop.
    pub cancel_jobs: bool,
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ask").field("owner", &self.owner).field("edit", &self.edit).finish_non_exhaustive()
    }
}

/// Adds or changes an owner. The password that the owner has already is no change.
///
/// # Errors
/// `WEAK_PASSWORD`; the verb's; `LIMIT_REACHED` where too many wait for the hasher.
pub async fn set(shell: &Shell, hasher: &Hasher, call: &Call, ask: Ask) -> Result<OwnerStored, Error> {
    let Ask { owner, mut edit, password, keep_sessions, mut expected, cancel_jobs } = ask;
    if let Some(plain) = password {
        password::check("password", &plain)?;
        let plain = Zeroizing::new(plain.as_bytes().to_vec());
        let known = shell.ask(call, ReadForEdit { owner: owner.clone() }).await?;
        let same = match &known {
            Some(known) => {
                let stored = known.password.expose().to_owned();
                hasher.verify(plain.clone(), stored, Priority::Known).await?.ok
            }
            None => false,
        };
        if !same {
            edit.password = Some(hashed(hasher, plain).await?);
        } else if expected.is_none() {
            // What was found to be no change must still be none.
            expected = known.map(|known| known.version);
        }
    }
    shell.run(call, SetOwner { owner, edit, keep_sessions, expected, cancel_jobs }).await
}

/// What an owner asks for.
pub struct OwnChange {
    /// From where.
    pub source: Source,
    /// As it is.
    pub current: Zeroizing<Vec<u8>>,
    /// As it is to be.
    pub new: Zeroizing<String>,
    /// The owner's sessions stay alive.
    pub keep_sessions: bool,
}

impl std::fmt::Debug for OwnChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnChange").field("keep_sessions", &self.keep_sessions).finish_non_exhaustive()
    }
}

/// Changes the caller's own password. Gives the row of the revocation log, where sessions ended.
///
/// # Errors
/// `WEAK_PASSWORD`, `INVALID_CREDENTIALS`; `RATE_LIMITED` and `LIMIT_REACHED` leave their row to the caller of this.
pub async fn change(parts: &Parts, call: &Call, ask: OwnChange) -> Result<Option<u64>, Error> {
    let OwnChange { source, current, new, keep_sessions } = ask;
    password::check("new_password", &new)?;
    let owner = call.caller.principal().ok_or_else(policy::login_required)?.owner_id.clone();
    // As a sign-in: it is the same password that is guessed at.
    parts.guesses.check(source, &owner)?;
    let priority = parts.guesses.priority(source, &owner);
    let known = parts.shell.ask(call, ReadForLogin { owner: owner.clone() }).await?;
    let verified = match known {
        Some(known) => {
            let stored = known.password.expose().to_owned();
            let ok = parts.hasher.verify(current, stored, priority).await?.ok;
            ok.then_some(known.version)
        }
        None => None,
    };
    // Who has not shown the present one costs no second hash; the verb refuses, and leaves the row.
    let password = match verified {
        Some(_) => {
            parts.guesses.succeeded(source, &owner);
            hashed(&parts.hasher, Zeroizing::new(new.as_bytes().to_vec())).await?
        }
        None => PasswordHash::nobodys(),
    };
    parts.shell.run(call, ChangePassword { verified, password, keep_sessions }).await
}

async fn hashed(hasher: &Hasher, plain: Zeroizing<Vec<u8>>) -> Result<PasswordHash, Error> {
    PasswordHash::parse(&hasher.hash(plain, random::bytes()).await?).map_err(Error::internal)
}
