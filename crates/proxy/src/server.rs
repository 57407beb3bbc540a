//! Starts everything in order: the listeners, so that an address in use is told first, the cache, the workers' threads,
//! the control plane, which runs until the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use anyhow::Result;
use nearside_nearcache::{NearCache, Settings};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

use crate::config::{Config, settings};
use crate::control;
use crate::net::limits::raise_file_limit;
use crate::net::listener;
use crate::shared::{MAILBOX, Message, Shared, Unknown};
use crate::topology::CACHED_DBS;
use crate::worker::Worker;

/// Fetches under way at most, and sessions that wait for one; what comes on top reads upstream.
const MAX_FILLS: usize = 16 * 1024;
const MAX_WAITERS: usize = MAILBOX / 2;
/// Commands whose keys the upstream is being asked about.
const MAX_UNKNOWN: usize = 256;
/// Open files beside the clients', and beside those of each worker: listeners, admin connections, loader lanes.
const OTHER_FILES: usize = 128 + CACHED_DBS;
/// Of a worker: its event loop, and a lane for each protocol version to each of 16 databases.
const FILES_PER_WORKER: usize = 8 + 2 * 16;

/// Serves until a signal ends it. The error: why it could not start.
pub(crate) fn run(config: Config) -> Result<()> {
    let mut listeners = Vec::new();
    for listen in &config.listen {
        listeners.extend(listener::open(listen)?);
    }
    let admin = config.admin.as_ref().map(listener::open).transpose()?.unwrap_or_default();
    let cache = near_cache(&config)?;
    let max_clients = max_clients(&config)?;
    let (mailboxes, inboxes): (Vec<_>, Vec<_>) = (0..config.workers).map(|_| mpsc::channel(MAILBOX)).unzip();
    let (unknown_commands, questions) = mpsc::channel::<Unknown>(MAX_UNKNOWN);
    let mut shared = Shared::new(config, cache, mailboxes, unknown_commands);
    shared.face.listens_on(&listeners);
    let shared = Arc::new(shared);
    shared.max_clients.store(max_clients, Ordering::Relaxed);

    let workers = inboxes.into_iter().enumerate().map(|(index, inbox)| start_worker(index, &shared, inbox));
    let workers = workers.collect::<Result<Vec<_>>>()?;
    let first_db = shared.config.upstream.db;
    shared.topology.load().nodes().iter().for_each(|node| shared.prepare_loader(node, first_db));
    control::run(&shared, listeners, admin, questions, workers)
}

/// Whether a server with these settings could start, as far as that can be told without starting it.
pub(crate) fn check(config: &Config) -> Result<()> {
    near_cache(config).map(drop)
}

/// Raises the file limit, and says how many clients it leaves room for.
fn max_clients(config: &Config) -> Result<usize> {
    let others = OTHER_FILES + FILES_PER_WORKER * config.workers;
    let limit =
        raise_file_limit(config.max_clients, others).map_err(|error| config.refuse(&settings::MAX_CLIENTS, error))?;
    if let Some(warning) = limit.warning {
        tracing::warn!("{warning}");
    }
    Ok(limit.max_clients)
}

fn near_cache(config: &Config) -> Result<Option<Arc<NearCache>>> {
    let Some(capacity) = config.cache_size else { return Ok(None) };
    let sizes = Settings {
        capacity,
        max_item: config.cache_rules.largest_item(),
        max_age: config.cache_rules.longest_age(),
        max_staleness: config.max_staleness,
        workers: config.workers,
        max_fills: MAX_FILLS,
        max_waiters: MAX_WAITERS,
        fetch_churning: config.cache_churning,
        hash_seed: None,
    };
    let cache = NearCache::new(sizes).map_err(|error| config.refuse(config.size_at_fault(), error))?;
    Ok(Some(cache))
}

fn start_worker(index: usize, shared: &Arc<Shared>, inbox: mpsc::Receiver<Message>) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name(format!("worker-{index}"));
    let handle = thread.spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(2) // name lookups; one NEARSIDE FLUSH of a pattern at a time
            .build_local(LocalOptions::default())
            .expect("a runtime needs an epoll descriptor");
        runtime.block_on(Worker::run(index, shared, inbox));
        runtime.shutdown_background();
    })?;
    Ok(handle)
}
