//! The rows in SQLite: reads. Writes are in `sqlite/write.rs`.

use std::collections::BTreeSet;

use interlock_kit::{
    clock::Timestamp,
    store::{Fault, sqlite::SqliteDomain},
};
use interlock_proto::credential::Hash;
use rusqlite::{Connection, OptionalExtension as _, Params, Row};

use super::{Auth, Change, Counters, Found, Key, Rows, Sealed, Signal, missing::Missing};
use crate::{
    accounts::{Facts, Source},
    ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId, ProjectName, RequestId},
    limits,
    owner::{Applied, Owner},
    owner_session::{Access, OwnerSession, RefreshState, RefreshToken, Successor},
    password::PasswordHash,
    project::Project,
    revocation::{Revocation, Subject},
    role_token::{Answer, Role, RoleToken},
    sweep::Due,
};

mod write;

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

impl SqliteDomain for Auth {
    fn migrations() -> refinery::Runner {
        embedded::migrations::runner()
    }

    fn rows(
        connection: &Connection,
        misses: Option<&BTreeSet<Key>>,
        work: &mut dyn FnMut(&mut Self::Rows<'_>),
    ) {
        let mut rows = SqliteRows(connection);
        match misses {
            None => work(&mut rows),
            Some(loaded) => work(&mut Missing { inner: &rows, loaded }),
        }
    }

    fn apply(
        connection: &Connection,
        change: Change,
        _now: Timestamp,
        signals: &mut Vec<Signal>,
    ) -> Result<(), Fault> {
        write::apply(connection, change.0, signals)
    }
}

struct SqliteRows<'c>(&'c Connection);

impl SqliteRows<'_> {
    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Found<Option<T>> {
        let mut statement = self.0.prepare_cached(sql).map_err(Fault::from)?;
        Ok(statement.query_row(params, read).optional().map_err(Fault::from)?)
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Found<Vec<T>> {
        let mut statement = self.0.prepare_cached(sql).map_err(Fault::from)?;
        let rows = statement.query_map(params, read).map_err(Fault::from)?;
        Ok(rows.collect::<Result<_, _>>().map_err(Fault::from)?)
    }

    fn number(&self, sql: &str, params: impl Params) -> Found<u64> {
        Ok(self.one(sql, params, |row| unsigned(row, 0))?.unwrap_or(0))
    }
}

impl Sealed for SqliteRows<'_> {}

const ROLE_TOKEN: &str =
    "SELECT hash, id, role, generation, issuance, masked, created_at, valid_until FROM role_token";
const PROJECT: &str = "SELECT id, name, created_by, request, created_at FROM project";

