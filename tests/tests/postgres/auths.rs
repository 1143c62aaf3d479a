//! Two auth-services on one database, each with a gateway of its own: what is revoked through one is refused by the
//! verifiers of the other, whatever becomes of that one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use interlock_client::{Code, Error, Gateway, OwnerSession, Reason, SetAgent};
use interlock_proto::credential::Credential;
use interlock_tests::{
    Link, Pair, Service, Setup, eventually,
    link::{Mode, Way},
    within,
};

use super::{cluster::Cluster, proxy::Proxy};

const LEASE: Duration = Duration::from_secs(1);

/// A pair, and a second one on the same stores. The second gateway knows the second auth only.
struct Stage {
    // Services before the folder, the database last.
    other_gateway: Service,
    other: Service,
    pair: Pair,
    proxy: Proxy,
    cluster: Cluster,
}

impl Stage {
    async fn set() -> Self {
        let cluster = Cluster::start_with(&["max_connections=60"]);
        let setup = Setup::default()
            .auth_in(&cluster.database("auth"))
            .auth("lease", "1s")
            .gateway_in(&cluster.database("gateway"));
        let pair = Pair::start_with(setup).await;
        let proxy = Proxy::before(cluster.socket());
        let mut other = Service::another("auth", "auth-2", &pair.world.path(""));
        pair.start_another_auth(&mut other, "auth-2", Some(&proxy.url("auth"))).await;
        let mut other_gateway = Service::another("gateway", "gateway-2", &pair.world.path(""));
        let address = other.address("internal");
        pair.start_another_gateway_at(&mut other_gateway, "gateway-2", &[address]).await;
        Self { other_gateway, other, pair, proxy, cluster }
    }

    /// The gateways, as that credential's bearer.
    fn gateways(&self, credential: &Credential) -> [Gateway; 2] {
        [&self.pair.gateway, &self.other_gateway]
            .map(|gateway| self.pair.sdk_gateways(&[gateway], credential))
    }

    /// An owner session that both gateways and both auths know.
    async fn known(&self, owner: &str) -> OwnerSession {
        let session = self.pair.login(owner).await;
        for gateway in self.gateways(&session.access_token) {
            eventually("a gateway that admits it", async || gateway.sessions().list().await.ok()).await;
        }
        for auth in [&self.pair.auth, &self.other] {
            self.whoami(auth, &session.access_token).await.expect("good");
        }
        session
    }

    /// Waits until both auths' rows tell of a verifier: who is waited out without a word is counted by its row.
    async fn told(&self) {
        let told = async || {
            let count = self.cluster.sql("auth", "SELECT COUNT(*) FROM replica WHERE holders > 0");
            (count == "2").then_some(())
        };
        eventually("two rows with verifiers", told).await;
    }

    async fn whoami(&self, auth: &Service, credential: &Credential) -> Result<(), Error> {
        let credentials = interlock_client::Credentials::bearer(credential.clone());
        self.pair.sdk_auths(&[auth]).with_credentials(credentials).whoami().await.map(drop)
    }

    /// Signs out through the first auth, and gives how many verifiers acknowledged it and were fenced; none where it had
    /// to be asked again, and all that is known is that it is over.
    async fn logout(&self, session: &OwnerSession) -> Option<(u32, u32)> {
        let began = Instant::now();
        let auth = self.pair.sdk_auths(&[&self.pair.auth]);
        // A program that stopped in the middle of a commit keeps others from theirs for a moment.
        let reached = eventually("a sign-out", async || match auth.logout(&session.access_token).await {
            Ok(reached) => Some(reached),
            Err(error) if error.reason() == Some(Reason::StoreUnavailable) => None,
            Err(error) => panic!("{error}"),
        })
        .await;
        println!("revoked in {:?}: {reached:?}", began.elapsed());
        reached.map(|reached| (reached.acknowledged, reached.fenced))
    }
}

