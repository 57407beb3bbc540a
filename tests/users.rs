//! Users of the upstream's ACL: whoever logs in as one has that user's rights, and only what that user may read.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use nearside_tests::{Client, Nearside, RedisCluster, RedisServer, calibrating, eventually, holds_for, spread_keys};

const SOON: Duration = Duration::from_secs(10);

/// Passwords that no output of the program may show.
const ALICE_PASSWORD: &str = "alices-own-secret";
const BOB_PASSWORD: &str = "bobs-own-secret";
const ALICE: &str = "AUTH alice alices-own-secret";
const BOB: &str = "AUTH bob bobs-own-secret";
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

/// Users as a team may have them: two that share some keys, and one that may do next to nothing.
fn define_users(client: &mut Client) {
    for line in [
        "ACL SETUSER alice on >alices-own-secret ~a:* ~both:* &* +@all",
        "ACL SETUSER bob on >bobs-own-secret ~b:* ~both:* &* +@all -flushall",
        "ACL SETUSER reader on >reader-secret ~* +get",
    ] {
        assert_eq!(client.call(line), "+OK\r\n", "{line}");
    }
    for line in ["SET a:1 of-alice", "SET b:1 of-bob", "SET both:1 of-both"] {
        client.call(line);
    }
}

fn with_users(args: &[&str]) -> (RedisServer, Nearside) {
    let redis = RedisServer::start();
    define_users(&mut redis.client());
    let nearside = Nearside::with(&redis, args);
    (redis, nearside)
}

/// Says the same on a fresh connection to a Redis and to a Nearside, and expects the same bytes to each line.
#[track_caller]
fn same_as_redis(redis: &RedisServer, nearside: &Nearside, lines: &[&str]) {
    let (mut direct, mut proxied) = (redis.client(), nearside.client());
    for line in lines {
        let expected = direct.call(line);
        assert_eq!(proxied.call(line), expected, "{line}, of {lines:?}");
    }
}

/// The same, in one pipeline.
#[track_caller]
fn pipelined_as_redis(redis: &RedisServer, nearside: &Nearside, lines: &[&str]) {
    let (direct, proxied) = (redis.client().pipeline(lines), nearside.client().pipeline(lines));
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(proxied[at], direct[at], "{line}, of {lines:?}");
    }
}

/// How many connections the server has of this name (CLIENT SETNAME), and as this user.
fn lanes(redis: &RedisServer, name: &str, user: &str) -> usize {
    let list = redis.client().call("CLIENT LIST").text();
    let is_meant = |line: &&str| line.contains(&format!("name={name} ")) && line.contains(&format!("user={user} "));
    list.split("\\n").filter(is_meant).count()
}

const SCRIPTS: &[&[&str]] = &[
    &[ALICE, "ACL WHOAMI", "GET a:1", "GET a:1", "GET b:1", "SET b:1 x", "SET a:1 y", "GET a:1", "GET both:1"],
    &[BOB, "GET b:1", "AUTH default x", "ACL WHOAMI", "GET a:1", "GET b:1"],
    &[BOB, "FLUSHALL", "MGET b:1 both:1", "MGET b:1 a:1", "DEL a:1", "EVAL return(1) 0", "NOSUCH", "CONFIG GET port"],
    &[ALICE, "SELECT 3", "ACL WHOAMI", "SET a:3 v", "GET a:3", "SELECT 0", "GET a:3", "SET b:3 v", "SELECT 99"],
    &["SELECT 5", ALICE, "SET a:5 v", "SELECT 0", "GET a:5", "SELECT 5", "GET a:5"],
    &[ALICE, "RESET", "ACL WHOAMI", "GET b:1", "SELECT 2", BOB, "RESET", "SET after-reset 1", "GET after-reset"],
    &["AUTH reader reader-secret", "GET a:1", "GET a:1", "SET a:1 v", "PTTL a:1", "SELECT 1", "SELECT 0", "GET a:1"],
    &["HELLO 2 NOSUCH AUTH alice alices-own-secret", "ACL WHOAMI", "GET nosuch"],
];

