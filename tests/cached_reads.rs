//! Reads other than GET from the near-cache: in both versions of the protocol the bytes that Redis gives, and no staler than GET.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use nearside_tests::{Client, Nearside, RedisCluster, RedisServer, Reply, calibrating, eventually};

const SOON: Duration = Duration::from_secs(10);

/// What the keys hold.
const VALUES: &[&str] = &[
    "SET s This-is-a-string",
    "SET empty \"\"",
    "SET bits \"\\xff\\x00\\x0f\"",
    "HSET h f1 v1 f2 \"\" f3 -3 number 10",
    "RPUSH l a b c a \"\" d",
    "SADD set m",
    "SADD numbers 3 1 2",
    "ZADD z 1 one 2.5 two inf more -inf less 1e300 much",
    "ZADD lex 0 a 0 b 0 c",
    "GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania",
    "XADD x 1-1 f v",
    "XADD x 2-1 f v g w",
];

/// Reads of these, right ones and wrong ones.
const READS: &[&str] = &[
    "GET s",
    "GET none",
    "STRLEN s",
    "STRLEN empty",
    "STRLEN none",
    "STRLEN l",
    "EXISTS s",
    "EXISTS none",
    "EXISTS l",
    "GETRANGE s 0 3",
    "GETRANGE s -3 -1",
    "GETRANGE s 5 2",
    "GETRANGE s 0 +3",
    "GETRANGE none 0 -1",
    "SUBSTR s 1 2",
    "GETBIT bits 7",
    "GETBIT none 7",
    "BITCOUNT bits",
    "BITCOUNT bits 1 -1",
    "BITCOUNT none",
    "BITPOS bits 0",
    "BITPOS none 1",
    "TYPE s",
    "TYPE z",
    "TYPE none",
    "HGET h f1",
    "HGET h f2",
    "HGET h none",
    "HGET none f",
    "HGET s f",
    "HGET h",
    "HMGET h f1 none f3",
    "HMGET none a b",
    "HGETALL none",
    "HLEN h",
    "HLEN none",
    "HEXISTS h f1",
    "HEXISTS h none",
    "HSTRLEN h f1",
    "HKEYS none",
    "HVALS none",
    "SMEMBERS set",
    "SMEMBERS numbers",
    "SMEMBERS none",
    "SISMEMBER set m",
    "SISMEMBER set n",
    "SMISMEMBER set m n",
    "SMISMEMBER none m n",
    "SCARD numbers",
    "LRANGE l 0 -1",
    "LRANGE l 1 2",
    "LRANGE none 0 -1",
    "LLEN l",
    "LINDEX l 0",
    "LINDEX l 100",
    "LPOS l a",
    "LPOS l z",
    "LPOS l a COUNT 0",
    "LPOS l z COUNT 0",
    "ZSCORE z one",
    "ZSCORE z two",
    "ZSCORE z more",
    "ZSCORE z much",
    "ZSCORE z none",
    "ZMSCORE z one none less",
    "ZMSCORE none a",
    "ZCARD z",
    "ZCOUNT z -inf 2",
    "ZLEXCOUNT lex [a [b",
    "ZRANGE z 0 -1",
    "ZRANGE z 0 -1 WITHSCORES",
    "ZRANGE z 0 0 withscores",
    "ZRANGE none 0 -1 WITHSCORES",
    "ZRANGE z 0 +inf BYSCORE LIMIT 0 1 WITHSCORES",
    "ZRANGE lex [a (c BYLEX",
    "ZREVRANGE z 0 -1 WITHSCORES",
    "ZRANGEBYSCORE z 1 3 WITHSCORES",
    "ZRANGEBYSCORE z 1 3",
    "ZREVRANGEBYSCORE z +inf 1 WITHSCORES",
    "ZRANGEBYLEX lex - +",
    "ZREVRANGEBYLEX lex + -",
    "ZRANK z one",
    "ZRANK z none",
    "ZRANK none a",
    "ZREVRANK z one",
    "GEODIST geo Palermo Catania",
    "GEODIST geo Palermo none",
    "GEOPOS geo Palermo none",
    "GEOPOS none a",
    "GEOHASH geo Palermo none",
    "XLEN x",
    "XRANGE x - +",
    "XREVRANGE x + - COUNT 1",
    "XRANGE none - +",
    "XRANGE x - + COUNT 0",
    "XREVRANGE x + - COUNT -1",
    "XRANGE none - + COUNT 0",
];