/// Asks a gateway again and again, on several tasks; counts what it admitted of what was asked after the revocation.
struct Prober {
    revoked: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    late: Arc<AtomicU32>,
    asked: Arc<AtomicU32>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Prober {
    fn start(gateway: &Gateway) -> Self {
        let (revoked, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (late, asked) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let task = || {
            let gateway = gateway.clone();
            let (revoked, ended) = (Arc::clone(&revoked), Arc::clone(&ended));
            let (late, asked) = (Arc::clone(&late), Arc::clone(&asked));
            tokio::spawn(async move {
                while !ended.load(Ordering::SeqCst) {
                    let after = revoked.load(Ordering::SeqCst);
                    let admitted = gateway.sessions().list().await.is_ok();
                    asked.fetch_add(1, Ordering::SeqCst);
                    late.fetch_add(u32::from(after && admitted), Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            })
        };
        let tasks = (0..2).map(|_| task()).collect();
        Self { revoked, ended, late, asked, tasks }
    }

    /// How many were admitted too late, of how many.
    async fn end(self) -> (u32, u32) {
        self.ended.store(true, Ordering::SeqCst);
        for task in self.tasks {
            within("a prober's end", task).await.expect("no panic");
        }
        (self.late.load(Ordering::SeqCst), self.asked.load(Ordering::SeqCst))
    }
}

fn is_refused(result: &Result<(), Error>) -> bool {
    result.as_ref().is_err_and(|error| error.code() == Code::Unauthenticated)
}

// SW-10, I8: revoke on one is a barrier for the verifiers of the other, and for the other itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_through_one_is_refused_at_once_by_the_verifiers_of_the_other() {
    let stage = Stage::set().await;
    for round in 0..12 {
        let session = stage.known("alice").await;
        let [_, gateway] = stage.gateways(&session.access_token);
        let prober = Prober::start(&gateway);
        let reached = stage.logout(&session).await;
        prober.revoked.store(true, Ordering::SeqCst);
        let refused = gateway.sessions().list().await.map(drop);
        assert!(is_refused(&refused), "round {round}: {refused:?}");
        let refused = stage.whoami(&stage.other, &session.access_token).await;
        assert!(is_refused(&refused), "round {round}: the other auth's own verdicts: {refused:?}");
        assert!(
            reached.is_none_or(|(acknowledged, _)| acknowledged >= 2),
            "round {round}: both gateways hold leases, of one each"
        );
        let (late, asked) = prober.end().await;
        assert_eq!(late, 0, "round {round}: of {asked}");
    }

    // The role tokens: whoever rotates has the recoverable copy, the other one gives its own up (DESIGN 5).
    let (admin, user) = (stage.pair.admin(), stage.pair.user());
    let [_, gateway] = stage.gateways(&user);
    gateway.sessions().list().await.expect("good");
    let as_admin = |credential: &Credential| interlock_client::Credentials::bearer(credential.clone());
    let other = stage.pair.sdk_auths(&[&stage.other]).with_credentials(as_admin(&admin));
    assert!(!other.role_tokens(false).await.expect("admin").recoverable, "the first one made them");
    let rotated = other.rotate_role_token("user", Duration::ZERO).await.expect("rotated");
    assert!(rotated.path.contains("auth-2"), "{}", rotated.path);
    for gateway in stage.gateways(&user) {
        let refused = gateway.sessions().list().await.map(drop);
        assert!(is_refused(&refused), "the verifiers of both: {refused:?}");
    }
    let first = stage.pair.sdk_auths(&[&stage.pair.auth]).with_credentials(as_admin(&admin));
    assert!(!first.role_tokens(false).await.expect("admin").recoverable);
    let path = stage.pair.world.path("auth/auth_tokens.json");
    let given_up = async || {
        let text = std::fs::read_to_string(&path).expect("it has the admin's");
        (!text.contains(user.expose()) && text.contains(admin.expose())).then_some(())
    };
    eventually("a copy without the replaced token", given_up).await;

    // In two phases: begun at one, seen by both, ended at the other.
    let begun = other.begin_rotation("user").await.expect("begun");
    for gateway in stage.gateways(&begun.token) {
        gateway.sessions().list().await.expect("the next one is good, at the verifiers of both");
    }
    let [of_first, _] = stage.gateways(&rotated.token);
    of_first.sessions().list().await.expect("and so is the present one");
    let source = async || {
        let status = other.role_tokens(false).await.expect("admin");
        let present = status.tokens.iter().find(|token| token.role == "user" && !token.candidate)?;
        let used = present.uses.iter().find(|used| used.service.ends_with("/gateway"))?;
        (used.source == "127.0.0.1").then_some(())
    };
    eventually("a use that the first auth's verifier told, at the other one", source).await;
    let refused = other.commit_rotation("user", &begun.credential_id, false).await.expect_err("in use");
    assert_eq!(refused.reason(), Some(Reason::TokenInUse), "{refused}");
    first.commit_rotation("user", &begun.credential_id, true).await.expect("forced");
    for gateway in stage.gateways(&rotated.token) {
        let refused = gateway.sessions().list().await.map(drop);
        assert!(is_refused(&refused), "the verifiers of both: {refused:?}");
    }
    for gateway in stage.gateways(&begun.token) {
        gateway.sessions().list().await.expect("the next one is the present one");
    }
    let copied = stage.pair.world.path("auth-2/auth_tokens.json");
    let settled = async || {
        let text = std::fs::read_to_string(&copied).expect("it has the user's");
        (text.contains(begun.token.expose()) && !text.contains("candidates")).then_some(())
    };
    eventually("a settled copy at the one that began it", settled).await;
    // And given up at the other one.
    let begun = other.begin_rotation("user").await.expect("begun");
    first.abort_rotation("user", &begun.credential_id).await.expect("aborted");
    for gateway in stage.gateways(&begun.token) {
        let refused = gateway.sessions().list().await.map(drop);
        assert!(is_refused(&refused), "the verifiers of both: {refused:?}");
    }
    let given_up = async || {
        let text = std::fs::read_to_string(&copied).expect("it has the user's");
        (!text.contains(begun.token.expose())).then_some(())
    };
    eventually("a copy without the token that was given up", given_up).await;
}

// I8, DESIGN 6: with one of them frozen, and when it wakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_auth_is_waited_out_and_wakes_to_vouch_for_nothing_that_was_revoked() {
    let stage = Stage::set().await;
    let bob = stage.known("bob").await;
    for round in 0..2 {
        let session = stage.known("alice").await;
        let [_, gateway] = stage.gateways(&session.access_token);
        let prober = Prober::start(&gateway);
        stage.told().await;
        stage.other.freeze();
        let reached = within("a sign-out", stage.logout(&session)).await;
        prober.revoked.store(true, Ordering::SeqCst);
        let refused = gateway.sessions().list().await.expect_err("no lease");
        assert!(
            [Some(Reason::AuthUnavailable), Some(Reason::ProviderAuthFailed)].contains(&refused.reason()),
            "{refused}"
        );
        assert!(reached.is_none_or(|(_, fenced)| fenced >= 1), "round {round}: its verifier was waited out");
        // It has answers on their way to its own callers, too.
        let asked = stage.whoami(&stage.other, &session.access_token);
        let (late, _) = tokio::join!(asked, async { stage.other.wake() });
        assert!(late.is_err(), "round {round}: the auth that woke admits it");
        let [_, other_gateway] = stage.gateways(&bob.access_token);
        eventually("its verifier is back", async || other_gateway.sessions().list().await.ok()).await;
        let refused = gateway.sessions().list().await.map(drop);
        assert!(is_refused(&refused), "round {round}: {refused:?}");
        let (late, asked) = prober.end().await;
        assert_eq!(late, 0, "round {round}: of {asked}");
    }
}

// I8, DESIGN 14.9: cut off from the database, a program vouches no longer than its row promises.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auth_that_is_cut_off_from_the_database_stops_vouching() {
    let stage = Stage::set().await;
    let bob = stage.known("bob").await;
    let session = stage.known("alice").await;
    let [_, gateway] = stage.gateways(&session.access_token);
    let prober = Prober::start(&gateway);
    stage.told().await;
    stage.proxy.close();
    let reached = within("a sign-out", stage.logout(&session)).await;
    prober.revoked.store(true, Ordering::SeqCst);
    assert!(reached.is_none_or(|(_, fenced)| fenced >= 1), "the one that is cut off was waited out");
    let refused =
        gateway.sessions().list().await.expect_err("its auth knows nothing of it, and must not vouch");
    assert_eq!(refused.reason(), Some(Reason::AuthUnavailable), "nobody is signed out by that: {refused}");
    assert!(stage.whoami(&stage.other, &session.access_token).await.is_err(), "nor for its own callers");
    let (late, asked) = prober.end().await;
    assert_eq!(late, 0, "of {asked}");

    stage.proxy.reopen();
    let [_, other_gateway] = stage.gateways(&bob.access_token);
    eventually("its verifier is back", async || other_gateway.sessions().list().await.ok()).await;
    let refused = gateway.sessions().list().await.map(drop);
    assert!(is_refused(&refused), "{refused:?}");
    assert!(is_refused(&stage.whoami(&stage.other, &session.access_token).await));
    stage.whoami(&stage.other, &bob.access_token).await.expect("good");
}

// I9: the same refresh token at both at once has one successor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_refresh_token_at_two_auths_at_once_has_one_successor() {
    let stage = Stage::set().await;
    let (one, two) = (stage.pair.sdk_auths(&[&stage.pair.auth]), stage.pair.sdk_auths(&[&stage.other]));
    let mut session = stage.pair.login("alice").await;
    for round in 0..30 {
        let (first, second, third) =
            tokio::join!(one.refresh(&session), two.refresh(&session), one.refresh(&session));
        let all = [first, second, third].map(|refreshed| refreshed.expect("idempotent"));
        for other in &all[1..] {
            assert_eq!(all[0].access_token.hash(), other.access_token.hash(), "I9 in round {round}");
            assert_eq!(all[0].refresh_token.hash(), other.refresh_token.hash(), "I9 in round {round}");
        }
        let [next, ..] = all;
        // Its use is what ends the window: each of them knows it.
        let used = if round % 2 == 0 { &stage.other } else { &stage.pair.auth };
        stage.whoami(used, &next.access_token).await.expect("good");
        session = next;
    }
    let old = session.clone();
    session = one.refresh(&session).await.expect("refreshed");
    session = two.refresh(&session).await.expect("the successor is used at the other one");
    let replayed = one.refresh(&old).await.expect_err("a replay");
    assert_eq!(replayed.reason(), Some(Reason::InvalidCredentials), "{replayed}");
    let refused = stage.whoami(&stage.other, &session.access_token).await;
    assert!(is_refused(&refused), "I9: the family has ended for both: {refused:?}");
}

