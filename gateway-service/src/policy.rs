//! Who may do what to which resource: pure, and with no default arm.
//!
//! [`decide`] answers with a [`Permit`], which every write takes; [`ProjectScope::agree`] is the only
//! way to the value that project queries take. Both values can be made here only. Owner is decided
//! before project, and both before anything that tells of jobs.

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
};

use crate::{
    agent::Agent,
    caller::{Caller, Principal},
    client::{Client, ClientRole},
    ids::{AgentId, JobId, OwnerId, ProjectId, SessionId},
    job::Job,
    session::{Phase, Session},
};

/// What is asked of a session, or of a job through its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Read it.
    Get,
    /// Read its log.
    Stream,
    /// Store the calling client's cursor, or read it.
    Ack,
    /// Read its jobs.
    ReadJobs,
    /// Submit a job.
    Submit,
    /// Cancel a job.
    Cancel,
    /// Change its binding.
    Attach,
    /// End it.
    Close,
}

impl Act {
    /// Every act.
    pub const ALL: [Self; 8] = [
        Self::Get,
        Self::Stream,
        Self::Ack,
        Self::ReadJobs,
        Self::Submit,
        Self::Cancel,
        Self::Attach,
        Self::Close,
    ];

    /// The least role of a client (DESIGN 14.4).
    #[must_use]
    pub fn least_role(self) -> ClientRole {
        match self {
            Self::Get | Self::Stream | Self::Ack | Self::ReadJobs => ClientRole::Observer,
            Self::Submit | Self::Cancel => ClientRole::Operator,
            Self::Attach | Self::Close => ClientRole::Host,
        }
    }

    /// The scope that a project token needs.
    #[must_use]
    pub fn scope(self) -> &'static str {
        match self {
            Self::Get | Self::Stream | Self::Ack => "sessions:read",
            Self::ReadJobs => "jobs:read",
            Self::Submit | Self::Cancel => "jobs:submit",
            Self::Attach | Self::Close => "sessions:write",
        }
    }
}

/// What a caller asks for. Fields are the ids asked for and the rows found, `None` where there is none.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each field is named by its type, and each variant says what it asks")]
pub enum Ask<'a> {
    /// Something of a session. `client` is the calling client, where a cookie came along.
    Session { act: Act, id: &'a SessionId, session: Option<&'a Session>, client: Option<&'a Client> },
    /// To cancel this job of a session.
    CancelJob { session: &'a Session, client: Option<&'a Client>, job: &'a Job },
    /// A new session for this owner.
    Create { id: &'a SessionId, owner: &'a OwnerId },
    /// To list this owner's sessions.
    List { owner: &'a OwnerId },
    /// To read an agent.
    SeeAgent { id: &'a AgentId, agent: Option<&'a Agent> },
    /// To bind a session of the acting owner to an agent in a project.
    Bind { id: &'a AgentId, agent: Option<&'a Agent>, project: &'a ProjectId, acting: &'a OwnerId },
    /// To go on using the agent that a session of this owner is bound to.
    Use { id: &'a AgentId, agent: Option<&'a Agent>, owner: &'a OwnerId },
    /// To register or change an agent; `share` where it says who may attach.
    SetAgent { id: &'a AgentId, agent: Option<&'a Agent>, share: bool },
    /// To run an agent's jobs.
    Serve { id: &'a AgentId, agent: Option<&'a Agent> },
    /// To use a lease of this job.
    Lease { id: &'a JobId, job: Option<&'a Job>, fencing: u64 },
    /// To end what is over.
    Sweep,
}

/// Proof that the policy allowed this caller on this target. Cannot be made elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit(Subject);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    /// A session with all that belongs to it.
    Session(SessionId),
    /// One owner's list of sessions.
    Owner(OwnerId),
    /// An agent.
    Agent(AgentId),
    /// The jobs of an agent, for its worker.
    Jobs(AgentId),
    /// One job, for the holder of its lease.
    Job(JobId),
    /// Whatever is over.
    Over,
}

impl Permit {
    /// Whether it covers a session's own rows.
    pub(crate) fn covers_session(&self, id: &SessionId) -> bool {
        match &self.0 {
            Subject::Session(mine) => mine == id,
            Subject::Over => true,
            Subject::Owner(_) | Subject::Agent(_) | Subject::Jobs(_) | Subject::Job(_) => false,
        }
    }

    /// Whether it covers a job's rows and its entries in the session's log.
    pub(crate) fn covers_job(&self, job: &Job) -> bool {
        match &self.0 {
            Subject::Session(session) => *session == job.session,
            Subject::Jobs(agent) => *agent == job.binding.agent,
            Subject::Job(id) => *id == job.id,
            Subject::Over => true,
            Subject::Owner(_) | Subject::Agent(_) => false,
        }
    }

    /// Whether it covers an agent's row.
    pub(crate) fn covers_agent(&self, id: &AgentId) -> bool {
        matches!(&self.0, Subject::Agent(mine) if mine == id)
    }

    /// Whether it covers this owner's list.
    pub(crate) fn covers_owner(&self, id: &OwnerId) -> bool {
        matches!(&self.0, Subject::Owner(mine) if mine == id)
    }

    /// Whether it is that of a sweep.
    pub(crate) fn covers_upkeep(&self) -> bool {
        self.0 == Subject::Over
    }
}

/// Why the policy said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// For people. Tells nothing that the caller may not know.
    pub message: &'static str,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.reason, refusal.message)
    }
}

