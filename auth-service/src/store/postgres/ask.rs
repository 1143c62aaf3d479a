//! How rows are loaded: one statement for all keys of a kind, in the order in which they are locked.

use std::collections::BTreeSet;

use interlock_kit::{
    clock::Timestamp,
    store::{
        Fault,
        postgres::{Access, Ask, Param, Row, bind, each, found, pairs_of, rows_of},
    },
};

use super::{
    List, Working,
    decode::{
        access, answer, applied, due, owner, owner_session, project, project_token, refresh_token, replica,
        revocation, role_token, signed, token_answer, token_use, unsigned,
    },
};
use crate::{
    ids::{OwnerId, OwnerSessionId, ProjectId},
    limits,
    owner::Owner,
    project::Project,
    project_token::ProjectToken,
    role_token::RoleToken,
    store::{Counters, Key},
};

const OWNER: &str = "SELECT id, display_name, roles, active, password, version, sessions_from, changed_at, removed_at FROM owner";
/// Owners that `policy::is_session_root` takes for administrators; in "C" `lower` changes ASCII only, as that does.
const ADMINISTRATORS: &str =
    "active AND EXISTS (SELECT FROM jsonb_array_elements_text(roles::JSONB) AS role (name)
    WHERE lower(name COLLATE \"C\") IN ('admin', 'owner', 'superuser', 'root'))";
const ROLE_TOKEN: &str =
    "SELECT hash, id, role, generation, issuance, masked, created_at, valid_until, candidate FROM role_token";
const OWNER_SESSION: &str = "SELECT id, owner, issuance, created_at, expires_at, ended_at, refreshes,
            elevated_until, elevated_by, elevated_for FROM owner_session";
const PROJECT: &str = "SELECT id, name, created_by, request, created_at FROM project";
const PROJECT_TOKEN: &str =
    "SELECT hash, id, project, issuer, label, scopes, agents, issuance, masked, created_at,
    expires_at, replaced, ended_at, revocation, by_role FROM project_token";
/// The key of the lock of all that is decided on the present role tokens.
const ROTATION: i64 = 0x726f_6c65_746f_6b73;
/// The same rules as `is_clearable` of each noun; the verb asks those again. Sealed secrets come first, so that
/// nothing keeps them longer. Each part has its index and its own bound: a sweep looks at what has ended, not at
/// what lives. That an inactive owner's sessions have all ended is in `sessions_from`.
const DUE: &str = "SELECT kind, hash, a, b FROM (
    (SELECT 1 AS place, 4 AS kind, hash, NULL::TEXT AS a, NULL::TEXT AS b FROM refresh_token
     WHERE state = 'used' AND used_at <= $3 LIMIT $4)
UNION ALL (SELECT 2, 5, NULL, owner, request FROM rotation_answer WHERE ends_at <= $1 LIMIT $4)
UNION ALL (SELECT 3, 6, NULL, id, NULL FROM owner_session WHERE elevated_until <= $1 LIMIT $4)
UNION ALL (SELECT 2, 8, NULL, owner, request FROM token_answer WHERE ends_at <= $1 LIMIT $4)
UNION ALL (SELECT 3, 1, hash, NULL, NULL FROM role_token WHERE valid_until <= $2 LIMIT $4)
UNION ALL (SELECT 4, 2, NULL, id, NULL FROM owner_session WHERE ended_at IS NOT NULL LIMIT $4)
UNION ALL (SELECT 5, 2, NULL, id, NULL FROM owner_session WHERE ended_at IS NULL AND expires_at <= $2 LIMIT $4)
UNION ALL (SELECT 6, 2, NULL, s.id, NULL FROM owner o
           JOIN owner_session s ON s.owner = o.id AND s.issuance < o.sessions_from
           WHERE s.ended_at IS NULL AND s.expires_at > $2 LIMIT $4)
UNION ALL (SELECT 7, 3, hash, NULL, NULL FROM access_token WHERE expires_at <= $2 LIMIT $4)
UNION ALL (SELECT 8, 7, hash, NULL, NULL FROM project_token WHERE ended_at <= $2 LIMIT $4)
UNION ALL (SELECT 9, 7, hash, NULL, NULL FROM project_token
           WHERE expires_at <= $2 AND (ended_at IS NULL OR ended_at > $2) LIMIT $4)
) AS due ORDER BY place LIMIT $4";

