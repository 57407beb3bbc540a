//! What a command costs, in a minute or two: Redis direct, Nearside with hits, Nearside forwarding; the same two before a
//! cluster.
//!
//! Figures of one machine drift from minute to minute by more than the contestants differ. So they take turns in short
//! rounds, each round gives a ratio to Redis in that same round, and the median of the ratios is what is told.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use nearside_benches::closed_loop::ClosedLoop;
use nearside_benches::cluster::Cluster;
use nearside_benches::cpu::{self, Cores};
use nearside_benches::median::median;
use nearside_benches::preload;
use nearside_benches::server::{Server, nearside_program};
use nearside_benches::tape::{Mix, Tape, Workload};

const KEYS: u32 = 10_000;
const VALUE_LEN: usize = 16;

/// Pipeline depths, and what part of the CPU time of Redis direct a hit and a forwarded command may take there.
const DEPTHS: [Depth; 3] = [
    Depth { commands: 1, hit: 0.9, forward: 1.1 },
    Depth { commands: 16, hit: 0.8, forward: 0.9 },
    Depth { commands: 64, hit: 0.5, forward: 0.7 },
];

struct Depth {
    commands: usize,
    hit: f64,
    forward: f64,
}

/// What part of the CPU time before a standalone server a command may take before a cluster.
const CLUSTER: f64 = 1.1;

/// Compares CPU per command: Redis direct, a hit in Nearside's cache, and forwarding with the cache off; then a hit and
/// forwarding before a cluster of three primaries, each with the same before a standalone server.
#[derive(Debug, Parser)]
struct Arguments {
    /// The nearside to measure [default: the one built beside this program]
    #[arg(long, value_name = "PATH")]
    nearside: Option<PathBuf>,
    /// The redis-server to measure and to put behind Nearside
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis_server: PathBuf,
    /// Rounds at each depth
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Milliseconds of each contestant's turn in a round
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..))]
    turn_ms: u64,
    /// Connections
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let cores = Cores::choose("throughputs")?;
    let stage = Stage::set(&arguments, &cores)?;
    cpu::pin_to(cores.load).with_context(|| format!("pinning the load to core {}", cores.load))?;

    println!(
        "GET of {KEYS} keys with {VALUE_LEN}-byte values over {} connections; medians of {} interleaved rounds of {} ms",
        arguments.connections, arguments.rounds, arguments.turn_ms
    );
    println!(
        "measured process on core {}, load and upstream on core {}; ratios are to redis direct in the same round,\n\
         those before a cluster to the same before a standalone server\n",
        cores.measured, cores.load
    );
    println!("depth  contestant       CPU µs/cmd    ratio  to reach        cmds/s   upstream CPU µs/cmd  load busy");
    for depth in &DEPTHS {
        let turns = stage.rounds(depth, &arguments)?;
        report(depth, &turns);
    }
    Ok(())
}

/// The servers, all of them up from the start: an idle one takes next to no CPU.
struct Stage {
    direct: Server,
    hit: Server,
    forward: Server,
    cluster_hit: Server,
    cluster_forward: Server,
    /// Last, so that they outlive the proxies before them.
    upstream: Server,
    cluster: Cluster,
}

impl Stage {
    fn set(arguments: &Arguments, cores: &Cores) -> anyhow::Result<Self> {
        let nearside = nearside_program(arguments.nearside.as_deref())?;
        let direct = Server::redis(&arguments.redis_server, cores.measured)?;
        let upstream = Server::redis(&arguments.redis_server, cores.load)?;
        let cluster = Cluster::start(&arguments.redis_server, cores.load)?;
        let before = |url: &str, cache_size| Server::nearside(&nearside, cores.measured, url, cache_size);
        let standalone_url = format!("redis://{}", upstream.address());
        let (hit, forward) = (before(&standalone_url, "256MiB")?, before(&standalone_url, "off")?);
        let (cluster_hit, cluster_forward) = (before(&cluster.url(), "256MiB")?, before(&cluster.url(), "off")?);
        for target in [&direct, &upstream, &cluster_forward] {
            preload::set_keys(target.address(), KEYS, VALUE_LEN).context("setting the keys")?;
        }
        Ok(Self { direct, hit, forward, cluster_hit, cluster_forward, upstream, cluster })
    }

