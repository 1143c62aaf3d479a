//! Sign-ins and joins of strangers that keep the queue of the hasher full, beside somebody who was let in before. Issue
//! 6 line 6, DESIGN 14.15

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use interlock_client::ClientRole;
use interlock_proto::{auth::v1::LoginRequest, gateway::v1::JoinSessionRequest};
use interlock_tests::{
    Pair, Setup, audit, eventually,
    wire::{self, Metadata, Outcome},
};
use prost::Message;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::target::{FLOODER, auth_public, gateway_public, patient};

const LOGIN: &str = "/interlock.auth.v1.OwnerSessionService/Login";
const JOIN: &str = "/interlock.gateway.v1.SessionService/JoinSession";
/// More than the queue has room for.
const AT_ONCE: usize = 20;
/// Before a try that follows one that was turned away: the processor is for those that are not.
const PAUSE: Duration = Duration::from_millis(20);
/// Good ones beside the flood.
const GOOD: usize = 5;

/// Few may wait, and a hash takes its time.
fn slow() -> Setup {
    let each = |setup: Setup, set: fn(Setup, &str, &str) -> Setup| {
        let slow = [("argon2.m_kib", "8192"), ("hasher.threads", "1"), ("hasher.queue", "8")];
        slow.into_iter().fold(setup, |setup, (key, value)| set(setup, key, value))
    };
    let setup = each(each(patient(), Setup::auth), Setup::gateway);
    // Else a single source could not fill the queue.
    setup.gateway("join_tries", "100000")
}

/// What came back, by reason.
type Reasons = BTreeMap<String, u64>;

/// Calls that go on until they are stopped, each with a message of its own.
struct Flood {
    tasks: JoinSet<Reasons>,
    enough: Arc<AtomicBool>,
    /// How many were turned away because the queue was full.
    full: Arc<AtomicUsize>,
}

impl Flood {
    fn of<M: Message>(
        channel: &Channel,
        path: &'static str,
        message: impl Fn(usize) -> M + Copy + Send + 'static,
    ) -> Self {
        let (enough, full) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for task in 0..AT_ONCE {
            let (channel, enough, full) = (channel.clone(), Arc::clone(&enough), Arc::clone(&full));
            tasks.spawn(async move {
                let mut reasons = Reasons::new();
                for n in 0.. {
                    if enough.load(Ordering::SeqCst) {
                        break;
                    }
                    let message = message(task * 1_000_000 + n).encode_to_vec();
                    let reason = wire::call(&channel, path, message, &Metadata::none()).await.outcome.reason;
                    if reason == "LIMIT_REACHED" {
                        full.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(PAUSE).await;
                    }
                    *reasons.entry(reason).or_default() += 1;
                }
                reasons
            });
        }
        Self { tasks, enough, full }
    }

    /// Waits until somebody more was turned away.
    async fn is_full(&self) {
        let before = self.full.load(Ordering::SeqCst);
        eventually("a full queue", async || (self.full.load(Ordering::SeqCst) > before).then_some(())).await;
    }

    async fn end(self) -> Reasons {
        self.enough.store(true, Ordering::SeqCst);
        let all = self.tasks.join_all().await.into_iter().flatten();
        all.fold(Reasons::new(), |mut sum, (reason, count)| {
            *sum.entry(reason).or_default() += count;
            sum
        })
    }
}

/// What the audit log says of strangers, by reason: rows of their own, and all that they stand for.
fn told(pair: &Pair, store: &str, actions: [&str; 2]) -> BTreeMap<String, (u64, u64)> {
    let mut told = BTreeMap::<String, (u64, u64)>::new();
    let rows = audit::all(&pair.world.path(store));
    for row in rows.iter().filter(|row| actions.contains(&row.action.as_str()) && row.outcome == "refused") {
        let of = told.entry(row.reason.clone()).or_default();
        *of = (of.0 + 1, of.1 + row.count);
    }
    told
}

