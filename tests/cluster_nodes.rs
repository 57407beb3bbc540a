//! Which nodes there are: how they are found, by which name they are reached, what is told of them, and what becomes of a slot
//! that none of them serves.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use nearside_tests::{
    Address, Nearside, RedisCluster, RedisServer, SLOTS, calibrating, eventually, free_port, key_in_slot, spread_keys,
};

/// More than any delay on one machine, less than a test wants to wait in vain.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn the_admin_port_tells_of_the_nodes() {
    if calibrating("admin port") {
        return;
    }
    let cluster = RedisCluster::start(3);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    spread_keys(3, "told").iter().for_each(|key| assert_eq!(client.call(&format!("SET {key} v")), "+OK\r\n"));
    assert_eq!(nearside.admin("/readyz").0, 200);
    let metrics = nearside.metrics();
    assert_eq!(metrics.total("nearside_upstream_nodes"), 3.0);
    assert_eq!(metrics.total("nearside_cluster_slots_served"), f64::from(SLOTS));
    assert_eq!(metrics.total("nearside_ready"), 1.0);
    let by_node = nearside.commands_by_node();
    let addresses = cluster.addresses().iter().map(ToString::to_string).collect::<HashSet<_>>();
    assert_eq!(by_node.keys().cloned().collect::<HashSet<_>>(), addresses);
    assert!(by_node.values().all(|commands| *commands >= 1.0), "{by_node:?}");
    assert_eq!(metrics.total("nearside_upstream_errors_total"), 0.0);
}

#[test]
fn many_clients_share_few_connections_to_each_node() {
    if calibrating("sharing") {
        return;
    }
    let cluster = RedisCluster::start(3);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "2"]);
    let idle = (0..3).map(|node| connections(cluster.node(node))).collect::<Vec<_>>();
    let mut clients = (0..60).map(|_| nearside.client()).collect::<Vec<_>>();
    for (number, client) in clients.iter_mut().enumerate() {
        for key in spread_keys(6, &number.to_string()) {
            client.pipeline(&[&format!("SET {key} v"), &format!("GET {key}"), "CONFIG GET port"]);
        }
    }
    for (node, idle) in idle.into_iter().enumerate() {
        let now = connections(cluster.node(node));
        assert!(now <= idle + 4, "{idle} connections to node {node}, then {now}");
    }
}

fn connections(node: &RedisServer) -> usize {
    node.client().call("CLIENT LIST").text().matches("\\n").count()
}

#[test]
fn a_slot_that_nobody_serves_is_told_and_the_others_go_on() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::with_replicas(3, 0, &["--cluster-require-full-coverage", "no"]);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--max-staleness", "300ms"]);
    let mut client = nearside.client();
    let (gone, kept) = (key_in_slot(7, "k"), key_in_slot(8, "k"));
    client.pipeline(&[&format!("SET {gone} v"), &format!("SET {kept} v")]);
    nearside.warm(&mut client, &gone);
    for node in 0..3 {
        assert_eq!(cluster.node(node).client().call("CLUSTER DELSLOTS 7"), "+OK\r\n");
    }
    let told = "-CLUSTERDOWN Hash slot not served\r\n";
    // By the node at first, then by the proxy.
    eventually("it is told", SOON, || (client.call(&format!("GET {gone}")) == told).then_some(()));
    eventually("the proxy knows", SOON, || {
        (nearside.metrics().total("nearside_cluster_slots_served") == f64::from(SLOTS - 1)).then_some(())
    });
    let kept_get = format!("GET {kept}");
    let replies = client.pipeline(&[&kept_get, &format!("SET {gone} w"), &format!("GET {gone}"), &kept_get]);
    assert_eq!(replies, ["$1\r\nv\r\n", told, told, "$1\r\nv\r\n"]);
    assert_eq!(nearside.admin("/readyz").0, 200);
    // Another node takes it over, without the data.
    for node in [1, 0, 2] {
        let line = format!("CLUSTER SETSLOT 7 NODE {}", cluster.id(1));
        assert_eq!(cluster.node(node).client().call(&line), "+OK\r\n");
    }
    eventually("it is served again", SOON, || (client.call(&format!("SET {gone} x")) == "+OK\r\n").then_some(()));
    assert_eq!(client.call(&format!("GET {gone}")), "$1\r\nx\r\n");
    assert_eq!(cluster.node(1).client().call(&format!("GET {gone}")), "$1\r\nx\r\n");
}

