//! SCAN over all nodes of a cluster: one walk, one cursor.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use nearside_tests::{
    Client, Failover, Nearside, RedisCluster, RedisServer, Reply, SLOTS, calibrating, eventually, spread_keys,
};

/// Walks all of it, and calls `between` with the number of each call; gives the keys as they came, and the cursors.
fn walk(client: &mut Client, options: &str, mut between: impl FnMut(usize)) -> (Vec<String>, Vec<String>) {
    let (mut keys, mut cursors) = (Vec::new(), vec!["0".to_owned()]);
    loop {
        let reply = client.call(&format!("SCAN {} {options}", cursors.last().unwrap()));
        let [cursor, found] = &reply.elements()[..] else { panic!("{reply:?}") };
        let text = |reply: &Reply| String::from_utf8(reply.bulk().unwrap().to_vec()).unwrap();
        keys.extend(found.elements().iter().map(text));
        cursors.push(text(cursor));
        if cursors.last().unwrap() == "0" {
            return (keys, cursors);
        }
        between(cursors.len() - 1);
    }
}

#[test]
fn a_walk_over_all_nodes_gives_every_key() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(3);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let (mut client, mut other) = (nearside.client(), nearside.client());
    assert!(other.call("HELLO 3").starts_with(b"%"));
    assert_eq!(walk(&mut client, "", |_| {}).0, [""; 0], "empty nodes");
    let keys = spread_keys(300, "walked");
    keys.iter().for_each(|key| assert_eq!(client.call(&format!("SET {key} v")), "+OK\r\n"));
    client.call(&format!("LPUSH {}:list x", keys[0]));
    let expected = keys.iter().cloned().chain([format!("{}:list", keys[0])]).collect::<BTreeSet<_>>();
    for (options, least_calls) in [("", 3), ("COUNT 1", 50), ("COUNT 7 MATCH *walked*", 20), ("COUNT 1000000", 3)] {
        for client in [&mut client, &mut other] {
            let (found, cursors) = walk(client, options, |_| {});
            assert_eq!(found.len(), 301, "nothing changed, so none came twice: {options}");
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "{options}");
            assert!(cursors.len() > least_calls, "{options}: {cursors:?}");
        }
    }
    assert_eq!(walk(&mut client, "TYPE list", |_| {}).0, [format!("{}:list", keys[0])]);
    assert_eq!(walk(&mut client, "MATCH nosuch*", |_| {}).0, [""; 0]);
    // A cursor is good at any client, and at another proxy before the same cluster.
    let second = Nearside::ready_before_cluster(&cluster, &[]);
    let mut elsewhere = second.client();
    let (mut cursor, mut found, mut calls) = ("0".to_owned(), BTreeSet::new(), 0);
    loop {
        let client = if calls % 2 == 0 { &mut client } else { &mut elsewhere };
        let reply = client.call(&format!("SCAN {cursor} COUNT 10")).elements();
        cursor = String::from_utf8(reply[0].bulk().unwrap().to_vec()).unwrap();
        found.extend(reply[1].elements().iter().map(|key| String::from_utf8(key.bulk().unwrap().to_vec()).unwrap()));
        calls += 1;
        if cursor == "0" {
            break;
        }
        assert!(calls < 500, "it ends");
    }
    assert_eq!(found, expected);
    let redis = RedisServer::start();
    for wrong in ["SCAN x", "SCAN 1x", "SCAN 99999999999999999999", "SCAN 0 NOSUCH", "SCAN 0 COUNT 0", "SCAN 0 COUNT x"]
    {
        assert_eq!(client.call(wrong), redis.client().call(wrong), "{wrong}");
    }
}

#[test]
fn a_walk_misses_no_key_when_nodes_are_replaced_restarted_or_lose_their_first_slot() {
    if calibrating("way to outlive a node") {
        return;
    }
    let mut cluster = RedisCluster::with_replicas(2, 1, &["--appendonly", "yes", "--appendfsync", "no"]);
    let nearside =
        Nearside::ready_before_cluster(&cluster, &["--upstream-timeout", "1s", "--connect-timeout", "500ms"]);
    let mut client = nearside.client();
    let keys = spread_keys(200, "outlives");
    keys.iter().for_each(|key| assert_eq!(client.call(&format!("SET {key} v")), "+OK\r\n"));
    let expected = keys.iter().cloned().collect::<BTreeSet<_>>();
    let settled = |nearside: &Nearside| {
        let mut client = nearside.client();
        let any = spread_keys(20, "settles");
        eventually("all is served again", Duration::from_secs(30), || {
            let all = any.iter().all(|key| client.call(&format!("SET {key} v")) == "+OK\r\n");
            let gone = client.call(&format!("DEL {}", any.join(" "))) == ":20\r\n";
            (all && gone).then_some(())
        });
    };

    let mut moved = 0;
    let (found, _) = walk(&mut client, "COUNT 10", |call| {
        if call.is_multiple_of(5) && moved < 4 {
            // The first slots of the second node go to the first, which may be done by then.
            let first = cluster.slots(1)[0];
            cluster.move_slot(first, 0);
            moved += 1;
            settled(&nearside);
        }
    });
    assert!(moved > 2);
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);

    let replica = cluster.replicas(0)[0];
    let mut done = false;
    let (found, _) = walk(&mut client, "COUNT 10", |call| {
        if call == 4 {
            cluster.promote(replica, Failover::Plain);
            settled(&nearside);
            done = true;
        }
    });
    assert!(done);
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);

    let second = cluster.owner(SLOTS - 1);
    let (mut done, mut calls) = (false, 0);
    let (found, _) = walk(&mut client, "COUNT 10", |call| {
        calls = call;
        if call == 14 {
            cluster.restart(second);
            cluster.wait_until_ok();
            settled(&nearside);
            done = true;
        }
    });
    assert!(done, "{calls} calls");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
}
