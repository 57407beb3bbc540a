//! MGET and the near-cache: each of its keys is served, fetched, and kept apart as GET's is.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use nearside_tests::{
    Client, Nearside, RedisCluster, RedisServer, Reply, calibrating, eventually, request, spread_keys, words,
};

/// More than any delay of an invalidation on one machine, less than a test wants to wait in vain.
const SOON: Duration = Duration::from_secs(10);

struct Setup {
    redis: RedisServer,
    nearside: Nearside,
    client: Client,
    direct: Client,
}

/// Commands that reached Redis, and what the proxy counted.
#[derive(Debug, PartialEq)]
struct Counted {
    mget: u64,
    get: u64,
    hits: f64,
    misses: f64,
}

impl Setup {
    /// With a loader lane, and leases that do not run out on a busy machine.
    fn new() -> Self {
        let redis = RedisServer::start();
        let nearside = Nearside::with(&redis, &["--max-staleness", "100s", "--upstream-timeout", "1s"]);
        let (mut client, direct) = (nearside.client(), redis.client());
        nearside.warm(&mut client, "warmed-up");
        Self { redis, nearside, client, direct }
    }

    fn counted(&mut self, line: &str) -> (Reply, Counted) {
        let total = |nearside: &Nearside, name: &str| nearside.metrics().total(&format!("nearside_cache_{name}_total"));
        let (mget, get) = (self.redis.calls("mget"), self.redis.calls("get"));
        let (hits, misses) = (total(&self.nearside, "hits"), total(&self.nearside, "misses"));
        let reply = self.client.call(line);
        let counted = Counted {
            mget: self.redis.calls("mget") - mget,
            get: self.redis.calls("get") - get,
            hits: total(&self.nearside, "hits") - hits,
            misses: total(&self.nearside, "misses") - misses,
        };
        (reply, counted)
    }
}

#[test]
fn keys_are_fetched_once_and_served_from_memory_then() {
    if calibrating("cache") {
        return;
    }
    let mut setup = Setup::new();
    setup.direct.call("MSET a 1 b 22 c 333");
    setup.direct.call("RPUSH list x");
    let some = "*5\r\n$1\r\n1\r\n$2\r\n22\r\n$-1\r\n$1\r\n1\r\n$3\r\n333\r\n";
    // A key that is asked for twice is fetched once.
    let first = setup.counted("MGET a b nosuch a c");
    assert_eq!(first.0, some);
    assert_eq!((first.1.mget, first.1.get, first.1.hits), (0, 4, 0.0));
    let second = setup.counted("MGET a b nosuch a c");
    assert_eq!(second, (Reply(some.into()), Counted { mget: 0, get: 0, hits: 5.0, misses: 0.0 }));
    let (reply, counted) = setup.counted("GET b");
    assert_eq!((reply, counted.get, counted.hits), (Reply(b"$2\r\n22\r\n".to_vec()), 0, 1.0), "GET has them too");

    setup.direct.call("SET a changed");
    let expected = "*2\r\n$2\r\n22\r\n$7\r\nchanged\r\n";
    let client = &mut setup.client;
    eventually("the change is seen", SOON, || (client.call("MGET b a") == expected).then_some(()));
    setup.direct.call("SET d 4");
    let (reply, counted) = setup.counted("MGET c d");
    assert_eq!(reply, "*2\r\n$3\r\n333\r\n$1\r\n4\r\n");
    assert_eq!(counted, Counted { mget: 0, get: 1, hits: 1.0, misses: 1.0 });
    // To MGET another type is no value, whoever asks for it.
    for _ in 0..2 {
        assert_eq!(setup.client.call("MGET list a list"), "*3\r\n$-1\r\n$7\r\nchanged\r\n$-1\r\n");
    }
    let mut resp3 = setup.nearside.client();
    resp3.call("HELLO 3");
    for _ in 0..2 {
        assert_eq!(resp3.call("MGET list nosuch b"), "*3\r\n_\r\n_\r\n$2\r\n22\r\n");
    }
    assert_eq!(setup.client.call("MGET"), "-ERR wrong number of arguments for 'mget' command\r\n");
}

