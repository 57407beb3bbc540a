//! What is not cached travels as the bytes it came in, both ways.
#![allow(clippy::unwrap_used)]

use nearside_tests::{Client, Nearside, RedisServer};

fn pair() -> (RedisServer, Nearside, Client) {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let client = nearside.client();
    (redis, nearside, client)
}

/// Every byte there is, in an order that puts CR before LF somewhere.
fn every_byte() -> Vec<u8> {
    let mut bytes = (0..=255).collect::<Vec<u8>>();
    bytes.extend_from_slice(b"\r\n$-1\r\n*2\r\n");
    bytes
}

#[test]
fn a_list_that_looks_like_a_published_message_is_a_list() {
    let (_redis, _nearside, mut client) = pair();
    assert_eq!(client.call("RPUSH l message a b"), ":3\r\n");
    for _ in 0..2 {
        assert_eq!(client.call("LRANGE l 0 -1"), "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n");
    }
    assert!(client.call("HELLO 3").starts_with(b"%"));
    assert_eq!(client.call("LRANGE l 0 -1"), "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n");
    assert_eq!(client.call("PING"), "+PONG\r\n");
}

#[test]
fn a_value_that_looks_like_a_redirection_is_a_value() {
    let (_redis, _nearside, mut client) = pair();
    let value = "MOVED 5 127.0.0.1:1";
    assert_eq!(client.command(&["SET", "k", value]), "+OK\r\n");
    for _ in 0..3 {
        assert_eq!(client.call("GET k"), "$19\r\nMOVED 5 127.0.0.1:1\r\n");
        assert_eq!(client.call("GETEX k"), "$19\r\nMOVED 5 127.0.0.1:1\r\n");
    }
}

#[test]
fn an_error_that_is_not_utf_8_comes_as_its_bytes() {
    let (_redis, _nearside, mut client) = pair();
    let eval = [b"EVAL".as_ref(), b"return redis.error_reply(ARGV[1])", b"0", b"WEIRD \xff\xfe\x80 text"];
    assert_eq!(client.command(&eval), b"-WEIRD \xff\xfe\x80 text\r\n");
    assert_eq!(client.call("PING"), "+PONG\r\n");
}

