//! The audit log of a service, for administrators: read, followed, verified.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use interlock_proto::audit::v1 as wire;
use tokio::time::sleep;

use crate::{
    call::{Identity, Opened},
    clock::{from_wire, to_wire},
    connect::Connection,
    error::{Error, Reason},
    path,
    retry::Patience,
};

/// A log of millions of rows is read as a whole.
const VERIFYING: Duration = Duration::from_secs(600);

/// Which rows. What is empty or `None` matches all; the rest matches exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// An owner id, a service's SPIFFE id, a client id.
    pub principal: String,
    /// Rows of refusals for this reason, such as `SESSION_BUSY`.
    pub reason: String,
    /// The path of a method.
    pub rpc: String,
    /// `noun.verb`, as in the policy of a method.
    pub action: String,
    /// The id of a resource: a session, a job, an agent, a role.
    pub subject: String,
    /// The id of a resource: rows about it, and rows whose facts name it. So a session's id finds what was done with its
    /// jobs and its clients, too.
    pub mentions: String,
    /// The id of a project.
    pub project_id: String,
    /// Rows of this instant and later ones.
    pub since: Option<SystemTime>,
    /// Rows before this instant.
    pub until: Option<SystemTime>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its place; later rows are larger.
    pub id: u64,
    /// When.
    pub at: Option<SystemTime>,
    /// Who asked; empty where nobody is known.
    pub principal: String,
    /// The role it acted with.
    pub role: String,
    /// The public handle of its credential.
    pub credential_id: String,
    /// The peer's address.
    pub peer: String,
    /// The id of the call.
    pub request_id: String,
    /// The method's path; empty for what no call asked for.
    pub rpc: String,
    /// What was asked, as `noun.verb`.
    pub action: String,
    /// `done` or `refused`.
    pub outcome: String,
    /// Why it was refused; empty otherwise.
    pub reason: String,
    /// The resource's id; empty where there is none.
    pub subject: String,
    /// The project that it belongs to; empty where there is none.
    pub project_id: String,
    /// Further facts: a JSON object, or empty.
    pub detail: String,
    /// How many equal events it stands for.
    pub count: u64,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPage {
    /// In the order they were stored. None does not mean that the log is at its end.
    pub rows: Vec<AuditRow>,
    /// Go on after this one.
    pub next: u64,
    /// Nothing was stored after `next` when this was answered.
    pub at_end: bool,
    /// Rows after the cursor, the last of them this one, are there no more: retention has removed them.
    pub gap: Option<u64>,
}

/// The end of one writer's chain: kept elsewhere, it shows a cut later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// The writer: one process's use of the store.
    pub writer: String,
    /// How many batches it has linked.
    pub number: u64,
    /// The last link: 32 bytes.
    pub link: Vec<u8>,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Links that were compared.
    pub batches: u64,
    /// Rows that they are over.
    pub rows: u64,
    /// What is wrong, for people; empty where the log is whole. At most 1,000.
    pub damages: Vec<String>,
    /// The ends of chains, at most 1,024.
    pub heads: Vec<AuditHead>,
    /// Whose memory of this log it was compared with, too.
    pub peers: Vec<AuditPeer>,
    /// Ends of chains that are missing, at most 1,000: each is told of among the damages, too.
    pub missing: Vec<AuditHead>,
    /// Ends of chains that are missing because a backup was put back, which was accepted on the service's host.
    pub accepted: Vec<AuditHead>,
}

/// Another service that remembers ends of a log's chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPeer {
    /// `auth`, or the SPIFFE id of a verifier.
    pub name: String,
    /// How many it remembers, at most 256.
    pub heads: u32,
    /// When it told the last of them.
    pub told_at: Option<SystemTime>,
}

/// The audit log of one service. From [`crate::Auth::audit`] and [`crate::Gateway::audit`].
#[derive(Clone, Debug)]
pub struct AuditLog {
    connection: Connection,
    identity: Identity,
}

impl AuditLog {
    pub(crate) fn of(connection: Connection, identity: Identity) -> Self {
        Self { connection, identity }
    }

    /// Rows in the order they were stored, after the row with the id `after`; 0 begins with the oldest. At most
    /// `page_size`, 1 to 1,000; 0 is 100.
    ///
    /// # Errors
    /// `FORBIDDEN` for whoever is no administrator, `INVALID_FIELD`.
    pub async fn list(&self, filter: &AuditFilter, after: u64, page_size: u32) -> Result<AuditPage, Error> {
        let request = wire::ListRequest { filter: Some(filter.to_wire()), after, page_size };
        let page: wire::ListResponse =
            self.connection.call(path::LIST_AUDIT, &self.identity, request).await?;
        let rows = page.rows.into_iter().map(AuditRow::from).collect();
        let gap = page.gap.map(|gap| gap.through);
        Ok(AuditPage { rows, next: page.next, at_end: page.at_end, gap })
    }

    /// Rows as they are stored: after the row with the id `after`, or only new ones. Resumes by itself, with no
    /// row lost and none twice.
    #[must_use]
    pub fn tail(&self, filter: AuditFilter, after: Option<u64>) -> AuditTail {
        AuditTail { log: self.clone(), filter, after, open: None, patience: Patience::new(), gap: None }
    }

