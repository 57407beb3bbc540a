//! What is remembered of keys that change.
//!
//! A key that changes more often than it is read is not worth a fetch: that is two commands and an invalidation for a reply
//! nobody is served. Each time a key's replies are dropped before anybody was served one of them, reads of it pass the cache by
//! for a while, twice as many as the time before; each time somebody was, for less.
//!
//! It is a small table that forgets: a key takes the place of another one that it collides with, once that has aged.

use std::time::Duration;

use crate::time::Time;

/// Keys remembered in each shard.
const SLOTS: usize = 1024;
/// Replies dropped unserved from which on reads pass by.
const PASS_BY_FROM: u8 = 3;
/// From here on it does not grow: some thousand reads pass by.
const MOST_USELESS: u8 = 12;

/// Why replies were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The server said that the key may have changed.
    Invalidated,
    /// A write through this proxy named it.
    Written,
    /// Somebody asked for it.
    Flushed,
}

/// The last time that replies of a key were dropped, or kept from being stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastChange {
    /// Why.
    pub change: Change,
    /// When.
    pub at: Time,
    /// How many of the next reads pass the cache by.
    pub passing_by: u16,
}

#[derive(Clone, Copy)]
struct Slot {
    at: Time,
    tag: u32,
    pass_by: u16,
    /// How often replies were dropped unserved, less how often they were not.
    useless: u8,
    change: Change,
    /// The server has said so too.
    is_confirmed: bool,
}

pub(crate) struct History(Box<[Slot]>);

impl Default for History {
    fn default() -> Self {
        let slot =
            Slot { at: Time(0), tag: 0, pass_by: 0, useless: 0, change: Change::Invalidated, is_confirmed: false };
        Self(vec![slot; SLOTS].into())
    }
}

impl History {
    /// The key has changed; `was_useful`: somebody was served what was dropped.
    pub(crate) fn note(&mut self, hash: u64, change: Change, was_useful: bool, now: Time) {
        let (slot, tag) = self.slot(hash);
        if slot.tag != tag {
            if slot.useless > 0 {
                slot.useless -= 1;
                return;
            }
            (slot.tag, slot.pass_by) = (tag, 0);
        }
        (slot.at, slot.change, slot.is_confirmed) = (now, change, false);
        if change == Change::Flushed {
            return; // which says nothing of how the key is used
        }
        slot.useless = if was_useful { slot.useless.saturating_sub(1) } else { (slot.useless + 1).min(MOST_USELESS) };
        let passes = slot.useless >= PASS_BY_FROM && !was_useful;
        slot.pass_by = if passes { 1 << (slot.useless - 1) } else { 0 };
    }

    /// Whether a read of the key passes by; counts it.
    pub(crate) fn passes_by(&mut self, hash: u64) -> bool {
        let (slot, tag) = self.slot(hash);
        let passes = slot.tag == tag && slot.pass_by > 0;
        slot.pass_by -= u16::from(passes);
        passes
    }

    /// How long ago the key was written, if that is its last change and this is asked for the first time.
    pub(crate) fn written_for(&mut self, hash: u64, now: Time) -> Option<Duration> {
        let (slot, tag) = self.slot(hash);
        let is_known = slot.tag == tag && slot.change == Change::Written;
        (is_known && !std::mem::replace(&mut slot.is_confirmed, true)).then(|| now - slot.at)
    }

    pub(crate) fn last_change(&mut self, hash: u64) -> Option<LastChange> {
        let (slot, tag) = self.slot(hash);
        let is_known = slot.tag == tag && slot.at != Time(0);
        is_known.then_some(LastChange { change: slot.change, at: slot.at, passing_by: slot.pass_by })
    }

    fn slot(&mut self, hash: u64) -> (&mut Slot, u32) {
        // Other bits than those that choose the shard, and those that the table of fetches takes.
        (&mut self.0[(hash >> 44) as usize % SLOTS], hash as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1);

    fn passed_by(history: &mut History, hash: u64) -> usize {
        std::iter::from_fn(|| history.passes_by(hash).then_some(())).count()
    }

    #[test]
    fn reads_of_a_key_that_is_dropped_unserved_again_and_again_pass_by() {
        let mut history = History::default();
        let counts: Vec<_> = (0..14)
            .map(|_| {
                history.note(7, Change::Invalidated, false, NOW);
                passed_by(&mut history, 7)
            })
            .collect();
        assert_eq!(counts[..5], [0, 0, 4, 8, 16]);
        assert_eq!(counts[12..], [2048, 2048]);
    }

    #[test]
    fn a_key_that_is_served_does_not_pass_by() {
        let mut history = History::default();
        for _ in 0..100 {
            history.note(7, Change::Written, false, NOW);
            history.note(7, Change::Written, true, NOW);
            history.note(7, Change::Written, true, NOW);
            assert_eq!(passed_by(&mut history, 7), 0);
        }
    }

    #[test]
    fn another_key_in_its_place_has_to_wait_until_it_has_aged() {
        let mut history = History::default();
        let other = 7 + 1; // the same slot, another tag
        (0..4).for_each(|_| history.note(7, Change::Invalidated, false, NOW));
        (0..4).for_each(|_| history.note(other, Change::Invalidated, false, NOW));
        assert_eq!((history.passes_by(7), history.passes_by(other)), (true, false));
        assert!(history.last_change(7).is_some() && history.last_change(other).is_none());
        history.note(other, Change::Written, false, Time(2));
        let known = LastChange { change: Change::Written, at: Time(2), passing_by: 0 };
        assert_eq!((history.last_change(7), history.last_change(other)), (None, Some(known)));
    }
}
