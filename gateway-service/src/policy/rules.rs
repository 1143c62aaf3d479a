//! The decisions: who may do what. Owner is decided before anything that tells of jobs; nothing here says a word
//! of projects.

use interlock_kit::{clock::Timestamp, error::Reason};

use super::{Act, Ask, Permit, ProjectReach, ProjectScope, Refusal, Subject};
use crate::{
    agent::Agent,
    caller::{Caller, Principal, ServiceWorker},
    client::{Client, ClientRole},
    ids::{AgentId, JobId, OwnerId, ProjectId, SessionId},
    job::Job,
    password::SessionPassword,
    session::{Phase, Session},
};

const UNREACHABLE: Refusal =
    Refusal { reason: Reason::OwnerMismatch, message: "no such resource of this owner's" };
const UNKNOWN: Refusal = Refusal { reason: Reason::NotFound, message: "it does not exist" };
const FOREIGN_AGENT: Refusal =
    Refusal { reason: Reason::Forbidden, message: "no such agent is open to this caller" };
const LOST: Refusal =
    Refusal { reason: Reason::LeaseLost, message: "the lease of this attempt is over: stop the job" };

pub(crate) const WRONG_PASSWORD: Refusal =
    Refusal { reason: Reason::InvalidCredentials, message: "no such session, or the password is wrong" };

fn forbidden(message: &'static str) -> Refusal {
    Refusal { reason: Reason::Forbidden, message }
}

/// Decides. Says nothing of projects: see [`super::ProjectScope::agree`].
///
/// # Errors
/// The refusal.
pub fn decide(caller: &Caller, now: Timestamp, ask: &Ask<'_>) -> Result<Permit, Refusal> {
    match &caller.principal {
        Principal::Anonymous => return decide_anonymous(caller, ask),
        Principal::Service(worker) => return decide_service(caller, worker, ask),
        Principal::Admin
        | Principal::User
        | Principal::Owner(_)
        | Principal::Project(_)
        | Principal::Client
        | Principal::Gateway => {}
    }
    match *ask {
        Ask::Session { act, id, session, client } => decide_session(caller, now, act, id, session, client),
        Ask::CancelJob { session, client, job } => decide_cancel(caller, now, session, client, job),
        Ask::Join { id, session, password, version } => decide_join(id, session, password, version),
        Ask::Create { id, owner } => decide_create(caller, id, owner),
        Ask::List { owner } => decide_list(caller, now, owner),
        Ask::SeeAgent { id, agent } => decide_see(caller, now, id, agent),
        Ask::Bind { id, agent, project, acting } => decide_bind(caller, now, id, agent, project, acting),
        Ask::Use { id, agent, owner } => decide_use(caller, now, id, agent, owner),
        Ask::SetAgent { id, agent, share } => decide_set_agent(caller, now, id, agent, share),
        Ask::RemoveAgent { id, agent } => decide_remove_agent(caller, now, id, agent),
        Ask::Serve { id, agent } => decide_serve(caller, now, id, agent),
        Ask::Lease { id, job, fencing } => decide_lease(caller, id, job, fencing),
        Ask::JobFiles { id, job, fencing } => decide_job_files(caller, id, job, fencing),
        Ask::Sweep => match caller.principal {
            Principal::Gateway => Ok(Permit(Subject::Over)),
            Principal::Admin
            | Principal::User
            | Principal::Owner(_)
            | Principal::Project(_)
            | Principal::Service(_)
            | Principal::Client
            | Principal::Anonymous => Err(forbidden("only the gateway itself sweeps")),
        },
    }
}

/// Who shows no credential makes sessions, and nothing else: all that comes after goes by the session's cookie.
fn decide_anonymous(caller: &Caller, ask: &Ask<'_>) -> Result<Permit, Refusal> {
    match *ask {
        Ask::Create { id, owner } => decide_create(caller, id, owner),
        Ask::Session { .. }
        | Ask::CancelJob { .. }
        | Ask::Join { .. }
        | Ask::List { .. }
        | Ask::SeeAgent { .. }
        | Ask::Bind { .. }
        | Ask::Use { .. }
        | Ask::SetAgent { .. }
        | Ask::RemoveAgent { .. }
        | Ask::Serve { .. }
        | Ask::Lease { .. }
        | Ask::JobFiles { .. }
        | Ask::Sweep => Err(forbidden("without a credential sessions are made, and nothing else")),
    }
}

