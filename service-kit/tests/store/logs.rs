//! What is kept about audit logs beside their rows, on both engines that have any.

use std::{sync::Arc, time::Duration};

use interlock_kit::{
    clock::{Clock, Timestamp},
    store::{
        Ran, Store,
        audit::{
            ACCEPT, Damage, Entry, Filter, Head, Keeping, Known, Look, Outcome, PEER_HEADS_MAX, Retention,
            Trail, accepting,
        },
        postgres,
        sqlite::{self, Options},
    },
};

use super::{
    at,
    cluster::Cluster,
    counters::{Change, Counters, Ear, Rows, add, entry},
    on, options,
};

/// A store, its rows, and how a row is changed behind its back.
struct Place {
    name: &'static str,
    store: Option<Store<Counters>>,
    trail: Trail,
    clock: Clock,
    engine: Engine,
}

enum Engine {
    Sqlite(Box<Options>),
    Postgres(Box<postgres::Options>, Cluster),
}

impl Place {
    fn both(folder: &std::path::Path) -> [Self; 2] {
        let clock = Clock::manual(Timestamp::from_micros(1_000_000_000_000_000));
        let file = Options { clock: clock.clone(), ..options(at(folder)) };
        let cluster = Cluster::start();
        let database = postgres::Options { clock: clock.clone(), ..on(&cluster.url("store")) };
        let mut places = [
            Self {
                name: "sqlite",
                store: None,
                trail: file.trail().expect("a file"),
                clock: clock.clone(),
                engine: Engine::Sqlite(Box::new(file)),
            },
            Self {
                name: "postgres",
                store: None,
                trail: database.trail(),
                clock,
                engine: Engine::Postgres(Box::new(database), cluster),
            },
        ];
        for place in &mut places {
            place.open();
        }
        places
    }

    fn open(&mut self) {
        let ear = Arc::new(Ear::default());
        self.store = Some(match &self.engine {
            Engine::Sqlite(options) => sqlite::open(options, ear).expect("opens"),
            Engine::Postgres(options, _) => postgres::open(options, ear).expect("opens"),
        });
    }

    fn store(&self) -> &Store<Counters> {
        self.store.as_ref().expect("it is open")
    }

    async fn close(&mut self) {
        self.store.take().expect("it is open").close().await;
    }

    /// A batch with one audit row, so many times.
    async fn grow(&self, times: usize) {
        for _ in 0..times {
            self.store().write(add("a", i64::MAX)).await.expect("room");
        }
    }

    async fn keep(&self, keeping: impl Fn(Timestamp) -> Keeping + Send + 'static) {
        let run = move |_: &mut (dyn Rows + '_), now| Ran {
            result: Ok(0),
            changes: vec![Change::Keep(keeping(now))],
            audit: vec![],
        };
        self.store().write(run).await.expect("kept");
    }

    async fn remember(&self, peer: &'static str, heads: Vec<Head>) {
        self.keep(move |at| Keeping::Remember { peer: peer.to_owned(), heads: heads.clone(), at }).await;
    }

    /// Removes all that goes, part by part; how many rows.
    async fn trim(&self, retention: Retention) -> u64 {
        let mut rows = 0;
        while let Some(trim) = self.trail.due(&retention, self.clock.now()).expect("reads") {
            rows += trim.rows();
            // Another program may have removed the same part.
            for _ in 0..2 {
                let trim = trim.clone();
                self.keep(move |_| Keeping::Trim(trim.clone())).await;
            }
        }
        rows
    }

    fn look(&self) -> Look {
        self.trail.look(&Filter { limit: 10_000, ..Filter::default() }, 100_000).expect("reads")
    }

    fn damages(&self, known: &[Known]) -> Vec<Damage> {
        self.trail.verify(known).expect("reads").damages
    }

    /// Does this to the tables behind the service's back.
    fn tamper(&self, sql: &str) {
        match &self.engine {
            Engine::Sqlite(options) => {
                let connection = sqlite::connect(&options.place).expect("opens");
                connection.execute_batch(sql).expect("done");
            }
            Engine::Postgres(_, cluster) => {
                cluster.sql("store", sql);
            }
        }
    }
}

