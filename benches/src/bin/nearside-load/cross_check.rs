//! The driver beside redis-benchmark on the same server: what two programs agree on can be believed.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nearside_benches::load::{Ask, Load, Spread, Tape, Workload, unwatched};
use nearside_benches::median::median;

use crate::arguments::Arguments;

const ROUNDS: usize = 5;

/// What both tell.
struct Told {
    throughput: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Both in turns, for the seconds that were asked for in all.
pub(crate) fn run(
    arguments: &Arguments,
    address: SocketAddr,
    workload: &Workload,
    stopped: &AtomicBool,
) -> anyhow::Result<()> {
    let test = match workload.mix.single() {
        Some(Ask::Get) => "get",
        Some(Ask::Set) => "set",
        _ => bail!("--cross-check compares get or set alone: redis-benchmark has no mixes"),
    };
    ensure!(workload.spread == Spread::Uniform, "redis-benchmark asks for all keys equally often");
    let tape = Arc::new(Tape::of_pipelines(workload));
    let mut load = Load::connect(address, arguments.connections as usize, workload.protocol, &tape)?;
    let turn = Duration::from_secs_f64(arguments.seconds / (2 * ROUNDS) as f64).max(Duration::from_millis(200));
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
        theirs.push(redis_benchmark(arguments, address, test, (throughput * turn.as_secs_f64()) as u64)?);
    }
    println!("medians of {ROUNDS} turns each          commands/s    p50 µs    p99 µs");
    print_row("nearside-load", &ours);
    print_row("redis-benchmark", &theirs);
    if workload.depth > 1 {
        println!("of a pipeline, nearside-load counts up to the last reply, redis-benchmark up to the first");
    }
    Ok(())
}

fn print_row(name: &str, turns: &[Told]) {
    let of = |figure: fn(&Told) -> f64| median(turns.iter().map(figure));
    let (throughput, p50_us, p99_us) = (of(|told| told.throughput), of(|told| told.p50_us), of(|told| told.p99_us));
    println!("{name:<30}  {throughput:>10.0}  {p50_us:>8.0}  {p99_us:>8.0}");
}

fn redis_benchmark(arguments: &Arguments, address: SocketAddr, test: &str, commands: u64) -> anyhow::Result<Told> {
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-t", test, "--csv"]);
    command.args(["-c", &arguments.connections.to_string(), "-P", &arguments.depth.to_string()]);
    command.args(["-r", &arguments.keys.to_string(), "-d", &arguments.value_size.to_string()]);
    command.args(["-n", &commands.max(1).to_string()]);
    if arguments.resp == 3 {
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
