//! `auth status|rotate`: role tokens. `auth sessions` is in `owner_session.rs`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use interlock_client::{Auth as Service, Credential, Reached, RoleToken, RoleTokens, TokenUse};
use serde_json::{Value, json};

use crate::{
    args::Common,
    command::{
        duration,
        owner_session::{self, Sessions},
        signed_in,
    },
    failure::Failure,
    keep::write_private,
    output::{instant, table},
};

/// What to do with role tokens and owner sessions.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Auth {
    /// Show both role tokens, masked, and who used them lately.
    Status {
        /// Show the tokens themselves and where they are kept; audited.
        #[arg(long)]
        reveal: bool,
    },
    /// Replace one role's token: at once, when this returns the old one is dead everywhere; or in two phases.
    Rotate(Rotate),
    /// Owner sessions: who is signed in, and how to end it.
    #[command(subcommand)]
    Sessions(Sessions),
}

/// Which token, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Rotate {
    /// `admin` or `user`.
    role: String,
    /// Let the old one live on for a while, as in `10m`.
    #[arg(long, value_parser = duration, default_value = "0s")]
    grace: Duration,
    /// Write the new token to this file instead of printing it.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Begin a rotation in two phases: both tokens are good until it is committed or aborted.
    #[arg(long, conflicts_with = "grace")]
    two_phase: bool,
    /// Commit the open one: the old token is dead everywhere when this returns. Refused while it is in use.
    #[arg(long, conflicts_with_all = ["grace", "to", "two_phase", "abort"])]
    commit: bool,
    /// Commit although the old one is in use.
    #[arg(long, requires = "commit")]
    force: bool,
    /// Give the open one up: the new token is dead everywhere when this returns.
    #[arg(long, conflicts_with_all = ["grace", "to", "two_phase"])]
    abort: bool,
}

/// Does it.
///
/// # Errors
/// What auth-service refuses; a file that cannot be written.
pub(crate) async fn run(auth: Auth, common: &Common) -> Result<(), Failure> {
    let caller = signed_in(common)?;
    match auth {
        Auth::Sessions(sessions) => owner_session::run(sessions, &caller, common).await,
        Auth::Status { reveal } => show_status(&caller.auth().role_tokens(reveal).await?, common),
        Auth::Rotate(asked) if asked.two_phase => begin(&caller.auth(), &asked, common).await,
        Auth::Rotate(asked) if asked.commit || asked.abort => end(&caller.auth(), &asked, common).await,
        Auth::Rotate(asked) => rotate(&caller.auth(), &asked, common).await,
    }
}

async fn rotate(auth: &Service, asked: &Rotate, common: &Common) -> Result<(), Failure> {
    let Rotate { role, grace, to, .. } = asked;
    let rotated = auth.rotate_role_token(role, *grace).await?;
    let shown = given(&rotated.token, to.as_deref())?;
    let text = format!("{role} generation {}: {shown}", rotated.generation);
    let token = to.is_none().then(|| rotated.token.expose());
    let json = json!({ "role": role, "generation": rotated.generation, "token": token });
    Ok(common.output.print(&text, &json)?)
}

/// The next token, and who uses those that it is to replace.
async fn begin(auth: &Service, asked: &Rotate, common: &Common) -> Result<(), Failure> {
    let Rotate { role, to, .. } = asked;
    let begun = auth.begin_rotation(role).await?;
    let shown = given(&begun.token, to.as_deref())?;
    let mut text = format!("{role} generation {}: {shown}\npath: {}\n", begun.generation, begun.path);
    // It was begun: that nobody can be told of now is no reason to say that it was not.
    let all = auth.role_tokens(false).await.map(|status| status.tokens).unwrap_or_default();
    let earlier: Vec<_> = all.iter().filter(|token| token.role == *role && !token.candidate).collect();
    text.push_str(&match users(&earlier) {
        rows if rows.is_empty() => "nobody has used the old one lately".to_owned(),
        rows => format!("who used the old one lately:\n{}", used_table(&rows)),
    });
    text.push_str(&format!(
        "\nbring the new one to them, then: interlock auth rotate {role} --commit (or --abort)"
    ));
    let json = json!({
        "role": role, "generation": begun.generation, "credential_id": begun.credential_id,
        "token": to.is_none().then(|| begun.token.expose()), "path": begun.path,
        "earlier": earlier.into_iter().map(shown_token).collect::<Vec<_>>(),
    });
    Ok(common.output.print(&text, &json)?)
}

