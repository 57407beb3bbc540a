//! MULTI, EXEC, DISCARD, WATCH, UNWATCH: what Redis answers, before one server and before a cluster.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use nearside_tests::{
    Address, Client, Nearside, RedisCluster, RedisServer, Stops, calibrating, free_port, key_slot,
    same_before_a_cluster, same_before_one_server,
};

const STEP_BY_STEP: &str = "
    a: SET {t}n 1
    a: MULTI
    a: INCR {t}n
    a: GET {t}n
    a: PING
    a: ECHO hello
    a: LRANGE {t}none 0 -1
    b: GET {t}n
    a: EXEC
    b: GET {t}n
    a: GET {t}n
    a: EXEC
    a: DISCARD
    a: MULTI
    a: SET {t}n 9
    a: DISCARD
    a: GET {t}n";

const IN_ONE_WRITE: &str = "
    a| SET {t}n 1 | MULTI | INCR {t}n | GET {t}n | EXEC | GET {t}n
    a| MULTI | PING | EXEC
    a| MULTI | EXEC
    a| MULTI | INCR {t}n | DISCARD | GET {t}n
    a| MULTI | SET {t}n x | INCR {t}n | EXEC | MULTI | GET {t}n | EXEC
    a| GET {t}n | MULTI | SET {t}n 5 | EXEC | GET {t}n | MULTI | INCR {t}n
    a: EXEC
    a| MULTI | BLPOP {t}none 0 | EXEC
    a| MULTI | GET {t}n | GET {t}n | GET {t}n";

const ERRORS: &str = "
    a: EXEC
    a: DISCARD
    a: UNWATCH
    a: MULTI now
    a: MULTI
    a: MULTI
    a: WATCH {t}k
    a: GET
    a: EXEC
    a| MULTI | NOSUCHCOMMAND | SET {t}k 1 | EXEC | GET {t}k
    a| MULTI | SET {t}k 1 | INCR {t}k {t}k | EXEC | GET {t}k
    a| MULTI | SET {t}k a | INCR {t}k | SET {t}k b | EXEC | GET {t}k
    a| MULTI | EXEC 1 | EXEC
    a| MULTI | DISCARD 1 | DISCARD
    a| WATCH | UNWATCH 1 | GET {t}k
    a: MULTI
    a: NOSUCHCOMMAND
    a: SET {t}k 2
    a: EXEC
    a: GET {t}k";

const WATCHES: &str = "
    a: WATCH {t}k {t}l
    b: SET {t}k other
    a: MULTI
    a: SET {t}k mine
    a: EXEC
    a: GET {t}k
    a| WATCH {t}k | GET {t}k
    a| MULTI | SET {t}k mine | EXEC
    a: GET {t}k
    a: WATCH {t}k
    b: SET {t}k other
    a: UNWATCH
    a| MULTI | SET {t}k mine | EXEC
    a: WATCH {t}k
    b: DEL {t}k
    a: MULTI
    a: DISCARD
    a| MULTI | SET {t}k mine | EXEC
    a: WATCH {t}k
    a: SET {t}k itself
    a| MULTI | GET {t}k | EXEC
    a| WATCH {t}k | WATCH {t}l | MULTI | SET {t}l 1 | EXEC | GET {t}l";

const RESETS: &str = "
    a: SET {t}k 0
    a: MULTI
    a: SET {t}k 1
    a: RESET
    a: GET {t}k
    a: EXEC
    a: WATCH {t}k
    a: RESET
    b: SET {t}k 2
    a| MULTI | SET {t}k 3 | EXEC
    a: MULTI
    a: SET {t}k 4
    a!
    b: GET {t}k";

#[test]
fn transactions_step_by_step_are_those_of_redis() {
    same_before_one_server(&[STEP_BY_STEP, ERRORS, WATCHES, RESETS]);
}

#[test]
fn transactions_in_one_write_are_those_of_redis() {
    same_before_one_server(&[IN_ONE_WRITE]);
}

