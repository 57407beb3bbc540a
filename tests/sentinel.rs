//! Before Sentinels: the primary that they name is found and followed, whatever becomes of it; clients get their answer or an
//! error, in time, and only their own; no write is made twice, none is lost but by Redis itself; nothing is read staler than
//! promised.
//!
//! What each fault cost is printed: `cargo test -p nearside-tests --test sentinel -- --nocapture`.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use nearside_tests::{
    Address, Client, FakeSentinel, Freshness, Load, MonitoredServers, NAME, Nearside, RedisServer, Reply, Report,
    calibrating, eventually, free_port, holds_for,
};

/// A reply that takes longer hangs: several times what the program may need, as machines may be busy.
const DEADLINE: Duration = Duration::from_secs(10);
const RECOVERY: Duration = Duration::from_secs(30);
const CLIENTS: usize = 12;
const MAX_STALENESS: Duration = Duration::from_millis(300);
const ARGS: &[&str] =
    &["--upstream-timeout", "1s", "--connect-timeout", "500ms", "--max-staleness", "300ms", "--workers", "2"];

fn before(servers: &MonitoredServers, args: &[&str]) -> Nearside {
    let nearside = Nearside::with_url(&servers.url(), args);
    nearside.wait_until_ready();
    nearside
}

/// Runs load and checked reads while `fault` happens, with so many failovers, and until everybody is served again. Gives what
/// was seen, and how many acknowledged writes are gone.
fn under_load(name: &str, failovers: usize, fault: impl FnOnce(&mut MonitoredServers)) -> (Report, usize) {
    let mut servers = MonitoredServers::start(2);
    let nearside = before(&servers, ARGS);
    Load::prepare(&mut servers.connect(0));
    servers.wait_until_ok();
    let mut writer = servers.client().with_writes_on_replicas(1);
    let keys = (0..4).map(|key| format!("{name}:{key}")).collect();
    let freshness =
        Freshness::written_by(keys, move |args| writer.try_command(args), nearside.address(), MAX_STALENESS);
    let load = Load::start(nearside.address(), CLIENTS, DEADLINE);
    load.wait_for_answers(100, RECOVERY);
    fault(&mut servers);
    servers.wait_until_ok();
    let recovered = Instant::now();
    load.wait_for_answers(100, RECOVERY);
    let resumed = recovered.elapsed();
    let reads = freshness.reads();
    eventually("checked reads go on", RECOVERY, || (freshness.reads() > reads + 50).then_some(()));
    let stale = freshness.finish();
    let mut report = load.finish(&mut servers.connect(servers.primary()));
    let lost = report.assert_faultless_but_for_lost_writes();
    eprintln!(
        "{name}: {} answered, {} refused, {} writes acknowledged, {lost} of them lost, slowest {:?}, 100 answers each \
         {resumed:?} after all was well, {reads} checked reads",
        report.answered, report.refused, report.acknowledged, report.slowest
    );
    assert!(report.lost_runs <= failovers, "{name}: writes were lost at {} times", report.lost_runs);
    assert!(stale.is_empty(), "{name}: {} of {reads} reads: {:?}", stale.len(), &stale[..stale.len().min(5)]);
    assert!(report.acknowledged > CLIENTS, "writes were made");
    (report, lost)
}

#[test]
fn a_failover_that_was_asked_for_is_followed() {
    if calibrating("way to outlive a server") {
        return;
    }
    // What the old primary takes while the Sentinels have not told it yet is lost, whoever passed it on.
    under_load("failover", 2, |servers| {
        let first = servers.fail_over();
        servers.wait_until_ok();
        assert_eq!(first, 1);
        assert_eq!(servers.fail_over(), 0, "and back");
    });
}

#[test]
fn a_primary_that_is_killed_is_replaced() {
    if calibrating("way to outlive a server") {
        return;
    }
    let (report, _) = under_load("killed", 1, |servers| {
        servers.server_mut(0).kill();
        assert_eq!(servers.wait_until_switched(0), 1);
        servers.server_mut(0).start_again();
    });
    assert!(report.refused > 0, "the fault was felt");
}

#[test]
fn a_primary_that_stands_still_is_replaced_and_comes_back_as_a_replica() {
    if calibrating("way to outlive a server") {
        return;
    }
    let (report, _) = under_load("stopped", 1, |servers| {
        servers.server(0).stop();
        assert_eq!(servers.wait_until_switched(0), 1);
        servers.server(0).resume();
    });
    assert!(report.refused > 0, "the fault was felt");
}