impl Rows for SqliteRows<'_> {
    fn counters(&self) -> Found<Counters> {
        let read = |row: &Row<'_>| {
            Ok(Counters {
                issuance: unsigned(row, 0)?,
                revocation: unsigned(row, 1)?,
                pruned: unsigned(row, 2)?,
            })
        };
        let counters = self.one("SELECT issuance, revocation, pruned FROM counter", [], read)?;
        counters.ok_or_else(|| Fault::Broken("no counters".to_owned()).into())
    }

    fn role_tokens(&self, role: Role) -> Found<Vec<RoleToken>> {
        self.all(&format!("{ROLE_TOKEN} WHERE role = ?1 ORDER BY generation DESC"), [role.text()], role_token)
    }

    fn role_token(&self, hash: &Hash) -> Found<Option<RoleToken>> {
        self.one(&format!("{ROLE_TOKEN} WHERE hash = ?1"), [hash], role_token)
    }

    fn answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Answer>> {
        let sql = "SELECT owner, request, credential, role, grace, sealed, generation, revocation, ends_at
                   FROM rotation_answer WHERE owner = ?1 AND request = ?2";
        self.one(sql, [owner.as_str(), request.as_str()], answer)
    }

    fn owner(&self, id: &OwnerId) -> Found<Option<Owner>> {
        let sql = "SELECT id, display_name, roles, active, password, version, sessions_from, changed_at
                   FROM owner WHERE id = ?1";
        self.one(sql, [id.as_str()], owner)
    }

    fn any_active_owner(&self) -> Found<bool> {
        Ok(self.one("SELECT 1 FROM owner WHERE active LIMIT 1", [], |_| Ok(()))?.is_some())
    }

    fn applied(&self, source: Source, owner: &OwnerId) -> Found<Option<Applied>> {
        let sql = "SELECT source, owner, display_name, roles, active, password FROM applied
                   WHERE source = ?1 AND owner = ?2";
        self.one(sql, [source.text(), owner.as_str()], applied)
    }

    fn owner_session(&self, id: &OwnerSessionId) -> Found<Option<OwnerSession>> {
        let sql = "SELECT id, owner, issuance, created_at, expires_at, ended_at, refreshes
                   FROM owner_session WHERE id = ?1";
        self.one(sql, [id.as_str()], owner_session)
    }

    fn living_sessions(&self, owner: &OwnerId, from: u64, now: Timestamp) -> Found<u64> {
        let sql = "SELECT COUNT(*) FROM owner_session
                   WHERE owner = ?1 AND issuance >= ?2 AND ended_at IS NULL AND expires_at > ?3";
        self.number(sql, (owner.as_str(), signed(from), now.as_micros()))
    }

    fn access(&self, hash: &Hash) -> Found<Option<Access>> {
        self.one(
            "SELECT hash, id, session, issuance, expires_at FROM access_token WHERE hash = ?1",
            [hash],
            access,
        )
    }

    fn refresh_token(&self, hash: &Hash) -> Found<Option<RefreshToken>> {
        let sql = "SELECT hash, id, session, issuance, predecessor, state, used_at, sealed, access_expires_at
                   FROM refresh_token WHERE hash = ?1";
        self.one(sql, [hash], refresh_token)
    }

    fn project(&self, id: &ProjectId) -> Found<Option<Project>> {
        self.one(&format!("{PROJECT} WHERE id = ?1"), [id.as_str()], project)
    }

    fn project_named(&self, name: &ProjectName) -> Found<Option<Project>> {
        self.one(&format!("{PROJECT} WHERE name = ?1"), [name.as_str()], project)
    }

    fn project_of_request(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Project>> {
        let by = [owner.as_str(), request.as_str()];
        self.one(&format!("{PROJECT} WHERE created_by = ?1 AND request = ?2"), by, project)
    }

    fn projects_made_by(&self, owner: &OwnerId) -> Found<u64> {
        self.number("SELECT COUNT(*) FROM project WHERE created_by = ?1", [owner.as_str()])
    }

    fn is_member(&self, project: &ProjectId, owner: &OwnerId) -> Found<bool> {
        let sql = "SELECT 1 FROM member WHERE owner = ?1 AND project = ?2";
        Ok(self.one(sql, [owner.as_str(), project.as_str()], |_| Ok(()))?.is_some())
    }

    fn projects(&self, member: Option<&OwnerId>, after: Option<&str>, limit: u32) -> Found<Vec<Project>> {
        let after = after.unwrap_or("");
        match member {
            None => self.all(
                &format!("{PROJECT} WHERE name > ?1 ORDER BY name LIMIT ?2"),
                (after, limit),
                project,
            ),
            Some(owner) => {
                let sql = format!(
                    "{PROJECT} WHERE name > ?1 AND id IN (SELECT project FROM member WHERE owner = ?3)
                     ORDER BY name LIMIT ?2"
                );
                self.all(&sql, (after, limit, owner.as_str()), project)
            }
        }
    }

    fn revocations(&self, after: u64, limit: u32) -> Found<Vec<Revocation>> {
        let sql = "SELECT sequence, issued_before, kind, subject, project, at FROM revocation
                   WHERE sequence > ?1 ORDER BY sequence LIMIT ?2";
        self.all(sql, (signed(after), limit), revocation)
    }

    fn revocations_before(&self, at: Timestamp) -> Found<u64> {
        // Instants of the log never go back: the first row that is young enough bounds the old ones.
        let sql =
            "SELECT COALESCE((SELECT sequence - 1 FROM revocation WHERE at >= ?1 ORDER BY sequence LIMIT 1),
                                   (SELECT MAX(sequence) FROM revocation), 0)";
        self.number(sql, [at.as_micros()])
    }

    fn due(&self, now: Timestamp, limit: u32) -> Found<Vec<Due>> {
        // The same rules as `is_clearable` of each noun; the verb asks those again.
        let sql = "SELECT 1, hash, '' FROM role_token WHERE valid_until <= ?2
             UNION ALL SELECT 2, s.id, '' FROM owner_session s JOIN owner o ON o.id = s.owner
                       WHERE s.ended_at IS NOT NULL OR s.expires_at <= ?2 OR s.issuance < o.sessions_from OR NOT o.active
             UNION ALL SELECT 3, hash, '' FROM access_token WHERE expires_at <= ?2
             UNION ALL SELECT 4, hash, '' FROM refresh_token WHERE state = 'used' AND used_at <= ?3
             UNION ALL SELECT 5, owner, request FROM rotation_answer WHERE ends_at <= ?1
             LIMIT ?4";
        let (kept, window) = (now.before(limits::ENDED_KEPT), now.before(limits::REFRESH_WINDOW));
        self.all(sql, (now.as_micros(), kept.as_micros(), window.as_micros(), limit), due)
    }
}

