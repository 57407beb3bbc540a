//! The fill table: every fetch in flight, who waits for it, and whether its answer may still be stored.
//!
//! It is sharded by key. Whoever stores, removes or invalidates a key holds the lock of the key's shard while it changes
//! the store: fetch and invalidation of one key are in one order, for everybody. Lock order: a shard of this table, then
//! the store's own locks; never the reverse, and never two shards. A hit takes none of it.

use std::time::Duration;

use hashbrown::HashTable;

use crate::entry::Scope;
use crate::hash::KeyHasher;
use crate::history::{Change, History, LastChange, Lost};
use crate::lease::Lease;
use crate::query::Query;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::ticket::{Answer, Ttl};
use crate::time::Time;

/// Shards for each worker: misses, writes and invalidations all take one.
const SHARDS_PER_WORKER: usize = 8;
const MAX_SHARDS: usize = 1024;

/// Who waits for a fetch: three numbers that mean something to the caller alone.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiter {
    /// The worker that the session lives on.
    pub worker: u32,
    /// The session, on its worker.
    pub session: u64,
    /// Which of the session's requests.
    pub sequence: u64,
}

/// Those who waited for a fetch, in the order in which they came: its leader first.
#[derive(Debug)]
#[must_use = "they are owed an answer"]
pub struct Waiters {
    leader: Option<Waiter>,
    /// With the time at which each came.
    followers: Vec<(Waiter, Time)>,
    /// Those for whom the answer came too late.
    late: Vec<(Waiter, Time)>,
}

/// A fetch in flight, of one variant of one key. There can be several of the same: one that is poisoned takes no followers,
/// so the next lookup begins another.
pub(crate) struct Fill {
    query: Query,
    hash: u64,
    id: u64,
    /// The answer shows the key as it was at this moment or later: when it was sent or, until then, when the fetch began.
    pub(crate) asked_at: Time,
    /// The lease of the connection it was sent on; none while it waits to be sent.
    pub(crate) lease: Option<Lease>,
    /// The key may have changed since the fetch began: the answer must not be stored.
    is_poisoned: bool,
    pub(crate) waiters: Waiters,
}

/// Where a fetch is in the table.
#[derive(Clone)]
pub(crate) struct FillId {
    hash: u64,
    id: u64,
}

/// How a lookup can take part in a fetch.
pub(crate) enum Joined {
    Leads {
        query: Query,
        id: FillId,
    },
    Follows,
    /// There are as many fetches, or as many waiters of this one, as are allowed.
    Busy,
}

pub(crate) struct FillTable {
    shards: Box<[Shard]>,
    hasher: KeyHasher,
    in_flight: AtomicUsize,
    limits: Limits,
}

pub(crate) struct Limits {
    pub(crate) max_fills: usize,
    pub(crate) max_waiters: usize,
    pub(crate) max_staleness: Duration,
    pub(crate) fetch_churning: bool,
}

/// On cache lines of its own: workers lock neighbouring shards all the time.
#[repr(align(128))]
struct Shard(Mutex<Fills>);

struct Fills {
    table: HashTable<Fill>,
    history: History,
    next_id: u64,
}

/// A shard of the table, locked for work on one key.
pub(crate) struct LockedKey<'a> {
    fills: MutexGuard<'a, Fills>,
    table: &'a FillTable,
    hash: u64,
    key: &'a [u8],
}