#[test]
fn a_primary_that_stands_still_for_less_than_the_timeout_costs_nothing_but_time() {
    let (report, lost) = under_load("stopped briefly", 0, |servers| {
        servers.server(0).stop();
        std::thread::sleep(Duration::from_millis(200));
        servers.server(0).resume();
    });
    assert_eq!((report.refused, lost), (0, 0));
}

#[test]
fn commands_are_served_cached_and_divided_by_database_as_before_one_server() {
    if calibrating("cache") {
        return;
    }
    let servers = MonitoredServers::start(2);
    let nearside = before(&servers, &["--max-staleness", "100s"]);
    let mut client = nearside.client();
    assert_eq!(client.call("MSET a 1 b 2"), "+OK\r\n");
    nearside.warm(&mut client, "a");
    assert_eq!(client.pipeline(&["SELECT 3", "SET a three", "SELECT 0", "GET a"]).last().unwrap(), "$1\r\n1\r\n");
    assert_eq!(client.call("SELECT 99"), servers.connect(0).call("SELECT 99"));
    assert_eq!(client.call("CLUSTER INFO"), "-ERR This instance has cluster support disabled\r\n");
    assert!(client.call("ROLE").elements()[0].bulk() == Some(b"master"));
    // What was fetched from the old primary is not served once there is another, though the lease would last.
    servers.fail_over();
    assert_eq!(servers.connect(1).call("SET a other"), "+OK\r\n");
    eventually("the new primary is read", RECOVERY, || {
        let reply = client.call("GET a");
        assert!(reply == "$1\r\n1\r\n" || reply == "$5\r\nother\r\n" || reply.starts_with(b"-UPSTREAM "), "{reply:?}");
        (reply == "$5\r\nother\r\n").then_some(())
    });
    assert_eq!(client.pipeline(&["SELECT 3", "GET a"])[1], "$5\r\nthree\r\n");
    nearside.warm(&mut client, "a");
    // The database of the URL is the first one.
    let third = Nearside::with_url(&format!("{}/3", servers.url()), &[]);
    third.wait_until_ready();
    assert_eq!(third.client().call("GET a"), "$5\r\nthree\r\n");
}

#[test]
fn servers_and_sentinels_are_logged_in_to_each_with_its_own_password() {
    if calibrating("Sentinels") {
        return;
    }
    let servers = MonitoredServers::with_password(2, Some("secret"));
    let mut nearside = before(&servers, &["--log", "debug"]);
    let mut client = nearside.client();
    assert_eq!(client.call("SET k v"), "+OK\r\n");
    servers.fail_over();
    eventually("the new primary takes writes", RECOVERY, || (client.call("SET k w") == "+OK\r\n").then_some(()));
    assert!(!nearside.process().output().contains("secret"));
    let wrong = Nearside::with_url(&servers.url().replace("sentinel-secret", "nonsense"), &[]);
    eventually("it says why it is not ready", RECOVERY, || {
        wrong.admin("/readyz").1.contains("WRONGPASS").then_some(())
    });
}

fn url_of(sentinels: &[&FakeSentinel]) -> String {
    let seeds: Vec<_> = sentinels.iter().map(|sentinel| sentinel.address()).collect();
    format!("redis-sentinel://{}/{NAME}", seeds.join(","))
}

fn eventually_reads(client: &mut Client, expected: &str) {
    eventually(&format!("{expected:?} is read"), RECOVERY, || (client.call("GET who") == expected).then_some(()));
}

#[test]
fn the_newest_failover_counts_and_a_sentinel_that_was_cut_off_takes_nothing_back() {
    if calibrating("Sentinels") {
        return;
    }
    // Both say that they are primaries, as one does that was cut off from its Sentinels.
    let (old, new) = (RedisServer::start(), RedisServer::start());
    old.client().call("SET who old");
    new.client().call("SET who new");
    let sentinels = [0; 3].map(|_| FakeSentinel::saying(old.port(), 4));
    let [one, two, three] = &sentinels;
    let nearside = Nearside::with_url(&url_of(&[one, two, three]), &["--max-staleness", "100ms"]);
    nearside.wait_until_ready();
    let mut client = nearside.client();
    nearside.warm(&mut client, "who");
    assert_eq!(client.call("GET who"), "$3\r\nold\r\n");
    two.say(new.port(), 5);
    eventually_reads(&mut client, "$3\r\nnew\r\n");
    // Two that have not heard of it, or never will.
    holds_for("the new one is read", Duration::from_secs(4), || client.call("GET who") == "$3\r\nnew\r\n");
    two.fall_silent();
    three.fall_silent();
    holds_for("one alone changes nothing", Duration::from_secs(4), || client.call("GET who") == "$3\r\nnew\r\n");
    // Most of them say otherwise, and nobody remembers: they have been set up anew.
    three.say(old.port(), 4);
    eventually_reads(&mut client, "$3\r\nold\r\n");
}

