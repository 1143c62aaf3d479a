//! Project tokens: credentials of one project, with scopes (DESIGN 5, 14.2).
//!
//! A token acts for its issuer in its project and nowhere else. It ends by its own expiry (`TOKEN_EXPIRED`), or it is
//! ended: revoked, replaced, or with its issuer, who was deactivated or removed, has another password, or is no
//! longer a member (`PROVIDER_AUTH_FAILED`). The last are not written down here: `principal` asks the rows of
//! the issuer and its membership, so that nothing that ends them can forget the tokens. What ended once stays so:
//! an issuer who comes back, or joins again, has a larger number than its old tokens.
//!
//! Members and administrators issue, see and revoke the tokens of a project. Only its issuer rotates one: the
//! answer is a credential that acts as that issuer.

use std::time::Duration;

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
};
use interlock_proto::{credential::Hash, policy::Policies, text};

use crate::{
    caller::{Principal, Proof},
    ids::{CredentialId, OwnerId, ProjectId, RequestId},
    limits,
    policy::{self, Act, ProjectPermit},
    role_token::Role,
    store::{Query, Stop, Tx, View},
};

mod issue;
mod revoke;
mod rotate;

pub use issue::{IssueToken, Issued};
pub use revoke::RevokeToken;
pub use rotate::RotateToken;

/// A stored project token; never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectToken {
    /// SHA-256 of its text.
    pub hash: Hash,
    /// Its public handle.
    pub id: CredentialId,
    /// Where it is good.
    pub project: ProjectId,
    /// Whom it acts for.
    pub issuer: OwnerId,
    /// For people; may be empty.
    pub label: String,
    /// What it is good for: 1 or more of the scopes that methods ask for, sorted.
    pub scopes: Vec<String>,
    /// The agents whose jobs its workers get, sorted; empty: all that its issuer may serve.
    pub agents: Vec<String>,
    /// Its issuer was no member, but an administrator: then the version of the issuer's account, 0 for built-in
    /// ones. Such a token ends with the next change of that account, whatever it is.
    pub by_role: Option<u64>,
    /// Later tokens have larger numbers.
    pub issuance: u64,
    /// Its first and last four characters.
    pub masked: String,
    /// When it was issued.
    pub created_at: Timestamp,
    /// When it ends by itself: its expiry, or the end of the grace of one that was replaced.
    pub expires_at: Option<Timestamp>,
    /// Another one has taken its place.
    pub replaced: bool,
    /// It was revoked, or replaced without grace.
    pub ended: Option<Ended>,
}

/// The end that a token was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// Its row in the revocation log: the barrier that a repeated revocation waits for again.
    pub revocation: u64,
}

impl ProjectToken {
    /// Whether it has ended by itself.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end.is_over(now))
    }

    /// Whether nobody has to be told any more why it ended.
    #[must_use]
    pub fn is_clearable(&self, now: Timestamp) -> bool {
        let before = now.before(limits::ENDED_KEPT);
        self.ended.is_some_and(|ended| ended.at.is_over(before)) || self.is_expired(before)
    }
}

/// What a token is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    label: String,
    scopes: Vec<String>,
    agents: Vec<String>,
    ttl: Option<Duration>,
}

impl Grant {
    /// Bounds what was asked for.
    ///
    /// # Errors
    /// `MISSING_FIELD` without a scope; `INVALID_FIELD` for a scope that no method asks for, an agent that is no
    /// name or without `jobs:work`, too many of either, a label that does not show, a span out of bounds.
    pub fn new(
        label: &str,
        mut scopes: Vec<String>,
        mut agents: Vec<String>,
        ttl: Option<Duration>,
    ) -> Result<Self, Error> {
        if !label.is_empty() && !text::is_label(label, text::NAME_BYTES_MAX) {
            return Err(Error::invalid_field(
                "label",
                "at most 64 bytes that all show, without blanks at the ends",
            ));
        }
        if scopes.is_empty() {
            return Err(Error::missing_field("scopes"));
        }
        bounded("scopes", &scopes, limits::TOKEN_SCOPES_MAX, "a scope that methods ask for", is_scope)?;
        bounded("agent_ids", &agents, limits::TOKEN_AGENTS_MAX, "the id of an agent", text::is_name)?;
        if !agents.is_empty() && !scopes.iter().any(|scope| scope == WORK) {
            return Err(Error::invalid_field("agent_ids", "only with the scope jobs:work"));
        }
        if ttl.is_some_and(|ttl| !limits::PROJECT_TOKEN_TTL.allows(ttl)) {
            return Err(Error::invalid_field("ttl", "1 s to 366 days"));
        }
        for list in [&mut scopes, &mut agents] {
            list.sort();
            list.dedup();
        }
        Ok(Self { label: label.to_owned(), scopes, agents, ttl })
    }
}

/// Refuses too long a list by its name, and the first item that is not what it should be by its place.
fn bounded(
    field: &str,
    items: &[String],
    most: usize,
    each: &'static str,
    is: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    if items.len() > most {
        return Err(Error::invalid_field(field, format!("at most {most}")));
    }
    match items.iter().position(|item| !is(item)) {
        Some(at) => Err(Error::invalid_field(format!("{field}[{at}]"), each)),
        None => Ok(()),
    }
}

/// What lets a worker work.
const WORK: &str = "jobs:work";

/// Whether any method asks for this scope.
fn is_scope(scope: &str) -> bool {
    Policies::all().iter().any(|policy| policy.scopes.iter().any(|asked| asked == scope))
}

