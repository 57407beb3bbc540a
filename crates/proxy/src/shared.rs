//! What the workers and the control plane have in common.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use nearside_nearcache::{FillTicket, NearCache, Time};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use crate::commands::cached::Query;
use crate::commands::client::pause::Pause;
use crate::commands::table::Table;
use crate::config::{Config, Servers, UpstreamAddress};
use crate::face::Face;
use crate::lanes::fence::Fence;
use crate::metrics::{AcceptorMetrics, CutOff, WorkerMetrics};
use crate::net::clock;
use crate::net::socket::Stream;
use crate::session::registry::Registry;
use crate::session::state::Learned;
use crate::topology::{LoaderState, Node, Nodes, Slot, Topology};
use crate::users::{self, Attempt, Attempts, User, Users, Verdict};

/// Messages a worker's mailbox holds; what does not fit goes the way without the cache, or is told again.
pub(crate) const MAILBOX: usize = 64 * 1024;

/// How long a connection that was lost is not made again for want of the Sentinels' word.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(500);

/// What is said to a worker.
pub(crate) enum Message {
    /// A client has connected.
    Connection(Stream),
    /// Fetch this from this node, on the loader lane that lives on this worker.
    Fetch(FillTicket, Arc<Node>, User),
    /// Tell this node that these keys of this db are in use, on the loader lane that lives on this worker.
    Touch(Arc<Node>, u16, Vec<Vec<u8>>),
    /// Sessions of this worker waited for this.
    Fetched(Fetched),
    /// Have this fence wait for the loader lanes of these nodes that live on this worker.
    Fence(Arc<Fence>, Vec<Arc<Node>>),
    /// What a session waits for with this reply has arrived.
    Fenced { session: u64, sequence: u64 },
    /// Connect the loader lane of this node, user and db, which lives on this worker.
    Load(Arc<Node>, User, u16),
    /// The topology has changed.
    Topology,
    /// Clients are paused, or no longer.
    Pause,
    /// End this session.
    End { session: u64, reason: CutOff },
    /// What the upstream said of a command that this session asked about is in the table; `absent`: it has none such.
    Learned { session: u64, learned: Learned },
    /// What the upstream says of the login that this session waits for.
    LoggedIn { session: u64, verdict: Verdict },
    /// Shutdown has begun.
    Drain,
}

