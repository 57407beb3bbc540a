//! Which keys the session's own unanswered commands touch, so that a cached read does not overtake a write, nor a
//! command a fetch.

use std::collections::{HashSet, VecDeque};

use nearside_nearcache::Time;
use rustc_hash::FxBuildHasher;

/// Keys remembered by name; more in flight count as "every key", which is safe: such reads go upstream in order.
const REMEMBERED: usize = 64;

/// A key, or a claim on all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Key(u64),
    EveryKey,
}

/// Hashes, not keys: a collision only makes a command wait, or a read bypass the cache.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Writes on forward lanes, oldest first. Those on one lane are answered in this order.
    writes: VecDeque<(u64, Claim)>,
    /// Fetches for this session, in any order.
    fetches: Vec<Fetch>,
    /// Commands that a node of a cluster has sent elsewhere.
    redirected: HashSet<u64, FxBuildHasher>,
}

/// A fetch this session waits for.
#[derive(Debug, Clone, Copy)]
struct Fetch {
    sequence: u64,
    key: u64,
    since: Time,
}

impl Order {
    /// The hash that stands for a key.
    #[inline]
    pub(crate) fn hash(key: &[u8]) -> u64 {
        let mut hash = rustc_hash::FxHasher::default();
        std::hash::Hasher::write(&mut hash, key);
        std::hash::Hasher::finish(&hash)
    }

    /// A write of `key` was sent.
    #[inline]
    pub(crate) fn wrote(&mut self, sequence: u64, key: &[u8]) {
        if self.writes.len() < REMEMBERED {
            self.writes.push_back((sequence, Claim::Key(Self::hash(key))));
        } else {
            self.wrote_anything(sequence);
        }
    }

    /// A write of unknown keys was sent.
    pub(crate) fn wrote_anything(&mut self, sequence: u64) {
        if self.writes.back() != Some(&(sequence, Claim::EveryKey)) {
            self.writes.push_back((sequence, Claim::EveryKey));
        }
    }

    /// A fetch of `key` is under way.
    pub(crate) fn fetches(&mut self, sequence: u64, key: &[u8], since: Time) {
        self.fetches.push(Fetch { sequence, key: Self::hash(key), since });
    }

    /// The command was answered by a forward lane.
    #[inline]
    pub(crate) fn forward_answered(&mut self, sequence: u64) {
        if self.writes.front().is_some_and(|(first, _)| *first <= sequence) {
            self.forget_writes(sequence);
        }
        self.arrived(sequence);
    }

    /// The command is answered, by whatever node: a read that a fetch brought nothing for may have been redirected too.
    #[inline]
    pub(crate) fn arrived(&mut self, sequence: u64) {
        if !self.redirected.is_empty() {
            self.redirected.remove(&sequence);
        }
    }

    fn forget_writes(&mut self, sequence: u64) {
        // They are in order, those of one command next to each other: nearly always it is the oldest that is answered.
        if self.writes.front().is_some_and(|(first, _)| *first == sequence) {
            while self.writes.front().is_some_and(|(first, _)| *first == sequence) {
                self.writes.pop_front();
            }
            return;
        }
        let first = self.writes.partition_point(|(other, _)| *other < sequence);
        let end = self.writes.partition_point(|(other, _)| *other <= sequence);
        if first < end {
            self.writes.drain(first..end);
        }
    }

    /// The command was not carried out where it was sent, and is on its way to another node.
    pub(crate) fn redirected(&mut self, sequence: u64) {
        self.redirected.insert(sequence);
    }

    /// Whether the command is not answered yet, and was sent on to another node at least once.
    pub(crate) fn was_redirected(&self, sequence: u64) -> bool {
        self.redirected.contains(&sequence)
    }

    /// A command is on its way to another node: what is sent now might overtake it.
    #[inline]
    pub(crate) fn any_redirected(&self) -> bool {
        !self.redirected.is_empty()
    }

    /// The fetch was answered.
    pub(crate) fn fetch_answered(&mut self, sequence: u64) {
        self.fetches.retain(|fetch| fetch.sequence != sequence);
        self.arrived(sequence);
    }

    /// When the fetch was asked for.
    pub(crate) fn fetch_since(&self, sequence: u64) -> Option<Time> {
        self.fetches.iter().find(|fetch| fetch.sequence == sequence).map(|fetch| fetch.since)
    }

    /// A fetch that was asked for before `time`.
    pub(crate) fn fetch_before(&self, time: Time) -> Option<u64> {
        self.fetches.iter().find(|fetch| fetch.since < time).map(|fetch| fetch.sequence)
    }

    /// May a write of this session change `key` before a read sent now?
    #[inline]
    pub(crate) fn write_pending(&self, key: &[u8]) -> bool {
        if self.writes.is_empty() {
            return false;
        }
        let hash = Self::hash(key);
        self.writes.iter().any(|(_, claim)| *claim == Claim::EveryKey || *claim == Claim::Key(hash))
    }

    /// Fetches are under way for this session.
    #[inline]
    pub(crate) fn any_fetch(&self) -> bool {
        !self.fetches.is_empty()
    }

    /// How many.
    pub(crate) fn fetches_under_way(&self) -> usize {
        self.fetches.len()
    }

    /// A fetch of `key` is under way for this session.
    pub(crate) fn fetch_pending(&self, key: &[u8]) -> bool {
        let hash = Self::hash(key);
        self.fetches.iter().any(|fetch| fetch.key == hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_pending_until_it_is_answered_itself() {
        let mut order = Order::default();
        order.wrote(3, b"k");
        order.wrote(3, b"l");
        order.wrote(4, b"m");
        assert!(order.write_pending(b"k") && !order.write_pending(b"other"));
        order.forward_answered(2);
        order.forward_answered(5);
        assert!(order.write_pending(b"k"), "answers of several lanes come in any order");
        order.forward_answered(4);
        assert!(order.write_pending(b"k") && order.write_pending(b"l") && !order.write_pending(b"m"));
        order.forward_answered(3);
        assert!(!order.write_pending(b"k") && !order.write_pending(b"l"));
    }

    #[test]
    fn a_redirected_command_holds_others_back_until_it_is_answered() {
        let mut order = Order::default();
        order.redirected(3);
        order.redirected(3);
        order.redirected(4);
        order.forward_answered(3);
        assert!(order.any_redirected());
        order.fetch_answered(4);
        assert!(!order.any_redirected());
    }

    #[test]
    fn too_many_writes_claim_every_key() {
        let mut order = Order::default();
        for i in 0..=REMEMBERED as u64 {
            order.wrote(i, format!("k{i}").as_bytes());
        }
        assert!(order.write_pending(b"never written"));
        (0..=REMEMBERED as u64).for_each(|i| order.forward_answered(i));
        assert!(!order.write_pending(b"k1"));
    }

    #[test]
    fn a_fetch_is_pending_until_it_is_answered() {
        let mut order = Order::default();
        order.fetches(1, b"a", Time(0));
        order.fetches(2, b"b", Time(0));
        order.fetch_answered(2);
        assert!(order.fetch_pending(b"a") && !order.fetch_pending(b"b") && order.any_fetch());
    }
}
