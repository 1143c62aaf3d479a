//! A rotation in two phases at the real programs: the gateway tells who uses the old token, and it ends everywhere at once.

use interlock_client::{Auth, Reason, StreamFrom, StreamItem, TokenUse};
use interlock_tests::{Pair, Setup, eventually, within};

/// Uses of the role `user`'s present token, or of the next one, that the gateway has told.
async fn told(admin: &Auth, candidate: bool) -> Vec<TokenUse> {
    let status = admin.role_tokens(false).await.expect("admin may");
    let found = status.tokens.into_iter().find(|token| token.role == "user" && token.candidate == candidate);
    let uses = found.map(|token| token.uses).unwrap_or_default();
    uses.into_iter().filter(|used| used.service.ends_with("/gateway")).collect()
}

// SW-21, SW-22, SW-36: census, refusal, commit; what stands on the next token goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waits_for_the_last_user_of_the_old_token_and_ends_it_everywhere() {
    let pair = Pair::start_with(Setup::default().auth("rotation.in_use_window", "5s")).await;
    let (admin, old) = (pair.sdk_auth_as(&pair.admin()), pair.user());
    let by_old = pair.sdk_gateway(&old);
    let session = by_old.sessions().create("").await.expect("a session").session.session_id;
    let begun = admin.begin_rotation("user").await.expect("begun");
    let by_next = pair.sdk_gateway(&begun.token);
    let mut stream = by_next.sessions().stream(&session, StreamFrom::Start);
    let first = within("the first event", stream.next()).await;
    assert!(matches!(first, Some(Ok(StreamItem::Event(_)))), "{first:?}");
    let used = eventually("a use that the gateway has told", async || told(&admin, false).await.pop()).await;
    assert_eq!((used.source.as_str(), used.service.starts_with("spiffe://")), ("127.0.0.1", true));
    assert!(used.noted > 0 && used.last_used_at.is_some());
    eventually("the next one's stream", async || told(&admin, true).await.pop()).await;

    let refused = admin.commit_rotation("user", &begun.credential_id, false).await.expect_err("in use");
    assert_eq!(refused.reason(), Some(Reason::TokenInUse));
    assert!(refused.message().contains("/gateway from 127.0.0.1"), "{refused}");
    assert_eq!(refused.preconditions()[0].subject, "user/1");
    assert!(refused.retry_after().is_some());
    by_old.sessions().list().await.expect("a refused commit ends nothing");

    // Nobody calls with it any more, and yet a stream that stands on it uses it.
    let mut held = by_old.sessions().stream(&session, StreamFrom::Start);
    within("the first event", held.next()).await.expect("open").expect("an event");
    let opened = told(&admin, false).await.pop().and_then(|used| used.last_used_at).expect("used");
    let later = async || {
        let last = told(&admin, false).await.pop()?.last_used_at?;
        (last.duration_since(opened).ok()?.as_secs() >= 4).then_some(())
    };
    eventually("an open stream is told of again and again", later).await;
    let refused = admin.commit_rotation("user", &begun.credential_id, false).await.expect_err("in use");
    assert_eq!(refused.reason(), Some(Reason::TokenInUse));
    drop(held);
    let commit = async || match admin.commit_rotation("user", &begun.credential_id, false).await {
        Ok(ended) => Some(ended),
        Err(error) => {
            assert_eq!(error.reason(), Some(Reason::TokenInUse), "{error}");
            None
        }
    };
    let ended = eventually("a window in which nobody used it", commit).await;
    assert_eq!((ended.generation, ended.reached.map(|reached| reached.streams_closed)), (2, Some(0)));
    let refused = by_old.sessions().list().await.expect_err("it is dead at the gateway");
    assert_eq!(refused.reason(), Some(Reason::ProviderAuthFailed));
    pair.sdk_auth_as(&old).whoami().await.expect_err("and at auth");
    assert_eq!(pair.user(), begun.token, "the recoverable copy has the new one");
    // The stream on the new one was not cut: it goes on to what happens now.
    by_next.sessions().close(&session, true).await.expect("its owner may");
    let next = async {
        loop {
            match stream.next().await {
                Some(Ok(StreamItem::Event(event))) => return event,
                Some(Ok(_)) => {}
                ended => panic!("it was cut: {ended:?}"),
            }
        }
    };
    assert_eq!(within("an event on the stream", next).await.sequence, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_commit_and_an_abort_end_what_is_in_use() {
    let pair = Pair::start().await;
    let (admin, old) = (pair.sdk_auth_as(&pair.admin()), pair.user());
    let by_old = pair.sdk_gateway(&old);
    by_old.sessions().list().await.expect("good");
    let begun = admin.begin_rotation("user").await.expect("begun");
    let by_next = pair.sdk_gateway(&begun.token);
    by_next.sessions().list().await.expect("good");
    let reached = admin.abort_rotation("user", &begun.credential_id).await.expect("aborted").reached;
    assert!(reached.is_some_and(|reached| reached.acknowledged + reached.fenced >= 1));
    let refused = by_next.sessions().list().await.expect_err("it is dead");
    assert_eq!(refused.reason(), Some(Reason::ProviderAuthFailed));
    by_old.sessions().list().await.expect("the present one stays");
    assert_eq!(pair.user(), old);

    let begun = admin.begin_rotation("user").await.expect("begun");
    let used = async || told(&admin, false).await.pop();
    eventually("a use of the old one", used).await;
    admin.commit_rotation("user", &begun.credential_id, false).await.expect_err("in use");
    admin.commit_rotation("user", &begun.credential_id, true).await.expect("forced");
    let refused = by_old.sessions().list().await.expect_err("it is dead");
    assert_eq!(refused.reason(), Some(Reason::ProviderAuthFailed));
    pair.sdk_gateway(&begun.token).sessions().list().await.expect("the new one is good");
}
