//! What is promised of PostgreSQL beside what every engine promises: opening, chains, TLS, time-outs.

use std::sync::{Arc, atomic::Ordering};

use interlock_kit::{
    clock::{Clock, Timestamp},
    config::Profile,
    error::Reason,
    store::{
        Store,
        audit::{ChainKey, Entry, Origin, Outcome},
        postgres::{self, OpenError, Options, Target},
        sqlite::{Damage, Filter},
    },
};

use super::{
    KEY,
    cluster::{Cluster, PASSWORD},
    counters::{Counters, Ear, add, entry, read},
    on, refused,
};

fn open(url: &str) -> Result<Store<Counters>, OpenError> {
    postgres::open(&on(url), Arc::new(Ear::default()))
}

fn verified(url: &str) -> Vec<Damage> {
    postgres::verify(&on(url).target, &ChainKey::new(KEY)).expect("reads")
}

#[tokio::test]
async fn acknowledged_writes_and_the_chain_survive_a_crash_of_the_server_and_reopening() {
    let mut cluster = Cluster::start_with(&["fsync=on"]);
    let url = cluster.url("store");
    for round in 1..=3 {
        let store = open(&url).expect("opens");
        assert_eq!(store.write(add("a", 9)).await.expect("room"), round);
        store.close().await;
        cluster.kill();
        cluster.serve();
    }
    let rows = postgres::rows(&on(&url).target, &Filter { limit: 10, ..Filter::default() }).expect("reads");
    assert_eq!(rows.iter().map(|row| row.subject.as_str()).collect::<Vec<_>>(), ["a"; 3]);
    assert!(rows.windows(2).all(|two| two[0].id < two[1].id && two[0].at <= two[1].at), "{rows:?}");
    assert_eq!(verified(&url), []);
    let sealed = cluster.sql("store", "SELECT COUNT(*) FROM audit_batch WHERE sealed");
    assert_eq!(sealed, "2", "the writers before the last one have ended");
    assert_eq!(
        cluster.sql("store", "SELECT COUNT(*) FROM moment WHERE NOT ended"),
        "1",
        "only the last writer goes on"
    );
}

