//! The account of leases, with time passed in: fixed stories, then random ones against the promise itself.

use std::collections::BTreeSet;

use interlock_kit::error::Reason;
use proptest::prelude::*;

use super::*;
use crate::revocation::Effect;

const LEASE: Duration = Duration::from_secs(3);

fn terms() -> Terms {
    Terms { lease: LEASE, verifiers_max: 8, outgoing_max: 16 }
}

fn core(start: Instant) -> Core {
    Core::new(terms(), 0, start, Duration::ZERO)
}

fn hello(who: &str, applied: u64) -> Hello {
    Hello { who: who.into(), applied, anew: false, nonce: 1 }
}

fn s(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn join(core: &mut Core, who: &str, now: Instant) -> Slot {
    let (slot, came) = core.hello(&hello(who, core.newest()), now).expect("room");
    assert!(matches!(came, Came::Granted(_)), "nothing was missed: {came:?}");
    slot
}

fn over(acknowledged: u32, fenced: u32, streams_closed: u64) -> Wait {
    Wait::Over(Reached { acknowledged, fenced, streams_closed })
}

#[test]
fn nobody_to_reach_is_reached_at_once() {
    let t0 = Instant::now();
    let mut core = core(t0);
    core.publish(1, t0);
    assert_eq!(core.wait(1, t0), over(0, 0, 0));
}

#[test]
fn a_wait_ends_with_the_last_acknowledgement() {
    let t0 = Instant::now();
    let mut core = core(t0);
    let (a, b) = (join(&mut core, "a", t0), join(&mut core, "b", t0));
    assert_eq!(core.publish(1, t0), [a, b]);
    core.applied(a, 1, 2, t0).expect("published");
    assert!(matches!(core.wait(1, t0), Wait::Until(_)));
    core.applied(b, 1, 3, t0).expect("published");
    assert_eq!(core.wait(1, t0), over(2, 0, 5));
    core.applied(b, 1, 3, t0).expect("an acknowledgement may come twice");
    assert_eq!(core.wait(1, t0), over(2, 0, 5));
}

#[test]
fn a_silent_verifier_is_waited_out_and_not_renewed() {
    let t0 = Instant::now();
    let mut core = core(t0);
    let a = join(&mut core, "a", t0);
    core.publish(1, t0 + s(1.0));
    assert_eq!(core.renew(a, 2, 0, t0 + s(1.5)), Ok(None), "not past an unacknowledged revocation");
    let end = t0 + fence(LEASE);
    assert_eq!(core.wait(1, t0 + s(2.9)), Wait::Until(end));
    assert_eq!(core.wait(1, end), over(0, 1, 0));
    // It comes to itself: first the revocation, then the lease.
    assert_eq!(core.renew(a, 3, 0, end), Ok(None));
    let granted = core.applied(a, 1, 0, end + s(0.1)).expect("published").expect("nothing is in the way now");
    assert_eq!(granted, Granted { nonce: 3, sequence: 1, reset: false });
}

#[test]
fn a_renewal_asked_before_the_revocation_extends_a_living_lease_only() {
    let t0 = Instant::now();
    let mut core = core(t0);
    let a = join(&mut core, "a", t0);
    core.publish(1, t0);
    assert_eq!(core.renew(a, 2, 0, t0 + s(1.0)), Ok(None));
    core.publish(2, t0 + s(1.1));
    // Everything before the ask is acknowledged, and the lease never lapsed.
    let granted = core.applied(a, 1, 0, t0 + s(1.2)).expect("published");
    assert_eq!(granted, Some(Granted { nonce: 2, sequence: 2, reset: false }));
    assert_eq!(core.wait(2, t0 + s(3.5)), Wait::Until(t0 + s(1.0) + fence(LEASE)));
    // The same after a lapse: the wait for 4 was over at once, so 4 comes first.
    core.publish(3, t0 + s(1.3));
    assert_eq!(core.renew(a, 3, 1, t0 + s(3.9)), Ok(None));
    core.publish(4, t0 + s(4.1));
    assert_eq!(core.wait(4, t0 + s(4.1)), over(0, 0, 0));
    assert_eq!(core.applied(a, 3, 0, t0 + s(4.2)), Ok(None));
    let granted = core.applied(a, 4, 0, t0 + s(4.3)).expect("published");
    assert_eq!(granted, Some(Granted { nonce: 3, sequence: 4, reset: false }));
}

#[test]
fn a_verifier_that_comes_back_gets_what_it_missed_before_its_lease() {
    let t0 = Instant::now();
    let mut core = core(t0);
    let a = join(&mut core, "a", t0);
    core.leave(a, t0 + s(0.5));
    core.publish(1, t0 + s(1.0));
    let (again, came) = core.hello(&hello("a", 0), t0 + s(1.5)).expect("room");
    assert_eq!(came, Came::Behind(Missed { after: 0, upto: 1 }));
    assert_eq!(core.caught_up(again, t0 + s(1.5)), None);
    let granted = core.applied(again, 1, 4, t0 + s(1.6)).expect("published");
    assert_eq!(granted, Some(Granted { nonce: 1, sequence: 1, reset: false }));
    // Its word also ends the wait for its earlier lease.
    assert_eq!(core.wait(1, t0 + s(1.6)), over(1, 0, 4));
}

#[test]
fn a_reset_verifier_does_not_speak_for_its_earlier_lease() {
    let t0 = Instant::now();
    let mut core = core(t0);
    let a = join(&mut core, "a", t0);
    core.publish(1, t0);
    core.leave(a, t0);
    let back = Hello { anew: true, ..hello("a", 0) };
    let (again, came) = core.hello(&back, t0 + s(1.0)).expect("room");
    assert_eq!(came, Came::Granted(Granted { nonce: 1, sequence: 1, reset: true }));
    core.publish(2, t0 + s(1.1));
    core.applied(again, 2, 0, t0 + s(1.2)).expect("published");
    assert_eq!(core.wait(1, t0 + s(1.3)), Wait::Until(t0 + fence(LEASE)));
    assert_eq!(core.wait(1, t0 + fence(LEASE)), over(0, 1, 0));
}

#[test]
fn who_claims_more_than_was_published_must_forget() {
    let t0 = Instant::now();
    let mut core = Core::new(terms(), 5, t0, Duration::ZERO);
    let (_, came) = core.hello(&hello("a", 9), t0).expect("room");
    assert_eq!(came, Came::Granted(Granted { nonce: 1, sequence: 5, reset: true }));
}

#[test]
fn a_restarted_process_ends_no_wait_before_unknown_leases_have() {
    let t0 = Instant::now();
    let mut core = Core::new(terms(), 7, t0, fence(LEASE));
    core.publish(8, t0 + s(0.1));
    assert_eq!(core.wait(8, t0 + s(0.2)), Wait::Until(t0 + fence(LEASE)));
    assert_eq!(core.wait(8, t0 + fence(LEASE)), over(0, 0, 0));
}

#[test]
fn what_no_verifier_may_say_ends_its_stream() {
    let t0 = Instant::now();
    let mut core = core(t0);
    let a = join(&mut core, "a", t0);
    assert_eq!(core.applied(a, 1, 0, t0), Err(Violation::Unpublished));
    assert_eq!(core.renew(a, 1, 0, t0), Err(Violation::Nonce));
    let _newer = join(&mut core, "a", t0);
    assert_eq!(core.renew(a, 2, 0, t0), Err(Violation::Closed));
}

#[test]
fn numbers_that_verifiers_make_up_add_up_to_no_fault() {
    let t0 = Instant::now();
    let mut core = core(t0);
    let (a, b) = (join(&mut core, "a", t0), join(&mut core, "b", t0));
    core.publish(1, t0);
    core.applied(a, 1, u64::MAX, t0).expect("published");
    core.applied(b, 1, u64::MAX, t0).expect("published");
    assert_eq!(core.wait(1, t0), over(2, 0, u64::MAX));
    core.hello(&Hello { nonce: u64::MAX, ..hello("c", u64::MAX) }, t0).expect("as one with an empty cache");
}

#[test]
fn places_are_bounded_and_freed_with_the_lease() {
    let t0 = Instant::now();
    let mut core = core(t0);
    let slots: Vec<_> = (0..8).map(|i| join(&mut core, &format!("v{i}"), t0)).collect();
    let full = core.hello(&hello("x", 0), t0).expect_err("full");
    assert_eq!(full.reason(), Reason::LimitReached);
    core.leave(slots[0], t0);
    assert!(core.hello(&hello("x", 0), t0 + s(1.0)).is_err(), "its lease lives");
    core.hello(&hello("x", 0), t0 + s(4.0)).expect("its lease has ended");
}

fn revocation(sequence: u64) -> Revocation {
    let subject = crate::revocation::Subject::Role(crate::role_token::Role::User);
    Revocation {
        sequence,
        subject,
        issued_before: 1,
        at: interlock_kit::clock::Timestamp::default(),
        effect: Effect::Asks,
    }
}

// I17: a verifier that does not read costs a bounded queue, and then a lease.
#[tokio::test]
async fn a_verifier_that_reads_too_slowly_is_dropped_and_fenced() {
    let terms = Terms { lease: Duration::from_millis(200), verifiers_max: 2, outgoing_max: 3 };
    let barrier = Barrier::new(terms, 0, Duration::ZERO);
    let Seated { seat, missed, mut messages } = barrier.seat(&hello("a", 0)).expect("room");
    assert_eq!(missed, None);
    barrier.published((1..=9).map(revocation));
    let mut read = 0;
    while messages.recv().await.is_some() {
        read += 1;
    }
    assert_eq!(read, 3, "its queue is bounded, and closed when it is full");
    assert_eq!(seat.applied(2, 0), Err(Violation::Closed));
    let reached = barrier.wait_for(9).await;
    assert_eq!(reached, Reached { acknowledged: 0, fenced: 1, streams_closed: 0 });
    assert_eq!(barrier.holders(), 0);
}

// The wait ends with the word of the last one, not with a lease.
#[tokio::test]
async fn waits_wake_up_for_acknowledgements() {
    let terms = Terms { lease: Duration::from_secs(3_600), verifiers_max: 2, outgoing_max: 3 };
    let barrier = Barrier::new(terms, 0, Duration::ZERO);
    let Seated { seat, messages: _kept, .. } = barrier.seat(&hello("a", 0)).expect("room");
    barrier.published([revocation(1)]);
    let waiting = tokio::spawn({
        let barrier = barrier.clone();
        async move { barrier.wait_for(1).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    seat.applied(1, 2).expect("published");
    let reached = waiting.await.expect("no panic");
    assert_eq!(reached, Reached { acknowledged: 1, fenced: 0, streams_closed: 2 });
}

/// One step of a random story with three verifiers.
#[derive(Clone, Debug)]
enum Act {
    Pass(u16),
    Publish,
    Join(usize, bool),
    Renew(usize),
    Read(usize),
    Leave(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0_u16..2000).prop_map(Act::Pass),
        3 => Just(Act::Publish),
        2 => (0_usize..3, any::<bool>()).prop_map(|(v, anew)| Act::Join(v, anew)),
        5 => (0_usize..3).prop_map(Act::Renew),
        6 => (0_usize..3).prop_map(Act::Read),
        1 => (0_usize..3).prop_map(Act::Leave),
    ]
}

/// A verifier as the protocol wants it: reads its messages in order, keeps leases and what it applied.
#[derive(Default)]
struct Twin {
    slot: Option<Slot>,
    inbox: std::collections::VecDeque<Message>,
    applied: u64,
    /// Revocations that its cache must not have slept through.
    stale: BTreeSet<u64>,
    nonce: u64,
    asked: BTreeMap<u64, Instant>,
    lease_end: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Message {
    Revoked(u64),
    Granted(Granted),
}

impl Twin {
    fn admits(&self, now: Instant) -> bool {
        self.lease_end.is_some_and(|end| now < end)
    }

    fn read(&mut self, core: &mut Core, now: Instant) {
        let Some(message) = self.inbox.pop_front() else { return };
        match message {
            Message::Granted(granted) => {
                if granted.reset {
                    self.stale.clear();
                    self.applied = granted.sequence;
                }
                let end = self.asked[&granted.nonce] + LEASE;
                self.lease_end = self.lease_end.max(Some(end));
            }
            Message::Revoked(sequence) => {
                self.stale.remove(&sequence);
                self.applied = self.applied.max(sequence);
                let slot = self.slot.expect("an inbox has a stream");
                if let Ok(Some(granted)) = core.applied(slot, sequence, 0, now) {
                    self.inbox.push_back(Message::Granted(granted));
                }
            }
        }
    }

    fn join(&mut self, who: &str, anew: bool, core: &mut Core, now: Instant) {
        self.inbox.clear();
        self.nonce += 1;
        self.asked.insert(self.nonce, now);
        let hello = Hello { who: who.into(), applied: self.applied, anew, nonce: self.nonce };
        // Without room it stays without a stream.
        let Ok((slot, came)) = core.hello(&hello, now) else {
            self.slot = None;
            return;
        };
        self.slot = Some(slot);
        match came {
            Came::Granted(granted) => self.inbox.push_back(Message::Granted(granted)),
            Came::Behind(missed) => {
                self.inbox.extend((missed.after + 1..=missed.upto).map(Message::Revoked));
                if let Some(granted) = core.caught_up(slot, now) {
                    self.inbox.push_back(Message::Granted(granted));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    // I8: whatever the order of sends, reads, losses and time, once a wait is over nobody who holds a
    // lease still has something cached that the revocation matches. And each wait ends in a lease.
    #[test]
    fn no_verifier_admits_what_a_finished_wait_revoked(story in prop::collection::vec(act(), 1..120)) {
        let names = ["a", "b", "c"];
        let mut now = Instant::now();
        let mut core = core(now);
        let mut twins: [Twin; 3] = Default::default();
        let mut published: Vec<(u64, Instant)> = Vec::new();
        for act in story {
            match act {
                Act::Pass(ms) => now += Duration::from_millis(ms.into()),
                Act::Publish => {
                    let sequence = published.len() as u64 + 1;
                    published.push((sequence, now));
                    let slots = core.publish(sequence, now);
                    for twin in &mut twins {
                        twin.stale.insert(sequence);
                        if twin.slot.is_some_and(|slot| slots.contains(&slot)) {
                            twin.inbox.push_back(Message::Revoked(sequence));
                        }
                    }
                }
                Act::Join(v, anew) => twins[v].join(names[v], anew, &mut core, now),
                Act::Renew(v) => {
                    let twin = &mut twins[v];
                    if let Some(slot) = twin.slot {
                        twin.nonce += 1;
                        twin.asked.insert(twin.nonce, now);
                        if let Ok(Some(granted)) = core.renew(slot, twin.nonce, twin.applied, now) {
                            twin.inbox.push_back(Message::Granted(granted));
                        }
                    }
                }
                Act::Read(v) => twins[v].read(&mut core, now),
                Act::Leave(v) => {
                    if let Some(slot) = twins[v].slot.take() {
                        core.leave(slot, now);
                        twins[v].inbox.clear();
                    }
                }
            }
            for &(sequence, at) in &published {
                match core.wait(sequence, now) {
                    Wait::Over(_) => for twin in &twins {
                        prop_assert!(
                            !(twin.admits(now) && twin.stale.contains(&sequence)),
                            "revocation {sequence} was answered, and a verifier with a lease had not heard of it"
                        );
                    },
                    Wait::Until(end) => {
                        prop_assert!(end > now);
                        prop_assert!(now < at + fence(LEASE), "a wait must end within a lease");
                    }
                }
            }
        }
    }
}

#[test]
fn no_lease_is_granted_beyond_what_the_row_promises_and_what_waited_for_it_is_answered() {
    let t0 = Instant::now();
    let mut core = core(t0);
    core.promise(t0);
    let (a, came) = core.hello(&hello("a", 0), t0).expect("room");
    assert!(
        matches!(came, Came::Behind(Missed { after: 0, upto: 0 })),
        "no lease before the first beat: {came:?}"
    );
    core.promise(t0 + s(6.0));
    assert_eq!(core.answer_all(t0 + s(0.1)), [(a, Granted { nonce: 1, sequence: 0, reset: false })]);
    let late = t0 + s(3.0);
    assert_eq!(core.renew(a, 2, 0, late), Ok(None), "it would end behind the promise");
    assert!(core.answer_all(late).is_empty());
    core.promise(late + s(6.0));
    assert_eq!(core.answer_all(late).len(), 1, "the next beat has come");
}

// I8: the promise was over, others have answered for this program: nobody gets a lease without what they revoked.
#[test]
fn after_a_lapse_of_the_promise_everyone_needs_all_that_was_revoked() {
    let t0 = Instant::now();
    let mut core = core(t0);
    core.promise(t0 + s(60.0));
    let a = join(&mut core, "a", t0);
    // A machine that slept: this clock stood still, the verifier's went on. The ask was sent before the row was followed.
    core.promise(t0);
    assert_eq!(core.renew(a, 2, 0, t0 + s(0.5)), Ok(None));
    core.publish(1, t0 + s(0.6));
    core.lapse(t0 + s(0.6));
    core.promise(t0 + s(60.0));
    assert!(core.answer_all(t0 + s(0.6)).is_empty(), "it has not acknowledged what others did not wait for");
    assert!(core.applied(a, 1, 0, t0 + s(0.7)).expect("published").is_some());
}

#[test]
fn what_is_not_published_yet_has_reached_nobody() {
    let t0 = Instant::now();
    let mut core = core(t0);
    core.promise(t0 + s(60.0));
    let a = join(&mut core, "a", t0);
    assert!(matches!(core.wait(1, t0), Wait::Until(_)), "behind one of another program");
    core.publish(1, t0);
    assert_eq!((core.reached(t0), core.latest(0, 1, 8).len()), (0, 1));
    core.applied(a, 1, 4, t0).expect("published");
    assert_eq!((core.wait(1, t0), core.reached(t0)), (over(1, 0, 4), 1));
    let reached = Reached { acknowledged: 1, fenced: 0, streams_closed: 4 };
    assert_eq!(core.latest(0, 1, 8), [(1, reached)]);
    core.publish(2, t0);
    assert_eq!((core.reached(t0), core.reached(t0 + fence(LEASE))), (1, 2), "acknowledged, or lapsed");
    core.start_over(9, t0);
    assert_eq!((core.reached(t0), core.reached(t0 + fence(LEASE))), (0, 9), "unknown leases first");
}
