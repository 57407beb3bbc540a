//! Bad input: Redis's own words, then a closed connection; nobody else notices.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::time::Duration;

use nearside_tests::{Client, Nearside, RedisServer, Reply};

const CLOSES_WITHIN: Duration = Duration::from_secs(10);

struct Both {
    redis: RedisServer,
    nearside: Nearside,
    /// Connected all the time, and served all the time.
    bystander: Client,
}

impl Both {
    fn new() -> Self {
        let redis = RedisServer::start();
        let nearside = Nearside::before(&redis);
        let bystander = nearside.client();
        Self { redis, nearside, bystander }
    }

    /// Sends `input` to Redis and to Nearside: the same must come back, up to the close.
    #[track_caller]
    fn closes_alike(&mut self, input: &[u8]) -> Reply {
        let answer = |mut client: Client| {
            client.set_patience(CLOSES_WITHIN);
            client.send(input);
            Reply(client.rest_until_closed())
        };
        let (expected, got) = (answer(self.redis.client()), answer(self.nearside.client()));
        assert_eq!(got, expected, "to {:?}", Reply(input.to_vec()));
        self.bystander_is_served();
        got
    }

    /// Sends `input` to both: the same must come back, and the connection go on.
    #[track_caller]
    fn goes_on_alike(&mut self, input: &[u8]) -> Reply {
        let answer = |mut client: Client| {
            client.set_patience(CLOSES_WITHIN);
            client.send(input);
            client.send(b"\r\nQUIT\r\n");
            Reply(client.rest_until_closed())
        };
        let (expected, got) = (answer(self.redis.client()), answer(self.nearside.client()));
        assert_eq!(got, expected, "to {:?}", Reply(input.to_vec()));
        assert!(got.ends_with(b"+OK\r\n"), "{got:?}");
        got
    }

    #[track_caller]
    fn bystander_is_served(&mut self) {
        assert_eq!(self.bystander.call("SET k v"), "+OK\r\n");
        assert_eq!(self.bystander.call("GET k"), "$1\r\nv\r\n");
    }
}

#[test]
fn malformed_lengths_are_answered_in_redis_own_words() {
    let mut both = Both::new();
    for input in [
        "*x\r\n",
        "*1x\r\n",
        "*+1\r\n",
        "*01\r\n",
        "* 1\r\n",
        "*1.0\r\n",
        "*2147483648\r\n",
        "*99999999999999999999\r\n",
        "*1\r\n$x\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$-5\r\n",
        "*1\r\n$+4\r\n",
        "*1\r\n$04\r\nPING\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\n$99999999999999999999\r\n",
        "*1\r\n$\r\n",
        "*1\r\nPING\r\n",
        "*1\r\n:4\r\n",
        "*1\r\n*1\r\n",
        "*2\r\n$4\r\nECHO\r\n+x\r\n",
        "*1\r\n\r\n",
        "*1\r\n\u{7f}\r\n",
        "*1\r\n\u{e9}x\r\n",
    ] {
        let reply = both.closes_alike(input.as_bytes());
        assert!(reply.starts_with(b"-ERR Protocol error: "), "{input:?}: {reply:?}");
    }
    // Not 0: Redis looks for the line's end with strchr, which stops there, and waits.
    for byte in 1..=255_u8 {
        if byte != b'$' && byte != b'\n' {
            both.closes_alike(&[b"*1\r\n".as_ref(), &[byte], b"4\r\nPING\r\n"].concat());
        }
    }
}

#[test]
fn what_came_before_the_error_is_answered_first_and_what_came_after_is_not() {
    let mut both = Both::new();
    let input = b"*3\r\n$3\r\nSET\r\n$6\r\nbefore\r\n$1\r\n1\r\n*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nGET\r\n$1\r\nn\r\n:\r\n*3\r\n$3\r\nSET\r\n$5\r\nafter\r\n$1\r\n1\r\n";
    let reply = both.closes_alike(input);
    assert_eq!(reply, "+OK\r\n+PONG\r\n-ERR Protocol error: expected '$', got ':'\r\n");
    assert_eq!(both.redis.client().call("MGET before after"), "*2\r\n$1\r\n1\r\n$-1\r\n");
}

#[test]
fn inline_commands_are_split_as_redis_splits_them() {
    let mut both = Both::new();
    for input in [
        "PING",
        "  PING  ",
        "\tPING\tx",
        "ECHO \"a b\"",
        "ECHO 'a b'",
        "ECHO \"\\x41\\n\\t\\\"\"",
        "ECHO 'it\\'s'",
        "ECHO \"\"",
        "ECHO ''",
        "",
        "   ",
        "\r\n\r\n",
        "SET inline v",
        "GET inline",
        "NOSUCH",
        "ECHO \\x41",
        "echo \u{e9}",
        "ECHO \"\\xzz\"",
        "-ERR x",
        "$4",
        ":1",
        "+OK",
    ] {
        both.goes_on_alike(format!("{input}\r\n").as_bytes());
        both.goes_on_alike(format!("{input}\n").as_bytes());
    }
    for input in ["ECHO \"a", "ECHO 'a", "ECHO \"a\"b", "ECHO a\"b", "ECHO 'a'b", "ECHO \"a\\", "\"", "SET k \"v"] {
        let reply = both.closes_alike(format!("{input}\r\n").as_bytes());
        assert_eq!(reply, "-ERR Protocol error: unbalanced quotes in request\r\n", "{input}");
    }
}