#[tokio::test]
async fn rows_are_found_by_what_they_say() {
    let cluster = Cluster::start();
    let url = cluster.url("store");
    let store = open(&url).expect("opens");
    let no = entry(Outcome::Refused(Reason::Forbidden), "x").within("p").detailed("{}");
    store.record(vec![entry(Outcome::Done, "a"), no, entry(Outcome::Done, "b")]).await.expect("recorded");
    let subjects = |filter: Filter| -> Vec<String> {
        let rows = postgres::rows(&on(&url).target, &filter).expect("reads");
        rows.into_iter().map(|row| row.subject).collect()
    };
    let all = Filter { limit: 10, ..Filter::default() };
    assert_eq!(subjects(all.clone()), ["a", "x", "b"], "in the order of the entries");
    assert_eq!(subjects(Filter { reason: "FORBIDDEN".to_owned(), ..all.clone() }), ["x"]);
    assert_eq!(subjects(Filter { after: 2, ..all.clone() }), ["b"]);
    assert_eq!(subjects(Filter { limit: 1, ..all.clone() }), ["a"]);
    assert_eq!(subjects(Filter { principal: "nobody".to_owned(), ..all.clone() }), [""; 0]);
    let part = entry(Outcome::Done, "part").detailed(r#"{"of":"a","count":1}"#);
    store.record(vec![part]).await.expect("recorded");
    let mentions = |id: &str| subjects(Filter { mentions: id.to_owned(), ..all.clone() });
    assert_eq!(mentions("a"), ["a", "part"], "about it, or with it among its facts");
    assert_eq!((mentions("p"), mentions("count\\")), (vec![], vec![]), "whole texts only, and no pattern");

    // By each field, and by none of them under another value.
    let origin = Origin { rpc: "/a.B/C".to_owned(), ..Origin::default() };
    let last = Entry::new(Arc::new(origin), "last.done", Outcome::Done).on("y").within("q");
    store.record(vec![last]).await.expect("recorded");
    let rows = postgres::rows(&on(&url).target, &all).expect("reads");
    let at = rows.last().expect("rows").at;
    type Field = fn(&mut Filter, String);
    let fields: [(Field, &str); 4] = [
        (|filter, value| filter.rpc = value, "/a.B/C"),
        (|filter, value| filter.action = value, "last.done"),
        (|filter, value| filter.subject = value, "y"),
        (|filter, value| filter.scope = value, "q"),
    ];
    for (set, value) in fields {
        let of = |value: &str| {
            let mut filter = all.clone();
            set(&mut filter, value.to_owned());
            subjects(filter)
        };
        assert_eq!((of(value), of("another")), (vec!["y".to_owned()], vec![]), "{value}");
    }
    let later = at.after(std::time::Duration::from_micros(1));
    let from = |since, until| subjects(Filter { since, until, ..all.clone() }).contains(&"y".to_owned());
    assert_eq!(
        (from(Some(at), Some(later)), from(Some(later), None), from(None, Some(at))),
        (true, false, false)
    );
    assert_eq!(subjects(Filter { through: Some(2), ..all.clone() }), ["a", "x"]);
    store.close().await;
}

#[tokio::test]
async fn the_chain_shows_edits_holes_strays_and_another_key() {
    let cluster = Cluster::start();
    let url = cluster.url("store");
    let store = open(&url).expect("opens");
    for _ in 0..4 {
        store.write(add("a", 9)).await.expect("room");
    }
    assert_eq!(verified(&url), [], "also beside its writer");
    store.close().await;
    let damages = |tampering: &str| {
        let saved = "CREATE TABLE saved AS TABLE audit; CREATE TABLE saved_batch AS TABLE audit_batch;
                     GRANT ALL ON saved, saved_batch TO interlock;";
        cluster.sql("store", &format!("{saved} {tampering}"));
        let found = verified(&url);
        cluster.sql(
            "store",
            "TRUNCATE audit, audit_batch; INSERT INTO audit OVERRIDING SYSTEM VALUE TABLE saved;
             INSERT INTO audit_batch TABLE saved_batch; DROP TABLE saved, saved_batch",
        );
        found
    };
    assert_eq!(damages(""), []);
    let edited = damages("UPDATE audit SET principal = 'another' WHERE number = 2");
    assert!(matches!(edited[..], [Damage::Edited { number: 2, .. }]), "{edited:?}");
    let removed = damages("DELETE FROM audit WHERE number = 3");
    assert!(matches!(removed[..], [Damage::Edited { number: 3, .. }]), "{removed:?}");
    let hole = damages("DELETE FROM audit WHERE number = 2; DELETE FROM audit_batch WHERE number = 2");
    assert!(matches!(hole[..], [Damage::Hole { number: 2, .. }, ..]), "{hole:?}");
    let stray = damages("DELETE FROM audit_batch WHERE number = 4");
    assert_eq!(stray, [Damage::Strays { rows: 1 }]);
    let other = postgres::verify(&on(&url).target, &ChainKey::new([8; 32])).expect("reads");
    assert_eq!(other.len(), 4, "no link is right under another key");
}

#[tokio::test]
async fn instants_never_go_back_and_are_not_behind_the_database() {
    let cluster = Cluster::start();
    let url = cluster.url("store");
    let instant = async |clock: Clock| {
        let options = Options { clock, ..on(&url) };
        let store = postgres::open::<Counters>(&options, Arc::new(Ear::default())).expect("opens");
        store.record(vec![entry(Outcome::Done, "now")]).await.expect("recorded");
        store.close().await;
        let rows = postgres::rows(&options.target, &Filter { limit: 10, ..Filter::default() });
        rows.expect("reads").pop().expect("a row").at
    };
    let late = instant(Clock::manual(Timestamp::from_micros(4_000_000_000_000_000))).await;
    let early = instant(Clock::manual(Timestamp::from_micros(1))).await;
    assert_eq!(early, late, "a day back, over a restart");
    let after = instant(Clock::system()).await;
    assert!(after >= late, "{after} is before {late}");
}

#[tokio::test]
async fn several_that_start_at_once_migrate_once_and_one_of_them_serves() {
    let cluster = Cluster::start();
    let url = cluster.url("store");
    let starting: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            std::thread::spawn(move || open(&url))
        })
        .collect();
    let mut serving = Vec::new();
    for one in starting {
        match one.join().expect("no panic") {
            Ok(store) => serving.push(store),
            Err(error) => assert!(matches!(error, OpenError::Held { .. }), "{error}"),
        }
    }
    assert_eq!(serving.len(), 1, "one writer");
    assert_eq!(serving[0].write(add("a", 9)).await.expect("room"), 1);
    let refused = open(&url).expect_err("held").to_string();
    assert!(refused.contains("another program uses the store postgres://interlock@"), "{refused}");
    assert!(!refused.contains('\n'), "{refused}");
    serving[0].close().await;
    let next = open(&url).expect("free again");
    assert_eq!(next.read(read("a")).await.expect("a value"), 1);
    next.close().await;
}

