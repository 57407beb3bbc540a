//! Nothing comes back after its key has changed.

mod fixture;

use fixture::*;
use nearside_nearcache::{Answer, Ttl};

#[test]
fn an_invalidation_drops_the_entry() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    fetch(&cache, &owner.lease(), b"other", GET, keep(b"+v\r\n"), START);
    cache.invalidate(b"k", START);
    assert_eq!(lookup(&cache, b"k", START).name(), "lead");
    assert_eq!(lookup(&cache, b"other", START).name(), "hit");
    assert_eq!(cache.stats().removed, 1);
}

#[test]
fn an_invalidation_that_comes_before_the_answer_is_stored_keeps_it_out() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut ticket = lookup(&cache, b"k", START).lead();
    ticket.sent(&owner.lease(), START);
    cache.invalidate(b"k", START);
    assert_eq!(ticket.complete(keep(b"+old\r\n"), START).len(), 1);
    assert_eq!(cache.entries(), 0);
    assert_eq!(cache.stats().refused, 1);
}

#[test]
fn an_invalidation_poisons_only_fetches_of_its_own_key() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut ticket = lookup(&cache, b"k", START).lead();
    ticket.sent(&owner.lease(), START);
    cache.invalidate(b"other", START);
    let _ = ticket.complete(keep(b"+v\r\n"), START);
    assert_eq!(lookup(&cache, b"k", START).name(), "hit");
}

#[test]
fn an_invalidation_drops_the_key_in_every_database_for_every_user_and_command() {
    let cache = cache();
    let owner = live_lease(&cache);
    let scopes = [GET, IN_DB_1, BY_USER_1, STRLEN];
    for scope in scopes {
        fetch(&cache, &owner.lease(), b"k", scope, keep(b"+v\r\n"), START);
    }
    for scope in scopes {
        assert_eq!(cache.lookup(b"k", scope, START, || waiter(0)).name(), "hit");
    }
    cache.invalidate(b"k", START);
    for scope in scopes {
        assert_eq!(cache.lookup(b"k", scope, START, || waiter(0)).name(), "lead");
    }
}

#[test]
fn an_invalidation_poisons_the_fetches_of_every_database_user_and_command() {
    let cache = cache();
    let owner = live_lease(&cache);
    let tickets = [GET, IN_DB_1, BY_USER_1, STRLEN].map(|scope| {
        let mut ticket = cache.lookup(b"k", scope, START, || waiter(0)).lead();
        ticket.sent(&owner.lease(), START);
        ticket
    });
    cache.invalidate(b"k", START);
    for ticket in tickets {
        let _ = ticket.complete(keep(b"+old\r\n"), START);
    }
    assert_eq!(cache.entries(), 0);
}

#[test]
fn a_read_after_an_acknowledged_write_never_gets_the_value_before_it() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+old\r\n"), START);
    cache.wrote(b"k", START);
    assert_eq!(lookup(&cache, b"k", START).name(), "lead");
}

#[test]
fn a_read_after_an_acknowledged_write_does_not_join_a_fetch_that_began_before_it() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut before = cache.lookup(b"k", GET, START, || waiter(1)).lead();
    before.sent(&owner.lease(), START);
    cache.wrote(b"k", START);

    let mut after = cache.lookup(b"k", GET, START, || waiter(2)).lead();
    after.sent(&owner.lease(), START);
    assert_eq!(cache.lookup(b"k", GET, START, || waiter(3)).name(), "follow");

    let before = before.complete(keep(b"+old\r\n"), START);
    assert_eq!(before.into_iter().collect::<Vec<_>>(), [waiter(1)]);
    assert_eq!(cache.entries(), 0);
    let after = after.complete(keep(b"+new\r\n"), START);
    assert_eq!(after.into_iter().collect::<Vec<_>>(), [waiter(2), waiter(3)]);
    assert_eq!(&lookup(&cache, b"k", START).hit()[..], b"+new\r\n");
}

#[test]
fn a_poisoned_fetch_that_ends_last_does_not_displace_the_newer_answer() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut before = lookup(&cache, b"k", START).lead();
    before.sent(&owner.lease(), START);
    cache.invalidate(b"k", START);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+new\r\n"), START);
    let _ = before.complete(keep(b"+old\r\n"), START);
    assert_eq!(&lookup(&cache, b"k", START).hit()[..], b"+new\r\n");
}

