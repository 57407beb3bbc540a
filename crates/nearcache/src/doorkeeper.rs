//! Who is let in while the cache is full: keys that have been asked for before.
//!
//! A fetch costs more than a read, and pays when what it brings is served again. While there is room that costs little to find
//! out. A full cache evicts something for it; and of keys that are read once, out of more than fit, it would evict in vain,
//! read after read. So from an eviction on, for some seconds, a key is fetched at its second read only, if that comes before
//! about as many reads of other keys as the cache has room for. That is the doorkeeper of TinyLFU
//! (<https://arxiv.org/abs/1512.00727>, section 3.4.2), which forgets key by key instead of all at once.

use std::time::Duration;

use crate::sync::{AtomicU8, AtomicU64, Ordering};
use crate::time::Time;

/// Bytes of capacity for each key remembered: a small item.
const BYTES_PER_KEY: u64 = 256;
/// How long after an eviction the cache counts as full.
const FULL_FOR: Duration = Duration::from_secs(10);
/// The clock of evictions need not be finer than this: fewer writes of what all threads read.
const FULL_STEP: Duration = Duration::from_secs(1);

/// A table of keys, by a slot and a byte of their hashes. One that is taken for another is fetched a little early.
pub(crate) struct Doorkeeper {
    seen: Box<[AtomicU8]>,
    /// Until when the cache counts as full, in nanoseconds.
    full_until: AtomicU64,
}

impl Doorkeeper {
    /// How many bytes one for a cache of this capacity takes.
    pub(crate) fn len(capacity: u64) -> u64 {
        (capacity / BYTES_PER_KEY).max(1)
    }

    /// One for a cache of this capacity.
    pub(crate) fn new(capacity: u64) -> Self {
        let keys = usize::try_from(Self::len(capacity)).unwrap_or(usize::MAX);
        Self { seen: (0..keys).map(|_| AtomicU8::new(0)).collect(), full_until: AtomicU64::new(0) }
    }

    /// Something had to be evicted.
    pub(crate) fn evicted(&self, now: Time) {
        let until = now + FULL_FOR;
        if until.0 > self.full_until.load(Ordering::Relaxed).saturating_add(FULL_STEP.as_nanos() as u64) {
            self.full_until.store(until.0, Ordering::Relaxed);
        }
    }

    /// Whether a key of this hash, which was not found, is to be fetched; remembers that it was asked for.
    #[inline]
    pub(crate) fn admits(&self, hash: u64, now: Time) -> bool {
        let keeps_out = self.keeps_out(hash, now);
        if keeps_out {
            self.slot(hash).store(tag(hash), Ordering::Relaxed);
        }
        !keeps_out
    }

    /// Whether a key of this hash is not to be fetched.
    pub(crate) fn keeps_out(&self, hash: u64, now: Time) -> bool {
        now.0 < self.full_until.load(Ordering::Relaxed) && self.slot(hash).load(Ordering::Relaxed) != tag(hash)
    }

    fn slot(&self, hash: u64) -> &AtomicU8 {
        // The high half, as if it were a fraction of the table.
        &self.seen[((u128::from(hash) * self.seen.len() as u128) >> 64) as usize]
    }
}

/// A byte of the low half. 0 is nobody's.
fn tag(hash: u64) -> u8 {
    (hash as u8).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn hash(number: u64) -> u64 {
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    #[test]
    fn while_there_is_room_every_key_is_fetched() {
        let doorkeeper = Doorkeeper::new(1 << 20);
        assert!((0..1000).all(|key| doorkeeper.admits(hash(key), Time(SECOND))));
    }

    #[test]
    fn a_full_cache_fetches_at_the_second_read() {
        let doorkeeper = Doorkeeper::new(1 << 20);
        doorkeeper.evicted(Time(SECOND));
        assert!(!doorkeeper.admits(hash(7), Time(SECOND)) && doorkeeper.admits(hash(7), Time(SECOND)));
        assert!(doorkeeper.admits(hash(8), Time(11 * SECOND)), "nothing was evicted for some time");
    }

    #[test]
    fn keys_read_once_in_a_long_while_stay_outside() {
        let doorkeeper = Doorkeeper::new(1 << 20);
        doorkeeper.evicted(Time(SECOND));
        let reads = (0..10).flat_map(|_| 0..100_000);
        let admitted = reads.filter(|key| doorkeeper.admits(hash(*key), Time(SECOND))).count();
        assert!(admitted < 10_000, "{admitted} of a million");
    }
}
