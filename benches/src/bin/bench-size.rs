//! What connections cost that do nothing: the answers of busy ones, alone and among many idle.
//!
//! The same busy connections to the same process ask alone and, in the same round, with the idle ones connected; the order
//! changes from round to round. The median of the rounds' ratios is what is told.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use nearside_benches::closed_loop::ClosedLoop;
use nearside_benches::cluster::Cluster;
use nearside_benches::cpu::{self, Cores};
use nearside_benches::idle::{Idle, raise_file_limit};
use nearside_benches::median::median;
use nearside_benches::preload;
use nearside_benches::server::{Server, nearside_program};
use nearside_benches::tape::{Mix, Tape, Workload};

const KEYS: u32 = 10_000;
const VALUE_LEN: usize = 16;

/// The most that idle connections may add to the p99 of busy ones.
const P99_RATIO: f64 = 1.2;
/// The most memory with all connections idle and an empty cache.
const MEMORY_BYTES: u64 = 100_000_000;
/// Files of the load beside its connections.
const OTHER_FILES: usize = 100;
/// Until a connection counts as idle, and gives its buffers back: Nearside looks every second.
const SETTLE: Duration = Duration::from_millis(2500);

/// Measures busy connections to a Nearside before a cluster of three primaries, alone and among idle ones: hits in its
/// cache, and forwarding with the cache off.
#[derive(Debug, Parser)]
struct Arguments {
    /// The nearside to measure [default: the one built beside this program]
    #[arg(long, value_name = "PATH")]
    nearside: Option<PathBuf>,
    /// The redis-server to put behind Nearside
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis_server: PathBuf,
    /// Rounds
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Milliseconds of each turn in a round
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(10..))]
    turn_ms: u64,
    /// Connections that ask, one command at a time each
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    busy: u32,
    /// Connections that are only there
    #[arg(long, default_value_t = 9000, value_parser = clap::value_parser!(u32).range(1..))]
    idle: u32,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let all = (arguments.busy + arguments.idle) as usize;
    raise_file_limit(all + OTHER_FILES)?;
    let nearside = nearside_program(arguments.nearside.as_deref())?;
    let Cores { measured, load } = Cores::choose("latencies")?;
    let cluster = Cluster::start(&arguments.redis_server, load)?;
    cpu::pin_to(load).with_context(|| format!("pinning the load to core {load}"))?;
    let before_cluster = |cache_size| Server::nearside(&nearside, measured, &cluster.url(), cache_size);

    memory(&before_cluster("64MiB")?, all)?;
    println!(
        "GET of {KEYS} keys with {VALUE_LEN}-byte values over {} connections at depth 1; medians of {} rounds of {} ms;\n\
         nearside of one worker on core {measured}, load and cluster on core {load}\n",
        arguments.busy, arguments.rounds, arguments.turn_ms
    );
    println!("contestant  connections   p50 µs   p99 µs  CPU µs/cmd    cmds/s  load busy");
    let (hit, forward) = (before_cluster("256MiB")?, before_cluster("off")?);
    preload::set_keys(forward.address(), KEYS, VALUE_LEN).context("setting the keys")?;
    preload::read_keys(hit.address(), KEYS, VALUE_LEN).context("filling the cache")?;
    for (name, server) in [("hit", &hit), ("forward", &forward)] {
        let rounds = rounds(server, &arguments)?;
        report(name, &arguments, &rounds);
    }
    Ok(())
}

/// What idle connections take of a Nearside that has had no others.
fn memory(server: &Server, count: usize) -> anyhow::Result<()> {
    let before = server.resident()?;
    let idle = Idle::connect(server.address(), count)?;
    thread::sleep(SETTLE);
    let after = server.resident()?;
    println!(
        "{count} idle connections: {:.1} MB resident of {:.1} MB at most {}; {:.1} MB without any, {} bytes each\n",
        after as f64 / 1e6,
        MEMORY_BYTES as f64 / 1e6,
        verdict(after <= MEMORY_BYTES),
        before as f64 / 1e6,
        after.saturating_sub(before) / idle.count() as u64,
    );
    Ok(())
}

