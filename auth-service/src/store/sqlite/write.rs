//! The rows in SQLite: writes. Each is conditional and counted.

use interlock_kit::{
    clock::Timestamp,
    store::{Fault, sqlite},
};
use rusqlite::{Connection, Params, params};

use super::decode::signed;
use crate::{
    elevation::Elevation,
    ids::RequestId,
    owner::{Applied, Owner},
    owner_session::{OwnerSession, RefreshState, RefreshToken},
    project_token::{ProjectToken, TokenAnswer},
    replica::Replica,
    revocation::{Revocation, Subject},
    role_token::{Answer, RoleToken, TokenUse},
    store::{Planned, Signal},
    sweep::Due,
};

pub(super) fn apply(
    connection: &Connection,
    change: Planned,
    signals: &mut Vec<Signal>,
) -> Result<(), Fault> {
    let to = To(connection);
    match change {
        Planned::Counters { from, to: after } => to.one(
            "counters",
            "UPDATE counter SET issuance = ?4, revocation = ?5, pruned = ?6
             WHERE issuance = ?1 AND revocation = ?2 AND pruned = ?3",
            [from.issuance, from.revocation, from.pruned, after.issuance, after.revocation, after.pruned]
                .map(signed),
        ),
        Planned::InsertRoleToken(token) => {
            insert_role_token(&to, &token)?;
            signals.push(Signal::RoleTokensChanged(token.role));
            Ok(())
        }
        Planned::EndRoleToken(hash) => to.one("role token", "DELETE FROM role_token WHERE hash = ?1", [hash]),
        Planned::LimitRoleToken { hash, valid_until } => to.one(
            "role token",
            "UPDATE role_token SET valid_until = ?2 WHERE hash = ?1 AND valid_until IS NULL",
            (hash, valid_until.as_micros()),
        ),
        Planned::PromoteRoleToken(hash) => to.one(
            "role token",
            "UPDATE role_token SET candidate = 0 WHERE hash = ?1 AND candidate = 1",
            [hash],
        ),
        Planned::PutTokenUse { was, used } => put_token_use(&to, was, &used),
        Planned::DropTokenUse(used) => to.one(
            "use of a role token",
            "DELETE FROM role_token_use WHERE token = ?1 AND service = ?2 AND source = ?3",
            (used.token, used.service, used.source),
        ),
        Planned::PutAnswer { replaces, answer } => put_answer(&to, replaces, &answer),
        Planned::InsertOwner(owner) => insert_owner(&to, &owner),
        Planned::UpdateOwner { was, owner } => update_owner(&to, was, &owner),
        Planned::Rehash { owner, version, hash } => to.one(
            "owner",
            "UPDATE owner SET password = ?3 WHERE id = ?1 AND version = ?2",
            (owner.as_str(), signed(version), hash.expose()),
        ),
        Planned::PutApplied { replaces, applied } => put_applied(&to, replaces, &applied),
        Planned::ForgetApplied { source, owner } => to.one(
            "applied account",
            "DELETE FROM applied WHERE source = ?1 AND owner = ?2",
            [source.text(), owner.as_str()],
        ),
        Planned::InsertOwnerSession(session) => insert_owner_session(&to, &session),
        Planned::EndOwnerSession { id, at } => to.one(
            "owner session",
            "UPDATE owner_session SET ended_at = ?2 WHERE id = ?1 AND ended_at IS NULL",
            (id.as_str(), at.as_micros()),
        ),
        Planned::EndSessionsBefore(number) => {
            let sql = "UPDATE owner SET sessions_from = ?1 WHERE sessions_from < ?1";
            connection.prepare_cached(sql)?.execute([signed(number)])?;
            Ok(())
        }
        Planned::CountRefresh { id, was } => to.one(
            "owner session",
            "UPDATE owner_session SET refreshes = refreshes + 1 WHERE id = ?1 AND refreshes = ?2",
            (id.as_str(), was),
        ),
        Planned::SetElevation { id, was, elevation } => {
            let (until, by, bound_to) = elevation_columns(elevation);
            to.one(
                "owner session",
                "UPDATE owner_session SET elevated_until = ?3, elevated_by = ?4, elevated_for = ?5
                 WHERE id = ?1 AND elevated_until IS ?2",
                (id.as_str(), was.map(|was| was.until.as_micros()), until, by, bound_to),
            )
        }
        Planned::InsertAccess(access) => to.one(
            "access token",
            "INSERT INTO access_token (hash, id, session, issuance, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            (
                access.hash,
                access.id.as_str(),
                access.session.as_str(),
                signed(access.issuance),
                access.expires_at.as_micros(),
            ),
        ),
        Planned::InsertRefresh(token) => insert_refresh(&to, &token),
        Planned::UseRefresh { hash, answer } => to.one(
            "refresh token",
            "UPDATE refresh_token SET state = 'used', used_at = ?2, sealed = ?3, access_expires_at = ?4
             WHERE hash = ?1 AND state = 'fresh'",
            (hash, answer.at.as_micros(), answer.sealed, answer.access_expires_at.as_micros()),
        ),
        Planned::SpendRefresh(hash) => spend(&to, &hash),
        Planned::InsertProject(project) => to.one(
            "project",
            "INSERT INTO project (id, name, created_by, request, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            (
                project.id.as_str(),
                project.name.as_str(),
                project.created_by.as_str(),
                project.request.as_ref().map(RequestId::as_str),
                project.created_at.as_micros(),
            ),
        ),
        Planned::InsertMember { project, owner, at, since } => to.one(
            "member",
            "INSERT INTO member (owner, project, at, since) VALUES (?1, ?2, ?3, ?4)",
            (owner.as_str(), project.as_str(), at.as_micros(), signed(since)),
        ),
        Planned::RemoveMember { project, owner } => to.one(
            "member",
            "DELETE FROM member WHERE owner = ?1 AND project = ?2",
            (owner.as_str(), project.as_str()),
        ),
        Planned::InsertProjectToken(token) => insert_project_token(&to, &token),
        Planned::ReplaceProjectToken { hash, expires_at } => to.one(
            "project token",
            "UPDATE project_token SET expires_at = ?2, replaced = 1 WHERE hash = ?1 AND NOT replaced AND ended_at IS NULL",
            (hash, expires_at.as_micros()),
        ),
        Planned::EndProjectToken { hash, ended } => to.one(
            "project token",
            "UPDATE project_token SET ended_at = ?2, revocation = ?3 WHERE hash = ?1 AND ended_at IS NULL",
            (hash, ended.at.as_micros(), signed(ended.revocation)),
        ),
        Planned::PutTokenAnswer { replaces, answer } => put_token_answer(&to, replaces, &answer),
        Planned::Revoke(row) => {
            insert_revocation(&to, &row)?;
            signals.push(Signal::Revoked(row));
            Ok(())
        }
        Planned::Clear(due) => clear(&to, due),
        Planned::PutReplica { was, grown, replica } => {
            if grown {
                signals.push(Signal::Reached);
            }
            put_replica(&to, was, &replica)
        }
        Planned::DropReplica { id, beat } => to.one(
            "beat of a program",
            "DELETE FROM replica WHERE id = ?1 AND beat = ?2",
            (id.as_str(), signed(beat)),
        ),
        Planned::KeepLog(keeping) => sqlite::keep(connection, &keeping),
    }
}

