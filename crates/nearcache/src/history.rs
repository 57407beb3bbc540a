//! What is remembered of keys that change.
//!
//! A key that changes more often than it is read is not worth a fetch: that is two commands and an invalidation for a reply
//! nobody is served. Each time a key's replies are dropped before anybody was served one of them, reads of it pass the cache by
//! for a while, twice as many as the time before, and for twice as long at most; each time somebody was, for less. Where that
//! happens to most keys, the first time is enough for a good while: else each of very many keys would have to show by itself
//! what they have in common.
//!
//! It is a small table that forgets: a key takes the place of the one that matters least among the few it collides with, once
//! that has aged.

use std::time::Duration;

use crate::time::Time;

/// Bytes of the cache's capacity for each key remembered: a few of a hundred that a cache of small items holds.
const BYTES_PER_KEY: u64 = 8192;
/// An invalidation that comes later is that of another change: not every write that names a key changes it.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(1);
/// Keys that share a place in the table.
const BUCKET: usize = 4;
/// Replies dropped unserved from which on reads pass by.
const PASS_BY_FROM: u8 = 3;
/// From here on it does not grow: some thousand reads pass by.
const MOST_USELESS: u8 = 12;
/// As the first one that counts, after so long nothing passes by any more: many keys that nobody reads for a while, and that
/// change meanwhile, are as new then.
const PASSES_FOR: Duration = Duration::from_millis(4);
/// Where most replies are dropped unserved, a key begins here: 128 reads pass by.
const USELESS_AMONG_SUCH: u8 = 8;
/// Drops that count for what most are: of the last ones, the older the less.
const DROPS: u16 = 1024;
/// So few say nothing: where three of ten are useless, four of ten of a few dozen easily are.
const FEW_DROPS: u16 = 256;

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

/// What a change of a key has put an end to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// A reply that somebody was served.
    Served,
    /// A reply that nobody was served.
    Unserved,
    /// Only a fetch that was under way: of a key that changes in less time than that takes. What others do it does not tell.
    Fetch,
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
    last: Last,
}

/// Which change was the last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Invalidated,
    Written,
    /// And the server has said so too.
    Confirmed,
    Flushed,
}

/// Those that share a place: one line of the processor's cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Bucket([Slot; BUCKET]);

const _: () = assert!(size_of::<Bucket>() == 64, "a look at the history is one at memory");

/// See the module.
pub(crate) struct History {
    buckets: Box<[Bucket]>,
    /// Of the last replies that were dropped, whatever key they were of: those that had been served, and those that had not.
    served: u16,
    unserved: u16,
    /// No read passes by.
    fetch_churning: bool,
}

impl History {
    /// How many bytes those of all shards take, for a cache of this capacity.
    pub(crate) fn len(capacity: u64) -> u64 {
        capacity / BYTES_PER_KEY * size_of::<Slot>() as u64
    }

    /// One of so many, for a cache of this capacity.
    pub(crate) fn new(capacity: u64, shards: usize, fetch_churning: bool) -> Self {
        let keys = usize::try_from(capacity / BYTES_PER_KEY).unwrap_or(usize::MAX);
        let buckets = (keys / BUCKET / shards).max(1);
        Self { buckets: vec![Bucket([Slot::EMPTY; BUCKET]); buckets].into(), served: 0, unserved: 0, fetch_churning }
    }

