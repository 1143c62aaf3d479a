//! Elevation: root unlock of one owner session.
//!
//! An elevation is a part of its owner session's row, so that it ends with that whatever else happens. It stands on
//! one root secret, by its fingerprint, and where the unlock came over a connection with a client certificate, on
//! that certificate. Each change is a row of the revocation log: verifiers ask again, and streams that were opened on
//! it are closed.

use std::time::Duration;

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::audit::Outcome,
};
use interlock_proto::credential::Hash;

use crate::{
    caller::{Caller, Proof},
    ids::OwnerSessionId,
    limits,
    owner::Owner,
    owner_session::OwnerSession,
    policy::{self, Act, SweepPermit},
    revocation::Subject,
    root::RootFingerprint,
    store::{Query, Stop, Tx, Verb, View},
    trust::{self, Validation},
};

/// That root is unlocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elevation {
    /// Until when; never past the end of its owner session.
    pub until: Timestamp,
    /// Which root secret was the proof.
    pub root: RootFingerprint,
    /// SHA-256 of the client certificate that it is bound to, where the unlock showed one.
    pub certificate: Option<[u8; 32]>,
}

impl Elevation {
    /// Whether it holds at `now`, where `root` is the secret that is configured.
    #[must_use]
    pub fn holds(&self, root: Option<RootFingerprint>, now: Timestamp) -> bool {
        root == Some(self.root) && !self.until.is_over(now)
    }
}

/// Unlocks root. The password was verified outside; that the root secret is still the same is checked here.
#[derive(Clone, Debug)]
pub struct Unlock {
    /// The secret that the given password is; `None` where it is none.
    pub verified: Option<RootFingerprint>,
    /// For how long, within [`limits::ROOT_TTL`].
    pub ttl: Duration,
    /// The certificate of the connection.
    pub certificate: Option<[u8; 32]>,
}

/// Root is unlocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unlocked {
    /// Until when.
    pub until: Timestamp,
    /// The row of the revocation log: the barrier to wait for.
    pub revocation: u64,
}

impl Verb for Unlock {
    type Out = Unlocked;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Unlocked, Stop> {
        let id = own_session(&tx.call().caller)?;
        tx.concerning(id.as_str());
        if !limits::ROOT_TTL.allows(self.ttl) {
            return Err(Error::invalid_field("ttl", "1 min to 1 h").into());
        }
        let root = tx.root().ok_or_else(policy::root_disabled)?;
        let verified = self.verified.ok_or_else(policy::wrong_credentials)?;
        if verified != root {
            return Err(Error::new(Reason::Conflict, "the root password has changed meanwhile").into());
        }
        let (session, owner) = living(tx, &id)?;
        let permit = policy::go_on(&session, &owner, tx.now())?;
        let until = tx.now().after(self.ttl).min(session.expires_at);
        let elevation = Elevation { until, root, certificate: self.certificate };
        let revocation = tx.revoke(Subject::OwnerSession(id))?.sequence;
        tx.set_elevation(&permit, &session, Some(elevation));
        tx.audit(Outcome::Done, format!(r#"{{"until":"{until}"}}"#));
        Ok(Unlocked { until, revocation })
    }
}

/// Locks root. Repeating it is no error.
#[derive(Clone, Copy, Debug)]
pub struct Lock;

impl Verb for Lock {
    /// The row of the revocation log; `None` where root was not unlocked.
    type Out = Option<u64>;
    const REVOKES: bool = true;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Option<u64>, Stop> {
        let id = own_session(&tx.call().caller)?;
        tx.concerning(id.as_str());
        let (session, _) = living(tx, &id)?;
        // One that is over is left to the sweep, which says so in the audit.
        if !session.elevation.is_some_and(|elevation| elevation.holds(tx.root(), tx.now())) {
            return Ok(None);
        }
        let permit = policy::end_own(&session);
        let revocation = tx.revoke(Subject::OwnerSession(id))?.sequence;
        tx.set_elevation(&permit, &session, None);
        tx.audit(Outcome::Done, "");
        Ok(Some(revocation))
    }
}

/// Which owner session asks.
fn own_session(caller: &Caller) -> Result<OwnerSessionId, Error> {
    match caller.principal().map(|principal| &principal.proof) {
        Some(Proof::OwnerSession { session }) => Ok(session.clone()),
        Some(Proof::RoleToken { .. } | Proof::ProjectToken { .. }) => Err(policy::of_another_kind()),
        None => Err(policy::login_required()),
    }
}

/// The owner session, if it has not ended since gate 1.
fn living(tx: &Tx<'_>, id: &OwnerSessionId) -> Result<(OwnerSession, Owner), Stop> {
    let found = tx.session_and_owner(id)?.filter(|(session, owner)| !session.is_ended(owner));
    found.ok_or_else(|| policy::login_required().into())
}

/// Why an elevation ends that nobody locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its time is over.
    Lapsed,
    /// It stands on another root secret than the one that is configured: it was changed, or the service has its
    /// store to itself and has started.
    Secret,
}

/// Ends one elevation, if it still is as [`Why`] says. By the host only.
#[derive(Clone, Debug)]
pub struct EndElevation {
    /// Of which owner session.
    pub session: OwnerSessionId,
    /// Why.
    pub why: Why,
}

impl Verb for EndElevation {
    /// Whether it was ended.
    type Out = bool;
    const REVOKES: bool = true;

