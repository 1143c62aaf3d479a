//! What must hold of a folder after a power cut, whatever the cut has left.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use interlock_kit::{
    clock::Clock,
    config::Profile,
    store::{
        Domain, Fault, Observer,
        audit::ChainKey,
        sqlite::{Options, Place, SqliteDomain, open},
        writer::QueueLimits,
    },
};
use interlock_proto::credential::Credential;
use interlock_tests::audit;
use rusqlite::Connection;

/// What was acknowledged before the cut, in the words of the marks.
pub(crate) type Acknowledged<'a> = [&'a [String]];

/// What the audit tells of owner sessions.
const VIEWS: &str = "
    CREATE TEMP VIEW signed_in AS
        SELECT subject FROM audit WHERE action = 'owner_session.login' AND outcome = 'done';
    CREATE TEMP VIEW signed_out AS
        SELECT subject FROM audit WHERE action = 'owner_session.logout' AND outcome = 'done';";

/// One service's files.
pub(crate) struct Service {
    pub(crate) store: &'static str,
    pub(crate) key: &'static str,
    pub(crate) open: fn(&Path, &Path),
    /// Statements that count what is half there: each gives 0.
    pub(crate) halves: &'static [(&'static str, &'static str)],
    /// Finds what a mark says was acknowledged.
    pub(crate) holds: fn(&Connection, &Path, &[String]) -> bool,
    /// What must hold besides.
    pub(crate) besides: fn(&Connection, &Path),
}

struct Deaf;

impl<D: Domain> Observer<D> for Deaf {
    fn committed(&self, _: Vec<D::Signal>) {}
    fn failed(&self, fault: &Fault) {
        panic!("{fault}");
    }
}

/// By the service's own door: its chain key, its checks, its migrations, its chain's seal.
pub(crate) fn by_its_door<D: SqliteDomain>(store: &Path, key: &Path) {
    let options = Options {
        place: Place::File(store.to_owned()),
        clock: Clock::system(),
        chain_key: ChainKey::of_file(key, store, Profile::Local).expect("a chain key"),
        limits: QueueLimits::default(),
        inline: true,
        inject_misses: false,
    };
    drop(open::<D>(&options, Arc::new(Deaf)).expect("a store that can be opened"));
}

impl Service {
    /// Opens what is left and looks at all of it; how many acknowledged things are there.
    pub(crate) fn check(&self, folder: &Path, acknowledged: &Acknowledged<'_>) {
        let (store, key) = (folder.join(self.store), folder.join(self.key));
        (self.open)(&store, &key);
        let (damage, _) = audit::damage(&store, &key);
        assert!(damage.is_empty(), "I11: the audit chain is damaged: {damage:?}");
        let connection = Connection::open(&store).expect("the store");
        let said: String =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
        assert_eq!(said, "ok");
        let dangling = connection.prepare("PRAGMA foreign_key_check").expect("a statement").exists([]);
        assert!(!dangling.expect("a check"), "a row refers to none");
        connection.execute_batch(VIEWS).expect("views of this connection");
        for (what, sql) in self.halves {
            let count: i64 = connection.query_row(sql, [], |row| row.get(0)).expect(what);
            assert_eq!(count, 0, "I7: {what}");
        }
        for mark in acknowledged {
            assert!((self.holds)(&connection, folder, mark), "I6: lost: {mark:?}");
        }
        (self.besides)(&connection, folder);
    }
}

fn there(connection: &Connection, sql: &str, values: &[&str]) -> bool {
    let mut statement = connection.prepare_cached(sql).expect("a statement");
    statement.exists(rusqlite::params_from_iter(values)).expect("an answer")
}

