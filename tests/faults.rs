//! Redis dies, stands still, comes back, loses its connections: clients get their answer or an error, in time, and only
//! their own; no write is made twice; nothing stale is served; traffic resumes by itself.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use nearside_tests::{Freshness, Load, Nearside, RedisServer, Relay, Report, calibrating, eventually, holds_for};

/// The upstream timeout of the program in these tests.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(1);
/// A reply that takes longer hangs: several times what the program may need, as machines may be busy.
const DEADLINE: Duration = Duration::from_secs(10);
const RECOVERY: Duration = Duration::from_secs(15);
const CLIENTS: usize = 16;
const ARGS: &[&str] = &["--upstream-timeout", "1s", "--connect-timeout", "500ms", "--workers", "2"];
/// Appended to the file before a reply leaves, so that what was acknowledged survives a kill.
const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "no"];

/// Runs the load while `fault` happens, and until everybody is served again.
fn under_load(redis: &mut RedisServer, fault: impl FnOnce(&mut RedisServer, &Nearside)) -> Report {
    let nearside = Nearside::with(redis, ARGS);
    Load::prepare(&mut redis.client());
    let load = Load::start(nearside.address(), CLIENTS, DEADLINE);
    load.wait_for_answers(100, RECOVERY);
    fault(redis, &nearside);
    load.wait_for_answers(100, RECOVERY);
    let report = load.finish(&mut redis.client());
    eprintln!(
        "{} answered, {} refused, {} writes, slowest {:?}",
        report.answered, report.refused, report.acknowledged, report.slowest
    );
    report
}

#[test]
fn a_killed_redis_costs_errors_but_no_hang_no_strangers_reply_and_no_write_made_twice() {
    if calibrating("way to outlive Redis") {
        return;
    }
    let mut redis = RedisServer::with(DURABLE);
    let report = under_load(&mut redis, |redis, _| {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(200));
            redis.kill();
            std::thread::sleep(Duration::from_millis(300));
            redis.start_again();
        }
    });
    report.assert_faultless();
    assert!(report.refused > 0, "the fault was felt");
    assert!(report.acknowledged > CLIENTS, "writes were made");
}

#[test]
fn a_redis_that_stands_still_longer_than_the_timeout_costs_errors_in_time() {
    if calibrating("timeout") {
        return;
    }
    let mut redis = RedisServer::start();
    let report = under_load(&mut redis, |redis, _| {
        redis.stop();
        std::thread::sleep(UPSTREAM_TIMEOUT * 5 / 2);
        redis.resume();
    });
    report.assert_faultless();
    assert!(report.refused > 0, "the fault was felt");
}

#[test]
fn a_redis_that_stands_still_for_less_than_the_timeout_costs_nothing_but_time() {
    let mut redis = RedisServer::start();
    let report = under_load(&mut redis, |redis, _| {
        redis.stop();
        std::thread::sleep(UPSTREAM_TIMEOUT / 4);
        redis.resume();
    });
    report.assert_faultless();
    assert_eq!(report.refused, 0);
    assert!(report.slowest > UPSTREAM_TIMEOUT / 8, "the fault was felt: {:?}", report.slowest);
}

