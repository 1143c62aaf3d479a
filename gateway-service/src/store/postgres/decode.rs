//! From a row of PostgreSQL to what it says. What no program of ours wrote is an error, never a guess.

use interlock_kit::{
    clock::Timestamp,
    store::{Fault, postgres::Row},
};

use crate::{
    agent::Agent,
    binding::Binding,
    client::{Client, ClientRole},
    event::Event,
    file::{self, File},
    ids::{
        AgentId, ClientId, FileId, FileName, JobId, OwnerId, ProjectId, RequestId, SessionId, SessionName,
        WaiterId, WorkerName,
    },
    job::{self, End, EndedBy, Job, Outcome},
    lease::Lease,
    password::SessionPassword,
    request::{Request, RequestKey},
    session::{self, Session},
    store::{record, rows::EventSize},
    waiter::Waiter,
};

pub(super) fn session(row: &Row) -> Result<Session, Fault> {
    let epoch = unsigned(row, 5)?;
    let binding = maybe_text(row, 3)?.zip(maybe_text(row, 4)?).map(|(agent, project)| Binding {
        agent: AgentId::stored(agent),
        project: ProjectId::stored(project),
        epoch,
    });
    let phase = match row.try_get::<_, i16>(6)? {
        0 => session::Phase::Open,
        1 => session::Phase::Closing,
        2 => session::Phase::Gone,
        _ => return Err(unknown(6)),
    };
    Ok(Session {
        id: SessionId::stored(row.try_get(0)?),
        owner: OwnerId::stored(row.try_get(1)?),
        name: maybe_text(row, 2)?.map(SessionName::stored),
        binding,
        phase,
        created_at: instant(row, 7)?,
        ended_at: maybe_instant(row, 8)?,
    })
}

fn role(row: &Row, at: usize) -> Result<ClientRole, Fault> {
    match row.try_get::<_, i16>(at)? {
        0 => Ok(ClientRole::Observer),
        1 => Ok(ClientRole::Operator),
        2 => Ok(ClientRole::Host),
        _ => Err(unknown(at)),
    }
}

pub(super) fn password(row: &Row) -> Result<SessionPassword, Fault> {
    Ok(SessionPassword {
        session: SessionId::stored(row.try_get(0)?),
        hash: row.try_get(1)?,
        joiners: role(row, 2)?,
        version: unsigned(row, 3)?,
    })
}

pub(super) fn file(row: &Row) -> Result<File, Fault> {
    let phase = match row.try_get::<_, i16>(5)? {
        0 => file::Phase::Coming { until: instant(row, 6)? },
        1 => file::Phase::Kept,
        2 => file::Phase::Going { since: instant(row, 6)? },
        _ => return Err(unknown(5)),
    };
    Ok(File {
        id: FileId::stored(row.try_get(0)?),
        session: SessionId::stored(row.try_get(1)?),
        project: maybe_text(row, 2)?.map(ProjectId::stored),
        epoch: unsigned(row, 3)?,
        name: FileName::stored(row.try_get(4)?),
        phase,
        size: unsigned(row, 7)?,
        hash: hash(row, 8)?,
        at: instant(row, 9)?,
    })
}

pub(super) fn waiter(row: &Row) -> Result<Waiter, Fault> {
    Ok(Waiter {
        id: WaiterId::stored(row.try_get(0)?),
        session: SessionId::stored(row.try_get(1)?),
        owner: OwnerId::stored(row.try_get(2)?),
        agent: AgentId::stored(row.try_get(3)?),
        present: maybe_text(row, 4)?.map(AgentId::stored),
        project: ProjectId::stored(row.try_get(5)?),
        deadline: instant(row, 6)?,
        alive_until: instant(row, 7)?,
    })
}

pub(super) fn client(row: &Row) -> Result<Client, Fault> {
    Ok(Client {
        id: ClientId::stored(row.try_get(0)?),
        session: SessionId::stored(row.try_get(1)?),
        role: role(row, 2)?,
        hash: hash(row, 3)?,
        cursor: unsigned(row, 4)?,
        created_at: instant(row, 5)?,
        seen_at: instant(row, 6)?,
    })
}

pub(super) fn agent(row: &Row) -> Result<Agent, Fault> {
    Ok(Agent {
        id: AgentId::stored(row.try_get(0)?),
        owner: maybe_text(row, 1)?.map(OwnerId::stored),
        shared: row.try_get(2)?,
        description: row.try_get(3)?,
        created_at: instant(row, 4)?,
    })
}

