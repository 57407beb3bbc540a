//! One fetch for all who wait; bounded in number, and in what may join it.

mod fixture;

use fixture::*;
use nearside_nearcache::{Answer, NearCache, Settings, Stats, Ttl};

#[test]
fn those_who_miss_the_same_reply_share_one_fetch_and_come_out_in_order() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut ticket = cache.lookup(b"k", GET, START, || waiter(1)).lead();
    assert_eq!(cache.lookup(b"k", GET, START, || waiter(2)).name(), "follow");
    ticket.sent(&owner.lease(), START);
    assert_eq!(cache.lookup(b"k", GET, START, || waiter(3)).name(), "follow");
    assert_eq!(ticket.key(), b"k");
    assert_eq!(ticket.scope(), GET);
    let waiters = ticket.complete(keep(b"+v\r\n"), START);
    assert_eq!(waiters.into_iter().collect::<Vec<_>>(), [waiter(1), waiter(2), waiter(3)]);
    assert_eq!(cache.fills(), 0);
}

#[test]
fn a_hit_or_a_bypass_notes_no_waiter() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"small", GET, keep(b"+v\r\n"), START);
    fetch(&cache, &owner.lease(), b"large", GET, Answer::TooLarge { ttl: Ttl::Persistent }, START);
    for key in [&b"small"[..], b"large", &[b'k'; 1 << 16]] {
        cache.lookup(key, GET, START, || panic!("nobody waits for {}", key.escape_ascii()));
    }
}

#[test]
fn a_follower_joins_only_its_own_variant() {
    let cache = cache();
    let _ticket = lookup(&cache, b"k", START).lead();
    for scope in [IN_DB_1, BY_USER_1, STRLEN] {
        assert_eq!(cache.lookup(b"k", scope, START, || waiter(0)).name(), "lead");
    }
    assert_eq!(lookup(&cache, b"other", START).name(), "lead");
}

#[test]
fn a_follower_joins_only_while_the_answer_can_be_fresh_enough_for_it() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut ticket = lookup(&cache, b"k", START).lead();
    ticket.sent(&owner.lease(), START + ms(200));
    assert_eq!(lookup(&cache, b"k", START + ms(1199)).name(), "follow");
    let second = lookup(&cache, b"k", START + ms(1200)).lead();
    assert_eq!(lookup(&cache, b"k", START + ms(1300)).name(), "follow");
    assert_eq!(ticket.complete(Answer::Discard, START + ms(1300)).len(), 2);
    assert_eq!(second.complete(Answer::Discard, START + ms(1300)).len(), 2);
}

#[test]
fn a_fetch_that_is_not_sent_for_long_takes_no_followers_either() {
    let cache = cache();
    let _ticket = lookup(&cache, b"k", START).lead();
    assert_eq!(lookup(&cache, b"k", START + ms(999)).name(), "follow");
    assert_eq!(lookup(&cache, b"k", START + MAX_STALENESS).name(), "lead");
}

#[test]
fn a_fetch_on_a_lost_connection_takes_no_followers() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut ticket = lookup(&cache, b"k", START).lead();
    ticket.sent(&owner.lease(), START);
    drop(owner);
    assert_eq!(lookup(&cache, b"k", START).name(), "lead");
}

#[test]
fn an_answer_to_discard_reaches_those_who_wait_and_is_not_stored() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut ticket = lookup(&cache, b"k", START).lead();
    ticket.sent(&owner.lease(), START);
    assert_eq!(ticket.complete(Answer::Discard, START).len(), 1);
    assert_eq!(lookup(&cache, b"k", START).name(), "lead");
    assert_eq!(cache.stats(), Stats::default());
}

#[test]
fn an_answer_to_a_fetch_that_was_never_sent_is_not_stored() {
    let cache = cache();
    let _owner = live_lease(&cache);
    let ticket = lookup(&cache, b"k", START).lead();
    assert_eq!(ticket.complete(keep(b"+v\r\n"), START).len(), 1);
    assert_eq!(cache.entries(), 0);
}

#[test]
fn a_dropped_ticket_makes_way_for_another() {
    let cache = cache();
    drop(lookup(&cache, b"k", START).lead());
    assert_eq!(cache.fills(), 0);
    assert_eq!(lookup(&cache, b"k", START).name(), "lead");
}

#[test]
fn a_dropped_ticket_leaves_the_other_fetches_of_its_key() {
    let cache = cache();
    let owner = live_lease(&cache);
    let poisoned = lookup(&cache, b"k", START).lead();
    cache.invalidate(b"k", START);
    let mut second = lookup(&cache, b"k", START).lead();
    drop(poisoned);
    assert_eq!(lookup(&cache, b"k", START).name(), "follow");
    second.sent(&owner.lease(), START);
    assert_eq!(second.complete(keep(b"+v\r\n"), START).len(), 2);
    assert_eq!(lookup(&cache, b"k", START).name(), "hit");
}

#[test]
fn fetches_in_flight_are_bounded_and_the_rest_goes_past_the_cache() {
    let cache = NearCache::new(Settings { max_fills: 2, ..settings() }).expect("it fits");
    let first = lookup(&cache, b"a", START).lead();
    let _second = lookup(&cache, b"b", START).lead();
    assert_eq!(lookup(&cache, b"c", START).name(), "busy");
    assert_eq!(lookup(&cache, b"a", START).name(), "follow");
    assert_eq!(cache.fills(), 2);
    let _ = first.complete(Answer::Discard, START);
    assert_eq!(lookup(&cache, b"c", START).name(), "lead");
}

#[test]
fn those_who_wait_for_one_fetch_are_bounded_too() {
    let cache = NearCache::new(Settings { max_waiters: 2, ..settings() }).expect("it fits");
    let ticket = lookup(&cache, b"k", START).lead();
    assert_eq!(lookup(&cache, b"k", START).name(), "follow");
    assert_eq!(lookup(&cache, b"k", START).name(), "busy");
    assert_eq!(ticket.complete(Answer::Discard, START).len(), 2);
}
