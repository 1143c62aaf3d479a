//! What a service ends by itself is a part of the barrier: nothing is acknowledged before it was seen to.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, atomic::Ordering},
};

use interlock_client::verifier::{Ended, Ending, Follower, Place};
use interlock_proto::auth::v1::{Membership, revoked::Subject};
use tokio::sync::Semaphore;

use crate::{
    fake_trust::{Stage, stage_with},
    until,
};

/// Sees to an ending with each permit; what is left of the story is for the tests.
struct Told {
    ended: Mutex<Vec<Ending>>,
    followed: Mutex<Vec<Place>>,
    missed: Mutex<Vec<(u64, bool)>>,
    /// Each try takes one.
    tries: Semaphore,
    /// So many of them fail.
    fails: Mutex<u32>,
}

impl Told {
    fn new(tries: usize) -> Arc<Self> {
        Arc::new(Self {
            ended: Mutex::default(),
            followed: Mutex::default(),
            missed: Mutex::default(),
            tries: Semaphore::new(tries),
            fails: Mutex::default(),
        })
    }

    fn seen_to(&self) -> Vec<u64> {
        self.ended.lock().unwrap().iter().map(|ending| ending.place.sequence).collect()
    }
}

impl Follower for Told {
    fn end(self: Arc<Self>, ending: Ending) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(async move {
            self.tries.acquire().await.unwrap().forget();
            let mut fails = self.fails.lock().unwrap();
            if *fails > 0 {
                *fails -= 1;
                return false;
            }
            self.ended.lock().unwrap().push(ending);
            true
        })
    }

    fn followed(&self, place: Place) {
        self.followed.lock().unwrap().push(place);
    }

    fn missed(&self, before: u64, comparable: bool) {
        self.missed.lock().unwrap().push((before, comparable));
    }
}

async fn stage(told: &Arc<Told>, followed: u64) -> Stage {
    let follower: Arc<dyn Follower> = Arc::clone(told) as _;
    let stage = stage_with(false, |options| {
        options.follower = Some(follower);
        options.followed = followed;
    })
    .await;
    stage.verifier.ready().await;
    stage
}

fn owner(name: &str) -> Subject {
    Subject::OwnerId(name.to_owned())
}

fn acknowledged(s: &Stage, sequence: u64) -> bool {
    s.auth.applied.lock().unwrap().iter().any(|applied| applied.sequence >= sequence)
}

// I8, DESIGN 14.3
#[tokio::test]
async fn an_end_is_acknowledged_when_the_service_has_seen_to_it_and_all_after_it_later() {
    let told = Told::new(0);
    let s = stage(&told, 0).await;
    let ann = s.owner(1, "ann");
    let stream = s.verifier.register(&s.verifier.verify(&ann).await.unwrap());
    let first = s.auth.push(owner("bob"), 1).await;
    s.auth.acknowledged(first).await;
    let end = s.auth.push_ended(owner("ann"), true).await;
    let after = s.auth.push(owner("bob"), 1).await;
    until("the verdict is no longer good", || stream.delivery() != interlock_client::verifier::Delivery::Go)
        .await;
    // Told, and not seen to: two renewals tell no more either.
    let asked = s.auth.asked.load(Ordering::SeqCst);
    until("renewals", || s.auth.asked.load(Ordering::SeqCst) >= asked + 2).await;
    assert!(!acknowledged(&s, end));
    // A try that fails is made again.
    *told.fails.lock().unwrap() = 1;
    told.tries.add_permits(2);
    assert_eq!(s.auth.acknowledged(end).await.streams_closed, 1);
    s.auth.acknowledged(after).await;
    let ended = told.ended.lock().unwrap().clone();
    assert_eq!(ended.len(), 1);
    assert_eq!((&ended[0].of, ended[0].cancel_jobs), (&Ended::Owner("ann".to_owned()), true));
    let order: Vec<u64> = told.followed.lock().unwrap().iter().map(|place| place.sequence).collect();
    assert_eq!(order, [first, end, after]);

    let membership = Membership { owner_id: "ann".to_owned(), project_id: "demo".to_owned() };
    told.tries.add_permits(1);
    let left = s.auth.push_ended(Subject::Membership(membership), false).await;
    s.auth.acknowledged(left).await;
    let of = Ended::Membership { owner_id: "ann".to_owned(), project_id: "demo".to_owned() };
    assert_eq!(told.ended.lock().unwrap().last().unwrap().of, of);
}

#[tokio::test]
async fn what_was_not_seen_to_is_told_again_on_the_next_stream_and_done_once() {
    let told = Told::new(0);
    let s = stage(&told, 0).await;
    let end = s.auth.push_ended(owner("ann"), false).await;
    until("it was heard", || s.verifier.holds_lease()).await;
    s.auth.cut().await;
    until("it came back", || s.auth.hellos.lock().unwrap().len() >= 2).await;
    assert_eq!(s.auth.hellos.lock().unwrap()[1].applied, 0, "what is not seen to is not claimed");
    told.tries.add_permits(5);
    s.auth.acknowledged(end).await;
    assert_eq!(told.seen_to(), [end]);
    assert!(told.missed.lock().unwrap().iter().all(|(before, _)| *before < end), "nothing was missed since");
}

#[tokio::test]
async fn a_service_that_comes_back_hears_of_what_it_missed_and_of_what_it_cannot() {
    let told = Told::new(100);
    let s = stage(&told, 0).await;
    let (first, second) =
        (s.auth.push_ended(owner("ann"), false).await, s.auth.push_ended(owner("bob"), false).await);
    s.auth.acknowledged(second).await;
    assert_eq!(
        told.missed.lock().unwrap()[..],
        [(0, true)],
        "at its first start it has missed all there was"
    );

    // Another life of it, that has kept the first one.
    let again = Told::new(100);
    let follower: Arc<dyn Follower> = Arc::clone(&again) as _;
    let mut options = interlock_client::verifier::VerifierOptions::named("again");
    (options.follower, options.followed) = (Some(follower), first);
    let verifier = interlock_client::verifier::Verifier::start(crate::connection(s.address), options.clone());
    verifier.ready().await;
    until("the second", || again.seen_to() == [second]).await;
    assert!(again.missed.lock().unwrap().is_empty(), "all of it could be told");
    drop(verifier);

    // And one that has kept more than there ever was: numbers of another log.
    s.auth.reset.store(true, Ordering::SeqCst);
    let strange = Told::new(100);
    options.follower = Some(Arc::clone(&strange) as _);
    options.followed = 99;
    let verifier = interlock_client::verifier::Verifier::start(crate::connection(s.address), options);
    verifier.ready().await;
    assert_eq!(strange.missed.lock().unwrap()[..], [(second, false)]);
    assert!(strange.seen_to().is_empty());
}
