//! What this program knows of uses of the role tokens, on its way to the store.
//!
//! Uses are seen at two places: at this program's own gate ([`Census::note`]), and at verifiers, which admit without
//! asking and tell with each renewal of their lease ([`Present::told`]). Both wait here until the next [`Census::store`],
//! every [`limits::USES_STORED_EVERY`] and whenever somebody asks for them.
//!
//! # Who has not told
//!
//! A commit of a rotation must know whether somebody's uses are missing (`role_token/two_phase.rs`). So each verifier
//! that comes is remembered with when it told the last time: a stream that opens tells nothing yet, and one
//! of a verifier that does not count never does. A verifier that went could admit until its lease was over, and its last
//! uses are known to nobody: it counts as one that has not told until that is older than the window. Everything before
//! the oldest of those instants is known, and once stored it is what this program's row says to others
//! ([`Census::behind`], `replica.rs`).
//!
//! Only ages leave this file: instants are the store's.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use interlock_kit::{clock::Clock, error::Error, serve::Source};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    barrier::fence,
    ids::CredentialId,
    limits,
    parts::host_call,
    role_token::{RecordUses, Seen},
    store::Shell,
};

/// What this service is called where it admits itself.
const OWN: &str = "auth";
const ACTION: &str = "role_token.census";
/// A source that uses a token all the time is noted so often.
const NOTED_EVERY: Duration = Duration::from_secs(1);

/// What one program knows. Shared by all calls.
pub struct Census {
    shell: Shell,
    /// See [`limits::IN_USE_WINDOW`].
    window: Duration,
    /// For how long a verifier that went may have admitted.
    lease: Duration,
    state: Mutex<State>,
    /// One store after another.
    storing: tokio::sync::Mutex<()>,
}

struct State {
    unstored: Unstored,
    tellers: BTreeMap<Arc<str>, Teller>,
    /// All uses before are stored.
    through: Instant,
}

/// Credential, service and source.
type Key = (CredentialId, Arc<str>, String);

/// Uses that wait.
#[derive(Debug, Default)]
struct Unstored {
    told: BTreeMap<Key, Tally>,
    /// Seen here. Calls look in it by what they have, and make nothing but for a new source.
    own: BTreeMap<CredentialId, BTreeMap<Source, Noting>>,
}

/// A use that was seen here, and when it was counted the last time.
#[derive(Clone, Copy, Debug)]
struct Noting {
    tally: Tally,
    counted: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    last: Instant,
    noted: u64,
}

/// A verifier, and up to when its uses are known.
#[derive(Clone, Copy, Debug)]
struct Teller {
    told: Instant,
    streams: u32,
    gone: Option<Instant>,
}

/// A use that a verifier tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldUse {
    /// Of which credential.
    pub credential: CredentialId,
    /// Where from.
    pub source: String,
    /// How long ago.
    pub ago: Duration,
    /// How often since it told the last time.
    pub noted: u64,
}

/// A verifier that is there. It has gone when this is dropped.
#[derive(Debug)]
pub struct Present {
    census: Arc<Census>,
    who: Arc<str>,
}

impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Census").field("window", &self.window).finish_non_exhaustive()
    }
}

impl Census {
    /// Nothing is known yet. `shell` runs what the host does; `lease` is what verifiers are granted.
    #[must_use]
    pub fn new(shell: Shell, window: Duration, lease: Duration) -> Arc<Self> {
        let state =
            State { unstored: Unstored::default(), tellers: BTreeMap::new(), through: Clock::instant() };
        let (state, storing) = (Mutex::new(state), tokio::sync::Mutex::default());
        Arc::new(Self { shell, window, lease, state, storing })
    }

    /// For how long after a use a token counts as in use.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window
    }

    /// This program has admitted a role token.
    pub fn note(&self, credential: &CredentialId, source: Source) {
        self.state.lock().unstored.note(credential, source, Clock::instant());
    }

    /// A verifier has come.
    #[must_use]
    pub fn came(self: &Arc<Self>, who: &Arc<str>) -> Present {
        self.state.lock().came(who, Clock::instant());
        Present { census: Arc::clone(self), who: Arc::clone(who) }
    }

    /// How long ago the last instant is up to which everything is stored.
    #[must_use]
    pub fn behind(&self) -> Duration {
        Clock::instant().saturating_duration_since(self.state.lock().through)
    }

    /// Verifiers that have not told for longer than [`limits::unheard_max`], by name.
    #[must_use]
    pub fn unheard(&self) -> Vec<String> {
        let most = limits::unheard_max(self.window);
        self.state.lock().unheard(Clock::instant(), most, self.kept())
    }

    /// Stores what waits.
    ///
    /// # Errors
    /// What the store says; it waits on then.
    pub async fn store(&self) -> Result<(), Error> {
        let _one = self.storing.lock().await;
        let (waiting, seen, through) = {
            let mut state = self.state.lock();
            let now = Clock::instant();
            state.forget_gone(now, self.kept());
            let waiting = std::mem::take(&mut state.unstored).into_tallies();
            let seen: Vec<_> = waiting.iter().map(|(key, tally)| seen(key, *tally, now)).collect();
            (waiting, seen, state.known_through(now))
        };
        if !seen.is_empty()
            && let Err(error) = self.shell.run(&host_call(ACTION), RecordUses { seen }).await
        {
            let mut state = self.state.lock();
            waiting.into_iter().for_each(|(key, tally)| state.unstored.add(key, tally));
            return Err(error);
        }
        let mut state = self.state.lock();
        state.through = state.through.max(through);
        Ok(())
    }

    /// Stores what waits, again and again, until `shutdown` and once more then.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut failing = false;
        while shutdown.run_until_cancelled(tokio::time::sleep(limits::USES_STORED_EVERY)).await.is_some() {
            match self.store().await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(%error, "uses of role tokens cannot be stored now; a rotation in two phases waits for them");
                }
                Err(_) => {}
            }
        }
        if let Err(error) = self.store().await {
            tracing::warn!(%error, "the last uses of role tokens could not be stored");
        }
    }

    /// For how long a verifier that went is remembered.
    fn kept(&self) -> Duration {
        fence(self.lease) + self.window
    }
}

