//! `project token issue|list|rotate|revoke`: credentials of one project.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use interlock_client::{IssuedToken, ProjectToken, TokenGrant};
use serde_json::{Value, json};

use crate::{
    args::Common,
    command::duration,
    context::Caller,
    failure::Failure,
    keep::write_private,
    output::{instant, table},
};

/// What to do with the tokens of this folder's project.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Token {
    /// Issue a token that acts for you in this project, and nowhere else.
    Issue {
        /// What it is for, for people.
        #[arg(default_value = "")]
        label: String,
        /// What it may do: sessions:read, sessions:write, jobs:submit, jobs:read, jobs:work. May be repeated.
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// With jobs:work: only jobs of this agent. May be repeated.
        #[arg(long = "agent", value_name = "AGENT")]
        agents: Vec<String>,
        /// How long it lives, as in `720h`. Until it is revoked, otherwise.
        #[arg(long, value_parser = duration)]
        ttl: Option<Duration>,
        /// Write the token to this file instead of printing it.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// List the project's tokens, masked.
    List,
    /// Replace a token of yours; the old one is dead everywhere when this returns.
    Rotate {
        /// The token's id, `crd_…`.
        token: String,
        /// Let the old one live on for a while, as in `10m`.
        #[arg(long, value_parser = duration, default_value = "0s")]
        grace: Duration,
        /// How long the new one lives. As long as the old one did, otherwise.
        #[arg(long, value_parser = duration)]
        ttl: Option<Duration>,
        /// Write the new token to this file instead of printing it.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// End a token: it is dead everywhere when this returns.
    Revoke {
        /// The token's id, `crd_…`.
        token: String,
    },
}

/// Does it.
///
/// # Errors
/// What auth-service refuses; a file that cannot be written.
pub(crate) async fn run(token: Token, caller: &Caller, common: &Common) -> Result<(), Failure> {
    let project = caller.project_id().await?;
    let auth = caller.auth();
    match token {
        Token::Issue { label, scopes, agents, ttl, to } => {
            let grant = TokenGrant { label, scopes, agent_ids: agents, ttl };
            hand_out(&auth.issue_token(&project, grant).await?, to.as_deref(), common)
        }
        Token::Rotate { token, grace, ttl, to } => {
            hand_out(&auth.rotate_token(&project, &token, grace, ttl).await?, to.as_deref(), common)
        }
        Token::List => {
            let tokens = auth.list_tokens(&project).await?;
            let rows: Vec<_> = tokens.iter().map(row).collect();
            let heading = ["ID", "LABEL", "ISSUER", "SCOPES", "AGENTS", "TOKEN", "EXPIRES", "STATE"];
            let json = Value::Array(tokens.iter().map(shown).collect());
            Ok(common.output.print(&table(&heading, &rows), &json)?)
        }
        Token::Revoke { token } => {
            let reached = auth.revoke_token(&project, &token).await?;
            let text = format!(
                "{token} is revoked; {} verifiers acknowledged, {} waited out, {} streams closed",
                reached.acknowledged, reached.fenced, reached.streams_closed
            );
            let json = json!({
                "token_id": token, "acknowledged": reached.acknowledged, "fenced": reached.fenced,
                "streams_closed": reached.streams_closed,
            });
            Ok(common.output.print(&text, &json)?)
        }
    }
}

/// Shows the secret once, or puts it into a file that only this user can read.
fn hand_out(issued: &IssuedToken, to: Option<&Path>, common: &Common) -> Result<(), Failure> {
    let IssuedToken { secret, token, .. } = issued;
    let told = match to {
        Some(file) => {
            write_private(file, format!("{}\n", secret.expose()).as_bytes())?;
            format!("written to {}", file.display())
        }
        None => secret.expose().to_owned(),
    };
    let mut json = shown(token);
    json["token"] = to.is_none().then(|| secret.expose()).into();
    Ok(common.output.print(&format!("{}: {told}", token.token_id), &json)?)
}

fn state(token: &ProjectToken) -> &'static str {
    let now = interlock_client::Clock::system().wall();
    if token.revoked_at.is_some() {
        "revoked"
    } else if token.expires_at.is_some_and(|at| at <= now) {
        "expired"
    } else if token.replaced {
        "replaced"
    } else {
        "valid"
    }
}

fn row(token: &ProjectToken) -> Vec<String> {
    vec![
        token.token_id.clone(),
        token.label.clone(),
        token.issuer_id.clone(),
        token.scopes.join(" "),
        token.agent_ids.join(" "),
        token.masked.clone(),
        instant(token.expires_at),
        state(token).to_owned(),
    ]
}

fn shown(token: &ProjectToken) -> Value {
    json!({
        "token_id": token.token_id, "project_id": token.project_id, "issuer_id": token.issuer_id,
        "label": token.label, "scopes": token.scopes, "agent_ids": token.agent_ids, "masked": token.masked,
        "created_at": instant(token.created_at), "expires_at": token.expires_at.map(instant),
        "revoked_at": token.revoked_at.map(instant), "state": state(token),
    })
}
