//! Commands that become several before a cluster: those on keys of several slots, and those that concern every node.
//!
//! The measure is one ordinary server: the client is to see none of the division.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nearside_tests::generator::Generated;
use nearside_tests::{
    Client, Nearside, RedisCluster, RedisServer, Reply, SLOTS, SharedCluster, Stops, Worlds, calibrating, eventually,
    key_in_slot, request, spread_keys, words,
};

/// More than any delay on one machine, less than a test wants to wait in vain.
const SOON: Duration = Duration::from_secs(10);

/// For all tests that run at the moment and leave the keys of the others alone.
fn shared() -> Arc<RedisCluster> {
    static CLUSTER: SharedCluster = SharedCluster::new();
    CLUSTER.of(3)
}

fn resp3(nearside: &Nearside) -> Client {
    let mut client = nearside.client();
    assert!(client.call("HELLO 3").starts_with(b"%"));
    client
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// A command of a name and arguments.
fn with<'a>(name: &'a str, arguments: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    [name].into_iter().chain(arguments.into_iter().map(String::as_str)).collect()
}

/// Commands on keys of any slots, and on the whole keyspace.
fn any_command(random: &mut fastrand::Rng) -> Generated {
    let mut key = || format!("k{}", random.u8(..40));
    let keys = (0..6).map(|_| key()).collect::<Vec<_>>();
    let count = random.usize(1..=6);
    let some = &keys[..count];
    let value = random.u16(..).to_string();
    let pairs = some.iter().flat_map(|key| [key, &value]).collect::<Vec<_>>();
    let line = match random.u8(..30) {
        0..4 => with("MGET", some),
        4..8 => with("MSET", pairs),
        8..10 => with("DEL", some),
        10 => with("UNLINK", some),
        11 => with("EXISTS", some),
        12 => with("TOUCH", some),
        13..16 => with("GET", &keys[..1]),
        16..18 => with("INCR", &keys[..1]),
        18..20 => vec!["SET", &keys[0], &value],
        20 => vec!["LPUSH", &keys[0], "x"],
        21 => vec!["DBSIZE"],
        22 => vec!["MSET", &keys[0], "v", &keys[1]],
        23 => with("mget", &[]),
        24 => vec!["SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "x"],
        25 => vec!["SCRIPT", if random.bool() { "LOAD" } else { "load" }, "return(1)"],
        26 => vec!["PUBSUB", "NUMSUB", "a", "b"],
        27 if random.u8(..10) == 0 => vec!["FLUSHALL"],
        28 => vec!["SCAN", "x"],
        29 => vec!["SCRIPT", "FLUSH", "NOSUCH"],
        _ => vec!["TYPE", &keys[0]],
    };
    Generated::of(&line)
}

#[test]
fn a_cluster_behind_the_proxy_answers_as_one_server_does() {
    if calibrating("cluster") {
        return;
    }
    let (redis, cluster) = (RedisServer::start(), RedisCluster::start(3));
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "2"]);
    let seed =
        std::env::var("NEARSIDE_TEST_SEED").map_or_else(|_| fastrand::u64(..1 << 40), |seed| seed.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut worlds = Worlds::connect(&redis.address(), nearside.address(), 4, seed);
    while worlds.compared() < 20_000 {
        let pipeline = (0..random.usize(1..60)).map(|_| any_command(&mut random)).collect::<Vec<_>>();
        let number = random.usize(..4);
        worlds.pipeline(number, &pipeline).unwrap_or_else(|difference| panic!("seed {seed}: {difference:?}"));
    }
    let mut clients = [redis.client(), nearside.client()];
    let keys = clients
        .each_mut()
        .map(|client| client.call("KEYS *").elements().into_iter().map(|key| key.0).collect::<BTreeSet<_>>());
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn what_is_written_over_many_slots_is_at_its_nodes_and_read_in_the_order_asked() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    for (mut client, nil) in [(nearside.client(), "$-1\r\n"), (resp3(&nearside), "_\r\n")] {
        let keys = spread_keys(30, "split");
        let pairs = keys.iter().flat_map(|key| [key.clone(), format!("of {key}")]).collect::<Vec<_>>();
        assert_eq!(client.command(&with("MSET", &pairs)), "+OK\r\n");
        let mut direct = cluster.client();
        for key in &keys {
            assert_eq!(direct.command(&["GET", key]).bulk(), Some(format!("of {key}").as_bytes()));
        }
        assert_eq!(client.command(&["DEL", &keys[3]]), ":1\r\n");
        client.command(&["DEL", &keys[4]]);
        client.command(&["LPUSH", &keys[4], "no string"]);
        // Backwards, and the first one twice.
        let asked = keys.iter().rev().chain([&keys[29]]).collect::<Vec<_>>();
        let values = asked.iter().map(|key| match *key {
            key if *key == keys[3] || *key == keys[4] => nil.to_owned(),
            key => bulk(&format!("of {key}")),
        });
        let expected = format!("*31\r\n{}", values.collect::<String>());
        assert_eq!(client.command(&with("MGET", asked.iter().copied())), expected.as_str());
        assert_eq!(client.command(&with("EXISTS", asked.iter().copied())), ":30\r\n");
        assert_eq!(client.command(&with("TOUCH", asked)), ":30\r\n");
        assert_eq!(client.command(&with("UNLINK", &keys[..10])), ":9\r\n");
        assert_eq!(client.command(&with("DEL", &keys)), ":20\r\n");
        assert_eq!(client.command(&with("MGET", &keys)), format!("*30\r\n{}", nil.repeat(30)).as_str());
    }
}

