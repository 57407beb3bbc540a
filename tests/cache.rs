//! The near-cache, seen from outside: what is served from it, and what must never be.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use nearside_tests::{Client, Freshness, Nearside, RedisServer, Relay, calibrating, eventually, holds_for};

/// More than any delay of an invalidation on one machine, less than a test wants to wait in vain.
const SOON: Duration = Duration::from_secs(10);

struct Setup {
    redis: RedisServer,
    nearside: Nearside,
    client: Client,
    direct: Client,
}

impl Setup {
    fn new(args: &[&str]) -> Self {
        let redis = RedisServer::start();
        let nearside = Nearside::with(&redis, args);
        let (client, direct) = (nearside.client(), redis.client());
        let mut setup = Self { redis, nearside, client, direct };
        // From here on the loader lane is there, so that what follows may be exact.
        setup.warm("warmed-up");
        setup
    }

    /// Reads `key` until a read of it does not reach Redis.
    fn warm(&mut self, key: &str) {
        if calibrating("cache") {
            return;
        }
        eventually("a second GET is a hit", SOON, || (self.read_counted(key).1 == 0).then_some(()));
    }

    /// GETs `key` through the proxy: its reply, and how many GETs reached Redis.
    fn read_counted(&mut self, key: &str) -> (nearside_tests::Reply, u64) {
        let before = self.redis.calls("get");
        let reply = self.client.call(&format!("GET {key}"));
        (reply, self.redis.calls("get") - before)
    }

    fn read(&mut self, key: &str) -> nearside_tests::Reply {
        self.client.call(&format!("GET {key}"))
    }

    /// Reads `key` until the reply is this, which must happen soon; a value of before is allowed until then.
    fn soon_reads(&mut self, key: &str, expected: &str) {
        let client = &mut self.client;
        eventually(&format!("GET {key} gives {expected:?}"), SOON, || {
            (client.call(&format!("GET {key}")) == expected).then_some(())
        });
    }
}

#[test]
fn the_second_get_of_a_key_is_a_hit() {
    if calibrating("cache") {
        return;
    }
    let mut setup = Setup::new(&[]);
    setup.direct.call("SET k value");
    let before = setup.nearside.metrics();
    assert_eq!(setup.read_counted("k"), (reply("$5\r\nvalue\r\n"), 1));
    assert_eq!(setup.read_counted("k"), (reply("$5\r\nvalue\r\n"), 0));
    let after = setup.nearside.metrics();
    let grown = |name| after.total(name) - before.total(name);
    assert_eq!(grown("nearside_cache_hits_total"), 1.0);
    assert_eq!(grown("nearside_cache_misses_total"), 1.0);
    assert_eq!(grown("nearside_cache_entries"), 1.0);
    assert!(grown("nearside_cache_bytes") > 0.0);
}

#[test]
fn a_hit_has_the_form_of_the_clients_protocol() {
    let mut setup = Setup::new(&[]);
    let mut resp3 = setup.nearside.client();
    assert!(resp3.call("HELLO 3").starts_with(b"%"));
    setup.client.call("SET k v");
    for _ in 0..3 {
        assert_eq!(setup.read("k"), "$1\r\nv\r\n");
        assert_eq!(resp3.call("GET k"), "$1\r\nv\r\n");
        assert_eq!(setup.read("nosuch"), "$-1\r\n");
        assert_eq!(resp3.call("GET nosuch"), "_\r\n");
    }
}

#[test]
fn a_write_past_the_proxy_is_soon_seen() {
    let mut setup = Setup::new(&[]);
    for round in 0..20 {
        let value = format!("v{round}");
        assert_eq!(setup.direct.call(&format!("SET k {value}")), "+OK\r\n");
        setup.soon_reads("k", &format!("${}\r\n{value}\r\n", value.len()));
        setup.warm("k");
    }
    if !calibrating("invalidations") {
        assert!(setup.nearside.metrics().total("nearside_invalidations_total") >= 19.0);
    }
}

