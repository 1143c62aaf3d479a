//! Rotations in two phases over real sockets, with a verifier whose every word is scripted, and over crashes.

#![expect(clippy::unwrap_used, reason = "a test")]

mod served;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use interlock_proto::{
    auth::v1::{
        AbortRotationRequest, BeginRotationRequest, BeginRotationResponse, CommitRotationRequest,
        CommitRotationResponse, HoldLeaseRequest, HoldLeaseResponse, RoleToken,
        RoleTokenServiceGetStatusRequest, TokenUse, WhoAmIRequest,
        hold_lease_request::{Hello, Message, Renew, Use, Uses},
    },
    credential::{Credential, Kind},
};
use served::{Host, Served, bearer, reason, service, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

const WINDOW: Duration = Duration::from_secs(5);

fn host() -> Host {
    Host::new().with("rotation.in_use_window", "5s").with("lease", "30s")
}

async fn begin(host: &Host, served: &Served, by: &str) -> BeginRotationResponse {
    let asked = BeginRotationRequest { role: "user".to_owned(), request_id: "begin".to_owned() };
    host.tokens(served).begin_rotation(bearer(asked, by)).await.unwrap().into_inner()
}

async fn commit(
    host: &Host,
    served: &Served,
    by: &str,
    begun: &BeginRotationResponse,
    force: bool,
) -> Result<CommitRotationResponse, Status> {
    let (role, credential_id) = ("user".to_owned(), begun.credential_id.clone());
    let asked = CommitRotationRequest { role, credential_id, force, request_id: "commit".to_owned() };
    within(host.tokens(served).commit_rotation(bearer(asked, by))).await.map(tonic::Response::into_inner)
}

async fn status(host: &Host, served: &Served, by: &str) -> Vec<RoleToken> {
    let asked = bearer(RoleTokenServiceGetStatusRequest { reveal: false }, by);
    let answer = host.tokens(served).get_status(asked).await.unwrap().into_inner();
    assert!(answer.recoverable);
    answer.tokens.into_iter().filter(|token| token.role == "user").collect()
}

async fn admits(host: &Host, served: &Served, token: &str) -> bool {
    host.identity(served).who_am_i(bearer(WhoAmIRequest {}, token)).await.is_ok()
}

/// A verifier that renews as it is told.
struct Verifier {
    say: mpsc::Sender<HoldLeaseRequest>,
    heard: Streaming<HoldLeaseResponse>,
    nonce: u64,
}

impl Verifier {
    async fn open(host: &Host, served: &Served) -> Self {
        let (say, words) = mpsc::channel(16);
        let verifier_id = "verifier-of-rotations".to_owned();
        let hello = Message::Hello(Hello { verifier_id, nonce: 1, ..Hello::default() });
        say.send(HoldLeaseRequest { message: Some(hello) }).await.unwrap();
        let opened = within(host.trust(served).hold_lease(service(ReceiverStream::new(words)))).await;
        let mut this = Self { say, heard: opened.unwrap().into_inner(), nonce: 1 };
        this.answered().await.unwrap();
        this
    }

    /// What was told has been heard when this returns.
    async fn renew(&mut self, uses: Option<Vec<Use>>) -> Result<(), Status> {
        self.nonce += 1;
        let uses = uses.map(|used| Uses { used });
        let renew = Message::Renew(Renew { nonce: self.nonce, uses, ..Renew::default() });
        self.say.send(HoldLeaseRequest { message: Some(renew) }).await.unwrap();
        self.answered().await
    }

    async fn answered(&mut self) -> Result<(), Status> {
        within(self.heard.message()).await.map(|heard| assert!(heard.is_some(), "it goes on"))
    }
}

fn used(credential_id: &str, source: &str, seconds: i64) -> Use {
    let ago = Some(prost_types::Duration { seconds, nanos: 0 });
    Use { credential_id: credential_id.to_owned(), source: source.to_owned(), ago, noted: 3 }
}

// SW-20, SW-21, SW-22: what a verifier tells is shown by generation, and refuses the commit; also offline.
#[tokio::test]
async fn what_a_verifier_tells_is_shown_and_holds_a_commit_up() {
    let host = host();
    let served = host.start().await;
    let (admin, old) = (host.token("admin"), host.token("user"));
    let begun = begin(&host, &served, &admin).await;
    assert_eq!((begun.role.as_str(), begun.generation), ("user", 2));
    assert!(begun.path.ends_with("auth_tokens.json"));
    assert_eq!(begin(&host, &served, &admin).await, begun, "the same request, the same answer");
    assert!(admits(&host, &served, &begun.token).await && host.token("user") == old);

    let tokens = status(&host, &served, &admin).await;
    assert!(tokens[0].candidate && !tokens[1].candidate && tokens[1].uses.is_empty());
    assert_eq!(tokens[0].credential_id, begun.credential_id);
    let own = &tokens[0].uses[0];
    assert_eq!((own.service.as_str(), own.source.as_str()), ("auth", "127.0.0.1"));
    let mut verifier = Verifier::open(&host, &served).await;
    let id = tokens[1].credential_id.clone();
    let uses = vec![used(&id, "192.0.2.9", 1), used(&id, "2001:db8:7::/64", 400), used("crd_none", "", 0)];
    verifier.renew(Some(uses)).await.unwrap();
    let seen = status(&host, &served, &admin).await.remove(1).uses;
    let of = |used: &TokenUse| (used.service.clone(), used.source.clone(), used.noted);
    let gateway = "spiffe://interlock.test/gateway".to_owned();
    let expected =
        [(gateway.clone(), "192.0.2.9".to_owned(), 3), (gateway.clone(), "2001:db8:7::/64".to_owned(), 3)];
    assert_eq!(seen.iter().map(of).collect::<Vec<_>>(), expected);

    let refused = commit(&host, &served, &admin, &begun, false).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (tonic::Code::FailedPrecondition, "TOKEN_IN_USE")
    );
    assert!(refused.message().contains(&format!("{gateway} from 192.0.2.9")), "{}", refused.message());
    assert!(!refused.message().contains("2001:db8:7"), "that was too long ago: {}", refused.message());
    let row = ("admin".to_owned(), "refused".to_owned(), "TOKEN_IN_USE".to_owned());
    assert_eq!(host.audit("role_token.commit_rotation"), [row]);
    assert!(admits(&host, &served, &old).await);
    drop(verifier);
    served.stop().await;

    let shown = Command::new(env!("CARGO_BIN_EXE_interlock-auth"))
        .env_clear()
        .args(host.flags.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]))
        .args(["auth", "status"])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("user generation 2") && shown.contains(" next since "), "{shown}");
    assert!(shown.contains(&format!("by {gateway} from 192.0.2.9\n")), "{shown}");
    assert!(shown.contains("recoverable true") && !shown.contains(&begun.token), "{shown}");
}