#[test]
fn keys_and_values_may_hold_every_byte() {
    let (redis, _nearside, mut client) = pair();
    let bytes = every_byte();
    let bulk = [format!("${}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat();
    assert_eq!(client.command(&[b"SET".as_ref(), &bytes, &bytes]), "+OK\r\n");
    for _ in 0..3 {
        assert_eq!(client.command(&[b"GET".as_ref(), &bytes]), bulk.as_slice());
    }
    assert_eq!(client.command(&[b"ECHO".as_ref(), &bytes]), bulk.as_slice());
    assert_eq!(client.command(&[b"APPEND".as_ref(), &bytes, b"!"]).integer(), Some(bytes.len() as i64 + 1));
    let longer = [&bytes[..], b"!"].concat();
    assert_eq!(client.command(&[b"GET".as_ref(), &bytes]).bulk(), Some(longer.as_slice()));
    assert_eq!(redis.client().command(&[b"GET".as_ref(), &bytes]).bulk(), Some(longer.as_slice()));
    for byte in 0..=255_u8 {
        assert_eq!(client.command(&[b"SET".as_ref(), &[byte], &[byte]]), "+OK\r\n");
        assert_eq!(client.command(&[b"GET".as_ref(), &[byte]]).bulk(), Some([byte].as_slice()));
    }
}

#[test]
fn each_protocol_version_gets_redis_own_null_double_map_and_set() {
    let (_redis, nearside, mut resp2) = pair();
    let mut resp3 = nearside.client();
    assert!(resp3.call("HELLO 3").starts_with(b"%"));
    resp2.call("HSET h f v");
    resp2.call("ZADD z 1.5 m");
    resp2.call("SADD s m");
    for (command, in_resp2, in_resp3) in [
        ("GET nosuch", "$-1\r\n", "_\r\n"),
        ("HGETALL h", "*2\r\n$1\r\nf\r\n$1\r\nv\r\n", "%1\r\n$1\r\nf\r\n$1\r\nv\r\n"),
        ("ZSCORE z m", "$3\r\n1.5\r\n", ",1.5\r\n"),
        ("SMEMBERS s", "*1\r\n$1\r\nm\r\n", "~1\r\n$1\r\nm\r\n"),
        ("LPOP nosuch 1", "*-1\r\n", "_\r\n"),
        ("ZADD z XX INCR 1 nosuch", "$-1\r\n", "_\r\n"),
        ("LOLWUT VERSION 9", "$25\r\nRedis ver. ", "=29\r\ntxt:Redis ver. "),
    ] {
        let (reply2, reply3) = (resp2.call(command), resp3.call(command));
        if command.starts_with("LOLWUT") {
            // The length is that of the server's version.
            assert_eq!((reply2[0], reply3[0]), (in_resp2.as_bytes()[0], in_resp3.as_bytes()[0]));
            continue;
        }
        assert_eq!(reply2, in_resp2, "{command}");
        assert_eq!(reply3, in_resp3, "{command}");
    }
}

#[test]
fn replies_come_in_the_order_of_requests_whoever_answers_them() {
    let (_redis, _nearside, mut client) = pair();
    client.call("SET cached 1");
    client.call("GET cached");
    for _ in 0..50 {
        let replies = client.pipeline(&[
            "PING one",
            "GET cached",
            "INCR n",
            "ECHO two",
            "GET nosuch",
            "GETEX cached",
            "PING",
            "NOSUCH",
        ]);
        let number = replies[2].integer().unwrap();
        assert_eq!(replies[0], "$3\r\none\r\n");
        assert_eq!(replies[1], "$1\r\n1\r\n");
        assert!(number > 0);
        assert_eq!(replies[3], "$3\r\ntwo\r\n");
        assert_eq!(replies[4], "$-1\r\n");
        assert_eq!(replies[5], "$1\r\n1\r\n");
        assert_eq!(replies[6], "+PONG\r\n");
        assert_eq!(replies[7], "-ERR unknown command 'NOSUCH', with args beginning with: \r\n");
    }
}

#[test]
fn a_command_that_the_upstream_has_under_another_name_is_treated_as_what_it_is() {
    let redis = RedisServer::with(&[
        "--rename-command",
        "MONITOR",
        "watch-all",
        "--rename-command",
        "BLPOP",
        "take",
        "--rename-command",
        "SHUTDOWN",
        "end",
    ]);
    let nearside = Nearside::with(&redis, &["--workers", "1"]);
    let [mut one, mut other] = [nearside.client(), nearside.client()];
    assert_eq!(other.call("SET k v"), "+OK\r\n");
    // On a connection of many, its stream would be taken for their replies.
    assert_eq!(one.call("watch-all"), "-ERR unknown command 'MONITOR', with args beginning with: \r\n");
    // On a connection of many, all would wait.
    let mut waiting = nearside.client();
    let waiting = std::thread::spawn(move || waiting.call("take empty 0"));
    for _ in 0..20 {
        assert_eq!(other.call("GETRANGE k 0 -1"), "$1\r\nv\r\n");
        assert_eq!(other.call("STRLEN k"), ":1\r\n");
    }
    assert_eq!(other.call("RPUSH empty x"), ":1\r\n");
    assert_eq!(waiting.join().unwrap(), "*2\r\n$5\r\nempty\r\n$1\r\nx\r\n");
    assert!(other.call("end NOSAVE").starts_with(b"-ERR SHUTDOWN is refused by the proxy"));
}

#[test]
fn an_unknown_command_has_a_connection_for_itself_where_nobody_can_say_what_it_is() {
    let redis = RedisServer::with(&["--rename-command", "COMMAND", "", "--rename-command", "MULTI", "begin"]);
    let nearside = Nearside::with(&redis, &["--workers", "1"]);
    let [mut one, mut other] = [nearside.client(), nearside.client()];
    assert_eq!(one.call("begin"), "+OK\r\n");
    assert_eq!(other.call("INCR n"), ":1\r\n", "it is in nobody's transaction");
    assert_eq!(one.call("INCR n"), ":2\r\n");
    let replies = one.pipeline(&["SET k v", "nosuch", "GETRANGE k 0 -1"]);
    assert_eq!(replies[1], "-ERR unknown command 'nosuch', with args beginning with: \r\n");
    assert_eq!(replies[0], "+OK\r\n");
    assert_eq!(replies[2], "$1\r\nv\r\n");
}

#[test]
fn commands_in_a_db_stay_in_that_db() {
    let (redis, nearside, mut client) = pair();
    let replies = client.pipeline(&[
        "SET k zero",
        "SELECT 1",
        "SET k one",
        "GET k",
        "SELECT 0",
        "GET k",
        "FLUSHALL",
        "SELECT 1",
        "SET k after",
    ]);
    assert_eq!(replies[3], "$3\r\none\r\n");
    assert_eq!(replies[5], "$4\r\nzero\r\n");
    // 20 times, as an order kept by luck is one that is lost some day.
    for round in 0..20 {
        let value = format!("round{round}");
        client.pipeline(&["SELECT 0", "SET other x", "SET other y", "FLUSHALL", "SELECT 1", &format!("SET k {value}")]);
        let mut direct = redis.client();
        direct.call("SELECT 1");
        assert_eq!(direct.call("GET k").bulk(), Some(value.as_bytes()));
    }
    assert_eq!(nearside.client().call("GET k"), "$-1\r\n");
}

#[test]
fn a_key_dumped_through_the_proxy_is_restored_through_it() {
    let (_redis, _nearside, mut client) = pair();
    client.call("ZADD z 1 a 2 b");
    let dumped = client.call("DUMP z");
    assert_eq!(client.command(&[b"RESTORE".as_ref(), b"copy", b"0", dumped.bulk().unwrap()]), "+OK\r\n");
    assert_eq!(client.call("ZRANGE copy 0 -1"), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
}

#[test]
fn scripts_and_functions_run_and_their_errors_come_through() {
    let (_redis, _nearside, mut client) = pair();
    let library = "#!lua name=lib\nredis.register_function('put', function(keys, args) return redis.call('SET', keys[1], args[1]) end)";
    assert_eq!(client.command(&["FUNCTION", "LOAD", library]), "$3\r\nlib\r\n");
    assert_eq!(client.call("GET k"), "$-1\r\n");
    assert_eq!(client.call("FCALL put 1 k v"), "+OK\r\n");
    assert_eq!(client.call("GET k"), "$1\r\nv\r\n");
    let sha = client.command(&["SCRIPT", "LOAD", "return redis.call('INCR', KEYS[1])"]);
    let sha = String::from_utf8(sha.bulk().unwrap().to_vec()).unwrap();
    assert_eq!(client.call(&format!("EVALSHA {sha} 1 n")), ":1\r\n");
    assert!(client.call(&format!("EVALSHA {sha} 1 k")).starts_with(b"-ERR value is not an integer"));
    assert!(client.call("EVALSHA 0000000000000000000000000000000000000000 0").starts_with(b"-NOSCRIPT "));
}

#[test]
fn cursors_of_a_keys_own_scan_come_through() {
    let (_redis, _nearside, mut client) = pair();
    client.call("SADD ints 1 2 3");
    assert_eq!(client.call("SSCAN ints 0"), "*2\r\n$1\r\n0\r\n*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n");
    client.call("HSET h f v");
    assert_eq!(client.call("HSCAN h 0"), "*2\r\n$1\r\n0\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
}

#[test]
fn commands_that_need_a_connection_of_their_own_are_refused_by_name_and_nothing_hangs() {
    if nearside_tests::calibrating("commands it refuses") {
        return;
    }
    let (_redis, _nearside, mut client) = pair();
    for command in ["SYNC", "PSYNC ? -1", "SHUTDOWN", "REPLICAOF NO ONE", "DEBUG SLEEP 0", "FAILOVER", "MODULE LOAD x"]
    {
        let replies = client.pipeline(&[command, "ECHO next"]);
        let name = command.split(' ').next().unwrap();
        assert!(replies[0].is_error() && replies[0].text().contains(name), "{command}: {:?}", replies[0]);
        assert_eq!(replies[1], "$4\r\nnext\r\n", "after {command}");
    }
    assert_eq!(client.call("XREAD COUNT 1 STREAMS s 0"), "*-1\r\n");
}

#[test]
fn a_refused_command_reaches_the_upstream_once_a_setting_allows_it() {
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--allow-commands", "debug"]);
    assert_eq!(nearside.client().call("DEBUG SLEEP 0"), "+OK\r\n");
}

#[test]
fn many_clients_share_few_upstream_connections() {
    if nearside_tests::calibrating("sharing") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--workers", "2"]);
    let mut clients = (0..100).map(|_| nearside.client()).collect::<Vec<_>>();
    for (number, client) in clients.iter_mut().enumerate() {
        client.call(&format!("SET k{number} v"));
        client.call(&format!("GET k{number}"));
    }
    let list = redis.client().call("CLIENT LIST");
    let connections = list.text().matches("\\n").count();
    assert!(connections <= 12, "{connections} connections to the upstream: {list:?}");
}
