//! Slots of a Redis Cluster that move from node to node: what clients see of it, which is as little as can be.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nearside_tests::{
    Client, ClusterClient, Freshness, Nearside, RedisCluster, Reply, SLOTS, SharedCluster, Stops, calibrating,
    eventually, key_in_slot, key_slot, spread_keys, words,
};

/// More than any delay on one machine, less than a test wants to wait in vain.
const SOON: Duration = Duration::from_secs(10);
const TRYAGAIN: &str = "-TRYAGAIN Multiple keys request during rehashing of slot\r\n";

/// Two primaries, for all tests that move single slots of their own at the moment; it ends with the last of them. Not for
/// tests of what is cached: any move ends what was fetched from the node that has lost a slot.
fn shared() -> Arc<RedisCluster> {
    static CLUSTER: SharedCluster = SharedCluster::new();
    CLUSTER.of(2)
}

/// Reads keys that do not move, one of each node. The proxy asks a node about the key that it has fetched last, to keep the
/// rest; asked about one that moves, the node would say so.
fn warm_what_stays(nearside: &Nearside, client: &mut Client, round: u16) {
    for slot in [0, SLOTS - 1] {
        nearside.warm(client, &key_in_slot(slot, &format!("stays{round}")));
    }
}

#[test]
fn in_a_half_migrated_slot_old_keys_are_found_where_they_are_and_new_ones_are_born_at_the_target() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    for resp3 in [false, true] {
        let mut client = nearside.client();
        if resp3 {
            client.call("HELLO 3");
        }
        // Another slot each time.
        let tag = format!("half-{resp3}");
        let key = |name: usize| format!("{{{tag}}}{name}");
        let (slot, from) = (key_slot(tag.as_bytes()), cluster.owner_of(&key(0)));
        for name in 0..10 {
            assert_eq!(client.call(&format!("SET {} {name}", key(name))), "+OK\r\n");
        }
        let (mut source, mut target) = (cluster.node(from).client(), cluster.node(1 - from).client());
        let migration = cluster.begin_migration(slot, 1 - from);
        assert_eq!(cluster.migrate_keys(&migration, 4), 4);
        for _ in 0..3 {
            for name in 0..10 {
                assert_eq!(client.call(&format!("GET {}", key(name))).integer(), None);
                assert_eq!(client.call(&format!("GET {}", key(name))).bulk(), Some(name.to_string().as_bytes()));
                assert_eq!(
                    client.call(&format!("GETRANGE {} 0 -1", key(name))).bulk(),
                    Some(name.to_string().as_bytes())
                );
            }
        }
        assert_eq!(client.call(&format!("SET {{{tag}}}new v")), "+OK\r\n");
        assert!(source.call(&format!("GET {{{tag}}}new")).starts_with(b"-ASK "));
        assert_eq!(target.pipeline(&["ASKING", &format!("GET {{{tag}}}new")])[1], "$1\r\nv\r\n");
        assert_eq!(client.call(&format!("GET {{{tag}}}new")), "$1\r\nv\r\n");
        let at_source = (0..10).filter(|&name| source.call(&format!("GET {}", key(name))).bulk().is_some());
        assert_eq!(at_source.count(), 6, "those that were there stay there");

        // One pipeline over both nodes, each command twice elsewhere.
        let (mut lines, mut expected) = (Vec::new(), Vec::new());
        for round in 1..=20 {
            for name in 0..10 {
                lines.push(format!("INCR {}", key(name)));
                expected.push(format!(":{}\r\n", name + round));
                lines.push(format!("GET {}", key(name)));
                expected.push(format!("${}\r\n{}\r\n", (name + round).to_string().len(), name + round));
            }
        }
        let replies = client.pipeline(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        for ((line, reply), expected) in lines.iter().zip(&replies).zip(&expected) {
            assert_eq!(*reply, expected.as_str(), "{line}");
        }
        cluster.finish_migration(migration);
        for name in 0..10 {
            assert_eq!(client.call(&format!("INCR {}", key(name))), format!(":{}\r\n", name + 21).as_str());
        }
    }
}

