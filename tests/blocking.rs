//! Commands that wait at the server: what Redis answers, and nothing popped for nobody.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use nearside_tests::{
    Nearside, RedisCluster, RedisServer, calibrating, eventually, holds_for, key_slot, same_before_a_cluster,
    same_before_one_server, words,
};

const SOON: Duration = Duration::from_secs(10);

const WAITING: &str = "
    a> BLPOP {t}q 0
    blocked 1
    b: RPUSH {t}q one two
    a<
    a: LRANGE {t}q 0 -1
    a: BRPOP {t}q {t}r 0
    a: BLPOP {t}q 0.01
    a> BLMOVE {t}q {t}r LEFT RIGHT 0
    blocked 1
    b: RPUSH {t}q three
    b: LRANGE {t}r 0 -1
    a<
    a> BZPOPMIN {t}z 0
    blocked 1
    b: ZADD {t}z 1 m
    a<
    a> BLMPOP 0 2 {t}q {t}s LEFT COUNT 2
    blocked 1
    b: RPUSH {t}s x y z
    a<
    a> XREAD BLOCK 0 STREAMS {t}x $
    blocked 1
    b: XADD {t}x 5-1 f v
    a<
    a: XREAD STREAMS {t}x 0
    a: XGROUP CREATE {t}x g 0
    a: XREADGROUP GROUP g me BLOCK 0 STREAMS {t}x >
    a> XREADGROUP GROUP g me BLOCK 0 STREAMS {t}x >
    blocked 1
    b: XADD {t}x 6-1 f w
    a<
    a> BRPOPLPUSH {t}q {t}r 0
    blocked 1
    b: LPUSH {t}q last
    a<";

const ERRORS: &str = "
    a: SET {t}s text
    a: BLPOP {t}s 0
    a: BLPOP {t}q -1
    a: BLPOP {t}q nonsense
    a: BLPOP
    a: BLMPOP 0 0 {t}q LEFT
    a: XREAD BLOCK nonsense STREAMS {t}x $
    a: XREADGROUP GROUP nosuch me BLOCK 0 STREAMS {t}x >
    a: GET {t}s";

const IN_ORDER: &str = "
    a| RPUSH {t}q 1 2 3 | BLPOP {t}q 0 | LLEN {t}q | BLPOP {t}q 0 | BLPOP {t}q 0 | LLEN {t}q | BLPOP {t}q 0.01 | PING
    a> BLPOP {t}q 0
    blocked 1
    a> SET {t}k behind
    a> GET {t}k
    b: GET {t}k
    b: LPUSH {t}q x
    a<
    a<
    a<
    a> BLPOP {t}q 0
    a> MULTI
    a> SET {t}k in-multi
    a> EXEC
    blocked 1
    b: GET {t}k
    b: LPUSH {t}q x
    a<
    a<
    a<
    a<
    a| WATCH {t}k | BLPOP {t}q 0.01 | GET {t}k | MULTI | BLPOP {t}q 0 | EXEC";

const SCRIPTS: [&str; 3] = [WAITING, ERRORS, IN_ORDER];

#[test]
fn what_waits_is_answered_as_redis_answers_it() {
    same_before_one_server(&SCRIPTS);
}

#[test]
fn before_a_cluster_what_waits_is_answered_as_redis_answers_it() {
    same_before_a_cluster(&SCRIPTS);
}

/// Clients that wait at this server.
fn waiting(redis: &RedisServer) -> u64 {
    let info = redis.client().call("INFO clients");
    let info = String::from_utf8(info.bulk().unwrap().to_vec()).unwrap();
    info.lines().find_map(|line| line.strip_prefix("blocked_clients:")).unwrap().parse().unwrap()
}

fn wait_for(redis: &RedisServer, count: u64) {
    eventually(&format!("{count} clients wait"), SOON, || (waiting(redis) == count).then_some(()));
}

#[test]
fn a_client_that_hangs_up_waits_no_more() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    // With nothing behind it, with commands, with a part of one, with no protocol at all; and QUIT.
    for behind in ["", "*1\r\n$4\r\nPING\r\n", "*2\r\n$3\r\nGET\r\n$100", "*x\r\n", "*1\r\n$4\r\nQUIT\r\n"] {
        let mut client = nearside.client();
        client.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n");
        wait_for(&redis, 1);
        client.send(behind.as_bytes());
        drop(client);
        wait_for(&redis, 0);
    }
    let mut client = nearside.client();
    assert_eq!(client.call("RPUSH q item"), ":1\r\n");
    assert_eq!(client.call("LLEN q"), ":1\r\n", "nobody popped it");
}

