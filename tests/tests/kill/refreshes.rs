//! Between the commit of a refresh and its answer: the answer is swallowed on its way, and auth is killed. Whoever comes
//! again with the same refresh token gets the successor that was committed, and nobody gets another one.

use interlock_client::{Auth, Connection, OwnerSession, Reason, Tls};
use interlock_tests::{
    Link, Pair, audit, eventually,
    link::{Mode, Way},
};
use rusqlite::{Connection as Store, OpenFlags, OptionalExtension as _};

use crate::{kills, patient};

const KILLS: usize = 3;
/// Who come again at once.
const CALLERS: usize = 8;

/// Auth's store, while auth may run.
fn store(pair: &Pair) -> Store {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let store = Store::open_with_flags(pair.world.path("auth/auth.db"), flags).expect("the store");
    store.busy_timeout(interlock_tests::PATIENCE).expect("a time-out");
    store
}

/// The SHA-256 of the one refresh token that is this one's successor, if there is one.
fn successor(store: &Store, session: &OwnerSession) -> Option<Vec<u8>> {
    let sql = "SELECT hash FROM refresh_token WHERE predecessor = ?1";
    let presented = session.refresh_token.hash();
    store.query_row(sql, [presented.as_slice()], |row| row.get(0)).optional().expect("rows")
}

// Issue 6 line 1: "a crash between commit and answer". I6, I7, I9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_whose_answer_was_lost_in_a_kill_has_one_successor() {
    let kills = kills(KILLS);
    let mut pair = Pair::start_with(patient().auth("lease", "1s")).await;
    let link = Link::to(pair.auth.address("public"), 1).await;
    let mut session = pair.login("alice").await;
    for kill in 1..=kills {
        link.turn(Mode::Pass);
        let tls = Tls::ca_file(pair.world.ca()).server_name("localhost");
        let through = Connection::to(format!("https://{}", link.address())).tls(tls).open();
        let through = Auth::new(through.expect("a connection"));
        through.sign_in_status().await.expect("an open connection");
        // From here on auth is heard by nobody.
        link.turn(Mode::Swallow(Way::ToGateway));
        let asking = tokio::spawn({
            let session = session.clone();
            async move { through.refresh(&session).await }
        });
        let looked = store(&pair);
        let committed = eventually("the commit", async || successor(&looked, &session)).await;
        assert!(!asking.is_finished(), "it was answered");
        pair.auth.kill();
        asking.abort();
        pair.start_auth().await;

        let again = (0..CALLERS).map(|_| {
            let (auth, session) = (pair.sdk_auth(), session.clone());
            tokio::spawn(async move { auth.refresh(&session).await.expect("the same token again") })
        });
        let again = again.collect::<Vec<_>>();
        let mut answers = Vec::new();
        for answer in again {
            answers.push(answer.await.expect("no panic"));
        }
        let first = answers[0].clone();
        assert_eq!(first.refresh_token.hash().as_slice(), committed, "the one that was committed");
        for other in &answers {
            assert!(
                other.refresh_token == first.refresh_token && other.access_token == first.access_token,
                "I9"
            );
        }
        pair.sdk_auth_as(&first.access_token).whoami().await.expect("it is good");
        let counted: i64 = store(&pair)
            .query_row(
                "SELECT refreshes FROM owner_session WHERE id = ?1",
                [&session.owner_session_id],
                |row| row.get(0),
            )
            .expect("it lives");
        assert_eq!(usize::try_from(counted), Ok(kill), "I7: done once, whoever came again");
        let rows = audit::all(&pair.world.path("auth/auth.db"));
        let done = rows.iter().filter(|row| row.action == "owner_session.refresh" && row.outcome == "done");
        assert_eq!(done.count(), kill, "I11: and told once");
        session = first;
    }
    // What is no lost answer is a replay: it ends the family, as ever.
    let next = pair.sdk_auth().refresh(&session).await.expect("refreshed");
    let last = pair.sdk_auth().refresh(&next).await.expect("refreshed");
    let replayed = pair.sdk_auth().refresh(&session).await.expect_err("its successor was used");
    assert_eq!(replayed.reason(), Some(Reason::InvalidCredentials));
    pair.sdk_auth_as(&last.access_token).whoami().await.expect_err("I9: the family has ended");
    println!(
        "{kills} answers of a refresh lost between commit and caller, {} bytes swallowed; one successor each",
        link.swallowed()
    );
}
