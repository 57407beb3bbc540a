//! The log: lines on standard error, as much of them as the setting `log` asks for.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// Logs from here on. Colours only for a terminal.
pub(crate) fn start(config: &Config) {
    let colours = io::stderr().is_terminal();
    let filter = EnvFilter::new(&config.log);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).init();
}
