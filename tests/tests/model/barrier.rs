//! The revocation barrier: DESIGN section 6. One credential, one revocation of it, verifiers that cache under a
//! lease, a network that delays and loses, an auth that may restart and forget what it had granted.
//!
//! The bound on a message's way is none: an answer may arrive after any number of steps, and that is what the
//! two rules on time are for. A lease counts from *before it was asked for*, so that however slow its grant was,
//! the verifier's end is not after auth's; and a verdict that was on its way when its revocation was applied is
//! not used.

use stateright::{Model, Property};

use crate::{breaks, holds, long};

/// A lease lives for so many steps of time, which all clocks count alike (DESIGN section 6: a verifier takes
/// the larger of what its two clocks say, so none of them counts less).
const LEASE: u8 = 2;

/// Further than any way that is not walked twice.
const WHOLE: usize = 1_000;

const I8: &str = "I8: when the revocation has returned, no verifier admits and no stream delivers";
const RETURNS: &str = "a revocation returns within a lease, whoever is silent";

/// A rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// The revocation returns when it is pushed.
    WaitsForNobody,
    /// ... when the first verifier has acknowledged.
    WaitsForTheFirst,
    /// The verifier counts its lease from the arrival of the grant.
    LeaseFromArrival,
    /// A verdict is cached although its revocation was applied while it was on its way.
    CachesSlowVerdicts,
    /// The verifier acknowledges what it has not applied yet.
    AcknowledgesFirst,
    /// The cache is emptied, and streams that stand on it go on.
    ForgetsStreams,
    /// After a restart auth takes leases that it has forgotten for over.
    TrustsItsMemory,
    /// A lease is renewed past a revocation that its holder has not acknowledged.
    RenewsPastRevocation,
}

#[derive(Clone, Copy, Debug)]
struct Barrier {
    flaw: Flaw,
    verifiers: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// Durable, at auth.
    revoked: bool,
    /// The caller of Revoke has its answer.
    returned: bool,
    /// After a restart: for so long leases may live that auth knows nothing of.
    quiet: u8,
    restarted: bool,
    verifiers: Vec<Verifier>,
}

