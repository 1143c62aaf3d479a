//! `session create|list|get|attach|close|adopt`; `stream` is in [`log`], what is about its clients in [`super::member`].

use std::time::Duration;

use interlock_client::{Session as Found, SessionState, StreamFrom};
use serde_json::{Value, json};

mod log;

use super::member::{self, Joiners, To, gateway_of, id_of};
use crate::{
    args::Common,
    command::{duration, signed_in},
    context::Caller,
    failure::Failure,
    output::{instant, table},
    password::Password,
};

/// How long an attach waits that is told to cancel, and not how long.
const ATTACH_WAIT: Duration = Duration::from_secs(600);

/// What to do with sessions.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Session {
    /// Make a session; with an agent, attach it at once.
    Create {
        /// A name, unique among your living sessions.
        #[arg(default_value = "")]
        name: String,
        /// Attach to this agent, in the project of this folder.
        #[arg(long)]
        agent: Option<String>,
        /// Nobody's, without a sign-in, where the gateway takes such: its cookie, which is kept here, is all that leads
        /// to it.
        #[arg(long)]
        anonymous: bool,
    },
    /// List your sessions, newest first: those of this folder's project, and those that are in none.
    List,
    /// Show one session.
    Get {
        /// The session, by name or id.
        session: String,
    },
    /// Bind a session to an agent and the project of this folder.
    Attach {
        /// The session, by name or id.
        session: String,
        /// The agent.
        #[arg(long)]
        agent: String,
        /// While it is busy, wait in line, at most so long (10m where you do not say), instead of giving up.
        #[arg(long, value_name = "TIME", value_parser = duration, num_args = 0..=1, require_equals = true,
              default_missing_value = "10m")]
        wait: Option<Duration>,
        /// Cancel your own jobs that keep it busy, then wait.
        #[arg(long)]
        cancel: bool,
    },
    /// Follow a session's log.
    Stream {
        /// The session, by name or id.
        session: String,
        /// Start after this sequence number.
        #[arg(long, default_value_t = 0, conflicts_with = "resume")]
        after: u64,
        /// Start where this client stopped reading, and remember how far it comes.
        #[arg(long)]
        resume: bool,
        /// End when everything that is stored has been printed.
        #[arg(long)]
        no_follow: bool,
    },
    /// Set the password that further clients join with, and what they become.
    Passwd {
        /// The session, by name or id.
        session: String,
        /// What joiners become.
        #[arg(long, value_enum, default_value_t = Joiners::Operator)]
        joiners: Joiners,
        /// Take all other clients out of the session.
        #[arg(long)]
        evict_others: bool,
        #[command(flatten)]
        password: Password,
    },
    /// Join a session by its password, as a client of its own. Needs no sign-in.
    Join {
        /// The session, by id; with `--owner`, by name.
        session: String,
        /// Whose session it is.
        #[arg(long)]
        owner: Option<String>,
        #[command(flatten)]
        password: Password,
    },
    /// List a session's clients, oldest first.
    Clients {
        /// The session, by name or id.
        session: String,
    },
    /// Take a client out of a session: its cookie is good no longer, its streams end.
    Evict {
        /// The session, by name or id.
        session: String,
        /// The client.
        client: String,
    },
    /// Leave a session. The last client's quit ends it.
    Quit {
        /// The session, by name or id.
        session: String,
    },
    /// Say something to a session's clients.
    Post {
        /// The session, by name or id.
        session: String,
        /// What to say.
        message: String,
        #[command(flatten)]
        to: To,
    },
    /// End a session.
    Close {
        /// The session, by name or id.
        session: String,
        /// End it although its jobs are in flight: queued ones are cancelled, running ones asked.
        #[arg(long)]
        force: bool,
    },
    /// Give a session whose owner is not known any more to an owner. For administrators; its clients go.
    Adopt {
        /// The session, by id.
        session: String,
        /// Whose it shall be; yours where you do not say.
        #[arg(long)]
        owner: Option<String>,
    },
}

