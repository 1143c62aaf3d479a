//! What a service does of its own when an owner or a membership ends, before auth hears that it has taken effect there.
//!
//! A service may have made something that needs nothing of auth from call to call: the gateway has clients of an owner's
//! sessions. A [`Follower`] ends that. What it is told of is acknowledged when it has seen to it, and not before: so it
//! is a part of the barrier, like the verdicts themselves. While it has not, auth renews no lease past that
//! revocation.
//!
//! Where the service keeps up to where it has seen to them ([`VerifierOptions::followed`](super::VerifierOptions)), it
//! hears after a restart of what it missed. Where auth cannot tell any more, it is told so ([`Follower::missed`]) and
//! looks by itself, with [`Verifier::describe_owner`](super::Verifier::describe_owner) and
//! [`Verifier::may_enter`](super::Verifier::may_enter).

use std::{collections::VecDeque, fmt, pin::Pin, sync::Arc, time::Duration};

use interlock_proto::auth::v1::{Revoked, revoked::Subject};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::retry::Backoff;

/// Revocations that wait for the follower. Beyond it auth is not read on.
const PENDING_MAX: usize = 4_096;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// An owner was removed or deactivated, or has another password.
    Owner(String),
    /// An owner may not enter a project any more.
    Membership {
        /// The owner.
        owner_id: String,
        /// The project.
        project_id: String,
    },
}

/// An end, and its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ending {
    /// What has ended.
    pub of: Ended,
    /// Jobs of the owner's sessions are to be cancelled, too; where a membership has ended, those in the project.
    pub cancel_jobs: bool,
    /// Where in the log.
    pub place: Place,
}

/// A place in the log of revocations. Both numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The sequence.
    pub sequence: u64,
    /// Credentials that were issued before this place have smaller issuance numbers; 0 where that is not known.
    pub issued_before: u64,
}

/// What is done by a service when something ends. Called for one ending after the other, in their order.
pub trait Follower: Send + Sync + 'static {
    /// Ends what was made on it. Whether that is done; if not, it is tried again after a pause. May be called twice for
    /// one ending.
    fn end(self: Arc<Self>, ending: Ending) -> Pin<Box<dyn Future<Output = bool> + Send>>;

    /// Everything up to this place was seen to. Worth keeping now and then; must not wait.
    fn followed(&self, place: Place);

    /// What was revoked before this sequence will not be told one by one: the service has to look by itself. `comparable`
    /// says whether numbers that were kept are still of this log. Must not wait.
    fn missed(&self, before: u64, comparable: bool);
}

impl Ending {
    /// Of a row, where it is one.
    fn of(row: &Revoked) -> Option<Self> {
        let of = match row.subject.as_ref().filter(|_| row.ended)? {
            Subject::OwnerId(owner_id) => Ended::Owner(owner_id.clone()),
            Subject::Membership(m) => {
                Ended::Membership { owner_id: m.owner_id.clone(), project_id: m.project_id.clone() }
            }
            Subject::CredentialId(_)
            | Subject::OwnerSessionId(_)
            | Subject::Role(_)
            | Subject::EveryOwnerSession(_) => return None,
        };
        Some(Self { of, cancel_jobs: row.cancel_jobs, place: place(row) })
    }
}

fn place(row: &Revoked) -> Place {
    Place { sequence: row.sequence, issued_before: row.issued_before }
}

/// Rows that have taken effect in this verifier, on their way through the follower.
pub(super) struct Following {
    follower: Option<Arc<dyn Follower>>,
    /// In their order, with what each has closed here.
    pending: VecDeque<(Revoked, u64)>,
    /// Sees to the first of them.
    working: Option<AbortOnDropHandle<()>>,
    /// Everything up to here was seen to: what auth is told.
    settled: u64,
}

impl Following {
    pub(super) fn new(follower: Option<Arc<dyn Follower>>, followed: u64) -> Self {
        Self { follower, pending: VecDeque::new(), working: None, settled: followed }
    }

    /// Up to where everything was seen to.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Takes a row in. `false`: too many wait.
    pub(super) fn push(&mut self, row: Revoked, closed: u64) -> bool {
        let last = self.pending.back().map_or(self.settled, |(last, _)| last.sequence);
        if row.sequence > last {
            self.pending.push_back((row, closed));
        }
        self.pending.len() <= PENDING_MAX
    }

    /// What can be acknowledged by now, in order: sequences, and what was closed for each.
    pub(super) fn advance(&mut self) -> Vec<(u64, u64)> {
        let mut done = Vec::new();
        while self.working.is_none()
            && let Some((row, closed)) = self.pending.front()
        {
            if let Some((follower, ending)) = self.follower.as_ref().zip(Ending::of(row)) {
                self.working = Some(work(Arc::clone(follower), ending));
                break;
            }
            done.push((row.sequence, *closed));
            self.settle();
        }
        done
    }

    /// Waits until the follower has seen to an ending; for ever where it sees to none.
    pub(super) async fn worked(&mut self) -> Vec<(u64, u64)> {
        let Some(working) = &mut self.working else { return std::future::pending().await };
        let ended = working.await;
        self.working = None;
        let mut done = Vec::new();
        // One that broke off is tried again.
        if ended.is_ok()
            && let Some((row, closed)) = self.pending.front()
        {
            done.push((row.sequence, *closed));
            self.settle();
        }
        done.extend(self.advance());
        done
    }

    fn settle(&mut self) {
        let Some((row, _)) = self.pending.pop_front() else { return };
        self.settled = row.sequence;
        if let Some(follower) = &self.follower {
            follower.followed(place(&row));
        }
    }

    /// What was revoked before `sequence` is not told, but for what was heard since `heard`: the rest of what waits is a
    /// part of that.
    pub(super) fn start_over(&mut self, sequence: u64, comparable: bool, heard: Option<u64>) {
        self.working = None;
        self.pending.retain(|(row, _)| heard.is_some_and(|heard| heard <= row.sequence));
        self.settled = self.pending.front().map_or(sequence, |(row, _)| row.sequence - 1);
        if let Some(follower) = &self.follower {
            follower.missed(sequence, comparable);
        }
    }
}

fn work(follower: Arc<dyn Follower>, ending: Ending) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        while !Arc::clone(&follower).end(ending.clone()).await {
            sleep(backoff.pause(None)).await;
        }
    }))
}

impl fmt::Debug for dyn Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Follower")
    }
}
