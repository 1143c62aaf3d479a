//! Gate 1 over real sockets: what each listener asks, and that no handler runs on a refusal.

use std::{sync::atomic::Ordering, time::Duration};

use interlock_proto::{
    auth::v1::{
        HoldLeaseRequest, ValidateRequest, WhoAmIRequest, identity_service_client::IdentityServiceClient,
        trust_service_client::TrustServiceClient,
    },
    options::v1::Listener,
};
use tokio_stream as stream;
use tonic::{Code, Status};

use super::fixture::{Fixture, TOKEN, asks, expired, owner, reason, unknown};
use crate::{
    authn::InternalTrust,
    clock::Clock,
    error::Reason,
    pki::{Leaf, Pki},
    serve::ServerLimits,
};

async fn who_am_i(fixture: &Fixture, metadata: &[(&'static str, &str)]) -> Result<String, Status> {
    let mut client = IdentityServiceClient::new(fixture.channel(fixture.public, None).await);
    let answer = client.who_am_i(asks(WhoAmIRequest {}, metadata)).await?;
    Ok(answer.into_inner().display_name)
}

#[tokio::test]
async fn a_known_credential_reaches_the_handler_whatever_the_case_of_its_scheme() {
    let fixture = Fixture::start().await;
    let lower = owner().replace("Bearer", "bearer");
    for text in [owner(), lower] {
        assert_eq!(who_am_i(&fixture, &[("authorization", &text)]).await.expect("admitted"), "alice");
    }
    assert_eq!(fixture.runs(), 2);
}

#[tokio::test]
async fn no_handler_runs_without_a_good_credential() {
    // UA-01
    let fixture = Fixture::start().await;
    let (owner, unknown, expired) = (owner(), unknown(), expired());
    let refused: [(&[(&str, &str)], &str); 6] = [
        (&[], "PROVIDER_AUTH_FAILED"),
        (&[("authorization", "Bearer sesame")], "PROVIDER_AUTH_FAILED"),
        (&[("authorization", "Basic dTpw")], "PROVIDER_AUTH_FAILED"),
        (&[("authorization", &unknown)], "PROVIDER_AUTH_FAILED"),
        (&[("authorization", &owner), ("authorization", &owner)], "PROVIDER_AUTH_FAILED"),
        (&[("authorization", &expired)], "TOKEN_EXPIRED"),
    ];
    for (metadata, expected) in refused {
        let status = who_am_i(&fixture, metadata).await.expect_err("refused");
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, expected));
        if expected == "PROVIDER_AUTH_FAILED" {
            assert_eq!(status.message(), "login required", "one text, whatever was shown");
        }
    }
    assert_eq!(fixture.runs(), 0);
    let refusals = fixture.door.refusals.lock().clone();
    assert_eq!(refusals.len(), 6, "each is recorded before it is answered");
    assert_eq!(refusals[5].2.as_deref(), Some("alice"), "with the principal where it is known");
}

#[tokio::test]
async fn a_public_listener_takes_no_word_for_another() {
    let fixture = Fixture::start().await;
    let owner = owner();
    let metadata = [("authorization", owner.as_str()), ("x-on-behalf-of", "bob")];
    let status = who_am_i(&fixture, &metadata).await.expect_err("refused");
    assert_eq!(reason(&status), "FORBIDDEN");
    let metadata = [("authorization", owner.as_str()), ("x-interlock-project", "../etc")];
    let status = who_am_i(&fixture, &metadata).await.expect_err("refused");
    assert_eq!(reason(&status), "INVALID_FIELD");
    assert_eq!(fixture.runs(), 0);
}

#[tokio::test]
async fn internal_methods_are_not_there_on_the_public_listener() {
    // UA-04: the token alone
    let fixture = Fixture::start().await;
    let gateway = fixture.issue("gateway");
    for certificate in [None, Some(&gateway)] {
        let mut client = TrustServiceClient::new(fixture.channel(fixture.public, certificate).await);
        let request = asks(ValidateRequest::default(), &[("x-internal-token", TOKEN)]);
        let status = client.validate(request).await.expect_err("refused");
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "UNIMPLEMENTED"));
    }
    assert_eq!(fixture.runs(), 0);
}

#[tokio::test]
async fn the_internal_listener_takes_no_connection_without_a_certificate() {
    // UA-04, UA-11: the token alone
    let fixture = Fixture::start().await;
    let mut client = TrustServiceClient::new(fixture.channel(fixture.internal, None).await);
    let request = asks(ValidateRequest::default(), &[("x-internal-token", TOKEN)]);
    client.validate(request).await.expect_err("a TLS alert");
    fixture.until("recorded", |f| !f.door.handshakes.lock().is_empty()).await;
    assert_eq!(fixture.door.handshakes.lock()[0].0, Listener::Internal);
    assert_eq!(fixture.runs(), 0);
}