#[test]
fn keys_that_are_at_both_nodes_are_waited_for_and_then_the_client_is_told() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "1"]);
    let (mut client, mut other) = (nearside.client(), nearside.client());
    let elsewhere = key_in_slot(key_slot(b"t") ^ 1, "elsewhere");
    let replies = client.pipeline(&["SET {t}1 a", "SET {t}2 b", &format!("SET {elsewhere} v")]);
    assert_eq!(replies, ["+OK\r\n"; 3]);
    let from = cluster.owner_of("{t}");
    let migration = cluster.begin_migration(key_slot(b"t"), 1 - from);
    assert_eq!(cluster.migrate_keys(&migration, 1), 1);

    let started = Instant::now();
    // Not MGET: its keys are read one by one, and found.
    let lines = ["TOUCH {t}1 {t}2", "INCR {t}n", "GET {t}1", &format!("STRLEN {elsewhere}")];
    client.send(&lines.iter().flat_map(|line| words(line)).collect::<Vec<_>>());
    for _ in 0..50 {
        assert_eq!(other.call(&format!("APPEND {elsewhere} w")).integer().map(|len| len > 0), Some(true));
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}: others do not wait", started.elapsed());
    assert_eq!(client.reply(), TRYAGAIN);
    let took = started.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(8)).contains(&took), "{took:?}");
    assert_eq!([client.reply(), client.reply()], [":1\r\n", "$1\r\na\r\n"]);
    assert!(client.reply().integer().is_some_and(|len| (1..=51).contains(&len)), "another slot's may not wait");

    client.send(&words("MSETNX {t}1 x {t}3 y"));
    client.send(&words("EXISTS {t}1 {t}2 {t}3"));
    std::thread::sleep(Duration::from_millis(200));
    cluster.finish_migration(migration);
    assert_eq!(client.reply(), ":0\r\n", "it was tried again, and nobody noticed");
    assert_eq!(client.reply(), ":2\r\n");
}

#[test]
fn a_client_is_told_when_nodes_go_on_to_send_its_command_to_each_other() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    let (key, slot) = ("{nobody's}", key_slot(b"nobody's"));
    let from = cluster.owner(slot);
    let to = 1 - from;
    let give = format!("CLUSTER SETSLOT {slot} NODE {}", cluster.id(to));
    assert_eq!(cluster.node(from).client().call(&give), "+OK\r\n");

    let reply = client.call(&format!("SET {key} v"));
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let told = format!("-UPSTREAM the cluster sent the command on 16 times, the last with \"MOVED {slot} ");
    assert!(reply.starts_with(&told) && reply.ends_with("\"; the command was not executed\r\n"), "{reply:?}");

    assert_eq!(cluster.node(to).client().call(&give), "+OK\r\n");
    assert_eq!(cluster.owner(slot), to);
    assert_eq!(client.call(&format!("SET {key} v")), "+OK\r\n");
}

#[test]
fn a_key_that_is_born_at_the_target_is_not_held_to_be_missing_for_longer_than_promised() {
    if calibrating("cache") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let staleness = Duration::from_millis(500);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--max-staleness", "500ms"]);
    let mut client = nearside.client();
    let mut direct = cluster.client();
    let mut unseen = 0;
    for round in 0..4 {
        let (key, from) = (key_in_slot(100 + round, "born"), cluster.owner(100 + round));
        let migration = cluster.begin_migration(100 + round, 1 - from);
        // Before anybody asks the source again, which would say ASK.
        cluster.node(from).client().call(&format!("CLUSTER SETSLOT {} STABLE", 100 + round));
        nearside.warm(&mut client, &key);
        warm_what_stays(&nearside, &mut client, round);
        let line = format!("CLUSTER SETSLOT {} MIGRATING {}", 100 + round, cluster.id(1 - from));
        assert_eq!(cluster.node(from).client().call(&line), "+OK\r\n");
        assert_eq!(direct.call(&format!("SET {key} v")), "+OK\r\n");
        let born = Instant::now();
        unseen += usize::from(client.call(&format!("GET {key}")) == "$-1\r\n");
        std::thread::sleep((born + staleness).saturating_duration_since(Instant::now()));
        assert_eq!(client.call(&format!("GET {key}")), "$1\r\nv\r\n");
        // What the target said after ASK is not cached: it would not tell us of changes.
        for value in ["w", "x", "y"] {
            assert_eq!(direct.call(&format!("SET {key} {value}")), "+OK\r\n");
            assert_eq!(client.call(&format!("GET {key}")).bulk(), Some(value.as_bytes()));
        }
        assert_eq!(direct.call(&format!("DEL {key}")), ":1\r\n");
        assert_eq!(client.call(&format!("GET {key}")), "$-1\r\n");
        assert_eq!(direct.call(&format!("SET {key} z")), "+OK\r\n");
        assert_eq!(client.call(&format!("GET {key}")), "$1\r\nz\r\n", "nor is a nil");
        cluster.finish_migration(migration);
    }
    assert!(unseen > 0, "a cached nil was met, so that its end was seen");
}

