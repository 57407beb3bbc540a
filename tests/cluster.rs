//! Before a Redis Cluster: one ordinary server to the client, whatever node a key belongs to.
//!
//! Most tests use one cluster at the same time, with keys of their own, and do it no harm. What moves is in `slot_moves`,
//! what breaks in `cluster_faults`, which nodes there are in
//! `cluster_nodes`.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nearside_tests::{
    Client, ClusterClient, Freshness, Nearside, RedisCluster, RedisServer, Reply, SLOTS, SharedCluster, calibrating,
    eventually, key_in_slot, key_slot, request, spread_keys, words,
};

/// More than any delay on one machine, less than a test wants to wait in vain.
const SOON: Duration = Duration::from_secs(10);
const CROSSSLOT: &str = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
const WRONGTYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

/// For all tests that run at the moment.
fn shared() -> Arc<RedisCluster> {
    static CLUSTER: SharedCluster = SharedCluster::new();
    CLUSTER.of(3)
}

fn resp3(nearside: &Nearside) -> Client {
    let mut client = nearside.client();
    assert!(client.call("HELLO 3").starts_with(b"%"));
    client
}

/// GETs a key: the reply, and whether it came from the near-cache. For tests with one client.
fn read(nearside: &Nearside, client: &mut Client, key: &str) -> (Reply, bool) {
    let before = nearside.hits();
    let reply = client.call(&format!("GET {key}"));
    (reply, nearside.hits() > before)
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

#[test]
fn a_key_goes_to_the_node_that_owns_its_slot() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    // Without the cache there are no heartbeats to be counted.
    let nearside = Nearside::ready_before_cluster(&cluster, &["--cache-size", "off"]);
    let mut client = nearside.client();
    for key in spread_keys(30, "owned") {
        let owner = cluster.node(cluster.owner_of(&key));
        let before = nearside.commands_by_node();
        assert_eq!(client.command(&["SET", &key, &key]), "+OK\r\n");
        assert_eq!(client.command(&["GET", &key]).bulk(), Some(key.as_bytes()));
        assert_eq!(client.command(&["OBJECT", "ENCODING", &key]), "$6\r\nembstr\r\n", "the key is no first argument");
        assert_eq!(owner.client().command(&["GET", &key]).bulk(), Some(key.as_bytes()));
        let mut sent = nearside.commands_by_node();
        sent.iter_mut().for_each(|(node, count)| *count -= before.get(node).unwrap_or(&0.0));
        sent.retain(|_, count| *count > 0.0);
        assert_eq!(sent, BTreeMap::from([(owner.address().to_string(), 3.0)]), "{key}");
    }
}

#[test]
fn keys_of_one_hash_tag_are_on_one_node() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    for tag in ["one", "two", "three", "four", "{"] {
        let key = |name: &str| format!("{name}{{{tag}}}tagged{name}");
        let (a, b) = (key("a"), key("b"));
        assert_eq!(client.command(&["MSET", &a, "1", &b, "2"]), "+OK\r\n");
        assert_eq!(client.command(&["MGET", &a, &b, &key("c")]), "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n");
        assert_eq!(client.command(&["RENAME", &a, &key("c")]), "+OK\r\n");
        let sum = "return redis.call('GET', KEYS[1]) + redis.call('GET', KEYS[2])";
        assert_eq!(client.command(&["EVAL", sum, "2", &b, &key("c")]), ":3\r\n");
        assert_eq!(client.command(&["DEL", &a, &b, &key("c")]), ":2\r\n");
    }
    let odd: [&[u8]; 10] =
        [b"", b"{}odd", b"{}{odd}", b"odd{", b"odd}{", b"{odd", b"{{odd}}", b"{odd}{x}", b"\0{\xff}\r\n", b"odd{}"];
    for key in odd {
        assert_eq!(client.command(&[b"SET".as_ref(), key, key]), "+OK\r\n");
        let owner = cluster.node(cluster.owner(key_slot(key)));
        assert_eq!(owner.client().command(&[b"GET".as_ref(), key]).bulk(), Some(key), "{}", key.escape_ascii());
        assert_eq!(client.command(&[b"GET".as_ref(), key]).bulk(), Some(key));
        assert_eq!(client.command(&[b"DEL".as_ref(), key]), ":1\r\n");
    }
}