#[test]
fn empty_requests_are_passed_over() {
    let mut both = Both::new();
    let reply = both.goes_on_alike(b"*0\r\n*-1\r\n*-100\r\n\r\n\n*1\r\n$4\r\nPING\r\n*0\r\n");
    assert_eq!(reply, "+PONG\r\n+OK\r\n");
}

#[test]
fn the_two_bytes_after_an_argument_are_whatever_they_are() {
    let mut both = Both::new();
    assert_eq!(
        both.goes_on_alike(b"*1\r\n$4\r\nPINGxx*2\r\n$4\r\nECHO\x00\xff$2\r\nhi\n\n"),
        "+PONG\r\n$2\r\nhi\r\n+OK\r\n"
    );
}

#[test]
fn an_endless_line_is_refused_at_64_kib() {
    let mut both = Both::new();
    for start in ["", "*", "*1\r\n$", "PING "] {
        let line = [start.as_bytes(), &b"1".repeat(70_000)].concat();
        let mut client = both.nearside.client();
        // The answer may come, and the connection end, before all of it is sent.
        let _ = client.try_send(&line);
        let rest = client.rest_until_closed();
        let words = ["too big inline request", "too big mbulk count string", "too big bulk count string"];
        let is_refusal = words.iter().any(|words| rest == format!("-ERR Protocol error: {words}\r\n").as_bytes());
        assert!(is_refusal || rest.is_empty(), "{start:?}: {}", rest.escape_ascii());
        both.bystander_is_served();
    }
}

#[test]
fn an_endless_line_sent_slowly_is_refused_in_redis_own_words() {
    let mut both = Both::new();
    for start in ["x", "*", "*1\r\n$"] {
        let slowly = |mut client: Client| {
            client.send(start.as_bytes());
            // No byte is left unread when the server closes, so its words are not lost to a reset.
            for _ in 0..64 {
                client.send(&b"1".repeat(1024));
            }
            client.send(b"11");
            Reply(client.rest_until_closed())
        };
        let (expected, got) = (slowly(both.redis.client()), slowly(both.nearside.client()));
        assert_eq!(got, expected, "{start:?}");
        assert!(got.starts_with(b"-ERR Protocol error: too big "), "{got:?}");
        both.bystander_is_served();
    }
}

#[test]
fn a_million_nested_arrays_cost_one_error() {
    let mut both = Both::new();
    for nested in [b"*1\r\n".repeat(1_000_000), b"*2147483647\r\n*2147483647\r\n".repeat(100_000)] {
        let mut client = both.nearside.client();
        let _ = client.try_send(&nested);
        let rest = client.rest_until_closed();
        assert!(
            rest.is_empty() || rest == b"-ERR Protocol error: expected '$', got '*'\r\n",
            "{}",
            rest.escape_ascii()
        );
        both.bystander_is_served();
    }
}

#[test]
fn a_huge_count_reserves_nothing() {
    let mut both = Both::new();
    let mut clients = (0..50).map(|_| both.nearside.client()).collect::<Vec<_>>();
    for client in &mut clients {
        // 50 times two thousand million arguments, or 50 times 512 MB: announced, never sent.
        client.send(b"*2147483647\r\n$536870912\r\nx");
    }
    both.bystander_is_served();
    if !nearside_tests::calibrating("process of its own") {
        let id = both.nearside.process().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 500 * 1024, "{kib} KiB resident");
    }
}

#[test]
fn half_a_request_then_silence_holds_up_nobody() {
    let mut both = Both::new();
    let request = b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$5\r\nvalue\r\n";
    let mut silent = (1..request.len())
        .map(|length| {
            let mut client = both.nearside.client();
            client.send(&request[..length]);
            client
        })
        .collect::<Vec<_>>();
    for _ in 0..20 {
        both.bystander_is_served();
    }
    for (client, length) in silent.iter_mut().zip(1..) {
        client.send(&request[length..]);
        assert_eq!(client.reply(), "+OK\r\n", "cut after {length} bytes");
    }
}

#[test]
fn a_request_sent_byte_by_byte_is_served() {
    let both = Both::new();
    let mut client = both.nearside.client();
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nhi\r\nGET k\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" {
        client.send(&[*byte]);
    }
    assert_eq!(client.reply(), "+OK\r\n");
    assert_eq!(client.reply(), "$2\r\nhi\r\n");
    assert_eq!(client.reply(), "$2\r\nhi\r\n");
}

#[test]
fn garbage_harms_nobody() {
    let mut both = Both::new();
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..300 {
        let mut garbage = (0..random.usize(1..2000)).map(|_| random.u8(..)).collect::<Vec<_>>();
        if round % 2 == 0 {
            // Looks right for a while.
            let cut = random.usize(..40);
            let request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*2\r\n$4\r\nECHO\r\n$1\r\n";
            garbage.splice(..0, request[..cut].iter().copied());
        }
        let mut client = both.nearside.client();
        client.set_patience(Duration::from_secs(10));
        // It may be cut off while it still sends.
        let _ = client.writer().write_all(&garbage);
        client.finish_sending();
        client.rest_until_closed();
    }
    both.bystander_is_served();
}

#[test]
fn requests_that_announce_http_are_cut_off() {
    let mut both = Both::new();
    for input in ["POST / HTTP/1.1\r\nHost: x\r\n\r\n", "Host: x\r\n"] {
        let answer = |mut client: Client| {
            client.send(input.as_bytes());
            client.rest_until_closed()
        };
        assert_eq!(answer(both.nearside.client()), answer(both.redis.client()), "{input:?}");
        both.bystander_is_served();
    }
}
