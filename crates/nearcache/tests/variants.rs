//! One entry a key, that holds a reply for each database, user and command that asked.

mod fixture;

use fixture::*;
use nearside_nearcache::{Read, Scope};
use proptest::prelude::*;

#[test]
fn a_reply_is_served_only_to_its_own_database_user_and_command() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    for scope in [IN_DB_1, BY_USER_1, STRLEN] {
        assert_eq!(cache.lookup(b"k", scope, START, || waiter(0)).name(), "lead");
    }
}

#[test]
fn each_variant_keeps_its_own_reply() {
    let cache = cache();
    let owner = live_lease(&cache);
    let variants = [(GET, b"+0\r\n"), (IN_DB_1, b"+1\r\n"), (BY_USER_1, b"+2\r\n"), (STRLEN, b"+3\r\n")];
    for (scope, reply) in variants {
        fetch(&cache, &owner.lease(), b"k", scope, keep(reply), START);
    }
    for (scope, reply) in variants {
        assert_eq!(&cache.lookup(b"k", scope, START, || waiter(0)).hit()[..], reply);
    }
    assert_eq!(cache.entries(), 1);
}

#[test]
fn a_command_with_other_arguments_is_another_variant() {
    let cache = cache();
    let owner = live_lease(&cache);
    let (long, longer) = (vec![b'x'; 300], vec![b'x'; 301]);
    let arguments: [&[u8]; 6] = [b"", b"a", b"ab", &long[..254], &long[..255], &long];
    let with = |arguments| Scope { arguments, ..STRLEN };
    for (number, arguments) in arguments.into_iter().enumerate() {
        fetch(&cache, &owner.lease(), b"k", with(arguments), keep(format!(":{number}\r\n").as_bytes()), START);
    }
    for (number, arguments) in arguments.into_iter().enumerate() {
        assert_eq!(read(&cache, b"k", with(arguments), START), Read::Hit(format!(":{number}\r\n").into_bytes()));
    }
    assert_eq!(read(&cache, b"k", with(&longer), START), Read::Miss);
    assert_eq!((cache.entries(), cache.explain(b"k", START).replies.len()), (1, 6));
    cache.invalidate(b"k", START);
    assert!(cache.explain(b"k", START).replies.is_empty());
}

#[test]
fn very_long_arguments_are_not_kept() {
    let cache = cache();
    let scope = |arguments| Scope { arguments, ..STRLEN };
    let long = vec![b'x'; 4097];
    assert_eq!(cache.lookup(b"k", scope(&long), START, || waiter(0)).name(), "too large");
    assert_eq!(cache.lookup(b"k", scope(&long[1..]), START, || waiter(0)).name(), "lead");
}

#[test]
fn fetches_with_other_arguments_are_not_followed() {
    let cache = cache();
    let of = |arguments| Scope { arguments, ..STRLEN };
    let first = cache.lookup(b"k", of(b"1"), START, || waiter(1)).lead();
    assert_eq!(cache.lookup(b"k", of(b"2"), START, || waiter(2)).name(), "lead");
    assert_eq!(cache.lookup(b"k", of(b"1"), START, || waiter(3)).name(), "follow");
    assert_eq!((first.key(), first.scope()), (&b"k"[..], of(b"1")));
    assert_eq!(cache.lookup(b"k1", of(b""), START, || waiter(4)).name(), "lead", "key and arguments are kept apart");
}

#[test]
fn a_variant_fetched_again_replaces_itself_alone() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep_for(b"+old\r\n", 100), START);
    fetch(&cache, &owner.lease(), b"k", IN_DB_1, keep(b"+other\r\n"), START);
    let later = START + ms(100);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+new\r\n"), later);
    assert_eq!(&cache.lookup(b"k", GET, later, || waiter(0)).hit()[..], b"+new\r\n");
    assert_eq!(&cache.lookup(b"k", IN_DB_1, later, || waiter(0)).hit()[..], b"+other\r\n");
}

#[test]
fn a_variant_fetched_again_while_its_lease_had_lapsed_is_not_kept_twice() {
    let cache = cache();
    let owner = live_lease(&cache);
    let lapsed = START + ms(2000);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+old\r\n"), START);
    let once = cache.bytes();
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+new\r\n"), lapsed);
    owner.renew(lapsed, lapsed);
    assert_eq!(&lookup(&cache, b"k", lapsed).hit()[..], b"+new\r\n");
    assert_eq!(cache.bytes(), once);
}

#[test]
fn variants_that_are_over_are_left_behind_when_another_is_stored() {
    let cache = cache();
    let (lost, owner) = (live_lease(&cache), live_lease(&cache));
    fetch(&cache, &owner.lease(), b"alone", GET, keep(&[b'v'; 1000]), START);
    let alone = cache.bytes();
    cache.invalidate(b"alone", START);

    fetch(&cache, &owner.lease(), b"k", IN_DB_1, keep_for(&[b'v'; 2000], 100), START);
    fetch(&cache, &lost.lease(), b"k", BY_USER_1, keep(&[b'v'; 2000]), START);
    drop(lost);
    fetch(&cache, &owner.lease(), b"k", GET, keep(&[b'v'; 1000]), START + ms(100));
    assert_eq!(cache.bytes(), alone);
}

#[test]
fn the_oldest_of_very_many_variants_makes_way() {
    let cache = cache();
    let owner = live_lease(&cache);
    let in_db = |db| Scope { db, ..GET };
    for db in 0..100 {
        fetch(&cache, &owner.lease(), b"k", in_db(db), keep(b"+v\r\n"), START);
    }
    assert_eq!(cache.lookup(b"k", in_db(35), START, || waiter(0)).name(), "lead");
    for db in 36..100 {
        assert_eq!(cache.lookup(b"k", in_db(db), START, || waiter(0)).name(), "hit");
    }
}

#[test]
fn variants_that_together_outgrow_a_shard_leave_the_newest() {
    let cache = cache();
    let owner = live_lease(&cache);
    let reply = vec![b'v'; 60 << 10];
    let mut db = 0;
    while cache.lookup(b"k", GET, START, || waiter(0)).name() == "hit" || db == 0 {
        fetch(&cache, &owner.lease(), b"k", Scope { db, ..GET }, keep(&reply), START);
        let newest = cache.lookup(b"k", Scope { db, ..GET }, START, || waiter(0));
        assert_eq!(newest.name(), "hit", "variant {db}");
        db += 1;
    }
    assert!(db > 2, "a shard holds several of them");
}

proptest! {
    #[test]
    fn keys_and_replies_of_any_bytes_come_back_as_they_were(
        items in prop::collection::hash_map(any::<Vec<u8>>(), prop::collection::vec(any::<u8>(), 1..300), 1..40),
    ) {
        let cache = cache();
        let owner = live_lease(&cache);
        for (key, reply) in &items {
            fetch(&cache, &owner.lease(), key, GET, keep(reply), START);
        }
        for (key, reply) in &items {
            prop_assert_eq!(&lookup(&cache, key, START).hit()[..], &reply[..]);
        }
    }
}