/// One turn of the busy connections.
struct Turn {
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
    throughput: f64,
    load_busy: f64,
}

/// The two turns of a round.
struct Round {
    alone: Turn,
    among: Turn,
}

fn rounds(server: &Server, arguments: &Arguments) -> anyhow::Result<Vec<Round>> {
    let duration = Duration::from_millis(arguments.turn_ms);
    let tape = Tape::new(&Workload { mix: Mix::Hit, keys: KEYS, value_len: VALUE_LEN, depth: 1 });
    let mut load = ClosedLoop::connect(server.address(), arguments.busy as usize, tape)?;
    let mut idle = None;
    let mut rounds = Vec::new();
    // One more, which lets connections and buffers find their size.
    for number in 0..=arguments.rounds {
        let mut first = None;
        // Idle ones come in the midst of one round, and leave in the midst of the next.
        for is_second in [false, true] {
            if is_second {
                let connect = || Idle::connect(server.address(), arguments.idle as usize);
                idle = if idle.is_none() { Some(connect()?) } else { None };
                thread::sleep(SETTLE);
            }
            let turn = turn(server, &mut load, duration)?;
            match (first.take(), idle.is_some()) {
                (None, _) => first = Some(turn),
                (Some(alone), true) => rounds.push(Round { alone, among: turn }),
                (Some(among), false) => rounds.push(Round { alone: turn, among }),
            }
        }
        if number == 0 {
            rounds.clear();
        }
    }
    Ok(rounds)
}

fn turn(server: &Server, load: &mut ClosedLoop, duration: Duration) -> anyhow::Result<Turn> {
    let before = server.cpu()?;
    let outcome = load.run(duration)?;
    let spent = server.cpu()? - before;
    let latency_us = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Turn {
        p50_us: latency_us(0.5),
        p99_us: latency_us(0.99),
        cpu_us: spent.as_secs_f64() * 1e6 / outcome.commands as f64,
        throughput: outcome.throughput(),
        load_busy: outcome.driver_busy(),
    })
}

fn report(name: &str, arguments: &Arguments, rounds: &[Round]) {
    print_row(name, arguments.busy, rounds.iter().map(|round| &round.alone));
    print_row(name, arguments.busy + arguments.idle, rounds.iter().map(|round| &round.among));
    let ratio =
        |of: fn(&Turn) -> f64| -> Vec<f64> { rounds.iter().map(|round| of(&round.among) / of(&round.alone)).collect() };
    let (p50, p99, cpu) = (ratio(|turn| turn.p50_us), ratio(|turn| turn.p99_us), ratio(|turn| turn.cpu_us));
    let (least, most) =
        p99.iter().fold((f64::MAX, 0.0), |(least, most), &ratio: &f64| (ratio.min(least), ratio.max(most)));
    let p99 = median(p99);
    println!(
        "{name:<10}  ratio         {:>6.2}   {p99:>6.2}  {:>10.2}    p99 {least:.2} to {most:.2}, at most {P99_RATIO} {}\n",
        median(p50),
        median(cpu),
        verdict(p99 <= P99_RATIO),
    );
}

fn print_row<'a>(name: &str, connections: u32, turns: impl Iterator<Item = &'a Turn> + Clone) {
    let of = |value: fn(&Turn) -> f64| median(turns.clone().map(value));
    println!(
        "{name:<10}  {connections:>11}  {:>7.0}  {:>7.0}  {:>10.3}  {:>8.0}  {:>8.0}%",
        of(|turn| turn.p50_us),
        of(|turn| turn.p99_us),
        of(|turn| turn.cpu_us),
        of(|turn| turn.throughput),
        of(|turn| turn.load_busy) * 100.0,
    );
}

fn verdict(reached: bool) -> &'static str {
    if reached { "yes" } else { "NO" }
}