#[tokio::test]
async fn a_certificate_off_the_allow_list_is_refused_with_any_token() {
    let fixture = Fixture::start().await;
    let stranger = fixture.issue("stranger");
    let mut client = TrustServiceClient::new(fixture.channel(fixture.internal, Some(&stranger)).await);
    for metadata in [&[][..], &[("x-internal-token", TOKEN)]] {
        let status = client.validate(asks(ValidateRequest::default(), metadata)).await.expect_err("refused");
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "FORBIDDEN"));
    }
    assert_eq!(fixture.runs(), 0);
    let recorded = fixture.door.refusals.lock().iter().filter(|r| r.1 == Reason::Forbidden).count();
    assert_eq!(recorded, 2);
}

#[tokio::test]
async fn a_certificate_without_the_token_is_refused_unary_and_streaming() {
    // UA-11, UA-44: the certificate alone
    let fixture = Fixture::start().await;
    let gateway = fixture.issue("gateway");
    let mut client = TrustServiceClient::new(fixture.channel(fixture.internal, Some(&gateway)).await);
    let wrong = "another-0123456789-0123456789-0123456789";
    let twice = [("x-internal-token", TOKEN), ("x-internal-token", TOKEN)];
    for metadata in [&[][..], &[("x-internal-token", wrong)], &twice] {
        let unary = client.validate(asks(ValidateRequest::default(), metadata)).await.expect_err("refused");
        // The stream never sends anything: the refusal does not wait for it.
        let silent = stream::pending::<HoldLeaseRequest>();
        let streaming = client.hold_lease(asks(silent, metadata)).await.expect_err("refused");
        for status in [unary, streaming] {
            assert_eq!(status.code(), Code::Unauthenticated);
            assert_eq!(reason(&status), "INTERNAL_TOKEN_REQUIRED");
        }
    }
    assert_eq!(fixture.runs(), 0);
}

#[tokio::test]
async fn certificate_and_token_together_are_a_service() {
    let fixture = Fixture::start().await;
    let gateway = fixture.issue("gateway");
    let mut client = TrustServiceClient::new(fixture.channel(fixture.internal, Some(&gateway)).await);
    let metadata = [("x-internal-token", TOKEN)];
    let answer = client.validate(asks(ValidateRequest::default(), &metadata)).await.expect("admitted");
    assert_eq!(answer.into_inner().epoch, "gateway");

    let messages = stream::once(HoldLeaseRequest::default());
    let answer = client.hold_lease(asks(messages, &metadata)).await.expect("admitted");
    let status = answer.into_inner().message().await.expect_err("the fake ends so");
    assert_eq!(
        (status.message(), reason(&status).as_str()),
        ("malformed request", "INTERNAL"),
        "in trailers too"
    );
    assert_eq!(fixture.runs(), 2);
}

#[tokio::test]
async fn certificates_that_do_not_hold_end_in_the_handshake() {
    let fixture = Fixture::start().await;
    let now = Clock::system().now();
    let (hour, leaf) = (Duration::from_secs(3_600), Leaf::new("gateway", now));
    let elsewhere = tempfile::tempdir().expect("a folder");
    let domain = fixture.pki.trust_domain().clone();
    let foreign = Pki::create(elsewhere.path(), domain, now).expect("an authority");
    let ended = Leaf { not_before: now.before(3 * hour), validity: hour, ..leaf.clone() };
    let early = Leaf { not_before: now.after(hour), ..leaf.clone() };
    let server_only = Leaf { client: false, ..leaf.clone() };
    let cases = [
        (&fixture.pki, ended, "expired"),
        (&fixture.pki, early, "not yet valid"),
        (&fixture.pki, server_only, "server only"),
        (&foreign, leaf, "foreign"),
    ];
    for (n, (pki, leaf, what)) in cases.into_iter().enumerate() {
        let issued = pki.issue(&leaf).expect("issued");
        let mut client = TrustServiceClient::new(fixture.channel(fixture.internal, Some(&issued)).await);
        let request = asks(ValidateRequest::default(), &[("x-internal-token", TOKEN)]);
        client.validate(request).await.expect_err(what);
        fixture.until(what, |f| f.door.handshakes.lock().len() == n + 1).await;
    }
    assert_eq!(fixture.runs(), 0);
}