/// The keys of one flight, kind by kind.
#[derive(Default)]
struct Sorted {
    counters: bool,
    administrators: bool,
    replicas: bool,
    owners: Vec<String>,
    sessions: Vec<String>,
    sessions_of: Vec<String>,
    applied: [Vec<String>; 2],
    roles: Vec<String>,
    used_roles: Vec<String>,
    role_tokens: Vec<Vec<u8>>,
    answers: [Vec<String>; 2],
    access: Vec<Vec<u8>>,
    refresh: Vec<Vec<u8>>,
    projects: Vec<String>,
    names: Vec<String>,
    requests: [Vec<String>; 2],
    makers: Vec<String>,
    members: [Vec<String>; 2],
    tokens: Vec<Vec<u8>>,
    token_ids: Vec<String>,
    issuers: Vec<String>,
    token_answers: [Vec<String>; 2],
    lists: Vec<Key>,
}

/// Where in the order of `Sorted::asks` the lock of a key is taken.
pub(super) fn place(key: &Key) -> Option<u8> {
    match key {
        Key::Owner(_) | Key::Administrators => Some(0),
        Key::OwnerSession(_) => Some(1),
        Key::Applied(..) => Some(2),
        Key::Access(_) => Some(3),
        Key::RefreshToken(_) => Some(4),
        Key::RoleTokens(_) | Key::RoleToken(_) => Some(5),
        Key::RoleTokenUses(_) => Some(6),
        Key::Answer(..) => Some(7),
        Key::Project(_) | Key::ProjectNamed(_) | Key::ProjectOfRequest(..) => Some(8),
        Key::Member(..) => Some(9),
        Key::ProjectToken(_) | Key::ProjectTokenNamed(_) => Some(10),
        Key::TokenAnswer(..) => Some(11),
        Key::Counters => Some(12),
        Key::Replicas => Some(13),
        Key::LivingSessions(_)
        | Key::ProjectsMadeBy(_)
        | Key::TokensIssuedBy(_)
        | Key::ProjectTokens(..)
        | Key::AnyActiveOwner
        | Key::Owners(..)
        | Key::OwnersStored
        | Key::Projects(..)
        | Key::Revocations(..)
        | Key::RevocationsBefore(_)
        | Key::OwnerSessions(..)
        | Key::FirstSessionSince(..)
        | Key::ElevatedButFor(..)
        | Key::RootSalt
        | Key::Due(..) => None,
    }
}

pub(super) fn all(keys: &BTreeSet<Key>, locks: Access) -> Vec<Ask<Working>> {
    let mut sorted = Sorted::default();
    for key in keys {
        sorted.add(key);
    }
    sorted.asks(locks.clause())
}

fn pair<T: ToString, U: ToString>(of: &mut [Vec<String>; 2], first: &T, second: &U) {
    of[0].push(first.to_string());
    of[1].push(second.to_string());
}