/// A verifier, what auth knows of it, and what is on the way between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Verifier {
    /// How long its lease still lives, as it counts.
    left: u8,
    /// Its cache holds the credential as good.
    cached: bool,
    /// A stream is open on the credential.
    stream: bool,
    /// It has applied the revocation.
    applied: bool,
    /// How long auth thinks that its lease lives.
    granted: u8,
    /// Auth has its acknowledgement.
    acknowledged: bool,
    /// A renewal, by how long ago it was asked; and how far it is.
    renewal: Option<(u8, Way)>,
    validation: Option<Validation>,
    push: bool,
    acknowledgement: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Way {
    ToAuth,
    Back,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Validation {
    ToAuth,
    /// The verdict: good or not.
    Back(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Revoke,
    Return,
    Restart,
    Tick,
    At(usize, Event),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    AskRenewal,
    Grant,
    GrantArrives,
    RenewalIsLost,
    AskVerdict,
    Judge,
    VerdictArrives,
    OpenStream,
    /// Auth pushes, as often as it likes: what is lost is sent again.
    Push,
    PushArrives,
    PushIsLost,
    /// Only where it acknowledged first.
    Apply,
    AcknowledgementArrives,
}

const EVENTS: [Event; 13] = [
    Event::AskRenewal,
    Event::Grant,
    Event::GrantArrives,
    Event::RenewalIsLost,
    Event::AskVerdict,
    Event::Judge,
    Event::VerdictArrives,
    Event::OpenStream,
    Event::Push,
    Event::PushArrives,
    Event::PushIsLost,
    Event::Apply,
    Event::AcknowledgementArrives,
];

impl Verifier {
    /// Admission is the moment that counts: a cached verdict under a lease, or a stream that delivers.
    fn admits(&self) -> bool {
        self.left > 0 && (self.cached || self.stream)
    }

    fn apply(&mut self, flaw: Flaw) {
        self.applied = true;
        self.cached = false;
        self.stream &= flaw == Flaw::ForgetsStreams;
    }

    /// One event at this verifier, or at auth concerning it; `None` where it cannot happen now.
    fn on(&mut self, event: Event, revoked: bool, flaw: Flaw) -> Option<()> {
        match event {
            Event::AskRenewal => self.renewal.is_none().then(|| self.renewal = Some((0, Way::ToAuth))),
            Event::Grant => {
                let Some((age, Way::ToAuth)) = self.renewal else { return None };
                let past = revoked && !self.acknowledged && flaw != Flaw::RenewsPastRevocation;
                (!past).then(|| {
                    self.granted = LEASE;
                    self.renewal = Some((age, Way::Back));
                })
            }
            Event::GrantArrives => {
                let Some((age, Way::Back)) = self.renewal else { return None };
                let asked_ago = if flaw == Flaw::LeaseFromArrival { 0 } else { age };
                self.left = self.left.max(LEASE.saturating_sub(asked_ago));
                self.renewal = None;
                Some(())
            }
            Event::RenewalIsLost => self.renewal.take().map(drop),
            Event::AskVerdict => {
                let asks = self.left > 0 && !self.cached && self.validation.is_none();
                asks.then(|| self.validation = Some(Validation::ToAuth))
            }
            Event::Judge => (self.validation == Some(Validation::ToAuth))
                .then(|| self.validation = Some(Validation::Back(!revoked))),
            Event::VerdictArrives => {
                let Some(Validation::Back(good)) = self.validation else { return None };
                self.validation = None;
                self.cached |= good && (!self.applied || flaw == Flaw::CachesSlowVerdicts);
                Some(())
            }
            Event::OpenStream => (self.left > 0 && self.cached && !self.stream).then(|| self.stream = true),
            Event::Push => (revoked && !self.acknowledged && !self.push).then(|| self.push = true),
            Event::PushArrives => self.push.then(|| {
                (self.push, self.acknowledgement) = (false, true);
                if flaw != Flaw::AcknowledgesFirst {
                    self.apply(flaw);
                }
            }),
            Event::PushIsLost => self.push.then(|| self.push = false),
            Event::Apply => (flaw == Flaw::AcknowledgesFirst && self.acknowledged && !self.applied)
                .then(|| self.apply(flaw)),
            Event::AcknowledgementArrives => {
                self.acknowledgement.then(|| (self.acknowledgement, self.acknowledged) = (false, true))
            }
        }
    }
}

impl Barrier {
    /// Revoke returns when each verifier has acknowledged or its lease has run out.
    fn may_return(&self, world: &World) -> bool {
        let done = |v: &Verifier| v.acknowledged || (v.granted == 0 && world.quiet == 0);
        world.revoked
            && match self.flaw {
                Flaw::WaitsForNobody => true,
                Flaw::WaitsForTheFirst => world.verifiers.iter().any(done),
                _ => world.verifiers.iter().all(done),
            }
    }

    /// From here on every push is lost, and verifiers keep asking for their leases.
    fn returns(&self, world: &World) -> bool {
        let mut world = world.clone();
        for _ in 0..=LEASE {
            for verifier in &mut world.verifiers {
                for event in [Event::AskRenewal, Event::Grant, Event::GrantArrives] {
                    let _ = verifier.on(event, true, self.flaw);
                }
            }
            world.tick();
        }
        !world.revoked || world.returned || self.may_return(&world)
    }
}

impl World {
    fn tick(&mut self) {
        self.quiet = self.quiet.saturating_sub(1);
        for verifier in &mut self.verifiers {
            verifier.left = verifier.left.saturating_sub(1);
            verifier.granted = verifier.granted.saturating_sub(1);
            if let Some((age, _)) = &mut verifier.renewal {
                *age = (*age + 1).min(LEASE);
            }
        }
    }
}

impl Model for Barrier {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let verifiers = vec![Verifier::default(); self.verifiers];
        vec![World { revoked: false, returned: false, quiet: 0, restarted: false, verifiers }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps.extend([Step::Revoke, Step::Return, Step::Restart, Step::Tick]);
        let each = 0..world.verifiers.len();
        steps.extend(each.flat_map(|at| EVENTS.map(|event| Step::At(at, event))));
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Revoke => world.revoked = true,
            Step::Return => world.returned = self.may_return(before),
            // Once is enough. What was on its way to auth is lost; revocations are durable, leases are not.
            Step::Restart if !before.restarted => {
                world.restarted = true;
                world.quiet = if self.flaw == Flaw::TrustsItsMemory { 0 } else { LEASE };
                for verifier in &mut world.verifiers {
                    (verifier.granted, verifier.acknowledged) = (0, false);
                    verifier.acknowledgement = false;
                    verifier.renewal = verifier.renewal.filter(|(_, way)| *way == Way::Back);
                    verifier.validation = verifier.validation.filter(|v| *v != Validation::ToAuth);
                }
            }
            Step::Restart => return None,
            Step::Tick => world.tick(),
            Step::At(at, event) => world.verifiers[at].on(event, before.revoked, self.flaw)?,
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(I8, |_, world: &World| {
                !world.returned || !world.verifiers.iter().any(Verifier::admits)
            }),
            Property::always(RETURNS, |model: &Self, world| model.returns(world)),
            Property::sometimes("a verifier admits", |_, world: &World| {
                world.verifiers.iter().any(Verifier::admits)
            }),
            Property::sometimes("a revocation returns over a silent verifier", |_, world: &World| {
                world.returned && world.verifiers.iter().any(|v| !v.acknowledged && v.cached)
            }),
            Property::sometimes(
                "a good verdict arrives after its revocation was applied",
                |_, world: &World| {
                    world.verifiers.iter().any(|v| v.applied && v.validation == Some(Validation::Back(true)))
                },
            ),
            Property::sometimes("a verifier has its lease again after a revocation", |_, world: &World| {
                world.returned && world.verifiers.iter().any(|v| v.left > 0)
            }),
        ]
    }
}

// I8
#[test]
fn the_barrier_holds_in_every_order_of_events() {
    let unique = holds("barrier", Barrier { flaw: Flaw::None, verifiers: 1 }, WHOLE);
    assert!(unique >= 5_000, "a model of {unique} states has not been walked through");
}

/// Two verifiers whose steps mix in every way: 3,629,009 states when they are walked through to the end.
#[test]
fn the_barrier_holds_for_two_verifiers() {
    let deep = if long() { 17 } else { 13 };
    let unique = holds("barrier of two", Barrier { flaw: Flaw::None, verifiers: 2 }, deep);
    assert!(unique >= 10_000, "a model of {unique} states has not been walked through");
}

#[test]
fn a_revocation_that_waits_for_nobody_returns_too_early() {
    flawed(Flaw::WaitsForNobody, 1, I8);
}

#[test]
fn a_revocation_that_waits_for_the_first_forgets_the_second() {
    flawed(Flaw::WaitsForTheFirst, 2, I8);
}

#[test]
fn a_lease_from_its_arrival_outlives_what_auth_granted() {
    flawed(Flaw::LeaseFromArrival, 1, I8);
}

#[test]
fn a_slow_verdict_brings_back_what_was_revoked() {
    flawed(Flaw::CachesSlowVerdicts, 1, I8);
}

#[test]
fn an_acknowledgement_before_it_is_applied_is_worth_nothing() {
    flawed(Flaw::AcknowledgesFirst, 1, I8);
}

#[test]
fn a_stream_that_is_forgotten_goes_on() {
    flawed(Flaw::ForgetsStreams, 1, I8);
}

#[test]
fn an_auth_that_trusts_its_memory_takes_living_leases_for_over() {
    flawed(Flaw::TrustsItsMemory, 1, I8);
}

#[test]
fn a_lease_that_is_renewed_past_a_revocation_keeps_it_waiting() {
    flawed(Flaw::RenewsPastRevocation, 1, RETURNS);
}

fn flawed(flaw: Flaw, verifiers: usize, invariant: &'static str) {
    breaks(&format!("{flaw:?}"), Barrier { flaw, verifiers }, invariant);
}
