//! Keys that change more often than they are read.

mod fixture;

use std::sync::Arc;

use fixture::*;
use nearside_nearcache::{Change, LeaseOwner, NearCache, Settings};

/// Fetched, and changed before anybody is served.
fn fetch_in_vain(cache: &Arc<NearCache>, owner: &LeaseOwner, key: &[u8]) {
    fetch(cache, &owner.lease(), key, GET, keep(b"+v\r\n"), START);
    cache.invalidate(key, START);
}

#[test]
fn reads_of_a_key_that_changes_before_anybody_is_served_pass_by_for_a_while() {
    let cache = cache();
    let owner = live_lease(&cache);
    (0..3).for_each(|_| fetch_in_vain(&cache, &owner, b"k"));
    for _ in 0..4 {
        assert_eq!(lookup(&cache, b"k", START).name(), "churning");
    }
    assert_eq!(lookup(&cache, b"other", START).name(), "lead");
    fetch_in_vain(&cache, &owner, b"k");
    for _ in 0..8 {
        assert_eq!(lookup(&cache, b"k", START).name(), "churning");
    }
    assert_eq!(lookup(&cache, b"k", START).name(), "lead");
}

#[test]
fn keys_that_change_are_fetched_all_the_same_where_that_is_wanted() {
    let cache = NearCache::new(Settings { fetch_churning: true, ..settings() }).expect("64 KiB fits 8 MiB");
    let owner = live_lease(&cache);
    for _ in 0..20 {
        fetch_in_vain(&cache, &owner, b"k");
        assert_eq!(cache.explain(b"k", START).last_change.map(|change| change.passing_by), Some(0));
    }
}

#[test]
fn a_key_that_is_served_between_its_changes_is_cached_again_each_time() {
    let cache = cache();
    let owner = live_lease(&cache);
    for _ in 0..20 {
        fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
        assert_eq!(lookup(&cache, b"k", START).name(), "hit");
        cache.wrote(b"k", START);
    }
}

#[test]
fn a_write_through_this_proxy_counts_once_also_if_its_invalidation_meets_a_fetch() {
    let cache = cache();
    let owner = live_lease(&cache);
    for _ in 0..20 {
        fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
        assert_eq!(lookup(&cache, b"k", START).name(), "hit");
        cache.wrote(b"k", START);
        let ticket = lookup(&cache, b"k", START).lead();
        assert!(cache.invalidate(b"k", START).is_some(), "it says how late it came");
        drop(ticket);
    }
    assert_eq!(cache.explain(b"k", START).last_change.map(|change| change.passing_by), Some(0));
}

#[test]
fn a_fetch_that_is_poisoned_was_in_vain_too() {
    let cache = cache();
    for _ in 0..3 {
        let ticket = lookup(&cache, b"k", START).lead();
        cache.wrote(b"k", START);
        drop(ticket);
    }
    assert_eq!(lookup(&cache, b"k", START).name(), "churning");
}

#[test]
fn changes_of_a_key_that_nobody_reads_are_not_counted() {
    let cache = cache();
    (0..20).for_each(|_| cache.wrote(b"k", START));
    assert_eq!(lookup(&cache, b"k", START).name(), "lead");
    assert_eq!(cache.explain(b"k", START).last_change, None);
}

#[test]
fn a_flush_that_somebody_asks_for_is_no_churn() {
    let cache = cache();
    let owner = live_lease(&cache);
    for _ in 0..20 {
        fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
        assert_eq!(cache.flush_matching(|key| key == b"k", START), 1);
    }
    let last = cache.explain(b"k", START).last_change.map(|last| (last.change, last.at, last.passing_by));
    assert_eq!(last, Some((Change::Flushed, START, 0)));
}