impl Sorted {
    fn add(&mut self, key: &Key) {
        match key {
            Key::Counters => self.counters = true,
            Key::Replicas => self.replicas = true,
            Key::RoleTokens(role) => self.roles.push(role.text().to_owned()),
            Key::RoleToken(hash) => self.role_tokens.push(hash.to_vec()),
            Key::RoleTokenUses(role) => self.used_roles.push(role.text().to_owned()),
            Key::Answer(owner, request) => pair(&mut self.answers, owner, request),
            Key::Owner(id) => self.owners.push(id.to_string()),
            Key::Administrators => self.administrators = true,
            Key::Applied(source, owner) => pair(&mut self.applied, &source.text(), owner),
            Key::OwnerSession(id) => self.sessions.push(id.to_string()),
            Key::LivingSessions(owner) => self.sessions_of.push(owner.to_string()),
            Key::Access(hash) => self.access.push(hash.to_vec()),
            Key::RefreshToken(hash) => self.refresh.push(hash.to_vec()),
            Key::Project(id) => self.projects.push(id.to_string()),
            Key::ProjectNamed(name) => self.names.push(name.to_string()),
            Key::ProjectOfRequest(owner, request) => pair(&mut self.requests, owner, request),
            Key::ProjectsMadeBy(owner) => self.makers.push(owner.to_string()),
            Key::Member(project, owner) => pair(&mut self.members, project, owner),
            Key::ProjectToken(hash) => self.tokens.push(hash.to_vec()),
            Key::ProjectTokenNamed(id) => self.token_ids.push(id.to_string()),
            Key::TokensIssuedBy(issuer) => self.issuers.push(issuer.to_string()),
            Key::TokenAnswer(owner, request) => pair(&mut self.token_answers, owner, request),
            Key::AnyActiveOwner
            | Key::OwnerSessions(..)
            | Key::FirstSessionSince(..)
            | Key::ElevatedButFor(..)
            | Key::RootSalt
            | Key::Owners(..)
            | Key::OwnersStored
            | Key::ProjectTokens(..)
            | Key::Projects(..)
            | Key::Revocations(..)
            | Key::RevocationsBefore(_)
            | Key::Due(..) => self.lists.push(key.clone()),
        }
    }

    fn asks(self, locked: &str) -> Vec<Ask<Working>> {
        let mut asks = Vec::new();
        self.of_owners(locked, &mut asks);
        self.of_role_tokens(locked, &mut asks);
        self.of_projects(locked, &mut asks);
        self.of_project_tokens(locked, &mut asks);
        // Nearly last: every verb that gives out a number waits for this row.
        if self.counters {
            let sql = format!("SELECT issuance, revocation, pruned FROM counter{locked}");
            asks.push(Ask::new(sql, [], |working: &mut Working, rows| {
                let row = rows.first().ok_or_else(|| Fault::Broken("no counters".to_owned()))?;
                let counters = Counters {
                    issuance: unsigned(row, 0)?,
                    revocation: unsigned(row, 1)?,
                    pruned: unsigned(row, 2)?,
                };
                (working.stored, working.model.counters) = (counters, counters);
                Ok(())
            }));
        }
        // Behind the counters, so that those who look and those who beat come one after another.
        if self.replicas {
            let sql =
                "SELECT id, beat, promise, reached, holders, told, uses_told_at FROM replica ORDER BY id";
            asks.push(found(format!("{sql}{locked}"), [], replica, |working: &mut Working, replica| {
                working.model.replicas.insert(replica.id.clone(), replica);
            }));
        }
        asks.extend(self.lists.into_iter().map(list));
        asks
    }

    fn of_owners(&self, locked: &str, asks: &mut Vec<Ask<Working>>) {
        let keep = |working: &mut Working, owner: Owner| {
            working.model.owners.insert(owner.id.clone(), owner);
        };
        let sql = format!("{OWNER} WHERE id = ANY($1) ORDER BY id{locked}");
        rows_of(asks, &self.owners, sql, owner, keep);
        if self.administrators {
            let sql = format!("{OWNER} WHERE {ADMINISTRATORS} ORDER BY id LIMIT $1{locked}");
            let most = bind(i64::from(limits::ADMINISTRATORS_MAX));
            asks.push(found(sql, [most], owner, |working: &mut Working, owner: Owner| {
                working.model.owners.entry(owner.id.clone()).or_insert(owner);
            }));
        }
        let sql = format!("{OWNER_SESSION} WHERE id = ANY($1) ORDER BY id{locked}");
        rows_of(asks, &self.sessions, sql, owner_session, |working, session| {
            working.model.sessions.insert(session.id.clone(), session);
        });
        // Not locked: who begins a session has the owner's row, and what ends meanwhile only makes room.
        let sql = format!("{OWNER_SESSION} WHERE owner = ANY($1) AND ended_at IS NULL");
        rows_of(asks, &self.sessions_of, sql, owner_session, |working, session| {
            working.model.sessions.entry(session.id.clone()).or_insert(session);
        });
        let sql = format!(
            "SELECT source, owner, display_name, roles, active, password FROM applied
             WHERE (source, owner) IN (SELECT * FROM unnest($1::TEXT[], $2::TEXT[])) ORDER BY source, owner{locked}"
        );
        pairs_of(asks, &self.applied, sql, applied, |working, applied| {
            working.model.applied.insert((applied.source, applied.owner.clone()), applied);
        });
        let sql = format!(
            "SELECT hash, id, session, issuance, expires_at FROM access_token WHERE hash = ANY($1) ORDER BY hash{locked}"
        );
        rows_of(asks, &self.access, sql, access, |working, access| {
            working.model.access.insert(access.hash, access);
        });
        let sql = "SELECT hash, id, session, issuance, predecessor, state, used_at, sealed, access_expires_at
                   FROM refresh_token WHERE hash = ANY($1) ORDER BY hash";
        rows_of(asks, &self.refresh, format!("{sql}{locked}"), refresh_token, |working, token| {
            working.model.refresh.insert(token.hash, token);
        });
    }