/// Not to be pipelined: newer servers give no reply to an AUTH that fails behind another command of the same read.
const WITH_REFUSED_LOGINS: &[&[&str]] = &[
    &["AUTH alice wrong", "ACL WHOAMI", "GET b:1", "AUTH nobody alices-own-secret", "AUTH alice", "AUTH alice a b"],
    // A login that fails leaves the one before.
    &[ALICE, "AUTH bob wrong", "ACL WHOAMI", "GET b:1", BOB, "ACL WHOAMI", "GET b:1", "GET a:1"],
    &["HELLO 3 AUTH alice wrong", "ACL WHOAMI", "HELLO 2 AUTH bob wrong SETNAME x", "CLIENT GETNAME"],
];

#[test]
fn a_user_is_answered_as_by_redis_itself() {
    let (redis, nearside) = with_users(&[]);
    for script in SCRIPTS {
        same_as_redis(&redis, &nearside, script);
        pipelined_as_redis(&redis, &nearside, script);
    }
    for script in WITH_REFUSED_LOGINS {
        same_as_redis(&redis, &nearside, script);
    }
}

#[test]
fn a_refused_login_in_a_pipeline_has_its_reply() {
    if calibrating("reply to each login") {
        return;
    }
    let (_redis, nearside) = with_users(&[]);
    let mut client = nearside.client();
    let lines = ["PING", "AUTH alice wrong", "PING", ALICE, "GET a:1", "AUTH bob wrong", "ACL WHOAMI", BOB, "GET b:1"];
    let expected =
        ["+PONG\r\n", WRONGPASS, "+PONG\r\n", "+OK\r\n", "$8\r\nof-alice\r\n", WRONGPASS, "$5\r\nalice\r\n", "+OK\r\n"];
    for _ in 0..10 {
        let replies = client.pipeline(&lines);
        for (at, expected) in expected.iter().enumerate() {
            assert_eq!(replies[at], *expected, "{}", lines[at]);
        }
        assert_eq!(replies[8], "$6\r\nof-bob\r\n");
    }
}

#[test]
fn a_user_of_resp3_is_answered_as_by_redis_itself() {
    let (redis, nearside) = with_users(&[]);
    let (mut direct, mut proxied) = (redis.client(), nearside.client());
    for client in [&mut direct, &mut proxied] {
        let hello = client.call("HELLO 3 AUTH alice alices-own-secret SETNAME me");
        assert!(hello.starts_with(b"%"), "{hello:?}");
    }
    for line in [
        "ACL WHOAMI",
        "CLIENT GETNAME",
        "GET a:nosuch",
        "GET a:1",
        "GET b:1",
        "HGETALL a:h",
        BOB,
        "GET b:nosuch",
        "GET a:1",
    ] {
        assert_eq!(proxied.call(line), direct.call(line), "{line}");
    }
    // As Redis since 7.2: a login that fails leaves the name as it was.
    assert_eq!(proxied.call("HELLO 2 SETNAME other AUTH bob wrong"), WRONGPASS);
    assert_eq!(proxied.call("CLIENT GETNAME"), "$2\r\nme\r\n");
    assert!(proxied.call("HELLO 2 AUTH default x").starts_with(b"*"));
    assert_eq!(proxied.call("GET a:nosuch"), "$-1\r\n");
}

#[test]
fn commands_of_one_pipeline_have_the_rights_of_the_login_before_them() {
    let (redis, nearside) = with_users(&[]);
    let lines = [
        "SET b:order 0",
        "GET b:1",
        ALICE,
        "GET b:1",
        "SET b:order 1",
        "SET a:order 1",
        BOB,
        "GET b:order",
        "SET b:order 2",
        "GET a:order",
        "AUTH default any",
        "GET a:order",
        "GET b:order",
        "DEL a:order b:order",
    ];
    for _ in 0..20 {
        pipelined_as_redis(&redis, &nearside, &lines);
    }
}