/// Statements that meet exactly one row.
struct To<'c>(&'c Connection);

impl To<'_> {
    fn one(&self, what: &str, sql: &str, params: impl Params) -> Result<(), Fault> {
        Fault::unless_one(self.0.prepare_cached(sql)?.execute(params)?, what)
    }
}

fn insert_role_token(to: &To<'_>, token: &RoleToken) -> Result<(), Fault> {
    to.one(
        "role token",
        "INSERT INTO role_token (hash, id, role, generation, issuance, masked, created_at, valid_until, candidate)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        (
            token.hash,
            token.id.as_str(),
            token.role.text(),
            signed(token.generation),
            signed(token.issuance),
            &token.masked,
            token.created_at.as_micros(),
            token.valid_until.map(Timestamp::as_micros),
            token.candidate,
        ),
    )
}

fn put_token_use(to: &To<'_>, was: Option<u64>, used: &TokenUse) -> Result<(), Fault> {
    let (what, service, source) = ("use of a role token", &used.service, &used.source);
    let (role, last_at, noted) = (used.role.text(), used.last_at.as_micros(), signed(used.noted));
    match was {
        None => to.one(
            what,
            "INSERT INTO role_token_use (token, service, source, role, last_at, noted)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (used.token, service, source, role, last_at, noted),
        ),
        Some(was) => to.one(
            what,
            "UPDATE role_token_use SET role = ?4, last_at = ?5, noted = ?6
             WHERE token = ?1 AND service = ?2 AND source = ?3 AND noted = ?7",
            (used.token, service, source, role, last_at, noted, signed(was)),
        ),
    }
}

