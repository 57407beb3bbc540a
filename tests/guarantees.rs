//! Known ways to be wrong that no other test shows: see the table in `docs/guarantees.md`.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nearside_tests::{
    Nearside, RedisCluster, RedisServer, Relay, Stops, calibrating, eventually, holds_for, key_in_slot, words,
};

const SOON: Duration = Duration::from_secs(15);
const MAX_STALENESS: Duration = Duration::from_millis(300);
/// Long after whatever the lease had been renewed for.
const PAST: Duration = Duration::from_millis(400);
const ARGS: &[&str] = &["--max-staleness", "300ms"];

#[test]
fn a_write_whose_outcome_is_unknown_leaves_the_cache() {
    if calibrating("cache") {
        return;
    }
    let redis = RedisServer::start();
    let relay = Relay::to(&redis.address());
    // So that it is not an invalidation that drops the key, nor the lease.
    let nearside = Nearside::upstream(relay.address(), &["--max-staleness", "20s", "--workers", "1"]);
    let (mut client, mut direct, mut killer) = (nearside.client(), redis.client(), redis.client());
    let mut made = 0;
    for round in 0..20 {
        relay.delay_tracked(Duration::ZERO);
        let (key, new) = (format!("k{round}"), format!("new{round}"));
        assert_eq!(direct.call(&format!("SET {key} old")), "+OK\r\n");
        nearside.warm(&mut client, &key);
        assert_eq!(client.call("APPEND other x").integer().map(|len| len > 0), Some(true));
        let forward = killer.ids_of("nearside-forward");
        assert!(!forward.is_empty());
        relay.delay_tracked(Duration::from_secs(3));
        // The server sleeps; then it carries out the write, and before it sends the reply it closes the connection.
        direct.send(&words("DEBUG SLEEP 0.3"));
        std::thread::sleep(Duration::from_millis(100));
        client.send(&words(&format!("SET {key} {new}")));
        std::thread::sleep(Duration::from_millis(50));
        let kills: Vec<u8> = forward.iter().flat_map(|id| words(&format!("CLIENT KILL ID {id}"))).collect();
        killer.exchange(&kills, forward.len());
        assert_eq!(direct.reply(), "+OK\r\n");
        let reply = client.reply();
        let is_made = direct.call(&format!("GET {key}")).bulk() == Some(new.as_bytes());
        if reply.starts_with(b"-UPSTREAM ") && is_made {
            made += 1;
            eventually("the read is answered", SOON, || {
                let reply = client.call(&format!("GET {key}"));
                assert_ne!(reply, "$3\r\nold\r\n");
                (reply.bulk() == Some(new.as_bytes())).then_some(())
            });
        }
        if made == 2 {
            return;
        }
    }
    panic!("{made} writes were made whose reply was lost");
}

#[test]
fn nothing_is_served_of_a_primary_that_was_demoted() {
    if calibrating("cache") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, ARGS);
    let mut client = nearside.client();
    assert_eq!(client.call("SET k v"), "+OK\r\n");
    nearside.warm(&mut client, "k");
    // Of nobody: it keeps its data, and answers reads.
    assert_eq!(redis.client().call("REPLICAOF 127.0.0.1 1"), "+OK\r\n");
    std::thread::sleep(PAST);
    let hits = nearside.hits();
    holds_for("reads are answered by the server", Duration::from_secs(1), || {
        client.call("GET k");
        nearside.hits() <= hits
    });
    assert_eq!(redis.client().call("REPLICAOF NO ONE"), "+OK\r\n");
}

