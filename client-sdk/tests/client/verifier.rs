//! The verifier's promise: nothing is admitted without a lease, and nothing that an acknowledged
//! revocation matches.

use std::{sync::atomic::Ordering, time::Duration};

use interlock_client::{
    Reason,
    verifier::{
        CredentialKind, Delivery, End, LeaseState, RenewError, Verifier, VerifierOptions, VerifyError, guard,
    },
};
use interlock_proto::auth::v1::{Membership, revoked::Subject};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use crate::{
    connection,
    fake_trust::{LEASE, stage, stage_without_lease},
    soon, until,
};

const REFUSED: VerifyError = VerifyError::Unauthenticated(Reason::ProviderAuthFailed);

#[tokio::test]
async fn a_known_credential_costs_no_call() {
    let s = stage().await;
    let credential = s.owner(1, "ann");
    for _ in 0..100 {
        let verdict = s.verifier.verify(&credential).await.unwrap();
        assert_eq!((verdict.owner_id.as_str(), verdict.administrator()), ("ann", false));
    }
    assert_eq!(s.auth.questions.load(Ordering::SeqCst), 1);
    let unknown = s.owner(2, "bob");
    s.auth.known.lock().unwrap().remove(&unknown.hash());
    assert_eq!(s.verifier.verify(&unknown).await.unwrap_err(), REFUSED);
    assert_eq!(s.verifier.verify(&unknown).await.unwrap_err(), REFUSED);
    assert_eq!(s.auth.questions.load(Ordering::SeqCst), 3, "a no is not kept");
}

#[tokio::test]
async fn many_callers_ask_once() {
    let s = stage().await;
    let credential = s.owner(1, "ann");
    s.auth.answers.forget_permits(usize::MAX >> 4);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (verifier, credential) = (s.verifier.clone(), credential.clone());
            tokio::spawn(async move { verifier.verify(&credential).await })
        })
        .collect();
    until("the question", || s.auth.questions.load(Ordering::SeqCst) == 1).await;
    s.auth.answers.add_permits(100);
    for caller in callers {
        assert!(soon("an answer", caller).await.unwrap().is_ok());
    }
    assert_eq!(s.auth.questions.load(Ordering::SeqCst), 1);
}

// I8, SW-36
#[tokio::test]
async fn a_revocation_is_acknowledged_after_it_has_taken_effect() {
    let s = stage().await;
    let (ann, bob) = (s.owner(1, "ann"), s.owner(2, "bob"));
    let verdict = s.verifier.verify(&ann).await.unwrap();
    let streams: Vec<_> = (0..3).map(|_| s.verifier.register(&verdict)).collect();
    let other = s.verifier.register(&s.verifier.verify(&bob).await.unwrap());

    let sequence = s.auth.revoke(&ann).await;
    let applied = s.auth.acknowledged(sequence).await;
    assert_eq!(applied.streams_closed, 3);
    for stream in &streams {
        assert_eq!(stream.delivery(), Delivery::Ended(End::Revoked));
        assert_eq!(soon("the end", stream.ended()).await, End::Revoked);
    }
    assert_eq!(other.delivery(), Delivery::Go);
    assert_eq!(s.verifier.verify(&ann).await.unwrap_err(), REFUSED);
    assert!(s.verifier.verify(&bob).await.is_ok());
    let late = s.verifier.register(&verdict);
    assert_eq!(late.delivery(), Delivery::Ended(End::Revoked), "registered after its revocation");
}

// I8
#[tokio::test]
async fn a_slow_answer_does_not_bring_back_what_was_revoked() {
    let s = stage().await;
    let credential = s.owner(1, "ann");
    s.auth.answers.forget_permits(usize::MAX >> 4);
    let caller = tokio::spawn({
        let (verifier, credential) = (s.verifier.clone(), credential.clone());
        async move { verifier.verify(&credential).await }
    });
    until("the question", || s.auth.questions.load(Ordering::SeqCst) == 1).await;
    // Auth has read the credential as good, and has not answered yet.
    let sequence = s.auth.revoke(&credential).await;
    s.auth.acknowledged(sequence).await;
    s.auth.answers.add_permits(100);
    assert_eq!(soon("the answer", caller).await.unwrap().unwrap_err(), REFUSED);
    assert_eq!(s.auth.questions.load(Ordering::SeqCst), 2, "asked again, not used");
}

