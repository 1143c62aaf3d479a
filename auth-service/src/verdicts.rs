//! Good verdicts, kept from one question to the next.
//!
//! Most questions are about credentials that were asked about a moment ago. What the store said of one
//! is kept with the revocation sequence that it was read at, and used again only while no row of the
//! log since then concerns it: the rule that verifiers go by (DESIGN 6), on this side of the wire.
//! [`Verdicts::revoked`] is called on the store's writer thread before the revoking verb is answered;
//! so when a revocation has returned, what it matches is asked of the store again.
//!
//! Where others use the store, too, this holds only as long as this program may vouch (`vouch.rs`): with the end of that
//! nothing is found, and who has asked the store waits until it may again, and asks once more where something was
//! revoked meanwhile.
//!
//! Only what is good is kept: whoever makes up credentials fills nothing here.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use interlock_kit::clock::Timestamp;
use interlock_proto::credential::Hash;
use parking_lot::RwLock;
use quick_cache::sync::Cache;

use crate::{
    caller::{Principal, Proof},
    revocation::{Revocation, Subject},
    trust::Verdict,
    vouch::Vouch,
};

/// Verdicts that are kept.
const KEPT_MAX: usize = 65_536;
/// Subjects of revocations that are remembered. Beyond, all that was kept before is asked again.
const SUBJECTS_MAX: usize = 16_384;
/// How long a call waits for the right to vouch.
const VOUCH_WITHIN: Duration = Duration::from_secs(2);

/// The verdicts. Shared by all calls.
pub struct Verdicts {
    kept: Cache<Hash, Arc<Kept>>,
    /// The newest row of the log that was heard of.
    heard: AtomicU64,
    subjects: RwLock<Subjects>,
    /// Unset before the first call, and then always.
    vouch: OnceLock<Vouch>,
}

/// One verdict.
#[derive(Debug)]
struct Kept {
    verdict: Verdict,
    /// Held against the log up to here.
    checked: AtomicU64,
}

#[derive(Debug, Default)]
struct Subjects {
    /// What was read up to this row is not known to be good any more.
    forgotten: u64,
    /// The newest row about each.
    newest: HashMap<Subject, u64>,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self {
            kept: Cache::new(KEPT_MAX),
            heard: AtomicU64::new(0),
            subjects: RwLock::default(),
            vouch: OnceLock::new(),
        }
    }
}

impl Verdicts {
    /// Keeps what the store has said.
    pub fn keep(&self, hash: Hash, verdict: &Verdict) {
        let kept = Kept { verdict: verdict.clone(), checked: AtomicU64::new(verdict.sequence) };
        self.kept.insert(hash, Arc::new(kept));
    }

    /// What is known to be good at `now`. `None`: ask the store, which also knows why something is not.
    #[must_use]
    pub fn find(&self, hash: &Hash, now: Timestamp) -> Option<Verdict> {
        if !self.vouches() {
            return None;
        }
        let kept = self.kept.get(hash)?;
        if kept.verdict.principal.expires_at.is_some_and(|end| end.is_over(now)) {
            // A clock that is set back revives nothing.
            self.kept.remove(hash);
            return None;
        }
        let heard = self.heard.load(Ordering::Acquire);
        let checked = kept.checked.load(Ordering::Acquire);
        if checked < heard {
            if self.subjects.read().concern(&kept.verdict.principal, checked) {
                self.kept.remove(hash);
                return None;
            }
            kept.checked.fetch_max(heard, Ordering::AcqRel);
        }
        Some(Verdict { sequence: heard.max(checked), ..kept.verdict.clone() })
    }

    /// From now on what is kept counts as long as this program may vouch, and what was read up to row `newest` does not.
    pub fn begin(&self, vouch: Vouch, newest: u64) {
        // A second call has nothing to begin.
        let _ = self.vouch.set(vouch);
        self.forget(newest);
    }

    /// Nothing that was read before row `newest` is known to be good any more.
    pub fn forget(&self, newest: u64) {
        let mut subjects = self.subjects.write();
        subjects.forgotten = subjects.forgotten.max(newest);
        self.heard.fetch_max(newest, Ordering::AcqRel);
    }

    /// Whether what the store has said may be used now: nothing that concerns it was revoked since it was read, as far
    /// as is known here, and this program may vouch for that. Waits for the latter a while.
    pub async fn stands(&self, verdict: &Verdict) -> bool {
        if let Some(vouch) = self.vouch.get()
            && !vouch.held(VOUCH_WITHIN).await
        {
            return false;
        }
        !self.subjects.read().concern(&verdict.principal, verdict.sequence) && self.vouches()
    }

    fn vouches(&self) -> bool {
        self.vouch.get().is_none_or(Vouch::holds)
    }

    /// Hears of a committed row of the log. From here on nothing it matches is found.
    pub fn revoked(&self, revocation: &Revocation) {
        let mut subjects = self.subjects.write();
        if subjects.newest.len() >= SUBJECTS_MAX {
            subjects.newest.clear();
            subjects.forgotten = self.heard.load(Ordering::Acquire);
        }
        subjects.newest.insert(revocation.subject.clone(), revocation.sequence);
        self.heard.fetch_max(revocation.sequence, Ordering::AcqRel);
    }
}