/// A service that works as itself runs the jobs of the agents that it is listed for, and has what their leases give.
fn decide_service(caller: &Caller, worker: &ServiceWorker, ask: &Ask<'_>) -> Result<Permit, Refusal> {
    match *ask {
        Ask::Serve { id, agent } => match agent {
            Some(agent) if worker.serves(id) && !agent.is_built_in() => Ok(Permit(Subject::Jobs(id.clone()))),
            Some(_) | None => Err(FOREIGN_AGENT),
        },
        Ask::Lease { id, job, fencing } => decide_lease(caller, id, job, fencing),
        Ask::JobFiles { id, job, fencing } => decide_job_files(caller, id, job, fencing),
        Ask::Session { .. }
        | Ask::CancelJob { .. }
        | Ask::Join { .. }
        | Ask::Create { .. }
        | Ask::List { .. }
        | Ask::SeeAgent { .. }
        | Ask::Bind { .. }
        | Ask::Use { .. }
        | Ask::SetAgent { .. }
        | Ask::RemoveAgent { .. }
        | Ask::Sweep => Err(forbidden("a service that names nobody runs jobs, and does nothing else")),
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
    let of_those_who_reach_all = match act {
        Act::ForceFail => Some("forcing a job takes the admin role token, or root unlocked"),
        Act::Adopt => Some("adopting a session takes the admin role token, or root unlocked"),
        _ => None,
    };
    if let Some(message) = of_those_who_reach_all.filter(|_| !caller.reaches_all(now)) {
        // Whether there is such a job, or session, is nothing to anybody else.
        return Err(match caller.is_administrator() {
            true => Refusal { reason: Reason::RootRequired, message },
            false => forbidden(message),
        });
    }
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
        Principal::Service(_) | Principal::Anonymous | Principal::Gateway => return Err(UNREACHABLE),
    }
    if act == Act::Ack && here.is_none() {
        return Err(forbidden("only a client of this session has a cursor in it"));
    }
    if act == Act::Quit && here.is_none() {
        return Err(forbidden("only a client of this session can leave it"));
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

/// Whoever knows the password, and nobody else: no password set, another one by now and no such session are one.
fn decide_join(
    id: &SessionId,
    session: Option<&Session>,
    password: Option<&SessionPassword>,
    version: u64,
) -> Result<Permit, Refusal> {
    let living = session.is_some_and(|session| session.id == *id && session.phase != Phase::Gone);
    let right = password.is_some_and(|known| known.session == *id && known.version == version);
    if living && right { Ok(Permit(Subject::Session(id.clone()))) } else { Err(WRONG_PASSWORD) }
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
        Principal::Project(_)
        | Principal::Service(_)
        | Principal::Client
        | Principal::Anonymous
        | Principal::Gateway => {
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

/// Built-in ones stay: nothing would bring them back.
fn decide_remove_agent(
    caller: &Caller,
    now: Timestamp,
    id: &AgentId,
    agent: Option<&Agent>,
) -> Result<Permit, Refusal> {
    decide_set_agent(caller, now, id, agent, false)?;
    match agent {
        Some(agent) if agent.is_built_in() => Err(forbidden("built-in agents are not removed")),
        Some(_) => Ok(Permit(Subject::Agent(id.clone()))),
        None => Err(if caller.reaches_all(now) { UNKNOWN } else { FOREIGN_AGENT }),
    }
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
        if !token.serves(id) {
            return Err(FOREIGN_AGENT);
        }
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
        let reach = ProjectReach::Token(token.project.clone());
        let agreed = ProjectScope::agree(&reach, caller.named.as_ref(), &job.binding.project);
        if agreed.is_err() || !token.serves(&job.binding.agent) {
            return Err(LOST);
        }
    }
    if matches!(&caller.principal, Principal::Service(worker) if !worker.serves(&job.binding.agent)) {
        return Err(LOST);
    }
    if job.fencing != fencing || job.holder.as_ref() != Some(&acting) {
        return Err(LOST);
    }
    Ok(Permit(Subject::Job(id.clone())))
}

/// Whoever may use a job's lease has the files of its session, in its project.
fn decide_job_files(caller: &Caller, id: &JobId, job: Option<&Job>, fencing: u64) -> Result<Permit, Refusal> {
    decide_lease(caller, id, job, fencing)?;
    let job = job.ok_or(LOST)?;
    Ok(Permit(Subject::Files(job.session.clone(), job.binding.project.clone())))
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