#[test]
fn before_a_cluster_transactions_are_those_of_redis() {
    same_before_a_cluster(&[STEP_BY_STEP, IN_ONE_WRITE, ERRORS, WATCHES, RESETS]);
}

#[test]
fn a_transaction_may_change_the_database_and_the_session_is_there_afterwards() {
    same_before_one_server(&[
        "
        a: SET {t}k zero
        a: MULTI
        a: SELECT 3
        a: SET {t}k three
        a: SELECT nonsense
        a: EXEC
        a: GET {t}k
        a: SELECT 0
        a: GET {t}k
        a| MULTI | SELECT 2 | SET {t}k two | EXEC | GET {t}k
        b: GET {t}k
        a| MULTI | SELECT 1 | DISCARD | GET {t}k",
        "
        a: WATCH {t}k
        a: SELECT 5
        a: SET {t}k five
        a| MULTI | GET {t}k | EXEC
        a: GET {t}k
        b: GET {t}k",
    ]);
}

#[test]
fn in_a_cluster_a_transaction_is_of_one_slot() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let mut client = nearside.client();
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    let crossed = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
    assert_eq!(client.pipeline(&["MULTI", "SET a 1", "SET b 2", "EXEC"]), ["+OK\r\n", "+QUEUED\r\n", crossed, aborted]);
    assert_eq!(client.pipeline(&["MULTI", "PING", "MGET a b", "EXEC"]), ["+OK\r\n", "+QUEUED\r\n", crossed, aborted]);
    assert_eq!(client.pipeline(&["GET a", "GET b"]), ["$-1\r\n", "$-1\r\n"]);
    assert_eq!(
        client.pipeline(&["WATCH a", "WATCH b", "GET b", "UNWATCH"]),
        ["+OK\r\n", crossed, "$-1\r\n", "+OK\r\n"]
    );
    let everywhere = client.pipeline(&["MULTI", "DBSIZE", "EXEC"]);
    assert!(everywhere[1].starts_with(b"-ERR DBSIZE concerns every node"), "{everywhere:?}");
    assert_eq!(everywhere[2], aborted);
}

#[test]
fn what_a_transaction_writes_leaves_the_cache() {
    if calibrating("cache") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    for lines in [
        &["MULTI", "SET k 1", "EXEC"][..],
        &["MULTI", "EVAL return(redis.call('set',KEYS[1],2)) 1 k", "EXEC"],
        &["MULTI", "FLUSHALL", "EXEC"],
        &["WATCH other", "SET k 3"],
    ] {
        for one_by_one in [false, true] {
            client.call("SET k before");
            nearside.warm(&mut client, "k");
            if one_by_one {
                lines.iter().for_each(|line| _ = client.call(line));
            } else {
                client.pipeline(lines);
            }
            let expected = redis.client().call("GET k");
            assert_eq!(client.call("GET k"), expected, "{lines:?}");
            client.call("RESET");
        }
    }
}

#[test]
fn reads_of_a_session_that_watches_come_from_the_server() {
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let mut client = nearside.client();
    client.call("SET k 1");
    nearside.warm(&mut client, "k");
    client.call("WATCH other");
    let asked = redis.calls("get");
    client.call("GET k");
    assert_eq!(redis.calls("get"), asked + 1);
}

#[test]
fn counters_under_watch_lose_no_update() {
    let redis = RedisServer::start();
    let (one, two) = (Nearside::before(&redis), Nearside::with(&redis, &["--workers", "2"]));
    count_with(vec![one.client(), one.client(), two.client(), two.client(), redis.client()]);
}

#[test]
fn before_a_cluster_counters_under_watch_lose_no_update() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let (one, two) = (Nearside::ready_before_cluster(&cluster, &[]), Nearside::ready_before_cluster(&cluster, &[]));
    let direct = cluster.node(cluster.owner_of("n")).client();
    count_with(vec![one.client(), one.client(), two.client(), direct]);
}

