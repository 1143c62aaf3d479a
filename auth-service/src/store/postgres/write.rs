//! The rows in PostgreSQL: writes. Each is conditional and counted.

use interlock_kit::{
    clock::Timestamp,
    store::{
        Fault,
        postgres::{self, Columns, Flush, Param, bind},
    },
};
use interlock_proto::credential::Hash;

use super::decode::signed;
use crate::{
    owner::{Applied, Owner},
    owner_session::{Access, OwnerSession, RefreshState, RefreshToken},
    project::Project,
    project_token::{ProjectToken, TokenAnswer},
    replica::Replica,
    revocation::{Revocation, Subject},
    role_token::{Answer, RoleToken, TokenUse},
    store::Planned,
    sweep::Due,
};

/// Plans the write of one change. The counters are written once for all changes of a batch.
pub(super) fn plan(change: &Planned, flush: &mut Flush) -> Result<(), Fault> {
    match change {
        Planned::Counters { .. } => {}
        Planned::InsertRoleToken(token) => insert_role_token(flush, token),
        Planned::EndRoleToken(hash) => {
            flush.one("role token", "DELETE FROM role_token WHERE hash = $1", [bytes(hash)]);
        }
        Planned::LimitRoleToken { hash, valid_until } => flush.one(
            "role token",
            "UPDATE role_token SET valid_until = $2 WHERE hash = $1 AND valid_until IS NULL",
            [bytes(hash), at(*valid_until)],
        ),
        Planned::PromoteRoleToken(hash) => flush.one(
            "role token",
            "UPDATE role_token SET candidate = FALSE WHERE hash = $1 AND candidate",
            [bytes(hash)],
        ),
        Planned::PutTokenUse { was, used } => put_token_use(flush, *was, used),
        Planned::DropTokenUse(used) => flush.one(
            "use of a role token",
            "DELETE FROM role_token_use WHERE token = $1 AND service = $2 AND source = $3",
            [bytes(&used.token), text(&used.service), text(&used.source)],
        ),
        Planned::PutAnswer { replaces, answer } => put_answer(flush, *replaces, answer),
        Planned::InsertOwner(owner) => insert_owner(flush, owner),
        Planned::UpdateOwner { was, owner } => update_owner(flush, *was, owner),
        Planned::Rehash { owner, version, hash } => flush.one(
            "owner",
            "UPDATE owner SET password = $3 WHERE id = $1 AND version = $2",
            [text(owner), number(*version), text(hash.expose())],
        ),
        Planned::PutApplied { replaces, applied } => put_applied(flush, *replaces, applied),
        Planned::ForgetApplied { source, owner } => flush.one(
            "applied account",
            "DELETE FROM applied WHERE source = $1 AND owner = $2",
            [text(source.text()), text(owner)],
        ),
        Planned::InsertOwnerSession(session) => insert_owner_session(flush, session),
        Planned::EndOwnerSession { id, at: ended } => flush.one(
            "owner session",
            "UPDATE owner_session SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL",
            [text(id), at(*ended)],
        ),
        Planned::EndSessionsBefore(before) => flush.any(
            "owners",
            "UPDATE owner SET sessions_from = $1 WHERE sessions_from < $1",
            [number(*before)],
        ),
        Planned::CountRefresh { id, was } => flush.one(
            "owner session",
            "UPDATE owner_session SET refreshes = refreshes + 1 WHERE id = $1 AND refreshes = $2",
            [text(id), bind(i64::from(*was))],
        ),
        Planned::SetElevation { id, was, elevation } => flush.one(
            "owner session",
            "UPDATE owner_session SET elevated_until = $3, elevated_by = $4, elevated_for = $5
             WHERE id = $1 AND elevated_until IS NOT DISTINCT FROM $2",
            [
                text(id),
                maybe_at(was.map(|was| was.until)),
                maybe_at(elevation.map(|elevation| elevation.until)),
                bind(elevation.map(|elevation| elevation.root.0.to_vec())),
                bind(elevation.and_then(|elevation| elevation.certificate).map(|hash| hash.to_vec())),
            ],
        ),
        Planned::InsertAccess(access) => insert_access(flush, access),
        Planned::InsertRefresh(token) => insert_refresh(flush, token)?,
        Planned::UseRefresh { hash, answer } => flush.one(
            "refresh token",
            "UPDATE refresh_token SET state = 'used', used_at = $2, sealed = $3, access_expires_at = $4
             WHERE hash = $1 AND state = 'fresh'",
            [bytes(hash), at(answer.at), bind(answer.sealed.clone()), at(answer.access_expires_at)],
        ),
        Planned::SpendRefresh(hash) => spend(flush, hash),
        Planned::InsertProject(project) => insert_project(flush, project),
        Planned::InsertMember { project, owner, at: entered, since } => flush.one(
            "member",
            "INSERT INTO member (owner, project, at, since) VALUES ($1, $2, $3, $4)",
            [text(owner), text(project), at(*entered), number(*since)],
        ),
        Planned::RemoveMember { project, owner } => flush.one(
            "member",
            "DELETE FROM member WHERE owner = $1 AND project = $2",
            [text(owner), text(project)],
        ),
        Planned::InsertProjectToken(token) => insert_project_token(flush, token)?,
        Planned::ReplaceProjectToken { hash, expires_at } => flush.one(
            "project token",
            "UPDATE project_token SET expires_at = $2, replaced = TRUE
             WHERE hash = $1 AND NOT replaced AND ended_at IS NULL",
            [bytes(hash), at(*expires_at)],
        ),
        Planned::EndProjectToken { hash, ended } => flush.one(
            "project token",
            "UPDATE project_token SET ended_at = $2, revocation = $3 WHERE hash = $1 AND ended_at IS NULL",
            [bytes(hash), at(ended.at), number(ended.revocation)],
        ),
        Planned::PutTokenAnswer { replaces, answer } => put_token_answer(flush, *replaces, answer),
        Planned::Revoke(row) => insert_revocation(flush, row),
        Planned::Clear(due) => clear(flush, due)?,
        Planned::PutReplica { was, replica, .. } => put_replica(flush, *was, replica),
        Planned::DropReplica { id, beat } => flush.one(
            "beat of a program",
            "DELETE FROM replica WHERE id = $1 AND beat = $2",
            [text(id), number(*beat)],
        ),
        Planned::KeepLog(keeping) => postgres::keep(flush, keeping),
    }
    Ok(())
}