/// The stored answer to a request that made a token. The secret in it is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAnswer {
    /// Who asked.
    pub owner: OwnerId,
    /// By which id.
    pub request: RequestId,
    /// With which credential.
    pub credential: CredentialId,
    /// What was asked, so that another request under the same id is told apart.
    pub asked: String,
    /// Sealed by the shell.
    pub sealed: Vec<u8>,
    /// The token that was made.
    pub token: CredentialId,
    /// The row of the revocation log for the one it replaced; 0 if none.
    pub revocation: u64,
    /// Until when it is given again.
    pub ends_at: Timestamp,
}

/// A page of a project's tokens, oldest first, those that have ended within a day included.
#[derive(Clone, Debug)]
pub struct ListTokens {
    /// Where.
    pub project: ProjectId,
    /// Those with a larger issuance number.
    pub after: u64,
    /// At most so many; 0 means [`limits::PAGE_DEFAULT`].
    pub limit: u32,
}

/// Such a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPage {
    /// Oldest first.
    pub tokens: Vec<ProjectToken>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<u64>,
    /// For what the row says of itself.
    pub now: Timestamp,
}

impl Query for ListTokens {
    type Out = TokenPage;

    fn run(&self, view: &mut View<'_>) -> Result<TokenPage, Stop> {
        view.about("", &self.project);
        let (member, exists) = view.own_membership(&self.project)?;
        let permit = view.authorize_project(Act::ListTokens { member }, &self.project)?;
        if !exists {
            return Err(no_project());
        }
        let limit = if self.limit == 0 { limits::PAGE_DEFAULT } else { self.limit.min(limits::PAGE_MAX) };
        let mut tokens = view.project_tokens(&permit, &self.project, self.after, limit + 1)?;
        let more = tokens.len() > limit as usize;
        tokens.truncate(limit as usize);
        let next = tokens.last().filter(|_| more).map(|last| last.issuance);
        Ok(TokenPage { tokens, next, now: view.now() })
    }
}

/// Whom a project token proves. `None` where it was ended, or its issuer was, or may no longer enter the project.
pub(crate) fn principal(view: &View<'_>, token: &ProjectToken) -> Result<Option<Principal>, Stop> {
    if token.ended.is_some() || view.project(&token.project)?.is_none() {
        return Ok(None);
    }
    let standing = view.standing(&token.issuer)?;
    // Built-in owners have no row, and no end.
    let (version, from) = view.owner(&token.issuer)?.map_or((0, 0), |o| (o.version, o.sessions_from));
    let enters = match token.by_role {
        Some(issued_at) => standing.administrator && version == issued_at,
        None => view.member_since(&token.project, &token.issuer)?.is_some_and(|since| since < token.issuance),
    };
    if !standing.active || token.issuance < from || !enters {
        return Ok(None);
    }
    Ok(Some(Principal {
        proof: Proof::ProjectToken {
            project: token.project.clone(),
            scopes: token.scopes.clone(),
            agents: token.agents.clone(),
        },
        credential_id: token.id.clone(),
        owner_id: token.issuer.clone(),
        // Never an administrator, whoever issued it.
        role: Role::User,
        roles: Vec::new(),
        session_root: false,
        issuance: token.issuance,
        expires_at: token.expires_at,
        elevated_until: None,
        elevated_for: None,
    }))
}

/// The permit for an act on a token of a project: project first, then the token.
fn permitted(
    tx: &mut Tx<'_>,
    project: &ProjectId,
    token: &CredentialId,
    act: impl Fn(bool, Option<&ProjectToken>) -> Act,
) -> Result<(ProjectPermit, ProjectToken), Stop> {
    tx.concerning(token.as_str());
    tx.within(project.as_str());
    let (member, exists) = tx.own_membership(project)?;
    let found = tx.project_token_named(token)?.filter(|token| token.project == *project);
    let permit = tx.authorize_project(act(member, found.as_ref()), project)?;
    if !exists {
        return Err(no_project());
    }
    let token = found.ok_or_else(|| Error::new(Reason::NotFound, "this project has no such token"))?;
    Ok((permit, token))
}

/// Only administrators come to hear this: to them its absence is no secret.
fn no_project() -> Stop {
    Error::new(Reason::NotFound, "no such project").into()
}

/// The answer that a request got before, if it is the same request.
fn first_answer(tx: &Tx<'_>, request: &RequestId, asked: &str) -> Result<(Option<TokenAnswer>, bool), Stop> {
    let caller = tx.call().caller.principal().ok_or_else(policy::login_required)?;
    let stored = tx.token_answer(&caller.owner_id, request)?;
    let replaces = stored.is_some();
    let Some(first) = stored.filter(|answer| !answer.ends_at.is_over(tx.now())) else {
        return Ok((None, replaces));
    };
    // Sealed under another credential: nobody could open it for this one.
    if first.asked != asked || first.credential != caller.credential_id {
        let text = "this request id was used for something else, or with another credential";
        return Err(Error::new(Reason::RequestIdReused, text).into());
    }
    Ok((Some(first), replaces))
}

/// What a repeated request is told.
fn again(tx: &Tx<'_>, first: TokenAnswer) -> Result<Issued, Stop> {
    let token = tx.project_token_named(&first.token)?;
    let token = token.ok_or_else(|| Error::new(Reason::NotFound, "that token is kept no longer"))?;
    Ok(Issued { sealed: first.sealed, token, revocation: first.revocation, in_grace: false, repeated: true })
}