/// Commits or aborts the one that is open.
async fn end(auth: &Service, asked: &Rotate, common: &Common) -> Result<(), Failure> {
    let Rotate { role, commit, force, .. } = asked;
    let status = auth.role_tokens(false).await?;
    let open = status.tokens.iter().find(|token| token.role == *role && token.candidate);
    // Where none is open the service says so, of a role that there is.
    let candidate = open.map_or("none", |token| token.credential_id.as_str());
    let (ended, done) = if *commit {
        (auth.commit_rotation(role, candidate, *force).await?, "committed: all earlier tokens are dead")
    } else {
        (auth.abort_rotation(role, candidate).await?, "aborted: dead everywhere")
    };
    let text = format!("{role} generation {} {done}", ended.generation);
    let reached = ended.reached.map(|Reached { acknowledged, fenced, streams_closed }| {
        json!({ "acknowledged": acknowledged, "fenced": fenced, "streams_closed": streams_closed })
    });
    let json = json!({
        "role": role, "generation": ended.generation, "committed": commit, "reached": reached,
    });
    Ok(common.output.print(&text, &json)?)
}

/// A new token, written to its file or to be printed.
fn given(token: &Credential, to: Option<&Path>) -> Result<String, Failure> {
    let Some(file) = to else { return Ok(token.expose().to_owned()) };
    write_private(file, format!("{}\n", token.expose()).as_bytes())?;
    Ok(format!("written to {}", file.display()))
}

fn show_status(status: &RoleTokens, common: &Common) -> Result<(), Failure> {
    let rows: Vec<_> = status.tokens.iter().map(row).collect();
    let head = ["ROLE", "GENERATION", "TOKEN", "CREATED", "VALID UNTIL", "LAST USED"];
    let mut text = table(&head, &rows);
    let used = users(&status.tokens.iter().collect::<Vec<_>>());
    if !used.is_empty() {
        text.push_str(&format!("\n\n{}", used_table(&used)));
    }
    for open in status.tokens.iter().filter(|token| token.candidate) {
        let RoleToken { role, generation, .. } = open;
        let since = instant(open.created_at);
        text.push_str(&format!(
            "\nthe rotation of {role} to generation {generation} has been open since {since}: interlock auth rotate {role} --commit, or --abort"
        ));
    }
    let copy = if status.recoverable { "yes" } else { "no" };
    text.push_str(&format!("\nrecoverable copy: {copy}"));
    if let Some(path) = &status.path {
        text.push_str(&format!("\npath: {path}"));
    }
    let json = json!({
        "tokens": status.tokens.iter().map(shown_token).collect::<Vec<_>>(),
        "path": status.path, "recoverable": status.recoverable,
    });
    Ok(common.output.print(&text, &json)?)
}

fn row(token: &RoleToken) -> Vec<String> {
    let until = if token.candidate { "not committed".to_owned() } else { instant(token.valid_until) };
    vec![
        token.role.clone(),
        token.generation.to_string(),
        token.token.as_ref().map_or_else(|| token.masked.clone(), |t| t.expose().to_owned()),
        instant(token.created_at),
        until,
        token.uses.first().map_or_else(|| "not seen".to_owned(), |used| instant(used.last_used_at)),
    ]
}

/// Who used these, a row each.
fn users(tokens: &[&RoleToken]) -> Vec<Vec<String>> {
    let of = |token: &&RoleToken| {
        let (role, generation) = (token.role.clone(), token.generation.to_string());
        let row = move |used: &TokenUse| {
            let source = if used.source.is_empty() { "unknown" } else { &used.source };
            vec![
                role.clone(),
                generation.clone(),
                instant(used.last_used_at),
                used.service.clone(),
                source.to_owned(),
                used.noted.to_string(),
            ]
        };
        token.uses.iter().map(row).collect::<Vec<_>>()
    };
    tokens.iter().flat_map(of).collect()
}

fn used_table(rows: &[Vec<String>]) -> String {
    table(&["ROLE", "GENERATION", "LAST USED", "BY", "FROM", "NOTED"], rows)
}

fn shown_token(token: &RoleToken) -> Value {
    let used = |used: &TokenUse| {
        json!({
            "service": used.service, "source": used.source, "last_used_at": used.last_used_at.map(instant),
            "noted": used.noted,
        })
    };
    json!({
        "role": token.role, "generation": token.generation, "masked": token.masked,
        "token": token.token.as_ref().map(Credential::expose), "credential_id": token.credential_id,
        "created_at": instant(token.created_at), "valid_until": token.valid_until.map(instant),
        "candidate": token.candidate, "uses": token.uses.iter().map(used).collect::<Vec<_>>(),
    })
}