    /// The key has changed.
    pub(crate) fn note(&mut self, hash: u64, change: Change, lost: Lost, now: Time) {
        let (tag, was_useful) = (hash as u32, lost == Lost::Served);
        if change != Change::Flushed && lost != Lost::Fetch {
            self.count(was_useful);
        }
        let fetch_churning = self.fetch_churning;
        let begins_at = if self.most_are_useless() { USELESS_AMONG_SUCH } else { 1 };
        let bucket = self.bucket(hash);
        let known = bucket.iter().position(|slot| slot.is(tag));
        let least = || (0..BUCKET).min_by_key(|&at| (bucket[at].useless, bucket[at].at)).unwrap_or(0);
        let slot = &mut bucket[known.unwrap_or_else(least)];
        if known.is_none() {
            if slot.useless > 0 {
                slot.useless -= 1;
                return;
            }
            *slot = Slot { tag, ..Slot::EMPTY };
        }
        (slot.at, slot.last) = (now, Last::of(change));
        if change == Change::Flushed {
            return; // which says nothing of how the key is used
        }
        slot.useless = match was_useful {
            true => slot.useless.saturating_sub(1),
            false => (slot.useless + 1).clamp(begins_at, MOST_USELESS),
        };
        let passes = slot.useless >= PASS_BY_FROM && !was_useful && !fetch_churning;
        slot.pass_by = if passes { 1 << (slot.useless - 1) } else { 0 };
    }

    fn count(&mut self, was_useful: bool) {
        let count = if was_useful { &mut self.served } else { &mut self.unserved };
        *count += 1;
        if self.served + self.unserved == DROPS {
            (self.served, self.unserved) = (self.served / 2, self.unserved / 2);
        }
    }

    /// Two of five replies are dropped unserved, or more: all of them together hardly pay for their fetches.
    fn most_are_useless(&self) -> bool {
        let drops = self.served + self.unserved;
        drops >= FEW_DROPS && self.unserved * 5 > drops * 2
    }

    /// Whether a read of the key passes by; counts it.
    pub(crate) fn passes_by(&mut self, hash: u64, now: Time) -> bool {
        let Some(slot) = self.find(hash).filter(|slot| slot.passing_by(now) > 0) else { return false };
        slot.pass_by -= 1;
        true
    }

    /// How long ago the key was written, if that is its last change, of not so long ago, and this is asked for the first time.
    pub(crate) fn written_for(&mut self, hash: u64, now: Time) -> Option<Duration> {
        let slot = self.find(hash).filter(|slot| slot.last == Last::Written && now - slot.at < CONFIRMED_WITHIN)?;
        slot.last = Last::Confirmed;
        Some(now - slot.at)
    }

    pub(crate) fn last_change(&mut self, hash: u64, now: Time) -> Option<LastChange> {
        let slot = self.find(hash)?;
        Some(LastChange { change: slot.last.change(), at: slot.at, passing_by: slot.passing_by(now) })
    }

    fn find(&mut self, hash: u64) -> Option<&mut Slot> {
        self.bucket(hash).iter_mut().find(|slot| slot.is(hash as u32))
    }

    fn bucket(&mut self, hash: u64) -> &mut [Slot; BUCKET] {
        // Other bits than those that choose the shard, and those that the table of fetches takes.
        let buckets = self.buckets.len();
        &mut self.buckets[(hash >> 44) as usize % buckets].0
    }
}

impl Last {
    fn of(change: Change) -> Self {
        match change {
            Change::Invalidated => Self::Invalidated,
            Change::Written => Self::Written,
            Change::Flushed => Self::Flushed,
        }
    }

    fn change(self) -> Change {
        match self {
            Self::Invalidated => Change::Invalidated,
            Self::Written | Self::Confirmed => Change::Written,
            Self::Flushed => Change::Flushed,
        }
    }
}

impl Slot {
    const EMPTY: Self = Self { at: Time(0), tag: 0, pass_by: 0, useless: 0, last: Last::Invalidated };

    /// How many of the next reads pass by.
    fn passing_by(&self, now: Time) -> u16 {
        let is_over = now - self.at >= PASSES_FOR * (1 << self.useless);
        if is_over { 0 } else { self.pass_by }
    }

