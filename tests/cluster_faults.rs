//! Nodes of a cluster die, stand still, come back empty, are replaced, pass their slots on: clients get their answer or an
//! error, in time, and only their own; no write is made twice, none that was acknowledged is lost but by Redis itself;
//! nothing is read staler than promised; traffic resumes by itself.
//!
//! What each fault cost is printed: `cargo test -p nearside-tests --test cluster_faults -- --nocapture`.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use nearside_tests::{
    Control, Failover, Freshness, Load, Nearside, RedisCluster, Report, SLOTS, calibrating, eventually, key_in_slot,
    spread_keys,
};

/// A reply that takes longer hangs: several times what the program may need, as machines may be busy.
const DEADLINE: Duration = Duration::from_secs(10);
const RECOVERY: Duration = Duration::from_secs(30);
const CLIENTS: usize = 12;
const FRESH_KEYS: u16 = 6;
const CONTROL_WRITERS: u16 = 3;
/// So many lost writes, all in one run, are a time in which the control, which writes one after the other, loses some as well.
const LOST_BY_CHANCE: usize = 100;
const MAX_STALENESS: Duration = Duration::from_millis(300);
const ARGS: &[&str] = &[
    "--upstream-timeout",
    "1s",
    "--connect-timeout",
    "500ms",
    "--max-staleness",
    "300ms",
    "--workers",
    "2",
    "--cache-churning",
    "yes",
];
/// Appended to the file before a reply leaves, so that what was acknowledged survives a kill.
const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "no"];

/// What a fault cost.
struct Cost {
    report: Report,
    /// Acknowledged writes that are gone.
    lost: usize,
}

/// Runs load and checked reads while `fault` happens, and until everybody is served again.
fn under_load(name: &str, cluster: &mut RedisCluster, fault: impl FnOnce(&mut RedisCluster)) -> Cost {
    under_load_but(None, name, cluster, fault)
}

/// The same where the keys of a node vanish. None of them is among the checked reads.
fn under_load_but(
    emptied: Option<usize>,
    name: &str,
    cluster: &mut RedisCluster,
    fault: impl FnOnce(&mut RedisCluster),
) -> Cost {
    let nearside = Nearside::before_cluster(cluster, ARGS);
    Load::prepare(&mut cluster.client());
    let replicas = usize::from(!cluster.replicas(0).is_empty());
    let writer = cluster.client().with_node_timeout(Duration::from_millis(500)).with_writes_on_replicas(replicas);
    let lasts = |key: &String| emptied != Some(cluster.owner_of(key));
    let fresh = spread_keys(FRESH_KEYS, name).into_iter().filter(lasts).collect();
    let freshness = Freshness::on_keys(fresh, writer, nearside.address(), MAX_STALENESS);
    let control = Control::start(cluster, CONTROL_WRITERS);
    let start = if emptied.is_some() { Load::start_where_keys_may_vanish } else { Load::start };
    let load = start(nearside.address(), CLIENTS, DEADLINE);
    load.wait_for_answers(100, RECOVERY);
    fault(cluster);
    cluster.wait_until_ok();
    let recovered = Instant::now();
    load.wait_for_answers(100, RECOVERY);
    let resumed = recovered.elapsed();
    let reads = freshness.reads();
    eventually("checked reads go on", RECOVERY, || (freshness.reads() > reads + 50).then_some(()));
    let stale = freshness.finish();
    let mut report = load.finish(&mut cluster.client());
    let lost = report.assert_faultless_but_for_lost_writes();
    let control = control.finish(&mut cluster.client());
    eprintln!(
        "{name}: {} answered, {} refused, {} writes acknowledged, {lost} of them lost (direct: {}, \
         {}), slowest {:?}, 100 answers each {resumed:?} after the cluster said ok, {} checked reads",
        report.answered, report.refused, report.acknowledged, control.acknowledged, control.lost, report.slowest, reads
    );
    assert!(report.lost_runs <= 1, "{name}: writes were lost at {} times", report.lost_runs);
    assert!(lost <= LOST_BY_CHANCE || control.lost > 0, "{name}: {lost} writes were lost, and the control lost none");
    assert!(stale.is_empty(), "{name}: {} of {reads} reads: {:?}", stale.len(), &stale[..stale.len().min(5)]);
    assert!(report.acknowledged > CLIENTS, "writes were made");
    Cost { report, lost }
}

fn with_replicas(args: &[&str]) -> RedisCluster {
    RedisCluster::with_replicas(3, 1, args)
}

