//! The cluster that the tests stand on: it starts, it fails as it should, and its client follows it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use nearside_tests::generator::templates::LEFT_OUT_ON_CLUSTER;
use nearside_tests::generator::{Generator, Keyspace, all_templates, generated_names};
use nearside_tests::{
    Address, Client, ClusterClient, Failover, Freshness, Load, RedisCluster, RedisServer, SLOTS, Worlds, Wrong,
    WrongProxy, eventually, key_in_slot, key_slot, spread_keys,
};

const SOON: Duration = Duration::from_secs(15);
const WORK: Duration = Duration::from_millis(400);
const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "no"];

#[test]
fn the_slots_are_evenly_spread_and_every_node_knows_their_owners() {
    let cluster = RedisCluster::start(3);
    assert_eq!([0, 5460, 5461, 10_921, 10_922, 16_383].map(|slot| cluster.owner(slot)), [0, 0, 1, 1, 2, 2]);
    assert_eq!((0..3).map(|node| cluster.slots(node).len()).sum::<usize>(), usize::from(SLOTS));
    assert_eq!(cluster.owner_of("{k}1"), cluster.owner(key_slot(b"k")));
    let url = cluster.url();
    assert!(url.starts_with("redis-cluster://127.0.0.1:") && url.split(',').count() == 3, "{url}");
    the_client_finds_every_key_whatever_node_it_begins_with(&cluster);
}

fn the_client_finds_every_key_whatever_node_it_begins_with(cluster: &RedisCluster) {
    for seed in cluster.addresses() {
        for (number, key) in spread_keys(6, "name").iter().enumerate() {
            let mut client = ClusterClient::connect(std::slice::from_ref(&seed));
            assert_eq!(client.try_command(&["SET", key, "v"]).unwrap(), "+OK\r\n");
            let owner = cluster.node(cluster.owner_of(key));
            assert_eq!(owner.client().command(&["GET", key]), "$1\r\nv\r\n", "key {number}");
            assert_eq!(client.command(&["EVAL", "return redis.call('GET', KEYS[1])", "1", key]), "$1\r\nv\r\n");
        }
    }
    let mut client = cluster.client().with_resp3();
    assert_eq!(client.call("GET nosuch"), "_\r\n");
    assert!(client.call("MGET a b").starts_with(b"-CROSSSLOT "));
}

#[test]
fn the_slot_of_a_key_is_the_one_that_redis_says() {
    let redis = RedisServer::cluster_node(&[]);
    let mut client = redis.client();
    for key in ["", "k", "foo{bar}", "{}a", "{a}{b}", "}{", "a{b", "{{a}}", "tagged:17", "\u{e4}"] {
        assert_eq!(client.command(&["CLUSTER", "KEYSLOT", key]).integer(), Some(i64::from(key_slot(key.as_bytes()))));
    }
    for slot in [0, 1, 9_999, SLOTS - 1] {
        assert_eq!(key_slot(key_in_slot(slot, "name").as_bytes()), slot);
    }
}

#[test]
fn a_half_migrated_slot_asks_and_the_client_follows() {
    let cluster = RedisCluster::start(2);
    let names = ["{t}1", "{t}2", "{t}3"];
    let mut client = cluster.client();
    names.iter().for_each(|name| assert_eq!(client.command(&["SET", name, name]), "+OK\r\n"));
    let (slot, from) = (key_slot(b"t"), cluster.owner_of("{t}"));
    let mut source = cluster.node(from).client();

    let migration = cluster.begin_migration(slot, 1 - from);
    assert_eq!(cluster.migrate_keys(&migration, 1), 1);
    let replies = names.map(|name| source.command(&["GET", name]));
    assert_eq!(replies.iter().filter(|reply| reply.starts_with(b"-ASK ")).count(), 1, "{replies:?}");
    assert!(client.try_command(&["MGET", names[0], names[1], names[2]]).unwrap().starts_with(b"-TRYAGAIN "));
    names.iter().for_each(|name| assert_eq!(client.command(&["GET", name]).bulk(), Some(name.as_bytes())));
    assert_eq!(client.call("SET {t}new v"), "+OK\r\n");
    assert!(source.call("GET {t}new").starts_with(b"-ASK "));
    assert_eq!(cluster.owner(slot), from);

    std::thread::scope(|scope| {
        let all = scope.spawn(|| cluster.client().command(&["MGET", names[0], names[1], names[2]]));
        std::thread::sleep(WORK);
        cluster.finish_migration(migration);
        assert_eq!(all.join().unwrap(), "*3\r\n$4\r\n{t}1\r\n$4\r\n{t}2\r\n$4\r\n{t}3\r\n", "TRYAGAIN passes");
    });
    assert_eq!(cluster.owner(slot), 1 - from);
    assert!(source.command(&["GET", names[0]]).starts_with(b"-MOVED "));
    assert_eq!(client.call("GET {t}new"), "$1\r\nv\r\n");
    cluster.wait_until_ok();
}