    fn of_role_tokens(&self, locked: &str, asks: &mut Vec<Ask<Working>>) {
        let keep = |working: &mut Working, token: RoleToken| {
            working.model.role_tokens.insert(token.hash, token);
        };
        if !locked.is_empty() && !self.roles.is_empty() {
            // A rotation replaces the row that others wait for: who waits for the row itself would find none.
            let sql = "SELECT pg_advisory_xact_lock($1)";
            asks.push(Ask::new(sql, [bind(ROTATION)], |_: &mut Working, _| Ok(())));
        }
        let sql = format!("{ROLE_TOKEN} WHERE role = ANY($1) ORDER BY hash{locked}");
        rows_of(asks, &self.roles, sql, role_token, keep);
        let sql = format!("{ROLE_TOKEN} WHERE hash = ANY($1) ORDER BY hash{locked}");
        rows_of(asks, &self.role_tokens, sql, role_token, keep);
        // Behind the lock of all rotations, which every verb that writes uses has taken with their tokens.
        let sql = format!(
            "SELECT role, token, service, source, last_at, noted FROM role_token_use WHERE role = ANY($1)
             ORDER BY token, service, source{locked}"
        );
        rows_of(asks, &self.used_roles, sql, token_use, |working, used| {
            let key = (used.token, used.service.clone(), used.source.clone());
            working.model.token_uses.insert(key, used);
        });
        let sql = format!(
            "SELECT owner, request, credential, role, grace, sealed, generation, revocation, ends_at, step
             FROM rotation_answer WHERE (owner, request) IN (SELECT * FROM unnest($1::TEXT[], $2::TEXT[]))
             ORDER BY owner, request{locked}"
        );
        pairs_of(asks, &self.answers, sql, answer, |working, answer| {
            working.model.answers.insert((answer.owner.clone(), answer.request.clone()), answer);
        });
    }

    fn of_projects(&self, locked: &str, asks: &mut Vec<Ask<Working>>) {
        let keep = |working: &mut Working, project: Project| {
            working.model.projects.insert(project.id.clone(), project);
        };
        let sql = format!("{PROJECT} WHERE id = ANY($1) ORDER BY id{locked}");
        rows_of(asks, &self.projects, sql, project, keep);
        let sql = format!("{PROJECT} WHERE name = ANY($1) ORDER BY id{locked}");
        rows_of(asks, &self.names, sql, project, keep);
        let sql = format!(
            "{PROJECT} WHERE (created_by, request) IN (SELECT * FROM unnest($1::TEXT[], $2::TEXT[]))
             ORDER BY id{locked}"
        );
        pairs_of(asks, &self.requests, sql, project, keep);
        // An owner who has made none is not found; what is loaded and not there is none.
        let sql = "SELECT created_by, COUNT(*) FROM project WHERE created_by = ANY($1) GROUP BY created_by";
        let count = |row: &Row| Ok((OwnerId::made(row.try_get::<_, String>(0)?), unsigned(row, 1)?));
        rows_of(asks, &self.makers, sql.to_owned(), count, |working, (owner, made)| {
            working.made_by.insert(owner, made);
        });
        let sql = format!(
            "SELECT project, owner, since FROM member
             WHERE (project, owner) IN (SELECT * FROM unnest($1::TEXT[], $2::TEXT[])) ORDER BY owner, project{locked}"
        );
        let member = |row: &Row| {
            let project = ProjectId::made(row.try_get::<_, String>(0)?);
            Ok(((project, OwnerId::made(row.try_get::<_, String>(1)?)), unsigned(row, 2)?))
        };
        pairs_of(asks, &self.members, sql, member, |working, (member, since)| {
            working.model.members.insert(member, since);
        });
    }