/// Does it.
///
/// # Errors
/// What gateway-service refuses.
pub(crate) async fn run(session: Session, common: &Common) -> Result<(), Failure> {
    let caller = Caller::open(common)?;
    match session {
        Session::Create { name, agent, anonymous } => {
            if !anonymous {
                signed_in(common)?;
            }
            create(&caller, &name, agent.as_deref(), anonymous, common).await
        }
        Session::List => {
            signed_in(common)?;
            let found = caller.scoped().await?.sessions().list().await?;
            let rows: Vec<_> = found.iter().map(row).collect();
            let heading = ["ID", "NAME", "STATE", "AGENT", "PROJECT", "EPOCH", "IN FLIGHT"];
            Ok(common
                .output
                .print(&table(&heading, &rows), &Value::Array(found.iter().map(shown).collect()))?)
        }
        Session::Get { session } => {
            let id = id_of(&caller, common, &session).await?;
            let found = gateway_of(&caller, common, &id).await?.sessions().get(&id).await?;
            Ok(common.output.print(&described(&found), &shown(&found))?)
        }
        Session::Attach { session, agent, wait, cancel } => {
            let id = id_of(&caller, common, &session).await?;
            let gateway = gateway_of(&caller, common, &id).await?;
            let project = caller.project_id().await?;
            let sessions = gateway.with_project(project.clone()).sessions();
            let attached = match wait.or(cancel.then_some(ATTACH_WAIT)) {
                Some(wait) => sessions.attach_when_free(&id, &agent, &project, wait, cancel).await?,
                None => sessions.attach(&id, &agent, &project).await?,
            };
            let mut json = shown(&attached.session);
            json["changed"] = attached.changed.into();
            Ok(common.output.print(&described(&attached.session), &json)?)
        }
        Session::Stream { session, after, resume, no_follow } => {
            let id = id_of(&caller, common, &session).await?;
            let from = if resume { StreamFrom::Cursor } else { StreamFrom::After(after) };
            log::stream(&caller, &id, from, no_follow, common).await
        }
        Session::Passwd { session, joiners, evict_others, password } => {
            member::passwd(&caller, common, &session, joiners, evict_others, &password).await
        }
        Session::Join { session, owner, password } => {
            member::join(&caller, common, &session, owner.as_deref(), &password).await
        }
        Session::Clients { session } => member::clients(&caller, common, &session).await,
        Session::Evict { session, client } => member::evict(&caller, common, &session, &client).await,
        Session::Quit { session } => member::quit(&caller, common, &session).await,
        Session::Post { session, message, to } => member::post(&caller, common, &session, message, &to).await,
        Session::Adopt { session, owner } => {
            let sessions = signed_in(common)?.gateway().sessions();
            let (adopted, evicted) = sessions.adopt(&session, owner.as_deref()).await?;
            let text = format!("{} is {}'s; {evicted} clients went", adopted.session_id, adopted.owner_id);
            let json = json!({
                "session_id": adopted.session_id, "owner_id": adopted.owner_id, "name": adopted.name,
                "evicted": evicted,
            });
            Ok(common.output.print(&text, &json)?)
        }
        Session::Close { session, force } => {
            let id = id_of(&caller, common, &session).await?;
            let closed = gateway_of(&caller, common, &id).await?.sessions().close(&id, force).await?;
            if closed.gone {
                caller.jar.forget(&id)?;
            }
            let text = if closed.gone {
                format!("{id} is gone")
            } else {
                format!("{id} is closing; it waits for {} jobs", closed.jobs_in_flight)
            };
            let json =
                json!({ "session_id": id, "gone": closed.gone, "jobs_in_flight": closed.jobs_in_flight });
            Ok(common.output.print(&text, &json)?)
        }
    }
}

async fn create(
    caller: &Caller,
    name: &str,
    agent: Option<&str>,
    anonymous: bool,
    common: &Common,
) -> Result<(), Failure> {
    // Named before anything is made, so that a wrong project leaves no half-made session behind.
    let project = if agent.is_some() { Some(caller.project_id().await?) } else { None };
    let maker = if anonymous { caller.nobody() } else { caller.scoped().await? };
    let created = maker.sessions().create(name).await?;
    if let Some(cookie) = &created.cookie {
        caller.jar.keep(cookie)?;
    }
    let mut session = created.session;
    if let (Some(agent), Some(project)) = (agent, &project) {
        let gateway = match created.cookie.filter(|_| anonymous) {
            Some(cookie) => caller.client(cookie),
            None => caller.gateway(),
        };
        let gateway = gateway.with_project(project.clone());
        session = gateway.sessions().attach(&session.session_id, agent, project).await?.session;
    }
    let mut json = shown(&session);
    json["client_id"] = created.client_id.into();
    Ok(common.output.print(&described(&session), &json)?)
}

/// The id of the session that `name` is the name or the id of.
///
/// # Errors
/// Where the caller has no such session.
pub(crate) async fn resolve(caller: &Caller, name: &str) -> Result<String, Failure> {
    if name.starts_with("ses_") {
        return Ok(name.to_owned());
    }
    let sessions = caller.scoped().await?.sessions().list().await?;
    let found = sessions.into_iter().find(|session| session.name == name);
    found.map(|session| session.session_id).ok_or_else(|| {
        Failure::local(format!("no session `{name}` of yours in this project"))
            .next("interlock session list; one of another project by its id")
    })
}

fn row(session: &Found) -> Vec<String> {
    let (agent, project, epoch) = session.binding.as_ref().map_or_else(
        || ("-".to_owned(), "-".to_owned(), "0".to_owned()),
        |b| (b.agent_id.clone(), b.project_id.clone(), b.epoch.to_string()),
    );
    vec![
        session.session_id.clone(),
        session.name.clone(),
        state(session.state).to_owned(),
        agent,
        project,
        epoch,
        session.jobs_in_flight.to_string(),
    ]
}

pub(crate) fn described(session: &Found) -> String {
    let binding = session.binding.as_ref().map_or_else(
        || "not attached".to_owned(),
        |b| format!("agent {}, project {}, epoch {}", b.agent_id, b.project_id, b.epoch),
    );
    let name = if session.name.is_empty() { String::new() } else { format!(" ({})", session.name) };
    format!(
        "{}{name}: {}, {binding}, {} jobs in flight",
        session.session_id,
        state(session.state),
        session.jobs_in_flight
    )
}

pub(crate) fn shown(session: &Found) -> Value {
    let binding = session
        .binding
        .as_ref()
        .map(|b| json!({ "agent_id": b.agent_id, "project_id": b.project_id, "epoch": b.epoch }));
    json!({
        "session_id": session.session_id, "name": session.name, "owner_id": session.owner_id,
        "state": state(session.state), "binding": binding, "created_at": instant(session.created_at),
        "last_sequence": session.last_sequence, "jobs_in_flight": session.jobs_in_flight,
    })
}

fn state(state: SessionState) -> &'static str {
    match state {
        SessionState::Open => "open",
        SessionState::Closing => "closing",
        SessionState::Unknown => "unknown",
    }
}