fn put_answer(to: &To<'_>, replaces: bool, answer: &Answer) -> Result<(), Fault> {
    let sql = if replaces {
        "UPDATE rotation_answer SET credential = ?3, role = ?4, grace = ?5, sealed = ?6, generation = ?7,
                revocation = ?8, ends_at = ?9, step = ?10 WHERE owner = ?1 AND request = ?2"
    } else {
        "INSERT INTO rotation_answer (owner, request, credential, role, grace, sealed, generation, revocation, ends_at, step)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
    };
    let grace = i64::try_from(answer.grace.as_micros()).expect("bounded by the verb");
    to.one(
        "rotation answer",
        sql,
        params![
            answer.owner.as_str(),
            answer.request.as_str(),
            answer.credential.as_str(),
            answer.role.text(),
            grace,
            answer.sealed,
            signed(answer.generation),
            signed(answer.revocation),
            answer.ends_at.as_micros(),
            answer.step.text(),
        ],
    )
}

fn insert_project_token(to: &To<'_>, token: &ProjectToken) -> Result<(), Fault> {
    if token.replaced || token.ended.is_some() {
        return Err(Fault::Broken("a project token begins alive".to_owned()));
    }
    to.one(
        "project token",
        "INSERT INTO project_token (hash, id, project, issuer, label, scopes, agents, issuance, masked, created_at,
                                    expires_at, replaced, by_role)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, ?12)",
        params![
            token.hash,
            token.id.as_str(),
            token.project.as_str(),
            token.issuer.as_str(),
            token.label,
            texts(&token.scopes),
            texts(&token.agents),
            signed(token.issuance),
            token.masked,
            token.created_at.as_micros(),
            token.expires_at.map(Timestamp::as_micros),
            token.by_role.map(signed),
        ],
    )
}

fn put_token_answer(to: &To<'_>, replaces: bool, answer: &TokenAnswer) -> Result<(), Fault> {
    let sql = if replaces {
        "UPDATE token_answer SET credential = ?3, asked = ?4, sealed = ?5, token = ?6, revocation = ?7, ends_at = ?8
         WHERE owner = ?1 AND request = ?2"
    } else {
        "INSERT INTO token_answer (owner, request, credential, asked, sealed, token, revocation, ends_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
    };
    to.one(
        "token answer",
        sql,
        params![
            answer.owner.as_str(),
            answer.request.as_str(),
            answer.credential.as_str(),
            answer.asked,
            answer.sealed,
            answer.token.as_str(),
            signed(answer.revocation),
            answer.ends_at.as_micros(),
        ],
    )
}

fn insert_owner(to: &To<'_>, owner: &Owner) -> Result<(), Fault> {
    let sql = "INSERT INTO owner
                   (id, display_name, roles, active, password, version, sessions_from, changed_at, removed_at)
               VALUES (?1, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    write_owner(to, sql, None, owner)
}

fn update_owner(to: &To<'_>, was: u64, owner: &Owner) -> Result<(), Fault> {
    let sql = "UPDATE owner SET display_name = ?3, roles = ?4, active = ?5, password = ?6, version = ?7,
                   sessions_from = ?8, changed_at = ?9, removed_at = ?10 WHERE id = ?1 AND version = ?2";
    write_owner(to, sql, Some(signed(was)), owner)
}

fn write_owner(to: &To<'_>, sql: &str, was: Option<i64>, owner: &Owner) -> Result<(), Fault> {
    to.one(
        "owner",
        sql,
        params![
            owner.id.as_str(),
            was,
            owner.display_name,
            texts(&owner.roles),
            owner.active,
            owner.password.expose(),
            signed(owner.version),
            signed(owner.sessions_from),
            owner.changed_at.as_micros(),
            owner.removed_at.map(Timestamp::as_micros),
        ],
    )
}

fn put_applied(to: &To<'_>, replaces: bool, applied: &Applied) -> Result<(), Fault> {
    let sql = if replaces {
        "UPDATE applied SET display_name = ?3, roles = ?4, active = ?5, password = ?6 WHERE source = ?1 AND owner = ?2"
    } else {
        "INSERT INTO applied (source, owner, display_name, roles, active, password) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
    };
    let facts = &applied.facts;
    to.one(
        "applied account",
        sql,
        (
            applied.source.text(),
            applied.owner.as_str(),
            &facts.display_name,
            texts(&facts.roles),
            facts.active,
            applied.password.expose(),
        ),
    )
}

fn insert_owner_session(to: &To<'_>, session: &OwnerSession) -> Result<(), Fault> {
    to.one(
        "owner session",
        "INSERT INTO owner_session (id, owner, issuance, created_at, expires_at, ended_at, refreshes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        (
            session.id.as_str(),
            session.owner.as_str(),
            signed(session.issuance),
            session.created_at.as_micros(),
            session.expires_at.as_micros(),
            session.ended_at.map(Timestamp::as_micros),
            session.refreshes,
        ),
    )
}