    fn of_project_tokens(&self, locked: &str, asks: &mut Vec<Ask<Working>>) {
        let keep = |working: &mut Working, token: ProjectToken| {
            working.model.project_tokens.insert(token.hash, token);
        };
        let sql = format!("{PROJECT_TOKEN} WHERE hash = ANY($1) ORDER BY hash{locked}");
        rows_of(asks, &self.tokens, sql, project_token, keep);
        let sql = format!("{PROJECT_TOKEN} WHERE id = ANY($1) ORDER BY hash{locked}");
        rows_of(asks, &self.token_ids, sql, project_token, keep);
        let sql = "SELECT issuer, COUNT(*) FROM project_token WHERE issuer = ANY($1) GROUP BY issuer";
        let count = |row: &Row| Ok((OwnerId::made(row.try_get::<_, String>(0)?), unsigned(row, 1)?));
        rows_of(asks, &self.issuers, sql.to_owned(), count, |working, (issuer, issued)| {
            working.issued_by.insert(issuer, issued);
        });
        let sql = format!(
            "SELECT owner, request, credential, asked, sealed, token, revocation, ends_at FROM token_answer
             WHERE (owner, request) IN (SELECT * FROM unnest($1::TEXT[], $2::TEXT[])) ORDER BY owner, request{locked}"
        );
        pairs_of(asks, &self.token_answers, sql, token_answer, |working, answer| {
            working.model.token_answers.insert((answer.owner.clone(), answer.request.clone()), answer);
        });
    }
}

