//! What people ask the proxy itself, and what the proxy tells the upstream of its clients' reads.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use nearside_tests::{Client, Nearside, RedisServer, Reply, calibrating, eventually};

const SOON: Duration = Duration::from_secs(20);

/// A flat array of RESP2 as a map.
fn map(reply: &Reply) -> BTreeMap<String, Reply> {
    assert!(reply.starts_with(b"*"), "{reply:?}");
    let elements = reply.elements();
    let name = |reply: &Reply| String::from_utf8(reply.bulk().unwrap().to_vec()).unwrap();
    elements.as_chunks().0.iter().map(|[field, value]| (name(field), value.clone())).collect()
}

fn text(map: &BTreeMap<String, Reply>, field: &str) -> String {
    let value = map.get(field).unwrap_or_else(|| panic!("no {field} in {map:?}"));
    value.bulk().map_or_else(|| value.integer().unwrap().to_string(), |bulk| String::from_utf8_lossy(bulk).into_owned())
}

fn explained(client: &mut Client, key: &str) -> BTreeMap<String, Reply> {
    map(&client.call(&format!("NEARSIDE EXPLAIN {key}")))
}

/// What a GET would find.
fn verdict(client: &mut Client, key: &str) -> String {
    text(&explained(client, key), "get")
}

fn warm(redis: &RedisServer, args: &[&str]) -> (Nearside, Client) {
    let nearside = Nearside::with(redis, args);
    let mut client = nearside.client();
    nearside.warm(&mut client, "warm");
    (nearside, client)
}

#[test]
fn explain_tells_what_is_kept_how_long_and_why() {
    if calibrating("nearside") {
        return;
    }
    let redis = RedisServer::start();
    let (_nearside, mut client) = warm(&redis, &["--max-age", "50s"]);
    assert_eq!(verdict(&mut client, "k"), "miss: it is not cached; it would be fetched");
    redis.client().call("SET k value");
    redis.client().call("SET short value PX 20000");
    (0..2).for_each(|_| drop(client.call("GET k")));
    client.call("GETRANGE k 0 1");
    client.call("GET short");
    let known = explained(&mut client, "k");
    assert_eq!([text(&known, "get"), text(&known, "rule")], ["hit", "none matches"]);
    assert_eq!(text(&known, "node"), format!("127.0.0.1:{}", redis.port()));
    let replies = known["replies"].elements();
    assert_eq!(replies.len(), 1, "GETRANGE is told from the value: {known:?}");
    let reply = map(&replies[0]);
    let fields = ["command", "db", "bytes", "left-by", "served"].map(|field| text(&reply, field));
    assert_eq!(fields, ["GET", "0", "11", "max-age", "yes"]);
    assert!(text(&reply, "lease").starts_with("live for "), "{reply:?}");
    let left: i64 = text(&reply, "left-ms").parse().unwrap();
    let age: i64 = text(&reply, "age-ms").parse().unwrap();
    assert!((49_980..=50_000).contains(&(left + age)), "{reply:?}");
    let short = map(&explained(&mut client, "short")["replies"].elements()[0]);
    assert_eq!(text(&short, "left-by"), "its time to live");
    assert!(text(&short, "left-ms").parse::<i64>().unwrap() <= 20_000);
    client.call("SET k other");
    let known = explained(&mut client, "k");
    // Whichever was heard of first: the answer to the write, or the invalidation.
    let heard = ["written through the proxy ", "invalidated by the upstream "];
    assert!(heard.iter().any(|start| text(&known, "last-change").starts_with(start)), "{known:?}");
    assert_eq!(known["replies"], "*0\r\n");
}