fn head(writer: &str, number: u64) -> Head {
    Head { writer: writer.to_owned(), number, link: [u8::try_from(number % 251).expect("small"); 32] }
}

fn known(head: &Head) -> [Known; 1] {
    [Known { by: "auth".to_owned(), head: head.clone() }]
}

#[tokio::test]
async fn heads_of_others_are_kept_by_the_chains_that_grew_last_and_never_go_back() {
    let folder = tempfile::tempdir().expect("a folder");
    for place in Place::both(folder.path()) {
        let name = place.name;
        place.remember("gateway", vec![head("wrt_a", 7), head("wrt_b", 1)]).await;
        place.remember("gateway", vec![head("wrt_a", 5), head("wrt_b", 2)]).await;
        place.remember("other", vec![head("wrt_a", 1)]).await;
        let of = |peer: &str| {
            let kept = place.trail.remembered().expect("reads").into_iter();
            kept.filter(|kept| kept.peer == peer).map(|kept| kept.head).collect::<Vec<_>>()
        };
        assert_eq!(of("gateway"), [head("wrt_a", 7), head("wrt_b", 2)], "{name}");
        let many: Vec<_> = (0..PEER_HEADS_MAX).map(|n| head(&format!("wrt_{n:04}"), 1)).collect();
        place.remember("gateway", many.clone()).await;
        assert_eq!(of("gateway"), many, "{name}: those before them have gone");
        assert_eq!(of("other"), [head("wrt_a", 1)], "{name}: each service has its own");
        // No row tells of it: it would be the next head, and so on.
        assert_eq!(place.trail.newest().expect("reads"), 0, "{name}");
        assert_eq!(place.trail.heads().expect("reads"), [], "{name}");
    }
}