/// Each client adds to a counter until it has succeeded so often.
fn count_with(mut clients: Vec<Client>) {
    const TIMES: usize = 150;
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| {
                let mut done = 0;
                while done < TIMES {
                    done += usize::from(add_one(client, done % 2 == 0));
                }
            });
        }
    });
    let expected = (TIMES * clients.len()).to_string();
    assert_eq!(clients[0].call("GET n").bulk(), Some(expected.as_bytes()));
}

/// True if nobody came between.
fn add_one(client: &mut Client, in_one_write: bool) -> bool {
    assert_eq!(client.call("WATCH n"), "+OK\r\n");
    let value = client.call("GET n").bulk().map_or(0, |text| String::from_utf8_lossy(text).parse::<u64>().unwrap());
    let set = format!("SET n {}", value + 1);
    let lines = ["MULTI", &set, "EXEC"];
    let replies =
        if in_one_write { client.pipeline(&lines) } else { lines.iter().map(|line| client.call(line)).collect() };
    assert_eq!(replies[..2], ["+OK\r\n", "+QUEUED\r\n"]);
    let executed = replies[2] == "*1\r\n+OK\r\n";
    assert!(executed || replies[2] == "*-1\r\n", "{:?}", replies[2]);
    executed
}

#[test]
fn while_its_slot_moves_a_transaction_in_one_write_is_carried_out_once() {
    if calibrating("cluster") {
        return;
    }
    const TIMES: usize = 400;
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    let slot = key_slot(b"n");
    let (done, moves) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let migration = cluster.begin_migration(slot, 1 - cluster.owner(slot));
                std::thread::sleep(Duration::from_millis(2));
                cluster.migrate_keys(&migration, 100);
                std::thread::sleep(Duration::from_millis(2));
                cluster.finish_migration(migration);
                moves.fetch_add(1, Relaxed);
            }
        });
        let _stops = Stops(&done);
        let mut client = nearside.client();
        let mut count = 0;
        let mut round = 0;
        while round < TIMES || moves.load(Relaxed) < 20 {
            round += 1;
            // The read is sent afterwards: one in the same write may be answered while the transaction is put off.
            let mut replies = client.pipeline(&["MULTI", "INCR n", "RPUSH {n}list x", "EXEC"]);
            replies.push(client.call("GET n"));
            let executed = replies[3].starts_with(b"*2");
            count += usize::from(executed);
            // Half of its keys may have moved for as long as that takes: then it is told after many tries.
            assert!(executed || replies.iter().any(|reply| reply.starts_with(b"-TRYAGAIN")), "{round}: {replies:?}");
            assert_eq!(replies[4].bulk(), Some(count.to_string().as_bytes()), "{round}: {replies:?}");
            assert!(replies.iter().all(|reply| !reply.starts_with(b"-MOVED") && !reply.starts_with(b"-ASK")));
        }
        done.store(true, Relaxed);
        assert!(count > round * 9 / 10, "{count} of {round}");
        assert_eq!(client.call("LLEN {n}list").integer(), Some(count as i64));
    });
}

#[test]
fn clients_of_others_cannot_be_touched_from_inside_a_transaction() {
    if calibrating("lanes") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::before(&redis);
    let (mut direct, mut client) = (redis.client(), nearside.client());
    client.call("SET k v");
    let replies = client.pipeline(&["MULTI", "CLIENT KILL TYPE normal SKIPME yes", "SET k w", "EXEC", "GET k"]);
    assert!(replies[1].is_error(), "{replies:?}");
    assert_eq!(replies[3..], ["-EXECABORT Transaction discarded because of previous errors.\r\n", "$1\r\nv\r\n"]);
    assert_eq!(direct.call("PING"), "+PONG\r\n");
}

