//! The written specification, in a form that is walked through: every state that sessions, agents, jobs,
//! leases and crashes can come to within small bounds, and every state of verifiers, leases and a revocation.
//!
//! - [`guard`]: DESIGN sections 7 and 8: attach, submit, claim, finish, cancel, close, lease expiry, the death
//!   of a worker, the crash of the gateway. Shows I1 to I7.
//! - [`barrier`]: DESIGN section 6: validation under a lease, a revocation that returns. Shows I8.
//!
//! A model is no test of the product: `gateway-service/tests/domain/machine.rs` runs the product's verbs against
//! a model of the same rules, and the barrier's tests its own. What this adds is that the *rules* hold in every
//! order of events, and not only in those that a test thought of. Each model takes a `Flaw`: a rule that is left
//! out, in a way that has been seen in real systems. A model that finds no counterexample to a flawed rule has
//! shown nothing for the right one, so each flaw must give one.
//!
//! Bounds are small by default; with `INTERLOCK_LONG` the guard's model walks through more than a million states.

mod barrier;
mod guard;

use stateright::{Checker, HasDiscoveries, Model};

/// Walks through the states of a right model that are at most so many steps away; prints how many there were.
///
/// # Panics
/// With the shortest way to a state that breaks an invariant, or where something that should happen never does.
fn holds<M>(what: &str, model: M, deep: usize) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: std::fmt::Debug + PartialEq + Clone + std::hash::Hash + Send + Sync,
    M::Action: std::fmt::Debug + PartialEq + Clone + Send + Sync,
{
    let began = std::time::Instant::now();
    let checker = model
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_max_depth(deep)
        .spawn_bfs()
        .join();
    let unique = checker.unique_state_count();
    println!(
        "{what}: {unique} states, {} steps, {} deep, {:.1} s",
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    checker.assert_properties();
    unique
}

/// Finds the shortest way in which a flawed model breaks this invariant; prints it.
///
/// # Panics
/// Where it does not: then the model does not see what it is for.
fn breaks<M>(flaw: &str, model: M, invariant: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: std::fmt::Debug + PartialEq + Clone + std::hash::Hash + Send + Sync,
    M::Action: std::fmt::Debug + PartialEq + Clone + Send + Sync,
{
    let wanted = HasDiscoveries::AllOf([invariant].into());
    let checker = model.checker().threads(1).finish_when(wanted).spawn_bfs().join();
    let Some(path) = checker.discovery(invariant) else {
        let found: Vec<_> = checker.discoveries().into_keys().collect();
        panic!("{flaw}: no way to break `{invariant}` in {} states; {found:?}", checker.unique_state_count());
    };
    println!("{flaw} breaks `{invariant}`, after {} states:", checker.unique_state_count());
    for action in path.into_actions() {
        println!("    {action:?}");
    }
}

/// Whether all that is bounded for time is to be done.
fn long() -> bool {
    std::env::var_os("INTERLOCK_LONG").is_some()
}
