//! Thousands of commands to Redis directly and through Nearside: the same bytes come back.
//!
//! Before a cluster too, where a client that follows redirections by itself is the measure.
//!
//! `NEARSIDE_TEST_SEED=N` replays a run, `NEARSIDE_TEST_COMMANDS=N` makes it longer.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use nearside_tests::generator::newer::LEFT_OUT_ON_SERVERS;
use nearside_tests::generator::templates::{LEFT_OUT, LEFT_OUT_ON_CLUSTER};
use nearside_tests::generator::{Generated, Generator, Keyspace, TAGS, generated_names};
use nearside_tests::{
    Difference, Nearside, RedisCluster, RedisServer, Stops, Worlds, calibrating, key_slot, write_left_out,
};

const CONNECTIONS: usize = 4;
const COMMANDS: usize = 60_000;

#[test]
fn connections_that_take_turns_get_the_bytes_that_redis_gives() {
    let (direct, behind) = (RedisServer::start(), RedisServer::start());
    let nearside = Nearside::before(&behind);
    let seed = seed();
    let worlds = Worlds::connect(&direct.address(), nearside.address(), CONNECTIONS, seed);
    compare_in_turns(worlds, Keyspace::Shared, seed, &behind);
}

#[test]
fn connections_that_run_at_once_get_the_bytes_that_redis_gives() {
    let (direct, behind) = (RedisServer::start(), RedisServer::start());
    let nearside = Nearside::with(&behind, &["--workers", "4"]);
    let connect = |seed| Worlds::connect(&direct.address(), nearside.address(), 2, seed);
    compare_at_once(connect, |thread| Keyspace::Own(thread_tag(thread)), |_| true, &behind);
}

#[test]
fn before_a_cluster_connections_that_take_turns_get_the_bytes_that_redis_gives() {
    if calibrating("cluster") {
        return;
    }
    let (direct, behind) = two_clusters();
    let nearside = Nearside::ready_before_cluster(&behind, &[]);
    let seed = seed();
    let worlds = Worlds::connect_to_cluster(&direct.addresses(), nearside.address(), CONNECTIONS, seed);
    compare_in_turns(worlds, Keyspace::Tagged("turns".to_owned()), seed, behind.node(0));
}

#[test]
fn before_a_cluster_connections_that_run_at_once_get_the_bytes_that_redis_gives() {
    if calibrating("cluster") {
        return;
    }
    let (direct, behind) = two_clusters();
    let nearside = Nearside::ready_before_cluster(&behind, &["--workers", "4"]);
    compare_clusters_at_once(&direct, &nearside, |_| true);
}

#[test]
fn while_slots_move_connections_that_run_at_once_get_the_bytes_that_redis_gives() {
    if calibrating("cluster") {
        return;
    }
    let (direct, behind) = two_clusters();
    let nearside = Nearside::ready_before_cluster(&behind, &["--workers", "4"]);
    let compared = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| move_about(&behind, &compared));
        let _stops = Stops(&compared);
        compare_clusters_at_once(&direct, &nearside, |command| !may_wait(command) && !shows_that_it_moved(command));
        compared.store(true, Ordering::Relaxed);
        let moves = moving.join().unwrap();
        assert!(moves > 50, "{moves} slots moved meanwhile");
    });
    let redirected = ["MOVED", "ASK"].map(|code| (0..2).map(|node| behind.node(node).errors(code)).sum::<u64>());
    assert!(redirected.iter().all(|count| *count > 50), "MOVED and ASK were met: {redirected:?}");
}

/// One that stands still, with nodes of its own number, and one before which Nearside is put.
fn two_clusters() -> (RedisCluster, RedisCluster) {
    std::thread::scope(|scope| {
        let behind = scope.spawn(|| RedisCluster::start(2));
        (RedisCluster::start(3), behind.join().unwrap())
    })
}

/// Compares on one connection after the other what a server like this one has.
fn compare_in_turns(mut worlds: Worlds, keyspace: Keyspace, seed: u64, server: &RedisServer) {
    let upstream = upstream(&keyspace);
    let mut generator = Generator::new(seed, keyspace).for_server(&server.commands());
    let mut turns = fastrand::Rng::with_seed(seed);
    while worlds.compared() < commands() {
        let commands = generator.pipeline();
        worlds
            .pipeline(turns.usize(..CONNECTIONS), &commands)
            .unwrap_or_else(|difference| replay_with(seed, difference));
    }
    assert_worth_comparing(&worlds);
    worlds.tally().write(upstream, server);
}

fn upstream(keyspace: &Keyspace) -> &'static str {
    if matches!(keyspace, Keyspace::Tagged(_)) { "cluster" } else { "standalone" }
}

/// Compares the commands that are `wanted` of what a server like this one has, each of several threads with keys of its own.
fn compare_at_once(
    connect: impl Fn(u64) -> Worlds + Sync,
    keyspace: fn(u64) -> Keyspace,
    wanted: fn(&Generated) -> bool,
    server: &RedisServer,
) {
    let seed = seed();
    let known = server.commands();
    std::thread::scope(|scope| {
        for number in 0..CONNECTIONS as u64 {
            let (connect, known) = (&connect, &known);
            scope.spawn(move || {
                let seed = seed + number;
                // Two connections of each thread: one of RESP2, one of RESP3, on the same keys.
                let mut worlds = connect(seed);
                let mut generator = Generator::new(seed, keyspace(number)).for_server(known);
                while worlds.compared() < commands() / CONNECTIONS {
                    let mut commands = generator.pipeline();
                    commands.retain(wanted);
                    let turn = worlds.compared() % 2;
                    worlds
                        .pipeline(turn, &commands)
                        .unwrap_or_else(|difference| replay_with(seed - number, difference));
                }
                assert_worth_comparing(&worlds);
                worlds.tally().write(upstream(&keyspace(number)), server);
            });
        }
    });
}