#[test]
fn what_a_user_may_not_end_ends_with_its_connection() {
    if calibrating("pool of connections") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--workers", "1"]);
    let mut direct = redis.client();
    assert_eq!(direct.call("ACL SETUSER few on >secret ~* &* +@all -discard -unwatch"), "+OK\r\n");
    let login = || {
        let mut client = nearside.client();
        assert_eq!(client.call("AUTH few secret"), "+OK\r\n");
        client
    };
    let (mut client, mut other) = (login(), login());
    for lines in [&["MULTI", "SET k 1", "DISCARD"][..], &["WATCH k", "UNWATCH"]] {
        for in_one_write in [true, false] {
            let last = match in_one_write {
                true => client.pipeline(lines).pop().unwrap(),
                false => lines.iter().map(|line| client.call(line)).next_back().unwrap(),
            };
            assert!(last.starts_with(b"-NOPERM"), "{lines:?}: {last:?}");
            direct.call("SET k 2");
            // On the shared connection, and on whichever is taken from the pool.
            assert_eq!(other.call("SET l 1"), "+OK\r\n", "{lines:?} in one write: {in_one_write}");
            let steps = ["WATCH l", "MULTI", "GET k", "EXEC"].map(|line| other.call(line));
            assert_eq!(steps[3], "*1\r\n$1\r\n2\r\n", "{lines:?} in one write: {in_one_write}: {steps:?}");
        }
    }
    // The proxy itself says DISCARD where it has refused a command of the transaction.
    let doomed = ["MULTI", "CLIENT SETNAME x", "EXEC"].map(|line| client.call(line));
    assert!(doomed[2].starts_with(b"-EXECABORT"), "{doomed:?}");
    assert_eq!(["WATCH l", "MULTI", "GET k", "EXEC"].map(|line| other.call(line))[3], "*1\r\n$1\r\n2\r\n");
}

#[test]
fn a_transaction_whose_multi_was_refused_is_not_sent_on() {
    if calibrating("cluster") {
        return;
    }
    let cluster = RedisCluster::start(2);
    let nearside = Nearside::ready_before_cluster(&cluster, &[]);
    for node in 0..2 {
        assert_eq!(cluster.node(node).client().call("ACL SETUSER few on >secret ~* &* +@all -multi -exec"), "+OK\r\n");
    }
    let slot = key_slot(b"t");
    let (from, to) = (cluster.owner(slot), 1 - cluster.owner(slot));
    let keys = ["{t}1", "{t}2"];
    keys.iter().for_each(|key| drop(cluster.client().call(&format!("SET {key} 0"))));
    let migration = cluster.begin_migration(slot, to);
    assert_eq!(cluster.node(from).client().call(&format!("CLUSTER GETKEYSINSLOT {slot} 2")).elements().len(), 2);
    assert_eq!(cluster.migrate_keys(&migration, 1), 1);
    let is_here = |key: &&str| cluster.node(from).client().call(&format!("GET {key}")) == "$1\r\n0\r\n";
    let here = *keys.iter().find(|key| is_here(key)).unwrap();
    let moved = *keys.iter().find(|key| !is_here(key)).unwrap();
    let mut client = nearside.client();
    assert_eq!(client.call("AUTH few secret"), "+OK\r\n");
    let replies = client.pipeline(&["MULTI", &format!("INCR {here}"), &format!("INCR {moved}"), "EXEC"]);
    assert!(replies[0].starts_with(b"-NOPERM"), "{replies:?}");
    assert_eq!(replies[1], ":1\r\n", "{replies:?}");
    cluster.finish_migration(migration);
    assert_eq!(cluster.client().call(&format!("GET {here}")), "$1\r\n1\r\n", "it was carried out once");
}

#[test]
fn an_exec_that_finds_no_node_ends_the_transaction() {
    if calibrating("wait for a first topology") {
        return;
    }
    let nearside = Nearside::with_url(&format!("redis-cluster://{}", Address::local(free_port())), &[]);
    let mut client = nearside.client();
    assert_eq!(["MULTI", "PUBLISH c m"].map(|line| client.call(line)), ["+OK\r\n", "+QUEUED\r\n"]);
    assert!(client.call("EXEC").starts_with(b"-UPSTREAM "));
    assert_eq!(client.call("MULTI"), "+OK\r\n", "it is over, and another one may begin");
}
