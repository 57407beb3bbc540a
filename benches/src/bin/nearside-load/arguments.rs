//! The command line.

use std::path::PathBuf;

use clap::Parser;
use nearside_benches::load::{Mix, Protocol, Spread, Workload};

/// Puts a server that speaks the Redis protocol under load, and tells throughput and latency.
///
/// Every byte of every reply is checked. Without --rate it is a closed loop: each connection sends a pipeline of commands,
/// waits for all the replies, and sends the next. With --rate it is an open loop: commands are due at times decided
/// beforehand, and each counts from when it was due, so that a stall counts against every command it delayed.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// HOST:PORT of the server
    pub(crate) address: String,
    /// Commands with their shares, such as get=70,set=30: get, set, absent (GET of a key that does not exist), mget:KEYS, ping
    #[arg(long, default_value = "get")]
    pub(crate) mix: Mix,
    /// Keys to choose from
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    pub(crate) keys: u32,
    /// How asks spread over the keys: uniform, zipf, zipf:EXPONENT, hotspot:PERCENT_OF_KEYS:PERCENT_OF_ASKS
    #[arg(long, default_value = "uniform")]
    pub(crate) spread: Spread,
    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = clap::value_parser!(u32).range(..=64 << 20))]
    pub(crate) value_size: u32,
    /// Connections, all on one thread
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,
    /// Commands in a pipeline; with --rate, commands that a connection may have on their way
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) depth: u32,
    /// Version of the protocol: with 3, connections begin with HELLO 3
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=3))]
    pub(crate) resp: u32,
    /// Open loop: so many commands a second, as if of independent clients
    #[arg(long, value_name = "COMMANDS_PER_SECOND", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Close each connection after so many pipelines, and open another
    #[arg(long, value_name = "PIPELINES", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) lifetime: Option<u32>,
    /// Seconds to measure
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Seconds of the same load before that
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) warm_up: f64,
    /// Leave the keys as they are, instead of setting them first
    #[arg(long)]
    pub(crate) no_preload: bool,
    /// Do not measure what the driver reaches by itself
    #[arg(long)]
    pub(crate) no_ceiling: bool,
    /// Also tell the CPU time per command of this process of this machine; may be given more than once
    #[arg(long, value_name = "PID")]
    pub(crate) cpu_of: Vec<u32>,
    /// Stay on this core
    #[arg(long)]
    pub(crate) core: Option<usize>,
    /// Write what was measured to this file as JSON; - is the standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw latency by quantile into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Let redis-benchmark do the same, in turns, and print both side by side; for a closed loop of get or set alone
    #[arg(long, conflicts_with_all = ["rate", "lifetime", "json", "svg"])]
    pub(crate) cross_check: bool,
}

impl Arguments {
    /// What the flags ask for.
    pub(crate) fn workload(&self) -> Workload {
        Workload {
            mix: self.mix.clone(),
            keys: self.keys,
            spread: self.spread,
            value_len: self.value_size as usize,
            depth: self.depth as usize,
            protocol: if self.resp == 3 { Protocol::Resp3 } else { Protocol::Resp2 },
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds, up to a day".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (1.0..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("commands a second, from 1 to ten million".to_owned()),
    }
}
