//! I11, from the stores at rest: each change of state that is there has exactly one audit row, and no row tells of
//! a change that is not there.

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, OpenFlags};

/// How many rows say that an action was done, by action and subject.
struct Done(BTreeMap<(String, String), u64>);

impl Done {
    fn read(store: &Connection) -> Self {
        let mut done = BTreeMap::new();
        for (action, subject, detail, count) in all::<(String, String, String, u64)>(
            store,
            "SELECT action, subject, detail, count FROM audit WHERE outcome = 'done'",
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        ) {
            // A sweep says in its detail what it did.
            let facts = || serde_json::from_str::<serde_json::Value>(&detail).unwrap_or_default();
            let action = match action.as_str() {
                "sweep" => format!("sweep: {}", facts()["what"].as_str().unwrap_or_default()),
                _ => action,
            };
            *done.entry((action, subject)).or_default() += count;
        }
        Self(done)
    }

    fn of(&self, action: &str, subject: &str) -> u64 {
        self.0.get(&(action.to_owned(), subject.to_owned())).copied().unwrap_or_default()
    }

    fn all_of(&self, action: &str) -> u64 {
        self.0.iter().filter(|((done, _), _)| done == action).map(|(_, count)| count).sum()
    }
}

/// The gateway's store. How many changes were held against their rows.
pub(crate) fn check_gateway(store: &Path) -> u64 {
    let store = open(store);
    let done = Done::read(&store);
    let mut changes = 0;
    let mut sessions = 0;
    for (id, epoch) in
        all::<(String, u64)>(&store, "SELECT id, epoch FROM session", |row| Ok((row.get(0)?, row.get(1)?)))
    {
        assert_eq!(done.of("session.create", &id), 1, "I11: session {id}");
        assert_eq!(done.of("session.attach", &id), epoch, "I11: the bindings of {id}");
        sessions += 1;
        changes += 1 + epoch;
    }
    assert_eq!(done.all_of("session.create"), sessions, "I11: rows of sessions that are not there");
    let columns = "SELECT id, state, attempt, ended_by FROM job";
    let mut jobs = 0;
    for (id, state, attempt, by_worker) in all::<(String, u64, u64, bool)>(&store, columns, |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    }) {
        let released = done.of("sweep: lease expired", &id) + done.of("worker.goodbye", &id);
        let by_gateway =
            ["succeeded", "failed", "cancelled"].map(|end| done.of(&format!("sweep: {end}"), &id));
        let finished = done.of("worker.finish", &id);
        let ended = u64::from(state >= 2);
        assert_eq!(done.of("job.submit", &id), 1, "I11: job {id}");
        assert_eq!(done.of("worker.claim", &id), attempt, "I11: the attempts of {id}");
        assert_eq!(finished, u64::from(ended == 1 && by_worker), "I5, I11: the end of {id}");
        let [_, failed, cancelled] = by_gateway;
        assert!(finished + failed + cancelled <= ended, "I5, I11: {id} ended more than once");
        // Each attempt ended in one way, or goes on.
        if by_gateway.iter().sum::<u64>() == 0 && done.of("job.cancel", &id) == 0 {
            assert_eq!(
                released + finished + u64::from(state == 1),
                attempt,
                "I11: how attempts of {id} ended"
            );
        }
        jobs += 1;
        changes += 1 + attempt + released + ended;
    }
    assert_eq!(done.all_of("job.submit"), jobs, "I11: rows of jobs that are not there");
    changes
}

/// Auth's store. How many changes were held against their rows. Sessions that ended may have been swept by now:
/// their rows are there all the same, and once.
pub(crate) fn check_auth(store: &Path) -> u64 {
    let store = open(store);
    let done = Done::read(&store);
    let mut changes = 0;
    for (id, ended, refreshes) in all::<(String, bool, u64)>(
        &store,
        "SELECT id, ended_at IS NOT NULL, refreshes FROM owner_session",
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    ) {
        assert_eq!(done.of("owner_session.login", &id), 1, "I11: the sign-in of {id}");
        assert_eq!(done.of("owner_session.logout", &id), u64::from(ended), "I11: the sign-out of {id}");
        assert_eq!(done.of("owner_session.refresh", &id), refreshes, "I11: the refreshes of {id}");
        changes += 1 + u64::from(ended) + refreshes;
    }
    for action in ["owner_session.login", "owner_session.logout"] {
        let twice = done.0.iter().find(|((done, _), count)| done == action && **count != 1);
        assert!(twice.is_none(), "I11: {twice:?}");
    }
    // One project is built in.
    let projects = all::<u64>(&store, "SELECT count(*) - 1 FROM project", |row| row.get(0))[0];
    assert_eq!(done.all_of("project.create"), projects, "I11: projects");
    changes + projects
}

fn open(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the store")
}

fn all<T>(
    store: &Connection,
    sql: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    let mut statement = store.prepare(sql).expect("a statement of this schema");
    let rows = statement.query_map([], read).expect("rows");
    rows.collect::<Result<_, _>>().expect("rows of these types")
}
