//! Owners: the accounts that sign in with a password, as administrators see them.

use std::time::SystemTime;

use interlock_proto::auth::v1 as wire;

use crate::{
    auth::{Auth, PAGE, PAGES_MAX, REVOCATION, Reached},
    clock::from_wire,
    error::Error,
    path,
};

/// An owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its id.
    pub owner_id: String,
    /// The name to show.
    pub display_name: String,
    /// As they were given.
    pub roles: Vec<String>,
    /// Whether it may sign in.
    pub active: bool,
    /// Whether the roles meet the root condition by themselves.
    pub session_root: bool,
    /// Grows with each change.
    pub version: u64,
    /// When it was last changed.
    pub changed_at: Option<SystemTime>,
}

/// What to change of an owner; `None` leaves it. A new owner is `user`, active and shown by its id where nothing else
/// is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetOwner {
    /// 1 to 128 bytes.
    pub display_name: Option<String>,
    /// All of them, at most 16.
    pub roles: Option<Vec<String>>,
    /// Whether it may sign in.
    pub active: Option<bool>,
    /// A new password leaves the owner's sessions alive.
    pub keep_sessions: bool,
    /// The [`Owner::version`] that the change was made for; another one is refused with `CONFLICT`.
    pub expected_version: Option<u64>,
    /// Where the change ends the owner's sessions: their queued jobs are cancelled, and the running ones asked. Imports
    /// do not look at it.
    pub cancel_jobs: bool,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerSet {
    /// The owner as it is now.
    pub owner: Owner,
    /// Whether this call has added it.
    pub created: bool,
    /// What the change reached; `None` where verifiers had nothing to forget.
    pub reached: Option<Reached>,
}

/// The register of owners. From [`Auth::owners`].
#[derive(Clone, Debug)]
pub struct Owners(Auth);

impl Auth {
    /// The register of owners, for administrators.
    #[must_use]
    pub fn owners(&self) -> Owners {
        Owners(self.clone())
    }

    /// Changes the password of the owner who is acting. All of its owner sessions end, this one too, unless they are
    /// kept; what the end reached is answered. Never made twice by itself.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS`, `WEAK_PASSWORD` under 12 characters, `LOGIN_REQUIRED` for another kind of credential,
    /// `RATE_LIMITED` and `LIMIT_REACHED` with a delay.
    pub async fn change_password(
        &self,
        current: &str,
        new: &str,
        keep_sessions: bool,
    ) -> Result<Option<Reached>, Error> {
        let request = wire::ChangePasswordRequest {
            current_password: current.to_owned(),
            new_password: new.to_owned(),
            keep_sessions,
        };
        let answer =
            self.connection.unary(path::CHANGE_PASSWORD, &self.identity, request, REVOCATION).await?;
        let answer: wire::ChangePasswordResponse = answer.message;
        Ok(answer.reached.map(Into::into))
    }
}

impl Owners {
    /// Adds an owner, or changes one. With a password it is the owner's from now on; its sessions end then, at every
    /// verifier. The password that the owner has already changes nothing.
    ///
    /// # Errors
    /// `FORBIDDEN` for who is no administrator, and for the last active one; `WEAK_PASSWORD` under 12 characters;
    /// `MISSING_FIELD` for a new owner without one; `CONFLICT`; `INVALID_FIELD`.
    pub async fn set(
        &self,
        owner_id: &str,
        password: Option<&str>,
        set: SetOwner,
    ) -> Result<OwnerSet, Error> {
        let request = wire::SetOwnerRequest {
            owner_id: owner_id.to_owned(),
            password: password.unwrap_or_default().to_owned(),
            display_name: set.display_name,
            roles: set.roles.map(|roles| wire::Roles { roles }),
            active: set.active,
            keep_sessions: set.keep_sessions,
            expected_version: set.expected_version.unwrap_or_default(),
            cancel_jobs: set.cancel_jobs,
        };
        let auth = &self.0;
        let answer = auth.connection.unary(path::SET_OWNER, &auth.identity, request, REVOCATION).await?;
        let answer: wire::SetOwnerResponse = answer.message;
        let (owner, reached) = (present(answer.owner)?, answer.reached.map(Into::into));
        Ok(OwnerSet { owner, created: answer.created, reached })
    }

