//! The cache stays within its capacity, and says what fits.

mod fixture;

use fixture::*;
use nearside_nearcache::{NearCache, Settings, SizeError};

#[test]
fn a_full_cache_stays_within_its_capacity_and_uses_most_of_it() {
    for value in [16, 1000, 60 << 10] {
        let cache = cache();
        let owner = live_lease(&cache);
        let capacity = settings().capacity;
        let reply = vec![b'v'; value];
        for number in 0..3 * capacity / (value as u64 + 100) {
            let key = format!("key:{number}");
            fetch(&cache, &owner.lease(), key.as_bytes(), GET, keep(&reply), START);
            assert!(cache.bytes() <= capacity);
        }
        assert!(cache.bytes() > capacity * 8 / 10, "{} of {capacity} bytes, values of {value}", cache.bytes());
    }
}

#[test]
fn the_largest_value_allowed_is_kept_and_one_beyond_it_is_noted_as_too_large() {
    let cache = cache();
    let owner = live_lease(&cache);
    let framed = |len: usize| [format!("${len}\r\n").as_bytes(), &vec![b'v'; len], b"\r\n"].concat();
    let max_item = settings().max_item;
    fetch(&cache, &owner.lease(), b"largest", GET, keep(&framed(max_item)), START);
    assert_eq!(lookup(&cache, b"largest", START).name(), "hit");
    fetch(&cache, &owner.lease(), b"beyond", GET, keep(&framed(max_item + 100)), START);
    assert_eq!(lookup(&cache, b"beyond", START).name(), "too large");
}

#[test]
fn the_longest_key_is_kept_and_one_beyond_it_goes_past_the_cache() {
    let cache = cache();
    let owner = live_lease(&cache);
    let key = vec![b'k'; (1 << 16) - 1];
    fetch(&cache, &owner.lease(), &key, GET, keep(b"+v\r\n"), START);
    assert_eq!(lookup(&cache, &key, START).name(), "hit");
    cache.wrote(&key, START);
    assert_eq!(lookup(&cache, &key, START).name(), "lead");
    let key = vec![b'k'; 1 << 16];
    assert_eq!(lookup(&cache, &key, START).name(), "too large");
    cache.wrote(&key, START);
    cache.invalidate(&key, START);
}

#[test]
fn a_key_and_value_that_are_too_large_together_are_noted_as_too_large() {
    let capacity = 1 << 20;
    let tight = Settings { capacity, max_item: usize::MAX, workers: 1, ..settings() };
    let Err(SizeError { largest, .. }) = NearCache::new(tight.clone()) else { panic!("nothing is that large") };
    let cache = NearCache::new(Settings { max_item: largest, ..tight }).expect("it says that this fits");
    let owner = live_lease(&cache);
    let reply = vec![b'v'; largest];
    fetch(&cache, &owner.lease(), b"short", GET, keep(&reply), START);
    assert_eq!(lookup(&cache, b"short", START).name(), "hit");
    fetch(&cache, &owner.lease(), &[b'k'; 60_000], GET, keep(&reply), START);
    assert_eq!(lookup(&cache, &[b'k'; 60_000], START).name(), "too large");
}

#[test]
fn the_largest_item_that_is_said_to_fit_fits_and_one_byte_more_does_not() {
    for capacity in [1 << 20, 10 << 20, 256 << 20, (256 << 20) + 12345] {
        let asking = |max_item| NearCache::new(Settings { capacity, max_item, ..settings() });
        let Err(refused) = asking(usize::MAX) else { panic!("nothing is that large") };
        assert!(asking(refused.largest).is_ok(), "{refused}");
        assert_eq!(asking(refused.largest + 1).err(), Some(SizeError { max_item: refused.largest + 1, ..refused }));
    }
}

#[test]
fn an_item_as_large_as_allowed_is_admitted_whatever_the_number_of_workers() {
    for (capacity, max_item) in [(256 << 20, 1 << 20), (1 << 20, 512 << 10), (8 << 20, 1 << 20)] {
        for workers in [1, 2, 8, 64, 256] {
            let settings = Settings { capacity, max_item, workers, ..settings() };
            let cache = NearCache::new(settings).expect("it fits");
            let owner = live_lease(&cache);
            for number in 0..100 {
                let key = format!("key:{number}");
                fetch(&cache, &owner.lease(), key.as_bytes(), GET, keep(&vec![b'v'; max_item]), START);
                assert_eq!(lookup(&cache, key.as_bytes(), START).name(), "hit", "{capacity} {max_item} {workers}");
            }
        }
    }
}
