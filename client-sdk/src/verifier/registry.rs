//! Streams and parked calls, registered under the credential that they stand on.
//!
//! A revocation ends those it matches, and they are counted, before it is acknowledged. Whoever
//! delivers asks [`Registration::delivery`] before each delivery: paused while the lease is lapsed,
//! over once it has ended.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use interlock_proto::auth::v1::Revoked;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Core,
    lease::Stamp,
    log::Standing,
    uses::{Source, Uses},
    verdict::{Asked, CredentialKind, Verdict},
};
use crate::clock::micros;

/// Why a registration has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The credential, or the membership that it entered by, was revoked.
    Revoked,
    /// The credential has expired, and was not renewed.
    Expired,
}

/// Whether something may be delivered, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It may.
    Go,
    /// Not while the lease is lapsed, or until the credential was checked again.
    Paused,
    /// Never again.
    Ended(End),
}

/// Why a registration cannot go on under another credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// The credential is of another principal.
    #[error("the credential is of another principal")]
    OtherPrincipal,
    /// The credential was revoked since it was verified.
    #[error("the credential was revoked meanwhile")]
    Revoked,
    /// The registration is over.
    #[error("the stream has ended")]
    Ended(End),
}

/// A stream or parked call under its credential. Unregistered when dropped.
pub struct Registration {
    core: Arc<Core>,
    id: u64,
    slot: Arc<Slot>,
}

const OPEN: u8 = 0;
const UNCHECKED: u8 = 1;
const REVOKED: u8 = 2;
const EXPIRED: u8 = 3;
const NEVER: u64 = u64::MAX;

struct Slot {
    state: AtomicU8,
    expires_us: AtomicU64,
    changed: Notify,
}

#[derive(Default)]
pub(super) struct Registry(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    next: u64,
    entries: HashMap<u64, Entry>,
    expiries: BTreeSet<(u64, u64)>,
    /// Those that stand on role tokens.
    on_role_tokens: BTreeSet<u64>,
}

struct Entry {
    verdict: Arc<Verdict>,
    project: Option<Box<str>>,
    source: Source,
    slot: Arc<Slot>,
}

impl Registration {
    pub(super) fn new(
        core: &Arc<Core>,
        verdict: &Arc<Verdict>,
        project: Option<&str>,
        source: Source,
    ) -> Self {
        let expires_us = verdict.expires_us();
        let slot = Arc::new(Slot {
            state: AtomicU8::new(OPEN),
            expires_us: AtomicU64::new(expires_us),
            changed: Notify::new(),
        });
        let (project, of_entry) = (project.map(Into::into), Arc::clone(&slot));
        let entry = Entry { verdict: Arc::clone(verdict), project, source, slot: of_entry };
        let id = core.registry.0.lock().add(entry, expires_us);
        // After it is in: a revocation that came before is seen here, one that comes later sees it.
        if core.standing(verdict) != Standing::Good {
            slot.end(REVOKED);
        }
        Self { core: Arc::clone(core), id, slot }
    }

    /// Waits until it has ended.
    pub async fn ended(&self) -> End {
        loop {
            let changed = self.slot.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(end) = self.slot.ended() {
                return end;
            }
            changed.await;
        }
    }

    /// Whether something may be delivered, now. Ask before each delivery.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        // One look at the clocks for both ends.
        let now = Stamp::of(&self.core.clock);
        self.core.expire_if_due(&self.slot, now);
        match (self.slot.ended(), self.slot.state.load(Ordering::Acquire)) {
            (Some(end), _) => Delivery::Ended(end),
            (None, OPEN) if self.core.lease.holds_at(now) => Delivery::Go,
            (None, _) => Delivery::Paused,
        }
    }

    /// Waits while deliveries are paused.
    ///
    /// # Errors
    /// How it has ended.
    pub async fn open(&self) -> Result<(), End> {
        loop {
            let changed = self.slot.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.delivery() {
                Delivery::Go => return Ok(()),
                Delivery::Ended(end) => return Err(end),
                Delivery::Paused => {}
            }
            if self.slot.state.load(Ordering::Acquire) == UNCHECKED {
                changed.await;
                continue;
            }
            tokio::select! {
                () = changed => {}
                () = self.core.lease.held(&self.core.clock) => {}
            }
        }
    }

    /// Goes on under another credential of the same principal: a refreshed one.
    ///
    /// # Errors
    /// [`RenewError`]; the registration stays as it was.
    pub fn renew(&self, verdict: &Arc<Verdict>) -> Result<(), RenewError> {
        if let Delivery::Ended(end) = self.delivery() {
            return Err(RenewError::Ended(end));
        }
        let mut inner = self.core.registry.0.lock();
        // Under the registry's lock: a revocation either was seen here or finds the new verdict.
        if self.core.standing(verdict) != Standing::Good {
            return Err(RenewError::Revoked);
        }
        inner.replace(self.id, verdict)
    }

    /// When the credential that it stands on ends.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        let us = self.slot.expires_us.load(Ordering::Acquire);
        (us != NEVER).then(|| SystemTime::UNIX_EPOCH + Duration::from_micros(us))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.core.registry.0.lock().remove(self.id);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("id", &self.id).field("delivery", &self.delivery()).finish()
    }
}