#[test]
fn a_key_that_does_not_exist_is_cached_until_it_does() {
    let mut setup = Setup::new(&[]);
    setup.warm("absent");
    assert_eq!(setup.read("absent"), "$-1\r\n");
    setup.direct.call("SET absent here");
    setup.soon_reads("absent", "$4\r\nhere\r\n");
    setup.direct.call("DEL absent");
    setup.soon_reads("absent", "$-1\r\n");
}

#[test]
fn a_value_does_not_outlive_the_time_it_had_to_live() {
    let mut setup = Setup::new(&[]);
    // Redis expires keys that nobody asks for only now and then; without that, only the deadline can end a hit.
    setup.direct.call("DEBUG SET-ACTIVE-EXPIRE 0");
    let lifetime = Duration::from_millis(400);
    let set_at = Instant::now();
    setup.direct.call("SET k v PX 400");
    setup.warm("k");
    holds_for("either the value or nothing", lifetime, || {
        let reply = setup.client.call("GET k");
        reply == "$1\r\nv\r\n" || reply == "$-1\r\n"
    });
    std::thread::sleep((set_at + lifetime + Duration::from_millis(5)).saturating_duration_since(Instant::now()));
    assert_eq!(setup.read("k"), "$-1\r\n");
}

#[test]
fn max_age_bounds_what_no_invalidation_ends() {
    if calibrating("max-age") {
        return;
    }
    let mut setup = Setup::new(&["--max-age", "300ms"]);
    setup.client.call("SET k v");
    setup.warm("k");
    std::thread::sleep(Duration::from_millis(350));
    assert_eq!(setup.read_counted("k").1, 1, "an entry past max-age is no hit");
}

#[test]
fn a_flush_past_the_proxy_is_soon_seen() {
    for flush in ["FLUSHALL", "FLUSHDB"] {
        let mut setup = Setup::new(&[]);
        setup.direct.call("SET k v");
        setup.warm("k");
        setup.direct.call(flush);
        setup.soon_reads("k", "$-1\r\n");
    }
}

#[test]
fn what_changes_every_key_retires_every_entry_before_it_is_answered() {
    for change in ["FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "SWAPDB 1 0"] {
        for workers in ["1", "4"] {
            let mut setup = Setup::new(&["--workers", workers]);
            setup.client.call("SET k v");
            setup.warm("k");
            let mut other = setup.nearside.client();
            assert_eq!(other.call(change), "+OK\r\n");
            assert_eq!(setup.read("k"), "$-1\r\n", "{change}, {workers} workers");
        }
    }
}

#[test]
fn nobody_reads_an_older_value_once_a_write_through_the_proxy_is_acknowledged() {
    for workers in ["1", "4"] {
        let setup = Setup::new(&["--workers", workers]);
        let mut readers = (0..6).map(|_| setup.nearside.client()).collect::<Vec<_>>();
        let mut writer = setup.nearside.client();
        for round in 0..300 {
            let value = format!("v{round}");
            assert_eq!(writer.call(&format!("SET k {value}")), "+OK\r\n");
            for reader in &mut readers {
                assert_eq!(reader.call("GET k").bulk(), Some(value.as_bytes()), "{workers} workers");
            }
        }
    }
}