#[test]
fn a_hundred_thousand_keys_of_all_slots_are_one_command() {
    if calibrating("cluster") {
        return;
    }
    const KEYS: usize = 100_000;
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &["--upstream-timeout", "30s"]);
    let mut client = nearside.client();
    client.set_patience(Duration::from_secs(60));
    let keys = (0..KEYS).map(|number| format!("many:{number}")).collect::<Vec<_>>();
    let pairs = keys.iter().flat_map(|key| [key, key]).collect::<Vec<_>>();
    // Two at a time: the second waits until the first is done.
    let (mset, mget, del) = (with("MSET", pairs), with("MGET", &keys), with("DEL", &keys));
    let bytes = [&mset, &mget, &mget, &del, &del].iter().flat_map(|line| request(line)).collect::<Vec<_>>();
    let replies = client.exchange(&bytes, 5);
    let values = format!("*{KEYS}\r\n{}", keys.iter().map(|key| bulk(key)).collect::<String>());
    assert_eq!(replies[0], "+OK\r\n");
    assert!(replies[1] == values.as_str() && replies[2] == values.as_str());
    assert_eq!(replies[3..], [format!(":{KEYS}\r\n").as_str(), ":0\r\n"]);
}

#[test]
fn one_pipeline_of_divided_and_whole_commands_keeps_its_order_on_every_key() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "2"]);
    let (mut client, mut other) = (nearside.client(), nearside.client());
    for round in 0..20 {
        let keys = spread_keys(9, &format!("ordered-{round}"));
        let (first, last) = (&keys[0], &keys[8]);
        keys.iter().for_each(|key| nearside_warm(&mut other, key));
        let pairs = |value: &str| keys.iter().flat_map(|key| [key.clone(), value.to_owned()]).collect::<Vec<_>>();
        let (ones, twos) = (pairs("1"), pairs("2"));
        let lines = [
            vec!["GET", first],
            with("MSET", &ones),
            vec!["GET", first],
            vec!["INCR", last],
            with("MGET", [first, last]),
            with("MSET", &twos),
            vec!["GET", last],
            with("DEL", [last, first]),
            vec!["GET", first],
            with("EXISTS", &keys),
            with("DEL", &keys),
            with("MGET", [first, last]),
        ];
        let replies = client.exchange(&lines.iter().flat_map(|line| request(line)).collect::<Vec<_>>(), lines.len());
        let both = |first: &str, last: &str| format!("*2\r\n{}{}", bulk(first), bulk(last));
        let nil = "$-1\r\n".to_owned();
        let expected = [
            nil.clone(),
            "+OK\r\n".into(),
            bulk("1"),
            ":2\r\n".into(),
            both("1", "2"),
            "+OK\r\n".into(),
            bulk("2"),
            ":2\r\n".into(),
            nil.clone(),
            ":7\r\n".into(),
            ":7\r\n".into(),
            format!("*2\r\n{nil}{nil}"),
        ];
        for (number, (reply, expected)) in replies.iter().zip(&expected).enumerate() {
            assert_eq!(*reply, expected.as_str(), "round {round}, reply {number}");
        }
        assert_eq!(other.call(&format!("GET {first}")), "$-1\r\n", "what was cached was dropped");
    }
}

