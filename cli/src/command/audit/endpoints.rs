//! `audit endpoints`: every RPC of both services, called by everyone who must not get in. The messages are empty:
//! where a hole is, most methods still refuse them as incomplete, so that nothing is changed. Whether a project token
//! stays in its project shows with a resource of another project only: there the methods are called that read.

use std::{path::PathBuf, process::ExitCode};

use interlock_client::{Credential, Kind, Reason};
use interlock_proto::{
    metadata,
    options::v1::{Caller as By, Listener, Role},
    policy::{MethodPolicy, Policies},
};
use serde_json::json;
use tonic::Code;

use super::Service;
use crate::{
    args::Common,
    context::Caller,
    door::{Answer, Door, Shown},
    failure::Failure,
    keep::read_token,
};

/// What to try beside no credential, garbage, and a well-formed credential that nobody issued.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Endpoints {
    /// The `user` role token, or another credential without administrative rights: must get into no method of
    /// administrators.
    #[arg(long, value_name = "FILE")]
    user_token: Option<PathBuf>,
    /// A project token: must get into nothing that takes none.
    #[arg(long, value_name = "FILE")]
    project_token: Option<PathBuf>,
    /// A session of the project token's issuer that is bound to another project than the token's: must not be reached
    /// with it.
    #[arg(long, value_name = "SESSION_ID", requires = "project_token", requires = "other_project")]
    other_session: Option<String>,
    /// The project of that session.
    #[arg(long, value_name = "PROJECT_ID", requires = "other_session")]
    other_project: Option<String>,
    /// A credential that has expired.
    #[arg(long, value_name = "FILE")]
    expired_token: Option<PathBuf>,
    /// Where auth-service's internal listener is: must let nobody in without a client certificate.
    #[arg(long, value_name = "HOST:PORT")]
    auth_internal: Option<String>,
    /// Where gateway-service's internal listener is.
    #[arg(long, value_name = "HOST:PORT")]
    gateway_internal: Option<String>,
}

/// Someone who must not get in.
struct Intruder {
    what: &'static str,
    shown: Shown,
    kind: Kept,
}

/// By what an intruder is to be refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// No credential at all: UNAUTHENTICATED, but where a service may be configured to take such calls.
    Bare,
    /// Nobody is known: UNAUTHENTICATED everywhere.
    Nobody,
    /// No administrator: PERMISSION_DENIED where one is needed.
    User,
    /// A project token: PERMISSION_DENIED where none is taken.
    Project,
}

/// Methods that read, of which the first field is the session's id.
const READS_OF_A_SESSION: [&str; 5] = [
    "/interlock.gateway.v1.SessionService/GetSession",
    "/interlock.gateway.v1.SessionService/ListClients",
    "/interlock.gateway.v1.SessionService/StreamEvents",
    "/interlock.gateway.v1.JobService/ListJobs",
    "/interlock.gateway.v1.FileService/ListFiles",
];

