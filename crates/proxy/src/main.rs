//! Nearside: a caching proxy that speaks the Redis protocol.

mod commands;
mod config;
mod control;
mod lanes;
mod logging;
mod metrics;
mod net;
mod output;
mod server;
mod session;
mod shared;
mod worker;

use std::process::ExitCode;

use config::{ConfigError, Invocation};

/// Under churn of items of all sizes it gives memory back, so that a full cache stays near its size.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a wrong setting, or an address in use, exits with.
const EXIT_CANNOT_START: u8 = 2;

fn main() -> ExitCode {
    match config::load(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Invocation::Run(config)) => {
            logging::start(&config);
            match server::run(*config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => cannot_start(format!("{error:#}")),
            }
        }
        Ok(Invocation::Check { file, result: Ok(_) }) => {
            println!("{}: ok", file.display());
            ExitCode::SUCCESS
        }
        Ok(Invocation::Check { result: Err(errors), .. }) => {
            errors.iter().map(ConfigError::to_string).for_each(say);
            ExitCode::from(EXIT_CANNOT_START)
        }
        Ok(Invocation::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => cannot_start(error.to_string()),
    }
}

fn cannot_start(reason: String) -> ExitCode {
    say(reason);
    ExitCode::from(EXIT_CANNOT_START)
}

/// One line on standard error.
fn say(line: String) {
    eprintln!("nearside: {line}");
}
