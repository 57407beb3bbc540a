//! What a connection fetched is served for as long as the connection vouches for it.

mod fixture;

use fixture::*;
use nearside_nearcache::{Read, Renewal, Time};

#[test]
fn a_fetched_reply_is_served() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"$1\r\nv\r\n"), START);
    assert_eq!(&lookup(&cache, b"k", START).hit()[..], b"$1\r\nv\r\n");
}

#[test]
fn a_new_lease_serves_nothing_before_its_first_renewal() {
    let cache = cache();
    let owner = cache.open_lease(NODE);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    assert_eq!(owner.coherent_until(), None);
    assert_eq!(lookup(&cache, b"k", START).name(), "lead");
    assert_eq!(owner.renew(START, START), Renewal::Renewed);
    assert_eq!(lookup(&cache, b"k", START).name(), "hit");
}

#[test]
fn a_lease_holds_from_when_the_heartbeat_was_sent_not_from_when_it_was_answered() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    assert_eq!(owner.renew(START + ms(100), START + ms(900)), Renewal::Renewed);
    assert_eq!(owner.coherent_until(), Some(START + ms(1100)));
    assert_eq!(lookup(&cache, b"k", START + ms(1099)).name(), "hit");
    assert_eq!(lookup(&cache, b"k", START + ms(1100)).name(), "lead");
}

#[test]
fn a_stopped_server_is_not_vouched_for_once_the_lease_has_lapsed() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    assert_eq!(lookup(&cache, b"k", START + ms(999)).name(), "hit");
    assert_eq!(lookup(&cache, b"k", START + MAX_STALENESS).name(), "lead");
    assert!(!owner.is_dead());
}

#[test]
fn a_good_heartbeat_brings_back_what_a_lapsed_lease_hid() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"kept", GET, keep(b"+v\r\n"), START);
    fetch(&cache, &owner.lease(), b"changed", GET, keep(b"+v\r\n"), START);
    let late = START + ms(5000);
    assert_eq!(lookup(&cache, b"kept", late).name(), "lead");
    cache.invalidate(b"changed", START);
    assert_eq!(owner.renew(late, late + ms(1)), Renewal::Revived);
    assert_eq!(lookup(&cache, b"kept", late + ms(1)).name(), "hit");
    assert_eq!(lookup(&cache, b"changed", late + ms(1)).name(), "lead");
}

#[test]
fn a_fetch_may_store_under_a_lapsed_lease_and_stays_hidden_until_it_is_renewed() {
    let cache = cache();
    let owner = live_lease(&cache);
    let late = START + ms(5000);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), late);
    assert_eq!(cache.entries(), 1);
    assert_eq!(lookup(&cache, b"k", late).name(), "lead");
    owner.renew(late, late);
    assert_eq!(lookup(&cache, b"k", late).name(), "hit");
}

#[test]
fn a_heartbeat_answered_after_the_staleness_allowed_revives_nothing() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    let answered = START + ms(3000);
    assert_eq!(owner.renew(START + ms(2000), answered), Renewal::TooLate);
    assert_eq!(lookup(&cache, b"k", answered).name(), "lead");
}

#[test]
fn heartbeats_answered_out_of_order_never_shorten_a_lease() {
    let cache = cache();
    let owner = live_lease(&cache);
    owner.renew(START + ms(500), START + ms(600));
    owner.renew(START + ms(250), START + ms(600));
    assert_eq!(owner.coherent_until(), Some(START + ms(1500)));
}

#[test]
fn a_lost_connection_kills_all_it_fetched_at_once() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    drop(owner);
    assert_eq!(lookup(&cache, b"k", START).name(), "lead");
}

#[test]
fn a_new_connection_does_not_vouch_for_what_the_old_one_fetched() {
    let cache = cache();
    let old = live_lease(&cache);
    fetch(&cache, &old.lease(), b"k", GET, keep(b"+v\r\n"), START);
    drop(old);
    let new = live_lease(&cache);
    assert_eq!(new.renew(START + ms(100), START + ms(100)), Renewal::Renewed);
    assert_eq!(lookup(&cache, b"k", START + ms(100)).name(), "lead");
}

#[test]
fn an_answer_read_from_a_connection_that_was_lost_since_is_not_stored() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut ticket = lookup(&cache, b"k", START).lead();
    ticket.sent(&owner.lease(), START);
    drop(owner);
    assert_eq!(ticket.complete(keep(b"+v\r\n"), START).len(), 1);
    assert_eq!(cache.entries(), 0);
    assert_eq!(cache.stats().refused, 1);
}

