//! Sign out: any credential of an owner session ends it, at once and for good.

use interlock_kit::store::audit::Outcome;
use interlock_proto::credential::{Hash, Kind};

use super::end;
use crate::{
    ids::OwnerSessionId,
    policy,
    store::{Stop, Tx, Verb},
};

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
    const REVOKES: bool = true;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Stop> {
        let found = match self.kind {
            Kind::Owner => tx.access(&self.presented)?.map(|a| (a.id, a.session)),
            Kind::Refresh => tx.refresh_token(&self.presented)?.map(|r| (r.id, r.session)),
            Kind::Admin | Kind::User | Kind::Project | Kind::Client | Kind::Internal => {
                return Err(policy::of_another_kind().into());
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
