//! From a row of SQLite to what it says. What no program of ours wrote is an error, never a guess.

use interlock_kit::clock::Timestamp;
use rusqlite::Row;

use crate::{
    accounts::{Facts, Source},
    elevation::Elevation,
    ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId, ProjectName, ReplicaId, RequestId},
    owner::{Applied, Owner},
    owner_session::{Access, OwnerSession, RefreshState, RefreshToken, Successor},
    password::PasswordHash,
    project::Project,
    project_token::{Ended, ProjectToken, TokenAnswer},
    replica::Replica,
    revocation::{Effect, Revocation, Subject},
    role_token::{Answer, Role, RoleToken, Step, TokenUse},
    root::RootFingerprint,
    sweep::Due,
};

pub(super) fn due(row: &Row<'_>) -> rusqlite::Result<Due> {
    Ok(match row.get::<_, i64>(0)? {
        1 => Due::RoleToken(row.get(1)?),
        2 => Due::OwnerSession(OwnerSessionId::made(row.get::<_, String>(1)?)),
        3 => Due::Access(row.get(1)?),
        4 => Due::Successor(row.get(1)?),
        6 => Due::Elevation(OwnerSessionId::made(row.get::<_, String>(1)?)),
        8 => Due::TokenAnswer(
            OwnerId::made(row.get::<_, String>(1)?),
            RequestId::made(row.get::<_, String>(2)?),
        ),
        7 => Due::ProjectToken(row.get(1)?),
        _ => Due::Answer(OwnerId::made(row.get::<_, String>(1)?), RequestId::made(row.get::<_, String>(2)?)),
    })
}

pub(super) fn replica(row: &Row<'_>) -> rusqlite::Result<Replica> {
    let told = Replica::told_from(row.get_ref(5)?.as_str()?);
    Ok(Replica {
        id: ReplicaId::made(row.get::<_, String>(0)?),
        beat: unsigned(row, 1)?,
        promise: std::time::Duration::from_micros(unsigned(row, 2)?),
        reached: unsigned(row, 3)?,
        holders: row.get(4)?,
        told: told.ok_or_else(|| unknown(5))?,
        uses_told_at: instant(row, 6)?,
    })
}

pub(super) fn role_token(row: &Row<'_>) -> rusqlite::Result<RoleToken> {
    Ok(RoleToken {
        hash: row.get(0)?,
        id: CredentialId::made(row.get::<_, String>(1)?),
        role: role(row, 2)?,
        generation: unsigned(row, 3)?,
        issuance: unsigned(row, 4)?,
        masked: row.get(5)?,
        created_at: instant(row, 6)?,
        valid_until: maybe_instant(row, 7)?,
        candidate: row.get(8)?,
    })
}

pub(super) fn token_use(row: &Row<'_>) -> rusqlite::Result<TokenUse> {
    Ok(TokenUse {
        role: role(row, 0)?,
        token: row.get(1)?,
        service: row.get(2)?,
        source: row.get(3)?,
        last_at: instant(row, 4)?,
        noted: unsigned(row, 5)?,
    })
}

pub(super) fn answer(row: &Row<'_>) -> rusqlite::Result<Answer> {
    Ok(Answer {
        owner: OwnerId::made(row.get::<_, String>(0)?),
        request: RequestId::made(row.get::<_, String>(1)?),
        credential: CredentialId::made(row.get::<_, String>(2)?),
        role: role(row, 3)?,
        grace: std::time::Duration::from_micros(unsigned(row, 4)?),
        sealed: row.get(5)?,
        generation: unsigned(row, 6)?,
        revocation: unsigned(row, 7)?,
        ends_at: instant(row, 8)?,
        step: Step::of_text(row.get_ref(9)?.as_str()?).ok_or_else(|| unknown(9))?,
    })
}

pub(super) fn owner(row: &Row<'_>) -> rusqlite::Result<Owner> {
    Ok(Owner {
        id: OwnerId::made(row.get::<_, String>(0)?),
        display_name: row.get(1)?,
        roles: texts(row, 2)?,
        active: row.get(3)?,
        password: PasswordHash::stored(row.get(4)?),
        version: unsigned(row, 5)?,
        sessions_from: unsigned(row, 6)?,
        changed_at: instant(row, 7)?,
        removed_at: maybe_instant(row, 8)?,
    })
}

pub(super) fn applied(row: &Row<'_>) -> rusqlite::Result<Applied> {
    Ok(Applied {
        source: match row.get_ref(0)?.as_str()? {
            "environment" => Source::Environment,
            "file" => Source::File,
            _ => return Err(unknown(0)),
        },
        owner: OwnerId::made(row.get::<_, String>(1)?),
        facts: Facts { display_name: row.get(2)?, roles: texts(row, 3)?, active: row.get(4)? },
        password: PasswordHash::stored(row.get(5)?),
    })
}

pub(super) fn owner_session(row: &Row<'_>) -> rusqlite::Result<OwnerSession> {
    Ok(OwnerSession {
        id: OwnerSessionId::made(row.get::<_, String>(0)?),
        owner: OwnerId::made(row.get::<_, String>(1)?),
        issuance: unsigned(row, 2)?,
        created_at: instant(row, 3)?,
        expires_at: instant(row, 4)?,
        ended_at: maybe_instant(row, 5)?,
        refreshes: row.get(6)?,
        elevation: elevation(row)?,
    })
}

