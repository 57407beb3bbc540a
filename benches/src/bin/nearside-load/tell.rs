//! What a run comes to, for people and for programs.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use nearside_benches::load::Outcome;
use nearside_benches::load::cross_check::{self, CrossCheck, Told};
use nearside_benches::plot;
use serde_json::{Value, json};

use crate::arguments::Arguments;

/// A run and what surrounded it.
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    /// Commands a second that the driver reaches by itself, in a closed loop.
    pub(crate) ceiling: Option<f64>,
    /// Of each process that was asked for: its CPU time per command.
    pub(crate) cpu_us: Vec<(u32, f64)>,
    /// Ctrl-C ended it early.
    pub(crate) interrupted: bool,
}

/// The quantiles that are told.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

pub(crate) fn table(arguments: &Arguments, measured: &Measured) {
    let outcome = &measured.outcome;
    let pace = arguments.rate.map_or("closed loop".to_owned(), |rate| format!("open loop of {rate} commands/s"));
    println!(
        "{} commands in {:.2} s over {} connections at depth {}, {pace}{}",
        outcome.commands,
        outcome.elapsed.as_secs_f64(),
        arguments.connections,
        arguments.depth,
        if measured.interrupted { " (interrupted)" } else { "" },
    );
    println!("throughput  {:.0} commands/s", outcome.throughput());
    let quantiles = QUANTILES.map(|(name, quantile)| format!("{name} {:.0} µs", outcome.latency_us(quantile)));
    let meaning = if arguments.rate.is_some() { "from when each was due" } else { "of a pipeline" };
    println!("latency     {} ({meaning})", quantiles.join(", "));
    let ceiling =
        measured.ceiling.map_or(String::new(), |ceiling| format!("; alone it reaches {ceiling:.0} commands/s"));
    println!("driver      {:.0} % busy{ceiling}", outcome.driver_busy() * 100.0);
    if let Some(late_us) = outcome.late_us(0.99) {
        println!("            {late_us:.0} µs late at p99");
    }
    for (pid, cpu_us) in &measured.cpu_us {
        println!("process     {pid}: {cpu_us:.3} µs CPU per command");
    }
    if let Some(reason) = outcome.limited_by_driver(measured.ceiling) {
        println!("NOTE        the driver was the limit: {reason}; throughput and latency say little about the server");
    }
}

pub(crate) fn cross_check(CrossCheck { depth, ours, theirs }: &CrossCheck) {
    println!("medians of {} turns each          commands/s    p50 µs    p99 µs", cross_check::ROUNDS);
    for (name, Told { throughput, p50_us, p99_us }) in [("nearside-load", ours), ("redis-benchmark", theirs)] {
        println!("{name:<30}  {throughput:>10.0}  {p50_us:>8.0}  {p99_us:>8.0}");
    }
    if *depth > 1 {
        println!("of a pipeline, nearside-load counts up to the last reply, redis-benchmark up to the first");
    }
}

pub(crate) fn files(arguments: &Arguments, measured: &Measured) -> anyhow::Result<()> {
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", as_json(arguments, measured));
        match path == Path::new("-") {
            true => io::stdout().write_all(text.as_bytes())?,
            false => fs::write(path, text).with_context(|| format!("writing {}", path.display()))?,
        }
    }
    if let Some(path) = &arguments.svg {
        let title = format!("{}, {} connections", arguments.mix, arguments.connections);
        plot::latencies(path, &title, &[(arguments.address.clone(), measured.outcome.latency.clone())])?;
    }
    Ok(())
}

fn as_json(arguments: &Arguments, Measured { outcome, ceiling, cpu_us, interrupted }: &Measured) -> Value {
    let quantiles = |of: &hdrhistogram::Histogram<u64>| -> Value {
        QUANTILES.iter().map(|(name, at)| (*name, of.value_at_quantile(*at) as f64 / 1000.0)).collect()
    };
    json!({
        "mix": arguments.mix.to_string(),
        "keys": arguments.keys,
        "spread": arguments.spread.to_string(),
        "value_size": arguments.value_size,
        "connections": arguments.connections,
        "depth": arguments.depth,
        "resp": arguments.resp,
        "rate": arguments.rate,
        "lifetime": arguments.lifetime,
        "commands": outcome.commands,
        "seconds": outcome.elapsed.as_secs_f64(),
        "interrupted": interrupted,
        "throughput": outcome.throughput(),
        "latency_us": quantiles(&outcome.latency),
        "driver": {
            "busy": outcome.driver_busy(),
            "ceiling": ceiling,
            "late_us": outcome.late.as_ref().map(quantiles),
            "was_the_limit": outcome.limited_by_driver(*ceiling),
        },
        "cpu_us_per_command": cpu_us.iter().map(|(pid, cpu_us)| (pid.to_string(), *cpu_us)).collect::<Value>(),
    })
}

/// Tells on a terminal how far a run is, and ends it when Ctrl-C was pressed.
pub(crate) struct Progress<'s> {
    phase: &'static str,
    stopped: &'s AtomicBool,
    on_terminal: bool,
}

impl<'s> Progress<'s> {
    pub(crate) fn of(phase: &'static str, stopped: &'s AtomicBool) -> Self {
        Self { phase, stopped, on_terminal: io::stderr().is_terminal() }
    }

    pub(crate) fn tell(&mut self, elapsed: Duration, commands: u64) -> ControlFlow<()> {
        if self.on_terminal {
            let seconds = elapsed.as_secs_f64();
            eprint!("\r\x1b[K{} {seconds:.0} s, {:.0} commands/s", self.phase, commands as f64 / seconds);
        }
        match self.stopped.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    /// Leaves the line to what comes next.
    pub(crate) fn clear(&self) {
        if self.on_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