#[test]
fn the_second_get_of_a_key_is_a_hit_whatever_node_it_is_on() {
    if calibrating("cache") {
        return;
    }
    let cluster = shared();
    // Else a heartbeat that is late on a busy machine makes a miss of a hit.
    let nearside = Nearside::ready_before_cluster(&cluster, &["--max-staleness", "100s"]);
    let mut client = nearside.client();
    // From here on each node's loader lane is there.
    spread_keys(6, "warmed-up").iter().for_each(|key| nearside.warm(&mut client, key));
    let mut direct = cluster.client();
    for key in spread_keys(12, "cached") {
        direct.call(&format!("SET {key} value"));
        assert_eq!(read(&nearside, &mut client, &key), (Reply(b"$5\r\nvalue\r\n".to_vec()), false), "{key}");
        assert_eq!(read(&nearside, &mut client, &key), (Reply(b"$5\r\nvalue\r\n".to_vec()), true), "{key}");
    }
}

#[test]
fn a_write_past_the_proxy_at_any_node_is_soon_seen() {
    if calibrating("cache") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &["--max-staleness", "100s"]);
    let (mut client, mut direct) = (nearside.client(), cluster.client());
    for round in 0..4 {
        for key in spread_keys(6, "invalidated") {
            nearside.warm(&mut client, &key);
            let value = format!("v{round}");
            assert_eq!(direct.call(&format!("SET {key} {value}")), "+OK\r\n");
            let expected = bulk(&value);
            eventually("the new value", SOON, || {
                (client.call(&format!("GET {key}")) == expected.as_str()).then_some(())
            });
        }
    }
    assert!(nearside.metrics().total("nearside_invalidations_total") >= 24.0);
}

#[test]
fn reads_beside_busy_writers_at_all_nodes_are_never_staler_than_promised() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let staleness = Duration::from_millis(100);
    let nearside = Nearside::ready_before_cluster(
        &cluster,
        &["--workers", "4", "--max-staleness", "100ms", "--cache-churning", "yes"],
    );
    let beside = Freshness::start_on_cluster(&cluster, nearside.address(), staleness);
    let keys = spread_keys(6, "versioned-through-the-proxy");
    let through = ClusterClient::connect(std::slice::from_ref(nearside.address()));
    let through = Freshness::on_keys(keys, through, nearside.address(), Duration::ZERO);
    std::thread::sleep(Duration::from_secs(2));
    for freshness in [beside, through] {
        assert!(freshness.reads() > 100, "{} reads", freshness.reads());
        let stale = freshness.finish();
        assert!(stale.is_empty(), "{stale:?}");
    }
    assert!(nearside.hits() > 100.0);
}

#[test]
fn one_pipeline_reads_its_own_writes_on_all_nodes_and_what_was_before_them() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    for workers in ["1", "4"] {
        let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", workers]);
        let mut clients = [nearside.client(), resp3(&nearside)];
        let mut other = nearside.client();
        let nil = ["$-1\r\n", "_\r\n"];
        for round in 0..20 {
            let protocol = round % 2;
            let keys = spread_keys(9, &format!("own-writes-{workers}-{round}"));
            for key in keys.iter().step_by(2) {
                other.call(&format!("SET {key} old"));
                other.call(&format!("GET {key}"));
            }
            let steps = ["GET", "SET", "GET", "APPEND", "GET", "DEL", "GET"];
            let (mut requests, mut expected) = (Vec::new(), Vec::new());
            for step in 0..steps.len() {
                for (number, key) in keys.iter().enumerate() {
                    let (command, reply) = match step {
                        0 if number % 2 == 0 => (format!("GET {key}"), bulk("old")),
                        0 | 6 => (format!("GET {key}"), nil[protocol].to_owned()),
                        1 => (format!("SET {key} v{number}"), "+OK\r\n".to_owned()),
                        2 => (format!("GET {key}"), bulk(&format!("v{number}"))),
                        3 => (format!("APPEND {key} w"), ":3\r\n".to_owned()),
                        4 => (format!("GET {key}"), bulk(&format!("v{number}w"))),
                        _ => (format!("DEL {key}"), ":1\r\n".to_owned()),
                    };
                    requests.extend(words(&command));
                    expected.push(reply);
                }
            }
            let replies = clients[protocol].exchange(&requests, expected.len());
            for (number, (reply, expected)) in replies.iter().zip(&expected).enumerate() {
                assert_eq!(*reply, expected.as_str(), "reply {number}, {workers} workers, round {round}");
            }
            for key in &keys {
                assert_eq!(other.call(&format!("GET {key}")), "$-1\r\n");
            }
        }
    }
}