#[test]
fn any_node_will_do_for_a_seed() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::with_replicas(2, 1, &[]);
    let other = RedisServer::start();
    let nobody = Address::local(free_port());
    let [first, second, replica, _] = cluster.addresses().try_into().unwrap();
    for (what, seeds) in [
        ("one primary", vec![&second]),
        ("one replica", vec![&replica]),
        ("nobody first", vec![&nobody, &first]),
        ("a server of its own first", vec![&other.address(), &first]),
    ] {
        let seeds = seeds.iter().map(ToString::to_string).collect::<Vec<_>>();
        let nearside = Nearside::with_url(&format!("redis-cluster://{}", seeds.join(",")), &[]);
        nearside.wait_until_ready();
        let mut client = nearside.client();
        for key in spread_keys(4, "seeded") {
            let replies = client.pipeline(&[&format!("SET {key} v"), &format!("GET {key}")]);
            assert_eq!(replies, ["+OK\r\n", "$1\r\nv\r\n"], "{what}");
        }
        assert_eq!(nearside.metrics().total("nearside_upstream_nodes"), 2.0, "{what}");
    }
    assert_eq!(other.client().call("DBSIZE"), ":0\r\n");
}

#[test]
fn a_cluster_that_is_down_at_the_start_is_found_when_it_comes_up() {
    if calibrating("cluster") {
        return;
    }
    let mut cluster = RedisCluster::start(3);
    (0..3).for_each(|node| cluster.kill(node));
    let nearside = Nearside::before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    for command in ["SET k v", "GET k", "CONFIG GET port", "DBSIZE"] {
        let started = Instant::now();
        let reply = client.call(command);
        assert!(reply.starts_with(b"-UPSTREAM "), "{command}: {reply:?}");
        assert!(started.elapsed() < Duration::from_secs(2), "{command}");
    }
    assert_eq!(client.call("PING"), "+PONG\r\n");
    assert_eq!(nearside.admin("/readyz").0, 503);
    assert_eq!(nearside.metrics().total("nearside_cluster_slots_served"), 0.0);
    (0..3).for_each(|node| cluster.restart(node));
    cluster.wait_until_ok();
    eventually("the proxy serves", SOON, || (client.call("SET k v") == "+OK\r\n").then_some(()));
    nearside.wait_until_ready();
    spread_keys(6, "late").iter().for_each(|key| assert_eq!(client.call(&format!("SET {key} v")), "+OK\r\n"));
}

#[test]
fn a_server_that_is_no_cluster_is_not_taken_for_one() {
    if calibrating("cluster") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with_url(&format!("redis-cluster://{}", redis.address()), &[]);
    let mut client = nearside.client();
    std::thread::sleep(Duration::from_millis(300));
    for command in ["SET k v", "GET k"] {
        let reply = client.call(command);
        assert!(reply.starts_with(b"-UPSTREAM "), "{reply:?}");
    }
    let (status, why) = nearside.admin("/readyz");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("cluster"), "it says what is wrong: {why}");
    assert_eq!(redis.client().call("DBSIZE"), ":0\r\n");
}

