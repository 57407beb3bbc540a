//! The near-cache: lookups, and everything that ends the life of what they find.

use std::sync::Arc;
use std::time::Duration;

use crate::doorkeeper::Doorkeeper;
use crate::entry::{CachedReply, MAX_ARGUMENTS_LEN, MAX_KEY_LEN, NewVariant, Read, ReplyRef, Scope};
use crate::fill::{Fill, FillTable, Joined, Limits, Waiter, Waiters};
use crate::hash::KeyHasher;
use crate::history::Change;
use crate::lease::{Lease, LeaseOwner, Leases};
use crate::sizing::{SizeError, Sizing};
use crate::store::Store;
use crate::sync::{AtomicU64, Ordering};
use crate::terms::Deadline;
use crate::ticket::{Answer, FillTicket, Ttl};
use crate::time::Time;

/// What a cache is made for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// By how many bytes the cache may make the process grow.
    pub capacity: u64,
    /// The largest value that is kept, in bytes.
    pub max_item: usize,
    /// How long a value is kept at most, however long it lives on the server.
    pub max_age: Duration,
    /// How much staler than an uncached read a cached one may be.
    pub max_staleness: Duration,
    /// Threads that use the cache at once.
    pub workers: usize,
    /// Fetches in flight, of all keys together.
    pub max_fills: usize,
    /// Those who may wait for one fetch, its leader counted.
    pub max_waiters: usize,
    /// Fetch keys however often they change. Else reads of those that change more often than they are read pass by for a while.
    pub fetch_churning: bool,
    /// Hash keys alike in every run, for those that are to be compared or replayed. `None`: with a seed of this process, as
    /// clients who know it could choose keys that all fall together.
    pub hash_seed: Option<u64>,
}

/// What to do with a read.
pub enum Lookup {
    /// Answer it with this.
    Hit(CachedReply),
    /// Fetch it, for all who wait.
    Lead(FillTicket),
    /// Wait: somebody fetches it, and the waiter has been noted.
    Follow,
    /// Send it upstream, as if there were no cache.
    Bypass(Bypass),
}

/// Why a read passes the cache by.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// The key, its value, or what the read is given beside the key, is too large to be kept.
    TooLarge,
    /// The key changes more often than it is read.
    Churning,
    /// The cache is full, and the key has not been asked for lately.
    Rare,
    /// As many fetches are in flight, or as many wait for this one, as are allowed.
    Busy,
}

/// Counts since the cache was made.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Answers stored.
    pub stored: u64,
    /// Answers that were to be stored, and were not: the key may have changed meanwhile, the connection was lost, or the
    /// value expired.
    pub refused: u64,
    /// Keys whose entry an invalidation or a write removed.
    pub removed: u64,
}

/// Replies near their readers; see the crate's documentation.
pub struct NearCache {
    pub(crate) store: Store,
    pub(crate) fills: FillTable,
    pub(crate) doorkeeper: Doorkeeper,
    leases: Arc<Leases>,
    max_age: Duration,
    max_reply: usize,
    stored: AtomicU64,
    refused: AtomicU64,
    removed: AtomicU64,
}

impl NearCache {
    /// An empty cache. Fails if the largest item would not fit.
    pub fn new(settings: Settings) -> Result<Arc<Self>, SizeError> {
        let sizing = Sizing::new(settings.capacity, settings.max_item, settings.workers)?;
        let (hasher, max_reply) = (KeyHasher::new(settings.hash_seed), sizing.max_reply);
        let limits = Limits {
            max_fills: settings.max_fills,
            max_waiters: settings.max_waiters,
            max_staleness: settings.max_staleness,
            fetch_churning: settings.fetch_churning,
        };
        Ok(Arc::new(Self {
            store: Store::new(sizing, hasher.clone()),
            fills: FillTable::new(settings.workers, settings.capacity, limits, hasher),
            doorkeeper: Doorkeeper::new(settings.capacity),
            leases: Leases::new(settings.max_staleness),
            max_age: settings.max_age,
            max_reply,
            stored: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            removed: AtomicU64::new(0),
        }))
    }