#[test]
fn nothing_is_served_of_a_primary_that_knows_it_is_cut_off() {
    if calibrating("cache") {
        return;
    }
    // Nobody takes over, so no topology ends the lease.
    let cluster = RedisCluster::behind_relays(3, 0, &[]);
    let nearside = Nearside::ready_before_cluster(&cluster, ARGS);
    let (mut client, key) = (nearside.client(), key_in_slot(7, "k"));
    assert_eq!(client.call(&format!("SET {key} v")), "+OK\r\n");
    nearside.warm(&mut client, &key);
    cluster.isolate(0);
    let mut direct = cluster.node(0).client();
    eventually("it refuses", SOON, || {
        client.call(&format!("GET {key}"));
        direct.call(&format!("GET {key}")).starts_with(b"-CLUSTERDOWN ").then_some(())
    });
    std::thread::sleep(MAX_STALENESS);
    holds_for("nobody gets what was there", Duration::from_secs(1), || client.call(&format!("GET {key}")).is_error());
    cluster.reunite();
    cluster.wait_until_ok();
    eventually("it is read again", SOON, || (client.call(&format!("GET {key}")) == "$1\r\nv\r\n").then_some(()));
}

#[test]
fn nothing_is_served_of_a_server_whose_address_another_one_has_taken() {
    if calibrating("cache") {
        return;
    }
    let (first, second) = (RedisServer::start(), RedisServer::start());
    let relay = Relay::to(&first.address());
    let nearside = Nearside::upstream(relay.address(), ARGS);
    let mut client = nearside.client();
    first.client().call("SET k first");
    second.client().call("SET k second");
    nearside.warm(&mut client, "k");
    relay.lead_to(&second.address());
    holds_for("nobody knows of it", Duration::from_millis(200), || client.call("GET k") == "$5\r\nfirst\r\n");
    // A connection that is made now leads to the other server.
    let mut resp3 = nearside.client();
    resp3.call("HELLO 3");
    assert_eq!(resp3.call("APPEND new x"), ":1\r\n");
    assert_eq!(second.client().call("GET new"), "$1\r\nx\r\n");
    eventually("the other server is read", SOON, || (client.call("GET k") == "$6\r\nsecond\r\n").then_some(()));
    holds_for("and no more the first", Duration::from_secs(1), || client.call("GET k") == "$6\r\nsecond\r\n");
}

#[test]
fn a_server_whose_address_another_one_has_taken_is_left_by_busy_connections_too() {
    if calibrating("lanes") {
        return;
    }
    let (first, second) = (RedisServer::start(), RedisServer::start());
    let relay = Relay::to(&first.address());
    let nearside = Nearside::upstream(relay.address(), &["--workers", "1"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stops = Stops(&done);
        for number in 0..3 {
            let (mut busy, done) = (nearside.client(), &done);
            let append = words(&format!("APPEND busy{number} x")).repeat(300);
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    let replies = busy.exchange(&append, 300);
                    assert!(replies.iter().all(|reply| reply.integer().is_some()), "{replies:?}");
                }
            });
        }
        let mut client = nearside.client();
        assert_eq!(client.call("SET at first"), "+OK\r\n");
        // There is always something on its way.
        relay.delay_proxies(Duration::from_millis(20));
        relay.lead_to(&second.address());
        let mut resp3 = nearside.client();
        resp3.call("HELLO 3");
        assert_eq!(resp3.call("APPEND new x"), ":1\r\n", "by a new connection");
        eventually("the others lead to the other server too", Duration::from_secs(2), || {
            assert_eq!(client.call("SET at second"), "+OK\r\n");
            (second.client().call("GET at") == "$6\r\nsecond\r\n").then_some(())
        });
    });
}

#[test]
fn a_server_that_can_track_few_keys_costs_hits_and_no_truth() {
    if calibrating("cache") {
        return;
    }
    let redis = RedisServer::with(&["--tracking-table-max-keys", "3"]);
    let nearside = Nearside::with(&redis, ARGS);
    let (mut client, mut direct) = (nearside.client(), redis.client());
    for round in 0..20 {
        for key in 0..20 {
            assert_eq!(direct.call(&format!("SET k{key} {round}")), "+OK\r\n");
        }
        std::thread::sleep(Duration::from_millis(20));
        for key in (0..20).chain(0..20) {
            let value = round.to_string();
            eventually("the new value", MAX_STALENESS, || {
                (client.call(&format!("GET k{key}")).bulk() == Some(value.as_bytes())).then_some(())
            });
        }
    }
    assert!(nearside.metrics().total("nearside_invalidations_total") >= 100.0, "they are counted");
}