#[test]
fn explain_answers_a_client_that_has_a_connection_of_its_own_too() {
    if calibrating("nearside") {
        return;
    }
    let redis = RedisServer::start();
    let (_nearside, mut client) = warm(&redis, &[]);
    for (begin, end) in [("WATCH other", "UNWATCH"), ("CLIENT TRACKING ON", "CLIENT TRACKING OFF")] {
        assert_eq!(client.call(begin), "+OK\r\n");
        let told = verdict(&mut client, "warm");
        assert!(told.starts_with("miss: this client watches keys, or tracks"), "{begin}: {told}");
        assert_eq!(client.call(end), "+OK\r\n");
        eventually("it is as before", SOON, || (verdict(&mut client, "warm") == "hit").then_some(()));
    }
    assert_eq!(client.call("MULTI"), "+OK\r\n");
    assert!(client.call("NEARSIDE EXPLAIN warm").is_error());
    assert!(client.call("EXEC").starts_with(b"-EXECABORT"));
}

#[test]
fn explain_names_the_reply_of_each_command_and_keeps_those_of_others_to_itself() {
    if calibrating("nearside") {
        return;
    }
    let redis = RedisServer::start();
    redis.client().call("ACL SETUSER alice on >secret ~* +@all");
    let (nearside, mut client) = warm(&redis, &[]);
    redis.client().call("HSET h f v");
    (0..2).for_each(|_| drop(client.call("HGET h f")));
    client.call("HGETALL h");
    let known = explained(&mut client, "h");
    let commands: Vec<_> = known["replies"].elements().iter().map(|reply| text(&map(reply), "command")).collect();
    assert_eq!(commands, ["HGET f", "HGETALL"]);
    let mut alice = nearside.client();
    assert_eq!(alice.call("AUTH alice secret"), "+OK\r\n");
    let known = explained(&mut alice, "h");
    assert_eq!(
        (&known["replies"], &known["replies-of-other-users"]),
        (&Reply(b"*0\r\n".to_vec()), &Reply(b":2\r\n".to_vec()))
    );
}

#[test]
fn explain_tells_why_not() {
    if calibrating("nearside") {
        return;
    }
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nearside.toml");
    std::fs::write(&file, "[[cache.rule]]\nmatch = [\"private:*\", \"secret\"]\ncache = false\n").unwrap();
    let (_nearside, mut client) = warm(&redis, &["--config", file.to_str().unwrap(), "--max-item-size", "1KiB"]);
    let known = explained(&mut client, "private:1");
    assert_eq!(text(&known, "rule"), "1: match private:*, secret");
    assert_eq!(text(&known, "get"), "miss: it is not cached; a rule forbids it");
    redis.client().call(&format!("SET large {}", "x".repeat(3000)));
    (0..2).for_each(|_| drop(client.call("GET large")));
    assert_eq!(verdict(&mut client, "large"), "miss: the value is larger than max-item-size");
    let mut direct = redis.client();
    for number in 0..4 {
        client.call("GET churning");
        direct.call(&format!("SET churning {number}"));
        eventually("the change is known", SOON, || {
            (explained(&mut client, "churning")["replies"] == "*0\r\n").then_some(())
        });
    }
    let churning = verdict(&mut client, "churning");
    assert!(churning.contains("it changes more often than it is read: "), "{churning}");
    redis.stop();
    eventually("the lease lapses", SOON, || {
        verdict(&mut client, "warm").starts_with("miss: its lease has lapsed").then_some(())
    });
    redis.resume();
}

#[test]
fn without_a_cache_explain_says_so() {
    if calibrating("nearside") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--cache-size", "off"]);
    let mut client = nearside.client();
    assert_eq!(client.call("NEARSIDE EXPLAIN k"), "-ERR nothing is cached: the setting cache-size is off\r\n");
    assert_eq!(client.call("NEARSIDE FLUSH"), "+OK\r\n");
    assert_eq!(client.call("NEARSIDE FLUSH k*"), ":0\r\n");
}