/// Reads a key twice: if it can be cached, it is.
fn nearside_warm(client: &mut Client, key: &str) {
    (0..2).for_each(|_| drop(client.call(&format!("GET {key}"))));
}

#[test]
fn replies_that_the_client_does_not_want_are_left_out() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    let keys = spread_keys(6, "silent");
    let pairs = keys.iter().flat_map(|key| [key.as_str(), "v"]).collect::<Vec<_>>();
    let lines = [
        "CLIENT REPLY SKIP".to_owned(),
        format!("MSET {}", pairs.join(" ")),
        format!("EXISTS {}", keys.join(" ")),
        "CLIENT REPLY OFF".to_owned(),
        format!("MGET {}", keys.join(" ")),
        format!("DEL {} {}", keys[0], keys[5]),
        "DBSIZE".to_owned(),
        "SCAN 0".to_owned(),
        "CLIENT REPLY ON".to_owned(),
        format!("EXISTS {}", keys.join(" ")),
    ];
    let bytes = lines.iter().flat_map(|line| words(line)).collect::<Vec<_>>();
    assert_eq!(client.exchange(&bytes, 3), [":6\r\n", "+OK\r\n", ":4\r\n"]);
    assert_eq!(client.call("PING"), "+PONG\r\n");
}

#[test]
fn a_part_that_fails_is_the_whole_commands_error_and_says_that_others_were_done() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    let keys = [key_in_slot(1, "full"), key_in_slot(SLOTS - 1, "full")];
    let full = cluster.owner_of(&keys[1]);
    assert_eq!(cluster.node(full).client().call("CONFIG SET maxmemory 1"), "+OK\r\n");
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.";
    let partly = format!("{oom}; the command was carried out in part\r\n");
    let both = client.command(&["MSET", &keys[1], "v", &keys[0], "v"]);
    assert_eq!(both, partly.as_str());
    assert_eq!(client.call(&format!("MGET {} {}", keys[1], keys[0])), "*2\r\n$-1\r\n$1\r\nv\r\n");
    let at_full = [&keys[1], &key_in_slot(SLOTS - 2, "full")];
    assert_eq!(client.command(&["MSET", at_full[0], "v", at_full[1], "v"]), format!("{oom}\r\n").as_str());
    // Of two errors that which comes first in the command.
    assert_eq!(cluster.node(1 - full).client().call("ACL SETUSER default -mget"), "+OK\r\n");
    assert_eq!(cluster.node(full).client().call("ACL SETUSER default -@fast"), "+OK\r\n");
    let said = client.command(&["MGET", &keys[0], &keys[1]]);
    assert!(said.starts_with(b"-NOPERM ") && said.text().contains("mget"), "{said:?}");
    assert!(!said.text().contains("in part"), "it only reads: {said:?}");
}

