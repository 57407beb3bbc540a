//! Reading from the near-cache.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use nearside_nearcache::{Answer, LeaseOwner, Lookup, NearCache, Read, Scope, Settings, Time, Ttl, Waiter};

use super::{PIPELINE, Work};

const KEYS: u32 = 10_000;
const NOW: Time = Time(1_000_000_000);
const GET: Scope<'static> = Scope { user: 0, db: 0, command: 0, arguments: b"" };

pub fn work(case: &str) -> Work {
    // The lease vouches for what is cached as long as its owner lives.
    let (cache, owner) = match case {
        "hit_16b" => filled(16),
        "hit_1k" => filled(1 << 10),
        "miss" => filled(0),
        _ => panic!("nothing such is looked up: {case}"),
    };
    let prefix = if case == "miss" { "nil" } else { "key" };
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|number| format!("{prefix}:{number:012}").into_bytes()).collect();
    let mut out = Vec::with_capacity(PIPELINE * 2048);
    let mut next = 0;
    Box::new(move || {
        out.clear();
        for _ in 0..PIPELINE {
            // A stride that has no divisor in common with the number of keys visits them all.
            next = (next + 7919) % keys.len();
            let read = cache.read(black_box(&keys[next]), GET, NOW, |reply| out.extend_from_slice(&reply));
            assert_eq!(matches!(read, Read::Hit(())), prefix == "key");
        }
        black_box(&owner);
        black_box(&out).len()
    })
}

fn filled(value_len: usize) -> (Arc<NearCache>, LeaseOwner) {
    let settings = Settings {
        capacity: 64 << 20,
        max_item: 1 << 20,
        max_age: Duration::from_secs(60),
        max_staleness: Duration::from_secs(1),
        workers: 1,
        max_fills: 1000,
        max_waiters: 1000,
        fetch_churning: false,
        hash_seed: Some(1), // instructions are counted
    };
    let cache = NearCache::new(settings).expect("an item of 1 MiB fits");
    let owner = cache.open_lease(0);
    owner.renew(NOW, NOW);
    let reply = [format!("${value_len}\r\n").as_bytes(), &vec![b'v'; value_len], b"\r\n"].concat();
    for number in 0..KEYS {
        let key = format!("key:{number:012}");
        let waiter = || Waiter { worker: 0, session: 0, sequence: 0 };
        let Lookup::Lead(mut ticket) = cache.lookup(key.as_bytes(), GET, NOW, waiter) else {
            panic!("nothing is cached yet, and nobody else asks")
        };
        ticket.sent(&owner.lease(), NOW);
        let waiters = ticket.complete(Answer::Store { reply: &reply, ttl: Ttl::Persistent }, NOW);
        drop(waiters);
    }
    (cache, owner)
}