impl Present {
    /// It has told all uses that it knows of.
    pub fn told(&self, service: &Arc<str>, uses: Vec<ToldUse>) {
        let (mut state, now) = (self.census.state.lock(), Clock::instant());
        if let Some(teller) = state.tellers.get_mut(&self.who) {
            teller.told = now;
        }
        for ToldUse { credential, source, ago, noted } in uses {
            // Before this machine's clock began: it matters to nobody, or is as good as now.
            let Some(last) = now.checked_sub(ago).or_else(|| (ago < self.census.window).then_some(now))
            else {
                continue;
            };
            state.unstored.add((credential, Arc::clone(service), source), Tally { last, noted });
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let (mut state, now) = (self.census.state.lock(), Clock::instant());
        if let Some(teller) = state.tellers.get_mut(&self.who) {
            teller.streams = teller.streams.saturating_sub(1);
            if teller.streams == 0 {
                teller.gone = Some(now);
            }
        }
    }
}

fn seen((credential, service, source): &Key, tally: Tally, now: Instant) -> Seen {
    Seen {
        credential: credential.clone(),
        service: service.to_string(),
        source: source.clone(),
        ago: now.saturating_duration_since(tally.last),
        noted: tally.noted,
    }
}

impl State {
    fn came(&mut self, who: &Arc<str>, now: Instant) {
        if self.tellers.len() >= limits::TELLERS_MAX && !self.tellers.contains_key(who) {
            let longest_gone =
                self.tellers.iter().filter_map(|(who, teller)| Some((teller.gone?, who))).min();
            if let Some(who) = longest_gone.map(|(_, who)| Arc::clone(who)) {
                self.tellers.remove(&who);
            }
        }
        // One that comes back has not told what it saw since it told the last time.
        let teller =
            self.tellers.entry(Arc::clone(who)).or_insert(Teller { told: now, streams: 0, gone: None });
        teller.streams += 1;
        teller.gone = None;
    }

    /// Those whose uses may be missing.
    fn counted(&self, now: Instant, kept: Duration) -> impl Iterator<Item = (&Arc<str>, &Teller)> {
        self.tellers.iter().filter(move |(_, teller)| !teller.is_over(now, kept))
    }

    fn forget_gone(&mut self, now: Instant, kept: Duration) {
        self.tellers.retain(|_, teller| !teller.is_over(now, kept));
    }

    fn known_through(&self, now: Instant) -> Instant {
        self.tellers.values().map(|teller| teller.told).min().unwrap_or(now).min(now)
    }

    fn unheard(&self, now: Instant, most: Duration, kept: Duration) -> Vec<String> {
        let silent = |(_, teller): &(&Arc<str>, &Teller)| now.saturating_duration_since(teller.told) > most;
        self.counted(now, kept).filter(silent).map(|(who, _)| who.to_string()).collect()
    }
}

impl Teller {
    fn is_over(&self, now: Instant, kept: Duration) -> bool {
        self.gone.is_some_and(|gone| now.saturating_duration_since(gone) > kept)
    }
}

impl Tally {
    fn and(self, other: Self) -> Self {
        Self { last: self.last.max(other.last), noted: self.noted.saturating_add(other.noted) }
    }
}

impl Unstored {
    fn note(&mut self, credential: &CredentialId, source: Source, now: Instant) {
        if !self.own.contains_key(credential) {
            self.own.insert(credential.clone(), BTreeMap::new());
        }
        let Some(sources) = self.own.get_mut(credential) else { return };
        if let Some(noting) = sources.get_mut(&source) {
            noting.tally.last = now;
            if now.saturating_duration_since(noting.counted) >= NOTED_EVERY {
                noting.tally.noted += 1;
                noting.counted = now;
            }
            return;
        }
        if sources.len() >= limits::USES_MAX {
            let oldest =
                sources.iter().min_by_key(|(_, noting)| noting.tally.last).map(|(source, _)| *source);
            oldest.map(|oldest| sources.remove(&oldest));
        }
        sources.insert(source, Noting { tally: Tally { last: now, noted: 1 }, counted: now });
    }

