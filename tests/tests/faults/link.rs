//! The link between gateway and auth, broken in every way, with a revocation made meanwhile.

use std::time::{Duration, Instant};

use interlock_tests::{
    Link, Pair, eventually,
    history::Callers,
    link::{Mode, Way},
};

use crate::{LEASE, Victim, rounds, seed, shift::Shift, short};

/// Callers on each credential.
const CALLERS: usize = 2;
/// New connections in a second while the link is broken, at most: pauses grow to between half a second and one.
const CONNECTIONS_PER_S: usize = 4;
/// ... and before they have grown.
const FIRST_CONNECTIONS: usize = 12;
const ROUNDS_LONG: usize = 5;
/// Bits that are flipped at least.
const FLIPS: usize = 3;

/// How the link breaks.
#[derive(Clone, Copy)]
enum Break {
    /// Its connections are reset, and new ones get through.
    Cut,
    /// Like this, until it is healed.
    As(Mode),
    /// The same, and open connections are reset at first: what happens, happens to new ones.
    CutAs(Mode),
}

/// What a broken link means for the lease.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lease {
    /// Nothing is heard over it, and it lapses.
    LapsesAtOnce,
    /// It lapses while the link is broken.
    Lapses,
    /// It may lapse or not.
    MayLapse,
}

impl Break {
    fn of(self, link: &Link) {
        match self {
            Self::Cut => link.cut(),
            Self::As(mode) => link.turn(mode),
            Self::CutAs(mode) => {
                link.turn(mode);
                link.cut();
            }
        }
    }
}

/// A name, how the link breaks, and what that means.
type Case = (&'static str, Break, Lease);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_or_refused_fences_and_heals() {
    let cases: [Case; 3] = [
        ("cut", Break::Cut, Lease::MayLapse),
        ("refused", Break::As(Mode::Refuse), Lease::LapsesAtOnce),
        ("slow", Break::As(Mode::Slow(Duration::from_millis(20))), Lease::MayLapse),
    ];
    ride_out(&cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_link_fences_and_heals() {
    let lost = |way| Break::As(Mode::Swallow(way));
    let cases: [Case; 4] = [
        ("half-open to auth", lost(Way::ToAuth), Lease::LapsesAtOnce),
        ("half-open to the gateway", lost(Way::ToGateway), Lease::LapsesAtOnce),
        ("silent both ways", lost(Way::Both), Lease::LapsesAtOnce),
        ("stalled", Break::As(Mode::Stall), Lease::LapsesAtOnce),
    ];
    ride_out(&cases).await;
}

// TLS catches each flip and each record that is cut short: the connection ends, and another one is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_flips_bits_ends_connections_and_nothing_else() {
    let cases: [Case; 3] = [
        ("flipped bits", Break::As(Mode::Flip { every: 400 }), Lease::Lapses),
        ("few flipped bits", Break::CutAs(Mode::Flip { every: 3_000 }), Lease::MayLapse),
        ("records cut short", Break::As(Mode::Truncate { after: 400 }), Lease::Lapses),
    ];
    ride_out(&cases).await;
}

/// The link breaks, a revocation is made, the link heals; and what must hold all the time.
async fn ride_out(cases: &[Case]) {
    let seed = seed();
    let (pair, link) = Pair::start_linked(short(), seed).await;
    let alice = pair.login("alice").await;
    let shift = Shift::begin(&pair, &alice).await;
    let all = (0..rounds(1, ROUNDS_LONG)).flat_map(|_| cases);
    for (round, &(name, how, lease)) in all.enumerate() {
        let victim = Victim::sign_in(&pair, &format!("w{}", round % 6)).await;
        let credentials = [("alice", &alice.access_token), ("victim", &victim.owner.access_token)];
        let callers = Callers::begin(&pair, &credentials, CALLERS).await;

        let (before, flipped, broke) = (link.connections(), link.flipped(), Instant::now());
        how.of(&link);
        let token = &victim.owner.access_token;
        let reached = pair.sdk_auth().logout(token).await.expect("signed out").expect("it was alive");
        let returned = Instant::now();
        if lease == Lease::LapsesAtOnce {
            assert_eq!(reached.acknowledged, 0, "nothing can have been heard: {reached:?}");
        }
        if lease != Lease::MayLapse {
            callers.answered("alice", "AUTH_UNAVAILABLE", Duration::ZERO).await;
            eventually("readiness that tells the truth", async || {
                let (code, why) = Pair::readyz(&pair.gateway).await;
                (code == 503 && why.contains("auth")).then_some(())
            })
            .await;
            let (code, why) = Pair::readyz(&pair.auth).await;
            assert_eq!(code, 200, "auth is well: {why}");
        } else {
            shift.goes_on().await;
        }
        if matches!(how, Break::As(Mode::Flip { .. }) | Break::CutAs(_)) {
            eventually("a few flipped bits", async || (link.flipped() >= flipped + FLIPS).then_some(()))
                .await;
        }
        let connections = link.connections() - before;
        let broken_for = broke.elapsed();
        let bound = FIRST_CONNECTIONS + CONNECTIONS_PER_S * (broken_for.as_secs() as usize + 1);
        assert!(connections <= bound, "a storm of {connections} connections in {broken_for:?}");

        link.turn(Mode::Pass);
        let healed = Instant::now();
        let healthy = callers.answered("alice", "OK", Duration::ZERO).await - healed;
        eventually("readiness", async || (Pair::readyz(&pair.gateway).await.0 == 200).then_some(())).await;
        callers.answered("victim", "PROVIDER_AUTH_FAILED", Duration::ZERO).await;
        victim.sees_its_end().await;
        shift.goes_on().await;

        let history = callers.end().await;
        let after = history.none_admitted_after("victim", returned);
        let alices = history.only("alice", &["OK", "AUTH_UNAVAILABLE"]);
        history.only("victim", &["OK", "AUTH_UNAVAILABLE", "PROVIDER_AUTH_FAILED"]);
        println!(
            "{name}: revocation returned after {} ms on leases of {} s ({} acknowledged, {} fenced); {after} calls after it, 0 \
             admitted; alice {alices:?}, signed out 0; {connections} connections in {:.1} s; healthy {} ms after healing",
            (returned - broke).as_millis(),
            LEASE.as_secs(),
            reached.acknowledged,
            reached.fenced,
            broken_for.as_secs_f64(),
            healthy.as_millis()
        );
    }
    let (jobs, attempts) = shift.end(&pair).await;
    // DESIGN 14.11: an outage of auth runs no job twice.
    assert_eq!(attempts as usize, jobs, "each job ran once");
    println!("link: {jobs} jobs, each run once, ended once, told once; {} bits flipped", link.flipped());
}