#[test]
fn a_node_that_dies_or_stands_still_in_the_middle_is_an_error_and_no_hang() {
    if calibrating("way to outlive a node") {
        return;
    }
    let mut cluster = RedisCluster::with_replicas(3, 0, &["--cluster-node-timeout", "15000"]);
    let args = ["--upstream-timeout", "1s", "--connect-timeout", "500ms", "--workers", "1"];
    let nearside = Nearside::ready_before_cluster(&cluster, &args);
    let (mut client, mut other) = (nearside.client(), nearside.client());
    let keys = spread_keys(9, "dying");
    let large = "x".repeat(200_000);
    let pairs = keys.iter().flat_map(|key| [key.as_str(), &large]).collect::<Vec<_>>();
    let mset = [&["MSET"], &pairs[..]].concat();
    assert_eq!(client.command(&mset), "+OK\r\n");
    let dying = cluster.owner_of(&keys[0]);

    // It stands still: the parts of the others are answered, its own run into the limit.
    cluster.node(dying).stop();
    client.send(&[request(&with("MGET", &keys)), request(&mset), words("ECHO next")].concat());
    let started = Instant::now();
    assert_eq!(other.call(&format!("STRLEN {}", keys[8])), ":200000\r\n", "others do not wait");
    let said = client.reply();
    assert!(said.starts_with(b"-UPSTREAM ") && !said.text().contains("in part"), "{said:?}");
    let said = client.reply();
    assert!(said.starts_with(b"-UPSTREAM ") && said.text().contains("in part"), "{said:?}");
    assert_eq!(client.reply(), "$4\r\nnext\r\n");
    assert!(started.elapsed() < SOON);
    cluster.node(dying).resume();
    eventually("it is back", SOON, || (client.command(&mset) == "+OK\r\n").then_some(()));

    // It dies while its reply is on its way.
    for round in 0..5 {
        let lines = (0..40).flat_map(|_| request(&with("MGET", &keys))).collect::<Vec<_>>();
        client.send(&lines);
        std::thread::sleep(Duration::from_millis(10 * round));
        if round == 2 {
            cluster.kill(dying);
        }
        for _ in 0..40 {
            let reply = client.reply();
            assert!(reply.is_error() || reply.elements().len() == 9, "{reply:?}");
        }
    }
    // Known to be down: nothing is done.
    eventually("it is known to be down", SOON, || client.command(&mset).text().contains("was not sent").then_some(()));
    let small = keys.iter().flat_map(|key| [key.as_str(), "small"]).collect::<Vec<_>>();
    let said = client.command(&[&["MSET"], &small[..]].concat());
    assert!(said.text().ends_with("the command was not sent\\r\\n"), "{said:?}");
    assert_eq!(client.call(&format!("STRLEN {}", keys[8])), ":200000\r\n");
    for command in ["DBSIZE", "KEYS *", "FLUSHALL", "SCRIPT LOAD return(1)"] {
        let said = client.call(command);
        assert!(said.starts_with(b"-UPSTREAM "), "{command}: {said:?}");
    }
    assert_eq!(client.call(&format!("STRLEN {}", keys[8])), ":200000\r\n");
}

#[test]
fn a_client_that_leaves_in_the_middle_hurts_nobody() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::with_replicas(2, 0, &["--cluster-node-timeout", "15000"]);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "1"]);
    let mut client = nearside.client();
    let keys = spread_keys(8, "left");
    cluster.node(0).stop();
    for _ in 0..10 {
        let mut leaving = nearside.client();
        let pairs = keys.iter().flat_map(|key| [key.as_str(), "v"]).collect::<Vec<_>>();
        leaving.send(&request(&[&["MSET"], &pairs[..]].concat()));
        leaving.send(&request(&with("MGET", &keys)));
        leaving.send(&words("DBSIZE"));
    }
    cluster.node(0).resume();
    let values = format!("*8\r\n{}", bulk("v").repeat(8));
    eventually("what they wrote is there", SOON, || {
        (client.command(&with("MGET", &keys)) == values.as_str()).then_some(())
    });
    assert_eq!(client.command(&with("DEL", &keys)), ":8\r\n");
}

