//! Thousands of commands to Redis directly and through Nearside: the same bytes come back.
//!
//! `NEARSIDE_TEST_SEED=N` replays a run, `NEARSIDE_TEST_COMMANDS=N` makes it longer.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::SystemTime;

use nearside_tests::generator::templates::LEFT_OUT;
use nearside_tests::generator::{Generator, Keyspace, generated_names};
use nearside_tests::{Difference, Nearside, RedisServer, Worlds};

const CONNECTIONS: usize = 4;
const COMMANDS: usize = 60_000;

#[test]
fn connections_that_take_turns_get_the_bytes_that_redis_gives() {
    let (direct, behind) = (RedisServer::start(), RedisServer::start());
    let nearside = Nearside::before(&behind);
    let seed = seed();
    let mut worlds = Worlds::connect(&direct.address(), nearside.address(), CONNECTIONS, seed);
    let mut generator = Generator::new(seed, Keyspace::Shared);
    let mut turns = fastrand::Rng::with_seed(seed);
    while worlds.compared() < commands() {
        let commands = generator.pipeline();
        worlds
            .pipeline(turns.usize(..CONNECTIONS), &commands)
            .unwrap_or_else(|difference| replay_with(seed, difference));
    }
    assert_worth_comparing(&worlds);
}

#[test]
fn connections_that_run_at_once_get_the_bytes_that_redis_gives() {
    let (direct, behind) = (RedisServer::start(), RedisServer::start());
    let nearside = Nearside::with(&behind, &["--workers", "4"]);
    let seed = seed();
    std::thread::scope(|scope| {
        for number in 0..CONNECTIONS as u64 {
            let (direct, proxied, seed) = (direct.address(), nearside.address().clone(), seed + number);
            scope.spawn(move || {
                // Two connections of each thread: one of RESP2, one of RESP3, on the same keys.
                let mut worlds = Worlds::connect(&direct, &proxied, 2, seed);
                let mut generator = Generator::new(seed, Keyspace::Own(format!("thread{number}:")));
                while worlds.compared() < commands() / CONNECTIONS {
                    let commands = generator.pipeline();
                    let turn = worlds.compared() % 2;
                    worlds
                        .pipeline(turn, &commands)
                        .unwrap_or_else(|difference| replay_with(seed - number, difference));
                }
                assert_worth_comparing(&worlds);
            });
        }
    });
}

#[test]
fn every_command_of_the_server_is_generated_or_left_out_for_a_reason() {
    let redis = RedisServer::start();
    let listed = redis.client().call("COMMAND LIST").elements();
    let known =
        listed.iter().map(|name| String::from_utf8(name.bulk().unwrap().to_vec()).unwrap()).collect::<BTreeSet<_>>();
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