#[test]
fn a_primary_that_is_killed_is_replaced_by_its_replica() {
    if calibrating("way to outlive a node") {
        return;
    }
    let mut cluster = with_replicas(&[]);
    let replica = cluster.replicas(0)[0];
    let cost = under_load("killed", &mut cluster, |cluster| {
        cluster.kill(0);
        cluster.wait_until_promoted(replica);
    });
    assert!(cost.report.refused > 0, "the fault was felt");
}

#[test]
fn a_primary_that_stands_still_is_replaced_and_comes_back_as_a_replica() {
    if calibrating("way to outlive a node") {
        return;
    }
    let mut cluster = with_replicas(&[]);
    let replica = cluster.replicas(1)[0];
    let cost = under_load("stopped", &mut cluster, |cluster| {
        cluster.stop(1);
        cluster.wait_until_promoted(replica);
        cluster.resume(1);
    });
    assert!(cost.report.refused > 0, "the fault was felt");
}

#[test]
fn who_waits_for_a_primary_that_stands_still_waits_no_longer_once_another_has_taken_over() {
    if calibrating("way to outlive a node") {
        return;
    }
    let mut cluster = with_replicas(&[]);
    let replica = cluster.replicas(1)[0];
    let key = key_in_slot(cluster.slots(1)[0], "waits");
    let nearside = Nearside::ready_before_cluster(&cluster, &["--upstream-timeout", "1h"]);
    let (mut client, mut pinned) = (nearside.client(), nearside.client());
    assert_eq!(client.call(&format!("SET {key} 1")), "+OK\r\n");
    assert_eq!(pinned.pipeline(&[&format!("WATCH {key}"), &format!("GET {key}")])[1], "$1\r\n1\r\n");
    cluster.stop(1);
    for client in [&mut client, &mut pinned] {
        client.send(format!("SET {key} 2\r\n").as_bytes());
    }
    cluster.wait_until_promoted(replica);
    for client in [&mut client, &mut pinned] {
        let refused = client.reply();
        assert!(refused.starts_with(b"-UPSTREAM lost the connection"), "{refused:?}");
    }
    assert_eq!(client.call(&format!("SET {key} 3")), "+OK\r\n");
}

#[test]
fn a_node_that_stands_still_for_less_than_the_timeout_costs_nothing_but_time() {
    let mut cluster = RedisCluster::with_replicas(3, 0, &["--cluster-node-timeout", "15000"]);
    let cost = under_load("stopped briefly", &mut cluster, |cluster| {
        cluster.stop(2);
        std::thread::sleep(Duration::from_millis(250));
        cluster.resume(2);
    });
    assert_eq!((cost.report.refused, cost.lost), (0, 0));
}

#[test]
fn a_node_that_is_killed_and_comes_back_with_its_data_loses_nothing() {
    if calibrating("way to outlive a node") {
        return;
    }
    let mut cluster = RedisCluster::with_replicas(3, 0, DURABLE);
    let cost = under_load("restarted", &mut cluster, |cluster| {
        cluster.kill(0);
        std::thread::sleep(Duration::from_millis(300));
        cluster.restart(0);
    });
    assert!(cost.report.refused > 0, "the fault was felt");
    assert_eq!(cost.lost, 0);
}

#[test]
fn a_node_that_comes_back_empty_is_believed() {
    if calibrating("cache") {
        return;
    }
    let mut cluster = RedisCluster::start(3);
    let nearside = Nearside::before_cluster(&cluster, ARGS);
    let mut client = nearside.client();
    let keys = spread_keys(6, "gone");
    for key in &keys {
        assert_eq!(client.call(&format!("SET {key} v")), "+OK\r\n");
        eventually("it is read", RECOVERY, || (client.call(&format!("GET {key}")).bulk() == Some(b"v")).then_some(()));
    }
    let lost: Vec<_> = keys.iter().filter(|key| cluster.owner_of(key) == 0).cloned().collect();
    assert!(!lost.is_empty() && lost.len() < keys.len());
    cluster.kill(0);
    cluster.restart_empty(0);
    cluster.wait_until_ok();
    std::thread::sleep(MAX_STALENESS);
    for key in &keys {
        let expected = if lost.contains(key) { "$-1\r\n" } else { "$1\r\nv\r\n" };
        eventually("traffic resumes", RECOVERY, || {
            let reply = client.call(&format!("GET {key}"));
            let is_refused = reply.starts_with(b"-UPSTREAM ") || reply.starts_with(b"-CLUSTERDOWN ");
            assert!(is_refused || reply == expected, "{key}: {reply:?}");
            (!is_refused).then_some(())
        });
    }
}