type ElevationColumns = (Option<i64>, Option<[u8; 32]>, Option<[u8; 32]>);

fn elevation_columns(elevation: Option<Elevation>) -> ElevationColumns {
    let columns = |e: Elevation| (Some(e.until.as_micros()), Some(e.root.0), e.certificate);
    elevation.map_or((None, None, None), columns)
}

fn insert_refresh(to: &To<'_>, token: &RefreshToken) -> Result<(), Fault> {
    if token.state != RefreshState::Fresh {
        return Err(Fault::Broken("a refresh token begins fresh".to_owned()));
    }
    to.one(
        "refresh token",
        "INSERT INTO refresh_token (hash, id, session, issuance, predecessor, state)
         VALUES (?1, ?2, ?3, ?4, ?5, 'fresh')",
        (token.hash, token.id.as_str(), token.session.as_str(), signed(token.issuance), token.predecessor),
    )
}

fn spend(to: &To<'_>, hash: &[u8; 32]) -> Result<(), Fault> {
    to.one(
        "refresh token",
        "UPDATE refresh_token SET state = 'spent', sealed = NULL, access_expires_at = NULL
         WHERE hash = ?1 AND state = 'used'",
        [hash],
    )
}

fn insert_revocation(to: &To<'_>, row: &Revocation) -> Result<(), Fault> {
    let (kind, subject, project) = match &row.subject {
        Subject::Credential(id) => ("credential", id.as_str(), ""),
        Subject::OwnerSession(id) => ("owner_session", id.as_str(), ""),
        Subject::Owner(id) => ("owner", id.as_str(), ""),
        Subject::Role(role) => ("role", role.text(), ""),
        Subject::Membership(owner, project) => ("membership", owner.as_str(), project.as_str()),
        Subject::EveryOwnerSession => ("every_owner_session", "", ""),
    };
    to.one(
        "revocation",
        "INSERT INTO revocation (sequence, issued_before, kind, subject, project, at, effect)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        (
            signed(row.sequence),
            signed(row.issued_before),
            kind,
            subject,
            project,
            row.at.as_micros(),
            row.effect.code(),
        ),
    )
}

fn put_replica(to: &To<'_>, was: Option<u64>, replica: &Replica) -> Result<(), Fault> {
    let promise = i64::try_from(replica.promise.as_micros()).expect("bounded by the configuration");
    let (id, beat, reached) = (replica.id.as_str(), signed(replica.beat), signed(replica.reached));
    let (holders, told, uses) = (replica.holders, replica.told_text(), replica.uses_told_at.as_micros());
    match was {
        None => to.one(
            "beat of a program",
            "INSERT INTO replica (id, beat, promise, reached, holders, told, uses_told_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (id, beat, promise, reached, holders, told, uses),
        ),
        Some(was) => to.one(
            "beat of a program",
            "UPDATE replica SET beat = ?2, promise = ?3, reached = ?4, holders = ?5, told = ?6, uses_told_at = ?7
             WHERE id = ?1 AND beat = ?8",
            (id, beat, promise, reached, holders, told, uses, signed(was)),
        ),
    }
}

fn clear(to: &To<'_>, due: Due) -> Result<(), Fault> {
    match due {
        Due::RoleToken(hash) => to.one("role token", "DELETE FROM role_token WHERE hash = ?1", [hash]),
        // Its tokens go with it, by their reference.
        Due::OwnerSession(id) => {
            to.one("owner session", "DELETE FROM owner_session WHERE id = ?1", [id.as_str()])
        }
        Due::Elevation(_) => Err(Fault::Broken("an elevation is ended, not cleared".to_owned())),
        Due::Access(hash) => to.one("access token", "DELETE FROM access_token WHERE hash = ?1", [hash]),
        Due::Successor(hash) => spend(to, &hash),
        Due::Answer(owner, request) => to.one(
            "rotation answer",
            "DELETE FROM rotation_answer WHERE owner = ?1 AND request = ?2",
            [owner.as_str(), request.as_str()],
        ),
        Due::TokenAnswer(owner, request) => to.one(
            "token answer",
            "DELETE FROM token_answer WHERE owner = ?1 AND request = ?2",
            [owner.as_str(), request.as_str()],
        ),
        Due::ProjectToken(hash) => {
            to.one("project token", "DELETE FROM project_token WHERE hash = ?1", [hash])
        }
        Due::Revocations(through) => {
            to.0.prepare_cached("DELETE FROM revocation WHERE sequence <= ?1")?.execute([signed(through)])?;
            Ok(())
        }
    }
}

fn texts(texts: &[String]) -> String {
    serde_json::to_string(texts).expect("texts are JSON")
}
