//! What the cache knows of one key, for people who want to understand it.

use std::time::Duration;

use crate::cache::NearCache;
use crate::entry::Entry;
use crate::history::LastChange;
use crate::time::Time;

/// What is known of a key.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What is kept of it, oldest first.
    pub replies: Vec<KeptReply>,
    /// The cache is full, and the key has not been asked for lately: the next read is not fetched for the cache.
    pub is_rare: bool,
    /// Fetches of it in flight.
    pub fetches: usize,
    /// The last change that concerned something kept, or being fetched; not of keys that changed long ago.
    pub last_change: Option<LastChange>,
}

/// A reply that is kept.
#[derive(Clone, Debug)]
pub struct KeptReply {
    /// Of the scope: the user.
    pub user: u16,
    /// Of the scope: the number of the database.
    pub db: u16,
    /// Of the scope: the command.
    pub command: u8,
    /// Of the scope: the arguments.
    pub arguments: Vec<u8>,
    /// Its length in bytes; none if it was too large to be kept, which is what is remembered then.
    pub len: Option<usize>,
    /// Since when it may have changed: when the fetch was sent. To one part in 16,384 of its life.
    pub fetched_at: Time,
    /// How long it is served at most, from then on.
    pub life: Duration,
    /// When that ends.
    pub deadline: Time,
    /// Whether the connection that it came by still vouches for it.
    pub lease: LeaseState,
    /// It has been served.
    pub is_used: bool,
}

/// Whether a lease lets what was fetched on it be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// It does, until then at least.
    Live(Time),
    /// Not now, for want of a heartbeat's answer.
    Lapsed,
    /// Never again.
    Dead,
}

impl NearCache {
    /// What there is to know of `key`. Changes nothing, and counts as no use.
    pub fn explain(&self, key: &[u8], now: Time) -> Explanation {
        let hash = self.fills.hash(key);
        let mut locked = self.fills.lock_hashed(key, hash);
        let entry = self.store.peek(key);
        let variants = entry.iter().flat_map(Entry::variants);
        Explanation {
            replies: variants.filter_map(|variant| explain_variant(variant, now)).collect(),
            is_rare: self.doorkeeper.keeps_out(hash, now),
            fetches: locked.count(),
            last_change: locked.last_change(now),
        }
    }
}

fn explain_variant(variant: &Entry, now: Time) -> Option<KeptReply> {
    let (terms, scope) = (variant.terms()?, variant.scope()?);
    let (deadline, life) = (terms.deadline.at(), terms.deadline.life());
    let lease = match terms.lease.coherent_until() {
        Some(until) if until > now => LeaseState::Live(until),
        _ if terms.lease.is_dead() => LeaseState::Dead,
        _ => LeaseState::Lapsed,
    };
    let reply = variant.reply();
    Some(KeptReply {
        user: scope.user,
        db: scope.db,
        command: scope.command,
        arguments: scope.arguments.to_vec(),
        len: (!reply.is_empty()).then_some(reply.len()),
        fetched_at: Time(deadline.0.saturating_sub(u64::try_from(life.as_nanos()).unwrap_or(u64::MAX))),
        life,
        deadline,
        lease,
        is_used: terms.is_used(),
    })
}