/// Calls everything. Exit code 1 where an answer is not the refusal that it has to be.
pub(super) async fn audit(caller: &Caller, asked: &Endpoints, common: &Common) -> Result<ExitCode, Failure> {
    let intruders = intruders(asked)?;
    let (mut holes, mut refused, mut by_design) = (Vec::new(), 0_u32, 0_u32);
    let mut bare = Vec::new();
    for service in Service::ALL {
        let public = caller.door(service == Service::Auth)?;
        let internal = match service {
            Service::Auth => &asked.auth_internal,
            Service::Gateway => &asked.gateway_internal,
        };
        let internal = match internal {
            Some(address) => Some(listening(caller, address).await?),
            None => None,
        };
        for policy in served_by(service) {
            let name = format!("{} {}", service.text(), policy.path);
            if policy.public() {
                by_design += 1;
            } else {
                for intruder in &intruders {
                    let Some(expected) = expected(policy, intruder.kind) else { continue };
                    match public.call(&policy.path, &intruder.shown).await {
                        // Let in, and told what its request lacks.
                        Answer::Refused { code: Code::InvalidArgument, .. }
                            if takes_bare(policy, intruder.kind) =>
                        {
                            bare.push(policy.path.clone());
                        }
                        Answer::Refused { code, .. } if expected.contains(&code) => refused += 1,
                        answer => holes.push(hole(&name, intruder.what, &answer)?),
                    }
                }
            }
            if let Some(door) = &internal {
                match door.call(&policy.path, &Shown::default()).await {
                    Answer::Unreached(_) => refused += 1,
                    answer => holes.push(format!("{name}: without a client certificate: {}", told(&answer))),
                }
            }
        }
    }
    refused += elsewhere(caller, asked, &mut holes).await?;
    let mut lines = holes.clone();
    lines.push(match holes.len() {
        0 => format!("{refused} calls were refused as they have to be"),
        some => format!("{some} OPEN, {refused} calls were refused as they have to be"),
    });
    lines.push(format!("{by_design} methods are open to anyone by design, and judge for themselves"));
    if !bare.is_empty() {
        lines.push(format!(
            "calls with no credential are taken, as configured (allow_anonymous): {}",
            bare.join(", ")
        ));
    }
    let json =
        json!({ "open": holes, "refused": refused, "open_by_design": by_design, "without_credential": bare });
    common.output.print(&lines.join("\n"), &json)?;
    Ok(if holes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A project token at a session of another project: how often it was refused by the lock between them. All else is a
/// hole, or shows nothing.
async fn elsewhere(caller: &Caller, asked: &Endpoints, holes: &mut Vec<String>) -> Result<u32, Failure> {
    let (Some(file), Some(session), Some(project)) =
        (&asked.project_token, &asked.other_session, &asked.other_project)
    else {
        return Ok(0);
    };
    let door = caller.door(false)?;
    let shown = Shown::default().bearer(read_token(file)?.expose()).with(metadata::PROJECT, project.clone());
    let mut refused = 0;
    for path in READS_OF_A_SESSION {
        match door.call_about(path, session, &shown).await {
            Answer::Refused { reason, .. } if reason == Reason::ProjectMismatch.text() => refused += 1,
            answer => {
                let what = "with a project token, at a session of another project";
                holes.push(hole(&format!("gateway {path}"), what, &answer)?);
            }
        }
    }
    Ok(refused)
}

/// A listener that is there: where nothing listens, nobody gets in either.
async fn listening(caller: &Caller, address: &str) -> Result<Door, Failure> {
    let unreached = |error| Failure::coded(crate::failure::UNAVAILABLE, format!("{address}: {error}"));
    tokio::net::TcpStream::connect(address).await.map_err(unreached)?;
    caller.internal_door(address, None)
}

fn intruders(asked: &Endpoints) -> Result<Vec<Intruder>, Failure> {
    let nobody = |what, shown| Intruder { what, shown, kind: Kept::Nobody };
    // Of 2^256: nobody was ever given this one.
    let invented = Credential::new(Kind::Owner, &[0x5a; 32]);
    let mut all = vec![
        Intruder { what: "with no credential", shown: Shown::default(), kind: Kept::Bare },
        nobody("with garbage", Shown::default().bearer("let-me-in")),
        nobody("with a credential that nobody issued", Shown::default().bearer(invented.expose())),
    ];
    let mut kept = |what, file: &Option<PathBuf>, kind| -> Result<(), Failure> {
        if let Some(file) = file {
            let shown = Shown::default().bearer(read_token(file)?.expose());
            all.push(Intruder { what, shown, kind });
        }
        Ok(())
    };
    kept("with an expired credential", &asked.expired_token, Kept::Nobody)?;
    kept("without administrative rights", &asked.user_token, Kept::User)?;
    kept("with a project token", &asked.project_token, Kept::Project)?;
    Ok(all)
}

/// Ours, of this service, and what both serve.
fn served_by(service: Service) -> impl Iterator<Item = &'static MethodPolicy> {
    let own = format!("/interlock.{}.", service.text());
    let theirs = move |path: &str| {
        path.starts_with(&own) || path.starts_with("/interlock.audit.") || !path.starts_with("/interlock.")
    };
    Policies::all().iter().filter(move |policy| theirs(&policy.path))
}

/// The statuses that such an intruder has to get; `None` where it may get in, or may be told what its request lacks.
fn expected(policy: &MethodPolicy, kind: Kept) -> Option<&'static [Code]> {
    if !policy.served_on(Listener::Public) {
        return Some(&[Code::Unimplemented]);
    }
    match kind {
        Kept::Bare | Kept::Nobody => Some(&[Code::Unauthenticated]),
        Kept::User => (policy.role == Role::Admin).then_some(&[Code::PermissionDenied][..]),
        Kept::Project => {
            let takes = policy.who.contains(&By::ProjectToken);
            // A method of owner sessions alone says that it is one.
            (!takes).then_some(&[Code::PermissionDenied, Code::Unauthenticated][..])
        }
    }
}

/// Whether a service may be configured to let such an intruder in.
fn takes_bare(policy: &MethodPolicy, kind: Kept) -> bool {
    kind == Kept::Bare && policy.who.contains(&By::Anonymous)
}

/// A line on an answer that is no refusal.
///
/// # Errors
/// Where there is no server to be judged.
fn hole(name: &str, what: &str, answer: &Answer) -> Result<String, Failure> {
    match answer {
        Answer::Unreached(why) => {
            let message = format!("{name}: nothing answered: {why}");
            Err(Failure::coded(crate::failure::UNAVAILABLE, message).next("start the services, then again"))
        }
        answer => Ok(format!("{name}: {what}: {}", told(answer))),
    }
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Open => "OPEN".to_owned(),
        Answer::Unreached(why) => why.clone(),
        Answer::Refused { code, reason } if reason.is_empty() => format!("{code:?}"),
        Answer::Refused { code, reason } => format!("{code:?} {reason}"),
    }
}