    /// Reads every chain and compares each link with its rows; each of `known` must still be there.
    ///
    /// # Errors
    /// `FORBIDDEN` for whoever is no administrator, `LIMIT_REACHED` while another call verifies.
    pub async fn verify(&self, known: &[AuditHead]) -> Result<AuditReport, Error> {
        let known = known.iter().map(AuditHead::to_wire).collect();
        let request = wire::VerifyRequest { known };
        let answer = self.connection.unary(path::VERIFY_AUDIT, &self.identity, request, VERIFYING).await?;
        let report: wire::VerifyResponse = answer.message;
        Ok(AuditReport {
            batches: report.batches,
            rows: report.rows,
            damages: report.damages.iter().map(told).collect(),
            heads: report.heads.into_iter().map(AuditHead::from).collect(),
            peers: report.peers.into_iter().map(AuditPeer::from).collect(),
            missing: report.missing.into_iter().map(AuditHead::from).collect(),
            accepted: report.accepted.into_iter().map(AuditHead::from).collect(),
        })
    }
}

/// The log as it grows. From [`AuditLog::tail`].
pub struct AuditTail {
    log: AuditLog,
    filter: AuditFilter,
    after: Option<u64>,
    open: Option<Opened<wire::TailResponse>>,
    patience: Patience,
    gap: Option<u64>,
}

impl fmt::Debug for AuditTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditTail")
            .field("filter", &self.filter)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

impl AuditTail {
    /// The next rows: never none. May be dropped at any time and called again.
    ///
    /// # Errors
    /// A refusal, and what does not pass: the right to read has ended. Nothing comes after it.
    pub async fn next(&mut self) -> Result<Vec<AuditRow>, Error> {
        loop {
            let error = match self.step().await {
                Ok(rows) if rows.is_empty() => continue,
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            let credentials = &self.log.identity.credentials;
            let opened = self.open.take();
            if let (Some(Reason::TokenExpired), Some(presented)) =
                (error.reason(), opened.as_ref().and_then(|opened| opened.presented.as_ref()))
            {
                let _ = credentials.expired(presented);
            }
            match self.patience.judge(&error, credentials.is_refreshable()) {
                Some(pause) => sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    /// Whether rows were passed over since this was asked the last time, since retention has removed them: the last of
    /// those.
    pub fn gap(&mut self) -> Option<u64> {
        self.gap.take()
    }

    /// The next batch of the open stream, which is opened where there is none.
    async fn step(&mut self) -> Result<Vec<AuditRow>, Error> {
        let opened = match &mut self.open {
            Some(opened) => opened,
            none => {
                let request = wire::TailRequest { filter: Some(self.filter.to_wire()), after: self.after };
                let (connection, identity) = (&self.log.connection, &self.log.identity);
                none.insert(connection.open(path::TAIL_AUDIT, identity, tokio_stream::once(request)).await?)
            }
        };
        let batch = opened.messages.message().await.map_err(|status| Error::from_status(&status))?;
        let batch = batch.ok_or_else(|| Error::transport("the stream ended"))?;
        self.after = Some(batch.next);
        self.gap = batch.gap.map(|gap| gap.through).max(self.gap);
        if !batch.rows.is_empty() {
            self.patience.progressed();
        }
        Ok(batch.rows.into_iter().map(AuditRow::from).collect())
    }
}

impl AuditFilter {
    fn to_wire(&self) -> wire::Filter {
        wire::Filter {
            principal: self.principal.clone(),
            reason: self.reason.clone(),
            rpc: self.rpc.clone(),
            action: self.action.clone(),
            subject: self.subject.clone(),
            mentions: self.mentions.clone(),
            project_id: self.project_id.clone(),
            since: self.since.map(to_wire),
            until: self.until.map(to_wire),
        }
    }
}

impl From<wire::Row> for AuditRow {
    fn from(row: wire::Row) -> Self {
        Self {
            id: row.id,
            at: from_wire(row.at),
            principal: row.principal,
            role: row.role,
            credential_id: row.credential_id,
            peer: row.peer,
            request_id: row.request_id,
            rpc: row.rpc,
            action: row.action,
            outcome: row.outcome,
            reason: row.reason,
            subject: row.subject,
            project_id: row.project_id,
            detail: row.detail,
            count: row.count,
        }
    }
}

impl AuditHead {
    pub(crate) fn to_wire(&self) -> wire::Head {
        wire::Head { writer: self.writer.clone(), number: self.number, link: self.link.clone().into() }
    }
}

impl From<wire::Head> for AuditHead {
    fn from(head: wire::Head) -> Self {
        Self { writer: head.writer, number: head.number, link: head.link.to_vec() }
    }
}

impl From<wire::Peer> for AuditPeer {
    fn from(peer: wire::Peer) -> Self {
        Self { name: peer.name, heads: peer.heads, told_at: from_wire(peer.told_at) }
    }
}

fn told(damage: &wire::Damage) -> String {
    use wire::DamageKind as Kind;
    let (writer, number) = (&damage.writer, damage.number);
    match damage.kind() {
        Kind::Edited => format!("batch {number} of {writer} was edited"),
        Kind::Hole => format!("batch {number} of {writer} is missing"),
        Kind::AfterSeal => format!("batch {number} of {writer} comes after the end of its chain"),
        Kind::Checkpoint => {
            format!(
                "what stands for {writer} up to its batch {number} was not made with the key of the chain"
            )
        }
        Kind::Strays => format!("{} rows belong to no batch", damage.rows),
        Kind::Cut => {
            let by =
                if damage.known_by.is_empty() { "" } else { &format!(", as {} remembers", damage.known_by) };
            let last = match damage.last {
                0 => "nothing of that chain is there".to_owned(),
                last => format!("its chain ends with batch {last}"),
            };
            format!(
                "batch {number} of {writer} was there once{by}; {last}: the log was cut, or is an older copy"
            )
        }
        Kind::Unspecified => format!("batch {number} of {writer}: damage that this version does not know"),
    }
}