    /// All contestants, all contestants again, … at one depth.
    fn rounds(&self, depth: &Depth, arguments: &Arguments) -> anyhow::Result<[Vec<Turn>; 5]> {
        let workload = Workload { mix: Mix::Hit, keys: KEYS, value_len: VALUE_LEN, depth: depth.commands };
        let contestants = [&self.direct, &self.hit, &self.forward, &self.cluster_hit, &self.cluster_forward];
        for cached in [&self.hit, &self.cluster_hit] {
            preload::read_keys(cached.address(), KEYS, VALUE_LEN).context("filling the cache")?;
        }
        let mut loads = Vec::new();
        for server in contestants {
            let tape = Tape::new(&workload);
            let mut load = ClosedLoop::connect(server.address(), arguments.connections as usize, tape)?;
            // Lets connections and buffers find their size.
            load.run(Duration::from_millis(arguments.turn_ms / 2).max(Duration::from_millis(200)))?;
            loads.push(load);
        }
        let mut turns = [const { Vec::new() }; 5];
        for _ in 0..arguments.rounds {
            for ((server, load), turns) in contestants.iter().zip(&mut loads).zip(&mut turns) {
                turns.push(self.turn(server, load, Duration::from_millis(arguments.turn_ms))?);
            }
        }
        Ok(turns)
    }

    fn turn(&self, server: &Server, load: &mut ClosedLoop, duration: Duration) -> anyhow::Result<Turn> {
        let before = (server.cpu()?, self.upstream_cpu()?);
        let outcome = load.run(duration)?;
        let after = (server.cpu()?, self.upstream_cpu()?);
        let micros = |spent: Duration| spent.as_secs_f64() * 1e6 / outcome.commands as f64;
        Ok(Turn {
            cpu_us: micros(after.0 - before.0),
            upstream_cpu_us: micros(after.1 - before.1),
            throughput: outcome.throughput(),
            load_busy: outcome.driver_busy(),
        })
    }

    /// Of whatever serves behind the proxies; only one of them is at work.
    fn upstream_cpu(&self) -> anyhow::Result<Duration> {
        Ok(self.upstream.cpu()? + self.cluster.cpu()?)
    }
}

/// One contestant's part of one round.
struct Turn {
    cpu_us: f64,
    upstream_cpu_us: f64,
    throughput: f64,
    load_busy: f64,
}

fn report(depth: &Depth, [direct, hit, forward, cluster_hit, cluster_forward]: &[Vec<Turn>; 5]) {
    print_row(depth, "redis direct", direct, None);
    print_row(depth, "hit", hit, Some((direct, depth.hit)));
    print_row(depth, "forward", forward, Some((direct, depth.forward)));
    print_row(depth, "cluster hit", cluster_hit, Some((hit, CLUSTER)));
    print_row(depth, "cluster forward", cluster_forward, Some((forward, CLUSTER)));
    println!();
}

fn print_row(depth: &Depth, name: &str, turns: &[Turn], compared: Option<(&[Turn], f64)>) {
    let compared = compared.map_or_else(
        || format!("{:>5}  {:<10}", "", ""),
        |(other, most)| {
            let ratio = median(turns.iter().zip(other).map(|(turn, other)| turn.cpu_us / other.cpu_us));
            let verdict = if ratio <= most { "yes" } else { "NO" };
            format!("{ratio:>5.2}  ≤ {most:.1} {verdict:<4}")
        },
    );
    let upstream = match name {
        "redis direct" => "–".to_owned(),
        _ => format!("{:.3}", median(turns.iter().map(|turn| turn.upstream_cpu_us))),
    };
    println!(
        "{:>5}  {name:<15}  {:>10.3}    {compared}  {:>10.0}   {upstream:>19}  {:>8.0}%",
        depth.commands,
        median(turns.iter().map(|turn| turn.cpu_us)),
        median(turns.iter().map(|turn| turn.throughput)),
        median(turns.iter().map(|turn| turn.load_busy)) * 100.0,
    );
}
