//! `auth status|rotate`: role tokens. `auth sessions` is in `owner_session.rs`.

use std::{path::PathBuf, time::Duration};

use interlock_client::{Credential, RoleToken};
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
    /// Show both role tokens, masked.
    Status {
        /// Show the tokens themselves and where they are kept; audited.
        #[arg(long)]
        reveal: bool,
    },
    /// Replace one role's token; the old one is dead everywhere when this returns.
    Rotate {
        /// `admin` or `user`.
        role: String,
        /// Let the old one live on for a while, as in `10m`.
        #[arg(long, value_parser = duration, default_value = "0s")]
        grace: Duration,
        /// Write the new token to this file instead of printing it.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Owner sessions: who is signed in, and how to end it.
    #[command(subcommand)]
    Sessions(Sessions),
}

/// Does it.
///
/// # Errors
/// What auth-service refuses; a file that cannot be written.
pub(crate) async fn run(auth: Auth, common: &Common) -> Result<(), Failure> {
    let caller = signed_in(common)?;
    match auth {
        Auth::Sessions(sessions) => owner_session::run(sessions, &caller, common).await?,
        Auth::Status { reveal } => {
            let tokens = caller.auth().role_tokens(reveal).await?;
            let rows: Vec<_> = tokens.tokens.iter().map(row).collect();
            let mut text = table(&["ROLE", "GENERATION", "TOKEN", "CREATED", "VALID UNTIL"], &rows);
            let copy = if tokens.recoverable { "yes" } else { "no" };
            text.push_str(&format!("\nrecoverable copy: {copy}"));
            if let Some(path) = &tokens.path {
                text.push_str(&format!("\npath: {path}"));
            }
            let json = json!({
                "tokens": tokens.tokens.iter().map(shown).collect::<Vec<_>>(),
                "path": tokens.path, "recoverable": tokens.recoverable,
            });
            common.output.print(&text, &json)?;
        }
        Auth::Rotate { role, grace, to } => {
            let rotated = caller.auth().rotate_role_token(&role, grace).await?;
            let shown = match &to {
                Some(file) => {
                    write_private(file, format!("{}\n", rotated.token.expose()).as_bytes())?;
                    format!("written to {}", file.display())
                }
                None => rotated.token.expose().to_owned(),
            };
            let text = format!("{role} generation {}: {shown}", rotated.generation);
            let token = to.is_none().then(|| rotated.token.expose());
            let json = json!({ "role": role, "generation": rotated.generation, "token": token });
            common.output.print(&text, &json)?;
        }
    }
    Ok(())
}

fn row(token: &RoleToken) -> Vec<String> {
    vec![
        token.role.clone(),
        token.generation.to_string(),
        token.token.as_ref().map_or_else(|| token.masked.clone(), |t| t.expose().to_owned()),
        instant(token.created_at),
        instant(token.valid_until),
    ]
}

fn shown(token: &RoleToken) -> Value {
    json!({
        "role": token.role, "generation": token.generation, "masked": token.masked,
        "token": token.token.as_ref().map(Credential::expose), "credential_id": token.credential_id,
        "created_at": instant(token.created_at), "valid_until": token.valid_until.map(instant),
    })
}
