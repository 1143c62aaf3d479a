//! Owner sessions: sign in, refresh, sign out.
//!
//! An owner session is a chain of refresh tokens, each with at most one successor (I9), and the access
//! tokens that were issued beside them. An access token that was issued stays valid until its own end,
//! also after a refresh: calls in flight do not fail because their program has just refreshed. No
//! credential outlives the session's absolute end.
//!
//! # Refresh
//!
//! A refresh token is *fresh* until it is first presented; the answer to that presentation is sealed by
//! the shell under the presented token and stored. For [`limits::REFRESH_WINDOW`] the token is *used*:
//! whoever presents it gets that same answer. When the window is over, or as soon as the successor is
//! presented, the sealed answer is of no use any more and the token is *spent*: presenting it again is a
//! replay, which ends the whole session and is audited (DESIGN 5 and 14.13).

use std::time::Duration;

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::audit::Outcome,
};
use interlock_proto::credential::{Hash, Kind};

use crate::{
    ids::{CredentialId, OwnerId, OwnerSessionId},
    limits,
    owner::Owner,
    password::PasswordHash,
    policy::{self, OwnerSessionPermit},
    revocation::Subject,
    role_token::Role,
    store::{Query, Stop, Tx, Verb, View},
    trust::{self, NewCredential, Validation},
};

/// An owner's signed-in period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerSession {
    /// Its name.
    pub id: OwnerSessionId,
    /// Whose.
    pub owner: OwnerId,
    /// The issuance number of its first credential.
    pub issuance: u64,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ends, whatever is refreshed.
    pub expires_at: Timestamp,
    /// When it was ended before that.
    pub ended_at: Option<Timestamp>,
    /// How often it was refreshed.
    pub refreshes: u32,
}

impl OwnerSession {
    /// Whether it was ended: by itself, or with all of its owner's.
    #[must_use]
    pub fn is_ended(&self, owner: &Owner) -> bool {
        self.ended_at.is_some() || self.issuance < owner.sessions_from || !owner.active
    }

    /// Whether it may be forgotten: it was ended, or has been over for so long that nobody is told so.
    pub(crate) fn is_clearable(&self, owner: &Owner, now: Timestamp) -> bool {
        self.is_ended(owner) || self.expires_at.after(limits::ENDED_KEPT).is_over(now)
    }
}

/// One access token, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// SHA-256 of the token.
    pub hash: Hash,
    /// Its public handle.
    pub id: CredentialId,
    /// Of which owner session.
    pub session: OwnerSessionId,
    /// Grows with each credential of this service.
    pub issuance: u64,
    /// When it ends; never after its session.
    pub expires_at: Timestamp,
}

impl Access {
    /// Whether it has been over for so long that nobody is told so any more.
    pub(crate) fn is_clearable(&self, now: Timestamp) -> bool {
        self.expires_at.after(limits::ENDED_KEPT).is_over(now)
    }
}

/// One refresh token, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    /// SHA-256 of the token.
    pub hash: Hash,
    /// Its public handle.
    pub id: CredentialId,
    /// Of which owner session.
    pub session: OwnerSessionId,
    /// Grows with each credential of this service.
    pub issuance: u64,
    /// Whose successor it is; `None` for the first.
    pub predecessor: Option<Hash>,
    /// How far it is used up.
    pub state: RefreshState,
}

/// How far a refresh token is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshState {
    /// Not presented yet.
    Fresh,
    /// Presented; the same answer is given again until the window is over.
    Used(Successor),
    /// The window is over, or the successor was presented.
    Spent,
}

/// The stored answer to a refresh. The secrets in it are sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// When the token was first presented.
    pub at: Timestamp,
    /// Both new credentials, sealed under the presented one.
    pub sealed: Vec<u8>,
    /// When the new access token ends.
    pub access_expires_at: Timestamp,
}

impl Successor {
    /// When the answer is no longer given.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        self.at.after(limits::REFRESH_WINDOW)
    }
}

