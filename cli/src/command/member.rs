//! `session passwd|join|clients|evict|quit|post`: the clients of a session.

use interlock_client::{ClientRole, Gateway, JoinTarget, PostTo, Reason, SessionClient};
use serde_json::{Value, json};

use super::session::{described, resolve, shown};
use crate::{
    args::Common,
    command::signed_in,
    context::Caller,
    failure::Failure,
    output::{instant, table},
    password::Password,
};

/// What joiners become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Joiners {
    /// They read, submit, cancel their own jobs and post.
    Operator,
    /// They read.
    Observer,
}

/// Whom a message is for.
#[derive(Debug, clap::Args)]
pub(crate) struct To {
    /// Only this client, by its id.
    #[arg(long = "to", value_name = "CLIENT", conflicts_with = "others")]
    client: Option<String>,
    /// All but you.
    #[arg(long)]
    others: bool,
}

/// Calls about one session: on the sign-in; and where there is none, or the session is another owner's, as the client
/// that has joined it from here.
///
/// # Errors
/// Where there is neither.
pub(crate) async fn gateway_of(caller: &Caller, common: &Common, id: &str) -> Result<Gateway, Failure> {
    let cookie = caller.jar.of(id)?;
    match (caller.is_signed_in(common)?, cookie) {
        (true, None) => caller.scoped().await,
        (true, Some(cookie)) => {
            let own = caller.scoped().await?;
            match own.sessions().get(id).await {
                Err(error) if error.reason() == Some(Reason::OwnerMismatch) => Ok(caller.client(cookie)),
                _ => Ok(own),
            }
        }
        (false, Some(cookie)) => Ok(caller.client(cookie)),
        (false, None) => Err(Failure::not_signed_in()),
    }
}

/// The id of a session. Without a sign-in it cannot be found by its name.
pub(crate) async fn id_of(caller: &Caller, common: &Common, session: &str) -> Result<String, Failure> {
    if !session.starts_with("ses_") {
        signed_in(common)?;
    }
    resolve(caller, session).await
}

/// Sets the password that clients join with.
pub(crate) async fn passwd(
    caller: &Caller,
    common: &Common,
    session: &str,
    joiners: Joiners,
    evict_others: bool,
    from: &Password,
) -> Result<(), Failure> {
    let id = id_of(caller, common, session).await?;
    let gateway = gateway_of(caller, common, &id).await?;
    // The client that is kept here is none of the others.
    let gateway = match caller.jar.of(&id)? {
        Some(cookie) if evict_others => gateway.with_cookie(cookie),
        _ => gateway,
    };
    let password = from.ask("New password of the session: ")?;
    let role = match joiners {
        Joiners::Operator => ClientRole::Operator,
        Joiners::Observer => ClientRole::Observer,
    };
    let evicted = gateway.sessions().set_password(&id, &password, role, evict_others).await?;
    let mut text =
        format!("set; whoever knows it joins {id} as {}: interlock session join {id}", role.as_str());
    if evict_others {
        text.push_str(&format!("\n{evicted} clients were taken out"));
    }
    let json = json!({ "session_id": id, "joiners": role.as_str(), "evicted": evicted });
    Ok(common.output.print(&text, &json)?)
}

/// Joins a session and keeps the cookie.
pub(crate) async fn join(
    caller: &Caller,
    common: &Common,
    session: &str,
    owner: Option<&str>,
    from: &Password,
) -> Result<(), Failure> {
    let target = match owner {
        Some(owner_id) => JoinTarget::Named { owner_id, name: session },
        None if session.starts_with("ses_") => JoinTarget::Id(session),
        None => {
            return Err(Failure::usage("a session is joined by its id, or by its owner and its name")
                .next("--owner OWNER"));
        }
    };
    let password = from.ask("Password of the session: ")?;
    let joined = caller.nobody().sessions().join(target, &password).await?;
    let kept_in = caller.jar.keep(&joined.cookie)?;
    let others = joined.clients.len() - 1;
    let text = format!(
        "joined as {} ({}), beside {others} others\n{}\nkept in {}",
        joined.client_id,
        joined.role.as_str(),
        described(&joined.session),
        kept_in.display()
    );
    let mut json = shown(&joined.session);
    json["client_id"] = joined.client_id.into();
    json["role"] = joined.role.as_str().into();
    json["clients"] = Value::Array(joined.clients.iter().map(client).collect());
    Ok(common.output.print(&text, &json)?)
}