pub(super) fn request(row: &Row) -> Result<Request, Fault> {
    let (scope, id) = (row.try_get(1)?, RequestId::stored(row.try_get(2)?));
    let key = match row.try_get::<_, i16>(0)? {
        0 => RequestKey::Create(OwnerId::stored(scope), id),
        1 => RequestKey::Submit(SessionId::stored(scope), id),
        2 => RequestKey::Join(SessionId::stored(scope), id),
        3 => RequestKey::Post(SessionId::stored(scope), id),
        _ => return Err(unknown(0)),
    };
    Ok(Request {
        key,
        hash: hash(row, 3)?,
        made: row.try_get(4)?,
        sealed: row.try_get(5)?,
        kept_until: instant(row, 6)?,
    })
}

pub(super) fn job(row: &Row) -> Result<Job, Fault> {
    let few = |at| -> Result<u32, Fault> { u32::try_from(unsigned(row, at)?).map_err(|_| unknown(at)) };
    Ok(Job {
        id: JobId::stored(row.try_get(0)?),
        session: SessionId::stored(row.try_get(1)?),
        owner: OwnerId::stored(row.try_get(2)?),
        client: maybe_text(row, 3)?.map(ClientId::stored),
        binding: Binding {
            agent: AgentId::stored(row.try_get(4)?),
            project: ProjectId::stored(row.try_get(5)?),
            epoch: unsigned(row, 6)?,
        },
        phase: job_phase(row)?,
        attempt: few(8)?,
        lost: few(9)?,
        fencing: unsigned(row, 10)?,
        holder: maybe_text(row, 11)?.map(OwnerId::stored),
        submitted_at: instant(row, 15)?,
        first_started_at: maybe_instant(row, 16)?,
        started_at: maybe_instant(row, 17)?,
        cancel_requested_at: maybe_instant(row, 18)?,
    })
}

fn job_phase(row: &Row) -> Result<job::Phase, Fault> {
    let outcome = match row.try_get::<_, i16>(7)? {
        0 => return Ok(job::Phase::Queued),
        1 => {
            let worker = WorkerName::stored(row.try_get(12)?);
            let (until, progress) = (instant(row, 13)?, unsigned(row, 14)?);
            return Ok(job::Phase::Running(Lease { worker, until, progress }));
        }
        2 => Outcome::Succeeded,
        3 => Outcome::Failed,
        4 => Outcome::Cancelled,
        _ => return Err(unknown(7)),
    };
    let by = match row.try_get::<_, i16>(21)? {
        0 => EndedBy::Gateway,
        1 => EndedBy::Worker,
        _ => return Err(unknown(21)),
    };
    Ok(job::Phase::Ended(End { outcome, at: instant(row, 19)?, cause: row.try_get(20)?, by }))
}

pub(super) fn event(row: &Row) -> Result<Event, Fault> {
    Ok(Event {
        sequence: unsigned(row, 0)?,
        at: instant(row, 1)?,
        project: maybe_text(row, 2)?.map(ProjectId::stored),
        epoch: unsigned(row, 3)?,
        kind: record::read(row.try_get(4)?, row.try_get(5)?, row.try_get(6)?)?,
    })
}

pub(super) fn event_size(row: &Row) -> Result<EventSize, Fault> {
    Ok(EventSize { sequence: unsigned(row, 0)?, at: instant(row, 1)?, bytes: unsigned(row, 2)? })
}

fn hash(row: &Row, at: usize) -> Result<[u8; 32], Fault> {
    row.try_get::<_, &[u8]>(at)?.try_into().map_err(|_| unknown(at))
}

/// PostgreSQL's integers are signed; ours never come near the sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("a number under 2^63")
}

pub(super) fn unsigned(row: &Row, at: usize) -> Result<u64, Fault> {
    u64::try_from(row.try_get::<_, i64>(at)?).map_err(|_| unknown(at))
}

/// What our codes are stored as.
pub(super) fn small(code: i64) -> i16 {
    i16::try_from(code).expect("codes are small")
}

/// Limits are far below what the database counts to.
pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

pub(super) fn instant(row: &Row, at: usize) -> Result<Timestamp, Fault> {
    Ok(Timestamp::from_micros(row.try_get(at)?))
}

pub(super) fn maybe_instant(row: &Row, at: usize) -> Result<Option<Timestamp>, Fault> {
    Ok(row.try_get::<_, Option<i64>>(at)?.map(Timestamp::from_micros))
}

fn maybe_text(row: &Row, at: usize) -> Result<Option<String>, Fault> {
    Ok(row.try_get(at)?)
}

/// A value that no program of ours wrote.
pub(super) fn unknown(column: usize) -> Fault {
    Fault::Broken(format!("an unknown value in column {column}"))
}