impl FillTable {
    /// One beside a cache of this capacity.
    pub(crate) fn new(workers: usize, capacity: u64, limits: Limits, hasher: KeyHasher) -> Self {
        let shards = workers.saturating_mul(SHARDS_PER_WORKER).clamp(1, MAX_SHARDS).next_power_of_two();
        let history = || History::new(capacity, shards, limits.fetch_churning);
        let fills = || Fills { table: HashTable::new(), history: history(), next_id: 0 };
        let shards = (0..shards).map(|_| Shard(Mutex::new(fills()))).collect();
        Self { shards, hasher, in_flight: AtomicUsize::new(0), limits }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    pub(crate) fn lock<'a>(&'a self, key: &'a [u8]) -> LockedKey<'a> {
        self.lock_hashed(key, self.hash(key))
    }

    /// As [`Self::lock`], where the key's hash is known.
    pub(crate) fn lock_hashed<'a>(&'a self, key: &'a [u8], hash: u64) -> LockedKey<'a> {
        LockedKey { fills: self.shard(hash).lock(), table: self, hash, key }
    }

    /// Notes that the fetch is being sent, on the connection of this lease.
    pub(crate) fn sent(&self, fill: &FillId, lease: &Lease, at: Time) {
        let mut fills = self.shard(fill.hash).lock();
        if let Some(found) = fills.table.find_mut(fill.hash, |found| found.id == fill.id) {
            found.lease = Some(lease.clone());
            found.asked_at = at;
        }
    }

    /// Takes a fetch out that will not be completed.
    pub(crate) fn forget(&self, fill: &FillId) {
        let forgotten = self.take(&mut self.shard(fill.hash).lock(), fill);
        drop(forgotten);
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What is being fetched, as far as that began before. No lock is held for longer than one shard takes.
    pub(crate) fn queries(&self) -> Vec<Query> {
        let of_shard =
            |shard: &Shard| -> Vec<Query> { shard.0.lock().table.iter().map(|fill| fill.query.clone()).collect() };
        self.shards.iter().flat_map(of_shard).collect()
    }

    fn take(&self, fills: &mut Fills, fill: &FillId) -> Option<Fill> {
        let found = fills.table.find_entry(fill.hash, |found| found.id == fill.id).ok()?;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        Some(found.remove().0)
    }

    fn shard(&self, hash: u64) -> &Mutex<Fills> {
        // The table within takes the lowest bits, and the highest seven.
        let index = (hash >> 32) as usize & (self.shards.len() - 1);
        &self.shards[index].0
    }
}

impl LockedKey<'_> {
    /// Joins a fetch of this variant that can still answer for `now`, or begins one.
    pub(crate) fn join(&mut self, scope: Scope<'_>, now: Time, waiter: impl FnOnce() -> Waiter) -> Joined {
        let max_staleness = self.table.limits.max_staleness;
        let key = self.key;
        let followed = self
            .fills
            .table
            .iter_hash_mut(self.hash)
            .find(|fill| fill.query.is(key, scope) && fill.takes_followers(now, max_staleness));
        match followed {
            Some(fill) if fill.waiters.len() >= self.table.limits.max_waiters => Joined::Busy,
            Some(fill) => {
                fill.waiters.followers.push((waiter(), now));
                Joined::Follows
            }
            None => self.lead(scope, now, waiter),
        }
    }

    fn lead(&mut self, scope: Scope<'_>, now: Time, waiter: impl FnOnce() -> Waiter) -> Joined {
        if self.table.in_flight.fetch_add(1, Ordering::Relaxed) >= self.table.limits.max_fills {
            self.table.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Joined::Busy;
        }
        let id = self.fills.next_id;
        self.fills.next_id += 1;
        let query = Query::new(self.key, scope);
        let fill = Fill {
            query: query.clone(),
            hash: self.hash,
            id,
            asked_at: now,
            lease: None,
            is_poisoned: false,
            waiters: Waiters { leader: Some(waiter()), ..Waiters::none() },
        };
        self.fills.table.insert_unique(self.hash, fill, |fill| fill.hash);
        Joined::Leads { query, id: FillId { hash: self.hash, id } }
    }

    /// Forbids every fetch of the key to store its answer, or to take another follower. True if there was one that might.
    pub(crate) fn poison(&mut self) -> bool {
        let (key, mut any) = (self.key, false);
        for fill in self.fills.table.iter_hash_mut(self.hash).filter(|fill| fill.query.key() == key) {
            any |= !std::mem::replace(&mut fill.is_poisoned, true);
        }
        any
    }

    /// Fetches of the key in flight.
    pub(crate) fn count(&self) -> usize {
        self.fills.table.iter_hash(self.hash).filter(|fill| fill.query.key() == self.key).count()
    }

    /// Remembers that the key has changed.
    pub(crate) fn note_change(&mut self, change: Change, lost: Lost, now: Time) {
        self.fills.history.note(self.hash, change, lost, now);
    }

    /// Whether the key has changed so often that this read passes by.
    pub(crate) fn passes_by(&mut self, now: Time) -> bool {
        self.fills.history.passes_by(self.hash, now)
    }

    /// How long ago the key was written, if nobody has asked yet.
    pub(crate) fn written_for(&mut self, now: Time) -> Option<Duration> {
        self.fills.history.written_for(self.hash, now)
    }

    pub(crate) fn last_change(&mut self, now: Time) -> Option<LastChange> {
        self.fills.history.last_change(self.hash, now)
    }

    pub(crate) fn find(&self, fill: &FillId) -> Option<&Fill> {
        self.fills.table.find(fill.hash, |found| found.id == fill.id)
    }

    /// Takes out a fetch that is being completed.
    pub(crate) fn take(&mut self, fill: &FillId) -> Option<Fill> {
        self.table.take(&mut self.fills, fill)
    }
}

impl Fill {
    /// Whether nothing has happened so far that forbids to store its answer.
    pub(crate) fn may_store(&self) -> bool {
        !self.is_poisoned && self.lease.as_ref().is_some_and(|lease| !lease.is_dead())
    }