    /// As [`Owners::set`], with a hash that was made elsewhere: `pbkdf2_sha256$iterations$salt$hash`, bcrypt, or
    /// argon2id in PHC form. At the first good sign-in it becomes argon2id. [`SetOwner::expected_version`] is not
    /// looked at.
    ///
    /// # Errors
    /// `INVALID_FIELD` for a hash that is not known there or costs too much; otherwise as [`Owners::set`].
    pub async fn import(
        &self,
        owner_id: &str,
        password_hash: &str,
        set: SetOwner,
    ) -> Result<OwnerSet, Error> {
        let request = wire::ImportOwnerRequest {
            owner_id: owner_id.to_owned(),
            password_hash: password_hash.to_owned(),
            display_name: set.display_name,
            roles: set.roles.map(|roles| wire::Roles { roles }),
            active: set.active,
            keep_sessions: set.keep_sessions,
        };
        let auth = &self.0;
        let answer = auth.connection.unary(path::IMPORT_OWNER, &auth.identity, request, REVOCATION).await?;
        let answer: wire::ImportOwnerResponse = answer.message;
        let (owner, reached) = (present(answer.owner)?, answer.reached.map(Into::into));
        Ok(OwnerSet { owner, created: answer.created, reached })
    }

    /// Reads one owner.
    ///
    /// # Errors
    /// `NOT_FOUND`, `FORBIDDEN`.
    pub async fn get(&self, owner_id: &str) -> Result<Owner, Error> {
        let request = wire::GetOwnerRequest { owner_id: owner_id.to_owned() };
        let auth = &self.0;
        let answer: wire::GetOwnerResponse =
            auth.connection.call(path::READ_OWNER, &auth.identity, request).await?;
        present(answer.owner)
    }

    /// All owners, by id. All pages, at most 50,000.
    ///
    /// # Errors
    /// `FORBIDDEN`.
    pub async fn list(&self) -> Result<Vec<Owner>, Error> {
        let (auth, mut owners, mut page_token) = (&self.0, Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let request = wire::ListOwnersRequest { page_size: PAGE, page_token };
            let page: wire::ListOwnersResponse =
                auth.connection.call(path::LIST_OWNERS, &auth.identity, request).await?;
            owners.extend(page.owners.into_iter().map(Owner::from));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(owners)
    }

    /// Removes an owner; its sessions have ended at every verifier when this returns, and the clients of its sessions at
    /// the gateways. The sessions themselves stay, for an administrator; their jobs go on, or are cancelled where
    /// `cancel_jobs` says so.
    ///
    /// # Errors
    /// `NOT_FOUND`; `FORBIDDEN`, also for the last active administrator.
    pub async fn remove(&self, owner_id: &str, cancel_jobs: bool) -> Result<Option<Reached>, Error> {
        let owner_id = owner_id.to_owned();
        let request = wire::RemoveOwnerRequest { owner_id, expected_version: 0, cancel_jobs };
        let auth = &self.0;
        let answer = auth.connection.unary(path::REMOVE_OWNER, &auth.identity, request, REVOCATION).await?;
        let answer: wire::RemoveOwnerResponse = answer.message;
        Ok(answer.reached.map(Into::into))
    }
}

fn present(owner: Option<wire::Owner>) -> Result<Owner, Error> {
    owner.map(Into::into).ok_or_else(|| Error::protocol("an answer without owner"))
}

impl From<wire::Owner> for Owner {
    fn from(o: wire::Owner) -> Self {
        Self {
            owner_id: o.owner_id,
            display_name: o.display_name,
            roles: o.roles,
            active: o.active,
            session_root: o.session_root,
            version: o.version,
            changed_at: from_wire(o.changed_at),
        }
    }
}