#[test]
fn divided_commands_are_right_while_slots_move() {
    if calibrating("cluster") {
        return;
    }
    const CLIENTS: usize = 3;
    let slots = [0, 1, 8191, 8192, 8193];
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "2"]);
    let (stop, commands) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| {
            let mut moves = 0;
            // In turns: a slot that goes back at once can come to be nobody's, as far as each node knows.
            while !stop.load(Ordering::Relaxed) {
                let slot = slots[moves % slots.len()];
                let migration = cluster.begin_migration(slot, 1 - cluster.owner(slot));
                std::thread::sleep(Duration::from_millis(3));
                cluster.migrate_keys(&migration, 1);
                std::thread::sleep(Duration::from_millis(3));
                cluster.finish_migration(migration);
                moves += 1;
            }
            moves
        });
        let clients = (0..CLIENTS).map(|number| {
            let mut client = nearside.client();
            let (stop, commands) = (&stop, &commands);
            scope.spawn(move || {
                let _stops = Stops(stop);
                // One key of each slot: keys of one slot, half moved, are told TRYAGAIN, which takes its time.
                let keys = slots.map(|slot| key_in_slot(slot, &format!("moving-{number}")));
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let pairs = keys.iter().flat_map(|key| [key.clone(), round.to_string()]).collect::<Vec<_>>();
                    let lines = [
                        with("MSET", &pairs),
                        with("MGET", &keys),
                        vec!["INCR", &keys[2]],
                        with("EXISTS", &keys),
                        with("DEL", &keys[1..]),
                        with("MGET", &keys),
                        with("UNLINK", &keys),
                    ];
                    let bytes = lines.iter().flat_map(|line| request(line)).collect::<Vec<_>>();
                    let replies = client.exchange(&bytes, lines.len());
                    let value = bulk(&round.to_string());
                    let expected = [
                        "+OK\r\n".to_owned(),
                        format!("*5\r\n{}", value.repeat(5)),
                        format!(":{}\r\n", round + 1),
                        ":5\r\n".to_owned(),
                        ":4\r\n".to_owned(),
                        format!("*5\r\n{value}{}", "$-1\r\n".repeat(4)),
                        ":1\r\n".to_owned(),
                    ];
                    for (at, (reply, expected)) in replies.iter().zip(&expected).enumerate() {
                        assert_eq!(*reply, expected.as_str(), "client {number}, round {round}, reply {at}");
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
        assert!(moves > 10 && commands.load(Ordering::Relaxed) > 500, "{moves} moves");
    });
}

#[test]
fn what_concerns_every_node_is_done_at_every_node() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(3);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let (mut client, mut other) = (nearside.client(), resp3(&nearside));
    let keys = spread_keys(30, "every");
    keys.iter().for_each(|key| assert_eq!(client.call(&format!("SET {key} v")), "+OK\r\n"));
    assert_eq!(client.call("DBSIZE"), ":30\r\n");
    let listed = |reply: Reply| reply.elements().iter().map(|key| key.bulk().unwrap().to_vec()).collect::<Vec<_>>();
    for client in [&mut client, &mut other] {
        let mut all = listed(client.call("KEYS *"));
        all.sort();
        let mut expected = keys.iter().map(|key| key.clone().into_bytes()).collect::<Vec<_>>();
        expected.sort();
        assert_eq!(all, expected);
        assert_eq!(client.call("KEYS nosuch*"), "*0\r\n");
    }
    let drawn = (0..300).map(|_| client.call("RANDOMKEY").bulk().unwrap().to_vec()).collect::<HashSet<_>>();
    let owners = drawn.iter().map(|key| cluster.owner_of(std::str::from_utf8(key).unwrap())).collect::<HashSet<_>>();
    assert!(owners.len() == 3 && drawn.len() > 20, "{drawn:?}");

    // The cache hears of it, whatever node it happened at.
    keys.iter().for_each(|key| nearside_warm(&mut other, key));
    let replies = client.pipeline(&["FLUSHALL", "DBSIZE", &format!("GET {}", keys[7])]);
    assert_eq!(replies, ["+OK\r\n", ":0\r\n", "$-1\r\n"]);
    keys.iter().for_each(|key| assert_eq!(other.call(&format!("GET {key}")), "_\r\n"));
    assert_eq!(client.call("RANDOMKEY"), "$-1\r\n");
    assert_eq!(other.call("RANDOMKEY"), "_\r\n");
    for line in ["FLUSHDB", "FLUSHDB ASYNC", "FLUSHALL SYNC"] {
        client.call(&format!("SET {} v", keys[0]));
        assert_eq!(client.call(line), "+OK\r\n");
        assert_eq!(client.call("DBSIZE"), ":0\r\n");
    }
    assert_eq!(client.call("FLUSHALL NOSUCH"), "-ERR syntax error\r\n");

    // Scripts and functions are known wherever the keys are.
    let sha = "4a2267357833227dd98abdedb8cf24b15a986445"; // of `return KEYS[1]`
    assert_eq!(client.command(&["SCRIPT", "LOAD", "return KEYS[1]"]), bulk(sha).as_str());
    for key in &keys[..6] {
        assert_eq!(client.call(&format!("EVALSHA {sha} 1 {key}")), bulk(key).as_str());
    }
    assert_eq!(client.call(&format!("SCRIPT EXISTS {sha} nosuch")), "*2\r\n:1\r\n:0\r\n");
    assert_eq!(cluster.node(1).client().call("SCRIPT FLUSH"), "+OK\r\n");
    assert_eq!(client.call(&format!("SCRIPT EXISTS {sha}")), "*1\r\n:0\r\n", "one node has it no longer");
    let library = "#!lua name=lib\nredis.register_function('same', function(keys) return keys[1] end)";
    assert_eq!(client.command(&["FUNCTION", "LOAD", library]), "$3\r\nlib\r\n");
    for key in &keys[..6] {
        assert_eq!(client.call(&format!("FCALL same 1 {key}")), bulk(key).as_str());
    }
    let again = client.command(&["FUNCTION", "LOAD", library]);
    assert_eq!(again, "-ERR Library 'lib' already exists\r\n");
    assert_eq!(cluster.node(2).client().call("FUNCTION FLUSH"), "+OK\r\n");
    let said = client.call("FUNCTION DELETE lib");
    assert_eq!(said, "-ERR Library not found; the command was carried out in part\r\n");
    let busy = "-NOTBUSY No scripts in execution right now.\r\n";
    assert_eq!([client.call("SCRIPT KILL"), client.call("FUNCTION KILL")], [busy, busy]);

    assert_eq!(client.call("CONFIG SET maxmemory-samples 7"), "+OK\r\n");
    for number in 0..3 {
        let said = cluster.node(number).client().call("CONFIG GET maxmemory-samples");
        assert_eq!(said, "*2\r\n$17\r\nmaxmemory-samples\r\n$1\r\n7\r\n");
    }
    assert_eq!(client.call("CONFIG RESETSTAT"), "+OK\r\n");
    let redis = RedisServer::start();
    let redis_says = |command: &str| redis.client().call(command);
    let wrong = redis_says("CONFIG SET nosuch x");
    assert_eq!(client.call("CONFIG SET nosuch x"), wrong);
    assert_eq!(client.call("MEMORY PURGE"), "+OK\r\n");
    assert_eq!(client.call("LATENCY RESET"), ":0\r\n");
    assert!(client.call("LASTSAVE").integer().is_some_and(|at| at > 1_600_000_000));
    for command in ["DBSIZE x", "KEYS", "SCRIPT EXISTS", "FUNCTION LOAD", "RANDOMKEY x", "FUNCTION FLUSH NOW", "SCAN"] {
        assert_eq!(client.call(command), redis_says(command), "{command}");
    }
}

#[test]
fn subscribers_and_slow_commands_of_all_nodes_are_counted_together() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(3);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    let mut subscribers = (0..3).map(|number| cluster.node(number).client()).collect::<Vec<_>>();
    for subscriber in &mut subscribers {
        subscriber.call("SUBSCRIBE news");
        subscriber.call("PSUBSCRIBE n*");
    }
    subscribers[1].call("SUBSCRIBE local");
    let shard = key_in_slot(3, "shard");
    cluster.node(cluster.owner(3)).client().call("PING");
    let mut sharded = cluster.node(cluster.owner(3)).client();
    sharded.call(&format!("SSUBSCRIBE {shard}"));
    assert_eq!(
        client.call("PUBSUB NUMSUB news local nobody"),
        "*6\r\n$4\r\nnews\r\n:3\r\n$5\r\nlocal\r\n:1\r\n$6\r\nnobody\r\n:0\r\n"
    );
    assert_eq!(client.call("PUBSUB NUMSUB"), "*0\r\n");
    let mut channels = client.call("PUBSUB CHANNELS").elements();
    channels.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(channels, ["$4\r\nnews\r\n", "$5\r\nlocal\r\n"]);
    let patterns = cluster.node(0).client().call("PUBSUB NUMPAT").integer().unwrap();
    assert_eq!(client.call("PUBSUB NUMPAT").integer(), Some(3 * patterns));
    assert_eq!(client.call("PUBSUB SHARDCHANNELS"), format!("*1\r\n{}", bulk(&shard)).as_str());
    assert_eq!(client.call(&format!("PUBSUB SHARDNUMSUB {shard}")), format!("*2\r\n{}:1\r\n", bulk(&shard)).as_str());

    assert_eq!(client.call("CONFIG SET slowlog-log-slower-than 1000000000"), "+OK\r\n");
    assert_eq!(client.call("SLOWLOG RESET"), "+OK\r\n");
    assert_eq!(client.call("SLOWLOG LEN"), ":0\r\n");
    for number in 0..3 {
        let mut node = cluster.node(number).client();
        node.call("CONFIG SET slowlog-log-slower-than 0");
        node.call("CONFIG SET slowlog-log-slower-than 1000000000");
    }
    assert_eq!(client.call("SLOWLOG LEN"), ":3\r\n", "the second CONFIG SET of each");
    assert_eq!(client.call("SLOWLOG GET").elements().len(), 3);
}