/// With an option that Redis 7.2 brought.
const NEWER_READS: &[&str] =
    &["ZRANK z one WITHSCORE", "ZRANK z none WITHSCORE", "ZREVRANK z two WITHSCORE", "ZRANK none a WITHSCORE"];

/// Whose elements come in an order that the server chooses when the key is made.
const IN_ANY_ORDER: &[&str] = &["HGETALL h", "HKEYS h", "HVALS h"];

fn fill(client: &mut Client) {
    for command in VALUES {
        // As a line, in which quotes count.
        assert!(!client.exchange(format!("{command}\r\n").as_bytes(), 1)[0].is_error(), "{command}");
    }
}

/// Before a server whose fields may expire the reply needs another question; and what nobody can ask about is not kept.
fn fields_expire(redis: &RedisServer) -> bool {
    redis.commands().contains("hpttl")
}

/// Reads twice: the reply of the second, and whether it came from the near-cache.
fn read_twice(client: &mut Client, nearside: &Nearside, read: &str) -> (Reply, bool) {
    let first = client.call(read);
    let before = nearside.hits();
    let second = client.call(read);
    assert_eq!(first, second, "{read}");
    (second, nearside.hits() > before)
}

fn compare(redis: &RedisServer, nearside: &Nearside, hello: &str) {
    let newer = if redis.client().call("ZRANK z one WITHSCORE").is_error() { &[][..] } else { NEWER_READS };
    let (mut direct, mut client) = (redis.client(), nearside.client());
    for client in [&mut direct, &mut client] {
        if hello != "2" {
            assert!(!client.call(&format!("HELLO {hello}")).is_error());
        }
    }
    for read in READS.iter().chain(newer).chain(IN_ANY_ORDER) {
        let (seen, is_hit) = read_twice(&mut client, nearside, read);
        assert_eq!(seen, direct.call(read), "{read} in RESP{hello}");
        // What nobody can tell of a missing key without its type is not kept either.
        let is_kept = !seen.is_error() && !read.starts_with("BITPOS none");
        let is_unknown = ["HLEN", "HVALS"].iter().any(|name| read.starts_with(name));
        let is_kept = is_kept && !(is_unknown && fields_expire(redis));
        assert!(calibrating("cache") || is_hit == is_kept, "{read} in RESP{hello}: from the near-cache: {is_hit}");
    }
}

fn warm(client: &mut Client, nearside: &Nearside) {
    nearside.warm(client, "warm");
}

#[test]
fn every_read_is_answered_from_the_near_cache_with_the_bytes_of_redis() {
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--workers", "2", "--max-staleness", "30s"]);
    fill(&mut redis.client());
    if !calibrating("cache") {
        warm(&mut nearside.client(), &nearside);
    }
    // What one version has had fetched serves the other.
    compare(&redis, &nearside, "2");
    compare(&redis, &nearside, "3");
    compare(&redis, &nearside, "2");
}

