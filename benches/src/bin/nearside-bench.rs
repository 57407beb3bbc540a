//! Measures Nearside beside what a user would have without it: the scenarios of `make bench`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use nearside_benches::cpu::{self, Cores};
use nearside_benches::load::idle::raise_file_limit;
use nearside_benches::machine::Machine;
use nearside_benches::report::{self, Report};
use nearside_benches::results::ScenarioResult;
use nearside_benches::runner::{self, Settings, beside};
use nearside_benches::scenarios::{self, Scenario};
use nearside_benches::stage::{Kind, Programs};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Connections of the largest scenario, and what else is open.
const FILES: usize = 15_000;

/// Measures Nearside beside Redis direct, twemproxy, Envoy, and cache services in Go and Python, in interleaved rounds on
/// two cores, and prints tables. Without a scenario, all that are part of the whole benchmark.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Scenarios to run; see --list
    scenarios: Vec<String>,
    /// Say which scenarios there are
    #[arg(long)]
    list: bool,
    /// Write FOLDER/benchmarks.md and the plots beside it
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
    /// Rounds in which each contestant has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Milliseconds of each turn
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u64).range(10..))]
    turn_ms: u64,
    /// The nearside to measure [default: the one built beside this program]
    #[arg(long, value_name = "PATH")]
    nearside: Option<PathBuf>,
    /// Another nearside, from before a change: what the scenario `change` compares with
    #[arg(long, value_name = "PATH")]
    before: Option<PathBuf>,
    /// The redis-server to measure and to put behind the others
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis_server: PathBuf,
    /// What benches/contestants/prepare has fetched and built
    #[arg(long, value_name = "FOLDER", default_value = ".run/contestants")]
    contestants: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.list {
        scenarios::ALL.iter().for_each(|scenario| println!("{:<18} {}", scenario.name, scenario.title));
        return Ok(());
    }
    let chosen = choose(&arguments.scenarios)?;
    raise_file_limit(FILES)?;
    let cores = Cores::choose("throughputs and latencies")?;
    ensure!(
        arguments.write.is_none() || cores.measured != cores.load,
        "figures to be written need two cores: what is measured has one for itself"
    );
    cpu::pin_to(cores.load).with_context(|| format!("pinning the load to core {}", cores.load))?;
    let contestants = std::path::absolute(&arguments.contestants)?;
    let settings = Settings {
        programs: Programs::find(
            arguments.nearside.as_deref(),
            arguments.before.as_deref(),
            &arguments.redis_server,
            &contestants,
        )?,
        cores,
        rounds: arguments.rounds,
        turn: Duration::from_millis(arguments.turn_ms),
        stopped: stop_flag()?,
    };
    println!(
        "Medians of {} interleaved rounds of {} ms; measured process on core {}, load and upstream on core {}.\n",
        settings.rounds, arguments.turn_ms, settings.cores.measured, settings.cores.load
    );
    let began = Instant::now();
    // Before all that takes long: if it fails, it fails at once.
    let cross_checks = match arguments.write {
        Some(_) => beside::redis_benchmark(&settings)?,
        None => None,
    };
    let mut report = Report {
        commit: commit(),
        cores: settings.cores.clone(),
        machine: Machine::this(),
        versions: settings.programs.versions(&[
            Kind::Hit,
            Kind::Redis,
            Kind::Twemproxy,
            Kind::Envoy,
            Kind::Go,
            Kind::Python,
        ]),
        rounds: settings.rounds,
        turn_ms: settings.turn.as_millis(),
        minutes: 0,
        cross_checks,
        scenarios: Vec::new(),
    };
    for scenario in chosen {
        let result = match runner::run(scenario, &settings) {
            Ok(result) => result,
            Err(error) if settings.is_stopped() => return Err(error),
            Err(error) => ScenarioResult::failed(scenario.name, format!("{error:#}")),
        };
        println!("## {}\n\n{}", scenario.title, report::scenario(&result));
        report.scenarios.push(result);
        report.minutes = began.elapsed().as_secs().div_ceil(60);
        if let Some(folder) = &arguments.write {
            report.save(folder)?;
        }
    }
    print!("{}", report::goals(&report.scenarios, false));
    if let Some(folder) = &arguments.write {
        report.write(folder)?;
    }
    match report.scenarios.iter().filter(|result| result.failure.is_some()).count() {
        0 => Ok(()),
        failed => bail!("{failed} scenarios could not be measured"),
    }
}

/// What was checked out, if git knows.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match (git(&["rev-parse", "--short=12", "HEAD"]), git(&["status", "--porcelain", "--untracked-files=no"])) {
        (Some(commit), Some(changes)) if changes.is_empty() => format!("commit {commit}"),
        (Some(commit), Some(_)) => format!("commit {commit} with changes"),
        _ => "an unknown commit".to_owned(),
    }
}

fn choose(names: &[String]) -> anyhow::Result<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(scenarios::ALL.iter().filter(|scenario| scenario.in_full).collect());
    }
    let find = |name: &String| {
        let found = scenarios::ALL.iter().find(|scenario| scenario.name == *name);
        found.with_context(|| format!("no scenario is called {name:?}; --list says which there are"))
    };
    names.iter().map(find).collect()
}

/// Set by the first Ctrl-C, after which every server is ended; the second ends the process.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, stopped.clone())?;
        signal_hook::flag::register(signal, stopped.clone())?;
    }
    Ok(stopped)
}