    fn add(&mut self, key: Key, tally: Tally) {
        if self.told.len() >= limits::USES_UNSTORED_MAX && !self.told.contains_key(&key) {
            let oldest = self.told.iter().min_by_key(|(_, tally)| tally.last).map(|(key, _)| key.clone());
            oldest.map(|oldest| self.told.remove(&oldest));
        }
        match self.told.entry(key) {
            Entry::Occupied(mut known) => *known.get_mut() = known.get().and(tally),
            Entry::Vacant(new) => drop(new.insert(tally)),
        }
    }

    fn into_tallies(mut self) -> BTreeMap<Key, Tally> {
        let service: Arc<str> = OWN.into();
        for (credential, sources) in std::mem::take(&mut self.own) {
            for (source, Noting { tally, .. }) in sources {
                self.add((credential.clone(), Arc::clone(&service), source.to_string()), tally);
            }
        }
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const KEPT: Duration = Duration::from_secs(60);

    fn state(now: Instant) -> State {
        State { unstored: Unstored::default(), tellers: BTreeMap::new(), through: now }
    }

    fn source(last: u8) -> Source {
        Source::of(std::net::IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn a_verifier_that_comes_tells_and_goes_bounds_what_is_known() {
        let t0 = Instant::now();
        let (mut state, gateway): (_, Arc<str>) = (state(t0), "gateway".into());
        assert_eq!(state.known_through(t0), t0, "nobody else admits");
        state.came(&gateway, t0);
        let later = t0 + 20 * SECOND;
        assert_eq!(state.known_through(later), t0, "it has told nothing yet");
        assert_eq!(state.unheard(later, 10 * SECOND, KEPT), ["gateway"], "nor will one that does not count");
        state.tellers.get_mut("gateway").expect("there").told = later;
        assert!(state.unheard(later + 10 * SECOND, 10 * SECOND, KEPT).is_empty(), "within what is borne");
        // It goes: what it saw since is known to nobody.
        let teller = state.tellers.get_mut("gateway").expect("there");
        (teller.streams, teller.gone) = (0, Some(later + SECOND));
        assert_eq!(state.unheard(later + 30 * SECOND, 10 * SECOND, KEPT), ["gateway"]);
        // It comes back on another stream, and has still not told of the time between.
        state.came(&gateway, later + 40 * SECOND);
        assert_eq!(state.known_through(later + 41 * SECOND), later);
        let teller = state.tellers.get_mut("gateway").expect("there");
        (teller.streams, teller.gone) = (0, Some(later + 41 * SECOND));
        let over = later + 42 * SECOND + KEPT;
        assert!(state.unheard(over, 10 * SECOND, KEPT).is_empty(), "too long ago to matter");
        state.forget_gone(over, KEPT);
        assert!(state.tellers.is_empty());
    }

    #[test]
    fn what_waits_is_bounded_and_the_latest_stays() {
        let (t0, credential) = (Instant::now(), CredentialId::made("crd_1"));
        let mut unstored = Unstored::default();
        for n in 0..=u8::MAX {
            unstored.note(&credential, source(n), t0 + u32::from(n) * SECOND);
            unstored.note(&credential, source(n), t0 + u32::from(n) * SECOND);
        }
        unstored.note(&credential, source(u8::MAX), t0 + 257 * SECOND);
        let all = unstored.into_tallies();
        assert_eq!(all.len(), limits::USES_MAX);
        let latest = all.iter().max_by_key(|(_, tally)| tally.last).expect("some");
        assert_eq!((latest.0.2.as_str(), latest.1.noted), ("10.0.0.255", 2), "once a second");
        let mut unstored = Unstored::default();
        for n in 0..limits::USES_UNSTORED_MAX + 10 {
            let last = t0 + u32::try_from(n).expect("small") * SECOND;
            unstored.add((credential.clone(), "s".into(), n.to_string()), Tally { last, noted: 1 });
        }
        let all = unstored.into_tallies();
        assert_eq!(all.len(), limits::USES_UNSTORED_MAX);
        assert!(all.values().all(|tally| tally.last >= t0 + 10 * SECOND));
    }

    #[test]
    fn verifiers_that_are_remembered_are_bounded() {
        let t0 = Instant::now();
        let mut state = state(t0);
        for n in 0..limits::TELLERS_MAX + 5 {
            let who: Arc<str> = n.to_string().into();
            state.came(&who, t0);
            let teller = state.tellers.get_mut(&who).expect("there");
            (teller.streams, teller.gone) = (0, Some(t0 + u32::try_from(n).expect("small") * SECOND));
        }
        assert_eq!(state.tellers.len(), limits::TELLERS_MAX);
        assert!(!state.tellers.contains_key("4") && state.tellers.contains_key("5"));
    }
}