#[test]
fn connections_that_redis_closes_are_made_anew() {
    if calibrating("upstream connections") {
        return;
    }
    let mut redis = RedisServer::start();
    let report = under_load(&mut redis, |redis, _| {
        let mut killer = redis.client();
        for _ in 0..10 {
            killer.call("CLIENT KILL TYPE normal SKIPME yes");
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    report.assert_faultless();
    assert!(report.refused > 0, "the fault was felt");
}

#[test]
fn clients_that_vanish_in_the_middle_harm_nobody() {
    let mut redis = RedisServer::start();
    let report = under_load(&mut redis, |_, nearside| {
        for round in 0..200_usize {
            let mut client = nearside.client();
            let pipeline =
                b"GET tagged:1\r\nGETEX tagged:2\r\nRPUSH vanished 1\r\n*2\r\n$3\r\nGET\r\n$8\r\ntagged:3\r\n"
                    .repeat(20);
            client.send(&pipeline[..pipeline.len() - round]);
        }
    });
    report.assert_faultless();
    assert_eq!(report.refused, 0);
}

#[test]
fn nothing_is_served_from_the_cache_once_its_redis_cannot_be_asked() {
    if calibrating("cache") {
        return;
    }
    // Killed: the connection ends, and with it the lease. Stopped and cut off: only time can tell.
    for way in ["kill", "stop", "stall"] {
        let mut redis = RedisServer::start();
        let relay = Relay::to(&redis.address());
        let nearside = Nearside::upstream(relay.address(), &["--max-staleness", "200ms", "--upstream-timeout", "1s"]);
        let mut client = nearside.client();
        client.call("SET k v");
        let hits = |count: f64| nearside.metrics().total("nearside_cache_hits_total") >= count;
        eventually("the key is cached", RECOVERY, || {
            (client.call("GET k") == "$1\r\nv\r\n" && hits(1.0)).then_some(())
        });
        match way {
            "kill" => redis.kill(),
            "stop" => redis.stop(),
            _ => relay.stall(),
        }
        std::thread::sleep(Duration::from_millis(250));
        let before = nearside.metrics().total("nearside_cache_hits_total");
        let asked_at = Instant::now();
        let reply = client.call("GET k");
        assert!(reply.starts_with(b"-UPSTREAM "), "{way}: {reply:?}");
        assert!(asked_at.elapsed() < DEADLINE, "{way}: after {:?}", asked_at.elapsed());
        assert!(!hits(before + 1.0), "{way}: a hit");
    }
}

#[test]
fn a_redis_that_comes_back_with_other_data_is_believed_at_once() {
    if calibrating("cache") {
        return;
    }
    let mut redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--max-staleness", "100ms"]);
    let mut client = nearside.client();
    for round in 0..3 {
        let expected = format!("round{round}");
        redis.client().call(&format!("SET k {expected}"));
        eventually("the new data is read", RECOVERY, || {
            (client.call("GET k").bulk() == Some(expected.as_bytes())).then_some(())
        });
        for _ in 0..50 {
            assert_eq!(client.call("GET k").bulk(), Some(expected.as_bytes()));
        }
        redis.restart();
        std::thread::sleep(Duration::from_millis(150));
        // Past max-staleness, whatever is answered is not what was before the restart.
        holds_for("no value of before the restart", Duration::from_millis(500), || {
            let reply = client.call("GET k");
            reply == "$-1\r\n" || reply.starts_with(b"-UPSTREAM ") || reply.starts_with(b"-LOADING ")
        });
        eventually("traffic resumes", RECOVERY, || (client.call("GET k") == "$-1\r\n").then_some(()));
    }
}

#[test]
fn reads_are_never_staler_than_promised_while_connections_stall_and_break() {
    if calibrating("cache") {
        return;
    }
    for workers in ["1", "4"] {
        let max_staleness = Duration::from_millis(150);
        let redis = RedisServer::start();
        let relay = Relay::to(&redis.address());
        let args = [
            "--workers",
            workers,
            "--max-staleness",
            "150ms",
            "--cache-churning",
            "yes",
            "--upstream-timeout",
            "400ms",
            "--connect-timeout",
            "400ms",
        ];
        let nearside = Nearside::upstream(relay.address(), &args);
        let freshness = Freshness::start(&redis.address(), nearside.address(), max_staleness);
        for round in 0..6 {
            std::thread::sleep(Duration::from_millis(300));
            relay.stall();
            // Below and above both the lease and the timeout.
            std::thread::sleep(Duration::from_millis([100, 250, 700][round % 3]));
            relay.resume();
            std::thread::sleep(Duration::from_millis(200));
            relay.cut();
        }
        let reads = freshness.reads();
        eventually("traffic resumes", RECOVERY, || (freshness.reads() > reads + 100).then_some(()));
        let stale = freshness.finish();
        assert!(
            stale.is_empty(),
            "{workers} workers: {} of {reads} reads: {:?}",
            stale.len(),
            &stale[..stale.len().min(5)]
        );
    }
}

#[test]
fn a_lapsed_lease_hides_its_entries_and_a_good_heartbeat_brings_them_back() {
    if calibrating("lease") {
        return;
    }
    let redis = RedisServer::start();
    let nearside = Nearside::with(&redis, &["--max-staleness", "200ms", "--upstream-timeout", "5s"]);
    let mut client = nearside.client();
    client.call("SET k v");
    let mut reads_reach_redis = || {
        let before = redis.calls("get");
        assert_eq!(client.call("GET k"), "$1\r\nv\r\n");
        redis.calls("get") > before
    };
    eventually("the key is cached", RECOVERY, || (!reads_reach_redis()).then_some(()));
    redis.stop();
    std::thread::sleep(Duration::from_millis(500));
    redis.resume();
    // The entry was there all the time: it serves again without having been read again, once a heartbeat is answered.
    let before = redis.calls("get");
    eventually("the lapse is counted", RECOVERY, || {
        (nearside.metrics().total("nearside_leases_lapsed_total") >= 1.0).then_some(())
    });
    // Which asks Redis nothing.
    eventually("a heartbeat has been answered", RECOVERY, || {
        client.call("NEARSIDE EXPLAIN k").text().contains(r"$3\r\nget\r\n$3\r\nhit\r\n").then_some(())
    });
    assert_eq!(client.call("GET k"), "$1\r\nv\r\n");
    assert_eq!(redis.calls("get"), before, "a survivor is a hit");
}
