//! No cached value outlives the time to live that it had when it was fetched.

mod fixture;

use fixture::*;
use nearside_nearcache::{Answer, Time};

#[test]
fn a_value_is_not_served_once_its_time_to_live_is_over() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep_for(b"+v\r\n", 300), START);
    assert_eq!(lookup(&cache, b"k", START + ms(299)).name(), "hit");
    assert_eq!(lookup(&cache, b"k", START + ms(300)).name(), "lead");
}

#[test]
fn the_time_to_live_counts_from_when_the_fetch_was_sent() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut ticket = lookup(&cache, b"k", START).lead();
    ticket.sent(&owner.lease(), START + ms(100));
    let _ = ticket.complete(keep_for(b"+v\r\n", 300), START + ms(350));
    assert_eq!(lookup(&cache, b"k", START + ms(399)).name(), "hit");
    assert_eq!(lookup(&cache, b"k", START + ms(400)).name(), "lead");
}

#[test]
fn a_value_that_expired_while_its_answer_travelled_is_not_stored() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut ticket = lookup(&cache, b"k", START).lead();
    ticket.sent(&owner.lease(), START);
    assert_eq!(ticket.complete(keep_for(b"+v\r\n", 300), START + ms(300)).len(), 1);
    assert_eq!(cache.entries(), 0);
}

#[test]
fn a_value_is_no_answer_to_those_who_came_when_it_had_expired() {
    for (answer, expired_after) in [(keep_for(b"+v\r\n", 300), 300), (Answer::Expiring, 0)] {
        let cache = cache();
        let owner = live_lease(&cache);
        let mut ticket = cache.lookup(b"k", GET, START, || waiter(1)).lead();
        assert_eq!(cache.lookup(b"k", GET, START + ms(1), || waiter(2)).name(), "follow");
        let sent = START + ms(10);
        ticket.sent(&owner.lease(), sent);
        let expired = sent + ms(expired_after);
        assert_eq!(cache.lookup(b"k", GET, expired, || waiter(4)).name(), "follow");
        assert_eq!(cache.lookup(b"k", GET, Time(expired.0 - 1), || waiter(3)).name(), "follow");
        let mut waiters = ticket.complete(answer, expired + ms(100));
        assert_eq!(waiters.take_late().into_iter().collect::<Vec<_>>(), [waiter(4)]);
        assert_eq!(waiters.into_iter().collect::<Vec<_>>(), [waiter(1), waiter(2), waiter(3)]);
        assert_eq!(cache.entries(), 0);
    }
}

#[test]
fn no_value_is_served_longer_than_the_maximum_age() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"forever", GET, keep(b"+v\r\n"), START);
    fetch(&cache, &owner.lease(), b"long", GET, keep_for(b"+v\r\n", u64::MAX), START);
    let last = START + (MAX_AGE - ms(1));
    owner.renew(last, last);
    assert_eq!(lookup(&cache, b"forever", last).name(), "hit");
    assert_eq!(lookup(&cache, b"long", last).name(), "hit");
    assert_eq!(lookup(&cache, b"forever", START + MAX_AGE).name(), "lead");
    assert_eq!(lookup(&cache, b"long", START + MAX_AGE).name(), "lead");
}

#[test]
fn a_missing_key_is_cached_no_longer_than_the_caller_says() {
    let cache = cache();
    let owner = live_lease(&cache);
    let limit = u64::try_from(MAX_STALENESS.as_millis()).expect("a second");
    fetch(&cache, &owner.lease(), b"k", GET, keep_for(b"_\r\n", limit), START);
    owner.renew(START + ms(900), START + ms(900));
    assert_eq!(&lookup(&cache, b"k", START + ms(998)).hit()[..], b"_\r\n");
    assert_eq!(lookup(&cache, b"k", START + MAX_STALENESS).name(), "lead");
}

#[test]
fn an_expired_value_is_replaced_by_the_next_fetch() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep_for(b"+old\r\n", 300), START);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+new\r\n"), START + ms(300));
    assert_eq!(&lookup(&cache, b"k", START + ms(301)).hit()[..], b"+new\r\n");
    assert_eq!(cache.entries(), 1);
}

#[test]
fn a_sweep_frees_what_is_dead_or_over_and_nothing_else() {
    let cache = cache();
    let (lost, other) = (live_lease(&cache), live_lease(&cache));
    fetch(&cache, &lost.lease(), b"dead", GET, keep(b"+v\r\n"), START);
    fetch(&cache, &other.lease(), b"over", GET, keep_for(b"+v\r\n", 100), START);
    fetch(&cache, &other.lease(), b"live", GET, keep(b"+v\r\n"), START);
    fetch(&cache, &other.lease(), b"both", GET, keep(b"+v\r\n"), START);
    fetch(&cache, &lost.lease(), b"both", IN_DB_1, keep(b"+v\r\n"), START);
    drop(lost);
    let lapsed = START + ms(5000);
    assert_eq!(cache.sweep(lapsed), 2);
    assert_eq!(cache.entries(), 2);
    other.renew(lapsed, lapsed);
    assert_eq!(lookup(&cache, b"live", lapsed).name(), "hit");
    assert_eq!(lookup(&cache, b"both", lapsed).name(), "hit");
    assert_eq!(cache.sweep(lapsed), 0);
}