/// Lists the clients.
pub(crate) async fn clients(caller: &Caller, common: &Common, session: &str) -> Result<(), Failure> {
    let id = id_of(caller, common, session).await?;
    let found = gateway_of(caller, common, &id).await?.sessions().clients(&id).await?;
    let rows: Vec<_> = found.iter().map(row).collect();
    let heading = ["ID", "ROLE", "READ UP TO", "JOINED", "SEEN", ""];
    Ok(common.output.print(&table(&heading, &rows), &Value::Array(found.iter().map(client).collect()))?)
}

/// Takes a client out.
pub(crate) async fn evict(
    caller: &Caller,
    common: &Common,
    session: &str,
    client: &str,
) -> Result<(), Failure> {
    let id = id_of(caller, common, session).await?;
    let evicted = gateway_of(caller, common, &id).await?.sessions().evict(&id, client).await?;
    let text = match evicted {
        true => format!("{client} is no longer of {id}"),
        false => format!("{id} has no client {client}"),
    };
    let json = json!({ "session_id": id, "client_id": client, "evicted": evicted });
    Ok(common.output.print(&text, &json)?)
}

/// Leaves a session, as the client that is kept here, and forgets the cookie.
pub(crate) async fn quit(caller: &Caller, common: &Common, session: &str) -> Result<(), Failure> {
    let id = id_of(caller, common, session).await?;
    let cookie = caller.jar.of(&id)?.ok_or_else(|| {
        Failure::usage("no client of this session is kept here").next("interlock session close ends it")
    })?;
    let left = match caller.client(cookie).sessions().quit(&id).await {
        // It has left before, or was taken out: what is kept is good for nothing.
        Err(error) if error.reason() == Some(Reason::ProviderAuthFailed) => None,
        answer => Some(answer?),
    };
    caller.jar.forget(&id)?;
    let ends = left.is_some_and(|left| left.session_ends);
    let waits = left.map_or(0, |left| left.jobs_in_flight);
    let text = match (ends, waits) {
        (false, _) => format!("left {id}"),
        (true, 0) => format!("left {id}, which had no other client, and is gone"),
        (true, jobs) => format!("left {id}, which ends; it waits for {jobs} jobs"),
    };
    let json = json!({ "session_id": id, "session_ends": ends, "jobs_in_flight": waits });
    Ok(common.output.print(&text, &json)?)
}

/// Says something.
pub(crate) async fn post(
    caller: &Caller,
    common: &Common,
    session: &str,
    message: String,
    to: &To,
) -> Result<(), Failure> {
    let id = id_of(caller, common, session).await?;
    let address = match (&to.client, to.others) {
        (Some(client), _) => PostTo::Client(client),
        (None, true) => PostTo::Others,
        (None, false) => PostTo::All,
    };
    let sequence = gateway_of(caller, common, &id).await?.sessions().post(&id, address, message).await?;
    let json = json!({ "session_id": id, "sequence": sequence });
    Ok(common.output.print(&format!("said, as event {sequence}"), &json)?)
}

fn row(client: &SessionClient) -> Vec<String> {
    vec![
        client.client_id.clone(),
        client.role.as_str().to_owned(),
        client.cursor.to_string(),
        instant(client.joined_at),
        instant(client.seen_at),
        if client.calling { "you".to_owned() } else { String::new() },
    ]
}

fn client(client: &SessionClient) -> Value {
    json!({
        "client_id": client.client_id, "role": client.role.as_str(), "cursor": client.cursor,
        "joined_at": instant(client.joined_at), "seen_at": instant(client.seen_at), "calling": client.calling,
    })
}
