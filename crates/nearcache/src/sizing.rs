//! How much memory an item takes, and how the capacity is divided.
//!
//! The capacity is a promise about resident memory, so an item weighs what it makes the process grow by: its allocation,
//! rounded up as the allocator rounds it, and its share of the table. What does not depend on the items is taken off the
//! capacity beforehand.

use quick_cache::{Options, OptionsBuilder, Weighter};
use thiserror::Error;

use crate::doorkeeper::Doorkeeper;
use crate::entry::{Entry, EntryKey, PREFIX_LEN};
use crate::history::History;

/// Bytes of the table for each item: a slot of the slab (32, as quick_cache's placeholders need it) and of the hash index (5),
/// both grown by doubling.
const SLOT_LEN: u64 = 56;
/// Bytes of the table for each ghost, the memory of a key that was evicted.
const GHOST_LEN: u64 = SLOT_LEN;
/// What is assumed when the number of ghosts is chosen: one for every two items of this weight.
const TYPICAL_WEIGHT: u64 = 512;
/// Ghosts for each item of typical weight.
const GHOST_SHARE: f64 = 0.5;
/// The share of a shard that an item's weight may reach: quick_cache admits nothing heavier than its hot part.
const HOT_SHARE: f64 = 0.97;
/// How many of the largest items a shard should hold at least, so that its last one, which does not fit any more, leaves
/// little of it empty.
const LARGEST_PER_SHARD: u64 = 4;
/// How many items of typical weight quick_cache wants in a shard: given more shards than that, it makes fewer.
const TYPICAL_PER_SHARD: u64 = 32;
/// Shards for each worker: a worker that writes to a shard holds up those that read it.
const SHARDS_PER_WORKER: usize = 4;
/// More shards than this only divide the capacity into smaller lots.
const MAX_SHARDS: usize = 1024;
/// Bytes that a reply may have around the value: type, length, line ends, the format of a verbatim string.
const FRAMING_LEN: usize = 32;

/// From this length on an allocation gets pages of its own, which go back to the system when it is freed: what the
/// program's `oversize_threshold` for jemalloc says.
const OWN_PAGES_FROM: u64 = 64 << 10;
const PAGE_LEN: u64 = 4 << 10;

/// The largest item allowed does not fit the cache.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "an item of {max_item} bytes does not fit a cache of {capacity} bytes; the largest that fits is {largest} bytes"
)]
pub struct SizeError {
    /// The largest value that was asked for, in bytes.
    pub max_item: usize,
    /// The capacity that was asked for, in bytes.
    pub capacity: u64,
    /// The largest value that a cache of this capacity can be set to hold, in bytes.
    pub largest: usize,
}

/// How a cache is laid out.
pub(crate) struct Sizing {
    pub(crate) shards: usize,
    pub(crate) weight_capacity: u64,
    /// The longest reply that is kept.
    pub(crate) max_reply: usize,
    /// The heaviest item that a shard admits, also when the table has taken as much of the capacity as it may.
    pub(crate) max_weight: u64,
    typical_items: u64,
    /// What the table may not take of the capacity, however large it has grown.
    least_capacity: u64,
}

impl Sizing {
    /// Divides the capacity. The number of shards is a power of two: some for each worker, so that a store rarely holds up
    /// a read; but no more than leave every shard room for several of the largest items, since it refuses one that comes
    /// near its own capacity, and for as many typical ones as quick_cache insists on.
    pub(crate) fn new(capacity: u64, max_item: usize, workers: usize) -> Result<Self, SizeError> {
        let typical_items = capacity / TYPICAL_WEIGHT;
        let beside = ghosts(typical_items) * GHOST_LEN + Doorkeeper::len(capacity) + History::len(capacity);
        let weight_capacity = capacity.saturating_sub(beside);
        if !fits(max_item, weight_capacity) {
            let largest = largest_item(weight_capacity);
            return Err(SizeError { max_item, capacity, largest });
        }

        let wanted = workers.saturating_mul(SHARDS_PER_WORKER).clamp(1, MAX_SHARDS);
        let of_largest = weight_capacity / (item_weight(max_item) * LARGEST_PER_SHARD);
        let room_for = of_largest.min(typical_items / TYPICAL_PER_SHARD);
        let shards = wanted.next_power_of_two().min(1 << room_for.max(1).ilog2());
        let least_capacity = (weight_capacity / 2).max(admitting(item_weight(max_item)) * shards as u64);
        let max_weight = admitted(least_capacity / shards as u64);
        let max_reply = max_item + FRAMING_LEN;
        Ok(Self { shards, weight_capacity, max_reply, max_weight, typical_items, least_capacity })
    }

    /// The capacity to set while the table takes `table_len` bytes for `items` items.
    ///
    /// Weights count the slots that are in use. A table never shrinks, so after very many small items have made way for few
    /// large ones it takes more than that.
    pub(crate) fn capacity_beside(&self, table_len: u64, items: u64) -> u64 {
        let counted = items * SLOT_LEN + ghosts(self.typical_items) * GHOST_LEN;
        let capacity = self.weight_capacity.saturating_sub(table_len.saturating_sub(counted));
        capacity.max(self.least_capacity)
    }

