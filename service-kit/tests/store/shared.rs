//! Several engines on one database, as several programs have them: nothing that one of them promises gets weaker.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
    store::{
        Ran, Stop, Store,
        audit::{ChainKey, Outcome},
        postgres::{self, OpenError, Options, Sharing},
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    KEY,
    cluster::Cluster,
    counters::{Change, Counters, Ear, Rows, Set, add, entry, read},
    on,
    proxy::{Cut, Proxy},
    refused,
};

fn shared(url: &str) -> Options {
    Options { sharing: Sharing::Shared, ..on(url) }
}

fn open(url: &str) -> Store<Counters> {
    postgres::open(&shared(url), Arc::new(Ear::default())).expect("opens")
}

fn assert_whole(url: &str) {
    assert_eq!(postgres::verify(&on(url).target, &ChainKey::new(KEY)).expect("reads"), []);
}

/// A step of the guard, as the gateway's: what is submitted is of the project that is bound, and nothing is bound
/// anew while something is in flight.
#[derive(Clone, Copy, Debug)]
enum Guard {
    Submit,
    Finish,
    Attach(i64),
}

const FLYING: [&str; 2] = ["flying in 0", "flying in 1"];

impl Guard {
    fn random(random: &mut StdRng) -> Self {
        match random.random_range(0..7) {
            0..3 => Self::Submit,
            3..5 => Self::Finish,
            project => Self::Attach(project - 5),
        }
    }