#[test]
fn a_connection_of_a_session_s_own_has_the_rights_of_its_user() {
    let (redis, nearside) = with_users(&[]);
    redis.client().call("RPUSH a:l x x x x x x x x x x x x x x x x");
    for script in [
        &[ALICE, "MULTI", "SET a:t 1", "SET b:t 1", "EXEC", "GET a:t", "MULTI", "SET a:t 2", "ACL WHOAMI", "EXEC"][..],
        &[BOB, "MULTI", "SET b:t 1", "SET both:t 1", "EXEC", "WATCH a:t", "WATCH b:t", "GET a:t", "MULTI", "EXEC"],
        &[ALICE, "BLPOP a:l 1", "BLPOP b:l 1", "BLPOP a:l 1", BOB, "BLPOP a:l 1", "ACL WHOAMI"],
        &[ALICE, "WATCH a:t", "MULTI", "ACL WHOAMI", "EXEC", BOB, "MULTI", "ACL WHOAMI", "EXEC"],
        &[ALICE, "WATCH a:t", ALICE, "GET a:1", "MULTI", "GET b:1", "GET a:1", "DISCARD", BOB, "GET b:1"],
        &["WATCH a:t", "RESET", ALICE, "MULTI", "ACL WHOAMI", "EXEC"],
    ] {
        same_as_redis(&redis, &nearside, script);
        pipelined_as_redis(&redis, &nearside, script);
    }
    if calibrating("commands it does not support") {
        return;
    }
    // The connection that watches is logged in as alice, and stays so.
    let mut client = nearside.client();
    for line in [ALICE, "WATCH a:t", "GET a:t"] {
        assert!(!client.call(line).is_error(), "{line}");
    }
    assert!(client.call(BOB).starts_with(b"-ERR AUTH as another user is not supported by the proxy while"));
    assert_eq!(client.call("ACL WHOAMI"), "$5\r\nalice\r\n");
    redis.client().call("SET a:t changed");
    let replies = client.pipeline(&["MULTI", "SET a:t mine", "EXEC"]);
    assert_eq!(replies[2], "*-1\r\n", "what was watched is watched still");
    assert_eq!(client.call(BOB), "+OK\r\n");
}

#[test]
fn what_one_user_may_read_is_not_served_to_another_from_the_cache() {
    if calibrating("near-cache") {
        return;
    }
    let (redis, nearside) = with_users(&[]);
    let (mut alice, mut bob, mut other) = (nearside.client(), nearside.client(), nearside.client());
    assert_eq!((alice.call(ALICE), bob.call(BOB)), (alice.call(ALICE), bob.call(BOB)));
    nearside.warm(&mut other, "a:1");
    nearside.warm(&mut alice, "a:1");
    let mut direct = redis.client();
    direct.call(BOB);
    let refused = direct.call("GET a:1");
    assert!(refused.starts_with(b"-NOPERM"), "{refused:?}");
    for _ in 0..10 {
        assert_eq!(bob.call("GET a:1"), refused);
        assert_eq!(alice.call("GET a:1"), "$8\r\nof-alice\r\n");
    }
    // Each of them has what both may read from a cache of its own, and a change reaches both.
    nearside.warm(&mut alice, "both:1");
    nearside.warm(&mut bob, "both:1");
    bob.call("SET both:1 new");
    assert_eq!(alice.call("GET both:1"), "$3\r\nnew\r\n");
    nearside.warm(&mut alice, "both:1");
    redis.client().call("SET both:1 newer");
    for client in [&mut alice, &mut bob] {
        eventually("the change is seen", SOON, || (client.call("GET both:1") == "$5\r\nnewer\r\n").then_some(()));
    }
    // Who logs in as another on the same connection leaves the first one's cache behind.
    alice.call(BOB);
    assert_eq!(alice.call("GET a:1"), refused);
}

#[test]
fn sessions_of_a_user_share_its_cache_and_its_lanes() {
    if calibrating("lanes") {
        return;
    }
    let (redis, nearside) = with_users(&["--workers", "1"]);
    let mut clients: Vec<_> = (0..20).map(|_| nearside.client()).collect();
    for client in &mut clients {
        client.call(ALICE);
        client.call("SET a:1 of-alice");
    }
    nearside.warm(&mut clients[0], "a:1");
    let hits = nearside.hits();
    clients.iter_mut().for_each(|client| assert_eq!(client.call("GET a:1"), "$8\r\nof-alice\r\n"));
    assert_eq!(nearside.hits() - hits, 20.0);
    assert_eq!((lanes(&redis, "nearside-forward", "alice"), lanes(&redis, "nearside-loader", "alice")), (1, 1));
    assert_eq!(nearside.metrics().total("nearside_upstream_users"), 1.0);
}