fn elevation(row: &Row<'_>) -> rusqlite::Result<Option<Elevation>> {
    let Some(until) = maybe_instant(row, 7)? else { return Ok(None) };
    let (root, certificate) = (RootFingerprint(row.get(8)?), row.get(9)?);
    Ok(Some(Elevation { until, root, certificate }))
}

pub(super) fn access(row: &Row<'_>) -> rusqlite::Result<Access> {
    Ok(Access {
        hash: row.get(0)?,
        id: CredentialId::made(row.get::<_, String>(1)?),
        session: OwnerSessionId::made(row.get::<_, String>(2)?),
        issuance: unsigned(row, 3)?,
        expires_at: instant(row, 4)?,
    })
}

pub(super) fn refresh_token(row: &Row<'_>) -> rusqlite::Result<RefreshToken> {
    let state = match row.get_ref(5)?.as_str()? {
        "fresh" => RefreshState::Fresh,
        "used" => RefreshState::Used(Successor {
            at: instant(row, 6)?,
            sealed: row.get(7)?,
            access_expires_at: instant(row, 8)?,
        }),
        "spent" => RefreshState::Spent,
        _ => return Err(unknown(5)),
    };
    Ok(RefreshToken {
        hash: row.get(0)?,
        id: CredentialId::made(row.get::<_, String>(1)?),
        session: OwnerSessionId::made(row.get::<_, String>(2)?),
        issuance: unsigned(row, 3)?,
        predecessor: row.get(4)?,
        state,
    })
}

pub(super) fn project(row: &Row<'_>) -> rusqlite::Result<Project> {
    Ok(Project {
        id: ProjectId::made(row.get::<_, String>(0)?),
        name: ProjectName::made(row.get::<_, String>(1)?),
        created_by: OwnerId::made(row.get::<_, String>(2)?),
        request: row.get::<_, Option<String>>(3)?.map(RequestId::made),
        created_at: instant(row, 4)?,
    })
}

pub(super) fn project_token(row: &Row<'_>) -> rusqlite::Result<ProjectToken> {
    let ended = match maybe_instant(row, 12)? {
        Some(at) => Some(Ended { at, revocation: unsigned(row, 13)? }),
        None => None,
    };
    Ok(ProjectToken {
        hash: row.get(0)?,
        id: CredentialId::made(row.get::<_, String>(1)?),
        project: ProjectId::made(row.get::<_, String>(2)?),
        issuer: OwnerId::made(row.get::<_, String>(3)?),
        label: row.get(4)?,
        scopes: texts(row, 5)?,
        agents: texts(row, 6)?,
        issuance: unsigned(row, 7)?,
        masked: row.get(8)?,
        created_at: instant(row, 9)?,
        expires_at: maybe_instant(row, 10)?,
        replaced: row.get(11)?,
        by_role: row
            .get::<_, Option<i64>>(14)?
            .map(|version| u64::try_from(version).map_err(|_| unknown(14)))
            .transpose()?,
        ended,
    })
}

pub(super) fn token_answer(row: &Row<'_>) -> rusqlite::Result<TokenAnswer> {
    Ok(TokenAnswer {
        owner: OwnerId::made(row.get::<_, String>(0)?),
        request: RequestId::made(row.get::<_, String>(1)?),
        credential: CredentialId::made(row.get::<_, String>(2)?),
        asked: row.get(3)?,
        sealed: row.get(4)?,
        token: CredentialId::made(row.get::<_, String>(5)?),
        revocation: unsigned(row, 6)?,
        ends_at: instant(row, 7)?,
    })
}

pub(super) fn revocation(row: &Row<'_>) -> rusqlite::Result<Revocation> {
    let named: String = row.get(3)?;
    let subject = match row.get_ref(2)?.as_str()? {
        "credential" => Subject::Credential(CredentialId::made(named)),
        "owner_session" => Subject::OwnerSession(OwnerSessionId::made(named)),
        "owner" => Subject::Owner(OwnerId::made(named)),
        "role" => Subject::Role(role(row, 3)?),
        "membership" => Subject::Membership(OwnerId::made(named), ProjectId::made(row.get::<_, String>(4)?)),
        "every_owner_session" => Subject::EveryOwnerSession,
        _ => return Err(unknown(2)),
    };
    Ok(Revocation {
        sequence: unsigned(row, 0)?,
        issued_before: unsigned(row, 1)?,
        subject,
        at: instant(row, 5)?,
        effect: Effect::of_code(row.get(6)?).ok_or_else(|| unknown(6))?,
    })
}

/// SQLite's integers are signed; ours never come near the sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("a number under 2^63")
}

pub(super) fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    u64::try_from(row.get::<_, i64>(at)?).map_err(|_| unknown(at))
}

fn instant(row: &Row<'_>, at: usize) -> rusqlite::Result<Timestamp> {
    row.get(at).map(Timestamp::from_micros)
}

fn maybe_instant(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(Timestamp::from_micros))
}

fn role(row: &Row<'_>, at: usize) -> rusqlite::Result<Role> {
    Role::parse("role", row.get_ref(at)?.as_str()?).map_err(|_| unknown(at))
}

/// A JSON list of texts.
fn texts(row: &Row<'_>, at: usize) -> rusqlite::Result<Vec<String>> {
    serde_json::from_str(row.get_ref(at)?.as_str()?).map_err(|_| unknown(at))
}

/// A value that no program of ours wrote.
fn unknown(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "unknown value".to_owned(), rusqlite::types::Type::Null)
}
