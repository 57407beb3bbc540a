//! Puts one server under load: anything that speaks the Redis protocol.
//!
//! ```text
//! nearside-load 127.0.0.1:6380 --mix get=70,set=30 --spread zipf --connections 1000 --cpu-of $(pidof nearside)
//! nearside-load 127.0.0.1:6380 --rate 50000 --svg latency.svg
//! ```

mod arguments;
mod tell;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use nearside_benches::cpu::{self, Cores};
use nearside_benches::load::idle::raise_file_limit;
use nearside_benches::load::{Load, Outcome, Protocol, Schedule, Tape, Watch, Workload, ceiling, cross_check, preload};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::arguments::Arguments;
use crate::tell::{Measured, Progress};

/// Files of the process beside its connections, and those of the responder for the ceiling.
const OTHER_FILES: usize = 100;

/// How long the driver is measured by itself.
const CEILING_TIME: Duration = Duration::from_millis(800);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.lifetime.is_none() || arguments.resp == 2,
        "--lifetime and --resp 3 do not go together: a new connection begins without a greeting"
    );
    if let Some(core) = arguments.core {
        cpu::pin_to(core).with_context(|| format!("pinning to core {core}"))?;
    }
    raise_file_limit(2 * arguments.connections as usize + OTHER_FILES)?;
    let address = resolve(&arguments.address)?;
    let workload = arguments.workload();
    if !arguments.no_preload && !workload.mix.only_absent_keys() {
        preload::set_keys(address, workload.keys, workload.value_len).context("setting the keys")?;
    }
    let stopped = stop_flag()?;
    if arguments.cross_check {
        let duration = Duration::from_secs_f64(arguments.seconds);
        let connections = arguments.connections as usize;
        tell::cross_check(&cross_check::run(address, connections, &workload, duration, &stopped)?);
        return Ok(());
    }
    let ceiling = match arguments.no_ceiling {
        true => None,
        false => ceiling_of(&arguments, &workload)?,
    };
    let measured = measure(&arguments, address, &workload, &stopped, ceiling)?;
    tell::table(&arguments, &measured);
    tell::files(&arguments, &measured)
}

/// One run, after its warm-up.
fn measure(
    arguments: &Arguments,
    address: SocketAddr,
    workload: &Workload,
    stopped: &AtomicBool,
    ceiling: Option<f64>,
) -> anyhow::Result<Measured> {
    let tape = Arc::new(match arguments.rate {
        Some(_) => Tape::of_commands(workload),
        None => Tape::of_pipelines(workload),
    });
    let mut load = connect(arguments, address, workload.protocol, &tape)?;
    let schedule = arguments.rate.map(Schedule::new);
    let mut run = |seconds: f64, watch: &mut Watch<'_>| match &schedule {
        Some(schedule) => load.open(schedule, workload.depth, Duration::from_secs_f64(seconds), watch),
        None => load.closed(Duration::from_secs_f64(seconds), watch),
    };
    let mut progress = Progress::of("warm-up", stopped);
    run(arguments.warm_up, &mut |elapsed, commands| progress.tell(elapsed, commands)).context("warming up")?;
    if stopped.load(Ordering::Relaxed) {
        bail!("interrupted before anything was measured");
    }
    let mut progress = Progress::of("measuring", stopped);
    let before = cpu_times(&arguments.cpu_of)?;
    let outcome = run(arguments.seconds, &mut |elapsed, commands| progress.tell(elapsed, commands))?;
    let after = cpu_times(&arguments.cpu_of)?;
    progress.clear();
    let cpu_us = before.iter().zip(&after).map(|(before, after)| micros_per_command(*after - *before, &outcome));
    let cpu_us = arguments.cpu_of.iter().copied().zip(cpu_us).collect();
    Ok(Measured { outcome, ceiling, cpu_us, interrupted: stopped.load(Ordering::Relaxed) })
}

fn connect(arguments: &Arguments, address: SocketAddr, protocol: Protocol, tape: &Arc<Tape>) -> anyhow::Result<Load> {
    let load = Load::connect(address, arguments.connections as usize, protocol, tape)
        .with_context(|| format!("connecting to {address}"))?;
    Ok(match arguments.lifetime {
        Some(pipelines) => load.with_lifetime(pipelines),
        None => load,
    })
}

/// Commands a second that the driver asks of a responder on another core; none if there is no other core.
fn ceiling_of(arguments: &Arguments, workload: &Workload) -> anyhow::Result<Option<f64>> {
    let allowed = match arguments.core {
        // This thread has been pinned already.
        Some(core) => cpu::online_cores()?.into_iter().filter(|other| *other != core).chain([core]).collect(),
        None => cpu::allowed_cores()?,
    };
    let (Some(&measured), Some(&load)) = (allowed.first(), allowed.last()) else { return Ok(None) };
    if measured == load {
        return Ok(None);
    }
    let tape = Arc::new(Tape::of_pipelines(workload));
    let measure = || ceiling::measure(&tape, arguments.connections as usize, &Cores { measured, load }, CEILING_TIME);
    let outcome = cpu::pinned_to(load, measure)?.context("measuring the driver by itself")?;
    Ok(Some(outcome.throughput()))
}

/// Set by the first Ctrl-C; the second ends the process.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, stopped.clone())?;
        flag::register(signal, stopped.clone())?;
    }
    Ok(stopped)
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