#[test]
fn a_cached_key_that_moves_and_changes_is_not_served_for_longer_than_promised() {
    if calibrating("cache") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let staleness = Duration::from_millis(400);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--max-staleness", "400ms"]);
    let (mut client, mut direct) = (nearside.client(), cluster.client());
    for round in 0..4 {
        let (slot, key) = (200 + round, key_in_slot(200 + round, "moving"));
        assert_eq!(direct.call(&format!("SET {key} old")), "+OK\r\n");
        nearside.warm(&mut client, &key);
        warm_what_stays(&nearside, &mut client, round);
        let from = cluster.owner(slot);
        let migration = cluster.begin_migration(slot, 1 - from);
        assert_eq!(cluster.migrate_keys(&migration, 1), 1);
        if round % 2 == 0 {
            cluster.finish_migration(migration);
            assert_eq!(direct.call(&format!("SET {key} new")), "+OK\r\n");
        } else {
            assert_eq!(direct.call(&format!("SET {key} new")), "+OK\r\n");
            std::thread::sleep(staleness);
            assert_eq!(client.call(&format!("GET {key}")), "$3\r\nnew\r\n", "half migrated");
            cluster.finish_migration(migration);
        }
        std::thread::sleep(staleness);
        assert_eq!(client.call(&format!("GET {key}")), "$3\r\nnew\r\n");
        // From then on it is cached from the other node, which invalidates it.
        nearside.warm(&mut client, &key);
        assert_eq!(direct.call(&format!("SET {key} newer")), "+OK\r\n");
        eventually("the new value", SOON, || (client.call(&format!("GET {key}")) == "$5\r\nnewer\r\n").then_some(()));
    }
}

#[test]
fn a_node_that_does_not_tell_its_slots_vouches_for_nothing() {
    if calibrating("cache") {
        return;
    }
    let cluster = RedisCluster::start(2);
    for node in 0..2 {
        assert_eq!(cluster.node(node).client().call("ACL SETUSER proxy on >secret ~* &* +@all"), "+OK\r\n");
    }
    let node = &cluster.addresses()[0];
    let nearside = Nearside::with_url(&format!("redis-cluster://proxy:secret@{node}"), &["--max-staleness", "400ms"]);
    nearside.wait_until_ready();
    let mut client = nearside.client();
    let key = key_in_slot(300, "vouched-for");
    nearside.warm(&mut client, &key);
    // All else works as before, heartbeats too.
    for node in 0..2 {
        assert_eq!(cluster.node(node).client().call("ACL SETUSER proxy -cluster"), "+OK\r\n");
    }
    let verdict = |client: &mut Client| client.call(&format!("NEARSIDE EXPLAIN {key}")).text();
    eventually("its lease has lapsed", SOON, || verdict(&mut client).contains("its lease has lapsed").then_some(()));
    for node in 0..2 {
        assert_eq!(cluster.node(node).client().call("ACL SETUSER proxy +cluster"), "+OK\r\n");
    }
    nearside.warm(&mut client, &key);
}

#[test]
fn a_slot_that_is_taken_over_with_its_keys_takes_with_it_what_was_cached() {
    if calibrating("cache") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let staleness = Duration::from_millis(400);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--max-staleness", "400ms"]);
    let (mut client, mut direct) = (nearside.client(), cluster.client());
    for round in 0..4 {
        let (slot, key) = (300 + round, key_in_slot(300 + round, "taken"));
        let born = key_in_slot(300 + round, "born");
        assert_eq!(direct.call(&format!("SET {key} old")), "+OK\r\n");
        nearside.warm(&mut client, &key);
        nearside.warm(&mut client, &born);
        warm_what_stays(&nearside, &mut client, round);
        // The source learns of it by gossip, and drops its keys.
        for line in [format!("IMPORTING {}", cluster.id(0)), format!("NODE {}", cluster.id(1))] {
            let line = format!("CLUSTER SETSLOT {slot} {line}");
            assert_eq!(cluster.node(1).client().call(&line), "+OK\r\n");
        }
        assert_eq!(cluster.owner(slot), 1);
        assert_eq!(direct.call(&format!("SET {key} new")), "+OK\r\n");
        assert_eq!(direct.call(&format!("SET {born} new")), "+OK\r\n");
        std::thread::sleep(staleness);
        assert_eq!(client.call(&format!("GET {key}")), "$3\r\nnew\r\n");
        assert_eq!(client.call(&format!("GET {born}")), "$3\r\nnew\r\n");
    }
}