#[test]
fn a_fetch_repeated_on_another_connection_is_vouched_for_by_that_one() {
    let cache = cache();
    let (first, second) = (live_lease(&cache), live_lease(&cache));
    let mut ticket = lookup(&cache, b"k", START).lead();
    ticket.sent(&first.lease(), START);
    drop(first);
    ticket.sent(&second.lease(), START + ms(10));
    let _ = ticket.complete(keep(b"+v\r\n"), START + ms(20));
    assert_eq!(lookup(&cache, b"k", START + ms(20)).name(), "hit");
    drop(second);
    assert_eq!(lookup(&cache, b"k", START + ms(20)).name(), "lead");
}

#[test]
fn a_dead_lease_cannot_be_renewed() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    cache.flush();
    assert!(owner.is_dead());
    assert_eq!(owner.renew(START + ms(1), START + ms(2)), Renewal::Dead);
    assert_eq!(owner.coherent_until(), None);
    assert_eq!(lookup(&cache, b"k", START + ms(2)).name(), "lead");
}

#[test]
fn the_death_of_one_connection_leaves_what_others_fetched() {
    let cache = cache();
    let (lost, other) = (live_lease(&cache), live_lease(&cache));
    fetch(&cache, &lost.lease(), b"lost", GET, keep(b"+v\r\n"), START);
    fetch(&cache, &other.lease(), b"other", GET, keep(b"+v\r\n"), START);
    drop(lost);
    assert_eq!(lookup(&cache, b"other", START).name(), "hit");
}

#[test]
fn a_retired_group_is_served_no_more_and_the_others_are() {
    let cache = cache();
    let retired = [live_lease_of(&cache, 1), live_lease_of(&cache, 1)];
    let other = live_lease_of(&cache, 2);
    fetch(&cache, &retired[0].lease(), b"a", GET, keep(b"+v\r\n"), START);
    fetch(&cache, &retired[1].lease(), b"b", IN_DB_1, keep(b"+v\r\n"), START);
    fetch(&cache, &other.lease(), b"other", GET, keep(b"+v\r\n"), START);
    cache.retire(1);
    assert!(retired.iter().all(|owner| owner.is_dead()));
    assert_eq!(retired[0].renew(START + ms(1), START + ms(2)), Renewal::Dead);
    assert_eq!(read(&cache, b"a", GET, START), Read::Miss);
    assert_eq!(read(&cache, b"b", IN_DB_1, START), Read::Miss);
    assert_eq!(lookup(&cache, b"other", START).name(), "hit");
}

#[test]
fn a_fetch_sent_before_its_group_was_retired_stores_nothing_and_takes_no_follower_after_it() {
    let cache = cache();
    let owner = live_lease(&cache);
    let mut before = cache.lookup(b"k", GET, START, || waiter(1)).lead();
    before.sent(&owner.lease(), START);
    cache.retire(NODE);
    let _after = cache.lookup(b"k", GET, START, || waiter(2)).lead();
    let waiters = before.complete(keep(b"+old\r\n"), START);
    assert_eq!(waiters.into_iter().collect::<Vec<_>>(), [waiter(1)]);
    assert_eq!(cache.entries(), 0);
}

#[test]
fn a_fetch_not_sent_before_its_group_was_retired_goes_on_and_stores_under_a_new_lease() {
    let cache = cache();
    let _old = live_lease(&cache);
    let mut ticket = lookup(&cache, b"k", START).lead();
    cache.retire(NODE);
    assert_eq!(lookup(&cache, b"k", START).name(), "follow");
    let new = live_lease(&cache);
    ticket.sent(&new.lease(), START);
    assert_eq!(ticket.complete(keep(b"+new\r\n"), START).len(), 2);
    assert_eq!(lookup(&cache, b"k", START).name(), "hit");
}

#[test]
fn a_suspended_machine_wakes_up_with_lapsed_leases() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    let woken = START + ms(30_000);
    assert_eq!(lookup(&cache, b"k", woken).name(), "lead");
}

#[test]
fn a_lease_tells_whether_there_is_anything_to_keep_alive() {
    let cache = cache();
    let owner = live_lease(&cache);
    assert!(!owner.has_filled());
    let mut ticket = lookup(&cache, b"k", START).lead();
    ticket.sent(&owner.lease(), START);
    cache.invalidate(b"k", START);
    let _ = ticket.complete(keep(b"+v\r\n"), START);
    assert!(!owner.has_filled());
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    assert!(owner.has_filled());
}

#[test]
fn time_saturates_instead_of_wrapping_around() {
    assert_eq!(Time(u64::MAX) + ms(1), Time(u64::MAX));
    assert_eq!(Time(5) - Time(7), ms(0));
    assert_eq!(Time(7_000_000) - Time(5_000_000), ms(2));
}
