//! The streams and parked calls that are open: how many of whom, and which one a renewal means.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::SystemTime,
};

use interlock_client::verifier::{CredentialKind, Verdict};
use interlock_kit::{
    error::{Error, Reason},
    random,
};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::standing::{Standing, foreign};

/// Parts that streams read at once, and messages of workers that are stored at once. However many of them come
/// together, the store's queues have room for others.
const AT_ONCE_MAX: usize = 1_024;

/// All open streams and parked calls of this gateway.
#[derive(Debug)]
pub(crate) struct Streams {
    by_id: Mutex<HashMap<String, Open>>,
    by_owner: Mutex<HashMap<String, usize>>,
    per_owner_max: usize,
    reads: Semaphore,
    writes: Semaphore,
}

#[derive(Debug)]
struct Open {
    /// Who opened it: only the same principal renews it.
    principal: String,
    /// What a project token needs to keep it.
    scope: &'static str,
    standing: Arc<Standing>,
}

/// A parked call's place among its owner's. Given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    streams: Arc<Streams>,
    owner: String,
}

/// An open stream. Closed on drop.
#[derive(Debug)]
pub(crate) struct Opened {
    streams: Arc<Streams>,
    id: String,
    _place: Place,
}

impl Streams {
    /// None yet.
    pub(crate) fn new(per_owner_max: usize) -> Arc<Self> {
        let (reads, writes) = (Semaphore::new(AT_ONCE_MAX), Semaphore::new(AT_ONCE_MAX));
        Arc::new(Self { by_id: Mutex::default(), by_owner: Mutex::default(), per_owner_max, reads, writes })
    }

    /// Takes a place among those of an owner.
    ///
    /// # Errors
    /// `LIMIT_REACHED` where the owner has as many as it may.
    pub(crate) fn place(self: &Arc<Self>, owner: &str) -> Result<Place, Error> {
        let mut by_owner = self.by_owner.lock();
        let taken = by_owner.entry(owner.to_owned()).or_default();
        if *taken >= self.per_owner_max {
            return Err(Error::new(Reason::LimitReached, "too many open streams and waits of this owner")
                .retry_after(std::time::Duration::from_secs(1)));
        }
        *taken += 1;
        Ok(Place { streams: Arc::clone(self), owner: owner.to_owned() })
    }

    /// Enters a stream that `principal` opened.
    pub(crate) fn open(
        self: &Arc<Self>,
        place: Place,
        principal: String,
        scope: &'static str,
        standing: &Arc<Standing>,
    ) -> Opened {
        let id = random::id("str");
        let open = Open { principal, scope, standing: Arc::clone(standing) };
        self.by_id.lock().insert(id.clone(), open);
        Opened { streams: Arc::clone(self), id, _place: place }
    }

    /// Moves a stream over to the credential of this call.
    ///
    /// # Errors
    /// `OWNER_MISMATCH` for another principal's stream and for none; `SCOPE_REQUIRED` for a project token that
    /// could not have opened it; why it ended, if it has.
    pub(crate) fn renew(
        &self,
        stream_id: &str,
        principal: &str,
        verdict: Option<&Arc<Verdict>>,
    ) -> Result<Option<SystemTime>, Error> {
        let by_id = self.by_id.lock();
        let open = by_id.get(stream_id).ok_or_else(foreign)?;
        match verdict {
            Some(verdict) => {
                let present = open.standing.verdict().ok_or_else(foreign)?;
                if !present.same_principal(verdict) {
                    return Err(foreign());
                }
                need_scope(verdict, open.scope)?;
                open.standing.renew(verdict)?;
            }
            None if open.principal == principal => {}
            None => return Err(foreign()),
        }
        Ok(open.standing.expires_at())
    }

    /// Waits for a turn to read the store, which lasts as long as what is answered.
    pub(crate) async fn turn_to_read(&self) -> SemaphorePermit<'_> {
        self.reads.acquire().await.expect("it is never closed")
    }

    /// Waits for a turn to store so many messages of a worker, likewise.
    pub(crate) async fn turn_to_write(&self, messages: usize) -> SemaphorePermit<'_> {
        let messages = u32::try_from(messages.min(AT_ONCE_MAX)).unwrap_or(u32::MAX);
        self.writes.acquire_many(messages).await.expect("it is never closed")
    }

    /// How many streams are open.
    pub(crate) fn count(&self) -> usize {
        self.by_id.lock().len()
    }
}

/// RenewStream is of streams of every kind, and so is its policy: the scope of this kind is asked here.
fn need_scope(verdict: &Verdict, scope: &str) -> Result<(), Error> {
    let scoped = verdict.kind == CredentialKind::ProjectToken;
    if scoped && !verdict.scopes.iter().any(|has| has == scope) {
        return Err(Error::new(Reason::ScopeRequired, "the project token lacks the scope of this stream"));
    }
    Ok(())
}

impl Opened {
    /// For RenewStream.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.streams.by_id.lock().remove(&self.id);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut taken) =
            self.streams.by_owner.lock().entry(std::mem::take(&mut self.owner))
        {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_owner_and_given_back() {
        let streams = Streams::new(2);
        let held = [streams.place("a").expect("first"), streams.place("a").expect("second")];
        assert_eq!(streams.place("a").expect_err("third").reason(), Reason::LimitReached);
        streams.place("b").expect("another owner is unharmed");
        drop(held);
        streams.place("a").expect("free again");
        assert!(streams.by_owner.lock().is_empty(), "nothing stays");
    }
}