#[test]
fn what_a_client_writes_is_in_what_it_reads_next() {
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--workers", "2"]);
    let mut client = nearside.client();
    let steps: &[(&str, &str, &str)] = &[
        ("HGET h f", "HSET h f 1", "$1\r\n1\r\n"),
        ("HGETALL h", "HSET h g 2", "*4\r\n$1\r\nf\r\n$1\r\n1\r\n$1\r\ng\r\n$1\r\n2\r\n"),
        ("LRANGE l 0 -1", "RPUSH l a", "*1\r\n$1\r\na\r\n"),
        ("STRLEN s", "SET s abc", ":3\r\n"),
        ("EXISTS s", "DEL s", ":0\r\n"),
        ("ZSCORE z m", "ZADD z 7 m", "$1\r\n7\r\n"),
        ("SMEMBERS set", "SADD set m", "*1\r\n$1\r\nm\r\n"),
        ("TYPE t", "XADD t * f v", "+stream\r\n"),
        ("GETRANGE r 0 -1", "APPEND r xyz", "$3\r\nxyz\r\n"),
    ];
    for (read, write, expected) in steps {
        (0..3).for_each(|_| drop(client.call(read)));
        assert!(!client.call(write).is_error());
        assert_eq!(client.call(read), *expected, "{read} after {write}");
        // Pipelined, the read follows the write down the same lane.
        let pipelined = client.pipeline(&[*read, "PING", *read]);
        assert_eq!(pipelined[0], *expected);
        assert_eq!(pipelined[2], *expected);
    }
}

#[test]
fn what_others_write_is_seen_soon() {
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--workers", "2", "--max-staleness", "30s"]);
    let (mut client, mut direct) = (nearside.client(), redis.client());
    for (read, write) in
        [("HGET h f", "HSET h f 1"), ("LLEN l", "RPUSH l a"), ("STRLEN s", "SET s x"), ("ZCARD z", "ZADD z 1 m")]
    {
        (0..3).for_each(|_| drop(client.call(read)));
        assert!(!direct.call(write).is_error());
        let expected = direct.call(read);
        eventually(&format!("{read} shows {write}"), SOON, || (client.call(read) == expected).then_some(()));
    }
}

#[test]
fn strlen_exists_and_getrange_need_no_fetch_where_a_get_was_cached() {
    if calibrating("cache") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--max-staleness", "30s"]);
    let mut client = nearside.client();
    warm(&mut client, &nearside);
    redis.client().call("SET s hello");
    for key in ["s", "none"] {
        read_twice(&mut client, &nearside, &format!("GET {key}"));
        let calls = |name| redis.calls(name);
        let before = [calls("strlen"), calls("exists"), calls("getrange")];
        let told = ["STRLEN", "EXISTS"].map(|name| client.call(&format!("{name} {key}")));
        assert_eq!(told, if key == "s" { [":5\r\n", ":1\r\n"] } else { [":0\r\n", ":0\r\n"] });
        assert_eq!(client.call(&format!("GETRANGE {key} 1 2")), if key == "s" { "$2\r\nel\r\n" } else { "$0\r\n\r\n" });
        assert_eq!(before, [calls("strlen"), calls("exists"), calls("getrange")]);
    }
}

/// A server that notices no field's end before it is asked for the field, and the program before it, which caches. None where
/// fields do not expire: Redis 8.0 of the matrix has such.
fn with_expiring_fields() -> Option<(RedisServer, Nearside)> {
    let redis = RedisServer::start();
    if !fields_expire(&redis) {
        return None;
    }
    let nearside = Nearside::with(&redis, &["--max-staleness", "30s"]);
    assert_eq!(redis.client().call("DEBUG SET-ACTIVE-EXPIRE 0"), "+OK\r\n");
    warm(&mut nearside.client(), &nearside);
    Some((redis, nearside))
}

#[test]
fn a_field_that_expires_is_gone_from_every_read() {
    let Some((redis, nearside)) = with_expiring_fields() else { return };
    let (mut direct, mut client) = (redis.client(), nearside.client());
    assert_eq!(direct.call("CONFIG SET hz 1"), "+OK\r\n");
    direct.call("HSET h short 1 long 2");
    direct.call("HPEXPIRE h 3000 FIELDS 1 short");
    let began = Instant::now();
    let reads = ["HGET h short", "HMGET h short long", "HEXISTS h short", "HSTRLEN h short", "HGETALL h", "HKEYS h"];
    for read in reads {
        assert!(read_twice(&mut client, &nearside, read).1, "{read} is cached until then");
    }
    std::thread::sleep(Duration::from_millis(3020).saturating_sub(began.elapsed()));
    for read in reads {
        assert_eq!(client.call(read), direct.call(read), "{read}");
    }
    assert!(read_twice(&mut client, &nearside, "HGET h long").1);
}