/// The same before a cluster, on keys of which each thread has some hash tags.
fn compare_clusters_at_once(direct: &RedisCluster, nearside: &Nearside, wanted: fn(&Generated) -> bool) {
    let connect = |seed| Worlds::connect_to_cluster(&direct.addresses(), nearside.address(), 2, seed);
    compare_at_once(connect, |thread| Keyspace::Tagged(thread_tag(thread)), wanted, direct.node(0));
}

fn thread_tag(number: u64) -> String {
    format!("thread{number}:")
}

/// Moves the slots of all threads from node to node, one after the other, and tells how many moved.
///
/// None goes back at once. In Valkey 8 a node that imports a slot takes any message of the source that does not claim the
/// slot for the source's giving it up: it takes the slot with the keys that have come, and the source deletes the others.
/// A message from before the slot came to the source is still on its way then.
fn move_about(cluster: &RedisCluster, enough: &AtomicBool) -> usize {
    let tags =
        (0..CONNECTIONS as u64).flat_map(|thread| (0..TAGS).map(move |tag| format!("{}{tag}", thread_tag(thread))));
    let mut slots = tags.map(|tag| key_slot(tag.as_bytes())).collect::<Vec<_>>();
    let mut random = fastrand::Rng::new();
    random.shuffle(&mut slots);
    let mut moves = 0;
    for &slot in slots.iter().cycle().take_while(|_| !enough.load(Ordering::Relaxed)) {
        let migration = cluster.begin_migration(slot, 1 - cluster.owner(slot));
        std::thread::sleep(Duration::from_millis(random.u64(..3)));
        cluster.migrate_keys(&migration, random.usize(..20));
        std::thread::sleep(Duration::from_millis(random.u64(..3)));
        cluster.finish_migration(migration);
        moves += 1;
    }
    moves
}

/// Whether it names several keys: while some have moved and some have not (TRYAGAIN) it is put off, and what was already
/// sent goes before it.
fn may_wait(command: &Generated) -> bool {
    command.args.iter().filter(|arg| arg.starts_with(b"{thread")).count() > 1
}

/// Whether a key that was moved by MIGRATE may answer differently: it is encoded anew, which can make 0 of a score of -0 and
/// nothing of a vector's empty attribute, and given the rest of its time to live in milliseconds.
fn shows_that_it_moved(command: &Generated) -> bool {
    let name = command.args[0].to_ascii_lowercase();
    let subcommand = command.args.get(1).map(|word| word.to_ascii_lowercase()).unwrap_or_default();
    let is_minus_zero = |arg: &Vec<u8>| arg == b"-0";
    matches!((&*name, &*subcommand), (b"object" | b"pexpiretime" | b"vgetattr", _) | (b"xinfo", b"stream"))
        || command.args.iter().any(is_minus_zero)
}

#[test]
fn every_command_of_the_server_is_generated_or_left_out_for_a_reason() {
    let redis = RedisServer::start();
    let known = redis.commands();
    let generated = generated_names();
    let left_out =
        LEFT_OUT.iter().flat_map(|(_, names)| names.iter().map(ToString::to_string)).collect::<BTreeSet<_>>();
    let is_container = |name: &String| known.iter().any(|other| other.starts_with(&format!("{name}|")));
    let is_covered = |name: &String| {
        let container = name.split('|').next().unwrap_or_default();
        generated.contains(name) || left_out.contains(name) || left_out.contains(container)
    };

    let forgotten = known.iter().filter(|name| !is_container(name) && !is_covered(name)).collect::<Vec<_>>();
    assert!(forgotten.is_empty(), "neither generated nor left out: {forgotten:?}");
    let both =
        generated.intersection(&left_out).filter(|name| name.contains('|') || !is_container(name)).collect::<Vec<_>>();
    assert!(both.is_empty(), "generated and left out: {both:?}");

    LEFT_OUT.iter().for_each(|(reason, names)| write_left_out(&redis, &["standalone", "cluster"], reason, names));
    LEFT_OUT_ON_CLUSTER.iter().for_each(|(reason, names)| write_left_out(&redis, &["cluster"], reason, names));
    for (_, reason, names) in LEFT_OUT_ON_SERVERS.iter().filter(|(sign, ..)| known.contains(*sign)) {
        write_left_out(&redis, &["standalone", "cluster"], reason, names);
    }
}

/// Two servers that refuse everything alike would agree as well.
fn assert_worth_comparing(worlds: &Worlds) {
    assert!(worlds.errors() * 3 < worlds.compared(), "{} of {} replies are errors", worlds.errors(), worlds.compared());
}

fn replay_with(seed: u64, difference: Box<Difference>) {
    panic!("replay with NEARSIDE_TEST_SEED={seed} {difference:?}");
}

fn seed() -> u64 {
    let from_clock =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64 % 1_000_000_000;
    from_environment("NEARSIDE_TEST_SEED").unwrap_or_else(from_clock)
}

fn commands() -> usize {
    from_environment("NEARSIDE_TEST_COMMANDS").map_or(COMMANDS, |commands| usize::try_from(commands).unwrap())
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}