#[test]
fn who_logs_in_as_the_proxy_itself_shares_its_lanes() {
    if calibrating("lanes") {
        return;
    }
    let redis = RedisServer::start();
    define_users(&mut redis.client());
    let nearside =
        Nearside::with_url(&format!("redis://alice:{ALICE_PASSWORD}@127.0.0.1:{}", redis.port()), &["--workers", "1"]);
    let (mut one, mut other) = (nearside.client(), nearside.client());
    assert_eq!(one.call("SET a:1 v"), "+OK\r\n");
    assert_eq!(other.call(ALICE), "+OK\r\n");
    assert_eq!(other.call("SET a:1 v"), "+OK\r\n");
    assert_eq!(lanes(&redis, "nearside-forward", "alice"), 1);
    assert_eq!(other.call(BOB), "+OK\r\n");
    assert!(other.call("SET a:1 v").starts_with(b"-NOPERM"));
    assert!(one.call("CLIENT LIST").text().contains("user=bob "));
}

#[test]
fn a_user_with_few_rights_reads_without_a_cache() {
    let (redis, nearside) = with_users(&[]);
    let mut reader = nearside.client();
    assert_eq!(reader.call("AUTH reader reader-secret"), "+OK\r\n");
    for value in 0..100 {
        redis.client().call(&format!("SET a:1 {value}"));
        let expected = value.to_string();
        let sees = || (reader.call("GET a:1").bulk() == Some(expected.as_bytes())).then_some(());
        eventually("the value is seen", SOON, sees);
    }
    if !calibrating("loader lanes") {
        // Its loader lane is given up, instead of asking twice for every read.
        let ended = || (lanes(&redis, "nearside-loader", "reader") == 0).then_some(());
        eventually("the lane ends", SOON, ended);
    }
}

#[test]
fn rights_narrowed_through_the_proxy_count_at_once() {
    let (_redis, nearside) = with_users(&[]);
    let (mut alice, mut admin) = (nearside.client(), nearside.client());
    alice.call(ALICE);
    for _ in 0..20 {
        for _ in 0..3 {
            assert_eq!(alice.call("GET both:1"), "$7\r\nof-both\r\n");
        }
        assert_eq!(admin.call("ACL SETUSER alice resetkeys ~a:*"), "+OK\r\n");
        assert!(alice.call("GET both:1").starts_with(b"-NOPERM"));
        assert_eq!(admin.call("ACL SETUSER alice ~both:*"), "+OK\r\n");
    }
}

#[test]
fn rights_narrowed_beside_the_proxy_count_within_max_age() {
    let (redis, nearside) = with_users(&["--max-age", "500ms"]);
    let (mut alice, mut admin) = (nearside.client(), redis.client());
    alice.call(ALICE);
    for _ in 0..3 {
        assert_eq!(alice.call("GET both:1"), "$7\r\nof-both\r\n");
    }
    admin.call("ACL SETUSER alice resetkeys ~a:*");
    assert!(alice.call("SET both:1 x").starts_with(b"-NOPERM"), "what is not cached is refused at once");
    eventually("the read is refused", SOON, || alice.call("GET both:1").starts_with(b"-NOPERM").then_some(()));
    holds_for("it stays refused", Duration::from_millis(300), || alice.call("GET both:1").starts_with(b"-NOPERM"));
}

#[test]
fn a_changed_password_counts_for_the_next_login() {
    let (redis, nearside) = with_users(&[]);
    let mut before = nearside.client();
    assert_eq!(before.call(ALICE), "+OK\r\n");
    assert_eq!(before.call("SET a:1 v"), "+OK\r\n");
    redis.client().call("ACL SETUSER alice resetpass >another-secret");
    assert_eq!(nearside.client().call(ALICE), WRONGPASS);
    let mut after = nearside.client();
    assert_eq!(after.call("AUTH alice another-secret"), "+OK\r\n");
    assert_eq!(after.call("SET a:1 w"), "+OK\r\n");
    // As with Redis: who has logged in stays so.
    assert_eq!(before.call("GET a:1"), "$1\r\nw\r\n");
    assert_eq!(before.call("SET a:1 x"), "+OK\r\n");
}