fn text(value: &(impl ToString + ?Sized)) -> Param {
    bind(value.to_string())
}

fn bytes(hash: &Hash) -> Param {
    bind(hash.to_vec())
}

fn number(value: u64) -> Param {
    bind(signed(value))
}

fn at(instant: Timestamp) -> Param {
    bind(instant.as_micros())
}

fn maybe_at(instant: Option<Timestamp>) -> Param {
    bind(instant.map(Timestamp::as_micros))
}

fn insert_role_token(flush: &mut Flush, token: &RoleToken) {
    flush.one(
        "role token",
        "INSERT INTO role_token (hash, id, role, generation, issuance, masked, created_at, valid_until, candidate)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        [
            bytes(&token.hash),
            text(&token.id),
            text(token.role.text()),
            number(token.generation),
            number(token.issuance),
            text(&token.masked),
            at(token.created_at),
            maybe_at(token.valid_until),
            bind(token.candidate),
        ],
    );
}

fn put_token_use(flush: &mut Flush, was: Option<u64>, used: &TokenUse) {
    let key = [bytes(&used.token), text(&used.service), text(&used.source)];
    let values = [text(used.role.text()), at(used.last_at), number(used.noted)];
    let params = key.into_iter().chain(values);
    match was {
        None => flush.one(
            "use of a role token",
            "INSERT INTO role_token_use (token, service, source, role, last_at, noted) VALUES ($1, $2, $3, $4, $5, $6)",
            params,
        ),
        Some(was) => flush.one(
            "use of a role token",
            "UPDATE role_token_use SET role = $4, last_at = $5, noted = $6
             WHERE token = $1 AND service = $2 AND source = $3 AND noted = $7",
            params.chain([number(was)]),
        ),
    }
}

