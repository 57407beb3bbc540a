//! Leases: until when what a connection fetched may be served.
//!
//! Redis writes replies and invalidations into a connection's one stream in the order in which things happened. So an
//! answer to a command sent at time *t* proves that every invalidation for a write executed before *t* has arrived: what
//! the connection filled is coherent until *t* plus the staleness that is allowed. A heartbeat renews that again and again.
//!
//! - A **lapsed** lease hides its entries. A later good heartbeat brings the survivors back, because every invalidation
//!   came before its answer.
//! - A **dead** lease (the connection is lost, its group was retired, or everything was flushed) stays dead: invalidations
//!   may have been missed. Its entries are dead with it, however many they are: each holds the lease, and every hit asks it.

use std::time::Duration;

use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::time::Time;

/// `coherent_until` of a dead lease. Nothing leaves this state.
const DEAD: u64 = 0;
/// `coherent_until` of a lease that was never renewed: lapsed, since no clock reads zero.
const NEVER_RENEWED: u64 = 1;

struct State {
    /// [`DEAD`], [`NEVER_RENEWED`], or the nanosecond at which the lease lapses. One word for both facts: a renewal that
    /// races with the end of the lease must not be able to undo it.
    coherent_until: AtomicU64,
    /// Whether anything was ever stored under this lease. Never goes back to false.
    has_filled: AtomicBool,
}

/// A handle on a lease, held by fetches and entries. Its owner renews and ends it: see [`LeaseOwner`].
#[derive(Clone)]
pub struct Lease(triomphe::Arc<State>);

impl Lease {
    fn new() -> Self {
        Self(triomphe::Arc::new(State {
            coherent_until: AtomicU64::new(NEVER_RENEWED),
            has_filled: AtomicBool::new(false),
        }))
    }

    /// Whether entries filled under this lease may be served at `now`.
    #[inline]
    pub fn is_live(&self, now: Time) -> bool {
        self.0.coherent_until.load(Ordering::Acquire) > now.0
    }

    /// Whether the lease has ended for good. False while it has merely lapsed.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.0.coherent_until.load(Ordering::Acquire) == DEAD
    }

    /// When the lease lapses unless it is renewed. None once it is dead, or before its first renewal.
    pub fn coherent_until(&self) -> Option<Time> {
        match self.0.coherent_until.load(Ordering::Acquire) {
            DEAD | NEVER_RENEWED => None,
            until => Some(Time(until)),
        }
    }

    pub(crate) fn note_fill(&self) {
        // Read first: the line is shared with every hit on this lease.
        if !self.0.has_filled.load(Ordering::Relaxed) {
            self.0.has_filled.store(true, Ordering::Relaxed);
        }
    }

    fn kill(&self) {
        self.0.coherent_until.store(DEAD, Ordering::Release);
    }

    fn renew(&self, until: Time, now: Time) -> Renewal {
        let renewed = self.0.coherent_until.fetch_update(Ordering::AcqRel, Ordering::Acquire, |current| {
            (current != DEAD).then(|| current.max(until.0))
        });
        match renewed {
            Err(_) => Renewal::Dead,
            Ok(_) if until <= now => Renewal::TooLate,
            Ok(NEVER_RENEWED) => Renewal::Renewed,
            Ok(previous) if previous <= now.0 => Renewal::Revived,
            Ok(_) => Renewal::Renewed,
        }
    }

    fn is(&self, other: &Lease) -> bool {
        triomphe::Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What a good heartbeat did to the lease.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease goes on, or begins.
    Renewed,
    /// The lease had lapsed, and lives again: its surviving entries are served again.
    Revived,
    /// The answer took longer than the staleness allowed: it proves nothing about now.
    TooLate,
    /// The lease is dead, and stays so. The owner opens another.
    Dead,
}

/// The right to renew a lease, held by the connection whose stream vouches for it. Dropping it kills the lease.
///
/// The owner guarantees to call [`renew`](Self::renew) only for an answer that proves the connection's server to be the one
/// that tracks its keys, to hand every invalidation that came before that answer to the cache first, and to drop the owner
/// before the connection's stream loses a byte.
#[must_use = "dropping the owner kills the lease"]
pub struct LeaseOwner {
    lease: Lease,
    registry: std::sync::Arc<Leases>,
}

impl LeaseOwner {
    /// A heartbeat sent at `sent_at` was answered well, and the answer was read at `now`: the lease holds until `sent_at`
    /// plus the staleness allowed, if it is not dead. Never shortens a lease.
    pub fn renew(&self, sent_at: Time, now: Time) -> Renewal {
        self.lease.renew(sent_at + self.registry.max_staleness, now)
    }

    /// The handle that fetches sent on this connection are given.
    pub fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// Whether a flush or the end of its group has killed the lease: the owner opens another, for the same connection.
    pub fn is_dead(&self) -> bool {
        self.lease.is_dead()
    }

    /// Whether anything was stored under this lease: if not, there is nothing that a heartbeat could keep alive.
    pub fn has_filled(&self) -> bool {
        self.lease.0.has_filled.load(Ordering::Relaxed)
    }

    /// When the lease lapses unless it is renewed. None once it is dead, or before its first renewal.
    pub fn coherent_until(&self) -> Option<Time> {
        self.lease.coherent_until()
    }
}

impl Drop for LeaseOwner {
    fn drop(&mut self) {
        self.lease.kill();
        self.registry.forget(&self.lease);
    }
}

/// All the leases that may be alive: what a flush has to kill.
pub(crate) struct Leases {
    open: Mutex<Vec<OpenLease>>,
    max_staleness: Duration,
}

struct OpenLease {
    lease: Lease,
    group: u64,
}

impl Leases {
    pub(crate) fn new(max_staleness: Duration) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self { open: Mutex::new(Vec::new()), max_staleness })
    }

    pub(crate) fn open(self: &std::sync::Arc<Self>, group: u64) -> LeaseOwner {
        let lease = Lease::new();
        self.open.lock().push(OpenLease { lease: lease.clone(), group });
        LeaseOwner { lease, registry: self.clone() }
    }

    /// Kills every lease opened before this call.
    pub(crate) fn kill_all(&self) {
        self.kill_if(|_| true);
    }

    /// Kills every lease of the group opened before this call.
    pub(crate) fn kill_group(&self, group: u64) {
        self.kill_if(|open| open.group == group);
    }

    fn kill_if(&self, ends: impl Fn(&OpenLease) -> bool) {
        for open in self.open.lock().extract_if(.., |open| ends(open)) {
            open.lease.kill();
        }
    }

    fn forget(&self, lease: &Lease) {
        self.open.lock().retain(|open| !open.lease.is(lease));
    }
}
