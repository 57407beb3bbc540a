//! Pub/sub and MONITOR before a cluster, where it matters which node says what.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use nearside_tests::{Client, Nearside, RedisCluster, calibrating, eventually, key_in_slot, key_slot, words};

const SOON: Duration = Duration::from_secs(15);

fn resp3(nearside: &Nearside) -> Client {
    let mut client = nearside.client();
    assert!(client.call("HELLO 3").starts_with(b"%"));
    client
}

#[test]
fn shard_channels_are_heard_from_the_nodes_of_their_slots() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    let channels: Vec<_> = (0..8).map(|number| key_in_slot(number * 2000, &format!("c{number}"))).collect();
    client.send(&words(&format!("SSUBSCRIBE {}", channels.join(" "))));
    for (number, channel) in channels.iter().enumerate() {
        assert_eq!(client.reply().words(), ["ssubscribe", channel, &format!(":{}\\r\\n", number + 1)]);
    }
    assert_eq!([0, 1].map(|node| cluster.node(node).subscribers()), [1, 1]);
    let mut publisher = nearside.client();
    for channel in &channels {
        assert_eq!(publisher.call(&format!("SPUBLISH {channel} x")), ":1\r\n");
        assert_eq!(client.reply().words(), ["smessage", channel, "x"]);
    }
    let at_first: Vec<_> = channels.iter().filter(|name| cluster.owner_of(name) == 0).cloned().collect();
    client.send(&words(&format!("SUNSUBSCRIBE {}", at_first.join(" "))));
    at_first.iter().for_each(|name| assert_eq!(client.reply().words()[..2], ["sunsubscribe".to_owned(), name.clone()]));
    eventually("a node that tells of nothing is left", SOON, || (cluster.node(0).subscribers() == 0).then_some(()));
    assert_eq!(publisher.call(&format!("SPUBLISH {} y", channels[7])), ":1\r\n");
    assert_eq!(client.reply().words(), ["smessage", &channels[7], "y"]);
}

#[test]
fn a_slot_that_moves_ends_its_subscriptions_and_new_ones_find_it() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let (mut client, mut publisher) = (resp3(&nearside), nearside.client());
    let stays = key_in_slot(if cluster.owner_of("c") == 0 { 0 } else { 16_000 }, "stays");
    client.call("SSUBSCRIBE c");
    client.call(&format!("SSUBSCRIBE {stays}"));
    client.call("SUBSCRIBE classic");
    for _ in 0..3 {
        let to = 1 - cluster.owner_of("c");
        let migration = cluster.begin_migration(key_slot(b"c"), to);
        assert_eq!(publisher.call("SPUBLISH c before"), ":1\r\n");
        assert_eq!(client.reply().words(), ["smessage", "c", "before"]);
        cluster.finish_migration(migration);
        assert_eq!(client.reply(), ">3\r\n$12\r\nsunsubscribe\r\n$1\r\nc\r\n:1\r\n");
        assert_eq!(client.call("SSUBSCRIBE c"), ">3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:2\r\n");
        assert_eq!(publisher.call("SPUBLISH c after"), ":1\r\n");
        assert_eq!(client.reply().words(), ["smessage", "c", "after"]);
        publisher.call(&format!("SPUBLISH {stays} x"));
        assert_eq!(client.reply().words(), ["smessage", &stays, "x"]);
    }
    publisher.call("PUBLISH classic x");
    assert_eq!(client.reply().words(), ["message", "classic", "x"]);
    assert_eq!(client.call("SUNSUBSCRIBE c"), ">3\r\n$12\r\nsunsubscribe\r\n$1\r\nc\r\n:1\r\n");
}

#[test]
fn keyspace_notifications_of_all_nodes_are_heard_and_other_messages_once() {
    if calibrating("cluster") {
        return;
    }
    let mut cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    (0..2).for_each(|node| _ = cluster.node(node).client().call("CONFIG SET notify-keyspace-events KEA"));
    let (mut by_pattern, mut by_name, mut all) = (nearside.client(), resp3(&nearside), resp3(&nearside));
    assert_eq!(
        by_pattern.call("PSUBSCRIBE __keyspace@0__:*"),
        "*3\r\n$10\r\npsubscribe\r\n$16\r\n__keyspace@0__:*\r\n:1\r\n"
    );
    by_name.send(&words("SUBSCRIBE a __keyevent@0__:set b"));
    assert_eq!([0, 1, 2].map(|_| by_name.reply().words()[2].clone()), [":1\\r\\n", ":2\\r\\n", ":3\\r\\n"]);
    all.call("PSUBSCRIBE *");
    let mut writer = nearside.client();
    let keys: Vec<_> = (0..16).map(|number| key_in_slot(number * 1000, "k")).collect();
    for key in &keys {
        assert_eq!(writer.call(&format!("SET {key} v")), "+OK\r\n");
        assert_eq!(by_pattern.reply().words()[2..], [format!("__keyspace@0__:{key}"), "set".to_owned()]);
        assert_eq!(by_name.reply().words(), ["message", "__keyevent@0__:set", key]);
        assert_eq!(all.reply().words()[2..], [format!("__keyspace@0__:{key}"), "set".to_owned()]);
        assert_eq!(all.reply().words()[2..], ["__keyevent@0__:set".to_owned(), key.clone()]);
    }
    for number in 0..10 {
        writer.call(&format!("PUBLISH a {number}"));
        assert_eq!(by_name.reply().words(), ["message", "a", &number.to_string()]);
        assert_eq!(all.reply().words()[2..], ["a".to_owned(), number.to_string()]);
    }
    assert_eq!(
        by_name.call("UNSUBSCRIBE __keyevent@0__:set"),
        ">3\r\n$11\r\nunsubscribe\r\n$18\r\n__keyevent@0__:set\r\n:2\r\n"
    );
    assert_eq!(by_name.call("PING"), "+PONG\r\n");
    let new = cluster.add_primary();
    cluster.move_slot(5, new);
    assert_eq!(by_pattern.rest_until_closed(), b"", "it would miss the new node's");
    writer.call("PUBLISH a last");
    assert_eq!(by_name.reply().words(), ["message", "a", "last"]);
}

#[test]
fn before_a_cluster_a_node_that_is_lost_ends_who_listened_to_it() {
    if calibrating("cluster") {
        return;
    }
    let mut cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let names = [key_in_slot(0, "c"), key_in_slot(16_000, "c")];
    let mut clients: Vec<_> = names
        .iter()
        .map(|name| {
            let mut client = nearside.client();
            client.call(&format!("SSUBSCRIBE {name}"));
            client
        })
        .collect();
    cluster.kill(0);
    assert_eq!(clients[0].rest_until_closed(), b"");
    cluster.node(1).client().call(&format!("SPUBLISH {} x", names[1]));
    assert_eq!(clients[1].reply().words(), ["smessage", &names[1], "x"]);
}

#[test]
fn before_a_cluster_monitor_shows_one_node() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let (mut monitor, mut client) = (nearside.client(), nearside.client());
    assert_eq!(monitor.call("MONITOR"), "+OK\r\n");
    let keys = [key_in_slot(0, "last"), key_in_slot(16_000, "last")];
    keys.iter().for_each(|key| _ = client.call(&format!("SET {key} v")));
    let is_shown = |line: &str| keys.iter().any(|key| line.contains(&format!("\\\"{key}\\\"")));
    while !is_shown(&monitor.reply().text()) {}
}
