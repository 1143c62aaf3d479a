//! Role tokens at each start: made where the store has none, and the recoverable copy brought into step.
//!
//! `role_token.rs` has the protocol. A copy whose store is gone gives its tokens to the new store: the clients
//! that were told them go on working.

use interlock_kit::{error::Error, random};
use interlock_proto::credential::Credential;
use thiserror::Error as ThisError;

use crate::{
    parts::host_call,
    role_token::{First, FirstTokens, PresentTokens, ResetTokens, Role},
    sign_in::stored_form,
    store::Shell,
    token_file::{TokenFile, TokenFileError, Tokens},
};

/// Why the role tokens are not in order. The store and the copy are left as they are.
#[derive(Debug, ThisError)]
pub enum TokensError {
    /// The copy.
    #[error(transparent)]
    File(#[from] TokenFileError),
    /// The store.
    #[error("role tokens: {0}")]
    Store(#[from] Error),
}

impl TokensError {
    /// Whether somebody has to mend the copy first: exit code 64.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::File(error) if error.is_configuration())
    }
}

/// What a start found.
#[derive(Debug)]
pub struct Started {
    /// The tokens that were made now: to be printed once, if that is asked.
    pub made: Option<Tokens>,
    /// Neither store nor copy knew a token before: nobody can hold a verdict of an earlier process.
    pub fresh: bool,
}

/// Brings store and copy into step.
///
/// # Errors
/// [`TokensError`]: a corrupt copy is left as it is.
pub async fn settle(shell: &Shell, copy: &TokenFile) -> Result<Started, TokensError> {
    copy.sweep()?;
    let kept = copy.read()?;
    let stored = shell.ask(&host_call("role_token.settle"), PresentTokens).await?;
    if stored.is_empty() {
        return first(shell, copy, kept).await;
    }
    if let Some(kept) = kept {
        let settled = kept.settled(&stored);
        if settled != kept {
            copy.write(&settled)?;
            tracing::info!(path = %copy.path().display(), "the recoverable copy of the role tokens was settled");
        }
    }
    Ok(Started { made: None, fresh: false })
}

async fn first(shell: &Shell, copy: &TokenFile, kept: Option<Tokens>) -> Result<Started, TokensError> {
    let fresh = kept.is_none();
    let kept = kept.unwrap_or_default();
    let token = |role: Role| kept.latest(role).cloned().unwrap_or_else(|| new_token(role));
    let (admin, user) = (token(Role::Admin), token(Role::User));
    let pending =
        Tokens::default().with_pending(Role::Admin, admin.clone()).with_pending(Role::User, user.clone());
    copy.write(&pending)?;
    let verb = FirstTokens { admin: stored_form(&admin), user: stored_form(&user) };
    let first = shell.run(&host_call("role_token.first"), verb).await?;
    let settled = settle_after(shell, copy, &pending).await?;
    tracing::info!(path = %copy.path().display(), "role tokens made; the recoverable copy is here");
    let stored = first == First::Stored;
    Ok(Started { made: stored.then_some(settled), fresh: fresh && stored })
}

/// Replaces both tokens: `auth reset`. A damaged copy is replaced, too: that is what the command is for.
///
/// # Errors
/// [`TokensError`]
pub async fn reset(shell: &Shell, copy: &TokenFile) -> Result<Tokens, TokensError> {
    copy.sweep()?;
    let (admin, user) = (new_token(Role::Admin), new_token(Role::User));
    let kept = match copy.read() {
        Ok(kept) => kept.unwrap_or_default(),
        Err(TokenFileError::Corrupt { .. }) => Tokens::default(),
        Err(error) => return Err(error.into()),
    };
    // What an earlier change left pending may be the present one by now.
    let stored = shell.ask(&host_call("role_token.settle"), PresentTokens).await?;
    let pending =
        kept.settled(&stored).with_pending(Role::Admin, admin.clone()).with_pending(Role::User, user.clone());
    copy.write(&pending)?;
    let verb = ResetTokens { admin: stored_form(&admin), user: stored_form(&user) };
    shell.run(&host_call("role_token.reset"), verb).await?;
    settle_after(shell, copy, &pending).await
}

async fn settle_after(shell: &Shell, copy: &TokenFile, pending: &Tokens) -> Result<Tokens, TokensError> {
    let stored = shell.ask(&host_call("role_token.settle"), PresentTokens).await?;
    let settled = pending.settled(&stored);
    copy.write(&settled)?;
    Ok(settled)
}

fn new_token(role: Role) -> Credential {
    Credential::new(role.kind(), &random::bytes())
}

/// The lines that show tokens where they are to be shown.
#[must_use]
pub fn shown(tokens: &Tokens, copy: &TokenFile) -> zeroize::Zeroizing<String> {
    let mut lines = zeroize::Zeroizing::new(String::with_capacity(512));
    for role in Role::ALL {
        if let Some(token) = tokens.latest(role) {
            lines.push_str(role.text());
            lines.push(' ');
            lines.push_str(token.expose());
            lines.push('\n');
        }
    }
    lines.push_str(&format!("path {}\n", copy.path().display()));
    lines
}