#[test]
fn a_session_reads_its_own_writes_and_what_was_before_them() {
    let setup = Setup::new();
    let (mut client, mut other) = (setup.nearside.client(), setup.nearside.client());
    for round in 0..50 {
        other.call("MSET a old b old");
        other.call("MGET a b");
        if round % 2 == 0 {
            other.call("DEL b");
            other.call("SET b old");
        }
        let lines =
            ["MGET a b", "SET a 1", "MGET b a", "MSET a 2 b 2", "MGET a b", "GET a", "DEL a", "MGET a b", "GET b"];
        let replies = client.pipeline(&lines);
        let expected = [
            "*2\r\n$3\r\nold\r\n$3\r\nold\r\n",
            "+OK\r\n",
            "*2\r\n$3\r\nold\r\n$1\r\n1\r\n",
            "+OK\r\n",
            "*2\r\n$1\r\n2\r\n$1\r\n2\r\n",
            "$1\r\n2\r\n",
            ":1\r\n",
            "*2\r\n$-1\r\n$1\r\n2\r\n",
            "$1\r\n2\r\n",
        ];
        assert_eq!(replies, expected, "round {round}");
        assert_eq!(other.call("MGET a b"), "*2\r\n$-1\r\n$1\r\n2\r\n", "acknowledged to another client");
    }
}

#[test]
fn what_is_long_or_lacks_much_goes_upstream_as_it_came() {
    if calibrating("cache") {
        return;
    }
    let mut setup = Setup::new();
    let line = |keys: usize| format!("MGET {}", (0..keys).map(|key| format!("k{key}")).collect::<Vec<_>>().join(" "));
    for key in 0..1100 {
        setup.direct.call(&format!("SET k{key} {key}"));
    }
    let values = |keys: usize| {
        let each = (0..keys).map(|key| format!("${}\r\n{key}\r\n", key.to_string().len()));
        format!("*{keys}\r\n{}", each.collect::<String>())
    };
    let (reply, counted) = setup.counted(&line(200));
    assert!(reply == values(200).as_str());
    assert_eq!(counted, Counted { mget: 1, get: 0, hits: 0.0, misses: 200.0 });
    // A hundred at a time come in.
    for _ in 0..10 {
        (100..=1000).step_by(100).for_each(|keys| assert!(setup.client.call(&line(keys)) == values(keys).as_str()));
    }
    let (reply, counted) = setup.counted(&line(1000));
    assert!(reply == values(1000).as_str());
    assert_eq!(counted, Counted { mget: 0, get: 0, hits: 1000.0, misses: 0.0 });
    let (reply, counted) = setup.counted(&line(1100));
    assert!(reply == values(1100).as_str());
    assert_eq!((counted.mget, counted.get), (1, 0));
    let large = "x".repeat(2 << 20);
    setup.direct.command(&["SET", "large", &large]);
    for _ in 0..3 {
        let reply = setup.client.call("MGET k1 large k2");
        assert!(reply == format!("*3\r\n$1\r\n1\r\n${}\r\n{large}\r\n$1\r\n2\r\n", large.len()).as_str());
    }
    // All of them are kept, and together too much to be put together here.
    let much = "z".repeat(900_000);
    setup.direct.command(&["SET", "much", &much]);
    let (mget, short) = (format!("MGET{}", " much".repeat(30)), "MGET much much");
    let value = format!("${}\r\n{much}\r\n", much.len());
    assert!(setup.client.call(short) == format!("*2\r\n{}", value.repeat(2)).as_str());
    let (reply, counted) = setup.counted(&mget);
    assert!(reply == format!("*30\r\n{}", value.repeat(30)).as_str());
    assert_eq!((counted.mget, counted.get, counted.hits), (1, 0, 0.0));
    assert_eq!(setup.counted(short).1, Counted { mget: 0, get: 0, hits: 2.0, misses: 0.0 });
    // Large, and still small enough to be kept.
    let kept = "y".repeat(200_000);
    setup.direct.command(&["SET", "kept", &kept]);
    let expected = format!("*3\r\n$200000\r\n{kept}\r\n$1\r\n1\r\n$200000\r\n{kept}\r\n");
    for _ in 0..3 {
        assert!(setup.client.call("MGET kept k1 kept") == expected.as_str());
    }
}