// Issue 6 line 1: "several replicas, and a crash between commit and answer". I6, I9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_whose_answer_died_with_its_auth_is_answered_by_the_other() {
    let cluster = Cluster::start_with(&["max_connections=60"]);
    let mut pair = Pair::stopped(Setup::default().auth_in(&cluster.database("auth")));
    pair.start_auth().await;
    let mut other = Service::another("auth", "auth-2", &pair.world.path(""));
    pair.start_another_auth(&mut other, "auth-2", None).await;
    let session = pair.login("alice").await;
    let link = Link::to(other.address("public"), 1).await;
    let tls = interlock_client::Tls::ca_file(pair.world.ca()).server_name("localhost");
    let through = interlock_client::Connection::to(format!("https://{}", link.address())).tls(tls).open();
    let through = interlock_client::Auth::new(through.expect("a connection"));
    through.sign_in_status().await.expect("an open connection");
    link.turn(Mode::Swallow(Way::ToGateway));
    let asking = tokio::spawn({
        let session = session.clone();
        async move { through.refresh(&session).await }
    });
    let hex = |credential: &Credential| -> String {
        credential.hash().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let presented = hex(&session.refresh_token);
    let sql = format!(
        "SELECT encode(hash, 'hex') FROM refresh_token WHERE predecessor = decode('{presented}', 'hex')"
    );
    let committed = eventually("the commit", async || {
        Some(cluster.sql("auth", &sql)).filter(|successor| !successor.is_empty())
    })
    .await;
    assert!(!asking.is_finished(), "it was answered");
    other.kill();
    asking.abort();
    let one = pair.sdk_auth();
    let (first, second) = tokio::join!(one.refresh(&session), one.refresh(&session));
    let first = first.expect("the same token again, at the other one");
    assert_eq!(hex(&first.refresh_token), committed, "I9: what the dead one had committed");
    assert_eq!(second.expect("and again").refresh_token.hash(), first.refresh_token.hash());
    pair.sdk_auth_as(&first.access_token).whoami().await.expect("good");
    let counted = "SELECT MAX(refreshes), COUNT(*) FROM owner_session";
    assert_eq!(cluster.sql("auth", counted), "1|1", "I7: done once");
    let told = "SELECT COUNT(*) FROM audit WHERE action = 'owner_session.refresh' AND outcome = 'done'";
    assert_eq!(cluster.sql("auth", told), "1", "I11: and told once");
}