#[test]
fn flush_forgets_what_is_cached_and_nothing_else() {
    if calibrating("nearside") {
        return;
    }
    let redis = RedisServer::start();
    let (_nearside, mut client) = warm(&redis, &["--max-staleness", "30s"]);
    redis.client().call("MSET user:1 a user:2 b session:1 c");
    let read_all = |client: &mut Client| {
        for key in ["user:1", "user:2", "session:1"] {
            client.call(&format!("GET {key}"));
        }
    };
    read_all(&mut client);
    assert_eq!(client.call("NEARSIDE FLUSH user:?"), ":2\r\n");
    assert!(verdict(&mut client, "user:1").starts_with("miss") && verdict(&mut client, "session:1") == "hit");
    let replies = client.pipeline(&["PING", "NEARSIDE FLUSH nothing*", "GET session:1"]);
    assert_eq!(replies, ["+PONG\r\n", ":0\r\n", "$1\r\nc\r\n"], "in order");
    assert_eq!(client.call("nearside flush"), "+OK\r\n");
    assert!(verdict(&mut client, "session:1").starts_with("miss: its connection was lost, or all was flushed"));
    assert_eq!(client.call("GET session:1"), "$1\r\nc\r\n");
    assert_eq!(verdict(&mut client, "session:1"), "hit");
}

#[test]
fn stats_are_those_of_info() {
    if calibrating("nearside") {
        return;
    }
    let redis = RedisServer::start();
    let (_nearside, mut client) = warm(&redis, &[]);
    let stats = map(&client.call("NEARSIDE STATS"));
    assert!(stats["cache_hits"].integer().unwrap() > 0 && stats.contains_key("keys_touched"), "{stats:?}");
    assert_eq!(text(&stats, "upstream"), format!("redis://127.0.0.1:{}", redis.port()));
    assert!(client.call("HELLO 3").starts_with(b"%"));
    assert!(client.call("NEARSIDE STATS").starts_with(b"%"));
}

#[test]
fn help_and_errors_are_as_those_of_other_commands() {
    if calibrating("nearside") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    let help = client.call("NEARSIDE HELP").elements();
    assert!(help[0].starts_with(b"+NEARSIDE <subcommand>"));
    assert_eq!(client.call("NEARSIDE"), "-ERR wrong number of arguments for 'nearside' command\r\n");
    assert_eq!(client.call("NEARSIDE EXPLAIN"), "-ERR wrong number of arguments for 'nearside|explain' command\r\n");
    assert_eq!(client.call("NEARSIDE NOSUCH x"), "-ERR unknown subcommand 'NOSUCH'. Try NEARSIDE HELP.\r\n");
    assert_eq!(client.call("MULTI"), "+OK\r\n");
    assert!(client.call("NEARSIDE HELP").is_error(), "the server queues what is between MULTI and EXEC");
    assert!(client.call("EXEC").is_error());
    let protected = Nearside::with(&redis, &["--requirepass", "secret"]);
    assert!(protected.client().call("NEARSIDE FLUSH").starts_with(b"-NOAUTH"));
}

#[test]
fn an_upstream_that_evicts_by_use_is_told_what_is_in_use() {
    if calibrating("nearside") {
        return;
    }
    let redis = RedisServer::with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let (nearside, mut client) = warm(&redis, &["--max-staleness", "30s", "--workers", "2"]);
    let mut direct = redis.client();
    direct.call("MSET hot 1 cold 1");
    client.call("GET cold");
    eventually("the hot key has been touched, the cold one not", Duration::from_secs(40), || {
        (0..3).for_each(|_| drop(client.call("GET hot")));
        let idle = |direct: &mut Client, key: &str| direct.call(&format!("OBJECT IDLETIME {key}")).integer().unwrap();
        (redis.calls("touch") > 0 && idle(&mut direct, "hot") + 3 < idle(&mut direct, "cold")).then_some(())
    });
    assert!(nearside.metrics().total("nearside_keys_touched_total") >= 1.0);
    assert_eq!(client.call("GET hot"), "$1\r\n1\r\n");
}

#[test]
fn how_late_invalidations_come_is_measured() {
    if calibrating("nearside") {
        return;
    }
    let redis = RedisServer::start();
    let (nearside, mut client) = warm(&redis, &[]);
    eventually("a lag has been seen", SOON, || {
        client.pipeline(&["SET k 1", "GET k", "GET k"]);
        (0..3).for_each(|_| drop(client.call("GET k")));
        client.call("SET k 2");
        let metrics = nearside.metrics();
        (metrics.total("nearside_invalidation_lag_seconds_count") > 0.0).then_some(())
    });
}