#[test]
fn beside_a_connection_of_its_own_a_sessions_divided_commands_keep_their_order() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    for round in 0..20 {
        let keys = spread_keys(6, &format!("watching-{round}"));
        let all = keys.join(" ");
        let pairs = |value| keys.iter().map(|key| format!("{key} {value}")).collect::<Vec<_>>().join(" ");
        let [watched, set] = [&keys[0], &format!("MSET {}", pairs("1"))];
        let lines = [
            format!("WATCH {watched}"),
            format!("SET {watched} 0"),
            set.clone(),
            format!("INCR {watched}"),
            format!("MGET {all}"),
            format!("DEL {all}"),
            format!("GET {watched}"),
            "UNWATCH".to_owned(),
            set.clone(),
            "MULTI".to_owned(),
            format!("INCR {watched}"),
            "EXEC".to_owned(),
            format!("EXISTS {all}"),
        ];
        let replies = client.pipeline(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let values = format!("*6\r\n{}{}", bulk("2"), bulk("1").repeat(5));
        let expected = [
            "+OK\r\n",
            "+OK\r\n",
            "+OK\r\n",
            ":2\r\n",
            &values,
            ":6\r\n",
            "$-1\r\n",
            "+OK\r\n",
            "+OK\r\n",
            "+OK\r\n",
            "+QUEUED\r\n",
            "*1\r\n:2\r\n",
            ":6\r\n",
        ];
        assert_eq!(replies, expected, "round {round}");
        client.call(&format!("DEL {all}"));
        let crossing = ["MULTI".to_owned(), set.clone(), "EXEC".to_owned()];
        let replies = client.pipeline(&crossing.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(replies[1].starts_with(b"-CROSSSLOT ") && replies[2].starts_with(b"-EXECABORT "), "{replies:?}");
    }
}

#[test]
fn a_script_that_does_not_end_is_ended_by_another_client() {
    if calibrating("cluster") {
        return;
    }
    let redis = RedisServer::with(&["--lua-time-limit", "100", "--requirepass", "secret"]);
    let url = format!("redis://:secret@{}", redis.address());
    let nearside = Nearside::with_url(&url, &["--workers", "1"]);
    nearside.wait_until_ready();
    end_a_script(&nearside, "standalone", "SCRIPT KILL");
    let cluster = RedisCluster::with_replicas(3, 0, &["--lua-time-limit", "100", "--cluster-node-timeout", "15000"]);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "1"]);
    end_a_script(&nearside, "before a cluster", "SCRIPT KILL");
    let library = "#!lua name=lib\nredis.register_function('endless', function() while true do end end)";
    assert_eq!(nearside.client().command(&["FUNCTION", "LOAD", library]), "$3\r\nlib\r\n");
    let mut busy = nearside.client();
    busy.send(&words("FCALL endless 1 somewhere"));
    end(&nearside, &mut busy, "FUNCTION KILL");
}

fn end_a_script(nearside: &Nearside, upstream: &str, command: &str) {
    let mut client = nearside.client();
    let not_busy = "-NOTBUSY No scripts in execution right now.\r\n";
    assert_eq!(client.call(command), not_busy, "{upstream}");
    assert!(client.call(&format!("{command} NOW")).is_error(), "{upstream}");
    let mut busy = nearside.client();
    busy.send(&request(&["EVAL", "while true do end", "1", "somewhere"]));
    end(nearside, &mut busy, command);
    // Of one connection's own script it comes too late, as before one server.
    client.send(&[request(&["EVAL", "return 1", "1", "k"]), words(command), words("ECHO next")].concat());
    assert_eq!([client.reply(), client.reply()], [":1\r\n", not_busy]);
    assert_eq!(client.reply(), "$4\r\nnext\r\n");
}

fn end(nearside: &Nearside, busy: &mut Client, command: &str) {
    let mut other = nearside.client();
    eventually("the script is ended", SOON, || (other.call(command) == "+OK\r\n").then_some(()));
    let said = busy.reply();
    assert!(said.is_error() && said.text().to_lowercase().contains("killed by user"), "{said:?}");
    assert_eq!(busy.call("PING"), "+PONG\r\n");
}
