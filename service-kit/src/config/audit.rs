//! Section `audit`: how long the audit log is kept, and what else is done for it beside writing it.

use std::time::Duration;

use super::reader::Reader;
use crate::store::audit::Retention;

/// The section.
#[derive(Clone, Copy, Debug)]
pub struct Audit {
    /// `upkeep_every`: how often the ends of chains are read for the other service, those of its chains stored, and old
    /// rows removed.
    pub upkeep_every: Duration,
    /// `age_max`, `rows_max`, `age_min`
    pub retention: Retention,
}

impl Audit {
    /// Reads it.
    pub(super) fn read(r: &mut Reader) -> Self {
        let (s, days) = (Duration::from_secs, |days: u64| Duration::from_secs(86_400 * days));
        let upkeep_every = r.bounded("audit.upkeep_every", s(10), s(1)..=s(600));
        let age_max = r.bounded("audit.age_max", days(400), s(3_600)..=days(36_500));
        let rows_max = r.bounded("audit.rows_max", 50_000_000_u64, 100..=1_000_000_000_000);
        let age_min = r.bounded("audit.age_min", days(7), Duration::ZERO..=days(36_500));
        if age_min > age_max {
            r.mistake("audit.age_min", "not more than audit.age_max");
        }
        Self { upkeep_every, retention: Retention { age_max, rows_max, age_min } }
    }
}