#[test]
fn reads_are_never_staler_than_promised_while_slots_move() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(
        &cluster,
        &["--workers", "4", "--max-staleness", "100ms", "--cache-churning", "yes"],
    );
    let beside = spread_keys(4, "beside");
    let through = spread_keys(4, "through");
    let slots = beside.iter().map(|key| key_slot(key.as_bytes())).collect::<Vec<_>>();
    let beside = Freshness::on_keys(beside, cluster.client(), nearside.address(), Duration::from_millis(100));
    let proxy = ClusterClient::connect(std::slice::from_ref(nearside.address()));
    let through = Freshness::on_keys(through, proxy, nearside.address(), Duration::ZERO);
    let end = Instant::now() + Duration::from_secs(3);
    let mut moves = 0;
    while Instant::now() < end {
        for &slot in &slots {
            let migration = cluster.begin_migration(slot, 1 - cluster.owner(slot));
            std::thread::sleep(Duration::from_millis(30));
            cluster.finish_migration(migration);
            std::thread::sleep(Duration::from_millis(50));
            moves += 1;
        }
    }
    assert!(moves > 8, "{moves} moves");
    for freshness in [beside, through] {
        assert!(freshness.reads() > 100, "{} reads", freshness.reads());
        let stale = freshness.finish();
        assert!(stale.is_empty(), "{stale:?}");
    }
}

#[test]
fn after_a_move_few_commands_are_redirected_before_the_owner_is_known() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    // Nobody looks unless there is a reason to.
    let nearside = Nearside::ready_before_cluster(&cluster, &["--topology-interval", "1h", "--max-staleness", "1h"]);
    let mut client = nearside.client();
    let keys = spread_keys(64, "many").into_iter().take(32).collect::<Vec<_>>();
    let lines = keys.iter().map(|key| format!("APPEND {key} v")).collect::<Vec<_>>();
    let lines = lines.iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(client.pipeline(&lines), [":1\r\n"; 32]);
    cluster.move_slots(cluster.slots(0), 1);
    let before = cluster.node(0).errors("MOVED");
    for round in 2..=100 {
        let expected = format!(":{round}\r\n");
        assert_eq!(client.pipeline(&lines), vec![expected.as_str(); 32]);
    }
    let redirected = cluster.node(0).errors("MOVED") - before;
    eprintln!("{redirected} of 3168 commands were redirected");
    assert!((1..=10 * 32).contains(&redirected), "{redirected} of 3168 commands were redirected");
    assert_eq!(nearside.metrics().total("nearside_upstream_nodes"), 1.0);
    // And from then on none.
    let before = cluster.node(0).errors("MOVED");
    assert_eq!(client.pipeline(&lines), [":101\r\n"; 32]);
    assert_eq!(cluster.node(0).errors("MOVED"), before);
}

#[test]
fn a_move_is_noticed_without_a_redirection() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--topology-interval", "100ms"]);
    assert_eq!(nearside.metrics().total("nearside_upstream_nodes"), 2.0);
    cluster.move_slots(cluster.slots(0), 1);
    eventually("it is noticed", SOON, || (nearside.metrics().total("nearside_upstream_nodes") == 1.0).then_some(()));
    let before = cluster.node(0).errors("MOVED");
    let mut client = nearside.client();
    for key in spread_keys(8, "noticed") {
        assert_eq!(client.pipeline(&[&format!("SET {key} v"), &format!("GET {key}")]), ["+OK\r\n", "$1\r\nv\r\n"]);
    }
    assert_eq!(cluster.node(0).errors("MOVED"), before);
}

/// Moves slots to the other of two nodes and back until told to stop, and tells how many moves that were.
fn move_about(cluster: &RedisCluster, slots: &[u16], stop: &AtomicBool) -> usize {
    let mut moves = 0;
    while !stop.load(Ordering::Relaxed) {
        for &slot in slots {
            let migration = cluster.begin_migration(slot, 1 - cluster.owner(slot));
            std::thread::sleep(Duration::from_millis(4));
            cluster.migrate_keys(&migration, 2);
            std::thread::sleep(Duration::from_millis(4));
            cluster.finish_migration(migration);
            moves += 1;
        }
    }
    moves
}

