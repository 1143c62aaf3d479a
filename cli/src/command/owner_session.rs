//! `auth sessions list|revoke`: who is signed in, and how to end it.

use std::time::Duration;

use interlock_client::{Clock, EndSignIns, SignIn, SignInsOf};
use serde_json::{Value, json};

use crate::{
    args::Common,
    command::duration,
    context::Caller,
    failure::Failure,
    output::{instant, table},
};

/// What to do with owner sessions.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Sessions {
    /// List the living ones: your own.
    List {
        /// Those of this owner; administrators only.
        #[arg(long, value_name = "OWNER", conflicts_with = "all")]
        owner: Option<String>,
        /// Those of everybody; administrators only.
        #[arg(long)]
        all: bool,
    },
    /// End them: they are dead everywhere when this returns.
    Revoke {
        /// This one, `ows_…`.
        #[arg(required_unless_present_any = ["owner", "all"], conflicts_with_all = ["owner", "all"])]
        session: Option<String>,
        /// Those of this owner.
        #[arg(long, value_name = "OWNER", conflicts_with = "all")]
        owner: Option<String>,
        /// Those of everybody; administrators only.
        #[arg(long)]
        all: bool,
        /// Only those that began longer ago than this, as in `2h`, by this host's clock.
        #[arg(long, value_parser = duration, value_name = "SPAN", conflicts_with = "session")]
        older_than: Option<Duration>,
    },
}

/// Does it.
///
/// # Errors
/// What auth-service refuses.
pub(crate) async fn run(sessions: Sessions, caller: &Caller, common: &Common) -> Result<(), Failure> {
    match sessions {
        Sessions::List { owner, all } => {
            let of = match (owner, all) {
                (Some(owner), _) => SignInsOf::Owner(owner),
                (None, true) => SignInsOf::Everybody,
                (None, false) => SignInsOf::Own,
            };
            let found = caller.auth().sign_ins(of).await?;
            let rows: Vec<_> = found.iter().map(row).collect();
            let heading = ["SESSION", "OWNER", "SINCE", "UNTIL", "REFRESHES", "ROOT", ""];
            let json = Value::Array(found.iter().map(shown).collect());
            Ok(common.output.print(&table(&heading, &rows), &json)?)
        }
        Sessions::Revoke { session, owner, all: _, older_than } => {
            let before = older_than.map(|span| Clock::system().wall() - span);
            let (which, what) = match (session, owner) {
                (Some(session), _) => (EndSignIns::One(session.clone()), session),
                (None, Some(owner)) => {
                    let what = format!("owner sessions of {owner}");
                    (EndSignIns::Owner(owner, before), what)
                }
                (None, None) => (EndSignIns::Everybody(before), "owner sessions of everybody".to_owned()),
            };
            let Some(reached) = caller.auth().end_sign_ins(which).await? else {
                let text = format!("{what}: had ended before");
                return Ok(common.output.print(&text, &json!({ "ended": false }))?);
            };
            let text = format!(
                "{what}: ended; {} verifiers acknowledged, {} waited out, {} streams closed",
                reached.acknowledged, reached.fenced, reached.streams_closed
            );
            let json = json!({
                "ended": true, "acknowledged": reached.acknowledged, "fenced": reached.fenced,
                "streams_closed": reached.streams_closed,
            });
            Ok(common.output.print(&text, &json)?)
        }
    }
}

fn row(session: &SignIn) -> Vec<String> {
    vec![
        session.owner_session_id.clone(),
        session.owner_id.clone(),
        instant(session.created_at),
        instant(session.expires_at),
        session.refreshes.to_string(),
        if session.unlocked_until.is_some() { "unlocked" } else { "locked" }.to_owned(),
        if session.current { "this one" } else { "" }.to_owned(),
    ]
}

fn shown(session: &SignIn) -> Value {
    json!({
        "owner_session_id": session.owner_session_id, "owner_id": session.owner_id,
        "created_at": instant(session.created_at), "expires_at": instant(session.expires_at),
        "refreshes": session.refreshes, "unlocked_until": session.unlocked_until.map(instant),
        "current": session.current,
    })
}