#[test]
fn a_client_that_only_closes_its_side_for_writing_waits_no_more() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    client.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n");
    wait_for(&redis, 1);
    client.finish_sending();
    wait_for(&redis, 0);
    assert_eq!(client.rest_until_closed(), b"");
}

#[test]
fn a_client_that_is_killed_waits_no_more() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    let id = client.call("CLIENT ID").integer().unwrap();
    client.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n");
    wait_for(&redis, 1);
    assert_eq!(nearside.client().call(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    wait_for(&redis, 0);
}

#[test]
fn nothing_of_the_proxys_own_ends_the_waiting() {
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--upstream-timeout", "300ms", "--idle-timeout", "1s"]);
    let mut client = nearside.client();
    client.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n");
    wait_for(&redis, 1);
    holds_for("it waits", Duration::from_millis(2500), || waiting(&redis) == 1);
    redis.client().call("RPUSH q item");
    assert_eq!(client.reply(), "*2\r\n$1\r\nq\r\n$4\r\nitem\r\n");
}

#[test]
fn many_wait_at_once_and_each_item_is_somebodys() {
    const CLIENTS: usize = 50;
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--workers", "2"]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| nearside.client()).collect();
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| client.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n"));
        wait_for(&redis, CLIENTS as u64);
        let mut producer = nearside.client();
        (0..CLIENTS).for_each(|item| _ = producer.call(&format!("RPUSH q {item}")));
        let mut popped: Vec<usize> = clients
            .iter_mut()
            .map(|client| String::from_utf8_lossy(client.reply().elements()[1].bulk().unwrap()).parse().unwrap())
            .collect();
        popped.sort_unstable();
        assert_eq!(popped, (0..CLIENTS).collect::<Vec<_>>());
    }
}

#[test]
fn an_upstream_that_is_lost_is_told_and_the_client_goes_on() {
    let mut redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    client.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n");
    wait_for(&redis, 1);
    redis.restart();
    let reply = client.reply();
    assert!(reply.starts_with(b"-UPSTREAM lost the connection"), "{reply:?}");
    eventually("it serves again", SOON, || (client.call("RPUSH q x") == ":1\r\n").then_some(()));
    assert_eq!(client.call("BLPOP q 0"), "*2\r\n$1\r\nq\r\n$1\r\nx\r\n");
}

#[test]
fn a_transaction_whose_upstream_is_lost_ends_with_its_client() {
    let mut redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    if calibrating("upstream") {
        return;
    }
    let mut client = nearside.client();
    assert_eq!(client.call("WATCH k"), "+OK\r\n");
    redis.restart();
    assert_eq!(client.rest_until_closed(), b"");
}

#[test]
fn who_waits_follows_a_slot_to_its_new_node() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    client.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n");
    let slot = key_slot(b"q");
    let from = cluster.owner(slot);
    wait_for(cluster.node(from), 1);
    let migration = cluster.begin_migration(slot, 1 - from);
    cluster.finish_migration(migration);
    wait_for(cluster.node(1 - from), 1);
    assert_eq!(nearside.client().call("RPUSH q item"), ":1\r\n");
    assert_eq!(client.reply(), "*2\r\n$1\r\nq\r\n$4\r\nitem\r\n");
}

#[test]
fn who_waits_can_be_unblocked_by_its_number() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let (mut client, mut other) = (nearside.client(), nearside.client());
    let id = client.call("CLIENT ID").integer().unwrap();
    assert_eq!(other.call(&format!("CLIENT UNBLOCK {id}")), ":0\r\n");
    for (how, expected) in
        [("", "*-1\r\n"), (" TIMEOUT", "*-1\r\n"), (" ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")]
    {
        client.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n");
        wait_for(&redis, 1);
        assert_eq!(other.call(&format!("CLIENT UNBLOCK {id}{how}")), ":1\r\n");
        assert_eq!(client.reply(), expected);
    }
    assert_eq!(other.call(&format!("CLIENT UNBLOCK {id}")), ":0\r\n");
    for line in [
        "CLIENT UNBLOCK x",
        "CLIENT UNBLOCK 1 NEVER",
        "CLIENT UNBLOCK 1 ERROR 2",
        "CLIENT UNBLOCK 99999",
        "CLIENT UNBLOCK -1",
    ] {
        let (reply, direct) = (other.call(line), redis.client().call(line));
        // Valkey does not mind one word too many.
        assert!(reply == direct || line.ends_with('2') && direct == ":0\r\n", "{line}: {reply:?}");
    }
}

