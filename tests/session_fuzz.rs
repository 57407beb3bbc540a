//! Random lives of a connection, held with Redis and through Nearside: every reply is the one to its request.
//!
//! `NEARSIDE_TEST_SEED=N` replays one life, `NEARSIDE_TEST_LIVES=N` has more of them.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use nearside_tests::generator::sessions::{Life, Upstream};
use nearside_tests::{Address, Client, Nearside, RedisCluster, RedisServer, Reply, Tally, calibrating, words};

const LIVES: u64 = 400;

#[test]
fn every_reply_is_the_one_to_its_request() {
    let (direct, behind) = (RedisServer::start(), RedisServer::start());
    let nearside = Nearside::with(&behind, &["--workers", "2"]);
    compare(&direct, nearside.address(), Upstream::Standalone);
}

#[test]
fn before_a_cluster_every_reply_is_the_one_to_its_request() {
    if calibrating("cluster") {
        return;
    }
    let (direct, behind) = (RedisServer::start(), RedisCluster::start(2));
    // It refuses MULTI and WATCH between MULTI and EXEC in words of its own; before the first key, which tells the node, the
    // proxy does so in those of Redis.
    if direct.version().starts_with("valkey") {
        return;
    }
    let nearside = Nearside::ready_before_cluster(&behind, &["--workers", "2"]);
    compare(&direct, nearside.address(), Upstream::Cluster);
}

fn compare(server: &RedisServer, proxied: &Address, upstream: Upstream) {
    let direct = &server.address();
    let (first, lives) = match number("NEARSIDE_TEST_SEED") {
        Some(seed) => (seed, 1),
        None => (now(), number("NEARSIDE_TEST_LIVES").unwrap_or(LIVES)),
    };
    const THREADS: u64 = 4;
    std::thread::scope(|scope| {
        for thread in 0..THREADS.min(lives) {
            scope.spawn(move || {
                let mut tally = Tally::default();
                for seed in (first..first + lives).filter(|seed| seed % THREADS.min(lives) == thread % lives) {
                    let [expected, seen] = [direct, proxied].map(|address| live(address, seed, upstream));
                    let same = expected.lines().zip(seen.lines()).take_while(|(left, right)| left == right).count();
                    assert!(
                        expected == seen,
                        "NEARSIDE_TEST_SEED={seed} ({upstream:?})\n{}\nwith Redis\n{}\nthrough Nearside\n{}",
                        expected.lines().take(same).collect::<Vec<_>>().join("\n"),
                        expected.lines().skip(same).take(3).collect::<Vec<_>>().join("\n"),
                        seen.lines().skip(same).take(3).collect::<Vec<_>>().join("\n"),
                    );
                    count(&mut tally, seed, upstream);
                }
                tally.write(if upstream == Upstream::Cluster { "cluster" } else { "standalone" }, server);
            });
        }
    });
}

/// Counts the commands of a life that was the same.
fn count(tally: &mut Tally, seed: u64, upstream: Upstream) {
    let mut life = Life::new(seed, upstream);
    let is_resp3 = life.is_resp3();
    for command in life.commands() {
        let words = command.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        // Whether it was answered with an error is in the transcript, which is the same.
        tally.count(&words, is_resp3, false);
    }
}

/// The life of this seed, with all that was answered.
fn live(address: &Address, seed: u64, upstream: Upstream) -> String {
    let mut life = Life::new(seed, upstream);
    let mut client = Client::connect(address);
    if life.is_resp3() {
        assert!(client.call("HELLO 3").starts_with(b"%"));
    }
    let commands = life.commands();
    let mut bytes = Vec::new();
    for command in commands.iter().map(String::as_str).chain(["RESET", "ECHO the-end"]) {
        bytes.extend(words(command));
        if life.ends_write() {
            client.send(&std::mem::take(&mut bytes));
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    client.send(&bytes);
    let mut transcript = format!("{}\n", commands.join("\n"));
    // They have an order of their own, by where they come from: before a reply, or one from elsewhere, or after it.
    let mut pushes: [String; 3] = Default::default();
    loop {
        let reply = client.try_reply().unwrap_or_else(|error| panic!("seed {seed}: no reply: {error}\n{transcript}"));
        let is_last = reply.bulk() == Some(b"the-end");
        let told = if reply.starts_with(b">") { &mut pushes[source(&reply)] } else { &mut transcript };
        *told += &format!("    {:?}\n", without_ids(&reply));
        if is_last {
            return transcript + &pushes.concat();
        }
    }
}

/// Which connection of the proxy's tells this: what it tracks, shard channels, or other subscriptions.
fn source(push: &Reply) -> usize {
    match push.elements().first().and_then(Reply::bulk) {
        Some(b"invalidate") => 0,
        Some(b"ssubscribe" | b"sunsubscribe" | b"smessage") => 1,
        _ => 2,
    }
}

/// Stream ids tell the time: only their form is compared.
fn without_ids(reply: &Reply) -> Reply {
    let is_id = |bulk: &[u8]| {
        bulk.len() >= 15 && bulk.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') && bulk.contains(&b'-')
    };
    match reply.bulk() {
        Some(bulk) if is_id(bulk) => Reply(b"(id)".to_vec()),
        _ => {
            let header = reply.header().to_vec();
            let elements = reply.elements();
            if elements.is_empty() {
                return reply.clone();
            }
            let inner = elements.iter().flat_map(|element| without_ids(element).0);
            Reply(header.into_iter().chain(*b"\r\n").chain(inner).collect())
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64 / 1000
}