#[test]
fn a_flush_ends_every_entry_whatever_connection_it_came_from() {
    let cache = cache();
    let owners = [live_lease(&cache), live_lease(&cache)];
    fetch(&cache, &owners[0].lease(), b"a", GET, keep(b"+v\r\n"), START);
    fetch(&cache, &owners[1].lease(), b"b", IN_DB_1, keep(b"+v\r\n"), START);
    cache.flush();
    assert_eq!(lookup(&cache, b"a", START).name(), "lead");
    assert_eq!(cache.lookup(b"b", IN_DB_1, START, || waiter(0)).name(), "lead");
    assert!(owners.iter().all(|owner| owner.is_dead()));
}

#[test]
fn a_fetch_sent_before_a_flush_stores_nothing_and_takes_no_follower_after_it() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut before = cache.lookup(b"k", GET, START, || waiter(1)).lead();
    before.sent(&owner.lease(), START);
    cache.flush();
    let _after = cache.lookup(b"k", GET, START, || waiter(2)).lead();
    let waiters = before.complete(keep(b"+old\r\n"), START);
    assert_eq!(waiters.into_iter().collect::<Vec<_>>(), [waiter(1)]);
    assert_eq!(cache.entries(), 0);
}

#[test]
fn a_fetch_not_sent_before_a_flush_goes_on_and_stores() {
    let cache = cache();
    let old = live_lease(&cache);
    let mut ticket = lookup(&cache, b"k", START).lead();
    cache.flush();
    assert_eq!(lookup(&cache, b"k", START).name(), "follow");
    drop(old);
    let new = live_lease(&cache);
    ticket.sent(&new.lease(), START);
    assert_eq!(ticket.complete(keep(b"+new\r\n"), START).len(), 2);
    assert_eq!(lookup(&cache, b"k", START).name(), "hit");
}

#[test]
fn a_lease_opened_after_a_flush_is_not_touched_by_it() {
    let cache = cache();
    let before = live_lease(&cache);
    cache.flush();
    let after = live_lease(&cache);
    fetch(&cache, &after.lease(), b"k", GET, keep(b"+v\r\n"), START);
    drop(before);
    assert_eq!(lookup(&cache, b"k", START).name(), "hit");
}

#[test]
fn a_connection_told_to_invalidate_everything_retires_its_lease_alone() {
    let cache = cache();
    let (flushed, other) = (live_lease(&cache), live_lease(&cache));
    fetch(&cache, &flushed.lease(), b"a", GET, keep(b"+v\r\n"), START);
    fetch(&cache, &other.lease(), b"b", GET, keep(b"+v\r\n"), START);
    let mut in_flight = lookup(&cache, b"c", START).lead();
    in_flight.sent(&flushed.lease(), START);
    drop(flushed); // what the owner does on `invalidate null`, before it opens another
    let _ = in_flight.complete(keep(b"+v\r\n"), START);
    assert_eq!(lookup(&cache, b"a", START).name(), "lead");
    assert_eq!(lookup(&cache, b"b", START).name(), "hit");
    assert_eq!(lookup(&cache, b"c", START).name(), "lead");
}

#[test]
fn the_note_that_a_value_is_too_large_lives_and_dies_like_a_value() {
    let cache = cache();
    let owner = live_lease(&cache);
    let too_large = Answer::TooLarge { ttl: Ttl::Millis(500) };
    fetch(&cache, &owner.lease(), b"k", GET, too_large, START);
    assert_eq!(lookup(&cache, b"k", START).name(), "too large");
    assert_eq!(lookup(&cache, b"k", START + ms(500)).name(), "lead");

    cache.invalidate(b"k", START);
    let mut ticket = lookup(&cache, b"k", START).lead();
    ticket.sent(&owner.lease(), START);
    cache.wrote(b"k", START);
    let _ = ticket.complete(too_large, START);
    assert_eq!(lookup(&cache, b"k", START).name(), "lead");

    fetch(&cache, &owner.lease(), b"other", GET, too_large, START);
    drop(owner);
    assert_eq!(lookup(&cache, b"other", START).name(), "lead");
}

#[test]
fn a_hit_in_hand_outlives_the_entry() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    let reply = lookup(&cache, b"k", START).hit();
    cache.invalidate(b"k", START);
    drop(owner);
    drop(cache);
    assert_eq!(&reply[..], b"+v\r\n");
}
