//! Programs that share the store: each has a row that it renews with beats.
//!
//! A row promises two things of its program, and others rest on both (`replicas.rs` has the whole protocol):
//!
//! - **reached**: no verifier that holds a lease of this program admits what a row of the revocation log up to this one
//!   matches;
//! - **promise**: no such lease, and no verdict that the program keeps itself, is used for longer than this after a beat
//!   was sent, unless another beat has come since.
//!
//! A beat takes the row of the counters, as every revocation does. So all of them come in one order: a beat that is not
//! seen by who looks after a revocation comes after that, and tells its program of it before the program vouches on.
//!
//! Beats are no change of state that a caller could see, so they leave no audit rows.

use std::time::Duration;

use interlock_kit::{
    clock::Timestamp,
    error::{Error, Reason},
};

use crate::{
    barrier::Reached,
    ids::ReplicaId,
    limits,
    store::{Stop, Tx, Verb},
};

/// One program's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Of this start of the program: its epoch.
    pub id: ReplicaId,
    /// Grows with each beat.
    pub beat: u64,
    /// For how long after the sending of a beat its program may vouch.
    pub promise: Duration,
    /// The last row of the revocation log that has reached all its verifiers, with all before it.
    pub reached: u64,
    /// How many verifiers held a lease of it.
    pub holders: u32,
    /// What the last revocations have reached there, in order; at most [`limits::TOLD_MAX`].
    pub told: Vec<Told>,
    /// All uses of role tokens that it and its verifiers have admitted up to here are stored (`census.rs`).
    pub uses_told_at: Timestamp,
}

/// What one revocation has reached among the verifiers of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub sequence: u64,
    /// What it has reached.
    pub reached: Reached,
}

impl Replica {
    /// What the row says of a revocation that has reached its verifiers.
    #[must_use]
    pub fn told_of(&self, sequence: u64) -> Reached {
        let found = self.told.iter().find(|told| told.sequence == sequence);
        found.map_or_else(Reached::default, |told| told.reached)
    }

    /// The text form of [`Replica::told`].
    #[must_use]
    pub(crate) fn told_text(&self) -> String {
        let rows: Vec<_> = self
            .told
            .iter()
            .map(|Told { sequence, reached: r }| (sequence, r.acknowledged, r.fenced, r.streams_closed))
            .collect();
        serde_json::to_string(&rows).expect("numbers are JSON")
    }

    /// Reads what [`Replica::told_text`] has written; none where something else has.
    #[must_use]
    pub(crate) fn told_from(text: &str) -> Option<Vec<Told>> {
        let rows: Vec<(u64, u32, u32, u64)> = serde_json::from_str(text).ok()?;
        let told = rows.into_iter().map(|(sequence, acknowledged, fenced, streams_closed)| Told {
            sequence,
            reached: Reached { acknowledged, fenced, streams_closed },
        });
        Some(told.collect())
    }
}

/// A beat: renews the row, or adds it; removes rows whose promise is over; looks at all others. By the host only.
#[derive(Clone, Debug)]
pub struct Beat {
    /// Whose.
    pub id: ReplicaId,
    /// See [`Replica::promise`].
    pub promise: Duration,
    /// See [`Replica::reached`]. It never goes back.
    pub reached: u64,
    /// See [`Replica::holders`].
    pub holders: u32,
    /// What to add to [`Replica::told`], in order.
    pub told: Vec<Told>,
    /// Rows that have been waited out at this beat of theirs.
    pub over: Vec<(ReplicaId, u64)>,
    /// How long ago [`Replica::uses_told_at`] was.
    pub uses_told: Duration,
}

/// What a beat finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beaten {
    /// The newest row of the revocation log. All up to it must be published before this beat counts.
    pub newest: u64,
    /// The rows of all others.
    pub others: Vec<Replica>,
}

impl Verb for Beat {
    type Out = Beaten;
    /// Else a full disk would end what verifiers may admit.
    const REVOKES: bool = true;

    fn run(&self, tx: &mut Tx<'_>) -> Result<Beaten, Stop> {
        let permit = tx.authorize_replicas()?;
        let newest = tx.counters()?.revocation;
        let mut others = tx.replicas()?;
        let own = others.iter().position(|replica| replica.id == self.id).map(|at| others.remove(at));
        others.retain(|other| {
            let over = self.over.iter().any(|(id, beat)| *id == other.id && *beat == other.beat);
            if over {
                tx.drop_replica(&permit, other);
            }
            !over
        });
        if own.is_none() && others.len() >= limits::REPLICAS_MAX {
            let full = "too many programs share this store";
            return Err(Error::new(Reason::LimitReached, full).retry_after(self.promise).into());
        }
        let mut told = own.as_ref().map(|own| own.told.clone()).unwrap_or_default();
        told.extend(&self.told);
        told.drain(..told.len().saturating_sub(limits::TOLD_MAX));
        let next = Replica {
            id: self.id.clone(),
            beat: own.as_ref().map_or(0, |own| own.beat) + 1,
            promise: self.promise,
            reached: own.as_ref().map_or(0, |own| own.reached).max(self.reached),
            holders: self.holders,
            told,
            uses_told_at: tx.now().before(self.uses_told),
        };
        tx.put_replica(&permit, own.as_ref(), next);
        Ok(Beaten { newest, others })
    }
}