#[test]
fn wait_speaks_of_what_this_client_has_written() {
    let redis = RedisServer::start();
    let port = redis.port().to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    eventually("the replica follows", SOON, || (client.call("WAIT 1 100") == ":1\r\n").then_some(()));
    assert_eq!(client.pipeline(&["SET k v", "WAIT 1 5000"]), ["+OK\r\n", ":1\r\n"]);
    replica.stop();
    assert_eq!(client.pipeline(&["SET k w", "WAIT 1 100", "GET k"]), ["+OK\r\n", ":0\r\n", "$1\r\nw\r\n"]);
    assert_eq!(client.call("WAIT 0 0"), ":0\r\n");
    replica.resume();
    assert_eq!(client.call("WAIT 1 5000"), ":1\r\n");
    for line in ["WAIT x 0", "WAIT 1", "WAIT 0 -1"] {
        assert_eq!(client.call(line), redis.client().call(line), "{line}");
    }
}

#[test]
fn who_may_not_publish_or_not_swap_may_wait() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut admin = redis.client();
    for (user, rights, may) in [
        ("mute", "resetchannels +@all", true),
        ("settled", "allchannels +@all -swapdb", true),
        ("neither", "resetchannels +@all -swapdb", false),
    ] {
        assert_eq!(admin.call(&format!("ACL SETUSER {user} on >secret ~* {rights}")), "+OK\r\n");
        let mut client = nearside.client();
        assert_eq!(client.call(&format!("AUTH {user} secret")), "+OK\r\n");
        for line in ["SET k v", "WAIT 1 50", "WAIT 0 0"] {
            let (expected, reply) = (admin.call(line), client.call(line));
            assert!(reply == expected || !may && reply.starts_with(b"-NOPERM"), "{user}: {line}: {reply:?}");
        }
        assert_eq!(client.call("GET k"), "$1\r\nv\r\n");
    }
}

#[test]
fn waitaof_tells_of_no_file_that_lacks_what_was_written() {
    for (fsync, expected) in [("no", "*2\r\n:0\r\n:0\r\n"), ("always", "*2\r\n:1\r\n:0\r\n")] {
        let redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", fsync]);
        let nearside = Nearside::before(&redis);
        if !redis.client().call("COMMAND INFO waitaof").text().contains("waitaof") {
            eprintln!("this server has no WAITAOF");
            return;
        }
        for mut client in [redis.client(), nearside.client()] {
            assert_eq!(client.pipeline(&["SET k v", "WAITAOF 1 0 100"]), ["+OK\r\n", expected], "{fsync}");
        }
    }
}

#[test]
fn a_client_that_hangs_up_behind_much_that_it_has_sent_waits_no_more() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let large = "x".repeat(3_000_000);
    let behind = [nearside_tests::request(&["SET", "behind", &large]), words("INCR n").repeat(150_000)];
    for behind in &behind {
        let mut client = nearside.client();
        client.send(&[&words("BLPOP q 0"), &behind[..]].concat());
        wait_for(&redis, 1);
        drop(client);
        wait_for(&redis, 0);
        let mut other = nearside.client();
        assert_eq!(other.pipeline(&["RPUSH q v", "DEL q"]), [":1\r\n", ":1\r\n"], "nothing was popped for it");
        assert_eq!(other.call("EXISTS behind n"), ":0\r\n");
    }
}

#[test]
fn a_client_that_hangs_up_behind_a_reply_of_its_own_connection_waits_no_more() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    for first in ["WATCH k", "GET k", "QUIT"] {
        let mut client = nearside.client();
        assert_eq!(client.call("WATCH other"), "+OK\r\n");
        client.send(&[words(first), words("BLPOP q 0")].concat());
        if first != "QUIT" {
            wait_for(&redis, 1);
        }
        drop(client);
        wait_for(&redis, 0);
    }
}

#[test]
fn who_waits_for_a_second_time_is_unblocked_too() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let (mut client, mut other) = (nearside.client(), nearside.client());
    let id = client.call("CLIENT ID").integer().unwrap();
    client.call("WATCH k");
    client.send(&[words("BLPOP a 0"), words("BLPOP b 0")].concat());
    wait_for(&redis, 1);
    other.call("RPUSH a 1");
    assert_eq!(client.reply(), "*2\r\n$1\r\na\r\n$1\r\n1\r\n");
    wait_for(&redis, 1);
    assert_eq!(other.call(&format!("CLIENT UNBLOCK {id}")), ":1\r\n");
    assert_eq!(client.reply(), "*-1\r\n");
}