#[test]
fn every_way_to_write_a_key_drops_it_before_the_write_is_answered() {
    let mut setup = Setup::new(&["--workers", "2"]);
    let mut reader = setup.nearside.client();
    for (write, value) in [
        ("SET k a", "a"),
        ("APPEND k b", "ab"),
        ("SETRANGE k 1 c", "ac"),
        ("GETSET k 1", "1"),
        ("INCR k", "2"),
        ("DECRBY k 5", "-3"),
        ("MSET x 1 k 5", "5"),
        ("SETEX k 1000 6", "6"),
        ("GETDEL k", ""),
        ("SETNX k 7", "7"),
        ("DEL x k", ""),
        ("RENAME x2 k", "moved"),
        ("COPY x3 k REPLACE", "copied"),
        ("UNLINK k", ""),
        ("MSETNX k 8 y 1", "8"),
        ("BITOP NOT k k", "\u{c7}"),
        ("SETBIT k 0 0", "G"),
        ("PEXPIREAT k 1", ""),
        ("BITFIELD k SET u8 0 65", "A"),
        ("PFADD hll a", "A"),
        ("EXPIRE k 0", ""),
        ("INCRBYFLOAT k 1.5", "1.5"),
        ("GETEX k EXAT 1", ""),
        ("SORT list ALPHA STORE k", "WRONGTYPE"),
        ("RENAME k list2", ""),
        ("EVAL return(redis.call('SET',KEYS[1],'s')) 1 k", "s"),
        ("RPUSH other x", "s"),
        ("LMOVE other k LEFT LEFT", "s"),
        ("SINTERSTORE k nosuch nosuch", ""),
        ("MOVE x3 1", ""),
        ("RESTORE k 0 x", ""),
    ] {
        setup.direct.pipeline(&["SET x2 moved", "SET x3 copied", "RPUSH list b a"]);
        // A list is no value of a GET, and no error is cached.
        if !setup.read("k").is_error() {
            setup.warm("k");
        }
        let written = setup.client.call(write);
        let read = reader.call("GET k");
        let expected = setup.direct.call("GET k");
        assert_eq!(read, expected, "after {write}, answered {written:?}");
        let means = match value {
            "" => read == "$-1\r\n",
            "WRONGTYPE" => read.starts_with(b"-WRONGTYPE"),
            "\u{c7}" => read.bulk() == Some(b"\xc7"),
            value => read.bulk() == Some(value.as_bytes()),
        };
        assert!(means, "the test means something else by {write}: {read:?}");
    }
}

#[test]
fn one_pipeline_reads_its_own_writes_and_what_was_before_them() {
    for workers in ["1", "4"] {
        let mut setup = Setup::new(&["--workers", workers]);
        for round in 0..100 {
            let key = format!("k{round}");
            setup.direct.call(&format!("SET {key} old"));
            if round % 2 == 0 {
                setup.warm(&key);
            }
            let commands = [
                format!("GET {key}"),
                format!("DEL {key}"),
                format!("GET {key}"),
                format!("SET {key} new"),
                format!("GET {key}"),
                format!("APPEND {key} er"),
                format!("GET {key}"),
                format!("GET {key}"),
            ];
            let replies = setup.client.pipeline(&commands.iter().map(String::as_str).collect::<Vec<_>>());
            let expected = [
                "$3\r\nold\r\n",
                ":1\r\n",
                "$-1\r\n",
                "+OK\r\n",
                "$3\r\nnew\r\n",
                ":5\r\n",
                "$5\r\nnewer\r\n",
                "$5\r\nnewer\r\n",
            ];
            assert_eq!(replies, expected, "{workers} workers, round {round}");
            assert_eq!(setup.client.call(&format!("GET {key}")), "$5\r\nnewer\r\n");
        }
    }
}

#[test]
fn a_flush_in_a_pipeline_keeps_its_place_between_reads() {
    let mut setup = Setup::new(&["--workers", "2"]);
    for round in 0..50 {
        let key = format!("k{round}");
        setup.direct.call(&format!("SET {key} old"));
        if round % 2 == 0 {
            setup.warm(&key);
        }
        let get = format!("GET {key}");
        let replies =
            setup.client.pipeline(&[&get, "FLUSHALL", &get, &format!("SET {key} new"), "SWAPDB 0 1", &get, &get]);
        assert_eq!(replies, ["$3\r\nold\r\n", "+OK\r\n", "$-1\r\n", "+OK\r\n", "+OK\r\n", "$-1\r\n", "$-1\r\n"]);
        setup.direct.call("FLUSHALL");
    }
}