    /// Whether it is that of the key with this tag.
    fn is(&self, tag: u32) -> bool {
        self.tag == tag && self.at != Time(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1);

    fn served_if(was_served: bool) -> Lost {
        if was_served { Lost::Served } else { Lost::Unserved }
    }

    fn passed_by(history: &mut History, hash: u64) -> usize {
        std::iter::from_fn(|| history.passes_by(hash, NOW).then_some(())).count()
    }

    #[test]
    fn reads_of_a_key_that_is_dropped_unserved_again_and_again_pass_by() {
        let mut history = History::new(1 << 30, 1, false);
        let counts: Vec<_> = (0..14)
            .map(|_| {
                history.note(7, Change::Invalidated, Lost::Unserved, NOW);
                passed_by(&mut history, 7)
            })
            .collect();
        assert_eq!(counts[..5], [0, 0, 4, 8, 16]);
        assert_eq!(counts[12..], [2048, 2048]);
    }

    #[test]
    fn a_key_that_is_served_does_not_pass_by() {
        let mut history = History::new(1 << 30, 1, false);
        for _ in 0..100 {
            history.note(7, Change::Written, Lost::Unserved, NOW);
            history.note(7, Change::Written, Lost::Served, NOW);
            history.note(7, Change::Written, Lost::Served, NOW);
            assert_eq!(passed_by(&mut history, 7), 0);
        }
    }

    #[test]
    fn where_most_keys_are_dropped_unserved_a_new_one_passes_by_at_once() {
        let mut history = History::new(1 << 30, 1, false);
        let key = |number: u64| number << 44 | number;
        for number in 1..=u64::from(FEW_DROPS) {
            history.note(key(number), Change::Written, served_if(number % 5 > 2), NOW);
        }
        history.note(key(1000), Change::Written, Lost::Unserved, NOW);
        assert_eq!(passed_by(&mut history, key(1000)), 128);
        for number in 1..=u64::from(DROPS) {
            history.note(key(number), Change::Written, served_if(number % 5 > 0), NOW);
        }
        history.note(key(2000), Change::Written, Lost::Unserved, NOW);
        assert_eq!(passed_by(&mut history, key(2000)), 0, "most are useful");
    }

    #[test]
    fn fetches_that_a_change_overtook_say_nothing_of_other_keys() {
        let mut history = History::new(1 << 30, 1, false);
        let key = |number: u64| number << 44 | number;
        for number in 1..=u64::from(DROPS) {
            history.note(key(number), Change::Written, Lost::Fetch, NOW);
        }
        history.note(key(2000), Change::Written, Lost::Unserved, NOW);
        assert_eq!(passed_by(&mut history, key(2000)), 0);
        (0..3).for_each(|_| history.note(key(2000), Change::Written, Lost::Fetch, NOW));
        assert_eq!(passed_by(&mut history, key(2000)), 8, "of their own they do");
    }

    #[test]
    fn reads_do_not_pass_by_for_ever() {
        let mut history = History::new(1 << 30, 1, false);
        (0..3).for_each(|_| history.note(7, Change::Written, Lost::Unserved, NOW));
        let end = NOW + PASSES_FOR * 8;
        assert!(history.passes_by(7, Time(end.0 - 1)) && !history.passes_by(7, end));
        assert_eq!(history.last_change(7, end).map(|last| last.passing_by), Some(0));
        history.note(7, Change::Written, Lost::Unserved, end);
        assert!(history.passes_by(7, end + PASSES_FOR * 15), "twice as long the next time");
    }

    #[test]
    fn another_key_in_its_place_has_to_wait_until_it_has_aged() {
        // All in one place, with tags of their own.
        let mut history = History::new(0, 1, false);
        for key in 1..=BUCKET as u64 {
            (0..3 + key).for_each(|_| history.note(key, Change::Invalidated, Lost::Unserved, NOW));
        }
        let (first, other) = (1, 1 + BUCKET as u64);
        (0..4).for_each(|_| history.note(other, Change::Invalidated, Lost::Unserved, NOW));
        assert_eq!((history.passes_by(first, NOW), history.passes_by(other, NOW)), (true, false));
        assert!(history.last_change(first, NOW).is_some() && history.last_change(other, NOW).is_none());
        history.note(other, Change::Written, Lost::Unserved, Time(2));
        let known = LastChange { change: Change::Written, at: Time(2), passing_by: 0 };
        assert_eq!((history.last_change(first, NOW), history.last_change(other, NOW)), (None, Some(known)));
    }
}