fn put_answer(flush: &mut Flush, replaces: bool, answer: &Answer) {
    let sql = if replaces {
        "UPDATE rotation_answer SET credential = $3, role = $4, grace = $5, sealed = $6, generation = $7,
                revocation = $8, ends_at = $9, step = $10 WHERE owner = $1 AND request = $2"
    } else {
        "INSERT INTO rotation_answer (owner, request, credential, role, grace, sealed, generation, revocation, ends_at, step)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    };
    let grace = i64::try_from(answer.grace.as_micros()).expect("bounded by the verb");
    flush.one(
        "rotation answer",
        sql,
        [
            text(&answer.owner),
            text(&answer.request),
            text(&answer.credential),
            text(answer.role.text()),
            bind(grace),
            bind(answer.sealed.clone()),
            number(answer.generation),
            number(answer.revocation),
            at(answer.ends_at),
            text(answer.step.text()),
        ],
    );
}

fn insert_project_token(flush: &mut Flush, token: &ProjectToken) -> Result<(), Fault> {
    if token.replaced || token.ended.is_some() {
        return Err(Fault::Broken("a project token begins alive".to_owned()));
    }
    flush.one(
        "project token",
        "INSERT INTO project_token (hash, id, project, issuer, label, scopes, agents, issuance, masked, created_at,
                                    expires_at, replaced, by_role)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, FALSE, $12)",
        [
            bytes(&token.hash),
            text(&token.id),
            text(&token.project),
            text(&token.issuer),
            text(&token.label),
            texts(&token.scopes),
            texts(&token.agents),
            number(token.issuance),
            text(&token.masked),
            at(token.created_at),
            maybe_at(token.expires_at),
            bind(token.by_role.map(signed)),
        ],
    );
    Ok(())
}

fn put_token_answer(flush: &mut Flush, replaces: bool, answer: &TokenAnswer) {
    let sql = if replaces {
        "UPDATE token_answer SET credential = $3, asked = $4, sealed = $5, token = $6, revocation = $7, ends_at = $8
         WHERE owner = $1 AND request = $2"
    } else {
        "INSERT INTO token_answer (owner, request, credential, asked, sealed, token, revocation, ends_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
    };
    flush.one(
        "token answer",
        sql,
        [
            text(&answer.owner),
            text(&answer.request),
            text(&answer.credential),
            text(&answer.asked),
            bind(answer.sealed.clone()),
            text(&answer.token),
            number(answer.revocation),
            at(answer.ends_at),
        ],
    );
}

fn insert_owner(flush: &mut Flush, owner: &Owner) {
    let sql = "INSERT INTO owner
                   (id, display_name, roles, active, password, version, sessions_from, changed_at, removed_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    flush.one("owner", sql, owner_columns(owner));
}

fn update_owner(flush: &mut Flush, was: u64, owner: &Owner) {
    let sql = "UPDATE owner SET display_name = $2, roles = $3, active = $4, password = $5, version = $6,
                   sessions_from = $7, changed_at = $8, removed_at = $9 WHERE id = $1 AND version = $10";
    flush.one("owner", sql, owner_columns(owner).into_iter().chain([number(was)]));
}

fn owner_columns(owner: &Owner) -> [Param; 9] {
    [
        text(&owner.id),
        text(&owner.display_name),
        texts(&owner.roles),
        bind(owner.active),
        text(owner.password.expose()),
        number(owner.version),
        number(owner.sessions_from),
        at(owner.changed_at),
        maybe_at(owner.removed_at),
    ]
}

fn put_applied(flush: &mut Flush, replaces: bool, applied: &Applied) {
    let sql = if replaces {
        "UPDATE applied SET display_name = $3, roles = $4, active = $5, password = $6 WHERE source = $1 AND owner = $2"
    } else {
        "INSERT INTO applied (source, owner, display_name, roles, active, password) VALUES ($1, $2, $3, $4, $5, $6)"
    };
    let facts = &applied.facts;
    flush.one(
        "applied account",
        sql,
        [
            text(applied.source.text()),
            text(&applied.owner),
            text(&facts.display_name),
            texts(&facts.roles),
            bind(facts.active),
            text(applied.password.expose()),
        ],
    );
}

fn insert_owner_session(flush: &mut Flush, session: &OwnerSession) {
    flush.one(
        "owner session",
        "INSERT INTO owner_session (id, owner, issuance, created_at, expires_at, ended_at, refreshes)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        [
            text(&session.id),
            text(&session.owner),
            number(session.issuance),
            at(session.created_at),
            at(session.expires_at),
            maybe_at(session.ended_at),
            bind(i64::from(session.refreshes)),
        ],
    );
}

const ACCESS_TOKEN: Columns = Columns::of("access_token", "hash, id, session, issuance, expires_at");
const REFRESH_TOKEN: Columns =
    Columns::of("refresh_token", "hash, id, session, issuance, predecessor, state");

fn insert_access(flush: &mut Flush, access: &Access) {
    flush.row(
        "access token",
        ACCESS_TOKEN,
        [
            bytes(&access.hash),
            text(&access.id),
            text(&access.session),
            number(access.issuance),
            at(access.expires_at),
        ],
    );
}