// Kill -9 of one: who has a list moves on; what is revoked meanwhile is waited out; a new start takes part again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_two_auths_the_death_of_one_ends_nothing() {
    let mut stage = Stage::set().await;
    // A gateway that knows both, and has begun at the one that dies: chance decides where it begins.
    let link = Link::to(stage.other.address("internal"), 1).await;
    let addresses = [link.address(), stage.pair.auth.address("internal")];
    let mut third = Service::another("gateway", "gateway-3", &stage.pair.world.path(""));
    for start in 1.. {
        stage.pair.start_another_gateway_at(&mut third, "gateway-3", &addresses).await;
        if link.connections() > 0 {
            break;
        }
        assert!(start < 32, "32 starts began at the other one");
        assert!(third.drain().await.success(), "it drains");
    }
    let any = stage.pair.sdk_auths(&[&stage.other, &stage.pair.auth]);
    let (alice, bob) = (stage.known("alice").await, stage.known("bob").await);
    let gateway = stage.pair.sdk_gateways(&[&third], &alice.access_token);
    gateway.agents().set("builder", SetAgent::default()).await.expect("an agent");

    stage.other.kill();
    let began = Instant::now();
    eventually("a sign-in", async || any.login("w0", stage.pair.world.password("w0")).await.ok()).await;
    eventually("calls are admitted", async || gateway.sessions().create("").await.ok()).await;
    println!("both went on after {:?}", began.elapsed());
    assert!(began.elapsed() < LEASE * 60, "they moved on");
    within("a sign-out", stage.logout(&bob)).await;
    for gateway in [&stage.pair.gateway, &stage.other_gateway, &third] {
        let gateway = stage.pair.sdk_gateways(&[gateway], &bob.access_token);
        assert!(gateway.sessions().list().await.is_err(), "revoked, or no lease");
    }

    let url = stage.proxy.url("auth");
    stage.pair.start_another_auth(&mut stage.other, "auth-2", Some(&url)).await;
    let [_, gateway] = stage.gateways(&alice.access_token);
    eventually("its verifier is back", async || gateway.sessions().list().await.ok()).await;
    let session = stage.known("w1").await;
    stage.logout(&session).await;
    for gateway in stage.gateways(&session.access_token) {
        let refused = gateway.sessions().list().await.map(drop);
        assert!(is_refused(&refused), "{refused:?}");
    }
    assert!(stage.other.drain().await.success() && stage.pair.auth.drain().await.success(), "they drain");
}