#[tokio::test]
async fn a_reloaded_authority_holds_from_the_next_connection_on() {
    let fixture = Fixture::start().await;
    let gateway = fixture.issue("gateway");
    let mut client = TrustServiceClient::new(fixture.channel(fixture.internal, Some(&gateway)).await);
    let request = || asks(ValidateRequest::default(), &[("x-internal-token", TOKEN)]);
    client.validate(request()).await.expect("admitted");
    let trusted = std::fs::read(fixture.pki.ca()).expect("a CA");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let domain = fixture.pki.trust_domain().clone();
    let other = Pki::create(elsewhere.path(), domain, Clock::system().now()).expect("an authority");
    std::fs::copy(other.ca(), fixture.pki.ca()).expect("written");
    assert!(fixture.internal_tls.reload().expect("good files"));
    // The client still knows the server by the authority that it was started with.
    std::fs::write(fixture.pki.ca(), trusted).expect("written");
    let mut late = TrustServiceClient::new(fixture.channel(fixture.internal, Some(&gateway)).await);
    late.validate(request()).await.expect_err("no longer trusted");
}

#[tokio::test]
async fn a_revoked_certificate_ends_in_the_handshake() {
    let fixture = Fixture::start().await;
    let (lost, other) = (fixture.issue("lost"), fixture.issue("gateway"));
    fixture.revoke(&lost);
    assert!(fixture.internal_tls.reload().expect("good files"));
    let request = || asks(ValidateRequest::default(), &[("x-internal-token", TOKEN)]);
    let mut client = TrustServiceClient::new(fixture.channel(fixture.internal, Some(&lost)).await);
    client.validate(request()).await.expect_err("revoked");
    fixture.until("recorded", |f| f.door.handshakes.lock().iter().any(|h| h.1.contains("Revoked"))).await;
    let mut client = TrustServiceClient::new(fixture.channel(fixture.internal, Some(&other)).await);
    client.validate(request()).await.expect("not on the list");
}

#[tokio::test]
async fn an_empty_revocation_list_admits_nobody_anew() {
    let fixture = Fixture::start().await;
    let lost = fixture.issue("lost");
    fixture.revoke(&lost);
    assert!(fixture.internal_tls.reload().expect("good files"));
    for cut in ["", "-----BEGIN X509 CRL-----\n"] {
        std::fs::write(fixture.revocations_file(), cut).expect("written");
        let error = fixture.internal_tls.reload().expect_err("holds nothing").to_string();
        assert!(error.contains("client CRL"), "{error}");
    }
    let mut client = TrustServiceClient::new(fixture.channel(fixture.internal, Some(&lost)).await);
    let request = asks(ValidateRequest::default(), &[("x-internal-token", TOKEN)]);
    client.validate(request).await.expect_err("the last good list stays");
    fixture.until("recorded", |f| f.door.handshakes.lock().iter().any(|h| h.1.contains("Revoked"))).await;
}

#[tokio::test]
async fn a_replaced_allow_list_holds_from_the_next_call_on_and_for_those_that_last() {
    let fixture = Fixture::start().await;
    let gateway = fixture.issue("gateway");
    let mut client = TrustServiceClient::new(fixture.channel(fixture.internal, Some(&gateway)).await);
    let request = || asks(ValidateRequest::default(), &[("x-internal-token", TOKEN)]);
    client.validate(request()).await.expect("admitted");
    let before = fixture.trust.current();
    fixture.trust.replace(InternalTrust { allowed: Vec::new(), ..(*before).clone() });
    let status = client.validate(request()).await.expect_err("on the same connection");
    assert_eq!(reason(&status), "FORBIDDEN");
    fixture.trust.replace((*before).clone());
    client.validate(request()).await.expect("admitted again");
    assert_eq!(fixture.runs(), 2);
}

#[tokio::test]
async fn a_record_that_cannot_be_written_does_not_hold_up_a_shutdown() {
    let limits = ServerLimits { drain: Duration::from_millis(50), ..ServerLimits::auth() };
    let fixture = Fixture::with(limits).await;
    fixture.door.stuck.store(true, Ordering::SeqCst);
    let mut client = TrustServiceClient::new(fixture.channel(fixture.internal, None).await);
    client.validate(ValidateRequest::default()).await.expect_err("a TLS alert");
    fixture.until("told", |f| !f.door.handshakes.lock().is_empty()).await;
    fixture.shutdown.cancel();
    let served = tokio::time::timeout(Duration::from_secs(10), fixture.served).await;
    served.expect("in time").expect("no panic").expect("served");
}