fn insert_refresh(flush: &mut Flush, token: &RefreshToken) -> Result<(), Fault> {
    if token.state != RefreshState::Fresh {
        return Err(Fault::Broken("a refresh token begins fresh".to_owned()));
    }
    flush.row(
        "refresh token",
        REFRESH_TOKEN,
        [
            bytes(&token.hash),
            text(&token.id),
            text(&token.session),
            number(token.issuance),
            bind(token.predecessor.map(|hash| hash.to_vec())),
            text("fresh"),
        ],
    );
    Ok(())
}

fn spend(flush: &mut Flush, hash: &Hash) {
    flush.one(
        "refresh token",
        "UPDATE refresh_token SET state = 'spent', sealed = NULL, access_expires_at = NULL
         WHERE hash = $1 AND state = 'used'",
        [bytes(hash)],
    );
}

fn insert_project(flush: &mut Flush, project: &Project) {
    flush.one(
        "project",
        "INSERT INTO project (id, name, created_by, request, created_at) VALUES ($1, $2, $3, $4, $5)",
        [
            text(&project.id),
            text(&project.name),
            text(&project.created_by),
            bind(project.request.as_ref().map(ToString::to_string)),
            at(project.created_at),
        ],
    );
}

fn insert_revocation(flush: &mut Flush, row: &Revocation) {
    let (kind, subject, project) = match &row.subject {
        Subject::Credential(id) => ("credential", id.as_str(), ""),
        Subject::OwnerSession(id) => ("owner_session", id.as_str(), ""),
        Subject::Owner(id) => ("owner", id.as_str(), ""),
        Subject::Role(role) => ("role", role.text(), ""),
        Subject::Membership(owner, project) => ("membership", owner.as_str(), project.as_str()),
        Subject::EveryOwnerSession => ("every_owner_session", "", ""),
    };
    flush.one(
        "revocation",
        "INSERT INTO revocation (sequence, issued_before, kind, subject, project, at, effect)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        [
            number(row.sequence),
            number(row.issued_before),
            text(kind),
            text(subject),
            text(project),
            at(row.at),
            bind(i16::from(row.effect.code())),
        ],
    );
}

fn put_replica(flush: &mut Flush, was: Option<u64>, replica: &Replica) {
    let sql = if was.is_some() {
        "UPDATE replica SET beat = $2, promise = $3, reached = $4, holders = $5, told = $6, uses_told_at = $7
         WHERE id = $1 AND beat = $8"
    } else {
        "INSERT INTO replica (id, beat, promise, reached, holders, told, uses_told_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)"
    };
    let promise = i64::try_from(replica.promise.as_micros()).expect("bounded by the configuration");
    let columns = [
        text(&replica.id),
        number(replica.beat),
        bind(promise),
        number(replica.reached),
        bind(i64::from(replica.holders)),
        bind(replica.told_text()),
        at(replica.uses_told_at),
    ];
    flush.one("beat of a program", sql, columns.into_iter().chain(was.map(number)));
}

fn clear(flush: &mut Flush, due: &Due) -> Result<(), Fault> {
    match due {
        Due::RoleToken(hash) => {
            flush.one("role token", "DELETE FROM role_token WHERE hash = $1", [bytes(hash)]);
        }
        // Its tokens go with it, by their reference.
        Due::OwnerSession(id) => {
            flush.one("owner session", "DELETE FROM owner_session WHERE id = $1", [text(id)]);
        }
        Due::Elevation(_) => return Err(Fault::Broken("an elevation is ended, not cleared".to_owned())),
        Due::Access(hash) => {
            flush.one("access token", "DELETE FROM access_token WHERE hash = $1", [bytes(hash)]);
        }
        Due::Successor(hash) => spend(flush, hash),
        Due::Answer(owner, request) => flush.one(
            "rotation answer",
            "DELETE FROM rotation_answer WHERE owner = $1 AND request = $2",
            [text(owner), text(request)],
        ),
        Due::TokenAnswer(owner, request) => flush.one(
            "token answer",
            "DELETE FROM token_answer WHERE owner = $1 AND request = $2",
            [text(owner), text(request)],
        ),
        Due::ProjectToken(hash) => {
            flush.one("project token", "DELETE FROM project_token WHERE hash = $1", [bytes(hash)]);
        }
        Due::Revocations(through) => {
            flush.any("revocations", "DELETE FROM revocation WHERE sequence <= $1", [number(*through)]);
        }
    }
    Ok(())
}

fn texts(texts: &[String]) -> Param {
    bind(serde_json::to_string(texts).expect("texts are JSON"))
}