/// Commands over many slots, whose replies are all known beforehand.
struct Mixed {
    keys: Vec<String>,
    numbers: HashMap<String, i64>,
    texts: HashMap<String, String>,
    large: [String; 3],
    resp3: bool,
    random: fastrand::Rng,
}

const LARGE: usize = 2 << 20;

impl Mixed {
    fn prepare(direct: &mut ClusterClient, name: &str, resp3: bool) -> Self {
        let keys = spread_keys(45, name);
        for key in &keys {
            direct.command(&["SET", &format!("{key}:text"), "first"]);
        }
        let texts = keys.iter().map(|key| (key.clone(), "first".to_owned())).collect();
        let large = [0, 5, 11].map(|slot| keys[slot * 4].clone());
        for key in &large {
            direct.command(&["SET", &format!("{key}:large"), &Self::large(key)]);
        }
        Self { keys, numbers: HashMap::new(), texts, large, resp3, random: fastrand::Rng::with_seed(7) }
    }

    fn large(key: &str) -> String {
        format!("{key} {}", "l".repeat(LARGE))
    }

    fn next(&mut self) -> (Vec<u8>, Vec<u8>) {
        let key = self.keys[self.random.usize(..self.keys.len())].clone();
        let other = if key == self.keys[0] { &self.keys[1] } else { &self.keys[0] };
        let text = || format!("{key}:text");
        let nil = if self.resp3 { "_\r\n" } else { "$-1\r\n" };
        let (command, reply) = match self.random.u8(..100) {
            0..25 => {
                let number = self.numbers.entry(key.clone()).or_default();
                *number += 1;
                (words(&format!("INCR {key}:number")), format!(":{number}\r\n"))
            }
            25..45 => {
                let number = self.numbers.get(&key).map_or_else(|| nil.to_owned(), |n| bulk(&n.to_string()));
                (words(&format!("GET {key}:number")), number)
            }
            45..55 => {
                let value = format!("{key} {}", "t".repeat(self.random.usize(..2000)));
                self.texts.insert(key.clone(), value.clone());
                (request(&["SET", &text(), &value]), "+OK\r\n".to_owned())
            }
            55..70 => (words(&format!("GET {}", text())), bulk(&self.texts[&key])),
            70..75 => (words(&format!("GETRANGE {} 0 -1", text())), bulk(&self.texts[&key])),
            75..80 => (words(&format!("LPUSH {} x", text())), WRONGTYPE.to_owned()),
            80..85 => (words(&format!("ECHO {key}")), bulk(&key)),
            85..90 => (words(&format!("MSETNX {key} 1 {other} 2")), CROSSSLOT.to_owned()),
            90..94 => (words("NOSUCH"), "-ERR unknown command 'NOSUCH', with args beginning with: \r\n".to_owned()),
            94..99 => (words(&format!("GET {key}:absent")), nil.to_owned()),
            _ => {
                let key = &self.large[self.random.usize(..self.large.len())];
                (words(&format!("GET {key}:large")), bulk(&Self::large(key)))
            }
        };
        (command, reply.into_bytes())
    }

    fn check(&mut self, client: &mut Client, count: usize) {
        let (requests, expected): (Vec<_>, Vec<_>) = (0..count).map(|_| self.next()).unzip();
        let replies = client.exchange(&requests.concat(), count);
        for (number, (reply, expected)) in replies.iter().zip(&expected).enumerate() {
            let asked = Reply(requests[number].clone());
            assert!(reply.0 == *expected, "reply {number} to {asked:?}: {reply:?}, not {:?}", Reply(expected.clone()));
        }
    }
}