    pub(crate) fn options(&self) -> Options {
        OptionsBuilder::new()
            .shards(self.shards)
            .weight_capacity(self.weight_capacity)
            .estimated_items_capacity(usize::try_from(self.typical_items).unwrap_or(usize::MAX))
            .ghost_allocation(GHOST_SHARE)
            .hot_allocation(HOT_SHARE)
            .build()
            .expect("both capacities are set")
    }
}

/// The heaviest item that a shard of this capacity admits.
fn admitted(shard_capacity: u64) -> u64 {
    (shard_capacity as f64 * HOT_SHARE) as u64
}

/// The smallest shard that admits an item of this weight.
fn admitting(weight: u64) -> u64 {
    (weight as f64 / HOT_SHARE).ceil() as u64 + 1
}

fn ghosts(typical_items: u64) -> u64 {
    (typical_items as f64 * GHOST_SHARE) as u64
}

/// Whether an item of this size is admitted by a cache that is a single shard.
fn fits(max_item: usize, weight_capacity: u64) -> bool {
    max_item as u64 <= weight_capacity && admitting(item_weight(max_item)) <= weight_capacity
}

fn largest_item(weight_capacity: u64) -> usize {
    let (mut fitting, mut beyond) = (0, usize::try_from(weight_capacity).unwrap_or(usize::MAX));
    while beyond - fitting > 1 {
        let middle = fitting + (beyond - fitting) / 2;
        if fits(middle, weight_capacity) {
            fitting = middle;
        } else {
            beyond = middle;
        }
    }
    fitting
}

/// The weight of a value of this size, under a short key.
fn item_weight(value_len: usize) -> u64 {
    weight_of([PREFIX_LEN + value_len + FRAMING_LEN].into_iter())
}

/// Weighs items for the table's eviction.
#[derive(Copy, Clone)]
pub(crate) struct ItemWeighter;

impl Weighter<EntryKey, ()> for ItemWeighter {
    fn weight(&self, key: &EntryKey, (): &()) -> u64 {
        weight(&key.0)
    }
}

pub(crate) fn weight(entry: &Entry) -> u64 {
    weight_of(entry.allocations())
}

fn weight_of(allocations: impl Iterator<Item = usize>) -> u64 {
    SLOT_LEN + allocations.map(|len| resident_len(len as u64)).sum::<u64>()
}

/// What an allocation of `len` bytes makes the process grow by, under jemalloc: sizes are multiples of 16 up to 128, then
/// four to each doubling; but of a large one only the pages that are written to count, and one for their alignment.
const fn resident_len(len: u64) -> u64 {
    if len >= OWN_PAGES_FROM {
        return len.next_multiple_of(PAGE_LEN) + PAGE_LEN;
    }
    let step = match len.checked_sub(1) {
        Some(last) if last >= 128 => 1 << (last.ilog2() - 2),
        _ => 16,
    };
    len.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_jemalloc_rounds_them() {
        let classes = [(1, 16), (16, 16), (17, 32), (79, 80), (128, 128), (129, 160), (160, 160), (161, 192)];
        let larger = [(320, 320), (321, 384), (1024, 1024), (1025, 1280), (16_385, 20_480), (40_961, 49_152)];
        for (len, class) in classes.into_iter().chain(larger) {
            assert_eq!(resident_len(len), class, "{len}");
        }
    }

    #[test]
    fn of_a_large_allocation_only_its_pages_count() {
        assert_eq!(resident_len(64 << 10), 68 << 10);
        assert_eq!(resident_len((1 << 20) + 1), (1 << 20) + 8192);
    }

    #[test]
    fn shards_grow_with_the_workers_as_long_as_each_holds_several_of_the_largest_items() {
        let shards = |capacity, max_item, workers| Sizing::new(capacity, max_item, workers).map(|sizing| sizing.shards);
        assert_eq!(shards(256 << 20, 1 << 10, 1), Ok(4));
        assert_eq!(shards(256 << 20, 1 << 10, 3), Ok(16));
        assert_eq!(shards(256 << 20, 1 << 20, 64), Ok(32));
        assert_eq!(shards(4 << 20, 1 << 20, 64), Ok(1));
    }

    #[test]
    fn what_the_table_takes_beyond_the_slots_in_use_is_taken_off_the_capacity() {
        let sizing = Sizing::new(256 << 20, 1 << 20, 2).expect("it fits");
        let ghosts = ghosts(sizing.typical_items) * GHOST_LEN;
        let of_a_million = ghosts + 1_000_000 * SLOT_LEN;
        assert_eq!(sizing.capacity_beside(of_a_million, 1_000_000), sizing.weight_capacity);
        assert_eq!(sizing.capacity_beside(of_a_million, 0), sizing.weight_capacity - 1_000_000 * SLOT_LEN);
        assert_eq!(sizing.capacity_beside(1 << 40, 0), sizing.weight_capacity / 2);
    }

    #[test]
    fn quick_cache_keeps_the_number_of_shards_it_is_given() {
        use crate::{hash::KeyHasher, store::Store};
        for capacity in [1 << 20, 16 << 20, 1 << 30] {
            for workers in [1, 8, 256] {
                let sizing = Sizing::new(capacity, 1 << 10, workers).expect("it fits");
                let shards = sizing.shards;
                assert_eq!(Store::new(sizing, KeyHasher::new(None)).shards(), shards, "{capacity} {workers}");
            }
        }
    }
}