#[tokio::test]
async fn an_earlier_issuance_is_matched_and_a_later_one_is_not() {
    let s = stage().await;
    let (old, new) = (s.owner(1, "ann"), s.owner(2, "ann"));
    let (old_verdict, new_verdict) =
        (s.verifier.verify(&old).await.unwrap(), s.verifier.verify(&new).await.unwrap());
    let (old_stream, new_stream) = (s.verifier.register(&old_verdict), s.verifier.register(&new_verdict));
    let sequence = s.auth.push(Subject::OwnerId("ann".to_owned()), 2).await;
    assert_eq!(s.auth.acknowledged(sequence).await.streams_closed, 1);
    assert_eq!(old_stream.delivery(), Delivery::Ended(End::Revoked));
    assert_eq!(new_stream.delivery(), Delivery::Go);
}

// I8
#[tokio::test]
async fn a_frozen_auth_lapses_the_lease_and_a_thawed_one_gives_it_back() {
    let s = stage().await;
    let credential = s.owner(1, "ann");
    let verdict = s.verifier.verify(&credential).await.unwrap();
    let stream = s.verifier.register(&verdict);
    let mut state = s.verifier.lease_state();
    s.auth.frozen.store(true, Ordering::SeqCst);
    // Renewals that are on their way may still be answered: then the clock moves on once more.
    until("the lapse", || {
        s.clock.advance(LEASE);
        !s.verifier.holds_lease()
    })
    .await;
    assert_eq!(s.verifier.verify(&credential).await.unwrap_err(), VerifyError::AuthUnavailable);
    assert_eq!(stream.delivery(), Delivery::Paused);
    soon("the lapse", state.wait_for(|s| *s == LeaseState::Lapsed)).await.unwrap();

    s.auth.frozen.store(false, Ordering::SeqCst);
    assert_eq!(soon("the lease", stream.open()).await, Ok(()));
    soon("the lease", state.wait_for(|s| *s == LeaseState::Held)).await.unwrap();
    assert!(s.verifier.verify(&credential).await.is_ok());
    assert_eq!(s.auth.questions.load(Ordering::SeqCst), 1, "the cache outlives a lapse");
}

// I8: an answer that took a lease's length to come gives nothing.
#[tokio::test]
async fn a_lease_counts_from_before_it_was_asked_for() {
    let s = stage().await;
    s.auth.frozen.store(true, Ordering::SeqCst);
    let before = s.auth.asked.load(Ordering::SeqCst);
    // The first of these may have been answered still.
    until("asks that wait", || s.auth.asked.load(Ordering::SeqCst) > before + 1).await;
    let asked = s.auth.asked.load(Ordering::SeqCst);
    s.clock.advance(LEASE);
    assert!(!s.verifier.holds_lease());
    s.auth.answer_late(asked).await;
    // What is said on one stream is heard in order: once this is acknowledged, the grant was heard.
    let sequence = s.auth.push(Subject::OwnerId("nobody".to_owned()), 1).await;
    s.auth.acknowledged(sequence).await;
    assert!(!s.verifier.holds_lease(), "it ends a lease's length after the ask, whenever the answer came");
}

#[tokio::test]
async fn a_wall_clock_set_forward_ends_the_lease() {
    let s = stage().await;
    let credential = s.owner(1, "ann");
    s.verifier.verify(&credential).await.unwrap();
    s.auth.frozen.store(true, Ordering::SeqCst);
    until("the lapse", || {
        s.clock.advance_wall(LEASE);
        !s.verifier.holds_lease()
    })
    .await;
    assert_eq!(s.verifier.verify(&credential).await.unwrap_err(), VerifyError::AuthUnavailable);
}

