//! Ours and bare, alternated: ours, bare, ours, bare, ...

use std::time::Duration;

use serde::Serialize;

use crate::{
    load::{Caller, Side, Slice},
    measured::OURS_AND_BARE,
    plan::Plan,
};

/// Connections, statement caches and allocators are warm after it.
const WARM_UP: Duration = Duration::from_millis(1_500);

/// All slices of a yardstick, in the order they were measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Duel {
    /// Which yardstick.
    pub(crate) name: &'static str,
    /// What stands beside the figures.
    pub(crate) note: String,
    /// What the two columns are.
    pub(crate) sides: [&'static str; 2],
    /// One for each pair.
    pub(crate) ours: Vec<Slice>,
    /// One for each pair.
    pub(crate) bare: Vec<Slice>,
}

impl Duel {
    /// Warms both sides up and measures all pairs.
    pub(crate) async fn fight<A: Caller, B: Caller>(
        name: &'static str,
        plan: &Plan,
        ours: &mut Side<A>,
        bare: &mut Side<B>,
        others_of_ours: &[u32],
    ) -> Self {
        let mut household = vec![std::process::id(), ours.server, bare.server];
        household.extend(others_of_ours);
        household.sort_unstable();
        household.dedup();
        ours.measure(WARM_UP, &household).await;
        bare.measure(WARM_UP, &household).await;
        let mut duel =
            Self { name, note: String::new(), sides: OURS_AND_BARE, ours: Vec::new(), bare: Vec::new() };
        for pair in 1..=plan.pairs {
            let a = ours.measure(plan.slice(), &household).await;
            let b = bare.measure(plan.slice(), &household).await;
            eprintln!(
                "{name} {pair}/{}: ours {:.0}/s, bare {:.0}/s; server CPU {:.1} and {:.1} us",
                plan.pairs, a.per_second, b.per_second, a.server_cpu_us, b.server_cpu_us
            );
            duel.ours.push(a);
            duel.bare.push(b);
        }
        duel
    }

    /// The same, where the other side is somebody else's program.
    pub(crate) fn beside(self, other: &'static str) -> Self {
        Self { sides: [OURS_AND_BARE[0], other], ..self }
    }
}