#[test]
fn the_first_sentinel_to_answer_is_not_believed_before_most_have() {
    if calibrating("Sentinels") {
        return;
    }
    let (old, new) = (RedisServer::start(), RedisServer::start());
    new.client().call("SET who new");
    let sentinels = [FakeSentinel::saying(old.port(), 1), FakeSentinel::saying(new.port(), 2)];
    let silent = FakeSentinel::saying(1, 1);
    silent.fall_silent();
    let nearside = Nearside::with_url(&url_of(&[&silent, &sentinels[0], &sentinels[1]]), &[]);
    let mut client = nearside.client();
    eventually("the newest is believed", RECOVERY, || {
        let reply = client.call("GET who");
        assert!(reply.starts_with(b"-UPSTREAM ") || reply == "$3\r\nnew\r\n", "{reply:?}");
        (!reply.is_error()).then_some(())
    });
}

#[test]
fn a_server_that_does_not_say_it_is_a_primary_is_not_believed_to_be_one() {
    if calibrating("Sentinels") {
        return;
    }
    let primary = RedisServer::start();
    let of = format!("127.0.0.1 {}", primary.port());
    let replica = RedisServer::with(&["--replicaof", &of]);
    let sentinel = FakeSentinel::saying(primary.port(), 1);
    let nearside = Nearside::with_url(&url_of(&[&sentinel]), &["--max-staleness", "100ms"]);
    nearside.wait_until_ready();
    let mut client = nearside.client();
    sentinel.say(replica.port(), 2);
    holds_for("writes are taken", Duration::from_secs(1), || client.call("SET k v") == "+OK\r\n");
    replica.client().call("REPLICAOF NO ONE");
    eventually("it is believed once it says so", RECOVERY, || {
        client.call("SET k w");
        (replica.client().call("GET k") == "$1\r\nw\r\n").then_some(())
    });
    // The other way round: a primary that becomes a replica takes no more commands from here.
    assert_eq!(replica.client().call(&format!("REPLICAOF {}", of)), "+OK\r\n");
    replica.client().call("CLIENT KILL TYPE normal SKIPME yes");
    eventually("the command is not sent", RECOVERY, || {
        let reply = client.call("SET k x");
        assert!(!reply.starts_with(b"-READONLY"), "{reply:?}");
        reply.text().contains("it is no primary (role: replica); the command was not sent").then_some(())
    });
}

#[test]
fn before_any_sentinel_has_answered_clients_hear_so_and_are_served_as_soon_as_one_has() {
    if calibrating("Sentinels") {
        return;
    }
    let nobody = Nearside::with_url(&format!("redis-sentinel://127.0.0.1:{}/{NAME}", free_port()), &[]);
    let mut client = nobody.client();
    let expected = "-UPSTREAM no Sentinel has named a primary yet that says it is one; the command was not sent\r\n";
    for line in ["GET k", "SET k v", "SELECT 1", "INFO", "DBSIZE"] {
        assert_eq!(client.call(line), expected, "{line}");
    }
    assert_eq!(client.call("PING"), "+PONG\r\n");
    assert_eq!(client.call("NOSUCH"), expected);
    assert_eq!(nobody.admin("/readyz").0, 503);
    let redis = RedisServer::start();
    let sentinel = FakeSentinel::saying(redis.port(), 0);
    sentinel.fall_silent();
    let nearside = Nearside::with_url(&url_of(&[&sentinel]), &[]);
    let mut client = nearside.client();
    assert_eq!(client.call("SET k v"), expected);
    sentinel.say(redis.port(), 0);
    eventually("commands are served", RECOVERY, || (client.call("SET k v") == "+OK\r\n").then_some(()));
}

#[test]
fn a_name_that_the_sentinels_do_not_know_is_told() {
    if calibrating("Sentinels") {
        return;
    }
    let servers = MonitoredServers::start(1);
    let nearside = Nearside::with_url(&servers.url().replace(NAME, "nosuch"), &[]);
    eventually("it is told", RECOVERY, || {
        let (status, body) = nearside.admin("/readyz");
        (status == 503 && body.contains("No such master with that name")).then_some(())
    });
}