/// Each refusal is told of, and most of them in rows that stand for many.
fn judge(seen: &Reasons, told: &BTreeMap<String, (u64, u64)>) {
    println!("seen {seen:?}, rows and what they stand for {told:?}");
    for (reason, count) in seen {
        let (rows, stands_for) = told.get(reason).copied().unwrap_or_default();
        assert_eq!(stands_for, *count, "{reason}: {told:?}");
        assert!(rows < *count || *count < 9, "{reason}: a row each: {rows}");
    }
}

// Issue 6 line 6: "a known source with the right password always gets in … counted audit rows for floods".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_let_in_before_is_let_in_while_strangers_fill_the_queue() {
    let mut pair = Pair::start_with(slow()).await;
    let target = auth_public(&pair);
    let (here, elsewhere) = (target.channel(1), target.channel(FLOODER));
    let password = pair.world.password("alice").to_owned();
    let sign_in = async || {
        let message = LoginRequest { username: "alice".to_owned(), password: password.clone() };
        wire::ask(&here, LOGIN, &message, &Metadata::none()).await.outcome
    };
    assert_eq!(sign_in().await, Outcome::ok(), "from here, before");
    let strangers = Flood::of(&elsewhere, LOGIN, |n| LoginRequest {
        username: format!("nobody-{n}"),
        password: "a guess at nobody".to_owned(),
    });
    for _ in 0..GOOD {
        strangers.is_full().await;
        assert_eq!(sign_in().await, Outcome::ok(), "beside the flood");
    }
    let mut seen = strangers.end().await;
    assert!(seen["LIMIT_REACHED"] >= GOOD as u64 && seen["INVALID_CREDENTIALS"] > 0, "{seen:?}");
    // One name after another try: it waits, and that is told, too.
    for _ in 0..30 {
        let message = LoginRequest { username: "alice".to_owned(), password: "a guess at alice".to_owned() };
        let refused = wire::ask(&elsewhere, LOGIN, &message, &Metadata::none()).await.outcome;
        *seen.entry(refused.reason).or_default() += 1;
    }
    assert!(seen["RATE_LIMITED"] > 0, "{seen:?}");
    assert!(pair.auth.drain().await.success(), "what was counted is written at the end");
    judge(&seen, &told(&pair, "auth/auth.db", ["owner_session.login", "denials.counted"]));
}

// The same for joins. NC-23
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_joined_before_joins_while_strangers_fill_the_queue() {
    let mut pair = Pair::start_with(slow()).await;
    let alice = pair.login("alice").await;
    let sdk = pair.sdk_gateway(&alice.access_token);
    let session = sdk.sessions().create("").await.expect("a session").session.session_id;
    let password = "the session's password";
    sdk.sessions().set_password(&session, password, ClientRole::Operator, false).await.expect("set");
    let target = gateway_public(&pair);
    let (here, elsewhere) = (target.channel(1), target.channel(FLOODER));
    let requests = AtomicUsize::new(0);
    let join = async || {
        let message = JoinSessionRequest {
            session_id: session.clone(),
            password: password.into(),
            request_id: format!("join-{}", requests.fetch_add(1, Ordering::SeqCst)),
            ..Default::default()
        };
        wire::ask(&here, JOIN, &message, &Metadata::none()).await.outcome
    };
    assert_eq!(join().await, Outcome::ok(), "from here, before");
    let strangers = Flood::of(&elsewhere, JOIN, |n| JoinSessionRequest {
        session_id: format!("ses_{n:022}"),
        password: "a guess at nothing".into(),
        request_id: format!("guess-{n}"),
        ..Default::default()
    });
    for _ in 0..GOOD {
        strangers.is_full().await;
        assert_eq!(join().await, Outcome::ok(), "beside the flood");
    }
    let seen = strangers.end().await;
    assert!(seen["LIMIT_REACHED"] >= GOOD as u64, "{seen:?}");
    assert!(pair.gateway.drain().await.success(), "what was counted is written at the end");
    judge(&seen, &told(&pair, "gateway/gateway.db", ["session.join", "gate.refused"]));
}