    /// Until when what was fetched is there for sure, unless it is for ever. Of a key that has changed meanwhile the time to
    /// live may be another value's.
    pub(crate) fn death(&self, answer: Answer<'_>) -> Option<Time> {
        match answer {
            Answer::Store { .. } | Answer::TooLarge { .. } if self.is_poisoned => Some(self.asked_at),
            Answer::Store { ttl: Ttl::Millis(millis), .. } | Answer::TooLarge { ttl: Ttl::Millis(millis) } => {
                Some(self.asked_at + Duration::from_millis(millis))
            }
            Answer::Expiring => Some(self.asked_at),
            Answer::Store { .. } | Answer::TooLarge { .. } | Answer::Discard => None,
        }
    }

    pub(crate) fn note_stored(&self) {
        if let Some(lease) = &self.lease {
            lease.note_fill();
        }
    }

    /// Whether its answer will be good enough for a read that begins at `now`.
    fn takes_followers(&self, now: Time, max_staleness: Duration) -> bool {
        !self.is_poisoned
            && now < self.asked_at + max_staleness
            && self.lease.as_ref().is_none_or(|lease| !lease.is_dead())
    }
}

impl Waiters {
    pub(crate) fn none() -> Self {
        Self { leader: None, followers: Vec::new(), late: Vec::new() }
    }

    /// What was fetched is there until `deadline`, and gone for the reads that began later.
    pub(crate) fn part_late(&mut self, deadline: Time) {
        self.late.extend(self.followers.extract_if(.., |(_, came)| *came >= deadline));
    }

    /// Takes out those who came when what was fetched had expired already: the answer is none to their reads, which go
    /// upstream.
    pub fn take_late(&mut self) -> Waiters {
        Self { followers: std::mem::take(&mut self.late), ..Self::none() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.leader.is_some()) + self.followers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Those who came after the leader.
#[derive(Debug)]
pub struct Followers(std::vec::IntoIter<(Waiter, Time)>);

impl Iterator for Followers {
    type Item = Waiter;

    fn next(&mut self) -> Option<Waiter> {
        self.0.next().map(|(waiter, _)| waiter)
    }
}

impl IntoIterator for Waiters {
    type Item = Waiter;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Waiter>, Followers>;

    fn into_iter(self) -> Self::IntoIter {
        self.leader.into_iter().chain(Followers(self.followers.into_iter()))
    }
}
