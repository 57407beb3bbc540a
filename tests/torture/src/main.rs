//! `make torture`: goes on as long as asked, tells how it goes, and fails if a promise was broken.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nearside_torture::faults::Fault;
use nearside_torture::run::Run;
use nearside_torture::world::MAX_STALENESS;

/// Many clients, two proxies, faults of every kind, and a checker.
#[derive(Debug, Parser)]
struct Args {
    /// How long to go on.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Of the order of faults and of what clients ask.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this fault: its name as in the report.
    #[arg(long)]
    fault: Option<String>,
    /// Only before this: cluster, or server.
    #[arg(long, value_parser = ["cluster", "server"])]
    upstream: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let fault = args.fault.as_deref().map(|name| {
        let known = Fault::OF_CLUSTER.iter().chain(Fault::OF_SERVER);
        let named = |fault: &&Fault| format!("{fault:?}").eq_ignore_ascii_case(name);
        *known.copied().collect::<Vec<_>>().iter().find(named).unwrap_or_else(|| panic!("no fault is called {name}"))
    });
    let span = Duration::from_secs(args.seconds);
    let run = Run { span, seed: args.seed, fault, upstream: args.upstream };
    let report = run.carry_out(|line| println!("{line}"));
    print!("{}", report.text(MAX_STALENESS));
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    println!("seed {}, command line: torture {command}", args.seed);
    if report.violations().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
