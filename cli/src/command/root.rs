//! `root unlock|lock|status`: a short rise of the stored sign-in.

use std::time::Duration;

use interlock_client::{Credentials, Reason, RootStatus};
use serde_json::{Value, json};

use crate::{
    args::Common, command::duration, context::Caller, failure::Failure, output::instant, password::Password,
};

/// What to do with root.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Root {
    /// Unlock it, with the root password.
    Unlock {
        #[command(flatten)]
        password: Password,
        /// For how long, as in `5m`: 1 m to 1 h, and no longer than the service is configured for.
        #[arg(long, value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// Lock it: dead everywhere when this returns.
    Lock,
    /// Say whether it is locked.
    Status,
}

/// How it stands with root, as people and programs are told.
pub(crate) struct Standing(RootStatus);

impl Standing {
    /// The line of `interlock status`.
    pub(crate) fn line(&self) -> String {
        format!("Root auth: {}", self.word())
    }

    /// `locked`, `unlocked` or `session-root`.
    pub(crate) fn word(&self) -> &'static str {
        match self.0 {
            RootStatus { unlocked_until: Some(_), .. } => "unlocked",
            RootStatus { session_root: true, .. } => "session-root",
            RootStatus { .. } => "locked",
        }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "state": self.word(), "enabled": self.0.enabled, "unlocked": self.0.unlocked_until.is_some(),
            "expires_at": self.0.unlocked_until.map(instant), "session_root": self.0.session_root,
        })
    }
}

/// How it stands for the caller; a sign-in that is dead is nobody's.
///
/// # Errors
/// Where auth-service cannot be reached.
pub(crate) async fn standing(caller: &Caller) -> Result<Standing, Failure> {
    let status = match caller.auth().root_status().await {
        Err(error) if matches!(error.reason(), Some(Reason::ProviderAuthFailed | Reason::TokenExpired)) => {
            caller.auth().with_credentials(Credentials::none()).root_status().await
        }
        answer => answer,
    };
    Ok(Standing(status?))
}

/// Does it.
///
/// # Errors
/// `LOGIN_REQUIRED` without an owner session; what auth-service refuses.
pub(crate) async fn run(root: Root, common: &Common) -> Result<(), Failure> {
    let caller = Caller::open(common)?;
    match root {
        Root::Unlock { password, ttl } => {
            owner_session_needed(&caller, common)?;
            let password = password.ask("Root password: ")?;
            let unlocked = caller.auth().unlock_root(&password, ttl).await?;
            let until = instant(unlocked.expires_at);
            let json = json!({ "state": "unlocked", "expires_at": until });
            common.output.print(&format!("Root auth: unlocked\nuntil {until}"), &json)?;
        }
        Root::Lock => {
            owner_session_needed(&caller, common)?;
            let ended = caller.auth().lock_root().await?.is_some();
            let text = if ended { "Root auth: locked" } else { "Root auth: locked; it was before" };
            common.output.print(text, &json!({ "state": "locked", "ended": ended }))?;
        }
        Root::Status => {
            let standing = standing(&caller).await?;
            let mut text = standing.line();
            if let Some(until) = standing.0.unlocked_until {
                text.push_str(&format!("\nuntil {}", instant(until)));
            }
            if !standing.0.enabled {
                text.push_str("\nno root password is configured: it cannot be unlocked");
            }
            common.output.print(&text, &standing.json())?;
        }
    }
    Ok(())
}

/// FN-22: sign in first. A token is no owner session, and nobody is asked for a password in vain.
fn owner_session_needed(caller: &Caller, common: &Common) -> Result<(), Failure> {
    if common.token_file.is_none() && caller.sign_in.session()?.is_some() {
        return Ok(());
    }
    Err(Failure::refused(Reason::LoginRequired, "this takes an owner session"))
}