#[tokio::test]
async fn no_lease_no_admission_from_the_start() {
    let s = stage_without_lease(true).await;
    let credential = s.owner(1, "ann");
    assert_eq!(s.verifier.verify(&credential).await.unwrap_err(), VerifyError::AuthUnavailable);
    assert_eq!(s.verifier.may_enter("ann", "prj_1").await.unwrap_err(), VerifyError::AuthUnavailable);
    assert_eq!(s.auth.questions.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_was_missed_while_cut_off_is_applied_before_the_lease_is_back() {
    let s = stage().await;
    let (ann, bob) = (s.owner(1, "ann"), s.owner(2, "bob"));
    let verdict = s.verifier.verify(&ann).await.unwrap();
    s.verifier.verify(&bob).await.unwrap();
    let stream = s.verifier.register(&verdict);
    let first = s.auth.push(Subject::CredentialId("crd_other".to_owned()), 9).await;
    s.auth.acknowledged(first).await;

    s.auth.cut().await;
    s.auth.epoch.store(2, Ordering::SeqCst);
    let missed = s.auth.revoke(&ann).await;
    let applied = s.auth.acknowledged(missed).await;
    assert_eq!(applied.streams_closed, 1);
    assert_eq!(stream.delivery(), Delivery::Ended(End::Revoked));
    let hello = s.auth.hellos.lock().unwrap().last().cloned().unwrap();
    assert_eq!((hello.applied, hello.epoch.as_str()), (first, "epoch-1"));
    soon("the lease", s.verifier.ready()).await;
    assert!(s.verifier.verify(&bob).await.is_ok());
    assert_eq!(s.auth.questions.load(Ordering::SeqCst), 2, "the cache outlives a new epoch");
}

#[tokio::test]
async fn a_reset_drops_the_cache_and_checks_open_streams_again() {
    let s = stage().await;
    let (ann, bob) = (s.owner(1, "ann"), s.owner(2, "bob"));
    let goes_on = s.verifier.register(&s.verifier.verify(&ann).await.unwrap());
    let ends = s.verifier.register(&s.verifier.verify(&bob).await.unwrap());
    // Revoked while nobody was told, and the log has lost the row.
    s.auth.known.lock().unwrap().remove(&bob.hash());
    s.auth.reset.store(true, Ordering::SeqCst);
    s.auth.cut().await;
    assert_eq!(soon("the end", ends.ended()).await, End::Revoked);
    assert_eq!(soon("the check", goes_on.open()).await, Ok(()));
    assert_eq!(s.verifier.verify(&bob).await.unwrap_err(), REFUSED);
}

// I8
#[tokio::test]
async fn a_log_that_went_back_is_not_taken_for_rows_seen_before() {
    let s = stage().await;
    let (ann, bob) = (s.owner(1, "ann"), s.owner(2, "bob"));
    for n in 0..3 {
        let sequence = s.auth.push(Subject::CredentialId(format!("crd_other{n}")), 9).await;
        s.auth.acknowledged(sequence).await;
    }
    let stream = s.verifier.register(&s.verifier.verify(&ann).await.unwrap());
    s.verifier.verify(&bob).await.unwrap();
    s.auth.cut().await;
    s.auth.forget_the_log();
    s.auth.applied.lock().unwrap().clear();
    s.auth.epoch.store(2, Ordering::SeqCst);
    // Its number was another row's before.
    s.auth.revoke(&ann).await;
    assert_eq!(soon("the end", stream.ended()).await, End::Revoked);
    assert_eq!(s.verifier.verify(&ann).await.unwrap_err(), REFUSED);
    soon("the lease", s.verifier.ready()).await;
    assert!(s.verifier.verify(&bob).await.is_ok(), "and who was not revoked goes on");
    let later = s.auth.revoke(&bob).await;
    s.auth.acknowledged(later).await;
    assert_eq!(s.verifier.verify(&bob).await.unwrap_err(), REFUSED);
}

#[tokio::test]
async fn a_dead_connection_is_left_for_another() {
    let s = stage_without_lease(false).await;
    // In front of auth: swallows what comes on its first connection, and passes the later ones on.
    let front = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = front.local_addr().unwrap();
    let behind = s.address;
    tokio::spawn(async move {
        let (_dead, _) = front.accept().await.unwrap();
        loop {
            let (mut near, _) = front.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let verifier = Verifier::start(connection(at), VerifierOptions::named("test"));
    soon("the lease", verifier.ready()).await;
}

#[tokio::test]
async fn expiry_ends_and_renewal_moves_on() {
    let s = stage().await;
    let ends = s.clock.wall() + Duration::from_secs(60);
    let (short, long) = (s.owner_until(1, "ann", Some(ends)), s.owner(2, "ann"));
    let stranger = s.owner(3, "bob");
    let verdict = s.verifier.verify(&short).await.unwrap();
    let (renewed, left) = (s.verifier.register(&verdict), s.verifier.register(&verdict));
    let stranger = s.verifier.verify(&stranger).await.unwrap();
    assert_eq!(renewed.renew(&stranger), Err(RenewError::OtherPrincipal));
    let fresh = s.verifier.verify(&long).await.unwrap();
    assert_eq!(renewed.renew(&fresh), Ok(()));
    assert_eq!(renewed.expires_at(), None);

    s.clock.advance(Duration::from_secs(60));
    assert_eq!(soon("the end", left.ended()).await, End::Expired);
    assert_eq!(left.renew(&fresh), Err(RenewError::Ended(End::Expired)));
    soon("the lease", s.verifier.ready()).await;
    assert_eq!(
        s.verifier.verify(&short).await.unwrap_err(),
        VerifyError::Unauthenticated(Reason::TokenExpired)
    );
    assert_eq!(soon("the lease", renewed.open()).await, Ok(()));
    drop((renewed, left));
    assert_eq!(s.verifier.registered(), 0);
}

#[tokio::test]
async fn memberships_are_kept_and_end() {
    let s = stage().await;
    let pair = || ("ann".to_owned(), "prj_1".to_owned());
    assert_eq!(s.verifier.may_enter("ann", "prj_1").await, Ok(false));
    s.auth.members.lock().unwrap().push(pair());
    for _ in 0..10 {
        assert_eq!(s.verifier.may_enter("ann", "prj_1").await, Ok(true), "a no was not kept");
    }
    assert_eq!(s.auth.membership_questions.load(Ordering::SeqCst), 2);
    let verdict = s.verifier.verify(&s.owner(1, "ann")).await.unwrap();
    let inside = s.verifier.register_in(&verdict, "prj_1");
    let elsewhere = s.verifier.register_in(&verdict, "prj_2");

    s.auth.members.lock().unwrap().clear();
    let (owner_id, project_id) = pair();
    let sequence = s.auth.push(Subject::Membership(Membership { owner_id, project_id }), 0).await;
    assert_eq!(s.auth.acknowledged(sequence).await.streams_closed, 1);
    assert_eq!(inside.delivery(), Delivery::Ended(End::Revoked));
    assert_eq!(elsewhere.delivery(), Delivery::Go);
    assert_eq!(s.verifier.may_enter("ann", "prj_1").await, Ok(false));
}

#[tokio::test]
async fn a_refusal_of_the_verifier_signs_nobody_out() {
    let s = stage().await;
    let credential = s.owner(1, "ann");
    *s.auth.refuse_with.lock().unwrap() = Some(Reason::InternalTokenRequired);
    assert_eq!(s.verifier.verify(&credential).await.unwrap_err(), VerifyError::AuthUnavailable);
}

#[tokio::test]
async fn a_guarded_stream_delivers_nothing_after_its_end() {
    let s = stage().await;
    let credential = s.owner(1, "ann");
    let registration = s.verifier.register(&s.verifier.verify(&credential).await.unwrap());
    let (items, source) = tokio::sync::mpsc::channel(8);
    let mut stream = Box::pin(guard(registration, ReceiverStream::new(source)));
    items.send(Ok(1)).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), 1);
    let sequence = s.auth.revoke(&credential).await;
    s.auth.acknowledged(sequence).await;
    items.send(Ok(2)).await.unwrap();
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(stream.next().await.is_none());
    assert_eq!(s.verifier.registered(), 0);
}

// UA-17, I8: whom a service names is as good as auth's word, and no longer.
#[tokio::test]
async fn an_owner_who_is_named_is_asked_for_once_and_ends_with_whatever_is_revoked_of_them() {
    let s = stage().await;
    let own =
        |owner: &str, role: &str| s.auth.owners.lock().unwrap().insert(owner.to_owned(), role.to_owned());
    own("ann", "user");
    own("root", "admin");
    for _ in 0..10 {
        let verdict = s.verifier.on_behalf_of("ann").await.unwrap();
        assert_eq!((verdict.owner_id.as_str(), verdict.kind), ("ann", CredentialKind::Named));
        assert!(!verdict.administrator() && verdict.credential_id.is_empty());
    }
    assert_eq!(s.auth.owner_questions.load(Ordering::SeqCst), 1, "kept");
    let root = s.verifier.on_behalf_of("root").await.unwrap();
    assert!(root.session_root && !root.administrator(), "its roles are told, and do nothing");
    assert_eq!(s.verifier.on_behalf_of("nobody").await.unwrap_err(), REFUSED);
    assert!(!s.verifier.describe_owner("nobody").await.unwrap().known);

    let ann = s.verifier.on_behalf_of("ann").await.unwrap();
    let (stream, other) = (s.verifier.register(&ann), s.verifier.register(&root));
    s.auth.owners.lock().unwrap().remove("ann");
    // Its number does not matter: no credential of hers is as old.
    let sequence = s.auth.push(Subject::OwnerId("ann".to_owned()), 1).await;
    assert_eq!(s.auth.acknowledged(sequence).await.streams_closed, 1);
    assert_eq!(stream.delivery(), Delivery::Ended(End::Revoked));
    assert_eq!(other.delivery(), Delivery::Go);
    assert_eq!(s.verifier.on_behalf_of("ann").await.unwrap_err(), REFUSED);
    s.verifier.on_behalf_of("root").await.unwrap();
    assert_eq!(s.auth.owner_questions.load(Ordering::SeqCst), 5, "asked again for her alone");
}

#[tokio::test]
async fn who_is_named_is_asked_for_again_after_a_reset_and_not_without_a_lease() {
    let s = stage().await;
    s.auth.owners.lock().unwrap().insert("ann".to_owned(), "user".to_owned());
    s.auth.owners.lock().unwrap().insert("bob".to_owned(), "user".to_owned());
    let (ann, bob) =
        (s.verifier.on_behalf_of("ann").await.unwrap(), s.verifier.on_behalf_of("bob").await.unwrap());
    let (stays, goes) = (s.verifier.register(&ann), s.verifier.register(&bob));
    s.auth.owners.lock().unwrap().remove("bob");
    s.auth.reset.store(true, Ordering::SeqCst);
    s.auth.cut().await;
    assert_eq!(soon("its end", goes.ended()).await, End::Revoked);
    until("it goes on", || stays.delivery() == Delivery::Go).await;

    s.auth.frozen.store(true, Ordering::SeqCst);
    until("the lapse", || {
        s.clock.advance(LEASE);
        !s.verifier.holds_lease()
    })
    .await;
    assert_eq!(s.verifier.on_behalf_of("ann").await.unwrap_err(), VerifyError::AuthUnavailable);
}
