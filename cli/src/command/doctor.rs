//! `doctor`: is everything as it must be? Looks at configuration, names, TLS, lives of certificates, health, clocks,
//! the sign-in and the project file, and says of each what was found and what to do. It changes nothing, and shows no
//! secret. FN-21.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use interlock_client::{Clock, Credentials, ProjectFile, WhoAmI};
use serde_json::{Value, json};

use crate::{
    args::Common,
    command::root,
    context::{Caller, Context, default_path},
    failure::Failure,
    output::instant,
};

mod host;
mod service;

/// What else to look at.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Also look at auth-service's configuration file, and the files it names; on its host.
    #[arg(long, value_name = "FILE")]
    auth_config: Option<PathBuf>,
    /// Also look at gateway-service's configuration file, and the files it names; on its host.
    #[arg(long, value_name = "FILE")]
    gateway_config: Option<PathBuf>,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Success,
    /// It works, and somebody should know.
    Warning,
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
struct Finding {
    check: &'static str,
    /// Which one, where there are several.
    of: String,
    outcome: Outcome,
    told: String,
    next: Option<String>,
}

/// All of them, in the order they were made.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, check: &'static str, of: &str, told: impl Into<String>) {
        self.add(check, of, Outcome::Success, told.into(), None);
    }

    fn warn(&mut self, check: &'static str, of: &str, told: impl Into<String>, next: &str) {
        self.add(check, of, Outcome::Warning, told.into(), Some(next.to_owned()));
    }

    fn bad(&mut self, check: &'static str, of: &str, told: impl Into<String>, next: &str) {
        self.add(check, of, Outcome::Failure, told.into(), Some(next.to_owned()));
    }

    /// What a command would fail with.
    fn failed(&mut self, check: &'static str, of: &str, failure: &Failure, otherwise: &str) {
        let (told, next) = failure.told();
        self.bad(check, of, told, next.unwrap_or(otherwise));
    }

    fn add(&mut self, check: &'static str, of: &str, outcome: Outcome, told: String, next: Option<String>) {
        self.0.push(Finding { check, of: of.to_owned(), outcome, told, next });
    }
}