/// Keys of all nodes, and a slot that goes from the first node to the second.
fn assert_served_also_when_a_slot_moves(cluster: &RedisCluster, nearside: &Nearside) {
    let mut client = nearside.client();
    for key in spread_keys(8, "named") {
        let replies = client.pipeline(&[&format!("SET {key} v"), &format!("GET {key}")]);
        assert_eq!(replies, ["+OK\r\n", "$1\r\nv\r\n"]);
    }
    let (old, new) = (key_in_slot(0, "old"), key_in_slot(0, "new"));
    assert_eq!(client.call(&format!("SET {old} v")), "+OK\r\n");
    let migration = cluster.begin_migration(0, 1);
    let replies = client.pipeline(&[&format!("SET {new} v"), &format!("INCR {new}1"), &format!("GETRANGE {old} 0 -1")]);
    assert_eq!(replies, ["+OK\r\n", ":1\r\n", "$1\r\nv\r\n"], "ASK is followed");
    cluster.finish_migration(migration);
    let replies = client.pipeline(&[&format!("APPEND {old} w"), &format!("GET {old}"), &format!("GET {new}1")]);
    assert_eq!(replies, [":2\r\n", "$2\r\nvw\r\n", "$1\r\n1\r\n"], "MOVED is followed");
}

#[test]
fn nodes_that_are_known_by_name_are_reached_by_name() {
    if calibrating("cluster") {
        return;
    }
    let args = ["--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname"];
    let cluster = RedisCluster::with_replicas(2, 0, &args);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    assert_served_also_when_a_slot_moves(&cluster, &nearside);
    let used = nearside.commands_by_node().into_iter().filter(|(_, commands)| *commands > 0.0).map(|(node, _)| node);
    let names = [0, 1].map(|node| format!("localhost:{}", cluster.node(node).port()));
    assert_eq!(used.collect::<HashSet<_>>(), HashSet::from(names));
}

#[test]
fn nodes_that_do_not_tell_where_they_are_are_where_the_seed_is() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::with_replicas(2, 0, &["--cluster-preferred-endpoint-type", "unknown-endpoint"]);
    let nearside = Nearside::with_url(&format!("redis-cluster://localhost:{}", cluster.node(0).port()), &[]);
    nearside.wait_until_ready();
    assert_served_also_when_a_slot_moves(&cluster, &nearside);
    let used = nearside.commands_by_node().into_iter().filter(|(_, commands)| *commands > 0.0).map(|(node, _)| node);
    let names = [0, 1].map(|node| format!("localhost:{}", cluster.node(node).port()));
    assert_eq!(used.collect::<HashSet<_>>(), HashSet::from(names));
}

#[test]
fn slots_move_to_a_new_node_too_whatever_it_is_called() {
    if calibrating("cluster") {
        return;
    }
    for endpoint in ["hostname", "unknown-endpoint"] {
        let args = ["--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", endpoint];
        let mut cluster = RedisCluster::with_replicas(2, 0, &args);
        let nearside = Nearside::with_url(&format!("redis-cluster://localhost:{}", cluster.node(0).port()), &[]);
        nearside.wait_until_ready();
        let new_node = cluster.add_primary();
        let (old, new) = (key_in_slot(0, "old"), key_in_slot(0, "new"));
        let mut client = nearside.client();
        assert_eq!(client.call(&format!("SET {old} v")), "+OK\r\n");
        let migration = cluster.begin_migration(0, new_node);
        assert_eq!(client.call(&format!("SET {new} v")), "+OK\r\n", "ASK is followed, {endpoint}");
        assert_eq!(client.call(&format!("GETRANGE {old} 0 -1")), "$1\r\nv\r\n");
        cluster.finish_migration(migration);
        let replies = client.pipeline(&[&format!("APPEND {old} w"), &format!("GET {new}")]);
        assert_eq!(replies, [":2\r\n", "$1\r\nv\r\n"], "MOVED is followed, {endpoint}");
    }
}

#[test]
fn nodes_may_have_ipv6_addresses() {
    if calibrating("cluster") || std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let args = ["--bind", "127.0.0.1", "::1", "--cluster-announce-ip", "::1"];
    let cluster = RedisCluster::with_replicas(2, 0, &args);
    let nearside = Nearside::with_url(&format!("redis-cluster://[::1]:{}", cluster.node(1).port()), &[]);
    nearside.wait_until_ready();
    assert_served_also_when_a_slot_moves(&cluster, &nearside);
    let names = [0, 1].map(|node| format!("[::1]:{}", cluster.node(node).port()));
    assert_eq!(nearside.commands_by_node().into_keys().collect::<HashSet<_>>(), HashSet::from(names));
}
