//! `make torture`: goes on as long as asked, tells how it goes, and fails if a promise was broken. Ctrl-C ends it with a report
//! of the rounds until then.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use nearside_tests::end_all;
use nearside_torture::faults::Fault;
use nearside_torture::run::Run;
use nearside_torture::world::MAX_STALENESS;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// As a shell tells of a program that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

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
    let told = tell_when_interrupted(args.seed);
    let report = run.carry_out(|line, report| {
        println!("{line}");
        *told.lock().unwrap_or_else(PoisonError::into_inner) = report.text(MAX_STALENESS);
    });
    tell(&report.text(MAX_STALENESS), args.seed);
    if report.violations().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(text: &str, seed: u64) {
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    println!("{text}seed {seed}, command line: torture {command}");
}

/// Gives where the report is to be left that is told then. Neither a signal nor a panic leaves a server behind.
fn tell_when_interrupted(seed: u64) -> Arc<Mutex<String>> {
    let told = Arc::new(Mutex::new(String::new()));
    let (text, mut signals) = (Arc::clone(&told), Signals::new([SIGINT, SIGTERM]).expect("they can be waited for"));
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            tell(&text.lock().unwrap_or_else(PoisonError::into_inner), seed);
            end_all();
            std::process::exit(INTERRUPTED);
        }
    });
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        end_all();
    }));
    told
}