#[test]
fn replies_come_in_the_order_of_requests_from_many_nodes_some_slow_and_some_large() {
    if calibrating("cluster") {
        return;
    }
    // A node that stands still is soon thought dead, unless told otherwise.
    let cluster = RedisCluster::with_replicas(3, 0, &["--cluster-node-timeout", "15000"]);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "2"]);
    for is_resp3 in [false, true] {
        let mut client = if is_resp3 { resp3(&nearside) } else { nearside.client() };
        let mut mixed = Mixed::prepare(&mut cluster.client(), &format!("mixed-{is_resp3}"), is_resp3);
        mixed.check(&mut client, 3000);
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| {
                for number in 0..3 {
                    cluster.node(number).stop();
                    std::thread::sleep(Duration::from_millis(200));
                    cluster.node(number).resume();
                }
            });
            while !slow.is_finished() {
                mixed.check(&mut client, 300);
            }
        });
        mixed.check(&mut client, 1000);
    }
}

#[test]
fn a_slow_node_holds_up_only_those_who_ask_it() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::with_replicas(3, 0, &["--cluster-node-timeout", "15000"]);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "1"]);
    let [slow_key, other_key] = [0, SLOTS - 1].map(|slot| key_in_slot(slot, "k"));
    let (mut waiting, mut client) = (nearside.client(), nearside.client());
    waiting.pipeline(&[&format!("SET {slow_key} v"), &format!("SET {other_key} v")]);
    cluster.node(cluster.owner_of(&slow_key)).stop();
    waiting.send(&words(&format!("APPEND {slow_key} w")));
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(client.call(&format!("STRLEN {other_key}")), ":1\r\n");
        assert_eq!(client.call(&format!("GET {other_key}")), "$1\r\nv\r\n");
    }
    let took = started.elapsed();
    cluster.node(0).resume();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(waiting.reply(), ":2\r\n");
}

#[test]
fn keys_of_several_slots_are_refused_where_the_command_is_atomic() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    let (a, b) = (key_in_slot(1, "crossing"), key_in_slot(SLOTS - 1, "crossing"));
    assert_eq!(client.call(&format!("SET {a} v")), "+OK\r\n");
    for command in [
        format!("MSETNX {a} 1 {b} 2"),
        format!("RENAME {a} {b}"),
        format!("COPY {a} {b}"),
        format!("SINTERSTORE {a} {a} {b}"),
        format!("LMOVE {a} {b} LEFT LEFT"),
        format!("ZUNION 2 {a} {b}"),
        format!("XREAD STREAMS {a} {b} 0 0"),
        format!("EVAL return(1) 2 {a} {b}"),
        format!("BITOP AND {a} {a} {b}"),
        format!("SORT {a} STORE {b}"),
    ] {
        let node = cluster.node(cluster.owner_of(&a)).client().call(&command);
        assert_eq!(node, CROSSSLOT, "the test means something else by {command}");
        let replies = client.pipeline(&["ECHO before", &command, &format!("GET {a}"), "ECHO after"]);
        assert_eq!(replies, ["$6\r\nbefore\r\n", CROSSSLOT, "$1\r\nv\r\n", "$5\r\nafter\r\n"], "{command}");
    }
    // A request that is wrong in itself gets its node's own words.
    let mut node = cluster.node(cluster.owner_of(&a)).client();
    for command in [
        format!("MSETNX {a} 1 {b}"),
        format!("RENAME {a} {b} {a}"),
        format!("EVAL return(1) 3 {a} {b}"),
        format!("EVAL return(1) x {a} {b}"),
        format!("LMPOP 3 {a} {b} LEFT"),
        format!("ZUNION 0 {a} {b}"),
        format!("XREAD STREAMS {a} {b} 0"),
        format!("XREAD STREAMS {a} {b} 0 0 0"),
        format!("XREADGROUP GROUP g c STREAMS {a} {b} > > >"),
        format!("GEORADIUS {a} 0 0 1 km STORE"),
        format!("SORT {a} STORE"),
    ] {
        let expected = node.call(&command);
        assert_eq!(client.call(&command), expected, "{command}");
    }
}

#[test]
fn a_cluster_has_one_database() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let (mut client, mut node) = (nearside.client(), cluster.node(0).client());
    for db in ["0", "1", "15", "16", "-1", "99999", "x", "1x", "99999999999999999999"] {
        let expected = node.call(&format!("SELECT {db}"));
        assert_eq!(expected == "+OK\r\n", db == "0");
        assert_eq!(client.call(&format!("SELECT {db}")), expected, "{db}");
    }
    let key = key_in_slot(3, "one-db");
    let replies = client.pipeline(&[&format!("SET {key} v"), "SELECT 1", &format!("GET {key}"), "SELECT 0"]);
    assert_eq!(replies, ["+OK\r\n", "-ERR SELECT is not allowed in cluster mode\r\n", "$1\r\nv\r\n", "+OK\r\n"]);
}

