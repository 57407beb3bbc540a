//! The table of entries: the one place that knows `quick_cache`.
//!
//! It is used as a set: an entry is the key, and the value is nothing. That rests on what quick_cache 0.7.0 does: a search
//! compares with residents only (of ghosts it has no key), and ends at the first that is equal; an insertion in place of
//! another replaces the key too, and hands the old one to the lifecycle.
//!
//! Its placeholders, which would make concurrent misses wait for one load, don't fit: there is one per key, `retain` and
//! `remove_if` pass them by (a flush would let a load in flight survive), their guards borrow the cache, and waiting without
//! a timeout parks the thread. Fetches in flight are in [`crate::fill`] instead.

use std::cell::Cell;

use quick_cache::Lifecycle;
use quick_cache::sync::Cache;

use crate::entry::{Entry, EntryKey, NewVariant, Probe};
use crate::hash::{KeyBytes, KeyHasher};
use crate::history::Lost;
use crate::sizing::{ItemWeighter, Sizing, weight};
use crate::time::Time;

pub(crate) struct Store {
    table: Cache<EntryKey, (), ItemWeighter, KeyHasher, CollectEvicted>,
    sizing: Sizing,
}

/// Entries that left the table. Freed where this is dropped, which should be outside of any lock.
#[must_use = "drop it after the locks"]
#[derive(Default)]
pub(crate) struct Evicted(Vec<EntryKey>);

#[derive(Clone)]
struct CollectEvicted;

impl Lifecycle<EntryKey, ()> for CollectEvicted {
    type RequestState = Evicted;

    fn on_evict(&self, evicted: &mut Evicted, key: EntryKey, (): ()) {
        evicted.0.push(key);
    }
}

impl Store {
    pub(crate) fn new(sizing: Sizing, hasher: KeyHasher) -> Self {
        let table = Cache::with_options(sizing.options(), ItemWeighter, hasher, CollectEvicted);
        Self { table, sizing }
    }

    /// Reads the entry of a key in its place, under its shard's lock, and notes that it was used.
    #[inline]
    pub(crate) fn read<R>(&self, key: &[u8], read: impl FnOnce(&Entry) -> R) -> Option<R> {
        let probe = Probe::new(key, read);
        self.table.get(&probe);
        probe.outcome()
    }

    /// The entry of a key, without noting that it was used.
    pub(crate) fn peek(&self, key: &[u8]) -> Option<Entry> {
        let probe = Probe::new(key, Entry::clone);
        self.table.contains_key(&probe);
        probe.outcome()
    }

    /// The variant; or, if key and reply together are more than a shard admits, the note that it is too large.
    pub(crate) fn fitting(&self, new: NewVariant<'_>) -> Entry {
        let note = NewVariant { lease: new.lease.clone(), reply: None, ..new };
        let variant = Entry::variant(new);
        if weight(&variant) <= self.sizing.max_weight { variant } else { Entry::variant(note) }
    }

    /// Stores a variant beside the key's others. The caller holds the lock that all stores and removals of this key take:
    /// only an eviction can come between reading the entry and replacing it.
    pub(crate) fn insert(&self, variant: Entry, now: Time) -> Evicted {
        let entry = match self.peek(variant.key()) {
            Some(present) => present.with(variant.clone(), now),
            None => variant.clone(),
        };
        // Given more than it admits, a shard would drop all it has of the key.
        let entry = if weight(&entry) <= self.sizing.max_weight { entry } else { variant };
        let mut evicted = Evicted::default();
        self.table.insert_with_lifecycle(EntryKey(entry), (), &mut evicted);
        evicted
    }

    pub(crate) fn remove(&self, key: &[u8]) -> Evicted {
        Evicted(self.table.remove(&KeyBytes(key)).into_iter().map(|(key, ())| key).collect())
    }

    /// Removes what can never be served again; says how many entries. Entry by entry: no lock is held for long.
    pub(crate) fn sweep(&self, now: Time) -> usize {
        self.table.iter().filter(|(seen, ())| seen.0.is_over(now) && self.remove_if_over(seen.0.key(), now)).count()
    }

    /// Shows `visit` every entry.
    pub(crate) fn each(&self, mut visit: impl FnMut(&Entry)) {
        self.table.iter().for_each(|(seen, ())| visit(&seen.0));
    }

    /// What a key has may have been replaced since it was looked at: it is judged again under the lock that removes it.
    fn remove_if_over(&self, key: &[u8], now: Time) -> bool {
        let is_over = Cell::new(false);
        let probe = Probe::new(key, |entry| is_over.set(entry.is_over(now)));
        self.table.remove_if(&probe, |()| is_over.get()).is_some()
    }

    /// Keeps the items and the table together within the capacity: see [`Sizing::capacity_beside`].
    pub(crate) fn make_room_for_table(&self) {
        let table_len = self.table.memory_used().total() as u64;
        let capacity = self.sizing.capacity_beside(table_len, self.table.len() as u64);
        if capacity.abs_diff(self.table.capacity()) > capacity / 64 {
            self.table.set_capacity(capacity);
        }
    }

    #[cfg(test)]
    pub(crate) fn shards(&self) -> usize {
        self.table.num_shards()
    }

    pub(crate) fn entries(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.table.weight()
    }
}

impl Evicted {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether another key had to go than this one.
    pub(crate) fn has_other_than(&self, key: &[u8]) -> bool {
        self.0.iter().any(|evicted| evicted.0.key() != key)
    }

    /// Whether anybody was served any of it, as a key's history wants to know it.
    pub(crate) fn lost(&self) -> Lost {
        match &self.0[..] {
            [] => Lost::Fetch,
            keys if keys.iter().any(|key| key.0.is_used()) => Lost::Served,
            _ => Lost::Unserved,
        }
    }
}