#[test]
fn sessions_of_a_deleted_user_read_and_write_nothing_more() {
    if calibrating("sessions that outlive their upstream connection") {
        return;
    }
    let (redis, nearside) = with_users(&[]);
    let mut alice = nearside.client();
    alice.call(ALICE);
    assert_eq!(alice.call("SET a:1 v"), "+OK\r\n");
    nearside.warm(&mut alice, "a:1");
    redis.client().call("ACL DELUSER alice");
    // Redis closes the user's connections: what was cached by them is gone, and they cannot be made anew.
    eventually("the read is refused", SOON, || (alice.call("GET a:1") == WRONGPASS).then_some(()));
    for line in ["SET a:1 x", "GET a:1", "GET both:1", "SELECT 1", "PUBLISH a b", "BLPOP a:1 1"] {
        eventually(line, SOON, || (alice.call(line) == WRONGPASS).then_some(()));
    }
    assert_eq!(redis.client().call("GET a:1"), "$1\r\nv\r\n");
    assert_eq!(alice.call(ALICE), WRONGPASS);
    // Who is let in again goes on.
    assert_eq!(alice.call(BOB), "+OK\r\n");
    assert_eq!(alice.call("GET b:1"), "$6\r\nof-bob\r\n");
    let mut waiting = nearside.client();
    assert_eq!(waiting.call(ALICE), WRONGPASS);
    define_users(&mut redis.client());
    assert_eq!(waiting.call(ALICE), "+OK\r\n");
    eventually("a lane of the user is let in again", SOON, || (waiting.call("SET a:1 x") == "+OK\r\n").then_some(()));
}

#[test]
fn an_upstream_that_was_restarted_without_the_user_says_so_itself() {
    if calibrating("sessions that outlive their upstream connection") {
        return;
    }
    let (mut redis, nearside) = with_users(&[]);
    let mut alice = nearside.client();
    alice.call(ALICE);
    alice.call("SET a:1 v");
    redis.restart();
    eventually("the write is refused", SOON, || (alice.call("SET a:1 x") == WRONGPASS).then_some(()));
    eventually("the read is refused", SOON, || (alice.call("GET a:1") == WRONGPASS).then_some(()));
    define_users(&mut redis.client());
    eventually("the user is back", SOON, || (alice.call("SET a:1 x") == "+OK\r\n").then_some(()));
}

#[test]
fn a_login_while_the_upstream_is_away_is_an_error_and_leaves_the_session_as_it_was() {
    if calibrating("upstream") {
        return;
    }
    let (mut redis, nearside) = with_users(&["--connect-timeout", "500ms", "--upstream-timeout", "1s"]);
    let mut client = nearside.client();
    redis.kill();
    let reply = client.call(ALICE);
    assert!(reply.starts_with(b"-UPSTREAM "), "{reply:?}");
    assert!(reply.ends_with(b"; the login was not carried out\r\n"), "{reply:?}");
    redis.start_again();
    define_users(&mut redis.client());
    eventually("a login succeeds", SOON, || (client.call(ALICE) == "+OK\r\n").then_some(()));
    redis.stop();
    let reply = client.call(BOB);
    redis.resume();
    assert!(reply.starts_with(b"-UPSTREAM "), "{reply:?}");
    let whoami = || (client.call("ACL WHOAMI") == "$5\r\nalice\r\n").then_some(());
    eventually("the session is whom it was", SOON, whoami);
}

#[test]
fn thousands_of_logins_cost_few_connections() {
    if calibrating("lanes") {
        return;
    }
    let (redis, nearside) = with_users(&["--workers", "2"]);
    let before = redis.client().call("INFO stats").text();
    let accepted = |stats: &str| -> u64 {
        let (_, rest) = stats.split_once("total_connections_received:").unwrap();
        rest.split("\\r").next().unwrap().parse().unwrap()
    };
    let mut clients: Vec<_> = (0..200).map(|_| nearside.client()).collect();
    for round in 0..10 {
        for client in &mut clients {
            client.send(&nearside_tests::words(if round % 2 == 0 { ALICE } else { "AUTH alice guess" }));
            client.send(&nearside_tests::words("SET a:1 v"));
        }
        for client in &mut clients {
            assert_eq!(client.reply(), if round % 2 == 0 { "+OK\r\n" } else { WRONGPASS });
            assert_eq!(client.reply(), "+OK\r\n");
        }
    }
    let after = redis.client().call("INFO stats").text();
    // A lane on each worker, four for the logins, the proxy's own two, and ours.
    let made = accepted(&after) - accepted(&before);
    assert!(made <= 12, "{made} connections");
    let metrics = nearside.metrics();
    assert_eq!(metrics["nearside_logins_total{verdict=\"let-in\"}"], 1000.0);
    assert_eq!(metrics["nearside_logins_total{verdict=\"refused\"}"], 1000.0);
}