#[test]
fn with_the_face_turned_off_a_client_sees_a_server_that_is_no_cluster() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &["--cluster-face", "no"]);
    let redis = RedisServer::start();
    let (mut client, mut standalone) = (nearside.client(), redis.client());
    for command in [
        "CLUSTER INFO",
        "CLUSTER NODES",
        "CLUSTER SLOTS",
        "CLUSTER SHARDS",
        "CLUSTER MYID",
        "CLUSTER LINKS",
        "CLUSTER KEYSLOT k",
        "CLUSTER COUNTKEYSINSLOT 1",
        "CLUSTER GETKEYSINSLOT 1 1",
        "CLUSTER REPLICAS x",
        "READONLY",
        "READWRITE",
        "ASKING",
    ] {
        let expected = standalone.call(command);
        assert_eq!(expected, "-ERR This instance has cluster support disabled\r\n", "{command}");
        assert_eq!(client.call(command), expected, "{command}");
    }
    for command in ["CLUSTER RESET HARD", "CLUSTER DELSLOTS 0", "CLUSTER FAILOVER TAKEOVER"] {
        let reply = client.call(command);
        assert!(reply.is_error(), "{command}: {reply:?}");
    }
    let mode = |hello: Reply| {
        let elements = hello.elements();
        let at = elements.iter().position(|element| element.bulk() == Some(b"mode")).unwrap();
        elements[at + 1].clone()
    };
    assert_eq!(mode(client.call("HELLO 2")), mode(standalone.call("HELLO 2")));
    assert_eq!(mode(client.call("HELLO 3")), "$10\r\nstandalone\r\n");
}

#[test]
fn commands_without_keys_of_one_session_go_to_one_node_and_sessions_are_spread() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "2"]);
    let keys = spread_keys(3, "between");
    let mut seen = HashSet::new();
    for _ in 0..12 {
        let mut client = nearside.client();
        let mut ports = HashSet::new();
        for _ in 0..5 {
            let sets = keys.iter().map(|key| format!("SET {key} v")).collect::<Vec<_>>();
            let replies = client.pipeline(&["CONFIG GET port", &sets[0], &sets[1], "CONFIG GET port", &sets[2]]);
            assert!(replies[0].starts_with(b"*2\r\n") && replies[1] == "+OK\r\n", "{replies:?}");
            ports.extend([replies[0].clone(), replies[3].clone()]);
        }
        assert_eq!(ports.len(), 1, "{ports:?}");
        seen.extend(ports);
    }
    assert_eq!(seen.len(), 3, "all nodes have a share: {seen:?}");
}

#[test]
fn the_messages_that_a_session_publishes_keep_their_order() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut subscriber = cluster.node(1).client();
    subscriber.call("SUBSCRIBE in-order");
    for mut client in [nearside.client(), nearside.client(), nearside.client(), nearside.client()] {
        let mut commands = Vec::new();
        for number in 0..100 {
            commands.push(format!("PUBLISH in-order {number}"));
            commands.push(format!("INCR {}", key_in_slot(number * 150, "published")));
        }
        let replies = client.pipeline(&commands.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(replies.iter().all(|reply| reply.integer().is_some()), "{replies:?}");
        for number in 0..100 {
            let message = subscriber.reply().elements();
            assert_eq!(message[2].bulk(), Some(number.to_string().as_bytes()));
        }
    }
}

#[test]
fn a_value_that_looks_like_a_redirection_is_a_value() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    for mut client in [nearside.client(), resp3(&nearside)] {
        let texts =
            ["MOVED 5 127.0.0.1:1", "-MOVED 5 127.0.0.1:1\r\n", "-ASK 5 127.0.0.1:1\r\n", "TRYAGAIN", "CLUSTERDOWN"];
        for text in texts {
            for key in spread_keys(3, "looks").into_iter().chain([key_in_slot(5, "looks")]) {
                let value = bulk(text);
                assert_eq!(client.command(&["SET", &key, text]), "+OK\r\n");
                for _ in 0..3 {
                    assert_eq!(client.command(&["GET", &key]), value.as_str());
                }
                assert_eq!(client.command(&["GETRANGE", &key, "0", "-1"]), value.as_str());
                assert_eq!(client.command(&["MGET", &key]), format!("*1\r\n{value}").as_str());
                if !text.contains('\r') {
                    let status = client.command(&["EVAL", "return redis.status_reply(ARGV[1])", "1", &key, text]);
                    assert_eq!(status, format!("+{text}\r\n").as_str());
                }
            }
        }
    }
}