    fn run(self, rows: &mut (dyn Rows + '_), _: Timestamp) -> Ran<Counters, i64> {
        let mut ran = Ran { result: Ok(0), changes: vec![], audit: vec![entry(Outcome::Done, "guard")] };
        ran.result = self.plan(rows, &mut ran.changes);
        if let Err(Stop::Refused(error)) = &ran.result {
            ran.audit = vec![entry(Outcome::Refused(error.reason()), "guard")];
        }
        ran
    }

    fn plan(self, rows: &mut (dyn Rows + '_), changes: &mut Vec<Change>) -> Result<i64, Stop<Counters>> {
        let busy = || Error::new(Reason::SessionBusy, "busy");
        let bound = rows.value("bound")?;
        let here = FLYING[usize::try_from(bound).expect("0 or 1")];
        match self {
            Self::Submit => {
                let flying = rows.value(here)?;
                changes.push(Set { name: here, from: flying, to: flying + 1 }.into());
            }
            Self::Finish => {
                let flying = rows.value(here)?;
                if flying == 0 {
                    return Err(busy().into());
                }
                changes.push(Set { name: here, from: flying, to: flying - 1 }.into());
            }
            Self::Attach(project) => {
                let flying = [rows.value(FLYING[1])?, rows.value(FLYING[0])?];
                assert!(flying.contains(&0), "I1: something is in flight in both: {flying:?}");
                if flying != [0, 0] {
                    return Err(busy().into());
                }
                changes.push(Set { name: "bound", from: bound, to: project }.into());
            }
        }
        Ok(bound)
    }
}

// SW-29, I1..I4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_writers_race_and_lose_no_update_and_break_no_guard() {
    let cluster = Cluster::start_with(&["max_connections=40"]);
    let url = cluster.url("store");
    let stores: Vec<_> = (0..3).map(|_| open(&url)).collect();
    // A row that is not there is not locked: what decisions rest on is there.
    cluster.sql("store", "INSERT INTO counter VALUES ('bound', 0), ('flying in 0', 0), ('flying in 1', 0)");
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let racers = stores.iter().enumerate().flat_map(|(nth, store)| {
        (0..8_u64).map(move |caller| {
            let store = store.clone();
            let mut random = StdRng::seed_from_u64(seed ^ (nth as u64 * 8 + caller));
            tokio::spawn(async move {
                let (mut counted, mut moved, mut busy) = (Vec::new(), 0, 0);
                for _ in 0..25 {
                    counted.push(store.write(add("shared", i64::MAX)).await.expect("room"));
                    let step = Guard::random(&mut random);
                    match store.write(move |rows: &mut (dyn Rows + '_), now| step.run(rows, now)).await {
                        Ok(_) => moved += 1,
                        refusal => {
                            assert_eq!(refused(refusal), Reason::SessionBusy);
                            busy += 1;
                        }
                    }
                }
                (counted, moved, busy)
            })
        })
    });
    let (mut counted, mut moved, mut busy) = (BTreeSet::new(), 0, 0);
    for racer in racers.collect::<Vec<_>>() {
        let (mine, did, did_not) = racer.await.expect("no panic");
        counted.extend(mine);
        (moved, busy) = (moved + did, busy + did_not);
    }
    assert_eq!(counted, (1..=600).collect(), "each number once, seed {seed}");
    println!("{moved} moved, {busy} busy");
    assert!(moved >= 120 && busy >= 60, "an unbalanced race shows nothing: {moved}, {busy}, seed {seed}");
    for store in &stores {
        assert_eq!(
            store.read(read("shared")).await.expect("a value"),
            600,
            "each reads what all have written"
        );
    }
    for store in stores {
        store.close().await;
    }
    assert_eq!(cluster.sql("store", "SELECT COUNT(*) FROM audit"), "1200", "one row each");
    assert_eq!(cluster.sql("store", "SELECT COUNT(DISTINCT writer) FROM audit_batch"), "3");
    let back = "SELECT COUNT(*) FROM (SELECT at, LAG(at) OVER (PARTITION BY writer ORDER BY id) AS before FROM audit)
                AS a WHERE at < before";
    assert_eq!(cluster.sql("store", back), "0", "instants never go back");
    assert_whole(&url);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_insert_the_same_row_one_is_first_and_the_other_sees_it() {
    const NEW: [&str; 12] = ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "n10", "n11"];
    let cluster = Cluster::start();
    let url = cluster.url("store");
    let stores = [open(&url), open(&url)];
    for name in NEW {
        let (a, b) = tokio::join!(stores[0].write(add(name, 9)), stores[1].write(add(name, 9)));
        let both: BTreeSet<i64> = [a.expect("room"), b.expect("room")].into();
        assert_eq!(both, [1, 2].into(), "{name}");
    }
    // The database itself refuses a second row: that is run again, too; where it goes on, the store is broken.
    cluster.sql(
        "store",
        "CREATE SEQUENCE falls; GRANT ALL ON SEQUENCE falls TO interlock;
         CREATE FUNCTION fall() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN IF nextval('falls') <= 3 THEN RAISE unique_violation; END IF; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER fall AFTER INSERT OR UPDATE ON counter
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fall()",
    );
    assert_eq!(stores[0].write(add("doubled", 9)).await.expect("run again"), 1);
    cluster.sql("store", "ALTER SEQUENCE falls MINVALUE -1000000; SELECT setval('falls', -1000000)");
    assert_eq!(refused(stores[0].write(add("doubled", 9)).await), Reason::Internal);
    for store in stores {
        store.close().await;
    }
    assert_whole(&url);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_settled_beside_another_writer() {
    let cluster = Cluster::start();
    let proxy = Proxy::before(cluster.socket());
    let (cut_off, other) = (open(&proxy.url("store")), open(&cluster.url("store")));
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (other, stop) = (other.clone(), Arc::clone(&stop));
        async move {
            let mut values = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                values.push(other.write(add("a", i64::MAX)).await.expect("written"));
            }
            values
        }
    });
    let mut mine = vec![cut_off.write(add("a", i64::MAX)).await.expect("written")];
    for how in [Cut::Before, Cut::After] {
        for cuts in 0..12 {
            proxy.cut(cuts, how);
            mine.push(cut_off.write(add("a", i64::MAX)).await.expect("written all the same"));
            proxy.calm();
        }
    }
    stop.store(true, Ordering::SeqCst);
    let theirs = writing.await.expect("no panic");
    assert!(theirs.len() > 1, "a race of one shows nothing");
    let all: BTreeSet<i64> = mine.iter().chain(&theirs).copied().collect();
    let count = i64::try_from(mine.len() + theirs.len()).expect("small");
    assert_eq!(all, (1..=count).collect(), "each answered one was committed once");
    cut_off.close().await;
    other.close().await;
    assert_eq!(cluster.sql("store", "SELECT COUNT(*) FROM audit"), count.to_string());
    assert_whole(&cluster.url("store"));
}