#[test]
fn commands_on_a_key_keep_their_order_while_its_slot_moves() {
    if calibrating("cluster") {
        return;
    }
    const CLIENTS: usize = 4;
    let slots = [0, 1, 8192, 8193];
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "2"]);
    let (stop, commands) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| move_about(&cluster, &slots, &stop));
        let clients = (0..CLIENTS).map(|number| {
            let mut client = nearside.client();
            if number % 2 == 1 {
                client.call("HELLO 3");
            }
            let (stop, commands) = (&stop, &commands);
            scope.spawn(move || {
                let keys = slots.map(|slot| key_in_slot(slot, &format!("ordered-{number}")));
                let mut numbers = [0_i64; 4];
                let mut random = fastrand::Rng::with_seed(number as u64);
                // Stopped also when a client has failed, so that the mover ends.
                let _stops = Stops(stop);
                while !stop.load(Ordering::Relaxed) {
                    let (lines, expected) = ordered(&keys, &mut numbers, &mut random);
                    let bytes = lines.iter().flat_map(|line| words(line)).collect::<Vec<_>>();
                    let replies = client.exchange(&bytes, lines.len());
                    for (at, (reply, expected)) in replies.iter().zip(&expected).enumerate() {
                        let around = at.saturating_sub(6)..(at + 3).min(lines.len());
                        let shown = || around.clone().map(|at| (&lines[at], &replies[at])).collect::<Vec<_>>();
                        assert_eq!(*reply, expected.as_str(), "client {number}, {}, among {:?}", lines[at], shown());
                    }
                    commands.fetch_add(lines.len(), Ordering::Relaxed);
                }
            })
        });
        let clients = clients.collect::<Vec<_>>();
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        let moves = moving.join().unwrap();
        eprintln!("{moves} moves under {} commands", commands.load(Ordering::Relaxed));
        assert!(clients.into_iter().all(|client| client.join().is_ok()), "see above");
        assert!(moves > 20 && commands.load(Ordering::Relaxed) > 5000, "{moves} moves");
    });
}

/// A pipeline on keys whose numbers only this client changes, and what it has to be answered.
fn ordered(keys: &[String], numbers: &mut [i64], random: &mut fastrand::Rng) -> (Vec<String>, Vec<String>) {
    let commands = (0..random.usize(1..60)).map(|_| {
        let at = random.usize(..keys.len());
        let (key, number) = (&keys[at], &mut numbers[at]);
        match random.u8(..10) {
            0..5 => {
                *number += 1;
                (format!("INCR {key}"), format!(":{number}\r\n"))
            }
            5..7 => {
                *number += 7;
                (format!("SET {key} {number}"), "+OK\r\n".to_owned())
            }
            _ => get(key, *number),
        }
    });
    let mut all = commands.collect::<Vec<_>>();
    // At the end, the last that was acknowledged.
    all.extend(keys.iter().zip(numbers).map(|(key, number)| get(key, *number)));
    all.into_iter().unzip()
}

/// STRLEN stands in for GET where RESP2 and RESP3 differ: for a key that is not there yet.
fn get(key: &str, number: i64) -> (String, String) {
    match number {
        0 => (format!("STRLEN {key}"), ":0\r\n".to_owned()),
        _ => (format!("GET {key}"), format!("${}\r\n{number}\r\n", number.to_string().len())),
    }
}

#[test]
fn values_of_any_size_arrive_whole_while_their_slots_move() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let slots = [3, 4, 5];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| move_about(&cluster, &slots, &stop));
        let _stops = Stops(&stop);
        let mut client = nearside.client();
        for round in 0..60_usize {
            let size = [10, 5_000, 300_000, 3_000_000][round % 4];
            let value = (round % 10).to_string().repeat(size);
            let key = key_in_slot(slots[round % 3], "sized");
            let mut bytes = nearside_tests::request(&["SET", &key, &value]);
            bytes.extend(words(&format!("STRLEN {key}")));
            bytes.extend(words(&format!("GET {key}")));
            bytes.extend(words(&format!("GETRANGE {key} 0 3")));
            let replies = client.exchange(&bytes, 4);
            let shown = || replies.iter().map(|reply| Reply(reply[..reply.len().min(80)].to_vec())).collect::<Vec<_>>();
            assert!(replies[0] == "+OK\r\n" && replies[1] == format!(":{size}\r\n").as_str(), "{:?}", shown());
            assert!(replies[2].bulk() == Some(value.as_bytes()), "{:?}", shown());
            assert!(replies[3].bulk() == Some(&value.as_bytes()[..4]), "{:?}", shown());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(moving.join().unwrap() > 3);
    });
}