// A verifier that does not tell, as an earlier version of one, may have let the old one in.
#[tokio::test]
async fn a_verifier_that_tells_nothing_counts_as_one_that_uses_it() {
    let host = host();
    let served = host.start().await;
    let admin = host.token("admin");
    let begun = begin(&host, &served, &admin).await;
    let mut verifier = Verifier::open(&host, &served).await;
    let came = Instant::now();
    // Half of the window is borne.
    while came.elapsed() < WINDOW / 2 + Duration::from_millis(100) {
        verifier.renew(None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = commit(&host, &served, &admin, &begun, false).await.unwrap_err();
    assert_eq!(reason(&refused), "TOKEN_IN_USE");
    assert!(refused.message().contains("verifier-of-rotations has not told"), "{}", refused.message());
    verifier.renew(Some(Vec::new())).await.unwrap();
    let committing = commit(&host, &served, &admin, &begun, false);
    let saying = async {
        // The revocation, and then its acknowledgement.
        verifier.answered().await.unwrap();
        let applied =
            interlock_proto::auth::v1::hold_lease_request::Applied { sequence: 1, streams_closed: 0 };
        let message = Some(Message::Applied(applied));
        verifier.say.send(HoldLeaseRequest { message }).await.unwrap();
    };
    let (done, ()) = tokio::join!(committing, saying);
    assert_eq!(done.unwrap().reached.unwrap().acknowledged, 1, "it has told that there were none");
    served.stop().await;
}

#[tokio::test]
async fn what_is_no_use_ends_the_stream_that_tells_it() {
    let host = host();
    let served = host.start().await;
    let many = vec![used("crd_1", "192.0.2.1", 0); 65];
    for (uses, field) in [
        (many, "renew.uses.used:"),
        (vec![used("", "", 0)], "renew.uses.used[0].credential_id "),
        (vec![used("crd_1", "", 0), used("crd_1", "example.com", 0)], "renew.uses.used[1].source:"),
        (vec![used("crd_1", "2001:db8::1/64", 0)], "renew.uses.used[0].source:"),
        (vec![used("crd_1", "", -1)], "renew.uses.used[0].ago:"),
    ] {
        let mut verifier = Verifier::open(&host, &served).await;
        let refused = verifier.renew(Some(uses)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().starts_with(field), "{field} {}", refused.message());
    }
    served.stop().await;
}

// SW-15: killed between the copy and the store, or between the store and the copy, at each step of it.
#[tokio::test]
async fn a_start_finishes_what_a_crash_left_of_a_rotation_in_two_phases() {
    // A restart waits for the leases of the one before.
    let host = host().with("lease", "1s");
    let served = host.start().await;
    let (admin, old) = (host.token("admin"), host.token("user"));
    let begun = begin(&host, &served, &admin).await;
    served.stop().await;
    let copy = host.data("auth_tokens.json");
    let write = |user: &str, pending: &[(&str, &str)], candidates: &[(&str, &str)]| {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(role, token)| ((*role).to_owned(), (*token).into()))
                .collect::<serde_json::Map<_, _>>()
        };
        let tokens = serde_json::json!({"admin": admin, "user": user});
        let text = serde_json::json!({
            "format": 1, "tokens": tokens, "pending": map(pending), "candidates": map(candidates),
        });
        interlock_kit::secret_file::write(&copy, text.to_string().as_bytes()).unwrap();
    };
    let kept = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&copy).unwrap()).unwrap();
    let never_stored = Credential::new(Kind::User, &[3; 32]);
    let next = begun.token.as_str();

    // Begun: the store has it, the copy has it as pending. And a second begin that was refused.
    for (pending, candidates) in [(next, None), (never_stored.expose(), Some(("user", next)))] {
        write(&old, &[("user", pending)], candidates.as_slice());
        let served = host.start().await;
        assert_eq!((kept()["candidates"]["user"].as_str(), kept()["pending"].is_null()), (Some(next), true));
        assert_eq!(host.token("user"), old);
        assert!(admits(&host, &served, next).await && admits(&host, &served, &old).await);
        assert_eq!(status(&host, &served, &admin).await.len(), 2);
        served.stop().await;
    }
    // Committed: the copy still has it as the next one.
    let served = host.start().await;
    commit(&host, &served, &admin, &begun, true).await.unwrap();
    served.stop().await;
    write(&old, &[], &[("user", next)]);
    let served = host.start().await;
    assert_eq!((host.token("user").as_str(), kept()["candidates"].is_null()), (next, true));
    assert!(admits(&host, &served, next).await && !admits(&host, &served, &old).await);
    // Aborted: the copy still has what the store has given up.
    let asked = BeginRotationRequest { role: "user".to_owned(), request_id: "again".to_owned() };
    let other = host.tokens(&served).begin_rotation(bearer(asked, &admin)).await.unwrap().into_inner();
    let (role, credential_id) = ("user".to_owned(), other.credential_id);
    let asked = AbortRotationRequest { role, credential_id, request_id: "abort".to_owned() };
    within(host.tokens(&served).abort_rotation(bearer(asked, &admin))).await.unwrap();
    served.stop().await;
    write(next, &[], &[("user", &other.token)]);
    let served = host.start().await;
    assert_eq!((host.token("user").as_str(), kept()["candidates"].is_null()), (next, true));
    assert!(admits(&host, &served, next).await && !admits(&host, &served, &other.token).await);
    served.stop().await;
}
