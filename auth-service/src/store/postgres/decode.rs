//! From a row of PostgreSQL to what it says. What no program of ours wrote is an error, never a guess.

use interlock_kit::{
    clock::Timestamp,
    store::{Fault, postgres::Row},
};
use interlock_proto::credential::Hash;

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

pub(super) fn due(row: &Row) -> Result<Due, Fault> {
    let text = |at: usize| row.try_get::<_, String>(at);
    Ok(match row.try_get::<_, i32>(0)? {
        1 => Due::RoleToken(hash(row, 1)?),
        2 => Due::OwnerSession(OwnerSessionId::made(text(2)?)),
        3 => Due::Access(hash(row, 1)?),
        4 => Due::Successor(hash(row, 1)?),
        6 => Due::Elevation(OwnerSessionId::made(text(2)?)),
        8 => Due::TokenAnswer(OwnerId::made(text(2)?), RequestId::made(text(3)?)),
        7 => Due::ProjectToken(hash(row, 1)?),
        _ => Due::Answer(OwnerId::made(text(2)?), RequestId::made(text(3)?)),
    })
}

pub(super) fn replica(row: &Row) -> Result<Replica, Fault> {
    let told = Replica::told_from(row.try_get(5)?);
    Ok(Replica {
        id: ReplicaId::made(row.try_get::<_, String>(0)?),
        beat: unsigned(row, 1)?,
        promise: std::time::Duration::from_micros(unsigned(row, 2)?),
        reached: unsigned(row, 3)?,
        holders: u32::try_from(unsigned(row, 4)?).unwrap_or(u32::MAX),
        told: told.ok_or_else(|| Fault::Broken("what a program told cannot be read".to_owned()))?,
        uses_told_at: instant(row, 6)?,
    })
}

pub(super) fn role_token(row: &Row) -> Result<RoleToken, Fault> {
    Ok(RoleToken {
        hash: hash(row, 0)?,
        id: CredentialId::made(row.try_get::<_, String>(1)?),
        role: role(row, 2)?,
        generation: unsigned(row, 3)?,
        issuance: unsigned(row, 4)?,
        masked: row.try_get(5)?,
        created_at: instant(row, 6)?,
        valid_until: maybe_instant(row, 7)?,
        candidate: row.try_get(8)?,
    })
}

pub(super) fn token_use(row: &Row) -> Result<TokenUse, Fault> {
    Ok(TokenUse {
        role: role(row, 0)?,
        token: hash(row, 1)?,
        service: row.try_get(2)?,
        source: row.try_get(3)?,
        last_at: instant(row, 4)?,
        noted: unsigned(row, 5)?,
    })
}

pub(super) fn answer(row: &Row) -> Result<Answer, Fault> {
    let step = Step::of_text(row.try_get(9)?);
    Ok(Answer {
        owner: OwnerId::made(row.try_get::<_, String>(0)?),
        request: RequestId::made(row.try_get::<_, String>(1)?),
        credential: CredentialId::made(row.try_get::<_, String>(2)?),
        role: role(row, 3)?,
        grace: std::time::Duration::from_micros(unsigned(row, 4)?),
        sealed: row.try_get(5)?,
        generation: unsigned(row, 6)?,
        revocation: unsigned(row, 7)?,
        ends_at: instant(row, 8)?,
        step: step.ok_or_else(|| Fault::Broken("no such step of a rotation".to_owned()))?,
    })
}

pub(super) fn owner(row: &Row) -> Result<Owner, Fault> {
    Ok(Owner {
        id: OwnerId::made(row.try_get::<_, String>(0)?),
        display_name: row.try_get(1)?,
        roles: texts(row, 2)?,
        active: row.try_get(3)?,
        password: PasswordHash::stored(row.try_get(4)?),
        version: unsigned(row, 5)?,
        sessions_from: unsigned(row, 6)?,
        changed_at: instant(row, 7)?,
        removed_at: maybe_instant(row, 8)?,
    })
}

pub(super) fn applied(row: &Row) -> Result<Applied, Fault> {
    Ok(Applied {
        source: match row.try_get::<_, &str>(0)? {
            "environment" => Source::Environment,
            "file" => Source::File,
            _ => return Err(unknown(0)),
        },
        owner: OwnerId::made(row.try_get::<_, String>(1)?),
        facts: Facts { display_name: row.try_get(2)?, roles: texts(row, 3)?, active: row.try_get(4)? },
        password: PasswordHash::stored(row.try_get(5)?),
    })
}

pub(super) fn owner_session(row: &Row) -> Result<OwnerSession, Fault> {
    Ok(OwnerSession {
        id: OwnerSessionId::made(row.try_get::<_, String>(0)?),
        owner: OwnerId::made(row.try_get::<_, String>(1)?),
        issuance: unsigned(row, 2)?,
        created_at: instant(row, 3)?,
        expires_at: instant(row, 4)?,
        ended_at: maybe_instant(row, 5)?,
        refreshes: u32::try_from(row.try_get::<_, i64>(6)?).map_err(|_| unknown(6))?,
        elevation: elevation(row)?,
    })
}

fn elevation(row: &Row) -> Result<Option<Elevation>, Fault> {
    let Some(until) = maybe_instant(row, 7)? else { return Ok(None) };
    let certificate = row.try_get::<_, Option<&[u8]>>(9)?.map(|bytes| sized(bytes, 9)).transpose()?;
    Ok(Some(Elevation { until, root: RootFingerprint(hash(row, 8)?), certificate }))
}