#[test]
fn entries_of_one_db_are_not_those_of_another() {
    let mut setup = Setup::new(&[]);
    setup.client.pipeline(&["SET k zero", "SELECT 1", "SET k one", "SELECT 0"]);
    let mut in_one = setup.nearside.client();
    in_one.call("SELECT 1");
    for _ in 0..5 {
        assert_eq!(setup.read("k"), "$4\r\nzero\r\n");
        assert_eq!(in_one.call("GET k"), "$3\r\none\r\n");
    }
    // An invalidation names no db: the key goes in both, and comes back as it is in each.
    setup.direct.call("SET k changed");
    setup.soon_reads("k", "$7\r\nchanged\r\n");
    assert_eq!(in_one.call("GET k"), "$3\r\none\r\n");
    assert_eq!(in_one.call("DEL k"), ":1\r\n");
    assert_eq!(in_one.call("GET k"), "$-1\r\n");
    assert_eq!(setup.read("k"), "$7\r\nchanged\r\n");
}

#[test]
fn the_errors_of_a_get_are_not_cached() {
    let mut setup = Setup::new(&[]);
    setup.direct.call("RPUSH k a");
    for _ in 0..2 {
        let (reply, reached) = setup.read_counted("k");
        assert!(reply.starts_with(b"-WRONGTYPE "), "{reply:?}");
        assert_eq!(reached, 1);
    }
    setup.client.call("DEL k");
    assert_eq!(setup.read("k"), "$-1\r\n");
    assert_eq!(setup.client.call("GET"), "-ERR wrong number of arguments for 'get' command\r\n");
    assert_eq!(setup.client.call("GET a b"), "-ERR wrong number of arguments for 'get' command\r\n");
}

#[test]
fn a_value_too_large_for_the_cache_is_passed_on_and_remembered_as_such() {
    // A heartbeat asks for a PTTL too: not within this test.
    let mut setup = Setup::new(&["--max-item-size", "64KiB", "--max-staleness", "100s"]);
    let large = "x".repeat(200_000);
    setup.client.command(&["SET", "large", &large]);
    assert_eq!(setup.read("large").bulk(), Some(large.as_bytes()));
    let fetched = setup.redis.calls("pttl");
    for _ in 0..4 {
        let (reply, reached) = setup.read_counted("large");
        assert_eq!(reply.bulk(), Some(large.as_bytes()));
        assert_eq!(reached, 1, "it is asked for each time");
    }
    assert_eq!(setup.redis.calls("pttl"), fetched, "and not fetched for the cache again");
    setup.client.call("SET large small");
    setup.soon_reads("large", "$5\r\nsmall\r\n");
    setup.warm("large");
}

#[test]
fn many_who_miss_one_key_at_once_cause_one_fetch() {
    if calibrating("single flight") {
        return;
    }
    for workers in ["1", "4"] {
        let setup = Setup::new(&["--workers", workers]);
        setup.redis.client().call("SET k v");
        let mut clients = (0..40).map(|_| setup.nearside.client()).collect::<Vec<_>>();
        let before = setup.redis.calls("get");
        // While Redis stands still the requests meet: without single flight each would be sent.
        setup.redis.stop();
        for client in &mut clients {
            client.send(b"GET k\r\n");
        }
        std::thread::sleep(Duration::from_millis(150));
        setup.redis.resume();
        for client in &mut clients {
            assert_eq!(client.reply(), "$1\r\nv\r\n");
        }
        let fetches = setup.redis.calls("get") - before;
        assert!(fetches <= 2, "{fetches} fetches, {workers} workers");
    }
}

#[test]
fn with_the_cache_off_every_get_reaches_redis() {
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--cache-size", "off"]);
    let mut client = nearside.client();
    client.call("SET k v");
    let before = redis.calls("get");
    for _ in 0..10 {
        assert_eq!(client.call("GET k"), "$1\r\nv\r\n");
    }
    assert_eq!(redis.calls("get") - before, 10);
}

