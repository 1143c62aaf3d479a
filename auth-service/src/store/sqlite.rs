//! The rows in SQLite: what is asked. `sqlite/decode.rs` reads the rows, `sqlite/write.rs` writes them.

use std::collections::BTreeSet;

use interlock_kit::{
    clock::Timestamp,
    store::{Fault, sqlite::SqliteDomain},
};
use interlock_proto::credential::Hash;
use rusqlite::{Connection, OptionalExtension as _, Params, Row};

use self::decode::{
    access, answer, applied, due, owner, owner_session, project, project_token, refresh_token, replica,
    revocation, role_token, signed, token_answer, token_use, unsigned,
};
use super::{Auth, Change, Counters, Found, Key, Rows, Sealed, Signal, missing::Missing};
use crate::{
    accounts::Source,
    ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId, ProjectName, RequestId},
    limits,
    owner::{Applied, Owner},
    owner_session::{Access, OwnerSession, RefreshToken, SessionPlace},
    project::Project,
    project_token::{ProjectToken, TokenAnswer},
    replica::Replica,
    revocation::Revocation,
    role_token::{Answer, Role, RoleToken, TokenUse},
    root::RootFingerprint,
    sweep::Due,
};

mod decode;
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

const OWNER: &str = "SELECT id, display_name, roles, active, password, version, sessions_from, changed_at, removed_at FROM owner";
const OWNER_SESSION: &str = "SELECT id, owner, issuance, created_at, expires_at, ended_at, refreshes,
            elevated_until, elevated_by, elevated_for FROM owner_session";
/// As `is_ended` of an owner session has it, for the owner's row.
const LIVES: &str = "ended_at IS NULL AND expires_at > ?3 AND EXISTS (SELECT 1 FROM owner AS o
            WHERE o.id = owner_session.owner AND o.active AND o.sessions_from <= owner_session.issuance)";
const ROLE_TOKEN: &str =
    "SELECT hash, id, role, generation, issuance, masked, created_at, valid_until, candidate FROM role_token";
const PROJECT: &str = "SELECT id, name, created_by, request, created_at FROM project";
const PROJECT_TOKEN: &str =
    "SELECT hash, id, project, issuer, label, scopes, agents, issuance, masked, created_at,
    expires_at, replaced, ended_at, revocation, by_role FROM project_token";
/// The same rules as `is_clearable` of each noun; the verb asks those again. Sealed secrets come first, so that
/// nothing keeps them longer. Each part has its index: a sweep looks at what has ended, not at what lives.
/// That an inactive owner's sessions have all ended is in `sessions_from`.
const DUE: &str = "
          SELECT 4, hash, '' FROM refresh_token WHERE state = 'used' AND used_at <= ?3
UNION ALL SELECT 5, owner, request FROM rotation_answer WHERE ends_at <= ?1
UNION ALL SELECT 6, id, '' FROM owner_session WHERE elevated_until <= ?1
UNION ALL SELECT 8, owner, request FROM token_answer WHERE ends_at <= ?1
UNION ALL SELECT 1, hash, '' FROM role_token WHERE valid_until <= ?2
UNION ALL SELECT 2, id, '' FROM owner_session WHERE ended_at IS NOT NULL
UNION ALL SELECT 2, id, '' FROM owner_session WHERE ended_at IS NULL AND expires_at <= ?2
UNION ALL SELECT 2, s.id, '' FROM owner o CROSS JOIN owner_session s ON s.owner = o.id AND s.issuance < o.sessions_from
                  WHERE s.ended_at IS NULL AND s.expires_at > ?2