#[test]
fn a_user_that_nobody_uses_is_forgotten() {
    if calibrating("lanes") {
        return;
    }
    let (redis, nearside) = with_users(&[]);
    let mut alice = nearside.client();
    alice.call(ALICE);
    alice.call("SET a:1 v");
    let mut bob = nearside.client();
    bob.call(BOB);
    bob.call("SET b:1 v");
    let users = || nearside.metrics().total("nearside_upstream_users");
    assert_eq!((users(), lanes(&redis, "nearside-forward", "alice")), (2.0, 1));
    drop(alice);
    eventually("its lane ends", 4 * SOON, || (users() == 1.0).then_some(()));
    assert_eq!(lanes(&redis, "nearside-forward", "alice"), 0);
    assert_eq!(lanes(&redis, "nearside-forward", "bob"), 1, "a session has it");
    assert_eq!(bob.call("SET b:1 v"), "+OK\r\n");
}

#[test]
fn more_users_than_lanes_make_room_for_each_other() {
    if calibrating("lanes") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--workers", "1"]);
    let mut admin = redis.client();
    let lanes = 256;
    let log_in = |number: usize| {
        let mut client = nearside.client();
        let line = format!("AUTH u{number} any");
        assert_eq!(client.call(&line), "+OK\r\n", "{line}");
        client
    };
    for number in 0..=lanes {
        assert_eq!(admin.call(&format!("ACL SETUSER u{number} on nopass ~* +@all")), "+OK\r\n");
    }
    let mut clients: Vec<_> = (0..lanes).map(log_in).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.call("SET k v"), "+OK\r\n"));
    let mut one_more = log_in(lanes);
    let reply = one_more.call("SET k v");
    assert!(reply.starts_with(b"-UPSTREAM ") && reply.ends_with(b"; the command was not sent\r\n"), "{reply:?}");
    drop(clients.pop());
    eventually("there is a lane for it", SOON, || (one_more.call("SET k v") == "+OK\r\n").then_some(()));
    assert_eq!(clients[0].call("ACL WHOAMI"), "$2\r\nu0\r\n");
}

#[test]
fn a_client_that_leaves_while_its_login_is_judged_does_no_harm() {
    if calibrating("upstream") {
        return;
    }
    let (redis, nearside) = with_users(&[]);
    redis.stop();
    for _ in 0..50 {
        let mut client = nearside.client();
        client.send(&nearside_tests::words(ALICE));
    }
    redis.resume();
    let mut client = nearside.client();
    assert_eq!(client.call(ALICE), "+OK\r\n");
    assert_eq!(client.call("SET a:1 v"), "+OK\r\n");
    let alone = || (nearside.metrics().total("nearside_connections") == 1.0).then_some(());
    eventually("the others are gone", SOON, alone);
}

#[test]
fn passwords_are_shown_nowhere() {
    if calibrating("output") {
        return;
    }
    let (redis, mut nearside) = with_users(&["--log", "trace"]);
    let (mut alice, mut bob) = (nearside.client(), nearside.client());
    alice.call(ALICE);
    alice.call("AUTH alice bobs-own-secret");
    bob.call("HELLO 3 AUTH bob bobs-own-secret SETNAME bob");
    for client in [&mut alice, &mut bob] {
        client.call("SET both:1 v");
        client.call("GET both:1");
    }
    redis.client().call("ACL DELUSER alice bob");
    eventually("the user is gone", SOON, || (alice.call("SET a:1 x") == WRONGPASS).then_some(()));
    eventually("so is the other", SOON, || bob.call("GET both:1").starts_with(b"-WRONGPASS").then_some(()));
    let mut shown = nearside.process().output();
    shown += &alice.call("CLIENT LIST").text();
    shown += &alice.call("INFO").text();
    shown += &nearside.admin("/metrics").1;
    for password in [ALICE_PASSWORD, BOB_PASSWORD] {
        assert!(!shown.contains(password), "{shown}");
    }
}

