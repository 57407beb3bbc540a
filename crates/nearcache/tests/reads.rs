//! A read is given the reply in its place, whenever a lookup would have been a hit.

mod fixture;

use fixture::*;
use nearside_nearcache::{Answer, NearCache, Read, Scope, Settings, Ttl};

#[test]
fn a_read_is_given_the_reply_and_says_what_was_made_of_it() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"$1\r\nv\r\n"), START);
    assert_eq!(cache.read(b"k", GET, START, |reply| reply.len()), Read::Hit(7));
    assert_eq!(read(&cache, b"k", GET, START), Read::Hit(b"$1\r\nv\r\n".to_vec()));
}

#[test]
fn a_read_that_misses_makes_nothing_of_it_and_begins_no_fetch() {
    let cache = cache();
    let owner = live_lease(&cache);
    let miss = |key: &[u8], scope, now| {
        let read = cache.read(key, scope, now, |_| panic!("there is no reply"));
        assert_eq!(read, Read::<()>::Miss);
    };
    miss(b"k", GET, START);
    fetch(&cache, &owner.lease(), b"k", GET, keep_for(b"+v\r\n", 300), START);
    miss(b"other", GET, START);
    miss(b"k", IN_DB_1, START);
    miss(b"k", GET, START + ms(300));
    miss(&[b'k'; 1 << 16], GET, START);
    cache.wrote(b"k", START);
    miss(b"k", GET, START);
    assert_eq!(cache.fills(), 0);
}

#[test]
fn a_read_of_a_value_too_large_to_be_kept_says_so() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, Answer::TooLarge { ttl: Ttl::Persistent }, START);
    assert_eq!(read(&cache, b"k", GET, START), Read::TooLarge);
}

#[test]
fn a_read_of_a_key_with_several_variants_gets_its_own() {
    let cache = cache();
    let owner = live_lease(&cache);
    let variants = [(GET, b"+0\r\n"), (IN_DB_1, b"+1\r\n"), (BY_USER_1, b"+2\r\n")];
    for (scope, reply) in variants {
        fetch(&cache, &owner.lease(), b"k", scope, keep(reply), START);
    }
    fetch(&cache, &owner.lease(), b"k", STRLEN, Answer::TooLarge { ttl: Ttl::Persistent }, START);
    for (scope, reply) in variants {
        assert_eq!(read(&cache, b"k", scope, START), Read::Hit(reply.to_vec()));
    }
    assert_eq!(read(&cache, b"k", STRLEN, START), Read::TooLarge);
    assert_eq!(read(&cache, b"k", Scope { db: 2, ..GET }, START), Read::Miss);
}

#[test]
fn a_reply_fetched_again_is_read_and_the_one_before_it_never_more() {
    let cache = cache();
    let owner = live_lease(&cache);
    for (age, reply) in [b"+0\r\n", b"+1\r\n", b"+2\r\n"].into_iter().enumerate() {
        let now = START + ms(100 * age as u64);
        fetch(&cache, &owner.lease(), b"k", GET, keep_for(reply, 100), now);
        assert_eq!(read(&cache, b"k", GET, now), Read::Hit(reply.to_vec()));
        assert_eq!(cache.entries(), 1);
    }
}

#[test]
fn a_shared_reply_outlives_its_entry() {
    let cache = cache();
    let owner = live_lease(&cache);
    fetch(&cache, &owner.lease(), b"k", GET, keep(b"+v\r\n"), START);
    let Read::Hit(reply) = cache.read(b"k", GET, START, |reply| reply.share()) else { panic!("it was just stored") };
    cache.wrote(b"k", START);
    drop(cache);
    assert_eq!(&reply[..], b"+v\r\n");
}

#[test]
fn what_is_read_again_and_again_stays_while_others_make_way() {
    let settings = Settings { capacity: 1 << 20, max_item: 1 << 10, workers: 1, ..settings() };
    let cache = NearCache::new(settings).expect("1 KiB fits 1 MiB");
    let owner = live_lease(&cache);
    let reply = [b'v'; 1000];
    let fetch_another = |number: u64| {
        fetch(&cache, &owner.lease(), format!("key:{number}").as_bytes(), GET, keep(&reply), START);
    };
    // What fills an empty cache is kept for long, read or not.
    (0..1500).for_each(fetch_another);
    fetch(&cache, &owner.lease(), b"read", GET, keep(&reply), START);
    fetch(&cache, &owner.lease(), b"unread", GET, keep(&reply), START);
    for number in 1500..6000 {
        fetch_another(number);
        assert_ne!(read(&cache, b"read", GET, START), Read::Miss, "after {number} others");
    }
    let bytes_of_unread = cache.read(b"unread", GET, START, |reply| reply.len());
    assert_eq!(bytes_of_unread, Read::Miss);
}