const UNREACHABLE: Refusal =
    Refusal { reason: Reason::OwnerMismatch, message: "no such resource of this owner's" };
const UNKNOWN: Refusal = Refusal { reason: Reason::NotFound, message: "it does not exist" };
const FOREIGN_AGENT: Refusal =
    Refusal { reason: Reason::Forbidden, message: "no such agent is open to this caller" };
const LOST: Refusal =
    Refusal { reason: Reason::LeaseLost, message: "the lease of this attempt is over: stop the job" };

fn forbidden(message: &'static str) -> Refusal {
    Refusal { reason: Reason::Forbidden, message }
}

/// Decides. Says nothing of projects: see [`ProjectScope::agree`].
///
/// # Errors
/// The refusal.
pub fn decide(caller: &Caller, now: Timestamp, ask: &Ask<'_>) -> Result<Permit, Refusal> {
    match *ask {
        Ask::Session { act, id, session, client } => decide_session(caller, now, act, id, session, client),
        Ask::CancelJob { session, client, job } => decide_cancel(caller, now, session, client, job),
        Ask::Create { id, owner } => decide_create(caller, id, owner),
        Ask::List { owner } => decide_list(caller, now, owner),
        Ask::SeeAgent { id, agent } => decide_see(caller, now, id, agent),
        Ask::Bind { id, agent, project, acting } => decide_bind(caller, now, id, agent, project, acting),
        Ask::Use { id, agent, owner } => decide_use(caller, now, id, agent, owner),
        Ask::SetAgent { id, agent, share } => decide_set_agent(caller, now, id, agent, share),
        Ask::Serve { id, agent } => decide_serve(caller, now, id, agent),
        Ask::Lease { id, job, fencing } => decide_lease(caller, id, job, fencing),
        Ask::Sweep => match caller.principal {
            Principal::Gateway => Ok(Permit(Subject::Over)),
            Principal::Admin
            | Principal::User
            | Principal::Owner(_)
            | Principal::Project(_)
            | Principal::Client => Err(forbidden("only the gateway itself sweeps")),
        },
    }
}

/// A session that is gone is to every caller as if it had never been, but for a repeated close.
fn decide_session(
    caller: &Caller,
    now: Timestamp,
    act: Act,
    id: &SessionId,
    session: Option<&Session>,
    client: Option<&Client>,
) -> Result<Permit, Refusal> {
    let here = client.filter(|client| client.session == *id);
    let living = session.filter(|session| session.phase != Phase::Gone || act == Act::Close);
    let Some(session) = living else {
        return Err(if caller.reaches_all(now) { UNKNOWN } else { UNREACHABLE });
    };
    match &caller.principal {
        Principal::Admin | Principal::User | Principal::Owner(_) => {
            if caller.owner().as_ref() != Some(&session.owner) && !caller.reaches_all(now) {
                return Err(UNREACHABLE);
            }
        }
        Principal::Project(token) => {
            if token.issuer != session.owner {
                return Err(UNREACHABLE);
            }
            need_scope(&token.scopes, act.scope())?;
        }
        Principal::Client => {
            let client = here.ok_or(UNREACHABLE)?;
            if client.role < act.least_role() {
                return Err(forbidden("this client's role may not do this"));
            }
        }
        Principal::Gateway => return Err(UNREACHABLE),
    }
    if act == Act::Ack && here.is_none() {
        return Err(forbidden("only a client of this session has a cursor in it"));
    }
    Ok(Permit(Subject::Session(id.clone())))
}

