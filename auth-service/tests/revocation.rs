//! The revocation barrier over real sockets: verifiers that acknowledge, that stay silent, that come back.

#![expect(clippy::unwrap_used, reason = "a test")]

mod served;

use std::time::{Duration, Instant};

use interlock_proto::auth::v1::{
    HoldLeaseRequest, HoldLeaseResponse, LogoutRequest, LogoutResponse, Reached, Revoked, RotateRequest,
    ValidateRequest,
    hold_lease_request::{Applied, Hello, Message, Renew},
    hold_lease_response::{Granted, Message as Answer},
    revoked::Subject,
};
use served::{Host, PATIENCE, Served, bearer, reason, service, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// As configured in these tests.
const LEASE: Duration = Duration::from_secs(1);

/// A verifier whose every word is scripted.
struct Verifier {
    say: mpsc::Sender<HoldLeaseRequest>,
    heard: Streaming<HoldLeaseResponse>,
    nonce: u64,
}

impl Verifier {
    async fn open(host: &Host, served: &Served, id: &str, applied: u64, epoch: &str) -> Self {
        let (say, words) = mpsc::channel(16);
        let verifier_id = format!("verifier-of-tests-{id}");
        let hello = Message::Hello(Hello { verifier_id, applied, epoch: epoch.to_owned(), nonce: 1 });
        say.send(HoldLeaseRequest { message: Some(hello) }).await.unwrap();
        let opened = within(host.trust(served).hold_lease(service(ReceiverStream::new(words)))).await;
        Self { say, heard: opened.unwrap().into_inner(), nonce: 1 }
    }

    async fn say(&self, message: Message) {
        self.say.send(HoldLeaseRequest { message: Some(message) }).await.unwrap();
    }

    async fn hear(&mut self) -> Result<Option<Answer>, Status> {
        within(self.heard.message()).await.map(|heard| heard.and_then(|h| h.message))
    }

    async fn granted(&mut self) -> Granted {
        match self.hear().await.unwrap() {
            Some(Answer::Granted(granted)) => granted,
            other => panic!("a grant was expected: {other:?}"),
        }
    }

    async fn revoked(&mut self) -> Revoked {
        match self.hear().await.unwrap() {
            Some(Answer::Revoked(revoked)) => revoked,
            other => panic!("a revocation was expected: {other:?}"),
        }
    }

    async fn renew(&mut self, applied: u64) {
        self.nonce += 1;
        self.say(Message::Renew(Renew { nonce: self.nonce, applied, ..Renew::default() })).await;
    }
}

fn logout(
    host: &Host,
    served: &Served,
    token: &str,
) -> tokio::task::JoinHandle<Result<LogoutResponse, Status>> {
    let (mut sessions, request) = (host.sessions(served), bearer(LogoutRequest {}, token));
    tokio::spawn(async move { sessions.logout(request).await.map(tonic::Response::into_inner) })
}

// I8: Logout returns only after Applied.
#[tokio::test]
async fn a_logout_waits_for_the_acknowledgement() {
    let host = Host::new().with("lease", "30s");
    let served = host.start().await;
    let session = host.login(&served, "alice").await;
    let mut verifier = Verifier::open(&host, &served, "a", 0, "").await;
    let granted = verifier.granted().await;
    assert_eq!(granted.nonce, 1);
    let out = logout(&host, &served, &session.access_token);
    let revoked = verifier.revoked().await;
    assert_eq!(revoked.subject, Some(Subject::OwnerSessionId(session.owner_session_id.clone())));
    // It renews, is not granted past the revocation, and the logout has not returned: what comes next to
    // this verifier is a grant, and only after its word.
    verifier.renew(granted.sequence).await;
    assert!(!out.is_finished());
    verifier.say(Message::Applied(Applied { sequence: revoked.sequence, streams_closed: 3 })).await;
    let answer = within(out).await.unwrap().unwrap();
    assert_eq!(answer.reached, Some(Reached { acknowledged: 1, fenced: 0, streams_closed: 3 }));
    assert_eq!(verifier.granted().await.nonce, 2);
    served.stop().await;
}

// A verifier that never acknowledges is waited out, counted as fenced, and gets no more time.
#[tokio::test]
async fn a_silent_verifier_is_waited_out() {
    let host = Host::new();
    let served = host.start().await;
    let session = host.login(&served, "alice").await;
    let mut verifier = Verifier::open(&host, &served, "a", 0, "").await;
    let began = Instant::now();
    verifier.granted().await;
    let out = logout(&host, &served, &session.access_token);
    let revoked = verifier.revoked().await;
    verifier.renew(revoked.sequence - 1).await;
    let answer = within(out).await.unwrap().unwrap();
    assert_eq!(answer.reached, Some(Reached { acknowledged: 0, fenced: 1, streams_closed: 0 }));
    let waited = began.elapsed();
    assert!(waited >= LEASE - Duration::from_millis(100) && waited < PATIENCE, "{waited:?}");
    // Its word comes late: now it gets its time, and the next revocation finds it again.
    verifier.say(Message::Applied(Applied { sequence: revoked.sequence, streams_closed: 0 })).await;
    verifier.renew(revoked.sequence).await;
    // The ask before may still have been worth a moment.
    while verifier.granted().await.nonce < 3 {}
    served.stop().await;
}

// Rotation waits as logout does; who comes back hears of it before it gets a lease.
#[tokio::test]
async fn who_comes_back_hears_what_it_missed_first() {
    let host = Host::new();
    let served = host.start().await;
    let admin = host.token("admin");
    let mut verifier = Verifier::open(&host, &served, "a", 0, "").await;
    let first = verifier.granted().await;
    drop(verifier);
    let asked = RotateRequest { role: "user".to_owned(), grace: None, request_id: "r".to_owned() };
    let rotated = within(host.tokens(&served).rotate(bearer(asked, &admin))).await.unwrap().into_inner();
    let reached = rotated.reached.unwrap();
    assert_eq!((reached.acknowledged, reached.fenced), (0, 1), "its lease was waited out");

    let mut back = Verifier::open(&host, &served, "a", first.sequence, &first.epoch).await;
    let revoked = back.revoked().await;
    assert_eq!(
        (revoked.sequence, revoked.subject),
        (first.sequence + 1, Some(Subject::Role("user".to_owned())))
    );
    back.say(Message::Applied(Applied { sequence: revoked.sequence, streams_closed: 0 })).await;
    let granted = back.granted().await;
    assert!(!granted.reset && granted.sequence == revoked.sequence);

    // A verifier that has forgotten everything has nothing to catch up with.
    let mut new = Verifier::open(&host, &served, "b", 0, "").await;
    assert_eq!(new.granted().await.sequence, revoked.sequence);
    // One whose past is not this log's must forget it.
    let mut foreign = Verifier::open(&host, &served, "c", 99, "another").await;
    assert!(foreign.granted().await.reset);
    served.stop().await;
}

// A restarted auth acknowledges no revocation before one lease has passed since its start.
#[tokio::test]
async fn after_a_restart_unknown_leases_are_waited_out() {
    let host = Host::new();
    let served = host.start().await;
    let session = host.login(&served, "alice").await;
    let first = Instant::now();
    let answer = within(logout(&host, &served, &session.access_token)).await.unwrap().unwrap();
    assert_eq!(answer.reached, Some(Reached::default()), "a first start: nobody can hold a lease");
    assert!(first.elapsed() < PATIENCE);
    let session = host.login(&served, "alice").await;
    served.stop().await;

    let restarted = Instant::now();
    let served = host.start().await;
    within(logout(&host, &served, &session.access_token)).await.unwrap().unwrap();
    assert!(restarted.elapsed() >= LEASE, "{:?}", restarted.elapsed());
    served.stop().await;
}

// DESIGN 14.9: certificate, allow list and internal token are checked at each renewal.
#[tokio::test]
async fn a_renewal_asks_again_who_the_verifier_is() {
    let host = Host::new();
    let served = host.start().await;
    let mut verifier = Verifier::open(&host, &served, "a", 0, "").await;
    verifier.granted().await;
    let other = "another-internal-token-0123456789-0123456789";
    let path = host.folder.path().join("internal-token");
    interlock_kit::secret_file::write(&path, other.as_bytes()).unwrap();
    let ended = within(async {
        loop {
            verifier.renew(0).await;
            match verifier.hear().await {
                Ok(Some(_)) => tokio::task::yield_now().await,
                Ok(None) => panic!("a stream ends with its reason"),
                Err(status) => return status,
            }
        }
    });
    assert_eq!(reason(&ended.await), "INTERNAL_TOKEN_REQUIRED");
    served.stop().await;
}

#[tokio::test]
async fn what_no_verifier_may_say_ends_its_stream() {
    let host = Host::new();
    let served = host.start().await;
    for message in [
        Message::Applied(Applied { sequence: 7, streams_closed: 0 }),
        Message::Renew(Renew { nonce: 1, ..Renew::default() }),
        Message::Hello(Hello::default()),
    ] {
        let mut verifier = Verifier::open(&host, &served, "a", 0, "").await;
        verifier.granted().await;
        verifier.say(message).await;
        assert_eq!(reason(&verifier.hear().await.unwrap_err()), "INVALID_FIELD");
    }
    served.stop().await;
}

#[tokio::test]
async fn streams_end_with_the_server() {
    let host = Host::new();
    let served = host.start().await;
    let mut verifier = Verifier::open(&host, &served, "a", 0, "").await;
    verifier.granted().await;
    let stopping = tokio::spawn(served.stop());
    assert_eq!(reason(&verifier.hear().await.unwrap_err()), "DRAINING");
    within(stopping).await.unwrap();
}

#[tokio::test]
async fn a_verdict_says_who_and_at_which_sequence() {
    let host = Host::new();
    let served = host.start().await;
    let session = host.login(&served, "alice").await;
    let hash = |text: &str| interlock_proto::credential::Credential::parse(text).unwrap().hash().to_vec();
    let mut trust = host.trust(&served);
    let asked = ValidateRequest { credential_sha256: hash(&session.access_token).into() };
    let verdict = trust.validate(service(asked.clone())).await.unwrap().into_inner();
    let principal = verdict.principal.unwrap();
    assert_eq!((principal.owner_id.as_str(), verdict.sequence), ("alice", 0));
    within(logout(&host, &served, &session.access_token)).await.unwrap().unwrap();
    let refused = trust.validate(service(asked)).await.unwrap_err();
    assert_eq!(reason(&refused), "PROVIDER_AUTH_FAILED");
    let admin = ValidateRequest { credential_sha256: hash(&host.token("admin")).into() };
    let verdict = trust.validate(service(admin)).await.unwrap().into_inner();
    assert_eq!(verdict.sequence, 1);
    let short = ValidateRequest { credential_sha256: vec![1; 31].into() };
    assert_eq!(reason(&trust.validate(service(short)).await.unwrap_err()), "INVALID_FIELD");
    served.stop().await;
}