#[tokio::test]
async fn a_writer_that_was_taken_for_ended_settles_its_commit_and_goes_on_as_another_one() {
    let cluster = Cluster::start();
    let url = cluster.url("store");
    let proxy = Proxy::before(cluster.socket());
    let ear = Arc::new(Ear::default());
    let cut_off =
        postgres::open::<Counters>(&shared(&proxy.url("store")), Arc::clone(&ear) as _).expect("opens");
    assert_eq!(cut_off.write(add("a", 99)).await.expect("room"), 1);
    // What it tells and hears goes its own way through the proxy: that is counted no more once it listens.
    let listens = async |times: usize| {
        let listening = async {
            while ear.breaks.load(Ordering::SeqCst) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), listening).await.expect("it listens");
    };
    listens(1).await;
    let before = proxy.asked();
    assert_eq!(cut_off.write(add("a", 99)).await.expect("room"), 2);
    let commit = proxy.asked() - before - 1;
    for (times, how, happened) in [(1, Cut::After, 1), (2, Cut::Before, 0)] {
        listens(times).await;
        let sealed = |_: &str| cluster.sql("store", "SELECT COUNT(*) FROM audit_batch WHERE sealed");
        let (already, begun) = (sealed("before"), cut_off.read(read("a")).await.expect("a value"));
        proxy.cut_and_close(commit, how);
        assert_eq!(refused(cut_off.write(add("a", 99)).await), Reason::StoreUnavailable, "{how:?}");
        proxy.close();
        // Its connection has ended at the server, too: whoever starts now takes it for ended.
        cluster.until("SELECT (COUNT(*) = 0)::INT FROM pg_stat_activity WHERE usename = 'interlock'");
        let next = open(&url);
        assert_ne!(sealed("after"), already, "its chain has its last link");
        assert_eq!(next.write(add("b", 99)).await.expect("room"), 1 + i64::from(how == Cut::Before));
        proxy.reopen();
        ear.signals.lock().clear();
        assert_eq!(cut_off.write(add("a", 99)).await.expect("it goes on"), begun + happened + 1, "{how:?}");
        let told = usize::try_from(happened).expect("0 or 1") + 1;
        assert_eq!(ear.signals.lock().len(), told, "{how:?}: what has happened is told, late");
        next.close().await;
        // The statements of the next round are known to its connection again.
        cut_off.write(add("c", 99)).await.expect("room");
    }
    cut_off.close().await;
    assert_whole(&url);
}