#[test]
fn many_slots_move_with_their_keys_while_others_write() {
    let cluster = RedisCluster::start(2);
    Load::prepare(&mut cluster.client());
    let proxy = WrongProxy::before_cluster(&cluster, Wrong::InNoWay);
    let load = Load::start(proxy.address(), 2, SOON);
    cluster.move_slots(cluster.slots(0), 1);
    assert!(cluster.slots(0).is_empty() && cluster.is_primary(0));
    load.wait_for_answers(100, SOON);
    let report = load.finish(&mut cluster.client());
    report.assert_faultless();
    assert_eq!(report.refused, 0);
}

#[test]
fn every_node_can_be_replaced() {
    let mut cluster = RedisCluster::with_replicas(2, 1, &[]);
    let (before, keys) = (cluster.addresses(), spread_keys(50, "name"));
    let mut client = cluster.client();
    keys.iter().for_each(|key| assert_eq!(client.command(&["SET", key, key]), "+OK\r\n"));
    assert_eq!(cluster.replace_all_nodes(), 4..6);
    let after = cluster.addresses();
    assert!(after.len() == 2 && !after.iter().any(|address| before.contains(address)), "{before:?} {after:?}");
    let mut client = cluster.client();
    keys.iter().for_each(|key| assert_eq!(client.command(&["GET", key]).bulk(), Some(key.as_bytes())));
}

#[test]
fn a_killed_primary_is_replaced_by_its_replica_and_comes_back_as_one() {
    let mut cluster = RedisCluster::with_replicas(3, 1, &[]);
    assert_eq!(cluster.replicas(0), [3]);
    let mut client = cluster.client().with_writes_on_replicas(1);
    let key = key_in_slot(0, "name");
    assert_eq!(client.command(&["SET", &key, "v"]), "+OK\r\n");
    cluster.kill(0);
    cluster.wait_until_promoted(3);
    assert_eq!(cluster.client().command(&["GET", &key]), "$1\r\nv\r\n");
    cluster.restart(0);
    cluster.wait_until_ok();
    assert!(!cluster.is_primary(0));
    assert_eq!(cluster.owner(0), 3);
}

#[test]
fn a_primary_that_stands_still_is_replaced_and_yields_when_it_wakes() {
    let mut cluster = RedisCluster::with_replicas(3, 1, &[]);
    cluster.stop(1);
    cluster.wait_until_promoted(4);
    cluster.resume(1);
    cluster.wait_until_ok();
    assert!(!cluster.is_primary(1));
    assert_eq!(cluster.replicas(4), [1]);
}

#[test]
fn a_replica_is_promoted_in_each_of_the_ways() {
    let cluster = RedisCluster::with_replicas(3, 1, &[]);
    for (primary, how) in [Failover::Plain, Failover::Force, Failover::Takeover].into_iter().enumerate() {
        cluster.failover(3 + primary, how);
        cluster.wait_until_promoted(3 + primary);
        cluster.wait_until_ok();
        assert!(!cluster.is_primary(primary), "{how:?}");
    }
}

#[test]
fn a_restarted_node_has_what_it_saved_and_an_emptied_one_only_its_slots() {
    let mut cluster = RedisCluster::with_replicas(3, 0, DURABLE);
    let keys = [0, SLOTS / 2, SLOTS - 1].map(|slot| key_in_slot(slot, "name"));
    keys.iter().for_each(|key| assert_eq!(cluster.client().command(&["SET", key, "v"]), "+OK\r\n"));
    cluster.restart(0);
    cluster.restart_empty(1);
    // They refuse keys at first: the client waits.
    let mut client = cluster.client();
    assert_eq!(keys.map(|key| client.command(&["GET", &key]).0), [&b"$1\r\nv\r\n"[..], b"$-1\r\n", b"$1\r\nv\r\n"]);
    cluster.wait_until_ok();
    assert_eq!([0, SLOTS / 2].map(|slot| cluster.owner(slot)), [0, 1]);
}