#[test]
fn a_cache_smaller_than_its_data_keeps_to_its_size_and_to_the_truth() {
    let mut setup = Setup::new(&["--cache-size", "2MiB", "--max-item-size", "4KiB"]);
    let value = |key: usize| format!("{key}:{}", "v".repeat(900));
    for key in 0..6000 {
        setup.direct.command(&["SET", &format!("k{key}"), &value(key)]);
    }
    for round in 0..2 {
        for key in 0..6000 {
            assert_eq!(setup.read(&format!("k{key}")).bulk(), Some(value(key).as_bytes()), "round {round}");
        }
    }
    if !calibrating("metrics") {
        let metrics = setup.nearside.metrics();
        let bytes = metrics.total("nearside_cache_bytes");
        assert!(bytes <= 2.0 * 1024.0 * 1024.0, "{bytes} bytes in a cache of 2 MiB");
        assert!(metrics.total("nearside_cache_entries") > 500.0, "{metrics:?}");
    }
}

#[test]
fn reads_beside_a_busy_writer_are_never_staler_than_promised() {
    for workers in ["1", "4"] {
        let setup = Setup::new(&["--workers", workers, "--max-staleness", "100ms", "--cache-churning", "yes"]);
        let freshness = Freshness::start(&setup.redis.address(), setup.nearside.address(), Duration::from_millis(100));
        std::thread::sleep(Duration::from_secs(2));
        assert!(freshness.reads() > 100, "{} reads", freshness.reads());
        let stale = freshness.finish();
        assert!(stale.is_empty(), "{workers} workers: {stale:?}");
    }
}

#[test]
fn no_read_misses_a_write_through_the_proxy_that_was_acknowledged_before_it() {
    for workers in ["1", "4"] {
        let setup = Setup::new(&["--workers", workers, "--cache-churning", "yes"]);
        let proxy = setup.nearside.address();
        let freshness = Freshness::start(proxy, proxy, Duration::ZERO);
        std::thread::sleep(Duration::from_secs(2));
        assert!(freshness.reads() > 100, "{} reads", freshness.reads());
        let stale = freshness.finish();
        assert!(stale.is_empty(), "{workers} workers: {stale:?}");
    }
}

#[test]
fn a_fetch_that_a_write_overtakes_stores_nothing_old() {
    if calibrating("loader lane") {
        return;
    }
    for workers in ["1", "4"] {
        let redis = RedisServer::start();
        let relay = Relay::to(&redis.address());
        let nearside = Nearside::upstream(relay.address(), &["--workers", workers, "--cache-churning", "yes"]);
        relay.delay_tracked(Duration::from_millis(15));
        let freshness = Freshness::start(nearside.address(), nearside.address(), Duration::ZERO);
        std::thread::sleep(Duration::from_secs(2));
        assert!(freshness.reads() > 100, "{} reads", freshness.reads());
        let stale = freshness.finish();
        assert!(stale.is_empty(), "{workers} workers: {stale:?}");
    }
}

#[test]
fn who_joins_a_fetch_on_its_way_is_not_told_of_a_value_that_had_expired_by_then() {
    if calibrating("loader lane") {
        return;
    }
    let redis = RedisServer::start();
    let relay = Relay::to(&redis.address());
    let nearside = Nearside::upstream(relay.address(), &["--max-staleness", "5s"]);
    let (mut leader, mut follower, mut direct) = (nearside.client(), nearside.client(), redis.client());
    nearside.warm(&mut leader, "other");
    relay.delay_tracked(Duration::from_millis(600));
    assert_eq!(direct.call("SET k v PX 150"), "+OK\r\n");
    let fetched = redis.calls("get");
    leader.send(b"GET k\r\n");
    eventually("the fetch has reached the server", SOON, || (redis.calls("get") > fetched).then_some(()));
    eventually("it has expired", SOON, || (direct.call("GET k") == "$-1\r\n").then_some(()));
    assert_eq!(follower.call("GET k"), "$-1\r\n");
    assert_eq!(leader.reply(), "$1\r\nv\r\n", "it was there when it was asked for");
}

fn reply(bytes: &str) -> nearside_tests::Reply {
    nearside_tests::Reply(bytes.as_bytes().to_vec())
}