    /// Serves a read of `key` from the cache, if that is possible: `read` is given the reply, in its place. After
    /// [`Read::Miss`], [`lookup`](Self::lookup) says what to do. `now` was taken after the read of the socket that brought the
    /// request.
    ///
    /// `read` runs under a lock, which holds up those who store into a part of the cache: it must be short, and must not call
    /// the cache. It may copy a small reply; one of some 16 KiB or more it should [`share`](ReplyRef::share), to be copied later.
    #[inline]
    pub fn read<R>(&self, key: &[u8], scope: Scope<'_>, now: Time, read: impl FnOnce(ReplyRef<'_>) -> R) -> Read<R> {
        let found = self.store.read(key, |entry| match entry.find(scope, now) {
            Read::Hit(reply) => Read::Hit(read(reply)),
            Read::TooLarge => Read::TooLarge,
            Read::Miss => Read::Miss,
        });
        found.unwrap_or(Read::Miss)
    }

    /// What to do with a read of `key` that [`read`](Self::read) could not serve. `now` was taken after the read of the
    /// socket that brought the request.
    ///
    /// After [`Lookup::Lead`] and [`Lookup::Follow`], and only then, `waiter` was called, and will come out of the fetch
    /// when it completes.
    pub fn lookup(
        self: &Arc<Self>,
        key: &[u8],
        scope: Scope<'_>,
        now: Time,
        waiter: impl FnOnce() -> Waiter,
    ) -> Lookup {
        if key.len() > MAX_KEY_LEN || scope.arguments.len() > MAX_ARGUMENTS_LEN {
            return Lookup::Bypass(Bypass::TooLarge);
        }
        let hash = self.fills.hash(key);
        if !self.doorkeeper.admits(hash, now) {
            return Lookup::Bypass(Bypass::Rare);
        }
        let mut locked = self.fills.lock_hashed(key, hash);
        if locked.passes_by(now) {
            return Lookup::Bypass(Bypass::Churning);
        }
        // Under the lock: the fetch that this read would have followed may just have completed.
        match self.read(key, scope, now, |reply| reply.share()) {
            Read::Hit(reply) => return Lookup::Hit(reply),
            Read::TooLarge => return Lookup::Bypass(Bypass::TooLarge),
            Read::Miss => {}
        }
        match locked.join(scope, now, waiter) {
            Joined::Leads { query, id } => {
                Lookup::Lead(FillTicket { cache: self.clone(), query, fill: id, is_open: true })
            }
            Joined::Follows => Lookup::Follow,
            Joined::Busy => Lookup::Bypass(Bypass::Busy),
        }
    }

    /// The server says that `key` may have changed: every variant of it is dropped, and no fetch of it that began before
    /// will be stored. If that was known already by a write through this proxy, gives how long.
    pub fn invalidate(&self, key: &[u8], now: Time) -> Option<Duration> {
        self.drop_key(key, Change::Invalidated, now)
    }

    /// A write through this proxy that names `key` was answered, or its outcome is unknown. To be called before any byte of
    /// the answer goes to a client. Does what [`invalidate`](Self::invalidate) does.
    pub fn wrote(&self, key: &[u8], now: Time) {
        self.drop_key(key, Change::Written, now);
    }

    fn drop_key(&self, key: &[u8], change: Change, now: Time) -> Option<Duration> {
        let mut locked = self.fills.lock(key);
        let has_poisoned = locked.poison();
        let removed = self.store.remove(key);
        // That a write through this proxy was one is not news, whatever was asked for since.
        let known_for = if change == Change::Invalidated { locked.written_for(now) } else { None };
        if known_for.is_none() && (has_poisoned || !removed.is_empty()) {
            locked.note_change(change, removed.lost(), now);
        }
        drop(locked);
        if !removed.is_empty() {
            self.removed.fetch_add(1, Ordering::Relaxed);
        }
        known_for
    }

    /// Does what [`invalidate`](Self::invalidate) does, to every key that `matches`, and says how many of them the cache had.
    /// It looks at every fetch, and at every entry, as a [`sweep`](Self::sweep) does.
    pub fn flush_matching(&self, mut matches: impl FnMut(&[u8]) -> bool, now: Time) -> usize {
        // First those that are under way: one that stores meanwhile is found among the entries.
        for query in self.fills.queries() {
            if matches(query.key()) {
                self.fills.lock(query.key()).poison();
            }
        }
        let mut count = 0;
        self.store.each(|entry| {
            if matches(entry.key()) {
                self.drop_key(entry.key(), Change::Flushed, now);
                count += 1;
            }
        });
        count
    }

    /// Shows `visit` the keys that were served since this was last called, each with the number of a database that it was
    /// served from. It looks at every entry, as a [`sweep`](Self::sweep) does.
    pub fn recently_used(&self, mut visit: impl FnMut(&[u8], u16)) {
        self.store.each(|entry| {
            for variant in entry.variants() {
                if let (Some(terms), Some(scope)) = (variant.terms(), variant.scope())
                    && terms.take_recently_used()
                {
                    visit(entry.key(), scope.db);
                }
            }
        });
    }

    /// Everything may have changed: all entries die, and every fetch that has been sent is kept from storing and from
    /// taking followers, all by the death of their leases. A fetch that has not been sent goes on: its answer will be newer
    /// than this.
    pub fn flush(&self) {
        self.leases.kill_all();
    }

    /// What the connections of this group vouch for may have changed unnoticed (their node lost slots, or its role): does what
    /// [`flush`](Self::flush) does, to what was fetched on their leases. Those opened later begin anew.
    pub fn retire(&self, group: u64) {
        self.leases.kill_group(group);
    }

    /// A lease for a connection whose stream now carries the invalidations of what it fetches. It serves nothing until its
    /// owner renews it for the first time. `group` is a number that the caller gives those whose leases end together: a node.
    pub fn open_lease(self: &Arc<Self>, group: u64) -> LeaseOwner {
        self.leases.open(group)
    }

    /// Frees what can never be served again, because its lease is dead or its time is over, and says how many entries that
    /// were. Then moves the line between the entries and the table that holds them, if the table has grown or emptied.
    ///
    /// It looks at every entry, at some 100 ns each, and holds no lock for longer than one of them takes: something to do
    /// every few seconds, on a thread that serves nobody.
    pub fn sweep(&self, now: Time) -> usize {
        let freed = self.store.sweep(now);
        self.store.make_room_for_table();
        freed
    }

    /// Entries in the cache, dead ones that were not swept yet among them.
    pub fn entries(&self) -> usize {
        self.store.entries()
    }

    /// Bytes that the entries take.
    pub fn bytes(&self) -> u64 {
        self.store.weight()
    }

    /// Fetches in flight.
    pub fn fills(&self) -> usize {
        self.fills.in_flight()
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        Stats {
            stored: self.stored.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            removed: self.removed.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn complete(&self, ticket: &FillTicket, answer: Answer<'_>, now: Time) -> Waiters {
        // Built before the lock that stores it, since a large value takes a while to copy; but not for nothing.
        let variant = self.fills.lock(ticket.key()).find(&ticket.fill).and_then(|fill| self.terms(fill, answer, now));
        let variant = variant.map(|(lease, deadline)| {
            let reply = answer.reply().filter(|reply| reply.len() <= self.max_reply);
            self.store.fitting(NewVariant { key: ticket.key(), scope: ticket.scope(), lease, deadline, reply })
        });

        let mut locked = self.fills.lock(ticket.key());
        let Some(mut fill) = locked.take(&ticket.fill) else {
            return Waiters::none();
        };
        if let Some(death) = fill.death(answer) {
            fill.waiters.part_late(death);
        }
        let variant = variant.filter(|_| fill.may_store());
        let is_stored = variant.is_some();
        let evicted = variant.map(|variant| {
            fill.note_stored();
            if fill.waiters.len() > 1 {
                // It has been served to others than who asked first.
                variant.terms().iter().for_each(|terms| terms.note_use());
            }
            self.store.insert(variant, now)
        });
        drop(locked);
        if evicted.as_ref().is_some_and(|evicted| evicted.has_other_than(ticket.key())) {
            self.doorkeeper.evicted(now);
        }
        drop(evicted);
        match answer {
            _ if is_stored => self.stored.fetch_add(1, Ordering::Relaxed),
            Answer::Expiring | Answer::Discard => 0,
            Answer::Store { .. } | Answer::TooLarge { .. } => self.refused.fetch_add(1, Ordering::Relaxed),
        };
        fill.waiters
    }

    /// On which terms the answer to `fill` may be served, if it may be stored at all.
    fn terms(&self, fill: &Fill, answer: Answer<'_>, now: Time) -> Option<(Lease, Deadline)> {
        let ttl = match answer {
            Answer::Store { ttl, .. } | Answer::TooLarge { ttl } => ttl,
            Answer::Expiring | Answer::Discard => return None,
        };
        let age = match ttl {
            Ttl::Persistent => self.max_age,
            Ttl::Millis(millis) => self.max_age.min(Duration::from_millis(millis)),
        };
        let deadline = Deadline::new(fill.asked_at, age);
        let lease = fill.lease.as_ref().filter(|_| fill.may_store() && deadline.is_after(now))?;
        Some((lease.clone(), deadline))
    }
}