/// Begins an owner session. The password was checked against [`crate::owner::ReadForLogin`]'s answer,
/// outside; that the owner has not changed since is checked here.
#[derive(Clone, Debug)]
pub struct Login {
    /// Who.
    pub owner: OwnerId,
    /// The version whose password was verified.
    pub version: u64,
    /// The new session.
    pub session: OwnerSessionId,
    /// Its access token.
    pub access: NewCredential,
    /// Its refresh token.
    pub refresh: NewCredential,
    /// How long the access token lives.
    pub access_ttl: Duration,
    /// How long the session lives.
    pub session_ttl: Duration,
    /// The same password hashed as we do it, where the stored hash was an imported one.
    pub rehashed: Option<PasswordHash>,
}

/// A new owner session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// The session.
    pub session: OwnerSessionId,
    /// Who.
    pub owner: OwnerId,
    /// The name to show.
    pub display_name: String,
    /// As on the wire.
    pub role: Role,
    /// When the access token ends.
    pub access_expires_at: Timestamp,
    /// When the session ends.
    pub expires_at: Timestamp,
}

impl Verb for Login {
    type Out = SignedIn;

    fn run(&self, tx: &mut Tx<'_>) -> Result<SignedIn, Stop> {
        tx.attribute(self.owner.as_str(), "");
        let owner = tx.owner(&self.owner)?;
        let (owner, permit) = policy::sign_in(owner, self.version, &self.session)?;
        tx.attribute(owner.id.as_str(), owner.role().text());
        if tx.living_sessions(&owner)? >= limits::OWNER_SESSIONS_MAX {
            return Err(Error::new(Reason::LimitReached, "too many owner sessions; sign some out").into());
        }
        let expires_at = tx.now().after(self.session_ttl);
        let access_expires_at = tx.now().after(self.access_ttl).min(expires_at);
        let issuance = store_access(tx, &permit, &self.session, &self.access, access_expires_at)?;
        store_refresh(tx, &permit, &self.session, &self.refresh, None)?;
        let session = OwnerSession {
            id: self.session.clone(),
            owner: owner.id.clone(),
            issuance,
            created_at: tx.now(),
            expires_at,
            ended_at: None,
            refreshes: 0,
        };
        tx.insert_owner_session(&permit, session);
        if let Some(hash) = &self.rehashed {
            tx.rehash(&permit, &owner, hash.clone());
        }
        tx.concerning(self.session.as_str());
        tx.audit(Outcome::Done, "");
        let role = owner.role();
        let Owner { id, display_name, .. } = owner;
        Ok(SignedIn {
            session: self.session.clone(),
            owner: id,
            display_name,
            role,
            access_expires_at,
            expires_at,
        })
    }
}

/// Records that a sign-in was refused: unknown owner, wrong password and inactive owner alike. Always
/// answers `INVALID_CREDENTIALS`.
#[derive(Clone, Debug)]
pub struct RefuseLogin {
    /// Whom the caller claimed to be.
    pub claimed: OwnerId,
}

impl Verb for RefuseLogin {
    type Out = ();

    fn run(&self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        tx.attribute(self.claimed.as_str(), "");
        tx.concerning(self.claimed.as_str());
        Err(policy::wrong_credentials().into())
    }
}

/// Trades a refresh token for its successor.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// SHA-256 of the presented token.
    pub presented: Hash,
    /// The next access token.
    pub access: NewCredential,
    /// The next refresh token.
    pub refresh: NewCredential,
    /// Both, sealed by the shell under the presented token.
    pub sealed: Vec<u8>,
    /// How long the access token lives.
    pub access_ttl: Duration,
}

/// What a refresh did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// Open the answer with the presented token; it may be that of an earlier call.
    Issued(Successors),
    /// A replay: the session has been ended. Wait for this row of the revocation log, then answer
    /// `INVALID_CREDENTIALS`; the audit row is written.
    Replayed {
        /// Which owner session was ended.
        session: OwnerSessionId,
        /// Its row.
        revocation: u64,
    },
}

/// The answer to a refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successors {
    /// Which owner session.
    pub session: OwnerSessionId,
    /// Both credentials, sealed under the presented token.
    pub sealed: Vec<u8>,
    /// When the access token ends.
    pub access_expires_at: Timestamp,
    /// When the session ends.
    pub expires_at: Timestamp,
}