// DESIGN 5: of several first starts one creates the tokens, and has the only copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_first_starts_at_once_one_makes_the_role_tokens() {
    let cluster = Cluster::start_with(&["max_connections=60"]);
    let mut pair = Pair::stopped(Setup::default().auth_in(&cluster.database("auth")));
    let key: Vec<u8> = (0..32).collect();
    interlock_kit::secret_file::write(&pair.world.path("auth.chain-key"), &key).expect("a key for both");
    let mut other = Service::another("auth", "auth-2", &pair.world.path(""));
    let (world, first) = (&pair.world, &mut pair.auth);
    world.configure_auth(first.addresses());
    world.configure_auth_as("auth-2", None, other.addresses());
    tokio::join!(first.start(), other.start());
    let copies = ["auth", "auth-2"].map(|name| pair.world.path(&format!("{name}/auth_tokens.json")));
    assert_eq!(copies.iter().filter(|copy| copy.exists()).count(), 1, "one copy");
    let copy = copies.iter().find(|copy| copy.exists()).expect("one");
    let text = std::fs::read_to_string(copy).expect("read");
    let copy: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let admin = Credential::parse(copy["tokens"]["admin"].as_str().expect("a token")).expect("well-formed");
    for auth in [&pair.auth, &other] {
        let credentials = interlock_client::Credentials::bearer(admin.clone());
        let tokens = pair.sdk_auths(&[auth]).with_credentials(credentials).role_tokens(false).await;
        assert_eq!(tokens.expect("admin").tokens.len(), 2, "both know the same two");
    }
}
