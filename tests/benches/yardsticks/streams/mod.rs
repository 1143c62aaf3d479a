//! What session event streams cost: bursts to many cursors, a steady pace to many connections, a reader that
//! stops, and connections on which nothing happens. Both sides speak the same protocol: readers are streams of a
//! session's log, and events are lines of progress that workers write.

mod burst;
mod idle;
mod paced;
mod reader;
mod stage;
mod stuck;
mod voices;

use self::stage::Stage;
use crate::{plan::Plan, report::Report};

/// The yardsticks of this folder.
pub(crate) const NAMES: [&str; 4] = ["burst", "paced", "stuck", "idle"];

/// Cursors of a burst; with `--all` a second time with ten times as many.
const CURSORS: usize = 1_000;

/// Measures those that are wanted, with services of their own: their limits are raised for it.
pub(crate) async fn measure(plan: &Plan, report: &mut Report) {
    if !NAMES.iter().any(|name| plan.wants(name)) {
        return;
    }
    let mut stage = Stage::set().await;
    if plan.wants("burst") {
        report.take(burst::measure(plan, &stage, CURSORS).await);
        if plan.all {
            report.take(burst::measure(plan, &stage, 10 * CURSORS).await);
        }
    }
    if plan.wants("paced") {
        report.take(paced::measure(plan, &stage).await);
    }
    if plan.wants("stuck") {
        report.take(stuck::measure(plan, &stage).await);
    }
    if plan.wants("idle") {
        report.take(idle::measure(plan, &mut stage).await);
    }
}
