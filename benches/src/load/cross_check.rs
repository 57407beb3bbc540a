//! The driver beside redis-benchmark on the same server: what two programs agree on can be believed.

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use crate::load::driver::{Load, unwatched};
use crate::load::keys::Spread;
use crate::load::tape::Tape;
use crate::load::workload::{Ask, Protocol, Workload};
use crate::median::median;

/// The other program.
const PROGRAM: &str = "redis-benchmark";

/// How often each has its turn.
pub const ROUNDS: u32 = 5;

/// Shorter turns say little.
const SHORTEST_TURN: Duration = Duration::from_millis(200);

/// What both programs tell of the same server under the same load.
#[derive(Debug, Serialize)]
pub struct CrossCheck {
    /// Commands in a pipeline.
    pub depth: usize,
    /// This driver.
    pub ours: Told,
    /// redis-benchmark.
    pub theirs: Told,
}

/// What one of them tells; medians over its turns.
#[derive(Debug, Serialize)]
pub struct Told {
    /// Commands a second.
    pub throughput: f64,
    /// Half of the pipelines took no longer.
    pub p50_us: f64,
    /// 99 of 100 took no longer.
    pub p99_us: f64,
}

impl Told {
    fn medians(turns: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(turns.iter().map(figure));
        Self { throughput: of(|told| told.throughput), p50_us: of(|told| told.p50_us), p99_us: of(|told| told.p99_us) }
    }
}

/// Whether redis-benchmark can be run here.
pub fn is_installed() -> io::Result<bool> {
    match Command::new(PROGRAM).arg("--version").output() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Both in turns, for `duration` in all, on the server at `address`, which has the keys. redis-benchmark runs on the cores
/// of this thread. `stopped` ends it early, with an error.
pub fn run(
    address: SocketAddr,
    connections: usize,
    workload: &Workload,
    duration: Duration,
    stopped: &AtomicBool,
) -> anyhow::Result<CrossCheck> {
    let test = match workload.mix.single() {
        Some(Ask::Get) => "get",
        Some(Ask::Set) => "set",
        _ => bail!("get or set alone can be compared: redis-benchmark has no mixes"),
    };
    ensure!(workload.spread == Spread::Uniform, "redis-benchmark asks for all keys equally often");
    let tape = Arc::new(Tape::of_pipelines(workload));
    let mut load = Load::connect(address, connections, workload.protocol, &tape)?;
    let turn = (duration / (2 * ROUNDS)).max(SHORTEST_TURN);
    let mut throughput = load.closed(turn, &mut unwatched).context("warming up")?.throughput();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        if stopped.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let outcome = load.closed(turn, &mut unwatched)?;
        throughput = throughput.max(outcome.throughput());
        ours.push(Told {
            throughput: outcome.throughput(),
            p50_us: outcome.latency_us(0.5),
            p99_us: outcome.latency_us(0.99),
        });
        let commands = (throughput * turn.as_secs_f64()) as u64;
        theirs.push(redis_benchmark(address, connections, workload, test, commands)?);
    }
    Ok(CrossCheck { depth: workload.depth, ours: Told::medians(&ours), theirs: Told::medians(&theirs) })
}

fn redis_benchmark(
    address: SocketAddr,
    connections: usize,
    workload: &Workload,
    test: &str,
    commands: u64,
) -> anyhow::Result<Told> {
    let mut command = Command::new(PROGRAM);
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-t", test, "--csv"]);
    command.args(["-c", &connections.to_string(), "-P", &workload.depth.to_string()]);
    command.args(["-r", &workload.keys.to_string(), "-d", &workload.value_len.to_string()]);
    command.args(["-n", &commands.max(1).to_string()]);
    if workload.protocol == Protocol::Resp3 {
        command.arg("-3");
    }
    let output = command.output().context("redis-benchmark does not start (it comes with redis-tools)")?;
    ensure!(output.status.success(), "redis-benchmark: {}", String::from_utf8_lossy(&output.stderr).trim());
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Two lines: names, and values in quotes.
fn parse(csv: &str) -> anyhow::Result<Told> {
    let mut lines = csv.lines().filter(|line| line.starts_with('"'));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        bail!("redis-benchmark printed no table: {csv:?}");
    };
    let unquoted = |line: &str| line.split(',').map(|field| field.trim_matches('"').to_owned()).collect::<Vec<_>>();
    let (names, values) = (unquoted(names), unquoted(values));
    let of = |wanted: &str| -> anyhow::Result<f64> {
        let at = names.iter().position(|name| name == wanted);
        let value = at.and_then(|at| values.get(at)?.parse().ok());
        value.with_context(|| format!("redis-benchmark tells no {wanted}: {csv:?}"))
    };
    Ok(Told { throughput: of("rps")?, p50_us: of("p50_latency_ms")? * 1000.0, p99_us: of("p99_latency_ms")? * 1000.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_redis_benchmark_is_understood() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                   \"p99_latency_ms\",\"max_latency_ms\"\n\"GET\",\"125000.00\",\"0.2\",\"0.1\",\"0.207\",\"0.3\",\"0.415\",\"1.2\"\n";
        let told = parse(csv).expect("a table");
        assert_eq!((told.throughput, told.p50_us, told.p99_us), (125_000.0, 207.0, 415.0));
        assert!(parse("WARNING: no\n").is_err());
    }
}