impl Verb for Refresh {
    type Out = Refreshed;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Refreshed, Stop> {
        let token = tx.refresh_token(&self.presented)?.ok_or_else(policy::wrong_credentials)?;
        let (session, owner) = tx.session_and_owner(&token.session)?.ok_or_else(policy::wrong_credentials)?;
        tx.attribute(owner.id.as_str(), owner.role().text());
        tx.present(&token.id);
        tx.concerning(session.id.as_str());
        let permit = policy::go_on(&session, &owner, tx.now())?;
        match &token.state {
            RefreshState::Fresh => self.first(tx, &permit, &token, session),
            RefreshState::Used(answer) if !answer.ends_at().is_over(tx.now()) => {
                Ok(Refreshed::Issued(Successors {
                    session: session.id,
                    sealed: answer.sealed.clone(),
                    access_expires_at: answer.access_expires_at,
                    expires_at: session.expires_at,
                }))
            }
            RefreshState::Used(_) | RefreshState::Spent => replayed(tx, &permit, session),
        }
    }
}

impl Refresh {
    fn first(
        &self,
        tx: &mut Tx<'_>,
        permit: &OwnerSessionPermit,
        token: &RefreshToken,
        session: OwnerSession,
    ) -> Result<Refreshed, Stop> {
        if session.refreshes >= limits::REFRESHES_MAX {
            return Err(Error::new(Reason::LimitReached, "refreshed too often; sign in again").into());
        }
        let before = match &token.predecessor {
            Some(hash) => tx.refresh_token(hash)?,
            None => None,
        };
        if let Some(before) = before.filter(|t| matches!(t.state, RefreshState::Used(_))) {
            tx.spend_refresh(permit, &before);
        }
        let access_expires_at = tx.now().after(self.access_ttl).min(session.expires_at);
        store_access(tx, permit, &session.id, &self.access, access_expires_at)?;
        store_refresh(tx, permit, &session.id, &self.refresh, Some(token.hash))?;
        let answer = Successor { at: tx.now(), sealed: self.sealed.clone(), access_expires_at };
        tx.use_refresh(permit, token, answer);
        tx.count_refresh(permit, &session);
        tx.audit(Outcome::Done, "");
        Ok(Refreshed::Issued(Successors {
            expires_at: session.expires_at,
            session: session.id,
            sealed: self.sealed.clone(),
            access_expires_at,
        }))
    }
}

/// Ends the family. The call is refused, and this is its one effect (I9, I12).
fn replayed(tx: &mut Tx<'_>, permit: &OwnerSessionPermit, session: OwnerSession) -> Result<Refreshed, Stop> {
    let revocation = end(tx, permit, &session)?;
    tx.audit(Outcome::Refused(Reason::InvalidCredentials), r#"{"replayed":true,"session":"ended"}"#);
    Ok(Refreshed::Replayed { session: session.id, revocation })
}

/// Ends the owner session of an access or refresh token. Repeating it is no error.
#[derive(Clone, Debug)]
pub struct Logout {
    /// What kind of credential was presented.
    pub kind: Kind,
    /// Its SHA-256.
    pub presented: Hash,
}

/// What a logout ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedOut {
    /// Which owner session.
    pub session: OwnerSessionId,
    /// Its row in the revocation log: the barrier to wait for.
    pub revocation: u64,
}

impl Verb for Logout {
    /// `None`: the session had ended before, or the credential is not known any more.
    type Out = Option<LoggedOut>;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Stop> {
        let found = match self.kind {
            Kind::Owner => tx.access(&self.presented)?.map(|a| (a.id, a.session)),
            Kind::Refresh => tx.refresh_token(&self.presented)?.map(|r| (r.id, r.session)),
            Kind::Admin | Kind::User | Kind::Project | Kind::Client | Kind::Internal => {
                return Err(
                    Error::new(Reason::LoginRequired, "this credential is not of an owner session").into()
                );
            }
        };
        let Some((credential, session)) = found else { return Ok(None) };
        let Some((session, owner)) = tx.session_and_owner(&session)? else { return Ok(None) };
        tx.attribute(owner.id.as_str(), owner.role().text());
        tx.present(&credential);
        tx.concerning(session.id.as_str());
        if session.is_ended(&owner) || session.expires_at.is_over(tx.now()) {
            return Ok(None);
        }
        let permit = policy::end_own(&session);
        let revocation = end(tx, &permit, &session)?;
        tx.audit(Outcome::Done, "");
        Ok(Some(LoggedOut { session: session.id, revocation }))
    }
}

