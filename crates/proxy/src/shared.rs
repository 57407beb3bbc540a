//! What the workers and the control plane have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use nearside_nearcache::{FillTicket, NearCache, Time};
use tokio::sync::mpsc;

use crate::commands::table::Table;
use crate::config::Config;
use crate::lanes::server::Server;
use crate::metrics::{AcceptorMetrics, CutOff, WorkerMetrics};
use crate::net::clock;
use crate::net::socket::Stream;
use crate::session::registry::Registry;

/// Messages a worker's mailbox holds; what does not fit goes the way without the cache, or is told again.
pub(crate) const MAILBOX: usize = 64 * 1024;
/// Databases whose reads are cached: each takes a loader lane. Redis has 16 unless told otherwise.
pub(crate) const CACHED_DBS: usize = 64;

/// What is said to a worker.
pub(crate) enum Message {
    /// A client has connected.
    Connection(Stream),
    /// Fetch this, on the loader lane that lives on this worker.
    Fetch(FillTicket),
    /// Sessions of this worker waited for this.
    Fetched(Fetched),
    /// Connect the loader lane of this db, which lives on this worker.
    Load(u16),
    /// End this session.
    End { session: u64, reason: CutOff },
    /// What the upstream said of a command that this session asked about is in the table; `absent`: it has none such.
    Learned { session: u64, absent: bool },
    /// Shutdown has begun.
    Drain,
}

/// The outcome of a fetch.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    /// Session and sequence number of those who wait.
    pub(crate) waiters: Vec<(u64, u64)>,
    /// What was read.
    pub(crate) key: Bytes,
    /// The reply, in RESP3; `None`: there is none, the read goes upstream.
    pub(crate) reply: Option<Bytes>,
}

/// Whether fetches for a db have somewhere to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum LoaderState {
    /// Nobody has asked yet.
    Unused,
    /// Its lane is being made, or cannot be made; reads of this db are not cached.
    Away,
    /// It may be used.
    Ready,
}

/// The states of the loader lanes, by db.
#[derive(Debug)]
pub(crate) struct Loaders([AtomicU8; CACHED_DBS]);

impl Loaders {
    fn new() -> Self {
        Loaders(std::array::from_fn(|_| AtomicU8::new(LoaderState::Unused as u8)))
    }

    /// True if a fetch for `db` has somewhere to go. The first to ask has the lane made: `start` is called.
    #[inline]
    pub(crate) fn is_ready(&self, db: u16, start: impl FnOnce()) -> bool {
        let Some(state) = self.0.get(usize::from(db)) else { return false };
        let seen = state.load(Ordering::Acquire);
        if seen == LoaderState::Ready as u8 {
            return true;
        }
        let (unused, away) = (LoaderState::Unused as u8, LoaderState::Away as u8);
        if seen == unused && state.compare_exchange(unused, away, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            start();
        }
        false
    }

    /// Called by the lane.
    pub(crate) fn set(&self, db: u16, state: LoaderState) {
        self.0[usize::from(db)].store(state as u8, Ordering::Release);
    }
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// When the process began to serve.
    pub(crate) started: Time,
    /// `None`: nothing is cached.
    pub(crate) cache: Option<Arc<NearCache>>,
    /// The commands known; replaced when one is learned.
    pub(crate) commands: ArcSwap<Table>,
    /// By worker.
    pub(crate) mailboxes: Vec<mpsc::Sender<Message>>,
    /// By worker.
    pub(crate) metrics: Vec<Arc<WorkerMetrics>>,
    pub(crate) acceptor: AcceptorMetrics,
    /// Clients, by worker.
    pub(crate) clients: Vec<AtomicUsize>,
    pub(crate) registry: Registry,
    pub(crate) loaders: Loaders,
    pub(crate) server: Server,
    /// Clients allowed: `max-clients`, or what the file limit leaves of it.
    pub(crate) max_clients: AtomicUsize,
    /// Memory of all sessions' buffers, in bytes.
    pub(crate) buffers: AtomicU64,
    /// Shutdown has begun.
    pub(crate) draining: AtomicBool,
    /// What clients ask the upstream's COMMAND INFO about.
    pub(crate) unknown_commands: mpsc::Sender<Unknown>,
    /// The version the upstream gives for itself; empty before it was reached.
    pub(crate) upstream_version: ArcSwap<String>,
}

/// A command that is not in the table, and the session that waits to hear of it.
#[derive(Debug)]
pub(crate) struct Unknown {
    pub(crate) name: Vec<u8>,
    pub(crate) worker: usize,
    pub(crate) session: u64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Shared {
    /// What all start with.
    pub(crate) fn new(
        config: Config,
        cache: Option<Arc<NearCache>>,
        mailboxes: Vec<mpsc::Sender<Message>>,
        unknown_commands: mpsc::Sender<Unknown>,
    ) -> Self {
        let workers = mailboxes.len();
        Shared {
            max_clients: AtomicUsize::new(config.max_clients),
            config,
            started: clock::now(),
            cache,
            commands: ArcSwap::from_pointee(Table::core().clone()),
            mailboxes,
            metrics: (0..workers).map(|_| Arc::default()).collect(),
            acceptor: AcceptorMetrics::default(),
            clients: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            registry: Registry::default(),
            loaders: Loaders::new(),
            server: Server::default(),
            buffers: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            unknown_commands,
            upstream_version: ArcSwap::from_pointee(String::new()),
        }
    }

    /// A new connection leads to the server with this `run_id`. If that is another one than before, nothing fetched until
    /// now is served any more. Gives the server's epoch.
    pub(crate) fn meet_server(&self, run_id: Option<Vec<u8>>) -> u64 {
        let (epoch, replaced) = self.server.meet(run_id);
        if replaced {
            tracing::warn!("another server, or a restarted one, answers at upstream {}", self.config.upstream.address);
            if let Some(cache) = &self.cache {
                cache.flush();
            }
        }
        epoch
    }

    /// The worker on which the loader lane of `db` lives.
    pub(crate) fn loader_worker(&self, db: u16) -> usize {
        usize::from(db) % self.mailboxes.len()
    }

    /// Begins the shutdown: nothing new is read, what is in flight is finished.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        for mailbox in &self.mailboxes {
            // A full mailbox is being read, and its worker looks at the flag after it.
            let _ = mailbox.try_send(Message::Drain);
        }
    }
}