impl Subjects {
    /// Whether a row after `checked` concerns this principal. A row about a later issue of the same
    /// subject does, too: it is asked once more and found good.
    fn concern(&self, principal: &Principal, checked: u64) -> bool {
        let after = |subject: Subject| self.newest.get(&subject).is_some_and(|newest| *newest > checked);
        let by_proof = match &principal.proof {
            Proof::RoleToken { .. } => after(Subject::Role(principal.role)),
            Proof::OwnerSession { session } => {
                after(Subject::OwnerSession(session.clone())) || after(Subject::EveryOwnerSession)
            }
            Proof::ProjectToken { project, .. } => {
                after(Subject::Membership(principal.owner_id.clone(), project.clone()))
            }
        };
        checked < self.forgotten
            || by_proof
            || after(Subject::Credential(principal.credential_id.clone()))
            || after(Subject::Owner(principal.owner_id.clone()))
    }
}

impl std::fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verdicts").field("kept", &self.kept.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{CredentialId, OwnerId, OwnerSessionId, ProjectId},
        revocation::Effect,
        role_token::Role,
    };

    const HASH: Hash = [7; 32];

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn of(proof: Proof) -> Principal {
        Principal {
            proof,
            credential_id: CredentialId::made("crd_1"),
            owner_id: OwnerId::made("alice"),
            role: Role::User,
            roles: Vec::new(),
            session_root: false,
            issuance: 5,
            expires_at: Some(at(100)),
            elevated_until: None,
            elevated_for: None,
        }
    }

    fn session() -> Principal {
        of(Proof::OwnerSession { session: OwnerSessionId::made("ows_1") })
    }

    fn kept(principal: Principal, sequence: u64) -> Verdicts {
        let verdicts = Verdicts::default();
        verdicts.keep(HASH, &Verdict::new(Arc::new(principal), sequence));
        verdicts
    }

    fn row(sequence: u64, subject: Subject) -> Revocation {
        Revocation { sequence, subject, issued_before: 6, at: at(1), effect: Effect::Asks }
    }

    #[test]
    fn a_good_one_is_found_until_it_expires_and_a_clock_that_goes_back_revives_nothing() {
        let verdicts = kept(session(), 3);
        let found = verdicts.find(&HASH, at(99)).expect("good");
        assert_eq!((found.principal.owner_id.as_str(), found.sequence), ("alice", 3));
        assert_eq!(verdicts.find(&[8; 32], at(1)), None, "another one");
        assert_eq!(verdicts.find(&HASH, at(100)), None, "over at its instant");
        assert_eq!(verdicts.find(&HASH, at(50)), None, "and it stays so");
    }

    // I8
    #[test]
    fn a_row_about_it_ends_it_and_one_about_others_does_not() {
        let alice = || OwnerId::made("alice");
        let project = || ProjectId::made("prj_1");
        let token = || of(Proof::ProjectToken { project: project(), scopes: Vec::new(), agents: Vec::new() });
        let role = || of(Proof::RoleToken { generation: 2 });
        for (principal, subject, ends) in [
            (session(), Subject::Credential(CredentialId::made("crd_1")), true),
            (session(), Subject::OwnerSession(OwnerSessionId::made("ows_1")), true),
            (session(), Subject::Owner(alice()), true),
            (session(), Subject::EveryOwnerSession, true),
            (role(), Subject::EveryOwnerSession, false),
            (token(), Subject::EveryOwnerSession, false),
            (role(), Subject::Role(Role::User), true),
            (token(), Subject::Membership(alice(), project()), true),
            (session(), Subject::Credential(CredentialId::made("crd_2")), false),
            (session(), Subject::OwnerSession(OwnerSessionId::made("ows_2")), false),
            (session(), Subject::Owner(OwnerId::made("bob")), false),
            (session(), Subject::Role(Role::User), false),
            (role(), Subject::Role(Role::Admin), false),
            (session(), Subject::Membership(alice(), project()), false),
            (token(), Subject::Membership(alice(), ProjectId::made("prj_2")), false),
        ] {
            let verdicts = kept(principal, 3);
            verdicts.revoked(&row(4, subject.clone()));
            let found = verdicts.find(&HASH, at(1));
            assert_eq!(found.is_none(), ends, "{subject:?}");
            if let Some(found) = found {
                assert_eq!(found.sequence, 4, "held against it: a verifier need not ask again");
            }
        }
    }

    // I8: the store was read before a revocation, and its answer comes after.
    #[test]
    fn what_was_read_before_a_revocation_is_not_brought_back_by_keeping_it_late() {
        let verdicts = Verdicts::default();
        verdicts.revoked(&row(4, Subject::Owner(OwnerId::made("alice"))));
        verdicts.keep(HASH, &Verdict::new(Arc::new(session()), 3));
        assert_eq!(verdicts.find(&HASH, at(1)), None);
        verdicts.keep(HASH, &Verdict::new(Arc::new(session()), 4));
        assert!(verdicts.find(&HASH, at(1)).is_some(), "read after it");
    }

    // I17
    #[test]
    fn what_cannot_be_remembered_is_asked_again() {
        let verdicts = kept(session(), 0);
        let others = u64::try_from(SUBJECTS_MAX).expect("small");
        for n in 1..=others {
            verdicts.revoked(&row(n, Subject::Owner(OwnerId::made(format!("owner-{n}")))));
            // Not looked at meanwhile.
        }
        assert!(verdicts.subjects.read().newest.len() <= SUBJECTS_MAX);
        verdicts.revoked(&row(others + 1, Subject::Owner(OwnerId::made("one-more"))));
        assert_eq!(verdicts.subjects.read().newest.len(), 1, "bounded");
        assert_eq!(verdicts.find(&HASH, at(1)), None, "nobody knows");
    }
}
