//! CLIENT TRACKING by a client of the proxy: its own invalidations reach it.
#![allow(clippy::unwrap_used)]

use nearside_tests::{Client, Nearside, RedisCluster, RedisServer, Relay, calibrating, same_before_one_server};

fn resp3(mut client: Client) -> Client {
    assert!(client.call("HELLO 3").starts_with(b"%"));
    client
}

#[test]
fn what_a_client_has_read_is_invalidated_for_it() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let (mut client, mut writer) = (resp3(nearside.client()), nearside.client());
    assert_eq!(client.call("SET k 1"), "+OK\r\n");
    assert_eq!(client.call("CLIENT TRACKING ON"), "+OK\r\n");
    assert_eq!(client.pipeline(&["GET k", "HGETALL h"]), ["$1\r\n1\r\n", "%0\r\n"]);
    writer.pipeline(&["SET k 2", "HSET h f v"]);
    assert_eq!(client.reply(), ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
    assert_eq!(client.reply(), ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nh\r\n");
    assert_eq!(client.call("GET k"), "$1\r\n2\r\n");
    redis.client().call("FLUSHALL");
    assert_eq!(client.reply(), ">2\r\n$10\r\ninvalidate\r\n_\r\n");
    assert_eq!(client.call("CLIENT TRACKING OFF"), "+OK\r\n");
    client.call("GET k");
    writer.call("SET k 3");
    assert_eq!(client.call("PING"), "+PONG\r\n", "nothing came before");
}

#[test]
fn its_options_and_questions_are_those_of_redis() {
    same_before_one_server(&["
        a: CLIENT TRACKINGINFO
        a: CLIENT GETREDIR
        a: CLIENT CACHING YES
        a: CLIENT TRACKING
        a: CLIENT TRACKING MAYBE
        a: CLIENT TRACKING OFF
        a: CLIENT TRACKING OFF BCAST
        a: CLIENT TRACKING ON NONSENSE
        a: CLIENT TRACKING ON OPTIN OPTOUT
        a: CLIENT TRACKING ON OPTIN
        a: CLIENT TRACKINGINFO
        a: CLIENT GETREDIR
        a: CLIENT CACHING YES
        a: CLIENT CACHING MAYBE
        a: GET {t}k
        a: SELECT 2
        a: SET {t}k two
        a: SELECT 0
        a: GET {t}k
        a| MULTI | SET {t}k 1 | GET {t}k | EXEC
        a: CLIENT TRACKING ON BCAST
        a: CLIENT TRACKING OFF
        a: CLIENT TRACKINGINFO
        a: CLIENT TRACKING ON BCAST PREFIX {t}
        a: CLIENT TRACKINGINFO
        a: RESET
        a: CLIENT TRACKINGINFO
        a: GET {t}k"]);
}

#[test]
fn a_client_that_tracks_gets_nothing_from_the_cache_and_writes_of_its_own_leave_it() {
    if calibrating("cache") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let (mut client, mut other) = (resp3(nearside.client()), nearside.client());
    other.call("SET k 1");
    nearside.warm(&mut other, "k");
    client.call("CLIENT TRACKING ON NOLOOP");
    let asked = redis.calls("get");
    assert_eq!(client.call("GET k"), "$1\r\n1\r\n");
    assert_eq!(redis.calls("get"), asked + 1);
    assert_eq!(client.call("SET k 2"), "+OK\r\n");
    assert_eq!(other.call("GET k"), "$1\r\n2\r\n");
}

#[test]
fn before_a_cluster_it_is_refused() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let reply = nearside.client().call("CLIENT TRACKING ON");
    assert!(reply.starts_with(b"-ERR CLIENT TRACKING is refused before a cluster"), "{reply:?}");
    for line in ["CLIENT TRACKING OFF", "CLIENT TRACKING MAYBE"] {
        assert_eq!(nearside.client().call(line), cluster.client().call(line), "{line}");
    }
}

#[test]
fn a_client_whose_tracking_is_lost_with_its_upstream_ends() {
    if calibrating("upstream") {
        return;
    }
    let mut redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = resp3(nearside.client());
    assert_eq!(client.call("CLIENT TRACKING ON"), "+OK\r\n");
    redis.restart();
    assert_eq!(client.rest_until_closed(), b"");
}

#[test]
fn invalidations_come_whole_wherever_a_read_has_ended() {
    if calibrating("relay") {
        return;
    }
    let redis = RedisServer::start();
    let relay = Relay::to(&redis.address());
    let nearside = Nearside::upstream(relay.address(), &["--workers", "1"]);
    let (mut client, mut writer) = (nearside.client(), redis.client());
    client.speak_resp3();
    assert_eq!(client.call("CLIENT TRACKING ON"), "+OK\r\n");
    relay.write_at_most(1);
    for round in 0..200 {
        assert_eq!(client.call("GET k"), if round == 0 { "_\r\n" } else { "$1\r\nv\r\n" }, "round {round}");
        assert_eq!(writer.call("SET k v"), "+OK\r\n");
        assert_eq!(client.reply(), ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", "round {round}");
    }
}