/// Operators cancel what they submitted; hosts and the owner cancel everything.
fn decide_cancel(
    caller: &Caller,
    now: Timestamp,
    session: &Session,
    client: Option<&Client>,
    job: &Job,
) -> Result<Permit, Refusal> {
    assert!(job.session == session.id, "the job is of another session");
    let alone = caller.principal == Principal::Client;
    let permit = decide_session(caller, now, Act::Cancel, &session.id, Some(session), client)?;
    let operator = client.filter(|client| alone && client.role < ClientRole::Host);
    match operator {
        Some(client) if job.client.as_ref() != Some(&client.id) => {
            Err(forbidden("an operator cancels only jobs of its own"))
        }
        Some(_) | None => Ok(permit),
    }
}

fn decide_create(caller: &Caller, id: &SessionId, owner: &OwnerId) -> Result<Permit, Refusal> {
    match caller.owner() {
        Some(mine) if mine == *owner => {}
        Some(_) => return Err(forbidden("a session belongs to the one who makes it")),
        None => return Err(forbidden("a client cannot make sessions")),
    }
    if let Principal::Project(token) = &caller.principal {
        need_scope(&token.scopes, "sessions:write")?;
    }
    Ok(Permit(Subject::Session(id.clone())))
}

fn decide_list(caller: &Caller, now: Timestamp, owner: &OwnerId) -> Result<Permit, Refusal> {
    if caller.owner().as_ref() != Some(owner) && !caller.reaches_all(now) {
        return Err(UNREACHABLE);
    }
    if let Principal::Project(token) = &caller.principal {
        need_scope(&token.scopes, "sessions:read")?;
    }
    Ok(Permit(Subject::Owner(owner.clone())))
}

fn decide_see(
    caller: &Caller,
    now: Timestamp,
    id: &AgentId,
    agent: Option<&Agent>,
) -> Result<Permit, Refusal> {
    let acting = caller.owner().ok_or(FOREIGN_AGENT)?;
    known(caller, now, agent, &acting).map(|_| Permit(Subject::Agent(id.clone())))
}

/// Role `user` cannot attach to `primary` or `system`, and `primary` attaches only to `system`.
fn decide_bind(
    caller: &Caller,
    now: Timestamp,
    id: &AgentId,
    agent: Option<&Agent>,
    project: &ProjectId,
    acting: &OwnerId,
) -> Result<Permit, Refusal> {
    let guarded = *id == AgentId::primary() || *project == ProjectId::system();
    if guarded && !caller.is_administrator() {
        return Err(forbidden("only administrators attach to the built-in agent and project"));
    }
    if *id == AgentId::primary() && *project != ProjectId::system() {
        return Err(forbidden("the agent `primary` attaches only to the project `system`"));
    }
    known(caller, now, agent, acting).map(|_| Permit(Subject::Agent(id.clone())))
}

fn decide_use(
    caller: &Caller,
    now: Timestamp,
    id: &AgentId,
    agent: Option<&Agent>,
    owner: &OwnerId,
) -> Result<Permit, Refusal> {
    let built_in = agent.is_some_and(Agent::is_built_in);
    if !built_in {
        known(caller, now, agent, owner)?;
    }
    Ok(Permit(Subject::Agent(id.clone())))
}

fn decide_set_agent(
    caller: &Caller,
    now: Timestamp,
    id: &AgentId,
    agent: Option<&Agent>,
    share: bool,
) -> Result<Permit, Refusal> {
    match caller.principal {
        Principal::Admin | Principal::User | Principal::Owner(_) => {}
        Principal::Project(_) | Principal::Client | Principal::Gateway => {
            return Err(forbidden("agents are registered by their owners"));
        }
    }
    if let Some(agent) = agent {
        if agent.is_built_in() && !caller.meets_root(now) {
            return Err(Refusal {
                reason: Reason::RootRequired,
                message: "built-in agents are guarded by root",
            });
        }
        let mine = agent.owner == caller.owner();
        if !agent.is_built_in() && !mine && !caller.reaches_all(now) {
            return Err(FOREIGN_AGENT);
        }
    }
    if share && !caller.is_administrator() {
        return Err(forbidden("only administrators share agents"));
    }
    Ok(Permit(Subject::Agent(id.clone())))
}

