//! What the cache tells people of a key.

mod fixture;

use std::sync::Arc;

use fixture::*;
use nearside_nearcache::{Change, KeptReply, LeaseState, NearCache, Read, Time};

fn replies(cache: &Arc<NearCache>, now: Time) -> Vec<KeptReply> {
    cache.explain(b"k", now).replies
}

#[test]
fn each_reply_tells_its_terms() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep_for(b"+v\r\n", 5_000), START);
    fetch(&cache, &owner.lease(), b"k", BY_USER_1, keep(&vec![b'v'; 100 << 10]), START + ms(300));
    let later = START + ms(500);
    let [first, second] = &replies(&cache, later)[..] else { panic!("there are two") };
    assert_eq!((first.user, first.db, first.command, first.len), (0, 0, 0, Some(4)));
    assert_eq!((second.user, second.len), (1, None), "too large to be kept");
    assert!(first.fetched_at - START < ms(3) && ms(5_000) - first.life < ms(3) && first.deadline <= START + ms(5_000));
    assert!(ms(60_000) - second.life < ms(6));
    assert_eq!(first.lease, LeaseState::Live(START + MAX_STALENESS));
    assert_eq!(cache.explain(b"other", later).replies.len(), 0);
}

#[test]
fn leases_tell_their_state() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    assert_eq!(replies(&cache, START + MAX_STALENESS)[0].lease, LeaseState::Lapsed);
    drop(owner);
    assert_eq!(replies(&cache, START)[0].lease, LeaseState::Dead);
}

#[test]
fn uses_fetches_and_changes_are_told() {
    let cache = cache();
    let owner = live_lease(&cache);
    let ticket = lookup(&cache, b"k", START).lead();
    assert_eq!(cache.explain(b"k", START).fetches, 1);
    drop(ticket);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    assert!(!replies(&cache, START)[0].is_used, "to be explained is no use");
    assert_eq!(lookup(&cache, b"k", START).name(), "hit");
    assert!(replies(&cache, START)[0].is_used);
    cache.wrote(b"k", START + ms(7));
    let last = cache.explain(b"k", START).last_change.map(|last| (last.change, last.at));
    assert_eq!(last, Some((Change::Written, START + ms(7))));
}

#[test]
fn a_reply_that_several_waited_for_has_been_served() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut ticket = lookup(&cache, b"k", START).lead();
    ticket.sent(&owner.lease(), START);
    assert_eq!(lookup(&cache, b"k", START).name(), "follow");
    assert_eq!(ticket.complete(keep(b"+v\r\n"), START).len(), 2);
    assert!(replies(&cache, START)[0].is_used);
}

#[test]
fn what_was_served_since_the_last_time_is_shown_once() {
    let cache = cache();
    let owner = live_lease(&cache);
    for key in [b"a", b"b", b"c"] {
        fetch(&cache, &owner.lease(), key, GET, keep(b"+v\r\n"), START);
    }
    fetch(&cache, &owner.lease(), b"a", IN_DB_1, keep(b"+v\r\n"), START);
    let recent = || {
        let mut seen = Vec::new();
        cache.recently_used(|key, db| seen.push((key.to_vec(), db)));
        seen.sort();
        seen
    };
    assert_eq!(recent(), []);
    assert_eq!(read(&cache, b"a", IN_DB_1, START), Read::Hit(b"+v\r\n".to_vec()));
    assert_eq!(lookup(&cache, b"c", START).name(), "hit");
    assert_eq!(recent(), [(b"a".to_vec(), 1), (b"c".to_vec(), 0)]);
    assert_eq!(recent(), []);
}

#[test]
fn an_invalidation_tells_how_long_a_write_was_known() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    cache.wrote(b"k", START + ms(1));
    assert_eq!(cache.invalidate(b"k", START + ms(4)), Some(ms(3)));
    assert_eq!(cache.invalidate(b"k", START + ms(5)), None, "it is told once");
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    assert_eq!(cache.invalidate(b"k", START + ms(6)), None, "nobody knew before");
    assert_eq!(cache.invalidate(b"never read", START), None);
}

#[test]
fn a_flush_drops_the_keys_that_match() {
    let cache = cache();
    let owner = live_lease(&cache);
    for key in ["user:1", "user:2", "session:1"] {
        fetch(&cache, &owner.lease(), key.as_bytes(), GET, keep(b"+v\r\n"), START);
    }
    assert_eq!(cache.flush_matching(|key| key.starts_with(b"user:"), START), 2);
    let found = |key: &str| lookup(&cache, key.as_bytes(), START).name();
    assert_eq!((found("user:1"), found("user:2"), found("session:1")), ("lead", "lead", "hit"));
}

#[test]
fn a_fetch_under_way_does_not_outlive_a_flush_of_its_key() {
    let cache = cache();
    let owner = live_lease(&cache);
    for key in [&b"user:1"[..], b"session:1"] {
        let mut ticket = lookup(&cache, key, START).lead();
        ticket.sent(&owner.lease(), START);
        assert_eq!(cache.flush_matching(|key| key.starts_with(b"user:"), START), 0);
        assert_eq!(ticket.complete(keep(b"+v\r\n"), START).len(), 1, "it is answered all the same");
    }
    let found = |key: &str| lookup(&cache, key.as_bytes(), START).name();
    assert_eq!((found("user:1"), found("session:1")), ("lead", "hit"));
}
