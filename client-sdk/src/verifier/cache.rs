//! A bounded map for many readers: shards under their own locks, second-chance eviction.
//!
//! A look-up takes one read lock of one shard; no reader waits for another. A general-purpose cache
//! costs several times as much on this path, which each call of a service takes.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, Hash, RandomState},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::RwLock;

const SHARDS: usize = 64;

pub(super) struct Cache<K, V> {
    shards: Vec<RwLock<Shard<K, V>>>,
    hasher: RandomState,
    per_shard: usize,
}

struct Shard<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Oldest first. Keys that were removed stay here until their turn comes.
    order: VecDeque<K>,
}

struct Entry<V> {
    value: V,
    /// Found since the last time it was considered for eviction.
    used: AtomicBool,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// Holds at most `capacity` entries, rounded up to one a shard.
    pub(super) fn new(capacity: usize) -> Self {
        let shard = || RwLock::new(Shard { entries: HashMap::new(), order: VecDeque::new() });
        Self {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            hasher: RandomState::new(),
            per_shard: capacity.div_ceil(SHARDS).max(1),
        }
    }

    pub(super) fn find(&self, key: &K) -> Option<V> {
        let shard = self.shard(key).read();
        let entry = shard.entries.get(key)?;
        if !entry.used.load(Ordering::Relaxed) {
            entry.used.store(true, Ordering::Relaxed);
        }
        Some(entry.value.clone())
    }

    pub(super) fn insert(&self, key: K, value: V) {
        let mut shard = self.shard(&key).write();
        let entry = Entry { value, used: AtomicBool::new(false) };
        if shard.entries.insert(key.clone(), entry).is_some() {
            return;
        }
        shard.order.push_back(key);
        while shard.order.len() > self.per_shard {
            shard.evict();
        }
    }

    pub(super) fn remove(&self, key: &K) {
        let mut shard = self.shard(key).write();
        if shard.entries.remove(key).is_some() {
            shard.order.retain(|k| k != key);
        }
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.write();
            shard.entries.clear();
            shard.order.clear();
        }
    }

    fn shard(&self, key: &K) -> &RwLock<Shard<K, V>> {
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or(0);
        &self.shards[hash % SHARDS]
    }
}

impl<K: Hash + Eq, V> Shard<K, V> {
    /// Takes out the oldest entry that nobody has used since its last turn. Ends after one round at
    /// most: each turn clears the mark that would save the entry the next time.
    fn evict(&mut self) {
        while let Some(key) = self.order.pop_front() {
            match self.entries.get(&key) {
                Some(entry) if entry.used.swap(false, Ordering::Relaxed) => self.order.push_back(key),
                Some(_) => {
                    self.entries.remove(&key);
                    return;
                }
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_within_its_bound_and_keeps_what_is_used() {
        let cache = Cache::new(640);
        cache.insert(0_u32, 0);
        for n in 1..20_000_u32 {
            assert_eq!(cache.find(&0), Some(0), "used all the time, at {n}");
            cache.insert(n, n);
        }
        let kept = (0..20_000).filter(|n| cache.find(n).is_some()).count();
        assert!(kept <= 640, "{kept}");
        cache.remove(&0);
        assert_eq!(cache.find(&0), None);
        cache.clear();
        assert_eq!((0..20_000).filter(|n| cache.find(n).is_some()).count(), 0);
    }
}
