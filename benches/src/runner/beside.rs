//! The driver beside redis-benchmark, on a Redis of its own.

use std::time::Duration;

use anyhow::Context;

use crate::load::cross_check::{self, CrossCheck};
use crate::load::{Protocol, Spread, Workload, preload};
use crate::runner::Settings;
use crate::stage::{Addresses, Kind};

/// Connections of either program.
pub const CONNECTIONS: usize = 50;

/// Keys that are asked for.
pub const KEYS: u32 = 10_000;

/// Bytes of each value.
pub const VALUE_LEN: usize = 16;

/// Pipelines that are compared.
const DEPTHS: [usize; 2] = [1, 16];

/// How long both together take over each depth.
const TIME: Duration = Duration::from_secs(5);

/// One comparison for each depth; none if redis-benchmark is not installed. This thread is to be on the load's core.
pub fn redis_benchmark(settings: &Settings) -> anyhow::Result<Option<Vec<CrossCheck>>> {
    if !cross_check::is_installed().context("looking for redis-benchmark")? {
        return Ok(None);
    }
    let nothing = Addresses { servers: Vec::new(), is_cluster: false };
    let server = settings.programs.start(Kind::Redis, settings.cores.measured, &nothing, None);
    let server = server.map_err(anyhow::Error::msg)??;
    preload::set_keys(server.address(), KEYS, VALUE_LEN).context("setting the keys")?;
    let compare = |depth| {
        cross_check::run(server.address(), CONNECTIONS, &workload(depth), TIME, &settings.stopped)
            .with_context(|| format!("the driver beside redis-benchmark at depth {depth}"))
    };
    DEPTHS.into_iter().map(compare).collect::<Result<_, _>>().map(Some)
}

fn workload(depth: usize) -> Workload {
    Workload {
        mix: "get".parse().expect("a mix"),
        keys: KEYS,
        spread: Spread::Uniform,
        value_len: VALUE_LEN,
        depth,
        protocol: Protocol::Resp2,
    }
}