#[test]
fn an_error_that_only_get_is_given_is_not_the_clients() {
    if calibrating("user of its own") {
        return;
    }
    let redis = RedisServer::start();
    let mut direct = redis.client();
    direct.call("MSET a 1 b 2");
    direct.call("ACL SETUSER reader on >secret ~* &* +@all -get");
    let url = format!("redis://reader:secret@{}", redis.address());
    let nearside = Nearside::with_url(&url, &[]);
    nearside.wait_until_ready();
    let mut client = nearside.client();
    let started = Instant::now();
    // At first there is no loader lane; then there is, and GET is refused on it.
    while started.elapsed() < Duration::from_secs(2) {
        let replies = client.pipeline(&["MGET a b", "SET a 2", "MGET a nosuch", "SET a 1"]);
        assert_eq!(replies, ["*2\r\n$1\r\n1\r\n$1\r\n2\r\n", "+OK\r\n", "*2\r\n$1\r\n2\r\n$-1\r\n", "+OK\r\n"]);
    }
    assert!(client.call("GET a").starts_with(b"-NOPERM "), "the test means something else");
    direct.call("ACL SETUSER reader -mget");
    let said = client.call("MGET a b");
    assert!(said.starts_with(b"-NOPERM ") && said.text().contains("mget"), "{said:?}");
}

#[test]
fn a_command_that_is_sent_as_a_whole_after_all_is_not_overtaken_on_any_of_its_keys() {
    if calibrating("user of its own") {
        return;
    }
    let redis = RedisServer::start();
    let mut direct = redis.client();
    direct.call("ACL SETUSER reader on >secret ~* &* +@all");
    let url = format!("redis://reader:secret@{}", redis.address());
    let nearside = Nearside::with_url(&url, &["--max-staleness", "100s"]);
    let mut client = nearside.client();
    nearside.warm(&mut client, "warmed-up");
    direct.call("MSET a old b old");
    assert_eq!(client.call("GET a"), "$3\r\nold\r\n");
    direct.call("ACL SETUSER reader -get");
    // The first key is there, and the second one is refused to GET.
    let replies = client.pipeline(&["MGET a b", "SET a new", "MGET a b"]);
    let [before, after] = ["old", "new"].map(|a| format!("*2\r\n$3\r\n{a}\r\n$3\r\nold\r\n"));
    assert_eq!(replies, [before.as_str(), "+OK\r\n", after.as_str()]);
}

#[test]
fn an_upstream_that_stands_still_is_an_error_and_what_comes_late_hurts_nobody() {
    if calibrating("way to outlive a server") {
        return;
    }
    let mut setup = Setup::new();
    setup.direct.call("MSET a 1 b 2 c 3");
    assert_eq!(setup.client.call("MGET a"), "*1\r\n$1\r\n1\r\n");
    for round in 0..3 {
        setup.redis.stop();
        let bytes = [words("MGET a b c x"), words("MGET a"), words("ECHO next")].concat();
        setup.client.send(&bytes);
        let started = Instant::now();
        let said = setup.client.reply();
        assert!(said.starts_with(b"-UPSTREAM "), "round {round}: {said:?}");
        let hit_or_error = setup.client.reply();
        assert!(hit_or_error == "*1\r\n$1\r\n1\r\n" || hit_or_error.is_error(), "{hit_or_error:?}");
        assert_eq!(setup.client.reply(), "$4\r\nnext\r\n");
        assert!(started.elapsed() < SOON);
        setup.redis.resume();
        let client = &mut setup.client;
        let expected = "*4\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$-1\r\n";
        eventually("it is back", SOON, || (client.call("MGET a b c x") == expected).then_some(()));
        assert_eq!(client.call("SET b 2"), "+OK\r\n", "a write of what was asked for is not held up");
    }
}

