//! The census: who used which generation of the role tokens, as far as it is stored.
//!
//! Of each generation the latest use of each service and source is kept, the latest [`limits::USES_MAX`] of them. Uses
//! come in lots (`census.rs`), each with how long ago it was, so that no two clocks are compared: what is stored is in
//! the store's time. They are no change of state that anybody acts on but [`super::Commit`], so they leave no audit rows.

use std::{collections::BTreeMap, time::Duration};

use interlock_kit::clock::Timestamp;
use interlock_proto::credential::Hash;

use super::{Role, RoleToken};
use crate::{
    ids::CredentialId,
    limits,
    store::{Stop, Tx, Verb},
};

/// The latest use of one generation through one service from one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// Of which role.
    pub role: Role,
    /// The generation.
    pub token: Hash,
    /// Who admitted it: a SPIFFE id, or `auth`.
    pub service: String,
    /// Where from: an address, an IPv6 network, or nothing.
    pub source: String,
    /// When; not before it was.
    pub last_at: Timestamp,
    /// How often it was noted, at most once a second.
    pub noted: u64,
}

/// A use that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Of which credential.
    pub credential: CredentialId,
    /// As of [`TokenUse::service`].
    pub service: String,
    /// As of [`TokenUse::source`].
    pub source: String,
    /// How long ago.
    pub ago: Duration,
    /// How often it was noted since it was stored.
    pub noted: u64,
}

/// Stores what was seen. By the host only. What is of no living generation is passed over.
#[derive(Clone, Debug)]
pub struct RecordUses {
    /// What was seen.
    pub seen: Vec<Seen>,
}

impl Verb for RecordUses {
    type Out = ();

    fn run(&self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        let permit = tx.authorize_census()?;
        let mut planned = Vec::new();
        for role in Role::ALL {
            let tokens = tx.role_tokens(role)?;
            let used: Vec<_> = tokens.iter().filter(|token| !self.of(token).is_empty()).collect();
            if used.is_empty() {
                continue;
            }
            let stored = tx.role_token_uses(role)?;
            for token in used {
                let stored = stored.iter().filter(|used| used.token == token.hash).cloned().collect();
                planned.push(merged(token, stored, &self.of(token), tx.now()));
            }
        }
        for (place, (stored, used)) in planned.into_iter().flat_map(|all| all.into_iter().enumerate()) {
            match stored {
                _ if place < limits::USES_MAX && stored.as_ref() != Some(&used) => {
                    tx.put_token_use(&permit, stored.map(|stored| stored.noted), used);
                }
                Some(stored) if place >= limits::USES_MAX => tx.drop_token_use(&permit, stored),
                _ => {}
            }
        }
        Ok(())
    }
}

impl RecordUses {
    fn of(&self, token: &RoleToken) -> Vec<&Seen> {
        self.seen.iter().filter(|seen| seen.credential == token.id).collect()
    }
}

/// A use as it is stored, and as it is to be.
type Merged = (Option<TokenUse>, TokenUse);

/// The uses of one generation, what is stored and what was seen together, the latest first.
fn merged(token: &RoleToken, stored: Vec<TokenUse>, seen: &[&Seen], now: Timestamp) -> Vec<Merged> {
    let key = |service: &str, source: &str| (service.to_owned(), source.to_owned());
    let stored =
        stored.into_iter().map(|used| (key(&used.service, &used.source), (Some(used.clone()), used)));
    let mut uses: BTreeMap<_, Merged> = stored.collect();
    for seen in seen {
        let last_at = now.before(seen.ago);
        let (_, used) = uses.entry(key(&seen.service, &seen.source)).or_insert_with(|| {
            let (service, source) = (seen.service.clone(), seen.source.clone());
            (None, TokenUse { role: token.role, token: token.hash, service, source, last_at, noted: 0 })
        });
        used.last_at = used.last_at.max(last_at);
        used.noted = used.noted.saturating_add(seen.noted);
    }
    let mut all: Vec<_> = uses.into_values().collect();
    all.sort_by_key(|(_, used)| std::cmp::Reverse(used.last_at));
    all
}
