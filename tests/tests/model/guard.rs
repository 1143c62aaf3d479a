//! The attach guard, jobs and leases: DESIGN sections 7 and 8.
//!
//! - [`rows`]: what is stored, and the questions that rules ask of it.
//! - [`verbs`]: one verb, one transaction: the rules themselves.
//! - [`walk`]: what can happen, and when: callers, workers, time, crashes.
//! - [`invariants`]: what must hold in each state.
//!
//! The world is as small as it can be for the rules to meet: two owners with a session each; agent 0 shared,
//! agent 1 of the first owner; two projects, open to both; a few submissions, each with its request id; workers
//! that may die, or sleep past their lease and speak up late; a gateway that may crash before a commit or
//! between a commit and its answer.

mod invariants;
mod rows;
mod verbs;
mod walk;

use self::walk::Guard;
use crate::{breaks, holds, long};

/// A rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// None: the model of what is built.
    None,
    /// Attach asks whether the agents are busy before its transaction, not in it.
    CheckThenAct,
    /// Submit reads its session's binding before its transaction.
    StaleBinding,
    /// The guard counts the jobs of the calling session only.
    OwnJobsOnly,
    /// Whoever once held a job may finish it while anybody runs it.
    NoFence,
    /// A cancelled job's worker is not waited for, and its finish is taken all the same.
    EndsTwice,
    /// A lease is over when its holder's own clock says so: that of a dead or stopped holder never does.
    WorkersClock,
    /// Busy is a count beside the jobs, which a lease's end forgets to lower.
    BusyStored,
    /// The answer leaves before the commit.
    AnswerBeforeCommit,
    /// A submission is not remembered by its request id.
    ForgetsRequests,
}

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Submissions that callers make, each as often as it likes.
    pub(crate) requests: u8,
    pub(crate) workers: u8,
    /// Bindings of one session, and attempts of one job, that are looked at.
    pub(crate) epochs: u8,
    pub(crate) fencing: u8,
}

const BOUNDS: Bounds = Bounds { requests: 2, workers: 2, epochs: 2, fencing: 2 };
/// Steps from the beginning: all that should be possible has happened by then.
const DEEP: usize = 16;
const DEEPER: usize = 20;

// I1, I2, I3, I4, I5, I6, I7
#[test]
fn the_guard_holds_in_every_order_of_events() {
    let (deep, least) = if long() { (DEEPER, 1_000_000) } else { (DEEP, 100_000) };
    let unique = holds("guard", Guard { flaw: Flaw::None, bounds: BOUNDS }, deep);
    assert!(unique >= least, "a model of {unique} states has not been walked through: {least} at least");
}

#[test]
fn attach_that_checks_before_its_transaction_moves_a_session_under_its_job() {
    flawed(Flaw::CheckThenAct, invariants::I2);
}

#[test]
fn submit_that_reads_the_binding_before_its_transaction_runs_a_job_elsewhere() {
    flawed(Flaw::StaleBinding, invariants::I3);
}

#[test]
fn a_guard_that_sees_its_own_jobs_only_lets_an_agent_work_in_two_projects() {
    flawed(Flaw::OwnJobsOnly, invariants::I1);
}

#[test]
fn without_a_fence_a_late_worker_ends_what_another_runs() {
    flawed(Flaw::NoFence, invariants::I5);
}

#[test]
fn a_cancel_that_does_not_wait_ends_a_job_twice() {
    flawed(Flaw::EndsTwice, invariants::I5);
}

#[test]
fn a_lease_by_its_holders_clock_keeps_a_session_busy_for_ever() {
    flawed(Flaw::WorkersClock, invariants::I4);
}

#[test]
fn busy_that_is_stored_outlives_its_jobs() {
    flawed(Flaw::BusyStored, invariants::I4);
}

#[test]
fn an_answer_before_the_commit_is_lost_in_a_crash() {
    flawed(Flaw::AnswerBeforeCommit, invariants::I6);
}

#[test]
fn a_forgotten_request_is_done_twice() {
    flawed(Flaw::ForgetsRequests, invariants::I7);
}

fn flawed(flaw: Flaw, invariant: &'static str) {
    breaks(&format!("{flaw:?}"), Guard { flaw, bounds: BOUNDS }, invariant);
}
