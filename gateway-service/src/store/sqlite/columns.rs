//! Columns to values and back.

use interlock_kit::{clock::Timestamp, store::Fault};
use rusqlite::{Row, types::Type};

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
    store::record,
    waiter::Waiter,
};

fn at(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_micros(row.get(column)?))
}

fn maybe_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
}

fn unknown(column: usize, value: i64) -> rusqlite::Error {
    let text = format!("{value} is no value of ours");
    rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, text.into())
}

pub(super) fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let (agent, project): (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
    let epoch = row.get(5)?;
    let binding = agent.zip(project).map(|(agent, project)| Binding {
        agent: AgentId::stored(agent),
        project: ProjectId::stored(project),
        epoch,
    });
    let phase = match row.get(6)? {
        0 => session::Phase::Open,
        1 => session::Phase::Closing,
        2 => session::Phase::Gone,
        other => return Err(unknown(6, other)),
    };
    Ok(Session {
        id: SessionId::stored(row.get(0)?),
        owner: OwnerId::stored(row.get(1)?),
        name: row.get::<_, Option<String>>(2)?.map(SessionName::stored),
        binding,
        phase,
        created_at: at(row, 7)?,
        ended_at: maybe_at(row, 8)?,
    })
}

fn role(row: &Row<'_>, column: usize) -> rusqlite::Result<ClientRole> {
    match row.get(column)? {
        0 => Ok(ClientRole::Observer),
        1 => Ok(ClientRole::Operator),
        2 => Ok(ClientRole::Host),
        other => Err(unknown(column, other)),
    }
}

pub(super) fn password(row: &Row<'_>) -> rusqlite::Result<SessionPassword> {
    Ok(SessionPassword {
        session: SessionId::stored(row.get(0)?),
        hash: row.get(1)?,
        joiners: role(row, 2)?,
        version: row.get(3)?,
    })
}

pub(super) fn file(row: &Row<'_>) -> rusqlite::Result<File> {
    let phase = match row.get(5)? {
        0 => file::Phase::Coming { until: at(row, 6)? },
        1 => file::Phase::Kept,
        2 => file::Phase::Going { since: at(row, 6)? },
        other => return Err(unknown(5, other)),
    };
    Ok(File {
        id: FileId::stored(row.get(0)?),
        session: SessionId::stored(row.get(1)?),
        project: row.get::<_, Option<String>>(2)?.map(ProjectId::stored),
        epoch: row.get(3)?,
        name: FileName::stored(row.get(4)?),
        phase,
        size: row.get(7)?,
        hash: row.get(8)?,
        at: at(row, 9)?,
    })
}

pub(super) fn waiter(row: &Row<'_>) -> rusqlite::Result<Waiter> {
    Ok(Waiter {
        id: WaiterId::stored(row.get(0)?),
        session: SessionId::stored(row.get(1)?),
        owner: OwnerId::stored(row.get(2)?),
        agent: AgentId::stored(row.get(3)?),
        present: row.get::<_, Option<String>>(4)?.map(AgentId::stored),
        project: ProjectId::stored(row.get(5)?),
        deadline: at(row, 6)?,
        alive_until: at(row, 7)?,
    })
}

pub(super) fn client(row: &Row<'_>) -> rusqlite::Result<Client> {
    Ok(Client {
        id: ClientId::stored(row.get(0)?),
        session: SessionId::stored(row.get(1)?),
        role: role(row, 2)?,
        hash: row.get(3)?,
        cursor: row.get(4)?,
        created_at: at(row, 5)?,
        seen_at: at(row, 6)?,
    })
}

pub(super) fn agent(row: &Row<'_>) -> rusqlite::Result<Agent> {
    Ok(Agent {
        id: AgentId::stored(row.get(0)?),
        owner: row.get::<_, Option<String>>(1)?.map(OwnerId::stored),
        shared: row.get(2)?,
        description: row.get(3)?,
        created_at: at(row, 4)?,
    })
}

pub(super) fn stored_key(row: &Row<'_>) -> rusqlite::Result<RequestKey> {
    let (scope, id) = (row.get(1)?, RequestId::stored(row.get(2)?));
    match row.get(0)? {
        0 => Ok(RequestKey::Create(OwnerId::stored(scope), id)),
        1 => Ok(RequestKey::Submit(SessionId::stored(scope), id)),
        2 => Ok(RequestKey::Join(SessionId::stored(scope), id)),
        3 => Ok(RequestKey::Post(SessionId::stored(scope), id)),
        other => Err(unknown(0, other)),
    }
}

pub(super) fn request(row: &Row<'_>) -> rusqlite::Result<Request> {
    Ok(Request {
        key: stored_key(row)?,
        hash: row.get(3)?,
        made: row.get(4)?,
        sealed: row.get(5)?,
        kept_until: at(row, 6)?,
    })
}

pub(super) fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let text = |column| row.get::<_, Option<String>>(column);
    Ok(Job {
        id: JobId::stored(row.get(0)?),
        session: SessionId::stored(row.get(1)?),
        owner: OwnerId::stored(row.get(2)?),
        client: text(3)?.map(ClientId::stored),
        binding: Binding {
            agent: AgentId::stored(row.get(4)?),
            project: ProjectId::stored(row.get(5)?),
            epoch: row.get(6)?,
        },
        phase: job_phase(row)?,
        attempt: row.get(8)?,
        lost: row.get(9)?,
        fencing: row.get(10)?,
        holder: text(11)?.map(OwnerId::stored),
        submitted_at: at(row, 15)?,
        first_started_at: maybe_at(row, 16)?,
        started_at: maybe_at(row, 17)?,
        cancel_requested_at: maybe_at(row, 18)?,
    })
}

fn job_phase(row: &Row<'_>) -> rusqlite::Result<job::Phase> {
    let outcome = match row.get(7)? {
        0 => return Ok(job::Phase::Queued),
        1 => {
            let worker = WorkerName::stored(row.get::<_, String>(12)?);
            return Ok(job::Phase::Running(Lease { worker, until: at(row, 13)?, progress: row.get(14)? }));
        }
        2 => Outcome::Succeeded,
        3 => Outcome::Failed,
        4 => Outcome::Cancelled,
        other => return Err(unknown(7, other)),
    };
    let by = if row.get(21)? { EndedBy::Worker } else { EndedBy::Gateway };
    Ok(job::Phase::Ended(End { outcome, at: at(row, 19)?, cause: row.get(20)?, by }))
}

/// An event; its facts may be of a shape that this version does not know.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<Result<Event, Fault>> {
    let facts: String = row.get(5)?;
    let (sequence, at, epoch) = (row.get(0)?, at(row, 1)?, row.get(3)?);
    let project = row.get::<_, Option<String>>(2)?.map(ProjectId::stored);
    let kind = record::read(row.get(4)?, &facts, row.get(6)?);
    Ok(kind.map(|kind| Event { sequence, at, project, epoch, kind }))
}
