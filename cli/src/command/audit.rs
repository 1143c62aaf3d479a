//! `audit list|export|tail|verify`: the audit logs of both services.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::SystemTime,
};

use interlock_client::{AuditFilter, AuditLog, AuditRow, AuditTail};
use serde_json::{Value, json};

use crate::{
    args::Common,
    command::{duration, signed_in},
    context::Caller,
    failure::Failure,
    output::{Format, instant, plain_json, table},
};

mod endpoints;
mod heads;

/// Rows of one call.
const PAGE: u32 = 1_000;

/// What to do with audit logs, or for them.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Audit {
    #[command(flatten)]
    Rows(Rows),
    /// Call every RPC of both services as everyone who must not get in; exit code 1 where one is open.
    Endpoints(endpoints::Endpoints),
}

/// What to do with their rows.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Rows {
    /// Show the newest rows of both services, in the order of time.
    List {
        #[command(flatten)]
        which: Which,
        /// How far back, as in `30m`.
        #[arg(long, value_parser = duration, default_value = "1h", value_name = "SPAN")]
        since: std::time::Duration,
        /// At most so many, the newest ones; 1 to 10,000.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        last: u16,
    },
    /// Print one service's log as it is stored, one JSON object a line; `id` is the cursor.
    Export {
        /// Whose log.
        #[arg(value_enum)]
        service: Service,
        #[command(flatten)]
        which: Which,
        /// Go on after the row with this id.
        #[arg(long, default_value_t = 0, value_name = "ID")]
        after: u64,
    },
    /// Follow the logs of both services until interrupted.
    Tail {
        #[command(flatten)]
        which: Which,
    },
    /// Compare every row of both services with its hash chain, and the chains with what was seen of them the last
    /// time; exit code 1 where something was edited, cut or put back.
    Verify {
        /// Where ends of chains are missing, write them to this file: for `interlock-auth audit accept` and
        /// `interlock-gateway audit accept`, once a backup was put back.
        #[arg(long, value_name = "FILE")]
        lost: Option<PathBuf>,
    },
}

/// Which rows.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Which {
    /// Of this principal: an owner, a service's SPIFFE id, a client.
    #[arg(long, default_value = "")]
    principal: String,
    /// Refused for this reason, such as SESSION_BUSY.
    #[arg(long, default_value = "")]
    reason: String,
    /// Of this action, such as session.attach.
    #[arg(long, default_value = "")]
    action: String,
    /// Of this method, by its path.
    #[arg(long, default_value = "")]
    rpc: String,
    /// About this session, job, agent or role.
    #[arg(long, default_value = "")]
    subject: String,
    /// About this session, its jobs or its clients.
    #[arg(long, default_value = "", value_name = "SESSION_ID")]
    session: String,
    /// In this project, by its id.
    #[arg(long = "in-project", default_value = "", value_name = "PROJECT_ID")]
    in_project: String,
}

/// Whose log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Service {
    /// auth-service.
    Auth,
    /// gateway-service.
    Gateway,
}

impl Service {
    const ALL: [Self; 2] = [Self::Auth, Self::Gateway];

    fn text(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Gateway => "gateway",
        }
    }

    fn log(self, caller: &Caller) -> AuditLog {
        match self {
            Self::Auth => caller.auth().audit(),
            Self::Gateway => caller.gateway().audit(),
        }
    }
}

/// Does it.
///
/// # Errors
/// What the services refuse; a damaged log.
pub(crate) async fn run(audit: Audit, common: &Common) -> Result<ExitCode, Failure> {
    let rows = match audit {
        // Who must not get in need not be signed in to be tried.
        Audit::Endpoints(asked) => return endpoints::audit(&Caller::open(common)?, &asked, common).await,
        Audit::Rows(rows) => rows,
    };
    let caller = signed_in(common)?;
    match rows {
        Rows::List { which, since, last } => {
            let filter = AuditFilter { since: SystemTime::now().checked_sub(since), ..which.filter() };
            list(&caller, &filter, usize::from(last), common.output).await?;
        }
        Rows::Export { service, which, after } => export(&caller, service, &which.filter(), after).await?,
        Rows::Tail { which } => tail(&caller, &which.filter(), common.output).await?,
        Rows::Verify { lost } => return heads::verify(&caller, common, lost.as_deref()).await,
    }
    Ok(ExitCode::SUCCESS)
}

