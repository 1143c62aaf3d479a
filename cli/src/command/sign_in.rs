//! `login`, `logout`, `status`.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    path::PathBuf,
};

use interlock_client::Reason;
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    args::Common,
    context::Caller,
    failure::Failure,
    keep::{read_secret, read_token},
    output::instant,
};

/// How to sign in.
#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// The owner to sign in as. Without one, the token in `--token-file` becomes the sign-in.
    username: Option<String>,
    /// Read the password from this file instead of the terminal.
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
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
    let password = password(login, username)?;
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

fn password(login: &Login, username: &str) -> Result<Zeroizing<String>, Failure> {
    if let Some(file) = &login.password_file {
        let text = read_secret(file)?;
        return Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    if login.password_stdin {
        let mut line = Zeroizing::new(String::new());
        io::stdin().lock().read_line(&mut line)?;
        return Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()));
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("no terminal to ask for the password on")
            .next("--password-file FILE or --password-stdin"));
    }
    Ok(Zeroizing::new(rpassword::prompt_password(format!("Password of {username}: "))?))
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

/// Says whether sign-in is enabled and who is signed in.
///
/// # Errors
/// Where auth-service cannot be reached.
pub(crate) async fn status(common: &Common) -> Result<(), Failure> {
    let caller = Caller::open(common)?;
    let status = match caller.auth().sign_in_status().await {
        // A dead sign-in is an answer here, not a failure.
        Err(error) if matches!(error.reason(), Some(Reason::ProviderAuthFailed | Reason::TokenExpired)) => {
            return Ok(common
                .output
                .print("Session auth: not signed in", &json!({ "authenticated": false }))?);
        }
        answer => answer?,
    };
    let text = match &status.owner {
        Some(owner) => format!("Session auth: {} ({})", owner.display_name, owner.role),
        None if status.enabled => "Session auth: not signed in".to_owned(),
        None => "Session auth: disabled: no owner can sign in".to_owned(),
    };
    let owner = status.owner.as_ref();
    let json = json!({
        "enabled": status.enabled, "authenticated": owner.is_some(), "username": owner.map(|o| &o.username),
        "display_name": owner.map(|o| &o.display_name), "role": owner.map(|o| &o.role),
        "expires_at": owner.and_then(|o| o.expires_at).map(instant),
    });
    Ok(common.output.print(&text, &json)?)
}