#[test]
fn client_list_and_kill_know_users() {
    let (_redis, nearside) = with_users(&[]);
    let (mut alice, mut bob, mut other) = (nearside.client(), nearside.client(), nearside.client());
    alice.call(ALICE);
    bob.call(&BOB.replace("AUTH", "HELLO 3 AUTH"));
    let list = other.call("CLIENT LIST").text();
    for user in ["user=alice ", "user=bob ", "user=default "] {
        assert_eq!(list.matches(user).count(), 1, "{list}");
    }
    assert!(alice.call("CLIENT INFO").text().contains(" user=alice "));
    assert_eq!(other.call("CLIENT KILL USER bob"), ":1\r\n");
    assert_eq!(bob.rest_until_closed(), b"");
    assert_eq!(other.call("CLIENT KILL USER bob"), ":0\r\n");
    assert_eq!(alice.call("RESET"), "+RESET\r\n");
    assert!(alice.call("CLIENT INFO").text().contains(" user=default "));
    assert_eq!(other.call("CLIENT KILL USER default SKIPME yes"), ":1\r\n");
}

#[test]
fn a_password_of_the_proxy_and_users_of_the_upstream_go_together() {
    if calibrating("password of its own") {
        return;
    }
    let (_redis, nearside) = with_users(&["--requirepass", "door"]);
    let mut client = nearside.client();
    assert!(client.call("GET a:1").starts_with(b"-NOAUTH"));
    assert_eq!(client.call("AUTH alice wrong"), WRONGPASS);
    assert!(client.call("GET a:1").starts_with(b"-NOAUTH"));
    assert_eq!(client.call(ALICE), "+OK\r\n");
    assert_eq!(client.call("GET a:1"), "$8\r\nof-alice\r\n");
    assert_eq!(client.call("AUTH wrong"), WRONGPASS);
    assert_eq!(client.call("ACL WHOAMI"), "$5\r\nalice\r\n");
    assert_eq!(client.call("AUTH door"), "+OK\r\n");
    assert_eq!(client.call("ACL WHOAMI"), "$7\r\ndefault\r\n");
    assert_eq!(client.call(ALICE), "+OK\r\n");
    assert_eq!(client.call("RESET"), "+RESET\r\n");
    assert!(client.call("GET a:1").starts_with(b"-NOAUTH"));
}

#[test]
fn users_can_be_switched_off() {
    if calibrating("setting") {
        return;
    }
    let (redis, nearside) = with_users(&["--acl-users", "no"]);
    let mut client = nearside.client();
    assert_eq!(client.call(ALICE), WRONGPASS);
    assert_eq!(client.call("AUTH default x"), "+OK\r\n");
    assert_eq!(redis.calls("auth"), 0);
}

#[test]
fn names_and_passwords_may_be_any_bytes() {
    let (redis, nearside) = with_users(&[]);
    let (name, password) = (&b"us\xffer"[..], &b"p\xfe w\r\n\x01"[..]);
    let with_sign = [b">", password].concat();
    let mut direct = redis.client();
    assert_eq!(direct.command(&[&b"ACL"[..], b"SETUSER", name, b"on", &with_sign, b"~*", b"+@all"]), "+OK\r\n");
    let mut client = nearside.client();
    assert_eq!(client.command(&[&b"AUTH"[..], name, password]), "+OK\r\n");
    assert_eq!(client.call("SET k v"), "+OK\r\n");
    assert_eq!(client.call("ACL WHOAMI").bulk(), Some(name));
    // Longer than Redis takes from whoever has not logged in.
    let long = vec![b'x'; 20_000];
    assert_eq!(client.command(&[&b"AUTH"[..], b"alice", &long[..]]), WRONGPASS);
    assert_eq!(client.call("ACL WHOAMI").bulk(), Some(name));
}