/// Looks. Exit code 1 where something has failed; warnings are none.
///
/// # Errors
/// Where standard output cannot be written.
pub(crate) async fn run(doctor: &Doctor, common: &Common) -> Result<ExitCode, Failure> {
    let mut findings = Findings::default();
    if let Some(file) = &doctor.auth_config {
        host::auth(file, &mut findings);
    }
    if let Some(file) = &doctor.gateway_config {
        host::gateway(file, &mut findings);
    }
    if let Some(context) = context(common, &mut findings) {
        let mut auth_answers = false;
        for (name, at) in [("auth", &context.auth), ("gateway", &context.gateway)] {
            for url in at.all() {
                let answers = service::look(name, url, &context.ca_file, &mut findings).await;
                auth_answers |= answers && name == "auth";
            }
        }
        sign_in(common, auth_answers, &mut findings).await;
    }
    let Findings(all) = findings;
    let lines: Vec<_> = all.iter().map(line).collect();
    let count = |outcome| all.iter().filter(|finding| finding.outcome == outcome).count();
    let (warnings, failures) = (count(Outcome::Warning), count(Outcome::Failure));
    let (of_warnings, of_failures) = (counted(warnings, "warning"), counted(failures, "failure"));
    let end = format!("{} looked at: {of_warnings}, {of_failures}", all.len());
    let json = json!({
        "checks": all.iter().map(shown).collect::<Vec<_>>(), "warnings": warnings, "failures": failures,
    });
    common.output.print(&format!("{}\n{end}", lines.join("\n")), &json)?;
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn context(common: &Common, findings: &mut Findings) -> Option<Context> {
    let path = match common.context.clone().map_or_else(default_path, Ok) {
        Ok(path) => path,
        Err(failure) => {
            findings.failed("config", "context", &failure, "--context FILE");
            return None;
        }
    };
    match Context::read(&path) {
        Ok(context) => {
            findings.good("config", "context", path.display().to_string());
            Some(context)
        }
        Err(failure) => {
            findings.failed("config", "context", &failure, "interlock up, or --context FILE");
            None
        }
    }
}

/// The credential, both statuses, and the project that calls from here are for. Auth is not asked where it was found
/// not to answer: each question would only wait for it again.
async fn sign_in(common: &Common, auth_answers: bool, findings: &mut Findings) {
    let caller = match Caller::open(common) {
        Ok(caller) => caller,
        Err(failure) => return findings.failed("token", "", &failure, "interlock login NAME"),
    };
    let has_token = has_token(&caller, common, findings);
    if !auth_answers {
        if has_token {
            findings.warn("token", "", "there is one; whether it is good, only auth can say", ASK_AGAIN);
        }
        for check in ["session auth", "root auth"] {
            findings.bad(check, "", "not asked: auth does not answer", ASK_AGAIN);
        }
        return project(&caller, false, findings).await;
    }
    let who = if has_token { token(&caller, findings).await } else { None };
    if who.as_ref().is_some_and(|who| who.role == "admin") {
        rotations(&caller, findings).await;
    }
    match caller.auth().with_credentials(Credentials::none()).sign_in_status().await {
        Ok(status) if status.enabled => findings.good("session auth", "", "enabled"),
        Ok(_) => {
            findings.warn("session auth", "", "disabled: no owner can sign in", "interlock owner set NAME");
        }
        Err(error) => findings.failed("session auth", "", &error.into(), "interlock up"),
    }
    match root::standing(&caller).await {
        Ok(standing) => findings.good("root auth", "", standing.word()),
        Err(failure) => findings.failed("root auth", "", &failure, "interlock up"),
    }
    project(&caller, who.is_some(), findings).await;
}

/// What to do where auth was not asked.
const ASK_AGAIN: &str = "mend what is said of auth above, then look again";

/// Whether there is a credential.
fn has_token(caller: &Caller, common: &Common, findings: &mut Findings) -> bool {
    match caller.is_signed_in(common) {
        Ok(true) => return true,
        Ok(false) => findings.warn("token", "", "not signed in", "interlock login NAME"),
        Err(failure) => findings.failed("token", "", &failure, "interlock login NAME"),
    }
    false
}

/// Whose it is, if it is good.
async fn token(caller: &Caller, findings: &mut Findings) -> Option<WhoAmI> {
    match caller.auth().whoami().await {
        Ok(who) => {
            let until = who.expires_at.map(|at| format!(", until {}", instant(at))).unwrap_or_default();
            findings.good("token", "", format!("{} ({}), by {}{until}", who.owner_id, who.role, who.kind));
            Some(who)
        }
        Err(error) => {
            findings.failed("token", "", &error.into(), "interlock login NAME");
            None
        }
    }
}

/// A rotation that is open for longer has been forgotten.
const ROTATION_OPEN_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Whether a rotation of a role token was left open: for an administrator.
async fn rotations(caller: &Caller, findings: &mut Findings) {
    let Ok(status) = caller.auth().role_tokens(false).await else { return };
    let now = Clock::system().wall();
    for token in status.tokens.iter().filter(|token| token.candidate) {
        let open_for = token.created_at.and_then(|since| now.duration_since(since).ok()).unwrap_or_default();
        let told = format!("to generation {}, open since {}", token.generation, instant(token.created_at));
        if open_for < ROTATION_OPEN_MAX {
            findings.good("rotation", &token.role, told);
        } else {
            let next = format!("interlock auth rotate {} --commit, or --abort", token.role);
            findings.warn("rotation", &token.role, told, &next);
        }
    }
}

async fn project(caller: &Caller, signed_in: bool, findings: &mut Findings) {
    let found = match ProjectFile::discover(caller.folder()) {
        Ok(Some(found)) => found,
        Ok(None) => {
            return findings.warn("project file", "", "none from here up", "interlock use PROJECT");
        }
        Err(error) => {
            let next = "mend or remove that file, then interlock use PROJECT";
            return findings.failed("project file", "", &error.into(), next);
        }
    };
    let (of, file) = (found.path.display().to_string(), &found.file);
    let named = format!("{} ({})", file.project_name, file.project_id);
    let at = caller.gateway_at();
    if !at.all().any(|url| url.trim_end_matches('/') == file.api_url.trim_end_matches('/')) {
        let told = format!("{named} was bound at {}, the context is for {}", file.api_url, at.first());
        findings.warn("project file", &of, told, "interlock use PROJECT, or the context of that place");
    }
    if !signed_in {
        return findings.good("project file", &of, named);
    }
    match caller.auth().list_projects().await {
        Ok(projects) if projects.iter().any(|project| project.project_id == file.project_id) => {
            findings.good("project file", &of, named);
        }
        Ok(_) => {
            let next = "interlock use --list shows those that can be entered";
            findings.bad("project file", &of, format!("{named} cannot be entered with this sign-in"), next);
        }
        Err(error) => findings.failed("project file", &of, &error.into(), "interlock whoami"),
    }
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

fn line(finding: &Finding) -> String {
    let mark = match finding.outcome {
        Outcome::Success => "  ok",
        Outcome::Warning => "warn",
        Outcome::Failure => "FAIL",
    };
    let of = if finding.of.is_empty() { String::new() } else { format!(" {}", finding.of) };
    let next = finding.next.as_ref().map(|next| format!("\n        next: {next}")).unwrap_or_default();
    format!("{mark}  {}{of}: {}{next}", finding.check, finding.told)
}

fn shown(finding: &Finding) -> Value {
    json!({
        "check": finding.check, "of": finding.of, "outcome": finding.outcome.word(), "told": finding.told,
        "next": finding.next,
    })
}

/// A file in a sentence.
fn place(path: &Path) -> String {
    path.display().to_string()
}
