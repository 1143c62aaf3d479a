//! Who the bearer is: for anyone ([`SessionStatus`]), and for a verified principal ([`WhoAmI`]).

use interlock_kit::clock::Timestamp;
use interlock_proto::credential::Hash;

use crate::{
    caller::Proof,
    ids::OwnerId,
    policy,
    role_token::Role,
    store::{Query, Stop, View},
    trust::{self, Validation},
};

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
            Proof::ProjectToken { project, .. } => view.project(project)?.map(|p| p.name.to_string()),
            Proof::RoleToken { .. } | Proof::OwnerSession { .. } => None,
        };
        Ok(KnownAs { display_name, project_name })
    }
}
