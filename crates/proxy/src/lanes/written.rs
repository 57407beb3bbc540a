//! The keys of writes whose replies are still to come.
//!
//! A lane's replies come in the order of its commands, so their keys can stand one after the other in a ring of bytes:
//! no allocation per write.

use std::collections::VecDeque;
use std::sync::Arc;

use nearside_nearcache::{NearCache, Time};

/// What a command may change, decided when it is sent, carried out when its reply arrives (or can no longer arrive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// This many keys, queued in [`WrittenKeys`].
    Keys(u32),
    /// This many keys, queued in [`WrittenKeys`], and others that only the upstream can name: its reply waits until the
    /// upstream has named them ([`crate::lanes::fence`]).
    KeysAndOthers(u32),
    /// Anything, also what the upstream sends no invalidation for.
    Everything,
}

impl Effect {
    /// How many keys are queued.
    pub(crate) fn keys(self) -> u32 {
        match self {
            Effect::Keys(count) | Effect::KeysAndOthers(count) => count,
            Effect::None | Effect::Everything => 0,
        }
    }

    /// It may change keys that are not queued.
    pub(crate) fn is_open_ended(self) -> bool {
        matches!(self, Effect::KeysAndOthers(_) | Effect::Everything)
    }

    /// What the command may have changed leaves the cache. `now`: about when that became known.
    pub(super) fn apply(self, written: &mut WrittenKeys, cache: Option<&Arc<NearCache>>, now: Time) {
        let Some(cache) = cache else { return };
        match self {
            Effect::None => {}
            Effect::Keys(count) | Effect::KeysAndOthers(count) => written.pop(count, |key| cache.wrote(key, now)),
            Effect::Everything => cache.flush(),
        }
    }
}

/// A FIFO of keys.
#[derive(Debug, Default)]
pub(crate) struct WrittenKeys {
    bytes: VecDeque<u8>,
    lengths: VecDeque<u32>,
}

impl WrittenKeys {
    /// Queues a key.
    pub(crate) fn push(&mut self, key: &[u8]) {
        self.bytes.extend(key);
        self.lengths.push_back(u32::try_from(key.len()).expect("an argument is at most 512 MiB"));
    }

    /// Takes the oldest `count` keys and shows each to `visit`.
    pub(crate) fn pop(&mut self, count: u32, mut visit: impl FnMut(&[u8])) {
        for _ in 0..count {
            let length = self.lengths.pop_front().expect("as many keys were queued as are taken") as usize;
            let (front, _) = self.bytes.as_slices();
            if front.len() >= length {
                visit(&front[..length]);
            } else {
                visit(&self.bytes.make_contiguous()[..length]);
            }
            self.bytes.drain(..length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_out_in_order_also_when_the_ring_wraps() {
        let mut keys = WrittenKeys::default();
        let mut next_out = 0u32;
        for i in 0..1000u32 {
            keys.push(format!("key-{i}").repeat(1 + i as usize % 3).as_bytes());
            if i % 3 != 0 {
                keys.pop(1, |key| {
                    assert_eq!(key, format!("key-{next_out}").repeat(1 + next_out as usize % 3).as_bytes());
                });
                next_out += 1;
            }
        }
    }
}