    fn run(&self, tx: &mut Tx<'_>) -> Result<bool, Stop> {
        let permit = tx.authorize_sweep()?;
        end(tx, &permit, &self.session, self.why)
    }
}

/// Ends one, and says so under its owner's name.
pub(crate) fn end(
    tx: &mut Tx<'_>,
    permit: &SweepPermit,
    id: &OwnerSessionId,
    why: Why,
) -> Result<bool, Stop> {
    let Some((session, owner)) = tx.session_and_owner(id)? else { return Ok(false) };
    let Some(elevation) = session.elevation else { return Ok(false) };
    let still = match why {
        Why::Lapsed => elevation.until.is_over(tx.now()),
        Why::Secret => tx.root() != Some(elevation.root),
    };
    if !still {
        return Ok(false);
    }
    tx.attribute(owner.id.as_str(), owner.role().text());
    tx.concerning(id.as_str());
    tx.revoke(Subject::OwnerSession(id.clone()))?;
    tx.drop_elevation(permit, &session);
    tx.audit(
        Outcome::Done,
        match why {
            Why::Lapsed => r#"{"why":"lapsed"}"#,
            Why::Secret => r#"{"why":"another root secret, or a start"}"#,
        },
    );
    Ok(true)
}

/// Elevations that stand on another root secret than the one that is configured, at most [`limits::SWEEP_MAX`] of them.
/// By the host only.
#[derive(Clone, Copy, Debug)]
pub struct OnAnotherSecret;

impl Query for OnAnotherSecret {
    type Out = Vec<OwnerSessionId>;

    fn run(&self, view: &mut View<'_>) -> Result<Self::Out, Stop> {
        view.authorize(Act::Sweep)?;
        view.elevated_but_for(view.root(), limits::SWEEP_MAX)
    }
}

/// The salt that programs on one store hash the root password with. By the host only.
#[derive(Clone, Copy, Debug)]
pub struct RootSalt;

impl Query for RootSalt {
    type Out = [u8; 16];

    fn run(&self, view: &mut View<'_>) -> Result<Self::Out, Stop> {
        view.authorize(Act::Sweep)?;
        view.root_salt()
    }
}

/// How it stands with root, for anyone.
#[derive(Clone, Debug)]
pub struct ElevationStatus {
    /// SHA-256 of the presented access token, if one was presented.
    pub presented: Option<Hash>,
    /// The certificate of the connection.
    pub certificate: Option<[u8; 32]>,
}

/// The answer to [`ElevationStatus`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusOfElevation {
    /// A root password is configured.
    pub enabled: bool,
    /// Until when the owner session has unlocked root, if it has.
    pub until: Option<Timestamp>,
    /// The owner's roles meet the root condition by themselves.
    pub session_root: bool,
}

impl Query for ElevationStatus {
    type Out = StatusOfElevation;

    fn run(&self, view: &mut View<'_>) -> Result<StatusOfElevation, Stop> {
        let nobody = StatusOfElevation { enabled: view.root().is_some(), ..StatusOfElevation::default() };
        let Some(hash) = &self.presented else { return Ok(nobody) };
        let Validation::Valid(verdict) = trust::verdict(view, hash)? else { return Ok(nobody) };
        let principal = &verdict.principal;
        if !matches!(principal.proof, Proof::OwnerSession { .. }) {
            return Ok(nobody);
        }
        let until = principal.elevation_on(self.certificate).filter(|until| !until.is_over(view.now()));
        Ok(StatusOfElevation { until, session_root: principal.session_root, ..nobody })
    }
}