#[tokio::test]
async fn a_cut_tail_and_a_lost_chain_are_found_by_the_heads_that_somebody_knows() {
    let folder = tempfile::tempdir().expect("a folder");
    for mut place in Place::both(folder.path()) {
        let name = place.name;
        place.grow(5).await;
        let [first] = &place.trail.heads().expect("reads")[..] else { panic!("{name}: one chain") };
        let first = first.clone();
        assert_eq!((first.number, place.damages(&known(&first))), (5, vec![]), "{name}");
        place.close().await;
        place.open();
        place.grow(1).await;
        let heads = place.trail.heads().expect("reads");
        let numbers: Vec<_> = heads.iter().map(|head| head.number).collect();
        assert_eq!(numbers, [1, 6], "{name}: the open chain, then the one that was sealed");
        assert_eq!(place.damages(&known(&first)), [], "{name}: it goes on behind what is known");
        place.close().await;

        // With its seal and two batches: what is left is whole, and is sealed again.
        let writer = &first.writer;
        place.tamper(&format!(
            "DELETE FROM audit WHERE writer = '{writer}' AND number >= 4;
             DELETE FROM audit_batch WHERE writer = '{writer}' AND number >= 4"
        ));
        place.open();
        assert_eq!(place.damages(&[]), [], "{name}: nobody knows");
        let cut = |last| Damage::Cut { writer: writer.clone(), number: 5, by: "auth".to_owned(), last };
        // In a database a writer is known to have ended by its row, too.
        let last = if name == "sqlite" { 4 } else { 3 };
        assert_eq!(place.damages(&known(&first)), [cut(last)], "{name}");
        place.close().await;
        place.tamper(&format!(
            "DELETE FROM audit WHERE writer = '{writer}'; DELETE FROM audit_batch WHERE writer = '{writer}'"
        ));
        assert_eq!(place.damages(&[]), [], "{name}: nobody knows");
        assert_eq!(place.damages(&known(&first)), [cut(0)], "{name}");
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

fn by_age() -> Retention {
    Retention { age_max: HOUR, rows_max: u64::MAX, age_min: Duration::ZERO }
}

#[tokio::test]
async fn old_rows_go_in_whole_batches_and_what_is_left_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    for mut place in Place::both(folder.path()) {
        let name = place.name;
        place.grow(30).await;
        let ended = place.trail.heads().expect("reads").remove(0);
        place.close().await;
        place.open();
        place.grow(10).await;
        let before = place.trail.heads().expect("reads").remove(0);
        assert_eq!(place.trim(by_age()).await, 0, "{name}: nothing is old");
        place.clock.advance(2 * HOUR);
        place.grow(5).await;
        let newest = place.trail.newest().expect("reads");
        assert_eq!(place.trim(by_age()).await, 40, "{name}");
        let look = place.look();
        assert_eq!((look.rows.len(), look.newest), (5, newest), "{name}");
        assert_eq!(look.removed, look.rows[0].id - 1, "{name}");
        let known = [ended.clone(), before.clone()].map(|head| Known { by: String::new(), head });
        assert_eq!(place.damages(&known), [], "{name}: what was known of before has its checkpoint");
        let forged = Head { link: [9; 32], ..before.clone() };
        assert_eq!(place.damages(&self::known(&forged)).len(), 1, "{name}: but no other link");

        // All are old, but the chain goes on from its last batch.
        place.clock.advance(2 * HOUR);
        assert_eq!(place.trim(by_age()).await, 4, "{name}");
        place.grow(1).await;
        assert_eq!((place.look().rows.len(), place.damages(&known)), (2, vec![]), "{name}");

        // Nothing can be taken out under the name of retention.
        let writer = &before.writer;
        place.tamper(&format!("UPDATE audit_checkpoint SET number = number + 1 WHERE writer = '{writer}'"));
        let damages = place.damages(&[]);
        assert!(
            matches!(&damages[0], Damage::Checkpoint { writer: of, number: 15 } if of == writer),
            "{name}: {damages:#?}"
        );
        place.tamper("DELETE FROM audit_checkpoint");
        let hole = Damage::Hole { writer: writer.clone(), number: 1 };
        assert_eq!(place.damages(&[]), [hole], "{name}");
        let lost = &place.damages(&known)[1..];
        assert!(
            lost.iter().any(|lost| matches!(lost, Damage::Cut { writer, .. } if *writer == ended.writer))
        );
    }
}

#[tokio::test]
async fn of_too_many_rows_the_oldest_go_but_none_that_is_young() {
    let folder = tempfile::tempdir().expect("a folder");
    for place in Place::both(folder.path()) {
        let name = place.name;
        // More than one look holds.
        let many = |_: &mut (dyn Rows + '_), _| Ran {
            result: Ok(0),
            changes: vec![],
            audit: vec![entry(Outcome::Done, "many"); 1_500],
        };
        place.store().write(many).await.expect("room");
        place.grow(10).await;
        let some = Retention { age_max: 24 * HOUR, rows_max: 3, age_min: HOUR };
        assert_eq!(place.trim(some).await, 0, "{name}: they are young");
        place.clock.advance(2 * HOUR);
        assert_eq!(place.trim(some).await, 1_507, "{name}");
        assert_eq!((place.look().rows.len(), place.damages(&[])), (3, vec![]), "{name}");
    }
}

#[tokio::test]
async fn damage_in_what_was_removed_is_told_for_good() {
    let folder = tempfile::tempdir().expect("a folder");
    for place in Place::both(folder.path()) {
        let name = place.name;
        place.grow(5).await;
        let writer = place.trail.heads().expect("reads").remove(0).writer;
        place.tamper("UPDATE audit SET principal = 'mallory' WHERE number = 2");
        place.clock.advance(2 * HOUR);
        place.grow(1).await;
        assert_eq!(place.trim(by_age()).await, 5, "{name}");
        assert_eq!(place.look().rows.len(), 1, "{name}");
        assert_eq!(place.damages(&[]), [Damage::Edited { writer, number: 2 }], "{name}");
    }
}

// Issue 6 line 8: a backup that was put back.
#[tokio::test]
async fn ends_that_were_accepted_as_lost_are_told_apart_for_good_and_no_others_are() {
    let folder = tempfile::tempdir().expect("a folder");
    for place in Place::both(folder.path()) {
        let name = place.name;
        let (lost, other) = (head("wrt_lost", 7), Head { link: [9; 32], ..head("wrt_lost", 7) });
        let known = [&lost, &other].map(|head| Known { by: "auth".to_owned(), head: head.clone() });
        let told = || {
            let report = place.trail.verify(&known).expect("reads");
            assert_eq!(report.damages.len(), report.missing.len(), "{name}: {report:#?}");
            (report.accepted, report.missing)
        };
        place.grow(2).await;
        let both = [lost.clone(), other.clone()].to_vec();
        let mut neither = told();
        neither.1.sort_by_key(|head| head.link);
        assert_eq!(neither, (vec![], both.clone()), "{name}");
        let row = |action: &'static str, detail: String| {
            Entry { action: action.into(), ..entry(Outcome::Done, "a") }.detailed(detail)
        };
        place.store().record(vec![row(ACCEPT, accepting(std::slice::from_ref(&lost)))]).await.expect("room");
        let apart = (vec![lost.clone()], vec![other.clone()]);
        assert_eq!(told(), apart, "{name}");

        // What retention removes says so itself from then on, and again.
        for _ in 0..2 {
            place.clock.advance(2 * HOUR);
            place.grow(1).await;
            let trim = place.trail.due(&by_age(), place.clock.now()).expect("reads").expect("old rows");
            assert!(trim.detail().contains("wrt_lost"), "{name}: {}", trim.detail());
            let trimmed = row("audit.trim", trim.detail());
            let run = move |_: &mut (dyn Rows + '_), _| Ran {
                result: Ok(0),
                changes: vec![Change::Keep(Keeping::Trim(trim.clone()))],
                audit: vec![trimmed.clone()],
            };
            place.store().write(run).await.expect("removed");
            assert_eq!(told(), apart, "{name}");
        }
        assert!(place.look().rows.iter().all(|row| row.action != ACCEPT), "{name}: it has gone");

        // Who can write the store and has no key accepts nothing.
        let all = accepting(&both);
        place.tamper(&format!("UPDATE audit SET detail = '{all}' WHERE action = 'audit.trim'"));
        let report = place.trail.verify(&known).expect("reads");
        assert_eq!((report.accepted, report.missing.len()), (vec![], 2), "{name}");
        assert!(report.damages.iter().any(|damage| matches!(damage, Damage::Edited { .. })), "{name}");
    }
}