/// The gateway: jobs, attaches, sessions.
pub(crate) const GATEWAY: Service = Service {
    store: "gateway.db",
    key: "gateway.chain-key",
    open: by_its_door::<interlock_gateway::store::Gateway>,
    halves: &[
        ("jobs without payload, request or session", "SELECT COUNT(*) FROM job WHERE
            id NOT IN (SELECT job FROM payload) OR id NOT IN (SELECT made FROM request)
            OR session NOT IN (SELECT id FROM session)"),
        ("jobs and their events", "SELECT (SELECT COUNT(*) FROM job)
            - (SELECT COUNT(*) FROM event WHERE facts LIKE '{\"job_queued\"%')"),
        ("jobs and their audit rows", "SELECT (SELECT COUNT(*) FROM job)
            - (SELECT COUNT(DISTINCT subject) FROM audit WHERE action = 'job.submit' AND outcome = 'done')"),
        ("logs with gaps", "SELECT COUNT(*) FROM log_head h WHERE h.last - h.first + 1
            <> (SELECT COUNT(*) FROM event e WHERE e.session = h.session AND e.sequence BETWEEN h.first AND h.last)"),
        ("epochs without their event", "SELECT COUNT(*) FROM session s WHERE s.epoch
            <> (SELECT COUNT(*) FROM event e WHERE e.session = s.id AND e.facts LIKE '{\"attached\"%')"),
        ("sessions without host", "SELECT COUNT(*) FROM session WHERE id NOT IN (SELECT session FROM client)"),
    ],
    holds: |connection, _, mark| {
        let mark: Vec<_> = mark.iter().map(String::as_str).collect();
        match mark[..] {
            ["job", session, request, job] => there(
                connection,
                "SELECT 1 FROM job j JOIN request r ON r.made = j.id WHERE j.session = ?1 AND r.id = ?2 AND j.id = ?3",
                &[session, request, job],
            ),
            ["attach", session, epoch, agent] => there(
                connection,
                "SELECT 1 FROM event WHERE session = ?1 AND facts LIKE '{\"attached\"%' AND epoch = CAST(?2 AS INTEGER)
                   AND facts LIKE '%\"' || ?3 || '\"%'",
                &[session, epoch, agent],
            ),
            ["session", session] => there(connection, "SELECT 1 FROM session WHERE id = ?1", &[session]),
            _ => panic!("no mark of the gateway's: {mark:?}"),
        }
    },
    besides: |_, _| {},
};

/// Auth: sign-ins, sign-outs, projects, role tokens and their copy.
pub(crate) const AUTH: Service = Service {
    store: "auth.db",
    key: "audit.key",
    open: by_its_door::<interlock_auth::store::Auth>,
    halves: &[
        (
            "owner sessions without tokens",
            "SELECT COUNT(*) FROM owner_session s WHERE ended_at IS NULL AND
            (id NOT IN (SELECT session FROM access_token) OR s.refreshes + 1
             <> (SELECT COUNT(*) FROM refresh_token r WHERE r.session = s.id))",
        ),
        (
            "sign-ins and their audit rows",
            "SELECT (SELECT COUNT(*) FROM owner_session WHERE id NOT IN (SELECT subject FROM signed_in))
            + (SELECT COUNT(*) FROM signed_in WHERE subject NOT IN (SELECT id FROM owner_session)
               AND subject NOT IN (SELECT subject FROM signed_out))",
        ),
        (
            "sign-outs without revocation",
            "SELECT COUNT(*) FROM owner_session WHERE ended_at IS NOT NULL
            AND id NOT IN (SELECT subject FROM revocation WHERE kind = 'owner_session')",
        ),
        (
            "projects without member",
            "SELECT COUNT(*) FROM project p WHERE id <> 'system'
            AND NOT EXISTS (SELECT 1 FROM member m WHERE m.project = p.id AND m.owner = p.created_by)",
        ),
        (
            "numbers ahead of their counters",
            "SELECT COUNT(*) FROM counter WHERE
            revocation <> (SELECT COALESCE(MAX(sequence), 0) FROM revocation)
            OR issuance < (SELECT COALESCE(MAX(issuance), 0) FROM access_token)",
        ),
    ],
    holds: |connection, folder, mark| {
        let mark: Vec<_> = mark.iter().map(String::as_str).collect();
        match mark[..] {
            // What was signed out may have been cleared away.
            ["login", session] => there(
                connection,
                "SELECT 1 FROM signed_in WHERE subject = ?1 AND (?1 IN (SELECT id FROM owner_session)
                   OR ?1 IN (SELECT subject FROM signed_out))",
                &[session],
            ),
            ["logout", session] => there(
                connection,
                "SELECT 1 FROM signed_out WHERE subject = ?1
                   AND NOT EXISTS (SELECT 1 FROM owner_session WHERE id = ?1 AND ended_at IS NULL)",
                &[session],
            ),
            ["refresh", session, times] => there(
                connection,
                "SELECT 1 FROM owner_session WHERE id = ?1 AND refreshes >= CAST(?2 AS INTEGER)
                 UNION ALL SELECT 1 FROM signed_out WHERE subject = ?1",
                &[session, times],
            ),
            ["project", project] => there(connection, "SELECT 1 FROM project WHERE id = ?1", &[project]),
            // SW-15: what was answered stands in store and copy, or what replaced it does.
            ["rotated", generation] => {
                let least = "SELECT 1 FROM role_token WHERE role = 'user' AND valid_until IS NULL
                     AND generation >= CAST(?1 AS INTEGER)";
                there(connection, least, &[generation]) && folder.join("auth_tokens.json").exists()
            }
            ["serving"] => folder.join("auth_tokens.json").exists(),
            _ => panic!("no mark of auth's: {mark:?}"),
        }
    },
    besides: |connection, folder| {
        let mut present =
            connection.prepare("SELECT hash FROM role_token WHERE valid_until IS NULL").expect("roles");
        let present = present.query_map([], |row| row.get::<_, [u8; 32]>(0)).expect("tokens");
        let known = copied(folder);
        for hash in present {
            let hash = hash.expect("a hash");
            assert!(known.contains(&hash), "SW-22: the store has a role token that the copy does not know");
        }
    },
};

/// The hashes of all tokens in the recoverable copy, those of an unfinished change too.
fn copied(folder: &Path) -> BTreeSet<[u8; 32]> {
    let Ok(text) = std::fs::read_to_string(folder.join("auth_tokens.json")) else { return BTreeSet::new() };
    let copy: serde_json::Value = serde_json::from_str(&text).expect("a whole copy, or none");
    let tokens = ["tokens", "pending"].iter().filter_map(|part| copy[part].as_object()).flatten();
    tokens
        .map(|(_, token)| Credential::parse(token.as_str().expect("a text")).expect("a whole token").hash())
        .map(|hash| hash.as_slice().try_into().expect("32 bytes"))
        .collect()
}