pub(super) fn access(row: &Row) -> Result<Access, Fault> {
    Ok(Access {
        hash: hash(row, 0)?,
        id: CredentialId::made(row.try_get::<_, String>(1)?),
        session: OwnerSessionId::made(row.try_get::<_, String>(2)?),
        issuance: unsigned(row, 3)?,
        expires_at: instant(row, 4)?,
    })
}

pub(super) fn refresh_token(row: &Row) -> Result<RefreshToken, Fault> {
    let state = match row.try_get::<_, &str>(5)? {
        "fresh" => RefreshState::Fresh,
        "used" => RefreshState::Used(Successor {
            at: instant(row, 6)?,
            sealed: row.try_get(7)?,
            access_expires_at: instant(row, 8)?,
        }),
        "spent" => RefreshState::Spent,
        _ => return Err(unknown(5)),
    };
    Ok(RefreshToken {
        hash: hash(row, 0)?,
        id: CredentialId::made(row.try_get::<_, String>(1)?),
        session: OwnerSessionId::made(row.try_get::<_, String>(2)?),
        issuance: unsigned(row, 3)?,
        predecessor: row.try_get::<_, Option<&[u8]>>(4)?.map(|bytes| sized(bytes, 4)).transpose()?,
        state,
    })
}

pub(super) fn project(row: &Row) -> Result<Project, Fault> {
    Ok(Project {
        id: ProjectId::made(row.try_get::<_, String>(0)?),
        name: ProjectName::made(row.try_get::<_, String>(1)?),
        created_by: OwnerId::made(row.try_get::<_, String>(2)?),
        request: row.try_get::<_, Option<String>>(3)?.map(RequestId::made),
        created_at: instant(row, 4)?,
    })
}

pub(super) fn project_token(row: &Row) -> Result<ProjectToken, Fault> {
    let ended = match maybe_instant(row, 12)? {
        Some(at) => Some(Ended { at, revocation: unsigned(row, 13)? }),
        None => None,
    };
    Ok(ProjectToken {
        hash: hash(row, 0)?,
        id: CredentialId::made(row.try_get::<_, String>(1)?),
        project: ProjectId::made(row.try_get::<_, String>(2)?),
        issuer: OwnerId::made(row.try_get::<_, String>(3)?),
        label: row.try_get(4)?,
        scopes: texts(row, 5)?,
        agents: texts(row, 6)?,
        issuance: unsigned(row, 7)?,
        masked: row.try_get(8)?,
        created_at: instant(row, 9)?,
        expires_at: maybe_instant(row, 10)?,
        replaced: row.try_get(11)?,
        by_role: row
            .try_get::<_, Option<i64>>(14)?
            .map(|version| u64::try_from(version).map_err(|_| unknown(14)))
            .transpose()?,
        ended,
    })
}

pub(super) fn token_answer(row: &Row) -> Result<TokenAnswer, Fault> {
    Ok(TokenAnswer {
        owner: OwnerId::made(row.try_get::<_, String>(0)?),
        request: RequestId::made(row.try_get::<_, String>(1)?),
        credential: CredentialId::made(row.try_get::<_, String>(2)?),
        asked: row.try_get(3)?,
        sealed: row.try_get(4)?,
        token: CredentialId::made(row.try_get::<_, String>(5)?),
        revocation: unsigned(row, 6)?,
        ends_at: instant(row, 7)?,
    })
}

pub(super) fn revocation(row: &Row) -> Result<Revocation, Fault> {
    let named: String = row.try_get(3)?;
    let subject = match row.try_get::<_, &str>(2)? {
        "credential" => Subject::Credential(CredentialId::made(named)),
        "owner_session" => Subject::OwnerSession(OwnerSessionId::made(named)),
        "owner" => Subject::Owner(OwnerId::made(named)),
        "role" => Subject::Role(role(row, 3)?),
        "membership" => {
            Subject::Membership(OwnerId::made(named), ProjectId::made(row.try_get::<_, String>(4)?))
        }
        "every_owner_session" => Subject::EveryOwnerSession,
        _ => return Err(unknown(2)),
    };
    Ok(Revocation {
        sequence: unsigned(row, 0)?,
        issued_before: unsigned(row, 1)?,
        subject,
        at: instant(row, 5)?,
        effect: Effect::of_code(row.try_get::<_, i16>(6)?.into()).ok_or_else(|| unknown(6))?,
    })
}

fn hash(row: &Row, at: usize) -> Result<Hash, Fault> {
    sized(row.try_get(at)?, at)
}

fn sized(bytes: &[u8], at: usize) -> Result<Hash, Fault> {
    bytes.try_into().map_err(|_| unknown(at))
}

/// PostgreSQL's integers are signed; ours never come near the sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("a number under 2^63")
}

pub(super) fn unsigned(row: &Row, at: usize) -> Result<u64, Fault> {
    u64::try_from(row.try_get::<_, i64>(at)?).map_err(|_| unknown(at))
}

fn instant(row: &Row, at: usize) -> Result<Timestamp, Fault> {
    Ok(Timestamp::from_micros(row.try_get(at)?))
}

fn maybe_instant(row: &Row, at: usize) -> Result<Option<Timestamp>, Fault> {
    Ok(row.try_get::<_, Option<i64>>(at)?.map(Timestamp::from_micros))
}

fn role(row: &Row, at: usize) -> Result<Role, Fault> {
    Role::parse("role", row.try_get(at)?).map_err(|_| unknown(at))
}

/// A JSON list of texts.
fn texts(row: &Row, at: usize) -> Result<Vec<String>, Fault> {
    serde_json::from_str(row.try_get(at)?).map_err(|_| unknown(at))
}

/// A value that no program of ours wrote.
fn unknown(column: usize) -> Fault {
    Fault::Broken(format!("an unknown value in column {column}"))
}