#[tokio::test]
async fn whoever_follows_a_log_of_several_writers_passes_over_no_late_row() {
    let folder = tempfile::tempdir().expect("a folder");
    let [_, place] = Place::both(folder.path());
    let Engine::Postgres(_, cluster) = &place.engine else { panic!("the second one") };
    let (late, connection) =
        tokio_postgres::connect(&cluster.url("store"), tokio_postgres::NoTls).await.expect("connects");
    tokio::spawn(connection);
    let sql = "BEGIN; INSERT INTO audit (writer, number, at, principal, role, credential_id, peer, request_id, rpc, action,
                                        outcome, reason, subject, scope, detail, count)
               VALUES ('wrt_late', 1, 0, 'late', '', '', '', '', '', '', '', '', '', '', '', 1)";
    late.batch_execute(sql).await.expect("stored");
    place.grow(1).await;
    let trail = place.trail.clone();
    let looking = tokio::task::spawn_blocking(move || {
        trail.look(&Filter { limit: 10, ..Filter::default() }, 100).expect("reads")
    });
    // It has seen that somebody writes.
    cluster.until("SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE 'SELECT virtualtransaction%'");
    late.batch_execute("COMMIT").await.expect("committed");
    let found: Vec<_> =
        looking.await.expect("looks").rows.into_iter().map(|row| row.origin.principal).collect();
    assert_eq!(found, ["late", "someone"]);
}
