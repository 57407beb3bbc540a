//! The ticket of a fetch: the only way into the cache.
//!
//! It exists before the fetch is sent, so that whatever happens to the key meanwhile finds it and poisons it; and it takes
//! its lease from the connection that its bytes are written to, so that what it stores is vouched for by that connection.

use std::sync::Arc;

use crate::cache::NearCache;
use crate::entry::Scope;
use crate::fill::{FillId, Waiters};
use crate::lease::Lease;
use crate::query::Query;
use crate::time::Time;

/// The right, and the duty, to fetch one reply.
///
/// The holder guarantees to call [`sent`](Self::sent) before the first byte of the fetch is written, to hand the cache every
/// invalidation that came before the answer on that connection, and then to [`complete`](Self::complete). A ticket that is
/// dropped instead is forgotten: those who wait for it run into deadlines of their own.
#[must_use = "those who wait for it get no answer otherwise"]
pub struct FillTicket {
    pub(crate) cache: Arc<NearCache>,
    pub(crate) query: Query,
    pub(crate) fill: FillId,
    pub(crate) is_open: bool,
}

/// How a fetch ended.
#[derive(Copy, Clone, Debug)]
pub enum Answer<'a> {
    /// A reply to keep, as it came from the server, whole.
    Store {
        /// The bytes of one reply.
        reply: &'a [u8],
        /// How long the value lives, as the server said beside it.
        ttl: Ttl,
    },
    /// The value is larger than the cache keeps: remember that, as long as the value itself would have been remembered.
    TooLarge {
        /// How long the value lives, as the server said beside it.
        ttl: Ttl,
    },
    /// A value that may have expired since it was read: nothing to keep, and no answer to a read that began after it was asked
    /// for.
    Expiring,
    /// Nothing to keep: an error, a connection that was lost.
    Discard,
}

impl<'a> Answer<'a> {
    pub(crate) fn reply(&self) -> Option<&'a [u8]> {
        match self {
            Answer::Store { reply, .. } => Some(reply),
            Answer::TooLarge { .. } | Answer::Expiring | Answer::Discard => None,
        }
    }
}

/// A value's time to live: the answer to `PTTL`. An answer that came with −2, 0 or an error is
/// [`Answer::Expiring`], unless it is the absence of the key that is cached.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// None (−1), or the key is missing and its absence is what is cached.
    Persistent,
    /// Milliseconds.
    Millis(u64),
}

impl FillTicket {
    /// The key to fetch.
    pub fn key(&self) -> &[u8] {
        self.query.key()
    }

    /// For whom, from where, and by which command.
    pub fn scope(&self) -> Scope<'_> {
        self.query.scope()
    }

    /// Its bytes are about to be written, at `at`, on the connection that owns `lease`. Called again when the fetch is
    /// repeated on another connection.
    pub fn sent(&mut self, lease: &Lease, at: Time) {
        self.cache.fills.sent(&self.fill, lease, at);
    }

    /// Ends the fetch: stores the answer, if that is still allowed, and gives back those who wait for it. They are owed the
    /// answer in any case: the reads that they are began before whatever forbade to store it. But what it tells of may have
    /// expired before some of them came: see [`Waiters::take_late`].
    pub fn complete(mut self, answer: Answer<'_>, now: Time) -> Waiters {
        self.is_open = false;
        self.cache.complete(&self, answer, now)
    }
}

impl Drop for FillTicket {
    fn drop(&mut self) {
        if self.is_open {
            self.cache.fills.forget(&self.fill);
        }
    }
}
