//! Project tokens and members: what members and administrators of a project do with them.

use std::time::{Duration, SystemTime};

use interlock_proto::{auth::v1 as wire, credential::Credential};

use crate::{
    auth::{Auth, PAGE, PAGES_MAX, REVOCATION, Reached, token},
    clock::from_wire,
    error::Error,
    path, random,
};

/// What a new project token is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenGrant {
    /// For people; may be empty. At most 64 bytes.
    pub label: String,
    /// 1 or more of `sessions:read`, `sessions:write`, `jobs:submit`, `jobs:read`, `jobs:work`.
    pub scopes: Vec<String>,
    /// With `jobs:work`: the agents that its workers may serve; empty: all that the issuer may.
    pub agent_ids: Vec<String>,
    /// How long it lives, 1 s to 366 days; `None`: until it is ended.
    pub ttl: Option<Duration>,
}

/// A project token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectToken {
    /// Its public handle, `crd_…`.
    pub token_id: String,
    /// Where it is good.
    pub project_id: String,
    /// Whom it acts for.
    pub issuer_id: String,
    /// For people.
    pub label: String,
    /// What it is good for.
    pub scopes: Vec<String>,
    /// The agents that its workers may serve; empty: all that its issuer may.
    pub agent_ids: Vec<String>,
    /// Its first and last four characters.
    pub masked: String,
    /// When it was issued.
    pub created_at: Option<SystemTime>,
    /// When it ends by itself, if it does.
    pub expires_at: Option<SystemTime>,
    /// Another one has taken its place.
    pub replaced: bool,
    /// When it was ended, if it was.
    pub revoked_at: Option<SystemTime>,
}

/// A token and its secret, which is shown this once. `Debug` does not show it.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The secret.
    pub secret: Credential,
    /// The token.
    pub token: ProjectToken,
    /// What the end of the one it replaced reached; `None` where there was none, or a grace was asked for.
    pub reached: Option<Reached>,
}

impl Auth {
    /// Ends an owner's membership, and the project tokens that the owner issued there, at every verifier, and the clients
    /// of its sessions in that project. Jobs go on, or are cancelled where `cancel_jobs` says so. `None` where the owner
    /// was no member.
    ///
    /// # Errors
    /// `FORBIDDEN` for who is neither a member nor an administrator.
    pub async fn remove_member(
        &self,
        project_id: &str,
        owner_id: &str,
        cancel_jobs: bool,
    ) -> Result<Option<Reached>, Error> {
        let (project, owner_id) = (project_id.to_owned(), owner_id.to_owned());
        let request = wire::RemoveMemberRequest { project_id: project, owner_id, cancel_jobs };
        let answer = self.unary_within(project_id, path::REMOVE_MEMBER, request, REVOCATION).await?;
        let answer: wire::RemoveMemberResponse = answer;
        Ok(answer.reached.map(Into::into))
    }

    /// Issues a token of a project. It acts for the caller there.
    ///
    /// # Errors
    /// `FORBIDDEN`, `INVALID_FIELD`, `LIMIT_REACHED`.
    pub async fn issue_token(&self, project_id: &str, grant: TokenGrant) -> Result<IssuedToken, Error> {
        let TokenGrant { label, scopes, agent_ids, ttl } = grant;
        let request = wire::IssueTokenRequest {
            project_id: project_id.to_owned(),
            label,
            scopes,
            agent_ids,
            ttl: ttl.map(|ttl| span("ttl", ttl)).transpose()?,
            request_id: random::id(),
        };
        let answer = self.unary_within(project_id, path::ISSUE_TOKEN, request, REVOCATION).await?;
        let answer: wire::IssueTokenResponse = answer;
        Ok(IssuedToken { secret: token(&answer.token)?, token: there(answer.project_token)?, reached: None })
    }

    /// A project's tokens, oldest first. All pages, at most 50,000.
    ///
    /// # Errors
    /// `FORBIDDEN` for who is neither a member nor an administrator.
    pub async fn list_tokens(&self, project_id: &str) -> Result<Vec<ProjectToken>, Error> {
        let mut tokens = Vec::new();
        let mut page_token = String::new();
        for _ in 0..PAGES_MAX {
            let request =
                wire::ListTokensRequest { project_id: project_id.to_owned(), page_size: PAGE, page_token };
            let page = self.unary_within(project_id, path::LIST_TOKENS, request, REVOCATION).await?;
            let page: wire::ListTokensResponse = page;
            tokens.extend(page.tokens.into_iter().map(ProjectToken::from));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(tokens)
    }

    /// Replaces a token of the caller's by one with the same label, scopes and agents, which lives for `ttl` (`None`:
    /// as long as the old one did). The old one stays valid for `grace` (0 to 24 h); with none, no verifier
    /// admits it when this returns.
    ///
    /// # Errors
    /// `FORBIDDEN` for another's token, `NOT_FOUND`, `CONFLICT` where it has ended.
    pub async fn rotate_token(
        &self,
        project_id: &str,
        token_id: &str,
        grace: Duration,
        ttl: Option<Duration>,
    ) -> Result<IssuedToken, Error> {
        let request = wire::RotateTokenRequest {
            project_id: project_id.to_owned(),
            token_id: token_id.to_owned(),
            grace: Some(span("grace", grace)?),
            ttl: ttl.map(|ttl| span("ttl", ttl)).transpose()?,
            request_id: random::id(),
        };
        let answer = self.unary_within(project_id, path::ROTATE_TOKEN, request, REVOCATION).await?;
        let answer: wire::RotateTokenResponse = answer;
        Ok(IssuedToken {
            secret: token(&answer.token)?,
            token: there(answer.project_token)?,
            reached: answer.reached.map(Into::into),
        })
    }

    /// Ends a token at every verifier. Repeating it is no error.
    ///
    /// # Errors
    /// `FORBIDDEN`, `NOT_FOUND`.
    pub async fn revoke_token(&self, project_id: &str, token_id: &str) -> Result<Reached, Error> {
        let request =
            wire::RevokeTokenRequest { project_id: project_id.to_owned(), token_id: token_id.to_owned() };
        let answer = self.unary_within(project_id, path::REVOKE_TOKEN, request, REVOCATION).await?;
        let answer: wire::RevokeTokenResponse = answer;
        answer.reached.map(Into::into).ok_or_else(|| Error::protocol("an answer without what was reached"))
    }
}

fn span(field: &str, span: Duration) -> Result<prost_types::Duration, Error> {
    span.try_into().map_err(|_| Error::invalid(field, "a shorter span"))
}

fn there(token: Option<wire::ProjectToken>) -> Result<ProjectToken, Error> {
    token.map(Into::into).ok_or_else(|| Error::protocol("an answer without token"))
}

impl From<wire::ProjectToken> for ProjectToken {
    fn from(t: wire::ProjectToken) -> Self {
        Self {
            token_id: t.token_id,
            project_id: t.project_id,
            issuer_id: t.issuer_id,
            label: t.label,
            scopes: t.scopes,
            agent_ids: t.agent_ids,
            masked: t.masked,
            created_at: from_wire(t.created_at),
            expires_at: from_wire(t.expires_at),
            replaced: t.replaced,
            revoked_at: from_wire(t.revoked_at),
        }
    }
}