#[test]
fn a_node_that_comes_back_empty_costs_what_was_on_it_and_nothing_else() {
    if calibrating("way to outlive a node") {
        return;
    }
    let mut cluster = RedisCluster::start(3);
    let cost = under_load_but(Some(0), "restarted empty", &mut cluster, |cluster| {
        cluster.kill(0);
        cluster.restart_empty(0);
    });
    assert!(cost.report.refused > 0 && cost.lost > 0, "the fault was felt");
}

#[test]
fn a_replica_that_takes_over_in_agreement_costs_no_write() {
    let mut cluster = with_replicas(&[]);
    let replica = cluster.replicas(0)[0];
    let cost = under_load("failover", &mut cluster, |cluster| {
        cluster.promote(replica, Failover::Plain);
        cluster.wait_until_ok(); // else its old primary does not follow it yet
        cluster.promote(0, Failover::Plain);
    });
    assert_eq!(cost.lost, 0);
}

#[test]
fn a_replica_that_takes_over_by_force_is_followed() {
    for (name, how) in [("forced failover", Failover::Force), ("takeover", Failover::Takeover)] {
        let mut cluster = with_replicas(&[]);
        let replica = cluster.replicas(2)[0];
        under_load(name, &mut cluster, |cluster| {
            cluster.promote(replica, how);
        });
    }
}

#[test]
fn slots_move_back_and_forth_under_load() {
    let mut cluster = RedisCluster::start(3);
    let cost = under_load("slots moved", &mut cluster, |cluster| {
        let slots: Vec<u16> = (0..SLOTS).step_by(16).collect();
        cluster.move_slots(slots.iter().copied(), 1);
        cluster.move_slots(slots, 2);
    });
    assert_eq!((cost.report.refused, cost.lost), (0, 0));
}

#[test]
fn a_node_is_added_and_another_removed_under_load() {
    let mut cluster = RedisCluster::start(3);
    let cost = under_load("node added, node removed", &mut cluster, |cluster| {
        let added = cluster.add_primary();
        let slots = cluster.slots(0);
        cluster.move_slots(slots, added);
        cluster.remove(0);
    });
    assert_eq!(cost.lost, 0);
}

#[test]
fn all_nodes_are_replaced_while_the_proxy_runs() {
    let mut cluster = RedisCluster::start(2);
    let cost = under_load("all nodes replaced", &mut cluster, |cluster| {
        cluster.replace_all_nodes();
    });
    assert_eq!(cost.lost, 0);
}

#[test]
fn a_whole_cluster_that_was_away_is_found_again_by_its_seeds() {
    if calibrating("way to outlive a node") {
        return;
    }
    let mut cluster = RedisCluster::with_replicas(3, 0, DURABLE);
    let cost = under_load("all killed and restarted", &mut cluster, |cluster| {
        (0..3).for_each(|node| cluster.kill(node));
        std::thread::sleep(Duration::from_millis(500));
        (0..3).for_each(|node| cluster.restart(node));
    });
    assert!(cost.report.refused > 0, "the fault was felt");
    assert_eq!(cost.lost, 0);
}

#[test]
fn one_node_that_is_gone_or_stands_still_holds_up_nobody_else() {
    if calibrating("timeouts") {
        return;
    }
    for way in ["stop", "kill"] {
        let mut cluster = RedisCluster::with_replicas(3, 0, &["--cluster-require-full-coverage", "no"]);
        let slow = ["--upstream-timeout", "20s", "--connect-timeout", "20s", "--workers", "1"];
        let nearside = Nearside::before_cluster(&cluster, &slow);
        let key_of = |node: usize| key_in_slot(cluster.slots(node)[7], "mine");
        let (dead, alive) = (key_of(0), key_of(1));
        let mut client = nearside.client();
        eventually("all are served", RECOVERY, || {
            let served = [&dead, &alive].map(|key| client.call(&format!("APPEND {key} x")).integer().is_some());
            (served == [true, true]).then_some(())
        });
        let mut waiting = nearside.client();
        if way == "stop" {
            cluster.stop(0)
        } else {
            cluster.kill(0)
        }
        waiting.send(format!("APPEND {dead} x\r\n").as_bytes());
        // Twice the commands of a pipeline, on one connection and on many: all of it long before the first timeout.
        for _ in 0..50 {
            let mut other = nearside.client();
            other.set_patience(DEADLINE);
            for reply in other.exchange(format!("APPEND {alive} x\r\n").repeat(100).as_bytes(), 100) {
                assert!(reply.integer().is_some(), "{way}: {reply:?}");
            }
        }
        if way == "stop" {
            cluster.resume(0);
            assert!(waiting.reply().integer().is_some());
        } else {
            assert!(waiting.reply().starts_with(b"-UPSTREAM "));
        }
    }
}