/// The outcome of a fetch.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    /// Session and sequence number of those who wait.
    pub(crate) waiters: Vec<(u64, u64)>,
    /// What was read.
    pub(crate) query: Query,
    /// The reply, in RESP3; `None`: there is none, the read goes upstream.
    pub(crate) reply: Option<Bytes>,
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// What clients see that look for a cluster.
    pub(crate) face: Face,
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
    /// The servers upstream that are in use.
    pub(crate) nodes: Nodes,
    /// Which of them serves what; published by [`Shared::publish`] alone.
    pub(crate) topology: ArcSwap<Topology>,
    /// The version of `topology`, to be compared without touching it.
    pub(crate) topology_version: AtomicU64,
    /// Of a cluster, every node that its nodes speak of, replicas included: where a redirection may lead.
    pub(crate) members: ArcSwap<HashMap<UpstreamAddress, UpstreamAddress>>,
    /// Somebody has reason to think that the topology has changed.
    pub(crate) topology_doubted: Notify,
    /// With Sentinels: when most of them still said that the primary is the one that is published.
    pub(crate) confirmed: watch::Sender<Time>,
    /// Clients allowed: `max-clients`, or what the file limit leaves of it.
    pub(crate) max_clients: AtomicUsize,
    /// Memory of all sessions' buffers, in bytes.
    pub(crate) buffers: AtomicU64,
    /// CLIENT PAUSE.
    pause: Mutex<Pause>,
    /// A NEARSIDE FLUSH with a pattern is under way.
    pub(crate) flushing: AtomicBool,
    /// Shutdown has begun.
    pub(crate) draining: AtomicBool,
    /// What clients ask the upstream's COMMAND INFO about.
    pub(crate) unknown_commands: mpsc::Sender<Unknown>,
    /// The users of the upstream's ACL that sessions have logged in as.
    pub(crate) users: Users,
    /// What clients who log in as one ask the upstream about.
    pub(crate) logins: Attempts,
    /// The other end of `logins`, until the control plane takes it.
    pub(crate) attempts: Mutex<Option<mpsc::Receiver<Attempt>>>,
    /// The version the upstream gives for itself; empty before it was reached.
    pub(crate) upstream_version: ArcSwap<String>,
    /// There fields of a hash may expire by themselves.
    pub(crate) has_field_expiry: AtomicBool,
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
        let nodes = Nodes::new(workers);
        let topology = match &config.upstream.servers {
            Servers::Standalone(address) => Topology::standalone(nodes.at(address).expect("it is the first")),
            Servers::Cluster(_) => Topology::unknown_cluster(),
            Servers::Sentinel(_) => Topology::primary(0, None),
        };
        let (logins, attempts) = users::attempts();
        Shared {
            users: Users::new(&config),
            logins,
            attempts: Mutex::new(Some(attempts)),
            max_clients: AtomicUsize::new(config.max_clients),
            face: Face::new(config.announce.clone()),
            commands: ArcSwap::from_pointee(Table::core().clone().for_scripts(config.script_fence)),
            config,
            started: clock::now(),
            cache,
            mailboxes,
            metrics: (0..workers).map(|_| Arc::default()).collect(),
            acceptor: AcceptorMetrics::default(),
            clients: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            registry: Registry::default(),
            nodes,
            topology: ArcSwap::from_pointee(topology),
            topology_version: AtomicU64::new(0),
            members: ArcSwap::default(),
            topology_doubted: Notify::new(),
            confirmed: watch::Sender::new(Time(0)),
            buffers: AtomicU64::new(0),
            pause: Mutex::default(),
            flushing: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            unknown_commands,
            upstream_version: ArcSwap::from_pointee(String::new()),
            has_field_expiry: AtomicBool::new(false),
        }
    }

    /// A new connection to `node` leads to the server with this `run_id`. If that is another one than before, nothing fetched
    /// there until now is served any more. Gives the server's epoch.
    pub(crate) fn meet_server(&self, node: &Node, run_id: Option<Vec<u8>>, connected: Time) -> Option<u64> {
        let (epoch, replaced) = node.server().meet(run_id, connected)?;
        if replaced {
            tracing::warn!("another server, or a restarted one, answers at upstream {}", node.address());
            self.retire(node);
        }
        Some(epoch)
    }

    /// A connection to `node` was lost or could not be made.
    pub(crate) fn doubt(&self, node: &Node) {
        node.doubt(clock::now());
        self.topology_doubted.notify_one();
    }

    /// Waits until the Sentinels still name `node`, after it was last doubted: it may have been replaced, and not know it yet.
    /// Not for long: when most of them are away, nobody can be replaced.
    /// <https://redis.io/docs/latest/develop/reference/sentinel-clients/#handling-reconnections>
    pub(crate) async fn until_confirmed(&self, node: &Node) {
        let doubted = node.doubted();
        if doubted > Time(0) {
            // That it did not come in time says as little as that it came.
            let _ = timeout(CONFIRMED_WITHIN, self.confirmed.subscribe().wait_for(|since| *since >= doubted)).await;
        }
    }

    /// Nothing that was fetched from `node` until now is served any more.
    pub(crate) fn retire(&self, node: &Node) {
        if let Some(cache) = &self.cache {
            cache.retire(node.id());
        }
    }

    /// `node` says that another one serves `slot`. If that is news, there may be more that it has lost: nothing that was
    /// fetched from it until now is served any more. True if it is.
    pub(crate) fn lost_slot(&self, node: &Node, slot: Slot) -> bool {
        let topology = self.topology.load();
        let is_news = topology.position(slot).is_some_and(|at| topology.nodes()[at].id() == node.id());
        if is_news {
            self.retire(node);
        }
        is_news
    }

    /// The node at `address`, if it is known to be one of the cluster.
    pub(crate) fn member(&self, address: &UpstreamAddress) -> Option<Arc<Node>> {
        self.members.load().get(address).and_then(|address| self.nodes.at(address))
    }

    /// Makes `topology` the one that counts, and ends the leases of all nodes that have lost a slot by it. A fetch that still
    /// goes by the one before is refused by the lane, which looks again once it has a lease.
    pub(crate) fn publish(&self, topology: Topology) {
        let before = self.topology.swap(Arc::new(topology));
        let topology = self.topology.load();
        self.topology_version.store(topology.version(), Ordering::Release);
        for node in before.nodes().iter().filter(|node| !topology.leaves(node, &before)) {
            self.retire(node);
        }
        let first_db = self.config.upstream.db;
        topology.nodes().iter().for_each(|node| self.prepare_loader(node, first_db));
        for mailbox in &self.mailboxes {
            // A worker whose mailbox is full looks by itself, a little later.
            let _ = mailbox.try_send(Message::Topology);
        }
    }

    /// Changes which commands wait, and lets the workers know.
    pub(crate) fn pause(&self, change: impl FnOnce(Pause) -> Pause) {
        {
            let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
            *pause = change(*pause);
        }
        for mailbox in &self.mailboxes {
            // A worker whose mailbox is full looks by itself, a little later.
            let _ = mailbox.try_send(Message::Pause);
        }
    }

    /// Which commands wait.
    pub(crate) fn paused(&self) -> Pause {
        *self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if reads of this node's db can be fetched for the cache, as `user`. The first to ask has the lane for it made.
    #[inline]
    pub(crate) fn loader_is_ready(&self, node: &Arc<Node>, user: &User, db: u16) -> bool {
        node.loader_is_ready(user, db, || {
            let message = Message::Load(Arc::clone(node), user.clone(), db);
            if self.mailboxes[self.loader_worker(node, user, db)].try_send(message).is_err() {
                node.set_loader(user, db, LoaderState::Unused); // the next read tries again
            }
        })
    }

    /// Has the loader lane made before the first client asks, so that its first read can be cached.
    pub(crate) fn prepare_loader(&self, node: &Arc<Node>, db: u16) {
        if self.cache.is_some() {
            self.loader_is_ready(node, &User::own(), db);
        }
    }

    /// The worker on which the loader lane of this node, user and db lives.
    pub(crate) fn loader_worker(&self, node: &Node, user: &User, db: u16) -> usize {
        (node.id() as usize + usize::from(user.id()) + usize::from(db)) % self.mailboxes.len()
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