#[test]
fn a_script_cannot_send_the_proxy_elsewhere_but_for_its_own_slot() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    let script = "redis.call('INCR', KEYS[1]) return redis.error_reply(ARGV[1])";
    let (key, other) = (key_in_slot(6, "forged"), key_in_slot(9000, "forged"));
    for text in [
        "MOVED 5 127.0.0.1:1",
        "ASK 5 127.0.0.1:1",
        "MOVED 16384 127.0.0.1:1",
        "MOVED x 127.0.0.1:1",
        "MOVED 6",
        "ASK 6",
        "CLUSTERDOWN Hash slot not served",
        "CLUSTERDOWN made up",
        "TRYAGAIN2 made up",
    ] {
        client.call(&format!("DEL {key}"));
        client.send(&request(&["EVAL", script, "1", &key, text]));
        client.send(&words(&format!("GET {key}")));
        client.send(&request(&["EVAL", "return redis.error_reply(ARGV[1])", "0", text]));
        client.send(&words(&format!("INCR {other}")));
        let told = format!("-{text}\r\n");
        assert_eq!(client.reply(), told.as_str());
        assert_eq!(client.reply(), "$1\r\n1\r\n", "{text}: it ran once");
        assert_eq!(client.reply(), told.as_str());
        assert!(client.reply().integer().is_some());
    }
    // Its own slot is another matter, but not a node that the cluster does not know; what comes next is not disturbed.
    client.send(&request(&["EVAL", script, "1", &key, "MOVED 6 127.0.0.1:1"]));
    client.send(&words(&format!("SET {key} 5")));
    client.send(&words(&format!("SET {other} 6")));
    client.send(&words(&format!("GET {key}")));
    assert_eq!(client.reply(), "-MOVED 6 127.0.0.1:1\r\n");
    assert_eq!([client.reply(), client.reply(), client.reply()], ["+OK\r\n", "+OK\r\n", "$1\r\n5\r\n"]);
}

#[test]
fn each_protocol_version_gets_redis_own_forms_from_every_node() {
    if calibrating("cluster") {
        return;
    }
    let cluster = shared();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let (mut resp2, mut resp3) = (nearside.client(), resp3(&nearside));
    for key in spread_keys(6, "forms") {
        resp2.pipeline(&[&format!("HSET {key}h f v"), &format!("ZADD {key}z 1.5 m"), &format!("SADD {key}s m")]);
        for (command, in_resp2, in_resp3) in [
            (format!("GET {key}"), "$-1\r\n", "_\r\n"),
            (format!("HGETALL {key}h"), "*2\r\n$1\r\nf\r\n$1\r\nv\r\n", "%1\r\n$1\r\nf\r\n$1\r\nv\r\n"),
            (format!("ZSCORE {key}z m"), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (format!("SMEMBERS {key}s"), "*1\r\n$1\r\nm\r\n", "~1\r\n$1\r\nm\r\n"),
            (format!("LPOP {key} 1"), "*-1\r\n", "_\r\n"),
        ] {
            for _ in 0..2 {
                assert_eq!(resp2.call(&command), in_resp2, "{command}");
                assert_eq!(resp3.call(&command), in_resp3, "{command}");
            }
        }
    }
    // The protocol changes between commands in flight at all nodes.
    let gets = spread_keys(9, "absent").iter().map(|key| format!("LPOP {key} 1")).collect::<Vec<_>>();
    let gets = gets.iter().map(String::as_str).collect::<Vec<_>>();
    let replies = resp2.pipeline(&[&gets[..], &["HELLO 3"], &gets, &["HELLO 2"], &gets].concat());
    assert!(replies[..9].iter().all(|reply| *reply == "*-1\r\n"), "{replies:?}");
    assert!(replies[10..19].iter().all(|reply| *reply == "_\r\n"), "{replies:?}");
    assert!(replies[20..].iter().all(|reply| *reply == "*-1\r\n"), "{replies:?}");
}