impl Registry {
    pub(super) fn len(&self) -> usize {
        self.0.lock().entries.len()
    }

    /// Ends what `row` matches. How many that were.
    pub(super) fn end(&self, row: &Revoked) -> u64 {
        let inner = self.0.lock();
        let matched = inner.entries.values().filter(|e| e.verdict.matched_in(row, e.project.as_deref()));
        let ended = matched.filter(|entry| entry.slot.end(REVOKED)).count();
        u64::try_from(ended).unwrap_or(u64::MAX)
    }

    /// What stands on a role token uses it, as long as it is open.
    pub(super) fn note(&self, uses: &Uses, now_ns: u64) {
        let inner = self.0.lock();
        let open = inner.on_role_tokens.iter().filter_map(|id| inner.entries.get(id));
        for entry in open.filter(|entry| entry.slot.ended().is_none()) {
            uses.note(&entry.verdict, entry.source, now_ns);
        }
    }

    /// Ends what has expired at `now`.
    pub(super) fn expire(&self, now: SystemTime) {
        let now = micros(now);
        let mut inner = self.0.lock();
        while let Some(&(at, id)) = inner.expiries.first()
            && at <= now
        {
            inner.expiries.remove(&(at, id));
            if let Some(entry) = inner.entries.get(&id) {
                entry.slot.end(EXPIRED);
            }
        }
    }

    /// Pauses all until what they stand on has been checked again; what that is.
    pub(super) fn doubt_all(&self) -> Vec<Asked> {
        let inner = self.0.lock();
        let mut doubted = BTreeSet::new();
        for entry in inner.entries.values() {
            if entry.slot.turn(OPEN, UNCHECKED) || entry.slot.state.load(Ordering::Acquire) == UNCHECKED {
                doubted.insert(entry.verdict.asked());
            }
        }
        doubted.into_iter().collect()
    }

    /// What was asked was checked again: those on it go on under `verdict`, or end.
    pub(super) fn settle(&self, asked: &Asked, verdict: Option<&Arc<Verdict>>) {
        let mut inner = self.0.lock();
        for entry in inner.entries.values_mut().filter(|e| e.verdict.is_asked(asked)) {
            match verdict {
                Some(verdict) if verdict.same_principal(&entry.verdict) => {
                    entry.verdict = Arc::clone(verdict);
                    entry.slot.turn(UNCHECKED, OPEN);
                }
                _ => {
                    entry.slot.end(REVOKED);
                }
            }
        }
    }
}

impl Inner {
    fn add(&mut self, entry: Entry, expires_us: u64) -> u64 {
        let id = self.next;
        self.next += 1;
        if expires_us != NEVER {
            self.expiries.insert((expires_us, id));
        }
        if entry.verdict.kind == CredentialKind::RoleToken {
            self.on_role_tokens.insert(id);
        }
        self.entries.insert(id, entry);
        id
    }

    fn remove(&mut self, id: u64) {
        self.on_role_tokens.remove(&id);
        if let Some(entry) = self.entries.remove(&id) {
            self.expiries.remove(&(entry.slot.expires_us.load(Ordering::Acquire), id));
        }
    }

    /// Puts `id` under another verdict.
    fn replace(&mut self, id: u64, verdict: &Arc<Verdict>) -> Result<(), RenewError> {
        let entry = self.entries.get_mut(&id).expect("an entry lives as long as its registration");
        if !entry.verdict.same_principal(verdict) {
            return Err(RenewError::OtherPrincipal);
        }
        let expires_us = verdict.expires_us();
        let before = entry.slot.expires_us.swap(expires_us, Ordering::AcqRel);
        entry.verdict = Arc::clone(verdict);
        entry.slot.turn(UNCHECKED, OPEN);
        self.expiries.remove(&(before, id));
        if expires_us != NEVER {
            self.expiries.insert((expires_us, id));
        }
        Ok(())
    }
}

impl Slot {
    fn ended(&self) -> Option<End> {
        match self.state.load(Ordering::Acquire) {
            REVOKED => Some(End::Revoked),
            EXPIRED => Some(End::Expired),
            _ => None,
        }
    }

    /// Ends it, unless it has ended. Whether this did.
    fn end(&self, how: u8) -> bool {
        self.turn(OPEN, how) || self.turn(UNCHECKED, how)
    }

    fn turn(&self, from: u8, to: u8) -> bool {
        let turned = self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if turned {
            self.changed.notify_waiters();
        }
        turned
    }
}

impl Core {
    fn expire_if_due(&self, slot: &Slot, now: Stamp) {
        let expires_us = slot.expires_us.load(Ordering::Acquire);
        if expires_us != NEVER && now.wall_us() >= expires_us {
            slot.end(EXPIRED);
        }
    }
}