/// Answers that are of many rows; nothing of them is locked.
fn list(key: Key) -> Ask<Working> {
    match &key {
        Key::Projects(member, after, limit) => {
            let after = after.clone().unwrap_or_default();
            let of = "AND id IN (SELECT project FROM member WHERE owner = $3)";
            let (of, member) = match member {
                Some(member) => (of, Some(bind(member.to_string()))),
                None => ("", None),
            };
            let sql = format!("{PROJECT} WHERE name > $1 {of} ORDER BY name LIMIT $2");
            let params = [bind(after), bind(i64::from(*limit))].into_iter().chain(member);
            listed(key.clone(), sql, params, |rows| Ok(List::Projects(each(rows, project)?)))
        }
        Key::ProjectTokens(project, after, limit) => {
            let sql =
                format!("{PROJECT_TOKEN} WHERE project = $1 AND issuance > $2 ORDER BY issuance LIMIT $3");
            let params = [bind(project.to_string()), bind(signed(*after)), bind(i64::from(*limit))];
            listed(key.clone(), sql, params, |rows| Ok(List::Tokens(each(rows, project_token)?)))
        }
        Key::Revocations(after, limit) => {
            let sql = "SELECT sequence, issued_before, kind, subject, project, at, effect FROM revocation
                       WHERE sequence > $1 ORDER BY sequence LIMIT $2";
            let params = [bind(signed(*after)), bind(i64::from(*limit))];
            listed(key.clone(), sql, params, |rows| Ok(List::Revocations(each(rows, revocation)?)))
        }
        Key::RevocationsBefore(at) => {
            // Instants of the log never go back: the first row that is young enough bounds the old ones.
            let sql = "SELECT COALESCE((SELECT sequence - 1 FROM revocation WHERE at >= $1 ORDER BY sequence LIMIT 1),
                                       (SELECT MAX(sequence) FROM revocation), 0)";
            listed(key.clone(), sql, [bind(at.as_micros())], number)
        }
        Key::Due(now, limit) => {
            let (kept, window) = (now.before(limits::ENDED_KEPT), now.before(limits::REFRESH_WINDOW));
            let instants = [*now, kept, window].map(|at: Timestamp| bind(at.as_micros()));
            let params = instants.into_iter().chain([bind(i64::from(*limit))]);
            listed(key.clone(), DUE, params, |rows| Ok(List::Due(each(rows, due)?)))
        }
        Key::OwnerSessions(of, after, now, limit) => {
            let (later, order, from) = match of {
                // A place after another owner's is not among this one's.
                Some(of) if after.owner < *of => ("owner = $1 AND issuance > $2", "issuance", 0),
                Some(_) => ("owner = $1 AND issuance > $2", "issuance", after.issuance),
                None => ("(owner, issuance) > ($1, $2)", "owner, issuance", after.issuance),
            };
            let sql = format!(
                "{OWNER_SESSION} WHERE {later} AND ended_at IS NULL AND expires_at > $3
                 AND EXISTS (SELECT FROM owner AS o WHERE o.id = owner_session.owner AND o.active
                             AND o.sessions_from <= owner_session.issuance) ORDER BY {order} LIMIT $4"
            );
            let owner = of.as_ref().unwrap_or(&after.owner).to_string();
            let params = [bind(owner), bind(signed(from)), bind(now.as_micros()), bind(i64::from(*limit))];
            listed(key.clone(), sql, params, |rows| Ok(List::OwnerSessions(each(rows, owner_session)?)))
        }
        Key::FirstSessionSince(of, at) => {
            let (of, order, owner) = match of {
                Some(owner) => ("AND owner = $2", "issuance", Some(bind(owner.to_string()))),
                None => ("", "created_at, issuance", None),
            };
            let sql = format!(
                "SELECT issuance FROM owner_session WHERE created_at >= $1 {of} ORDER BY {order} LIMIT 1"
            );
            let params = [bind(at.as_micros())].into_iter().chain(owner);
            listed(key.clone(), sql, params, |rows| {
                Ok(List::MaybeNumber(rows.first().map(|row| unsigned(row, 0)).transpose()?))
            })
        }
        Key::ElevatedButFor(root, limit) => {
            let sql = "SELECT id FROM owner_session
                       WHERE elevated_until IS NOT NULL AND elevated_by IS DISTINCT FROM $1 LIMIT $2";
            let params = [bind(root.map(|root| root.0.to_vec())), bind(i64::from(*limit))];
            let id = |row: &Row| Ok(OwnerSessionId::made(row.try_get::<_, String>(0)?));
            listed(key.clone(), sql, params, move |rows| Ok(List::Sessions(each(rows, id)?)))
        }
        Key::Owners(after, limit) => {
            let sql = format!("{OWNER} WHERE id > $1 AND removed_at IS NULL ORDER BY id LIMIT $2");
            let after = after.as_ref().map(ToString::to_string).unwrap_or_default();
            let params = [bind(after), bind(i64::from(*limit))];
            listed(key.clone(), sql, params, |rows| Ok(List::Owners(each(rows, owner)?)))
        }
        Key::OwnersStored => listed(key, "SELECT COUNT(*) FROM owner", [], number),
        Key::RootSalt => listed(key, "SELECT salt FROM root_salt", [], |rows| {
            let salt = rows.first().and_then(|row| row.try_get::<_, &[u8]>(0).ok()?.try_into().ok());
            Ok(List::Salt(salt.ok_or_else(|| Fault::Broken("no salt".to_owned()))?))
        }),
        _ => {
            let sql = "SELECT EXISTS (SELECT FROM owner WHERE active)::INT::BIGINT";
            listed(key, sql, [], number)
        }
    }
}

fn listed(
    key: Key,
    sql: impl Into<std::borrow::Cow<'static, str>>,
    params: impl IntoIterator<Item = Param>,
    read: impl FnOnce(&[Row]) -> Result<List, Fault> + Send + 'static,
) -> Ask<Working> {
    Ask::new(sql, params, move |working: &mut Working, rows| {
        working.lists.insert(key, read(rows)?);
        Ok(())
    })
}

fn number(rows: &[Row]) -> Result<List, Fault> {
    let row = rows.first().ok_or_else(|| Fault::Broken("no number".to_owned()))?;
    Ok(List::Number(unsigned(row, 0)?))
}
