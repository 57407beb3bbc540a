//! Nearside: a caching proxy that speaks the Redis protocol.

mod commands;
mod config;
mod control;
mod face;
mod glob;
mod lanes;
mod logging;
mod metrics;
mod net;
mod output;
mod server;
mod session;
mod shared;
mod topology;
mod users;
mod worker;

use std::fmt;
use std::io::{self, Write};
use std::panic;
use std::process::{self, ExitCode};

use config::Invocation;

/// Under churn of items of all sizes it gives memory back, so that a full cache stays near its size.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a wrong setting, or an address in use, exits with.
const EXIT_CANNOT_START: u8 = 2;

fn main() -> ExitCode {
    abort_on_panic();
    match config::load(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Invocation::Run(config)) => {
            logging::start(&config);
            match server::run(*config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => cannot_start(&[error]),
            }
        }
        Ok(Invocation::Check { file, result: Ok(config) }) => match server::check(&config) {
            Ok(()) => print(format_args!("{}: ok\n", file.display())),
            Err(error) => cannot_start(&[error]),
        },
        Ok(Invocation::Check { result: Err(errors), .. }) => cannot_start(&errors),
        Ok(Invocation::Print(text)) => print(text),
        Err(error) => cannot_start(&[error]),
    }
}

/// A broken invariant ends the process, and a supervisor starts a clean one. A release is built that way; this is for all other
/// builds, where the runtime would hide from tests that a session has panicked.
fn abort_on_panic() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        tell(panic);
        process::abort();
    }));
}

/// Answers what was asked for. Should nobody read it, so be it.
fn print(text: impl fmt::Display) -> ExitCode {
    let _ = write!(io::stdout(), "{text}");
    ExitCode::SUCCESS
}

/// Says why, one line each.
fn cannot_start<E: fmt::Display>(reasons: &[E]) -> ExitCode {
    for reason in reasons {
        let _ = writeln!(io::stderr(), "nearside: {reason:#}");
    }
    ExitCode::from(EXIT_CANNOT_START)
}