#[tokio::test]
async fn a_newer_store_and_a_foreign_database_are_refused_and_left_alone() {
    let cluster = Cluster::start();
    let url = cluster.url("store");
    open(&url).expect("opens").close().await;
    cluster.sql(
        "store",
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
         SELECT 2, 'from_the_future', applied_on, '1' FROM refinery_schema_history WHERE version = 1",
    );
    let error = open(&url).expect_err("newer").to_string();
    assert!(error.contains("use the program that last wrote it, or a newer one"), "{error}");
    cluster.sql("store", "DELETE FROM refinery_schema_history WHERE version = 2");
    cluster.sql("store", "UPDATE refinery_schema_history SET checksum = '1'");
    let error = open(&url).expect_err("changed").to_string();
    assert!(error.contains("of another build"), "{error}");
    cluster.sql("store", "UPDATE refinery_schema_history SET name = 'letters'");
    let error = open(&url).expect_err("foreign").to_string();
    assert!(error.contains("not a store of this program"), "{error}");

    let foreign = cluster.database("letters");
    cluster.sql("letters", "CREATE TABLE letter (text TEXT)");
    let error = open(&foreign).expect_err("no store").to_string();
    assert!(error.contains("left as it is") && error.contains("letter"), "{error}");
    let tables = cluster.sql("letters", "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'");
    assert_eq!(tables, "1", "nothing was added");
}

#[tokio::test]
async fn a_lock_that_another_program_holds_costs_one_wait_not_one_each() {
    let cluster = Cluster::start();
    let ear = Arc::new(Ear::default());
    let store = postgres::open::<Counters>(&on(&cluster.url("store")), Arc::clone(&ear) as _).expect("opens");
    assert_eq!(store.write(add("a", 99)).await.expect("room"), 1);
    let held = std::thread::scope(|threads| {
        let holding = threads.spawn(|| {
            // Let go when the waiting is over, which the server counts.
            cluster.sql(
                "store",
                "BEGIN; SELECT FROM counter WHERE name = 'a' FOR UPDATE; SELECT pg_advisory_lock(1);
                 DO $$ BEGIN
                     WHILE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 2) LOOP
                         PERFORM pg_sleep(0.01);
                     END LOOP;
                 END $$; COMMIT",
            );
        });
        let locked = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1";
        cluster.until(locked);
        let all = std::thread::scope(|waiting| {
            waiting
                .spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    let all = (0..16).map(|_| store.write(add("a", 99)));
                    runtime.expect("a runtime").block_on(futures_util::future::join_all(all))
                })
                .join()
                .expect("no panic")
        });
        let free = "DO $$ BEGIN PERFORM pg_advisory_lock(2);
                        WHILE EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 1) LOOP
                            PERFORM pg_sleep(0.01);
                        END LOOP;
                    END $$";
        cluster.sql("store", free);
        holding.join().expect("no panic");
        all
    });
    assert!(held.into_iter().all(|one| refused(one) == Reason::StoreUnavailable));
    assert!(ear.failures.load(Ordering::SeqCst) >= 1);
    assert_eq!(store.write(add("a", 99)).await.expect("room"), 2, "and it goes on");
    store.close().await;
}

#[tokio::test]
async fn a_server_is_verified_by_its_name_and_authority_and_a_password_is_never_told() {
    let cluster = Cluster::made(&["ssl=on", "ssl_cert_file=../server.pem", "ssl_key_file=../server.key"]);
    let mut cluster = cluster.on_tcp();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let authority = cluster.give("server.pem", &made.cert.pem());
    cluster.give("server.key", &made.signing_key.serialize_pem());
    cluster.serve();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let stranger = cluster.give("stranger.pem", &other.cert.pem());
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    interlock_kit::secret_file::write(&password, PASSWORD.as_bytes()).expect("written");
    let wrong = folder.path().join("wrong");
    interlock_kit::secret_file::write(&wrong, b"a wrong guess").expect("written");
    let options = |host: &str, authority: &std::path::Path, password: &std::path::Path| {
        let (port, authority, password) = (cluster.port(), authority.display(), password.display());
        let url = format!(
            "postgres://interlock@{host}:{port}/store?sslmode=verify-full&sslrootcert={authority}&password_file={password}"
        );
        let target = Target::parse(&url, Profile::Hardened).expect("a URL");
        Options { target, ..on(&cluster.url("store")) }
    };
    let open = |options: &Options| postgres::open::<Counters>(options, Arc::new(Ear::default()));

    let store = open(&options("localhost", &authority, &password)).expect("verified");
    assert_eq!(store.write(add("a", 9)).await.expect("room"), 1);
    let encrypted = "SELECT COUNT(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
                     WHERE a.usename = 'interlock' AND s.ssl";
    assert_eq!(cluster.sql("store", encrypted), "1");
    store.close().await;
    for (host, authority, password) in [
        ("127.0.0.1", &authority, &password),
        ("localhost", &stranger, &password),
        ("localhost", &authority, &wrong),
    ] {
        let refused = open(&options(host, authority, password)).expect_err("refused").to_string();
        assert!(!refused.contains(PASSWORD) && !refused.contains("a wrong guess"), "{refused}");
        assert!(!refused.contains('\n') && refused.contains("left as it is"), "{refused}");
    }
}