UNION ALL SELECT 3, hash, '' FROM access_token WHERE expires_at <= ?2
UNION ALL SELECT 7, hash, '' FROM project_token WHERE ended_at <= ?2
UNION ALL SELECT 7, hash, '' FROM project_token WHERE expires_at <= ?2 AND (ended_at IS NULL OR ended_at > ?2)
LIMIT ?4";

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

    fn role_token_uses(&self, role: Role) -> Found<Vec<TokenUse>> {
        let sql = "SELECT role, token, service, source, last_at, noted FROM role_token_use WHERE role = ?1
                   ORDER BY token, service, source";
        self.all(sql, [role.text()], token_use)
    }

    fn answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<Answer>> {
        let sql =
            "SELECT owner, request, credential, role, grace, sealed, generation, revocation, ends_at, step
                   FROM rotation_answer WHERE owner = ?1 AND request = ?2";
        self.one(sql, [owner.as_str(), request.as_str()], answer)
    }

    fn owner(&self, id: &OwnerId) -> Found<Option<Owner>> {
        self.one(&format!("{OWNER} WHERE id = ?1"), [id.as_str()], owner)
    }

    fn any_active_owner(&self) -> Found<bool> {
        Ok(self.one("SELECT 1 FROM owner WHERE active LIMIT 1", [], |_| Ok(()))?.is_some())
    }

    fn owners(&self, after: Option<&OwnerId>, limit: u32) -> Found<Vec<Owner>> {
        let sql = format!("{OWNER} WHERE id > ?1 AND removed_at IS NULL ORDER BY id LIMIT ?2");
        self.all(&sql, (after.map_or("", OwnerId::as_str), limit), owner)
    }

    fn owners_stored(&self) -> Found<u64> {
        self.number("SELECT COUNT(*) FROM owner", [])
    }

    fn another_administrator(&self, but: &OwnerId) -> Found<bool> {
        // The words of `policy::is_session_root`; `lower` changes ASCII only, as that does.
        let sql = "SELECT EXISTS (SELECT 1 FROM owner, json_each(owner.roles) AS role
                   WHERE owner.active AND owner.id <> ?1
                   AND lower(role.value) IN ('admin', 'owner', 'superuser', 'root'))";
        Ok(self.number(sql, [but.as_str()])? > 0)
    }

    fn applied(&self, source: Source, owner: &OwnerId) -> Found<Option<Applied>> {
        let sql = "SELECT source, owner, display_name, roles, active, password FROM applied
                   WHERE source = ?1 AND owner = ?2";
        self.one(sql, [source.text(), owner.as_str()], applied)
    }

    fn owner_session(&self, id: &OwnerSessionId) -> Found<Option<OwnerSession>> {
        self.one(&format!("{OWNER_SESSION} WHERE id = ?1"), [id.as_str()], owner_session)
    }

    fn living_sessions(&self, owner: &OwnerId, from: u64, now: Timestamp) -> Found<u64> {
        let sql = "SELECT COUNT(*) FROM owner_session
                   WHERE owner = ?1 AND issuance >= ?2 AND ended_at IS NULL AND expires_at > ?3";
        self.number(sql, (owner.as_str(), signed(from), now.as_micros()))
    }

    fn owner_sessions(
        &self,
        owner: Option<&OwnerId>,
        after: &SessionPlace,
        now: Timestamp,
        limit: u32,
    ) -> Found<Vec<OwnerSession>> {
        let number = signed(after.issuance);
        match owner {
            Some(owner) => {
                let later = "owner = ?1 AND issuance > ?2";
                let sql = format!("{OWNER_SESSION} WHERE {later} AND {LIVES} ORDER BY issuance LIMIT ?4");
                // A place after another owner's is not among this one's.
                let from = if after.owner.as_str() < owner.as_str() { 0 } else { number };
                self.all(&sql, (owner.as_str(), from, now.as_micros(), limit), owner_session)
            }
            None => {
                let later = "(owner, issuance) > (?1, ?2)";
                let sql =
                    format!("{OWNER_SESSION} WHERE {later} AND {LIVES} ORDER BY owner, issuance LIMIT ?4");
                self.all(&sql, (after.owner.as_str(), number, now.as_micros(), limit), owner_session)
            }
        }
    }

    fn first_session_since(&self, owner: Option<&OwnerId>, at: Timestamp) -> Found<Option<u64>> {
        let number = |row: &Row<'_>| unsigned(row, 0);
        match owner {
            Some(owner) => {
                let sql = "SELECT issuance FROM owner_session WHERE owner = ?1 AND created_at >= ?2
                           ORDER BY issuance LIMIT 1";
                self.one(sql, (owner.as_str(), at.as_micros()), number)
            }
            None => {
                let sql = "SELECT issuance FROM owner_session WHERE created_at >= ?1
                           ORDER BY created_at, issuance LIMIT 1";
                self.one(sql, [at.as_micros()], number)
            }
        }
    }

    fn elevated_but_for(&self, root: Option<RootFingerprint>, limit: u32) -> Found<Vec<OwnerSessionId>> {
        let sql = "SELECT id FROM owner_session WHERE elevated_until IS NOT NULL AND elevated_by IS NOT ?1 LIMIT ?2";
        self.all(sql, (root.map(|root| root.0), limit), |row| {
            Ok(OwnerSessionId::made(row.get::<_, String>(0)?))
        })
    }

    fn root_salt(&self) -> Found<[u8; 16]> {
        let salt = self.one("SELECT salt FROM root_salt", [], |row| row.get(0))?;
        salt.ok_or_else(|| Fault::Broken("no salt".to_owned()).into())
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

    fn member_since(&self, project: &ProjectId, owner: &OwnerId) -> Found<Option<u64>> {
        let sql = "SELECT since FROM member WHERE owner = ?1 AND project = ?2";
        self.one(sql, [owner.as_str(), project.as_str()], |row| unsigned(row, 0))
    }

    fn project_token(&self, hash: &Hash) -> Found<Option<ProjectToken>> {
        self.one(&format!("{PROJECT_TOKEN} WHERE hash = ?1"), [hash], project_token)
    }

    fn project_token_named(&self, id: &CredentialId) -> Found<Option<ProjectToken>> {
        self.one(&format!("{PROJECT_TOKEN} WHERE id = ?1"), [id.as_str()], project_token)
    }

    fn tokens_issued_by(&self, issuer: &OwnerId) -> Found<u64> {
        self.number("SELECT COUNT(*) FROM project_token WHERE issuer = ?1", [issuer.as_str()])
    }

    fn project_tokens(&self, project: &ProjectId, after: u64, limit: u32) -> Found<Vec<ProjectToken>> {
        let sql = format!("{PROJECT_TOKEN} WHERE project = ?1 AND issuance > ?2 ORDER BY issuance LIMIT ?3");
        self.all(&sql, (project.as_str(), signed(after), limit), project_token)
    }

    fn token_answer(&self, owner: &OwnerId, request: &RequestId) -> Found<Option<TokenAnswer>> {
        let sql = "SELECT owner, request, credential, asked, sealed, token, revocation, ends_at
                   FROM token_answer WHERE owner = ?1 AND request = ?2";
        self.one(sql, [owner.as_str(), request.as_str()], token_answer)
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
        let sql = "SELECT sequence, issued_before, kind, subject, project, at, effect FROM revocation
                   WHERE sequence > ?1 ORDER BY sequence LIMIT ?2";
        self.all(sql, (signed(after), limit), revocation)
    }

    fn revocations_before(&self, at: Timestamp) -> Found<u64> {
        // Instants of the log never go back.
        let sql = "SELECT COALESCE((SELECT sequence FROM revocation INDEXED BY revocation_at
                                    WHERE at < ?1 ORDER BY at DESC, sequence DESC LIMIT 1), 0)";
        self.number(sql, [at.as_micros()])
    }

    fn replicas(&self) -> Found<Vec<Replica>> {
        let sql = "SELECT id, beat, promise, reached, holders, told, uses_told_at FROM replica ORDER BY id";
        self.all(sql, [], replica)
    }

    fn due(&self, now: Timestamp, limit: u32) -> Found<Vec<Due>> {
        let (kept, window) = (now.before(limits::ENDED_KEPT), now.before(limits::REFRESH_WINDOW));
        self.all(DUE, (now.as_micros(), kept.as_micros(), window.as_micros(), limit), due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(connection: &Connection, sql: &str) -> Vec<String> {
        let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("good SQL");
        let nothing: Vec<Option<i64>> = vec![None; explained.parameter_count()];
        let rows =
            explained.query_map(rusqlite::params_from_iter(nothing), |row| row.get(3)).expect("a plan");
        rows.collect::<Result<_, _>>().expect("a plan")
    }

    #[test]
    fn a_sweep_walks_no_table_that_grows_with_use() {
        let mut connection = Connection::open_in_memory().expect("opens");
        embedded::migrations::runner().run(&mut connection).expect("migrates");
        for sql in [DUE, &format!("{PROJECT} WHERE created_by = ?1 AND request = ?2")] {
            for step in plan(&connection, sql) {
                for table in
                    ["refresh_token", "owner_session", "access_token", "s", "project", "project_token"]
                {
                    let walks =
                        step == format!("SCAN {table}") || step.starts_with(&format!("SCAN {table} "));
                    assert!(!walks, "{step}: {sql}");
                }
            }
        }
    }
}
