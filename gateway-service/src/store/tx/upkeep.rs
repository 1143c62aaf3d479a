//! What sweeps plan: the ends of what is over.

use interlock_kit::{
    clock::Timestamp,
    store::audit::{Head, Keeping, Outcome, Trim},
};

use super::Tx;
use crate::{
    ending::Place,
    ids::{JobId, SessionId},
    job::Job,
    password::SessionPassword,
    policy::Permit,
    request::RequestKey,
    session::{self, Session},
    store::{
        Stop,
        rows::{Change, EventSize, Log},
    },
};

impl Tx<'_> {
    /// One job, for a sweep.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn any_job(&mut self, permit: &Permit, id: &JobId) -> Result<Option<Job>, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        self.rows().job(id)
    }

    /// One session, gone ones too, with how many of its jobs are in flight and its log, for a sweep.
    ///
    /// # Errors
    /// [`Stop`] of the look-ups.
    pub fn any_session(
        &mut self,
        permit: &Permit,
        id: &SessionId,
    ) -> Result<Option<(Session, u32, Log)>, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        let Some(session) = self.rows().session(id)? else { return Ok(None) };
        let (load, log) = (self.rows().session_load(&session)?, self.rows().log(id)?);
        Ok(Some((session, load, log)))
    }

    /// The password that clients join a session with, for an end.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn any_password(&mut self, permit: &Permit, id: &SessionId) -> Result<Option<SessionPassword>, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        self.rows().password(id)
    }

    /// Auth's log was seen to up to another place. No row is owed: what was seen to has its own.
    pub fn set_followed(&mut self, permit: &Permit, before: Place, after: Place) {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        self.changes.push(Change::SetFollowed(before, after));
    }

    /// The oldest events of a log go.
    pub fn trim_log(&mut self, permit: &Permit, session: &SessionId, events: &[EventSize]) {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        if let (Some(first), Some(last)) = (events.first(), events.last()) {
            let (from, to) = (first.sequence, last.sequence);
            let bytes = events.iter().map(|event| event.bytes).sum();
            self.changes.push(Change::TrimLog { session: session.clone(), from, to, bytes });
        }
    }

    /// Ended jobs of a session go, a bounded part of them. Answers how many.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn drop_jobs(&mut self, permit: &Permit, session: &SessionId, by: Timestamp) -> Result<usize, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        let jobs = self.rows().ended_jobs(session, by, self.limits().sweep_rows_max)?;
        let count = jobs.len();
        if count > 0 {
            self.changes.push(Change::DropJobs(jobs));
        }
        Ok(count)
    }

    /// First answers that are kept no longer go, a bounded part of them. Answers how many.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn drop_requests(&mut self, permit: &Permit) -> Result<usize, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        let keys: Vec<RequestKey> = self.rows().stale_requests(self.now(), self.limits().sweep_rows_max)?;
        let count = keys.len();
        if count > 0 {
            self.changes.push(Change::DropRequests(keys));
        }
        Ok(count)
    }

    /// Ends of another service's audit chains are remembered.
    pub fn remember_heads(&mut self, permit: &Permit, peer: &str, heads: &[Head]) {
        assert!(permit.covers_upkeep(), "heads without a permit");
        let at = self.now();
        self.changes.push(Change::KeepLog(Keeping::Remember {
            peer: peer.to_owned(),
            heads: heads.to_vec(),
            at,
        }));
    }

    /// The oldest rows of the audit log go.
    pub fn trim_audit(&mut self, permit: &Permit, trim: &Trim) {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        self.change(Change::KeepLog(Keeping::Trim(trim.clone())));
        let row = self.entry(Outcome::Done).detailed(trim.detail());
        self.record(row);
    }

    /// What is left of a gone session goes.
    pub fn drop_session(&mut self, permit: &Permit, session: &Session) {
        assert!(
            permit.covers_upkeep() && session.phase == session::Phase::Gone,
            "only what is gone is dropped"
        );
        self.changes.push(Change::DropSession(session.id.clone()));
    }

    /// Whether a session has a file whose contents may be there still, for a sweep.
    ///
    /// # Errors
    /// [`Stop`] of the look-up.
    pub fn has_files(&mut self, permit: &Permit, session: &SessionId) -> Result<bool, Stop> {
        assert!(permit.covers_upkeep(), "a sweep without a permit");
        Ok(!self.rows().files_of(session)?.is_empty())
    }
}