#[test]
fn replies_that_the_client_does_not_want_are_left_out() {
    let mut setup = Setup::new();
    setup.direct.call("MSET a 1 b 2");
    for _ in 0..3 {
        let lines = [
            "CLIENT REPLY SKIP",
            "MGET a b",
            "MGET b a",
            "CLIENT REPLY OFF",
            "MGET a b",
            "DEL b",
            "MGET a b",
            "CLIENT REPLY ON",
            "MGET a b",
        ];
        setup.client.send(&lines.iter().flat_map(|line| words(line)).collect::<Vec<_>>());
        assert_eq!(setup.client.reply(), "*2\r\n$1\r\n2\r\n$1\r\n1\r\n");
        assert_eq!(setup.client.reply(), "+OK\r\n");
        assert_eq!(setup.client.reply(), "*2\r\n$1\r\n1\r\n$-1\r\n");
        assert_eq!(setup.client.call("SET b 2"), "+OK\r\n");
    }
}

#[test]
fn before_a_cluster_keys_of_all_nodes_are_served_from_memory() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(3);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--max-staleness", "100s", "--workers", "2"]);
    let (mut client, mut other, mut direct) = (nearside.client(), nearside.client(), cluster.client());
    spread_keys(6, "warmed-up").iter().for_each(|key| nearside.warm(&mut client, key));
    for round in 0..5 {
        // Others than before: keys that change as often as they are read would not be cached for long.
        let keys = spread_keys(20, &format!("shared-out-{round}"));
        let mget = [&["MGET"], &keys.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat();
        keys.iter().for_each(|key| drop(direct.command(&["SET", key, "old"])));
        (0..2)
            .for_each(|_| assert!(client.command(&mget) == format!("*20\r\n{}", "$3\r\nold\r\n".repeat(20)).as_str()));
        keys.iter().for_each(|key| drop(direct.command(&["SET", key, &format!("{key}-{round}")])));
        let values = keys.iter().map(|key| {
            let value = format!("{key}-{round}");
            format!("${}\r\n{value}\r\n", value.len())
        });
        let expected = format!("*20\r\n{}", values.collect::<String>());
        eventually("the new values", SOON, || (client.command(&mget) == expected.as_str()).then_some(()));
        let before = (nearside.hits(), (0..3).map(|node| cluster.node(node).calls("get")).sum::<u64>());
        for client in [&mut client, &mut other] {
            assert!(client.command(&mget) == expected.as_str());
        }
        let after = (nearside.hits(), (0..3).map(|node| cluster.node(node).calls("get")).sum::<u64>());
        assert_eq!((after.0 - before.0, after.1 - before.1), (40.0, 0), "round {round}");
        // A divided write of the session's own, in the same pipeline.
        let pairs = keys.iter().flat_map(|key| [key.as_str(), "own"]).collect::<Vec<_>>();
        let mset = request(&[&["MSET"], &pairs[..]].concat());
        let bytes = [request(&mget), mset, request(&mget)].concat();
        let replies = client.exchange(&bytes, 3);
        assert!(replies[0] == expected.as_str() && replies[1] == "+OK\r\n");
        assert_eq!(replies[2], format!("*20\r\n{}", "$3\r\nown\r\n".repeat(20)).as_str());
        assert_eq!(other.command(&mget), replies[2], "acknowledged to another client");
    }
}