#[test]
fn clients_that_look_for_the_primary_find_the_proxy() {
    if calibrating("face of its own") {
        return;
    }
    let servers = MonitoredServers::start(1);
    let nearside = before(&servers, &[]);
    let Address::Tcp(address) = nearside.address() else { unreachable!("it listens on TCP") };
    for hello in ["HELLO 2", "HELLO 3"] {
        let (mut client, mut sentinel) = (nearside.client(), servers.sentinel(0));
        client.call(hello);
        sentinel.call(hello);
        let found = client.call(&format!("SENTINEL GET-MASTER-ADDR-BY-NAME {NAME}"));
        let port = address.port().to_string();
        assert_eq!(found, format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len()).as_str());
        // Field by field as a Sentinel tells them, which are names and texts in turn.
        for line in [format!("SENTINEL MASTER {NAME}"), "SENTINEL MASTERS".to_owned()] {
            let (mut ours, mut real) = (client.call(&line), sentinel.call(&line));
            if line.ends_with("MASTERS") {
                assert_eq!((ours.header(), ours.elements().len()), (real.header(), 1));
                (ours, real) = (ours.elements().remove(0), real.elements().remove(0));
            }
            assert_eq!(ours.header(), real.header(), "{line} after {hello}");
            let names = |reply: &Reply| reply.elements().into_iter().step_by(2).collect::<Vec<_>>();
            assert_eq!(names(&ours), names(&real));
            assert!(ours.elements().iter().all(|element| element.bulk().is_some()));
        }
        for line in ["SENTINELS", "REPLICAS", "SLAVES"] {
            assert_eq!(client.call(&format!("SENTINEL {line} {NAME}")), "*0\r\n");
        }
        assert!(client.call(&format!("SENTINEL CKQUORUM {NAME}")).starts_with(b"+OK 1 usable Sentinels. "));
        assert_eq!(client.call("SENTINEL MYID").bulk().map(<[u8]>::len), Some(40));
        for line in [
            "SENTINEL",
            "SENTINEL NOSUCH",
            "SENTINEL MASTER",
            "SENTINEL MASTERS x",
            "SENTINEL MASTER nosuch",
            "SENTINEL SENTINELS nosuch",
            "SENTINEL REPLICAS nosuch",
            "SENTINEL CKQUORUM nosuch",
            "SENTINEL GET-MASTER-ADDR-BY-NAME",
            "SENTINEL GET-MASTER-ADDR-BY-NAME nosuch",
            "sentinel get-master-addr-by-name nosuch",
        ] {
            assert_eq!(client.call(line), sentinel.call(line), "{line} after {hello}");
        }
        let real: Vec<_> = sentinel.call("SENTINEL HELP").elements();
        assert!(client.call("SENTINEL HELP").elements().iter().all(|line| real.contains(line)));
        let reply = client.call(&format!("SENTINEL FAILOVER {NAME}"));
        assert_eq!(reply, "-ERR SENTINEL FAILOVER is not for clients of a proxy\r\n");
        assert_eq!(client.call("ROLE").elements()[0].bulk(), Some(&b"master"[..]));
    }
}

#[test]
fn a_sentinel_is_shown_where_the_setting_says_so_and_else_none() {
    if calibrating("face of its own") {
        return;
    }
    let redis = RedisServer::start();
    let request = "SENTINEL GET-MASTER-ADDR-BY-NAME cache";
    let unknown = redis.client().call(request);
    assert!(unknown.starts_with(b"-ERR unknown command"));
    let nearside = Nearside::before(&redis);
    assert_eq!(nearside.client().call(request), unknown);
    let nearside =
        Nearside::with(&redis, &["--sentinel-face", "cache", "--announce", "proxy.example:7", "--requirepass", "p"]);
    let mut client = nearside.client();
    assert_eq!(client.call(request), "-NOAUTH Authentication required.\r\n");
    assert_eq!(client.call("AUTH p"), "+OK\r\n");
    assert_eq!(client.call(request), "*2\r\n$13\r\nproxy.example\r\n$1\r\n7\r\n");
    // It stands in no transaction: there the server says what it thinks of it.
    let replies = client.pipeline(&["MULTI", request, "EXEC"]);
    assert_eq!(replies[1], unknown);
    assert!(replies[2].starts_with(b"-EXECABORT "), "{replies:?}");
}

#[test]
fn while_no_primary_is_known_every_command_has_an_answer() {
    if calibrating("a wait for the first primary") {
        return;
    }
    let sentinel = Address::local(free_port());
    let nearside = Nearside::with_url(&format!("redis-sentinel://{sentinel}/{NAME}"), &[]);
    for line in [
        "CLIENT TRACKING ON",
        "CLIENT TRACKING x",
        "WATCH k",
        "MULTI",
        "BLPOP k 0",
        "SUBSCRIBE c",
        "MONITOR",
        "WAIT 0 0",
    ] {
        let mut client = nearside.client();
        let reply = client.call(line);
        assert!(reply == "+OK\r\n" || reply.starts_with(b"-UPSTREAM "), "{line}: {reply:?}");
        assert_eq!(nearside.client().call("PING"), "+PONG\r\n", "after {line}");
    }
}
