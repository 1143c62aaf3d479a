//! The auth service, for clients: signing in and out, who one is, role tokens, projects.

use std::time::{Duration, SystemTime};

use interlock_proto::{auth::v1 as wire, credential::Credential};

use crate::{
    audit::AuditLog,
    call::{Identity, Scope},
    clock::{Clock, from_wire},
    connect::Connection,
    credentials::Credentials,
    error::Error,
    owner_session::OwnerSession,
    path, random,
};

/// Revocations wait for every verifier: longer than a lease, and then some.
pub(crate) const REVOCATION: Duration = Duration::from_secs(30);
pub(crate) const PAGE: u32 = 500;
pub(crate) const PAGES_MAX: usize = 100;

/// A client of the auth service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auth {
    pub(crate) connection: Connection,
    pub(crate) identity: Identity,
    clock: Clock,
}

/// What a revocation reached before the call returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Verifiers that have acknowledged it.
    pub acknowledged: u32,
    /// Verifiers that were waited out: their lease has ended.
    pub fenced: u32,
    /// Streams and parked calls that were closed.
    pub streams_closed: u64,
}

/// Whether sign-in is enabled, and who the bearer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInStatus {
    /// Whether any owner can sign in here.
    pub enabled: bool,
    /// The bearer, where it is a living owner session.
    pub owner: Option<SignedIn>,
}

/// A signed-in owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// The owner's id.
    pub username: String,
    /// The name to show.
    pub display_name: String,
    /// `admin` or `user`.
    pub role: String,
    /// When the owner session ends.
    pub expires_at: Option<SystemTime>,
}

/// Who the bearer is, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhoAmI {
    /// `role token`, `owner session` or `project token`.
    pub kind: &'static str,
    /// The credential's public handle.
    pub credential_id: String,
    /// Who the call acts as.
    pub owner_id: String,
    /// The name to show.
    pub display_name: String,
    /// `admin` or `user`.
    pub role: String,
    /// The owner's roles.
    pub roles: Vec<String>,
    /// Whether the roles meet the root condition by themselves.
    pub session_root: bool,
    /// The owner session, where one proved it.
    pub owner_session_id: Option<String>,
    /// The project that the credential is scoped to: id and name.
    pub project: Option<(String, String)>,
    /// The scopes of a project token.
    pub scopes: Vec<String>,
    /// When the credential ends.
    pub expires_at: Option<SystemTime>,
    /// Until when root is unlocked.
    pub elevated_until: Option<SystemTime>,
}

/// Both roles' tokens.
#[derive(Clone, Debug)]
pub struct RoleTokens {
    /// Newest first, within each role.
    pub tokens: Vec<RoleToken>,
    /// Where the recoverable copy is; only where tokens were revealed.
    pub path: Option<String>,
    /// Whether that copy exists and agrees with the store.
    pub recoverable: bool,
}

/// One generation of one role's token. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct RoleToken {
    /// `admin` or `user`.
    pub role: String,
    /// Grows with each rotation.
    pub generation: u64,
    /// The public handle.
    pub credential_id: String,
    /// First and last four characters.
    pub masked: String,
    /// The token, where it was revealed.
    pub token: Option<Credential>,
    /// When it was made.
    pub created_at: Option<SystemTime>,
    /// Until when a replaced one is still admitted.
    pub valid_until: Option<SystemTime>,
    /// It is the next one of a rotation that has been open since it was made.
    pub candidate: bool,
    /// Who used it lately: the latest use of each service and source, newest first, at most 32. What verifiers admit
    /// is known some seconds later.
    pub uses: Vec<TokenUse>,
}

/// That one service has admitted one generation of a role token, from one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// The SPIFFE id of the service, or `auth`.
    pub service: String,
    /// An IPv4 address, or the /64 network of an IPv6 address; empty where it is not known.
    pub source: String,
    /// When the last time was; at most two seconds late.
    pub last_used_at: Option<SystemTime>,
    /// How often it was noted, at most once a second.
    pub noted: u64,
}

/// A rotation in two phases that was begun. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The role.
    pub role: String,
    /// The next token.
    pub token: Credential,
    /// Its generation.
    pub generation: u64,
    /// Its public handle: by this it is committed or aborted.
    pub credential_id: String,
    /// Where the recoverable copy is.
    pub path: String,
}