#[tokio::test]
async fn what_another_writer_has_stored_is_never_ahead() {
    let cluster = Cluster::start();
    let url = cluster.url("store");
    let (one, other) = (open(&url), open(&url));
    assert_eq!(other.write(add("a", 9)).await.expect("room"), 1);
    // As if the database's clock had been a day ahead when another one wrote, and was set back.
    cluster.sql("store", "UPDATE moment SET at = at + 86400000000");
    let instant = |rows: &mut (dyn Rows + '_), now: Timestamp| {
        let result = rows.value("a").map(|_| now.as_micros());
        Ran { result, changes: vec![], audit: vec![entry(Outcome::Done, "now")] }
    };
    let floor: i64 = cluster.sql("store", "SELECT MAX(at) FROM moment").parse().expect("a number");
    let first = one.write(instant).await.expect("an instant");
    let second = other.write(instant).await.expect("an instant");
    assert!(floor <= first && first <= second, "{floor} {first} {second}");
    assert!(second < floor + 3_600_000_000, "and no further");
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_store_is_shared_or_had_alone() {
    let cluster = Cluster::start();
    let url = cluster.url("store");
    let starting: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            std::thread::spawn(move || open(&url))
        })
        .collect();
    let stores: Vec<_> = starting.into_iter().map(|one| one.join().expect("no panic")).collect();
    for (nth, store) in stores.iter().enumerate() {
        let nth = i64::try_from(nth).expect("small");
        assert_eq!(store.write(add("a", 9)).await.expect("room"), nth + 1, "all that started at once serve");
    }
    let alone = || postgres::open::<Counters>(&on(&url), Arc::new(Ear::default()));
    assert!(matches!(alone(), Err(OpenError::Held { .. })), "others use it");
    let key = Options { chain_key: ChainKey::new([8; 32]), ..shared(&url) };
    let refused = postgres::open::<Counters>(&key, Arc::new(Ear::default())).expect_err("another key");
    assert!(matches!(refused, OpenError::OtherKey { .. }), "{refused}");
    for store in stores {
        store.close().await;
    }
    let store = alone().expect("free");
    let refused = postgres::open::<Counters>(&shared(&url), Arc::new(Ear::default())).expect_err("held");
    assert!(matches!(refused, OpenError::Held { .. }), "{refused}");
    store.close().await;
    assert_whole(&url);
}

#[tokio::test]
async fn a_store_in_use_is_brought_to_no_other_version_and_an_older_program_does_not_come_back() {
    let cluster = Cluster::start();
    let url = cluster.url("store");
    let store = open(&url);
    assert_eq!(store.write(add("a", 9)).await.expect("room"), 1);
    // As a program sees it that knows one migration more.
    let last = "DELETE FROM kit_migrations WHERE version = (SELECT MAX(version) FROM kit_migrations)";
    cluster.sql("store", last);
    let refused = postgres::open::<Counters>(&shared(&url), Arc::new(Ear::default())).expect_err("in use");
    assert!(refused.to_string().contains("end the programs that use it"), "{refused}");
    assert_eq!(store.write(add("a", 9)).await.expect("room"), 2, "who uses it goes on");
    cluster
        .sql("store", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'interlock'");
    assert_eq!(
        super::refused(store.write(add("a", 9)).await),
        Reason::StoreUnavailable,
        "of another version"
    );
    tokio::time::timeout(Duration::from_secs(60), store.close()).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_writer_commits_is_heard_by_the_others_and_a_break_is_told() {
    let cluster = Cluster::start();
    let url = cluster.url("store");
    let ears = [Arc::new(Ear::default()), Arc::new(Ear::default())];
    let open =
        |ear: &Arc<Ear>| postgres::open::<Counters>(&shared(&url), Arc::clone(ear) as _).expect("opens");
    let stores = [open(&ears[0]), open(&ears[1])];
    let listens = async |breaks: usize| {
        while ears.iter().any(|ear| ear.breaks.load(Ordering::SeqCst) < breaks) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    for breaks in 1..=2 {
        tokio::time::timeout(Duration::from_secs(60), listens(breaks)).await.expect("both listen");
        ears.iter().for_each(|ear| ear.heard.lock().clear());
        for name in ["b", "unknown to the other one", "a"] {
            stores[0].write(add(name, 99)).await.expect("room");
        }
        let heard = async {
            while !ears[1].heard.lock().contains(&"a") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), heard).await.expect("heard");
        assert_eq!(*ears[1].heard.lock(), ["b", "a"]);
        assert!(ears[0].heard.lock().is_empty(), "nobody hears what it has told itself");
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'interlock'";
        cluster.sql("store", cut);
    }
    for store in stores {
        store.close().await;
    }
}