fn decide_serve(
    caller: &Caller,
    now: Timestamp,
    id: &AgentId,
    agent: Option<&Agent>,
) -> Result<Permit, Refusal> {
    let acting = caller.owner().ok_or(FOREIGN_AGENT)?;
    if let Principal::Project(token) = &caller.principal {
        need_scope(&token.scopes, "jobs:work")?;
    }
    let Some(agent) = agent else {
        return Err(if caller.reaches_all(now) { UNKNOWN } else { FOREIGN_AGENT });
    };
    let mine = agent.owner.as_ref() == Some(&acting);
    let guarded = agent.is_built_in() && caller.meets_root(now);
    if mine || guarded || caller.reaches_all(now) {
        return Ok(Permit(Subject::Jobs(id.clone())));
    }
    Err(FOREIGN_AGENT)
}

/// A lease is its holder's, until its instant, for its own fencing token. Whatever is wrong with it,
/// the answer is the same.
fn decide_lease(caller: &Caller, id: &JobId, job: Option<&Job>, fencing: u64) -> Result<Permit, Refusal> {
    let job = job.ok_or(LOST)?;
    let acting = caller.owner().ok_or(LOST)?;
    if let Principal::Project(token) = &caller.principal {
        need_scope(&token.scopes, "jobs:work")?;
        if token.project != job.binding.project {
            return Err(LOST);
        }
    }
    if job.fencing != fencing || job.holder.as_ref() != Some(&acting) {
        return Err(LOST);
    }
    Ok(Permit(Subject::Job(id.clone())))
}

/// Own, shared, or anyone's for who reaches all. Another's agent and an unknown one get one answer.
fn known<'a>(
    caller: &Caller,
    now: Timestamp,
    agent: Option<&'a Agent>,
    acting: &OwnerId,
) -> Result<&'a Agent, Refusal> {
    let Some(agent) = agent else {
        return Err(if caller.reaches_all(now) { UNKNOWN } else { FOREIGN_AGENT });
    };
    let open = agent.shared || agent.owner.as_ref() == Some(acting);
    let guarded = agent.is_built_in() && caller.is_administrator();
    if open || guarded || caller.reaches_all(now) { Ok(agent) } else { Err(FOREIGN_AGENT) }
}

fn need_scope(scopes: &[String], needed: &str) -> Result<(), Refusal> {
    if scopes.iter().any(|scope| scope == needed) {
        return Ok(());
    }
    Err(Refusal { reason: Reason::ScopeRequired, message: "the project token lacks the scope" })
}

/// What lets a caller into a project: always one of these, never nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProjectReach {
    /// The project that a token is scoped to.
    Token(ProjectId),
    /// Auth's answer on the acting owner's membership in the project.
    Membership(bool),
    /// A client in its own session, which is bound to this project.
    Own(ProjectId),
    /// The built-in project; whether the caller is an administrator.
    BuiltIn(bool),
}

/// Which lock stayed shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// The token's scope, or the membership, does not lead to the resource's project.
    Reach,
    /// The named project is not the resource's.
    Named,
}

impl Lock {
    /// For audit rows.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Reach => "reach",
            Self::Named => "named",
        }
    }
}

/// Proof that the locks of a project agree. Project queries take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectScope(ProjectId);

impl ProjectScope {
    /// The three locks: what the caller reaches, what the call names (where it names one), and the
    /// project of the resource.
    ///
    /// # Errors
    /// The lock that stayed shut.
    pub fn agree(
        reach: &ProjectReach,
        named: Option<&ProjectId>,
        resource: &ProjectId,
    ) -> Result<Self, Lock> {
        let reached = match reach {
            ProjectReach::Token(project) | ProjectReach::Own(project) => project == resource,
            ProjectReach::Membership(may) => *may,
            ProjectReach::BuiltIn(administrator) => *administrator && *resource == ProjectId::system(),
        };
        if !reached {
            return Err(Lock::Reach);
        }
        if named.is_some_and(|named| named != resource) {
            return Err(Lock::Named);
        }
        Ok(Self(resource.clone()))
    }

    /// The project.
    #[must_use]
    pub fn project(&self) -> &ProjectId {
        &self.0
    }
}