/// Who the bearer is, for anyone.
#[derive(Clone, Debug)]
pub struct SessionStatus {
    /// SHA-256 of the presented access token, if one was presented.
    pub presented: Option<Hash>,
}

/// The answer to [`SessionStatus`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusOfSession {
    /// Whether any owner can sign in.
    pub enabled: bool,
    /// The living owner session, if it is one.
    pub signed_in: Option<SignedInAs>,
}

/// Who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedInAs {
    /// The owner.
    pub owner: OwnerId,
    /// The name to show.
    pub display_name: String,
    /// As on the wire.
    pub role: Role,
    /// When the owner session ends.
    pub expires_at: Timestamp,
}

impl Query for SessionStatus {
    type Out = StatusOfSession;

    fn run(&self, view: &mut View<'_>) -> Result<StatusOfSession, Stop> {
        let enabled = view.any_active_owner()?;
        let signed_in = match &self.presented {
            Some(hash) => signed_in(view, hash)?,
            None => None,
        };
        Ok(StatusOfSession { enabled, signed_in })
    }
}

fn signed_in(view: &View<'_>, hash: &Hash) -> Result<Option<SignedInAs>, Stop> {
    let Some(access) = view.access(hash)? else { return Ok(None) };
    if !matches!(trust::verdict(view, hash)?, Validation::Valid(_)) {
        return Ok(None);
    }
    let found = view.session_and_owner(&access.session)?;
    Ok(found.map(|(session, owner)| SignedInAs {
        role: owner.role(),
        owner: owner.id,
        display_name: owner.display_name,
        expires_at: session.expires_at,
    }))
}

/// What a caller is known as beyond its principal.
#[derive(Clone, Copy, Debug)]
pub struct WhoAmI;

/// The answer to [`WhoAmI`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAs {
    /// The name to show.
    pub display_name: String,
    /// The name of the project that the credential is scoped to, if it is.
    pub project_name: Option<String>,
}

impl Query for WhoAmI {
    type Out = KnownAs;

    fn run(&self, view: &mut View<'_>) -> Result<KnownAs, Stop> {
        view.authorize(policy::Act::KnowOneself)?;
        let principal = view.call().caller.principal().ok_or_else(policy::login_required)?.clone();
        let owner = view.owner(&principal.owner_id)?;
        let display_name = owner.map_or_else(|| principal.owner_id.to_string(), |o| o.display_name);
        let project_name = match &principal.proof {
            crate::caller::Proof::ProjectToken { project, .. } => {
                view.project(project)?.map(|p| p.name.to_string())
            }
            crate::caller::Proof::RoleToken { .. } | crate::caller::Proof::OwnerSession { .. } => None,
        };
        Ok(KnownAs { display_name, project_name })
    }
}

fn end(tx: &mut Tx<'_>, permit: &OwnerSessionPermit, session: &OwnerSession) -> Result<u64, Stop> {
    let revocation = tx.revoke(Subject::OwnerSession(session.id.clone()))?;
    tx.end_owner_session(permit, session);
    Ok(revocation.sequence)
}

fn store_access(
    tx: &mut Tx<'_>,
    permit: &OwnerSessionPermit,
    session: &OwnerSessionId,
    new: &NewCredential,
    expires_at: Timestamp,
) -> Result<u64, Stop> {
    assert!(new.kind == Kind::Owner, "an access token of another kind");
    let issuance = tx.issue()?;
    let access =
        Access { hash: new.hash, id: new.id.clone(), session: session.clone(), issuance, expires_at };
    tx.insert_access(permit, access);
    Ok(issuance)
}

fn store_refresh(
    tx: &mut Tx<'_>,
    permit: &OwnerSessionPermit,
    session: &OwnerSessionId,
    new: &NewCredential,
    predecessor: Option<Hash>,
) -> Result<(), Stop> {
    assert!(new.kind == Kind::Refresh, "a refresh token of another kind");
    let issuance = tx.issue()?;
    let token = RefreshToken {
        hash: new.hash,
        id: new.id.clone(),
        session: session.clone(),
        issuance,
        predecessor,
        state: RefreshState::Fresh,
    };
    tx.insert_refresh(permit, token);
    Ok(())
}