impl Which {
    fn filter(self) -> AuditFilter {
        AuditFilter {
            principal: self.principal,
            reason: self.reason,
            action: self.action,
            rpc: self.rpc,
            subject: self.subject,
            mentions: self.session,
            project_id: self.in_project,
            since: None,
            until: None,
        }
    }
}

async fn list(caller: &Caller, filter: &AuditFilter, last: usize, output: Format) -> Result<(), Failure> {
    let mut found: Vec<(Service, AuditRow)> = Vec::new();
    for service in Service::ALL {
        let (log, mut after) = (service.log(caller), 0);
        loop {
            let page = log.list(filter, after, PAGE).await?;
            found.extend(page.rows.into_iter().map(|row| (service, row)));
            // Of each service at most so many, and a page, are held at once.
            if found.len() > 2 * last {
                found.sort_by_key(|(_, row)| row.at);
                found.drain(..found.len() - last);
            }
            after = page.next;
            if page.at_end {
                break;
            }
        }
    }
    found.sort_by_key(|(_, row)| row.at);
    found.drain(..found.len().saturating_sub(last));
    let rows: Vec<_> = found.iter().map(|(service, row)| cells(*service, row)).collect();
    let heading = ["AT", "SERVICE", "PRINCIPAL", "ACTION", "OUTCOME", "SUBJECT", "PROJECT", "PEER", "COUNT"];
    let json = found.iter().map(|(service, row)| shown(*service, row)).collect();
    Ok(output.print(&table(&heading, &rows), &Value::Array(json))?)
}

async fn export(
    caller: &Caller,
    service: Service,
    filter: &AuditFilter,
    mut after: u64,
) -> Result<(), Failure> {
    let log = service.log(caller);
    loop {
        let page = log.list(filter, after, PAGE).await?;
        told_of(service, page.gap);
        for row in &page.rows {
            if !line(&plain_json(&shown(service, row)))? {
                return Ok(());
            }
        }
        after = page.next;
        if page.at_end {
            return Ok(());
        }
    }
}

async fn tail(caller: &Caller, filter: &AuditFilter, output: Format) -> Result<(), Failure> {
    let follow = |service: Service| service.log(caller).tail(filter.clone(), None);
    let (mut auth, mut gateway) = (follow(Service::Auth), follow(Service::Gateway));
    loop {
        let (service, rows) = next_of(&mut auth, &mut gateway).await?;
        told_of(service, if service == Service::Auth { auth.gap() } else { gateway.gap() });
        for row in &rows {
            let text = match output {
                Format::Json => plain_json(&shown(service, row)),
                Format::Text => interlock_proto::text::escaped(&cells(service, row).join("  ")).into_owned(),
            };
            if !line(&text)? {
                return Ok(());
            }
        }
    }
}

async fn next_of(auth: &mut AuditTail, gateway: &mut AuditTail) -> Result<(Service, Vec<AuditRow>), Failure> {
    tokio::select! {
        rows = auth.next() => Ok((Service::Auth, rows?)),
        rows = gateway.next() => Ok((Service::Gateway, rows?)),
    }
}

/// Says on stderr that rows are missing: what is printed holds rows only.
fn told_of(service: Service, gap: Option<u64>) {
    if let Some(through) = gap {
        eprintln!("{}: rows up to {through} were removed, as retention says", service.text());
    }
}

/// Prints a line; whether anybody reads it.
fn line(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true),
    }
}

fn cells(service: Service, row: &AuditRow) -> Vec<String> {
    let outcome = if row.reason.is_empty() { &row.outcome } else { &row.reason };
    let principal = if row.principal.is_empty() { "-" } else { &row.principal };
    vec![
        instant(row.at),
        service.text().to_owned(),
        principal.to_owned(),
        row.action.clone(),
        outcome.clone(),
        row.subject.clone(),
        row.project_id.clone(),
        row.peer.clone(),
        row.count.to_string(),
    ]
}

fn shown(service: Service, row: &AuditRow) -> Value {
    let detail = serde_json::from_str(&row.detail).unwrap_or(Value::Null);
    json!({
        "service": service.text(), "id": row.id, "at": instant(row.at), "principal": row.principal, "role": row.role,
        "credential_id": row.credential_id, "peer": row.peer, "request_id": row.request_id, "rpc": row.rpc,
        "action": row.action, "outcome": row.outcome, "reason": row.reason, "subject": row.subject,
        "project_id": row.project_id, "detail": detail, "count": row.count,
    })
}