#[test]
fn a_cluster_with_slots_that_nobody_serves_is_down_until_their_node_is_back() {
    let mut cluster = RedisCluster::with_replicas(3, 0, &["--cluster-node-timeout", "300"]);
    cluster.kill(2);
    let mut survivor = cluster.node(0).client();
    let key = key_in_slot(0, "name");
    eventually("the survivors notice", SOON, || {
        survivor.command(&["GET", &key]).starts_with(b"-CLUSTERDOWN ").then_some(())
    });
    let mut client = cluster.client();
    client.set_patience(Duration::from_millis(100));
    assert!(client.command(&["GET", &key]).starts_with(b"-CLUSTERDOWN "), "it is given when patience ends");
    cluster.restart(2);
    cluster.wait_until_ok();
    assert_eq!(client.command(&["GET", &key]), "$-1\r\n");
}

#[test]
fn load_over_a_cluster_is_judged_as_over_a_server() {
    let mut cluster = RedisCluster::with_replicas(3, 1, &[]);
    Load::prepare(&mut cluster.client());
    for (wrong, is_right) in [(Wrong::InNoWay, true), (Wrong::LosesWrites, false)] {
        let proxy = WrongProxy::before_cluster(&cluster, wrong);
        let load = Load::start(proxy.address(), 4, SOON);
        std::thread::sleep(WORK);
        let mut report = load.finish(&mut cluster.client());
        let faults = report.faults.len();
        assert_eq!(faults == 0, is_right, "{report:?}");
        assert_eq!(report.assert_faultless_but_for_lost_writes(), faults);
        (0..4).for_each(|client| drop(cluster.client().call(&format!("DEL journal:{client}"))));
    }
    let proxy = WrongProxy::before_cluster(&cluster, Wrong::InNoWay);
    let load = Load::start(proxy.address(), 4, SOON);
    cluster.kill(0);
    cluster.wait_until_promoted(3);
    load.wait_for_answers(50, SOON);
    let mut report = load.finish(&mut cluster.client());
    let lost = report.assert_faultless_but_for_lost_writes();
    assert!(report.refused > 0, "the fault was felt");
    eprintln!("{lost} of {} writes lost in the failover", report.acknowledged);
}

#[test]
fn stale_reads_over_a_cluster_are_found_and_fresh_ones_are_not() {
    let cluster = RedisCluster::start(3);
    for (wrong, is_stale) in [(Wrong::InNoWay, false), (Wrong::CachesForEver, true)] {
        let proxy = WrongProxy::before_cluster(&cluster, wrong);
        let freshness = Freshness::start_on_cluster(&cluster, proxy.address(), Duration::from_millis(50));
        std::thread::sleep(WORK);
        assert!(freshness.reads() > 50);
        assert_eq!(!freshness.finish().is_empty(), is_stale, "{wrong:?}");
    }
}

#[test]
fn writes_that_replicas_have_are_fresh_over_a_failover() {
    let mut cluster = RedisCluster::with_replicas(3, 1, &[]);
    let proxy = WrongProxy::before_cluster(&cluster, Wrong::InNoWay);
    let keys = vec![key_in_slot(0, "versioned")];
    let writer = cluster.client().with_writes_on_replicas(1).with_node_timeout(WORK);
    let freshness = Freshness::on_keys(keys, writer, proxy.address(), Duration::from_millis(50));
    std::thread::sleep(WORK);
    let reads = freshness.reads();
    cluster.kill(0);
    cluster.wait_until_promoted(3);
    eventually("reads go on", SOON, || (freshness.reads() > reads + 100).then_some(()));
    std::thread::sleep(WORK);
    let stale = freshness.finish();
    assert!(stale.is_empty(), "{stale:?}");
}