#[test]
fn who_waits_while_keys_are_half_moved_is_answered_in_the_end() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    let slot = key_slot(b"b");
    let to = 1 - cluster.owner(slot);
    assert_eq!(client.call("RPUSH {b}1 x"), ":1\r\n");
    let migration = cluster.begin_migration(slot, to);
    for lines in [&["BLPOP {b}1 {b}2 0.2"][..], &["WATCH {b}1 {b}2", "MULTI", "RPUSH {b}1 y", "EXEC"]] {
        // TRYAGAIN for as long as one key is here and the other nowhere; meanwhile, or afterwards, there is an answer.
        client.send(&lines.iter().flat_map(|line| words(line)).collect::<Vec<_>>());
    }
    std::thread::sleep(Duration::from_millis(300));
    cluster.migrate_keys(&migration, 10);
    cluster.finish_migration(migration);
    (0..5).for_each(|_| drop(client.reply()));
    eventually("it goes on", SOON, || client.call("LLEN {b}1").integer());
}

#[test]
fn before_a_cluster_wait_tells_of_no_replica_that_lacks_what_was_written() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::with_replicas(2, 1, &["--cluster-node-timeout", "60000"]);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    let owner = cluster.owner_of("k");
    let replica = cluster.replicas(owner)[0];
    assert_eq!(client.pipeline(&["SET k v", "WAIT 1 10000"]), ["+OK\r\n", ":1\r\n"]);
    cluster.node(replica).stop();
    assert_eq!(client.pipeline(&["SET k w", "WAIT 1 300", "GET k"]), ["+OK\r\n", ":0\r\n", "$1\r\nw\r\n"]);
    cluster.node(replica).resume();
    assert_eq!(client.call("WAIT 1 10000"), ":1\r\n");
    for line in ["WAIT x 0", "WAIT 1", "WAIT 0 -1", "WAIT 0 x", "WAIT -1 0"] {
        let expected = cluster.node(owner).client().call(line);
        assert_eq!(client.call(line).is_error(), expected.is_error(), "{line}");
        assert!(!expected.is_error() || client.call(line) == expected, "{line}");
    }
    let id = client.call("CLIENT ID").integer().unwrap();
    let mut other = nearside.client();
    for (how, expected) in [("TIMEOUT", ":1\r\n"), ("ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")] {
        client.send(&words("WAIT 5 0"));
        let unblock = format!("CLIENT UNBLOCK {id} {how}");
        eventually("it waits", SOON, || (other.call(&unblock) == ":1\r\n").then_some(()));
        assert_eq!(client.reply(), expected);
        assert_eq!(other.call(&unblock), ":0\r\n");
    }
    drop(other);
    client.send(&words("WAIT 5 0"));
    drop(client);
    eventually("its session has ended", SOON, || {
        (nearside.client().call("CLIENT LIST").text().matches("id=").count() == 1).then_some(())
    });
}

#[test]
fn nothing_is_popped_for_who_hangs_up_while_the_command_goes_from_node_to_node() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let slot = key_slot(b"b");
    let to = 1 - cluster.owner(slot);
    assert_eq!(cluster.client().call("RPUSH {b}1 x"), ":1\r\n");
    let migration = cluster.begin_migration(slot, to);
    let mut client = nearside.client();
    client.send(&words("BLPOP {b}2 {b}1 0"));
    // TRYAGAIN, and a pause before each attempt, for some three seconds.
    std::thread::sleep(Duration::from_millis(300));
    drop(client);
    std::thread::sleep(Duration::from_millis(200));
    cluster.migrate_keys(&migration, 10);
    cluster.finish_migration(migration);
    eventually("its session has ended", Duration::from_secs(5), || {
        (nearside.client().call("CLIENT LIST").text().matches("id=").count() == 1).then_some(())
    });
    assert_eq!(cluster.client().call("LLEN {b}1"), ":1\r\n");
}

#[test]
fn before_a_cluster_wait_ends_in_time_though_a_primary_is_silent() {
    if calibrating("cluster") {
        return;
    }
    let mut cluster = RedisCluster::with_replicas(2, 0, &[]);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    assert_eq!(client.call("WAIT 0 100"), ":0\r\n");
    cluster.stop(1);
    // What a primary that stands still owes is an error after `upstream-timeout`.
    assert_eq!(client.call("WAIT 1 200"), ":0\r\n");
    assert_eq!(client.call("PING"), "+PONG\r\n");
    cluster.resume(1);
    assert_eq!(client.call("WAIT 0 0"), ":0\r\n");
}