/// A rotation in two phases that was committed or aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationEnded {
    /// The present generation after a commit; after an abort, the one that has ended.
    pub generation: u64,
    /// What was reached by the end of the earlier tokens, or of the next one.
    pub reached: Option<Reached>,
}

/// A rotated role token. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The role.
    pub role: String,
    /// The new token.
    pub token: Credential,
    /// Its generation.
    pub generation: u64,
    /// Where the recoverable copy is.
    pub path: String,
    /// What the end of the old one reached; `None` where a grace was asked for.
    pub reached: Option<Reached>,
}

/// A project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// `prj_…`, or `system`.
    pub project_id: String,
    /// Unique.
    pub name: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Option<SystemTime>,
}

impl Auth {
    /// Calls over `connection`, with no credential.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        Self { connection, identity: Identity::default(), clock: Clock::system() }
    }

    /// The same, acting as `credentials`.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.identity = Identity::of(credentials);
        self
    }

    /// The auth service's audit log, for administrators.
    #[must_use]
    pub fn audit(&self) -> AuditLog {
        AuditLog::of(self.connection.clone(), self.identity.clone())
    }

    /// Signs an owner in. Never made twice by itself.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS`; `RATE_LIMITED` and `LIMIT_REACHED` with a delay.
    pub async fn login(&self, username: &str, password: &str) -> Result<OwnerSession, Error> {
        let request = wire::LoginRequest { username: username.to_owned(), password: password.to_owned() };
        let answer: wire::LoginResponse =
            self.connection.call(path::LOGIN, &Identity::default(), request).await?;
        Ok(OwnerSession {
            access_token: token(&answer.access_token)?,
            refresh_token: token(&answer.refresh_token)?,
            owner_session_id: answer.owner_session_id,
            username: answer.username,
            display_name: answer.display_name,
            role: answer.role,
            issued_at: self.clock.wall(),
            access_expires_at: instant(answer.access_expires_at)?,
            expires_at: instant(answer.expires_at)?,
        })
    }

    /// Trades the refresh token of `session` for its successors. May be repeated.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS` where the owner session has ended.
    pub async fn refresh(&self, session: &OwnerSession) -> Result<OwnerSession, Error> {
        let who = Identity::bearer(&session.refresh_token);
        let answer: wire::RefreshResponse =
            self.connection.call(path::REFRESH, &who, wire::RefreshRequest {}).await?;
        Ok(OwnerSession {
            access_token: token(&answer.access_token)?,
            refresh_token: token(&answer.refresh_token)?,
            issued_at: self.clock.wall(),
            access_expires_at: instant(answer.access_expires_at)?,
            expires_at: instant(answer.expires_at)?,
            ..session.clone()
        })
    }

    /// Ends the owner session of an access or refresh token, at every verifier. `None` where it had
    /// ended before.
    ///
    /// # Errors
    /// Where auth cannot be asked.
    pub async fn logout(&self, token: &Credential) -> Result<Option<Reached>, Error> {
        let who = Identity::bearer(token);
        let answer = self.connection.unary(path::LOGOUT, &who, wire::LogoutRequest {}, REVOCATION).await?;
        let answer: wire::LogoutResponse = answer.message;
        Ok(answer.reached.map(Into::into))
    }

    /// Whether sign-in is enabled, and who the bearer is, if anyone.
    ///
    /// # Errors
    /// Where auth cannot be asked.
    pub async fn sign_in_status(&self) -> Result<SignInStatus, Error> {
        let request = wire::OwnerSessionServiceGetStatusRequest {};
        let answer: wire::OwnerSessionServiceGetStatusResponse =
            self.connection.call(path::SIGN_IN_STATUS, &self.identity, request).await?;
        let owner = answer.authenticated.then(|| SignedIn {
            username: answer.username,
            display_name: answer.display_name,
            role: answer.role,
            expires_at: from_wire(answer.expires_at),
        });
        Ok(SignInStatus { enabled: answer.enabled, owner })
    }

    /// Describes the bearer.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where the bearer is not known.
    pub async fn whoami(&self) -> Result<WhoAmI, Error> {
        let answer: wire::WhoAmIResponse =
            self.connection.call(path::WHO_AM_I, &self.identity, wire::WhoAmIRequest {}).await?;
        let principal = answer.principal.ok_or_else(|| Error::protocol("an answer without principal"))?;
        let kind = match principal.kind() {
            wire::CredentialKind::RoleToken => "role token",
            wire::CredentialKind::OwnerSession => "owner session",
            wire::CredentialKind::ProjectToken => "project token",
            wire::CredentialKind::Unspecified => "unknown",
        };
        let project = filled(principal.project_id).map(|id| (id, answer.project_name));
        Ok(WhoAmI {
            kind,
            credential_id: principal.credential_id,
            owner_id: principal.owner_id,
            display_name: answer.display_name,
            role: principal.role,
            roles: principal.roles,
            session_root: principal.session_root,
            owner_session_id: filled(principal.owner_session_id),
            project,
            scopes: principal.scopes,
            expires_at: from_wire(principal.expires_at),
            elevated_until: from_wire(principal.elevated_until),
        })
    }

    /// Both role tokens, masked; with `reveal` in full (audited; takes the root condition).
    ///
    /// # Errors
    /// `FORBIDDEN`, `ROOT_REQUIRED`.
    pub async fn role_tokens(&self, reveal: bool) -> Result<RoleTokens, Error> {
        let request = wire::RoleTokenServiceGetStatusRequest { reveal };
        let answer: wire::RoleTokenServiceGetStatusResponse =
            self.connection.call(path::ROLE_TOKEN_STATUS, &self.identity, request).await?;
        let tokens = answer.tokens.into_iter().map(|t| {
            Ok(RoleToken {
                role: t.role,
                generation: t.generation,
                credential_id: t.credential_id,
                masked: t.masked,
                token: filled(t.token).map(|t| token(&t)).transpose()?,
                created_at: from_wire(t.created_at),
                valid_until: from_wire(t.valid_until),
                candidate: t.candidate,
                uses: t.uses.into_iter().map(TokenUse::from).collect(),
            })
        });
        let tokens = tokens.collect::<Result<_, Error>>()?;
        Ok(RoleTokens { tokens, path: filled(answer.path), recoverable: answer.recoverable })
    }

    /// Replaces one role's token. The old one stays valid for `grace` (0 to 24 h); with none, no
    /// verifier admits it when this returns.
    ///
    /// # Errors
    /// `FORBIDDEN`, `ROOT_REQUIRED`; `STORAGE_ERROR` with the old one still valid.
    pub async fn rotate_role_token(&self, role: &str, grace: Duration) -> Result<Rotated, Error> {
        let request = wire::RotateRequest {
            role: role.to_owned(),
            grace: Some(grace.try_into().map_err(|_| Error::invalid("grace", "0 to 24 h"))?),
            request_id: random::id(),
        };
        let answer = self.connection.unary(path::ROTATE, &self.identity, request, REVOCATION).await?;
        let answer: wire::RotateResponse = answer.message;
        Ok(Rotated {
            role: answer.role,
            token: token(&answer.token)?,
            generation: answer.generation,
            path: answer.path,
            reached: answer.reached.map(Into::into),
        })
    }

    /// Begins a rotation of one role's token in two phases: from now on the present token and the next one are
    /// admitted, until it is committed or aborted.
    ///
    /// # Errors
    /// `FORBIDDEN`, `ROOT_REQUIRED`; `ROTATION_OPEN` where one is open; `STORAGE_ERROR` where nothing was begun.
    pub async fn begin_rotation(&self, role: &str) -> Result<Rotation, Error> {
        let request = wire::BeginRotationRequest { role: role.to_owned(), request_id: random::id() };
        let answer = self.connection.unary(path::BEGIN_ROTATION, &self.identity, request, REVOCATION).await?;
        let answer: wire::BeginRotationResponse = answer.message;
        Ok(Rotation {
            role: answer.role,
            token: token(&answer.token)?,
            generation: answer.generation,
            credential_id: answer.credential_id,
            path: answer.path,
        })
    }

    /// Commits an open rotation: the next token becomes the present one. No verifier admits an earlier one when this
    /// returns.
    ///
    /// # Errors
    /// As [`Auth::begin_rotation`]; `TOKEN_IN_USE` with who uses it as preconditions, unless `force` is set;
    /// `NOT_FOUND` where none is open, `CONFLICT` where it is another one.
    pub async fn commit_rotation(
        &self,
        role: &str,
        credential_id: &str,
        force: bool,
    ) -> Result<RotationEnded, Error> {
        let (role, credential_id) = (role.to_owned(), credential_id.to_owned());
        let request = wire::CommitRotationRequest { role, credential_id, force, request_id: random::id() };
        let answer =
            self.connection.unary(path::COMMIT_ROTATION, &self.identity, request, REVOCATION).await?;
        let wire::CommitRotationResponse { generation, reached, .. } = answer.message;
        Ok(RotationEnded { generation, reached: reached.map(Into::into) })
    }

    /// Gives an open rotation up: the present token stays. No verifier admits the next one when this returns.
    ///
    /// # Errors
    /// As [`Auth::commit_rotation`], but for what is in use.
    pub async fn abort_rotation(&self, role: &str, credential_id: &str) -> Result<RotationEnded, Error> {
        let (role, credential_id) = (role.to_owned(), credential_id.to_owned());
        let request = wire::AbortRotationRequest { role, credential_id, request_id: random::id() };
        let answer = self.connection.unary(path::ABORT_ROTATION, &self.identity, request, REVOCATION).await?;
        let wire::AbortRotationResponse { generation, reached, .. } = answer.message;
        Ok(RotationEnded { generation, reached: reached.map(Into::into) })
    }

    /// Makes a project; the caller becomes its first member.
    ///
    /// # Errors
    /// `NAME_TAKEN`, `INVALID_FIELD`.
    pub async fn create_project(&self, name: &str) -> Result<Project, Error> {
        let request = wire::CreateProjectRequest { name: name.to_owned(), request_id: random::id() };
        let answer: wire::CreateProjectResponse =
            self.connection.call(path::CREATE_PROJECT, &self.identity, request).await?;
        answer.project.map(Into::into).ok_or_else(|| Error::protocol("an answer without project"))
    }

    /// The projects that the caller can enter, by name. All pages, at most 50,000 projects.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where the bearer is not known.
    pub async fn list_projects(&self) -> Result<Vec<Project>, Error> {
        let mut projects = Vec::new();
        let mut page_token = String::new();
        for _ in 0..PAGES_MAX {
            let request = wire::ListProjectsRequest { page_size: PAGE, page_token };
            let page: wire::ListProjectsResponse =
                self.connection.call(path::LIST_PROJECTS, &self.identity, request).await?;
            projects.extend(page.projects.into_iter().map(Project::from));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(projects)
    }

    /// Calls on a project's resources name the project, as everywhere.
    fn within(&self, project_id: &str) -> Identity {
        Identity { project: Scope::Named(project_id.into()), ..self.identity.clone() }
    }

    pub(crate) async fn unary_within<Q, A>(
        &self,
        project_id: &str,
        path: &'static str,
        message: Q,
        at_most: Duration,
    ) -> Result<A, Error>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let who = self.within(project_id);
        self.connection.unary(path, &who, message, at_most).await.map(|answer| answer.message)
    }

    /// Adds an owner to a project. Repeating it is no error.
    ///
    /// # Errors
    /// `FORBIDDEN` for who is neither a member nor an administrator.
    pub async fn add_member(&self, project_id: &str, owner_id: &str) -> Result<(), Error> {
        let request =
            wire::AddMemberRequest { project_id: project_id.to_owned(), owner_id: owner_id.to_owned() };
        let _: wire::AddMemberResponse =
            self.connection.call(path::ADD_MEMBER, &self.within(project_id), request).await?;
        Ok(())
    }
}

pub(crate) fn token(text: &str) -> Result<Credential, Error> {
    Credential::parse(text).map_err(|_| Error::protocol("the server issued a malformed credential"))
}

fn instant(at: Option<prost_types::Timestamp>) -> Result<SystemTime, Error> {
    from_wire(at).ok_or_else(|| Error::protocol("an answer without expiry"))
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl From<wire::Reached> for Reached {
    fn from(r: wire::Reached) -> Self {
        Self { acknowledged: r.acknowledged, fenced: r.fenced, streams_closed: r.streams_closed }
    }
}

impl From<wire::TokenUse> for TokenUse {
    fn from(used: wire::TokenUse) -> Self {
        let wire::TokenUse { service, source, last_used_at, noted } = used;
        Self { service, source, last_used_at: from_wire(last_used_at), noted }
    }
}

impl From<wire::Project> for Project {
    fn from(p: wire::Project) -> Self {
        Self {
            project_id: p.project_id,
            name: p.name,
            created_by: p.created_by,
            created_at: from_wire(p.created_at),
        }
    }
}