#[test]
fn two_clusters_that_differ_in_nothing_give_the_same_bytes_to_every_generated_command() {
    let (right, left) = std::thread::scope(|scope| {
        let left = scope.spawn(|| RedisCluster::start(3));
        (RedisCluster::start(2), left.join().unwrap())
    });
    let proxy = WrongProxy::before_cluster(&right, Wrong::InNoWay);
    let mut worlds = Worlds::connect_to_cluster(&left.addresses(), proxy.address(), 2, 1);
    let mut generator = Generator::new(1, Keyspace::Tagged("t".to_owned()));
    for turn in 0.. {
        worlds.pipeline(turn % 2, &generator.pipeline()).unwrap();
        if worlds.compared() > 10_000 {
            break;
        }
    }
    assert!(worlds.errors() * 3 < worlds.compared(), "{} of {}", worlds.errors(), worlds.compared());
    let sizes = (0..3).map(|node| left.node(node).client().call("DBSIZE").integer().unwrap());
    assert!(sizes.into_iter().all(|size| size > 20), "every node has keys");
}

#[test]
fn the_keys_of_a_command_have_one_slot_but_for_a_few_commands_that_no_proxy_may_take_apart() {
    let mut generator = Generator::new(1, Keyspace::Tagged("t".to_owned()));
    let commands = (0..100).flat_map(|_| generator.pipeline()).collect::<Vec<_>>();
    let is_key = |arg: &&Vec<u8>| arg.starts_with(b"{t");
    let slots = |args: &[Vec<u8>]| args.iter().filter(is_key).map(|key| key_slot(key)).collect::<BTreeSet<_>>().len();
    let crossing = commands.iter().filter(|command| slots(&command.args) > 1).collect::<Vec<_>>();
    assert!((1..commands.len() / 30).contains(&crossing.len()), "{} of {}", crossing.len(), commands.len());
    let is_split = |name: &[u8]| ["MGET", "DEL"].iter().any(|split| name.eq_ignore_ascii_case(split.as_bytes()));
    assert!(!crossing.iter().any(|command| is_split(&command.args[0])), "{crossing:?}");
    let multiple = commands.iter().filter(|command| command.args.iter().filter(is_key).count() > 1).count();
    assert!(multiple > commands.len() / 10, "{multiple} of {}", commands.len());
}

#[test]
fn what_is_left_out_on_a_cluster_is_generated_elsewhere() {
    let (names, templates) = (generated_names(), all_templates().collect::<BTreeSet<_>>());
    let left_out = LEFT_OUT_ON_CLUSTER.iter().flat_map(|(_, entries)| *entries);
    let unknown = left_out.filter(|entry| !names.contains(**entry) && !templates.contains(**entry)).collect::<Vec<_>>();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn a_server_of_its_own_is_a_cluster_to_the_client() {
    let mut redis = RedisServer::start();
    let mut client = ClusterClient::connect(&[redis.address()]);
    assert_eq!(client.call("SET k v"), "+OK\r\n");
    redis.restart();
    assert_eq!(client.call("GET k"), "$-1\r\n");
}

#[test]
fn a_primary_that_is_cut_off_from_the_others_keeps_its_clients_for_a_while_and_is_replaced() {
    let cluster = RedisCluster::behind_relays(3, 1, &[]);
    let (replica, key) = (cluster.replicas(0)[0], key_in_slot(0, "k"));
    let mut client = cluster.client();
    assert_eq!(client.call(&format!("SET {key} 1")), "+OK\r\n");
    let Address::Tcp(real) = cluster.node(0).address() else { panic!("a node listens on TCP") };
    let through = cluster.node(1).client().call(&format!("GET {key}"));
    assert!(
        !through.text().ends_with(&format!(":{}\\r\\n", real.port())),
        "a node is told to be at its relay: {through:?}"
    );

    cluster.isolate(0);
    let mut isolated = Client::connect(cluster.gate(0).address());
    assert_eq!(isolated.call(&format!("GET {key}")), "$1\r\n1\r\n", "it does not know yet, and its clients reach it");
    eventually("its replica takes over", SOON, || cluster.is_primary(replica).then_some(()));
    eventually("it refuses", SOON, || isolated.call(&format!("GET {key}")).starts_with(b"-CLUSTERDOWN ").then_some(()));
    assert!(cluster.is_primary(0), "nobody has told it");
    cluster.reunite();
    cluster.wait_until_ok();
    assert!(!cluster.is_primary(0));

    cluster.cut_off_clients(replica);
    let mut client = Client::connect(cluster.gate(replica).address());
    client.set_patience(WORK);
    client.send(b"PING\r\n");
    assert!(client.try_reply().is_err());
    std::thread::sleep(Duration::from_secs(2));
    cluster.gate(replica).resume();
    assert!(cluster.is_primary(replica), "the other nodes reached it all along");
}
