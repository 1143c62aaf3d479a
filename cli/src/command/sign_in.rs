//! `login`, `logout`, `status`.

use interlock_client::Reason;
use serde_json::json;

use crate::{
    args::Common, command::root, context::Caller, failure::Failure, keep::read_token, output::instant,
    password::Password,
};

/// How to sign in.
#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// The owner to sign in as. Without one, the token in `--token-file` becomes the sign-in.
    username: Option<String>,
    #[command(flatten)]
    password: Password,
}

/// Signs in and keeps the sign-in.
///
/// # Errors
/// Wrong name or password; a file that cannot be read or written.
pub(crate) async fn login(login: &Login, common: &Common) -> Result<(), Failure> {
    let caller = Caller::open(common)?;
    let username = match (&login.username, &common.token_file) {
        (Some(username), _) => username,
        (None, Some(file)) => return keep_token(&caller, file, common).await,
        (None, None) => {
            return Err(Failure::usage("who signs in?").next("interlock login NAME, or --token-file FILE"));
        }
    };
    let password = login.password.ask(&format!("Password of {username}: "))?;
    let session = caller.auth().login(username, &password).await?;
    caller.sign_in.keep_session(&session)?;
    let path = caller.sign_in.session_path().display().to_string();
    let text = format!(
        "signed in as {} ({}) until {}\nkept in {path}",
        session.display_name,
        session.role,
        instant(session.expires_at)
    );
    let json = json!({
        "username": session.username, "display_name": session.display_name, "role": session.role,
        "expires_at": instant(session.expires_at), "kept_in": path,
    });
    Ok(common.output.print(&text, &json)?)
}

async fn keep_token(caller: &Caller, file: &std::path::Path, common: &Common) -> Result<(), Failure> {
    let token = read_token(file)?;
    let who = caller.auth().whoami().await?;
    caller.sign_in.keep_token(&token)?;
    let text = format!("acting as {} ({}) from now on", who.owner_id, who.role);
    Ok(common.output.print(&text, &json!({ "owner_id": who.owner_id, "role": who.role }))?)
}

/// Ends the stored session everywhere, then forgets it.
///
/// # Errors
/// Where auth-service cannot be reached: the session is kept then, for another try.
pub(crate) async fn logout(common: &Common) -> Result<(), Failure> {
    let caller = Caller::open(common)?;
    let Some(session) = caller.sign_in.session()? else {
        caller.sign_in.forget()?;
        return Ok(common.output.print("was not signed in", &json!({ "ended": false }))?);
    };
    // The refresh token lives as long as the session does; the access token may have ended before.
    let reached = caller.auth().logout(&session.refresh_token).await?;
    caller.sign_in.forget()?;
    let Some(reached) = reached else {
        return Ok(common
            .output
            .print("signed out; the session had ended before", &json!({ "ended": false }))?);
    };
    let text = format!(
        "signed out; {} verifiers acknowledged, {} waited out, {} streams closed",
        reached.acknowledged, reached.fenced, reached.streams_closed
    );
    let json = json!({
        "ended": true, "acknowledged": reached.acknowledged, "fenced": reached.fenced,
        "streams_closed": reached.streams_closed,
    });
    Ok(common.output.print(&text, &json)?)
}

/// Says whether sign-in is enabled, who is signed in, and whether root is unlocked.
///
/// # Errors
/// Where auth-service cannot be reached.
pub(crate) async fn status(common: &Common) -> Result<(), Failure> {
    let caller = Caller::open(common)?;
    let status = match caller.auth().sign_in_status().await {
        // A dead sign-in is an answer here, not a failure.
        Err(error) if matches!(error.reason(), Some(Reason::ProviderAuthFailed | Reason::TokenExpired)) => {
            let root = root::standing(&caller).await?;
            let text = format!("Session auth: not signed in\n{}", root.line());
            return Ok(common
                .output
                .print(&text, &json!({ "authenticated": false, "root": root.json() }))?);
        }
        answer => answer?,
    };
    let root = root::standing(&caller).await?;
    let text = match &status.owner {
        Some(owner) => format!("Session auth: {} ({})", owner.display_name, owner.role),
        None if status.enabled => "Session auth: not signed in".to_owned(),
        None => "Session auth: disabled: no owner can sign in".to_owned(),
    };
    let owner = status.owner.as_ref();
    let json = json!({
        "enabled": status.enabled, "authenticated": owner.is_some(), "username": owner.map(|o| &o.username),
        "display_name": owner.map(|o| &o.display_name), "role": owner.map(|o| &o.role),
        "expires_at": owner.and_then(|o| o.expires_at).map(instant), "root": root.json(),
    });
    Ok(common.output.print(&format!("{text}\n{}", root.line()), &json)?)
}