fn due(row: &Row<'_>) -> rusqlite::Result<Due> {
    Ok(match row.get::<_, i64>(0)? {
        1 => Due::RoleToken(row.get(1)?),
        2 => Due::OwnerSession(OwnerSessionId::made(row.get::<_, String>(1)?)),
        3 => Due::Access(row.get(1)?),
        4 => Due::Successor(row.get(1)?),
        _ => Due::Answer(OwnerId::made(row.get::<_, String>(1)?), RequestId::made(row.get::<_, String>(2)?)),
    })
}

fn role_token(row: &Row<'_>) -> rusqlite::Result<RoleToken> {
    Ok(RoleToken {
        hash: row.get(0)?,
        id: CredentialId::made(row.get::<_, String>(1)?),
        role: role(row, 2)?,
        generation: unsigned(row, 3)?,
        issuance: unsigned(row, 4)?,
        masked: row.get(5)?,
        created_at: instant(row, 6)?,
        valid_until: maybe_instant(row, 7)?,
    })
}

fn answer(row: &Row<'_>) -> rusqlite::Result<Answer> {
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
    })
}

fn owner(row: &Row<'_>) -> rusqlite::Result<Owner> {
    Ok(Owner {
        id: OwnerId::made(row.get::<_, String>(0)?),
        display_name: row.get(1)?,
        roles: roles(row, 2)?,
        active: row.get(3)?,
        password: PasswordHash::stored(row.get(4)?),
        version: unsigned(row, 5)?,
        sessions_from: unsigned(row, 6)?,
        changed_at: instant(row, 7)?,
    })
}

fn applied(row: &Row<'_>) -> rusqlite::Result<Applied> {
    Ok(Applied {
        source: match row.get_ref(0)?.as_str()? {
            "environment" => Source::Environment,
            "file" => Source::File,
            _ => return Err(unknown(0)),
        },
        owner: OwnerId::made(row.get::<_, String>(1)?),
        facts: Facts { display_name: row.get(2)?, roles: roles(row, 3)?, active: row.get(4)? },
        password: PasswordHash::stored(row.get(5)?),
    })
}

fn owner_session(row: &Row<'_>) -> rusqlite::Result<OwnerSession> {
    Ok(OwnerSession {
        id: OwnerSessionId::made(row.get::<_, String>(0)?),
        owner: OwnerId::made(row.get::<_, String>(1)?),
        issuance: unsigned(row, 2)?,
        created_at: instant(row, 3)?,
        expires_at: instant(row, 4)?,
        ended_at: maybe_instant(row, 5)?,
        refreshes: row.get(6)?,
    })
}

fn access(row: &Row<'_>) -> rusqlite::Result<Access> {
    Ok(Access {
        hash: row.get(0)?,
        id: CredentialId::made(row.get::<_, String>(1)?),
        session: OwnerSessionId::made(row.get::<_, String>(2)?),
        issuance: unsigned(row, 3)?,
        expires_at: instant(row, 4)?,
    })
}

fn refresh_token(row: &Row<'_>) -> rusqlite::Result<RefreshToken> {
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

fn project(row: &Row<'_>) -> rusqlite::Result<Project> {
    Ok(Project {
        id: ProjectId::made(row.get::<_, String>(0)?),
        name: ProjectName::made(row.get::<_, String>(1)?),
        created_by: OwnerId::made(row.get::<_, String>(2)?),
        request: row.get::<_, Option<String>>(3)?.map(RequestId::made),
        created_at: instant(row, 4)?,
    })
}

fn revocation(row: &Row<'_>) -> rusqlite::Result<Revocation> {
    let named: String = row.get(3)?;
    let subject = match row.get_ref(2)?.as_str()? {
        "credential" => Subject::Credential(CredentialId::made(named)),
        "owner_session" => Subject::OwnerSession(OwnerSessionId::made(named)),
        "owner" => Subject::Owner(OwnerId::made(named)),
        "role" => Subject::Role(role(row, 3)?),
        "membership" => Subject::Membership(OwnerId::made(named), ProjectId::made(row.get::<_, String>(4)?)),
        _ => return Err(unknown(2)),
    };
    Ok(Revocation {
        sequence: unsigned(row, 0)?,
        issued_before: unsigned(row, 1)?,
        subject,
        at: instant(row, 5)?,
    })
}

/// SQLite's integers are signed; ours never come near the sign.
fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("a number under 2^63")
}

fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
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

fn roles(row: &Row<'_>, at: usize) -> rusqlite::Result<Vec<String>> {
    serde_json::from_str(row.get_ref(at)?.as_str()?).map_err(|_| unknown(at))
}

/// A value that no program of ours wrote.
fn unknown(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "unknown value".to_owned(), rusqlite::types::Type::Null)
}