fn cluster_with_users() -> RedisCluster {
    let cluster = RedisCluster::start(2);
    for number in 0..2 {
        let mut client = cluster.node(number).client();
        for line in [
            "ACL SETUSER alice on >alices-own-secret ~*a:* &* +@all",
            "ACL SETUSER bob on >bobs-own-secret ~*b:* &* +@all",
        ] {
            assert_eq!(client.call(line), "+OK\r\n");
        }
    }
    cluster
}

#[test]
fn who_may_get_but_not_mget_hears_so_also_of_keys_that_are_cached() {
    if calibrating("cache") {
        return;
    }
    let (redis, nearside) = with_users(&[]);
    assert_eq!(redis.client().call("ACL SETUSER getter on >getter-secret ~* +get +pttl +client"), "+OK\r\n");
    let mut getter = nearside.client();
    assert_eq!(getter.call("AUTH getter getter-secret"), "+OK\r\n");
    nearside.warm(&mut getter, "a:1");
    for line in ["MGET a:1", "MGET a:1 b:1"] {
        let refused = getter.call(line);
        assert!(refused.starts_with(b"-NOPERM"), "{line}: {refused:?}");
    }
}

#[test]
fn users_have_their_rights_on_all_nodes_of_a_cluster() {
    if calibrating("cluster") {
        return;
    }
    let cluster = cluster_with_users();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let (mut alice, mut bob) = (nearside.client(), nearside.client());
    assert_eq!(alice.call("AUTH alice wrong"), WRONGPASS);
    assert_eq!((alice.call(ALICE), bob.call(BOB)), (bob.call(BOB), alice.call(ALICE)));
    let keys = spread_keys(20, "a:");
    for key in &keys {
        assert_eq!(alice.call(&format!("SET {key} v")), "+OK\r\n");
        assert!(bob.call(&format!("SET {key} w")).starts_with(b"-NOPERM"));
        nearside.warm(&mut alice, key);
        assert!(bob.call(&format!("GET {key}")).starts_with(b"-NOPERM"));
    }
    let pipeline: Vec<String> = keys.iter().map(|key| format!("GET {key}")).collect();
    let pipeline: Vec<&str> = pipeline.iter().map(String::as_str).collect();
    assert!(alice.pipeline(&pipeline).iter().all(|reply| *reply == "$1\r\nv\r\n"));
    assert!(bob.pipeline(&pipeline).iter().all(|reply| reply.starts_with(b"-NOPERM")));
    // What one client changes on all nodes, all others have to heed.
    let mut admin = nearside.client();
    assert_eq!(admin.call("ACL SETUSER alice resetkeys ~none"), "+OK\r\n");
    assert!(alice.pipeline(&pipeline).iter().all(|reply| reply.starts_with(b"-NOPERM")));
    assert_eq!(admin.call("ACL SETUSER alice ~*a:*"), "+OK\r\n");
    assert!(alice.pipeline(&pipeline).iter().all(|reply| *reply == "$1\r\nv\r\n"));
}

#[test]
fn a_node_of_a_cluster_that_does_not_know_the_user_says_so_itself() {
    if calibrating("cluster") {
        return;
    }
    let cluster = cluster_with_users();
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    // Logins are put to the first node; the other one is asked when something is sent there.
    let mut client = nearside.client();
    let keys = spread_keys(20, "a:");
    let of = |node: usize| keys.iter().find(|key| cluster.owner_of(key) == node).unwrap();
    for unknowing in 0..2 {
        cluster.node(unknowing).client().call("ACL DELUSER alice");
        if client.call(ALICE) == "+OK\r\n" {
            let set = |client: &mut Client, key: &str| client.call(&format!("SET {key} v"));
            eventually("refused there", SOON, || (set(&mut client, of(unknowing)) == WRONGPASS).then_some(()));
            assert_eq!(set(&mut client, of(1 - unknowing)), "+OK\r\n");
        }
        let line = "ACL SETUSER alice on >alices-own-secret ~*a:* &* +@all";
        cluster.node(unknowing).client().call(line);
        eventually("let in again", SOON, || (client.call(ALICE) == "+OK\r\n").then_some(()));
        eventually("let in again", SOON, || {
            keys.iter().all(|key| client.call(&format!("SET {key} v")) == "+OK\r\n").then_some(())
        });
    }
}
