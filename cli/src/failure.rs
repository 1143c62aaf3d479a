//! What went wrong, what to do next, and the exit code that says it to scripts.

use std::{io, process::ExitCode};

use interlock_client::{Error, Reason};
use interlock_proto::text::{escaped, escaped_lines};
use serde_json::json;

use crate::output::{Format, plain_json};

/// A command that did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    reason: Option<Reason>,
    next: Option<String>,
    facts: Vec<String>,
    request_id: Option<String>,
}

/// Failed, and no other code fits.
pub(crate) const FAILED: u8 = 1;
/// The command line was wrong.
pub(crate) const USAGE: u8 = 2;
/// No folder from here up has a project file.
pub(crate) const NO_PROJECT_FILE: u8 = 3;
/// There is no credential, or it is no longer good.
pub(crate) const NOT_SIGNED_IN: u8 = 4;
/// The credential is good, and this is not allowed with it.
pub(crate) const DENIED: u8 = 5;
/// Jobs are in flight.
pub(crate) const BUSY: u8 = 6;
/// A service cannot be reached or cannot answer now.
pub(crate) const UNAVAILABLE: u8 = 7;

impl Failure {
    /// Something on this machine.
    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self::coded(FAILED, message)
    }

    /// A wrong command line that clap cannot see.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::coded(USAGE, message)
    }

    /// No credential.
    pub(crate) fn not_signed_in() -> Self {
        Self::coded(NOT_SIGNED_IN, "not signed in").next("interlock login NAME")
    }

    /// What a service would refuse, found out before it was asked.
    pub(crate) fn refused(reason: Reason, message: impl Into<String>) -> Self {
        let next = next_of(Some(reason), false, None);
        Self { reason: Some(reason), next, ..Self::coded(code_of(Some(reason)), message) }
    }

    /// With another exit code.
    pub(crate) fn coded(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), reason: None, next: None, facts: Vec::new(), request_id: None }
    }

    /// What else is known.
    pub(crate) fn fact(mut self, fact: impl Into<String>) -> Self {
        self.facts.push(fact.into());
        self
    }

    /// What to do about it.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// More lines of it.
    pub(crate) fn facts(mut self, facts: Vec<String>) -> Self {
        self.facts = facts;
        self
    }

    /// What went wrong, and what to do about it.
    pub(crate) fn told(&self) -> (&str, Option<&str>) {
        (&self.message, self.next.as_deref())
    }

    /// Prints it to standard error and gives the exit code.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        let reason = self.reason.map(Reason::text);
        if format == Format::Json {
            let error = json!({
                "error": {
                    "message": self.message, "reason": reason, "next": self.next, "facts": self.facts,
                    "request_id": self.request_id, "exit_code": self.code,
                }
            });
            anstream::eprintln!("{}", plain_json(&error));
            return ExitCode::from(self.code);
        }
        match reason {
            Some(reason) => anstream::eprintln!("interlock: {reason}: {}", escaped_lines(&self.message)),
            None => anstream::eprintln!("interlock: {}", escaped_lines(&self.message)),
        }
        for fact in &self.facts {
            anstream::eprintln!("  {}", escaped(fact));
        }
        if let Some(next) = &self.next {
            anstream::eprintln!("  next: {}", escaped(next));
        }
        if let Some(id) = &self.request_id {
            anstream::eprintln!("  request id: {}", escaped(id));
        }
        ExitCode::from(self.code)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::local(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let reason = error.reason();
        let code = if error.is_unavailable() || error.is_transport() { UNAVAILABLE } else { code_of(reason) };
        let mut facts = Vec::new();
        if let Some(busy) = error.busy() {
            facts.push(format!("agent {}: {} queued, {} running", busy.agent_id, busy.queued, busy.running));
            facts.extend(busy.jobs.iter().map(|job| {
                let left = job.lease_left.map(|left| format!(", lease ends in {:.1} s", left.as_secs_f64()));
                format!("job {} {}{}", job.job_id, job.state, left.unwrap_or_default())
            }));
        }
        facts
            .extend(error.field_violations().iter().map(|v| format!("field {}: {}", v.field, v.description)));
        if let Some(delay) = error.retry_after() {
            facts.push(format!("try again in {:.1} s", delay.as_secs_f64()));
        }
        let first_job = error.busy().and_then(|busy| busy.jobs.first()).map(|job| job.job_id.clone());
        Self {
            code,
            message: error.message().to_owned(),
            reason,
            next: next_of(reason, error.is_transport(), first_job.as_deref()),
            facts,
            request_id: error.request_id().map(str::to_owned).filter(|_| reason == Some(Reason::Internal)),
        }
    }
}

fn code_of(reason: Option<Reason>) -> u8 {
    match reason {
        Some(
            Reason::ProviderAuthFailed
            | Reason::TokenExpired
            | Reason::LoginRequired
            | Reason::InvalidCredentials
            | Reason::Revoked
            | Reason::Evicted,
        ) => NOT_SIGNED_IN,
        Some(
            Reason::Forbidden
            | Reason::OwnerMismatch
            | Reason::ProjectMismatch
            | Reason::RootRequired
            | Reason::ScopeRequired,
        ) => DENIED,
        Some(Reason::SessionBusy | Reason::AttachPending | Reason::TokenInUse) => BUSY,
        Some(
            Reason::AuthUnavailable | Reason::StoreUnavailable | Reason::Draining | Reason::DeadlineExceeded,
        ) => UNAVAILABLE,
        Some(Reason::InvalidField | Reason::MissingField) => USAGE,
        _ => FAILED,
    }
}

fn next_of(reason: Option<Reason>, transport: bool, job: Option<&str>) -> Option<String> {
    let next = match reason {
        Some(Reason::ProviderAuthFailed | Reason::TokenExpired | Reason::LoginRequired | Reason::Revoked) => {
            "interlock login NAME"
        }
        Some(Reason::InvalidCredentials) => "check the name and the password",
        Some(Reason::SessionBusy) => {
            let job = job.unwrap_or("JOB");
            return Some(format!("interlock job wait {job}, then the same command again"));
        }
        Some(Reason::TokenInUse) => "interlock auth status shows who uses it; --force ends it all the same",
        Some(Reason::RotationOpen) => "interlock auth rotate ROLE --commit, or --abort",
        Some(Reason::SessionUnbound) => "interlock session attach SESSION --agent AGENT --project PROJECT",
        Some(Reason::ProjectRequired | Reason::UnscopedSunset) => "name the project: --project PROJECT",
        Some(Reason::ProjectMismatch) => "interlock project list, and name the session's own project",
        Some(Reason::OwnerMismatch) => "interlock session list shows your sessions",
        Some(Reason::RootRequired) => "interlock root unlock, or the admin role token: --token-file FILE",
        Some(Reason::RootDisabled) => {
            "set INTERLOCK_ROOT_PASSWORD_FILE where auth-service runs, and start it again"
        }
        _ if transport => "check that both services run: interlock up",
        _ => return None,
    };
    Some(next.to_owned())
}
