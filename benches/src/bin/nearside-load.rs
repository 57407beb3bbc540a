//! Puts one server under load: anything that speaks the Redis protocol.
//!
//! ```text
//! nearside-load 127.0.0.1:6380 --mix hit --depth 16 --cpu-of $(pidof nearside)
//! ```

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use nearside_benches::closed_loop::{ClosedLoop, Outcome};
use nearside_benches::tape::{Mix, Tape, Workload};
use nearside_benches::{cpu, preload};

/// Puts one server under load in a closed loop: each connection sends a pipeline of commands, waits for all the replies,
/// checks every byte of them, and sends the next.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// HOST:PORT of the server
    address: String,
    /// What to ask: `hit` and `miss` (GET of keys that exist, that don't), `set`, or the percentage of GETs beside SETs
    #[arg(long, value_name = "hit|miss|set|0-100", default_value = "hit", value_parser = mix)]
    mix: Mix,
    /// Connections, all on one thread
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Commands in a pipeline
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    depth: u32,
    /// Keys to choose from
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    value_size: usize,
    /// Seconds to measure
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds of the same load before that
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warm_up: f64,
    /// Leave the keys as they are, instead of setting them first
    #[arg(long)]
    no_preload: bool,
    /// Also tell the CPU time per command of this process of this machine; may be given more than once
    #[arg(long, value_name = "PID")]
    cpu_of: Vec<u32>,
    /// Stay on this core
    #[arg(long)]
    core: Option<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(core) = arguments.core {
        cpu::pin_to(core).with_context(|| format!("pinning to core {core}"))?;
    }
    let address = resolve(&arguments.address)?;
    let workload = Workload {
        mix: arguments.mix,
        keys: arguments.keys,
        value_len: arguments.value_size,
        depth: arguments.depth as usize,
    };
    if !arguments.no_preload && workload.mix != Mix::Miss {
        preload::set_keys(address, workload.keys, workload.value_len).context("setting the keys")?;
    }
    let mut load = ClosedLoop::connect(address, arguments.connections as usize, Tape::new(&workload))
        .with_context(|| format!("connecting to {address}"))?;
    load.run(Duration::from_secs_f64(arguments.warm_up)).context("warming up")?;

    let before = cpu_times(&arguments.cpu_of)?;
    let outcome = load.run(Duration::from_secs_f64(arguments.seconds))?;
    let after = cpu_times(&arguments.cpu_of)?;

    print(&arguments, &outcome);
    for ((pid, before), after) in arguments.cpu_of.iter().zip(before).zip(after) {
        println!("process {pid:<9}{:.3} µs CPU per command", micros_per_command(after - before, &outcome));
    }
    Ok(())
}

fn print(arguments: &Arguments, outcome: &Outcome) {
    let latency = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "{} commands in {:.2} s over {} connections at depth {}",
        outcome.commands,
        outcome.elapsed.as_secs_f64(),
        arguments.connections,
        arguments.depth
    );
    println!("throughput       {:.0} commands/s", outcome.throughput());
    println!(
        "pipeline latency p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs (closed loop: hides what a stall held back)",
        latency(0.5),
        latency(0.99),
        latency(0.999)
    );
    println!(
        "driver           {:.3} µs CPU per command, {:.0} % busy: alone it could ask {:.0} commands/s",
        micros_per_command(outcome.driver_cpu, outcome),
        outcome.driver_busy() * 100.0,
        outcome.ceiling()
    );
    if outcome.driver_busy() > 0.95 {
        println!("                 the driver was the limit: the throughput says nothing about the server");
    }
}

fn micros_per_command(cpu: Duration, outcome: &Outcome) -> f64 {
    cpu.as_secs_f64() * 1e6 / outcome.commands as f64
}

fn cpu_times(pids: &[u32]) -> anyhow::Result<Vec<Duration>> {
    pids.iter().map(|pid| cpu::of_process(*pid).with_context(|| format!("CPU time of process {pid}"))).collect()
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    address
        .to_socket_addrs()
        .with_context(|| format!("{address:?} is not HOST:PORT"))?
        .next()
        .with_context(|| format!("{address:?} has no address"))
}

fn mix(text: &str) -> Result<Mix, String> {
    match text {
        "hit" => Ok(Mix::Hit),
        "miss" => Ok(Mix::Miss),
        "set" => Ok(Mix::Set),
        percent => match percent.parse() {
            Ok(percent @ 0..=100) => Ok(Mix::Reads(percent)),
            _ => Err("hit, miss, set, or a percentage of GETs".to_owned()),
        },
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds, up to a day".to_owned()),
    }
}