#[test]
fn an_empty_field_that_expires_is_gone_from_every_read() {
    let Some((redis, nearside)) = with_expiring_fields() else { return };
    let (mut direct, mut client) = (redis.client(), nearside.client());
    direct.command(&["HSET", "h", "", ""]);
    direct.command(&["HPEXPIRE", "h", "300", "FIELDS", "1", ""]);
    let reads: [&[&str]; 5] = [&["HVALS", "h"], &["HKEYS", "h"], &["HGETALL", "h"], &["HGET", "h", ""], &["HLEN", "h"]];
    for read in reads {
        client.command(read);
    }
    std::thread::sleep(Duration::from_millis(320));
    for read in reads {
        assert_eq!(client.command(read), direct.command(read), "{read:?}");
    }
}

#[test]
fn a_field_read_in_its_last_millisecond_is_gone_after_it() {
    let Some((redis, nearside)) = with_expiring_fields() else { return };
    let (mut direct, mut client) = (redis.client(), nearside.client());
    for (number, read) in
        ["HGETALL h", "HMGET h long short", "HGET h short", "HKEYS h"].iter().cycle().take(60).enumerate()
    {
        let read = read.replace(" h", &format!(" h{number}"));
        direct.call(&format!("HSET h{number} short 1 long 2"));
        direct.call(&format!("HPEXPIRE h{number} 4 FIELDS 1 short"));
        // Read again and again, before the end and after it.
        eventually("the field is gone", SOON, || {
            let gone = direct.call(&format!("HEXISTS h{number} short")) == ":0\r\n";
            client.call(&read);
            gone.then_some(())
        });
        assert_eq!(client.call(&read), direct.call(&read), "{read}");
    }
}

#[test]
fn rules_decide_what_is_cached() {
    if calibrating("cache") {
        return;
    }
    let redis = RedisServer::start();
    let rules = "[[cache.rule]]\nmatch = \"private:*\"\ncache = false\n\
        [[cache.rule]]\nmatch = \"hash:*\"\ncommands = [\"hget\"]\n\
        [[cache.rule]]\nmatch = \"small:*\"\nmax-item-size = \"100B\"\n\
        [[cache.rule]]\nmatch = \"short:*\"\nmax-age = \"1s\"\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nearside.toml");
    std::fs::write(&file, rules).unwrap();
    let nearside = Nearside::with(&redis, &["--max-staleness", "30s", "--config", file.to_str().unwrap()]);
    let (mut client, mut direct) = (nearside.client(), redis.client());
    warm(&mut client, &nearside);
    direct.call(&format!("MSET private:1 v small:1 {} small:2 v short:1 v", "x".repeat(200)));
    direct.call("HSET hash:1 f v");
    let mut is_cached = |read: &str| read_twice(&mut client, &nearside, read).1;
    assert!(!is_cached("GET private:1") && !is_cached("STRLEN private:1") && !is_cached("MGET private:1"));
    assert!(is_cached("HGET hash:1 f") && !is_cached("HGETALL hash:1"));
    assert!(!is_cached("GET small:1") && is_cached("GET small:2"));
    assert!(is_cached("GET short:1"));
    std::thread::sleep(Duration::from_millis(1020));
    let before = redis.calls("get");
    client.call("GET short:1");
    assert_eq!(redis.calls("get"), before + 1);
}

#[test]
fn before_a_cluster_reads_are_cached_by_the_node_of_their_key() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(3);
    let nearside = Nearside::ready_before_cluster(&cluster, &["--workers", "2", "--max-staleness", "30s"]);
    let mut client = nearside.client();
    for number in 0..20 {
        assert_eq!(client.call(&format!("HSET h{number} f {number}")), ":1\r\n");
        eventually("the read is cached", SOON, || {
            read_twice(&mut client, &nearside, &format!("HGETALL h{number}")).1.then_some(())
        });
    }
}
