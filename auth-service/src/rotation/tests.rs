//! A rotation whose caller goes away, over a store in memory and a copy in a folder.

use std::{future::poll_fn, pin::pin, task::Poll};

use interlock_kit::{
    audit_heads::AuditHeads,
    clock::Clock,
    config::Profile,
    hasher::{Hasher, Params},
    store::{
        Fault, Observer,
        audit::{ChainKey, Trail},
        sqlite::{self, Options, Place},
        writer::QueueLimits,
    },
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    admit::Gate,
    barrier::{Barrier, Terms},
    caller::Caller,
    census::Census,
    first_start,
    guesses::GuessLimit,
    limits,
    role_token::Status,
    store::{Auth, Signal},
    trust::{Authenticate, Validation},
};

struct Deaf;

impl Observer<Auth> for Deaf {
    fn committed(&self, _: Vec<Signal>) {}

    fn failed(&self, fault: &Fault) {
        panic!("the store failed: {fault}");
    }
}

async fn parts(folder: &std::path::Path) -> Arc<Parts> {
    let options = Options {
        place: Place::Memory,
        clock: Clock::system(),
        chain_key: ChainKey::new([1; 32]),
        limits: QueueLimits::default(),
        inline: true,
        inject_misses: false,
    };
    let store = sqlite::open(&options, Arc::new(Deaf)).expect("opens");
    let shell = Shell::new(store.clone());
    let copy = TokenFile::of(folder, Profile::Hardened);
    first_start::settle(&shell, &copy).await.expect("first tokens");
    let census = Census::new(shell.clone(), limits::IN_USE_WINDOW.default, limits::LEASE.default);
    let terms = Terms { lease: Duration::from_secs(1), verifiers_max: 1, outgoing_max: 1 };
    Arc::new(Parts {
        gate: Arc::new(Gate::new(
            store,
            Clock::system(),
            Arc::default(),
            Arc::clone(&census),
            Arc::default(),
            1,
        )),
        census,
        shell,
        barrier: Barrier::new(terms, 0, Duration::ZERO),
        hasher: Hasher::start(Params::default(), 1, 1).expect("starts"),
        heads: AuditHeads::new(Trail::in_file(folder.join("none"), ChainKey::new([1; 32])), Clock::system()),
        replicas: None,
        copy: Arc::new(tokio::sync::Mutex::new(copy)),
        guesses: GuessLimit::default(),
        root: Arc::default(),
        root_guesses: GuessLimit::default(),
        root_ttl: limits::ROOT_TTL.default,
        clock: Clock::system(),
        epoch: "epo_test".to_owned(),
        access_ttl: limits::ACCESS_TTL.default,
        session_ttl: limits::OWNER_SESSION_TTL.default,
        unscoped: interlock_kit::unscoped::Unscoped::Deny,
        shutdown: CancellationToken::new(),
    })
}

async fn stored(parts: &Parts, role: Role) -> RoleToken {
    let all = parts.shell.ask(&host_call("test"), Status).await.expect("the host may");
    all.into_iter().map(|found| found.token).find(|token| token.role == role).expect("there is one")
}

// SW-15: the copy is in step with the store, whenever the caller goes away.
#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_half_rotation() {
    let folder = tempfile::tempdir().expect("a folder");
    let parts = parts(folder.path()).await;
    let tokens = read(&*parts.copy.lock().await).await.expect("readable").expect("there");
    let admin = tokens.latest(Role::Admin).expect("made").clone();
    let query = Authenticate { hash: admin.hash() };
    let Validation::Valid(verdict) = parts.shell.ask(&host_call("test"), query).await.expect("answers")
    else {
        panic!("the admin token is good")
    };
    let caller = Caller::Principal(verdict.principal);
    let call = Call { caller, ..host_call("role_token.rotate") };
    let request = RequestId::made("r");
    let ask = Ask { role: Role::User, grace: Duration::ZERO, request, presented: admin };
    {
        let mut rotation = pin!(rotate(&parts, &call, ask));
        let begun = poll_fn(|context| Poll::Ready(rotation.as_mut().poll(context).is_pending())).await;
        assert!(begun, "it waits for its first write");
    }
    let committed = async {
        while stored(&parts, Role::User).await.generation < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), committed).await.expect("it is finished all the same");
    // The lock is free when the copy is settled.
    let copy = parts.copy.lock().await;
    let text = std::fs::read_to_string(copy.path()).expect("there");
    assert!(!text.contains("pending"), "settled");
    let kept = read(&copy).await.expect("readable").expect("there");
    assert!(kept.has_all(&[stored(&parts, Role::Admin).await, stored(&parts, Role::User).await]));
}
