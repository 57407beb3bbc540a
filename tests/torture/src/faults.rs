//! What happens to Redis, to the proxies and to what is between them.

mod cluster;
mod server;

use std::time::Duration;

use nearside_tests::{Client, Nearside, Relay};
use rustix::process::Signal;

use crate::client::Shared;
use crate::history::{History, Key, Path, Silence};
use crate::plan::{Asker, Plan};
use crate::world::{Upstream, World};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// None: the clients alone.
    Nothing,
    /// `kill -9` of a primary, which comes back later.
    Kill,
    /// SIGSTOP of a primary until another one has taken over; then SIGCONT.
    StopForLong,
    /// SIGSTOP of a primary, and SIGCONT before anybody thinks it dead.
    StopBriefly,
    /// CLUSTER FAILOVER, there and back.
    Failover,
    /// CLUSTER FAILOVER FORCE.
    ForcedFailover,
    /// CLUSTER FAILOVER TAKEOVER.
    Takeover,
    /// Slots go to another primary with their keys, and on to a third.
    MovedSlots,
    /// Primaries take over slots of others without their keys.
    TakenSlots,
    /// A primary loses all other nodes, and keeps its clients.
    Isolation,
    /// CLIENT KILL of the connections that the proxies fetch by, again and again.
    KilledLoaders,
    /// FLUSHALL, through a proxy and beside the proxies.
    FlushAll,
    /// Connections of clients and proxies to Redis are closed, again and again.
    CutConnections,
    /// Clients and proxies cannot reach Redis, and nothing is closed.
    HeldBack,
    /// What Redis sends on connections that track keys arrives late.
    Delay,
    /// What Redis sends on any connection of the proxies arrives late, their control plane's too.
    SlowLink,
    /// Redis can remember only a few tracked keys.
    TrackingOverflow,
    /// Redis throws keys away for lack of memory.
    Eviction,
    /// SIGSTOP and SIGCONT of a proxy.
    StoppedProxy,
}

/// How long what is done to connections goes on.
const SPELL: Duration = Duration::from_millis(1500);
/// A replica takes over within this.
const PROMOTION_LIMIT: Duration = Duration::from_secs(30);
/// Short of what makes the other nodes think it dead.
const BRIEFLY: Duration = Duration::from_millis(1300);
/// Between two blows of the same kind.
const BETWEEN: Duration = Duration::from_millis(150);
/// Memory left when the server begins to throw keys away.
const ROOM: u64 = 256 << 10;
/// What is written then beside the clients' own, so that something has to go.
const FILLERS: usize = 3000;

impl Fault {
    /// Those that a cluster can have.
    pub const OF_CLUSTER: &'static [Self] = &[
        Self::Nothing,
        Self::Failover,
        Self::Kill,
        Self::MovedSlots,
        Self::TakenSlots,
        Self::KilledLoaders,
        Self::Isolation,
        Self::HeldBack,
        Self::ForcedFailover,
        Self::FlushAll,
        Self::StopForLong,
        Self::Delay,
        Self::CutConnections,
        Self::Takeover,
        Self::TrackingOverflow,
        Self::SlowLink,
        Self::StopBriefly,
        Self::Eviction,
        Self::StoppedProxy,
    ];

    /// Those that a server of its own can have.
    pub const OF_SERVER: &'static [Self] = &[
        Self::Kill,
        Self::StopForLong,
        Self::KilledLoaders,
        Self::FlushAll,
        Self::StopBriefly,
        Self::CutConnections,
        Self::HeldBack,
        Self::Delay,
        Self::SlowLink,
        Self::TrackingOverflow,
        Self::Eviction,
        Self::StoppedProxy,
        Self::Nothing,
    ];

    /// Whether Redis may lose by it what it had acknowledged, or show what it should not.
    #[must_use]
    pub fn loses_writes(self, world: &World) -> bool {
        let of_cluster = [Self::Kill, Self::StopForLong, Self::ForcedFailover, Self::Takeover, Self::Isolation];
        matches!(world.upstream, Upstream::Cluster(_)) && of_cluster.contains(&self)
    }

    /// Whether keys vanish that nobody has deleted.
    #[must_use]
    pub fn loses_keys(self) -> bool {
        matches!(self, Self::Eviction | Self::FlushAll | Self::TakenSlots)
    }

    /// Does it to the world, and leaves that well again. What the checker has to know of it is in the history.
    pub fn happen(self, world: &mut World, shared: &Shared, random: &mut fastrand::Rng) -> History {
        let mut history = History::default();
        match self {
            Self::Nothing => std::thread::sleep(SPELL),
            Self::StoppedProxy => stop_proxy(world, random),
            Self::FlushAll => flush_all(world, shared, &mut history),
            _ => match &mut world.upstream {
                Upstream::Cluster(cluster) => cluster::happen(self, cluster, shared, random, &mut history),
                Upstream::Server { server, relay } => server::happen(self, server, relay, shared, &mut history),
            },
        }
        if let Upstream::Cluster(cluster) = &world.upstream {
            cluster.wait_until_ok();
        }
        history
    }
}

fn stop_proxy(world: &mut World, random: &mut fastrand::Rng) {
    let proxy: &mut Nearside = &mut world.proxies[random.usize(..2)];
    proxy.process().signal(Signal::STOP);
    std::thread::sleep(SPELL);
    proxy.process().signal(Signal::CONT);
    std::thread::sleep(BETWEEN);
}

fn flush_all(world: &World, shared: &Shared, history: &mut History) {
    let plan = Plan::flush();
    for _ in 0..3 {
        for (number, proxy) in world.proxies.iter().enumerate() {
            let asker = flushing(Path::Proxy(number));
            let began = shared.clock.now();
            let reply = proxy.client().call("FLUSHALL");
            plan.note(&shared.keys, asker, (began, shared.clock.now()), &[reply], history);
            std::thread::sleep(BETWEEN);
        }
        flush_beside(world, shared, history);
        std::thread::sleep(BETWEEN);
    }
}

/// Who says FLUSHALL, and nothing else.
fn flushing(path: Path) -> Asker {
    Asker {
        client: 0,
        path,
        db: 0,
        is_restricted: false,
        insists: false,
        reads: 0,
        declares_all: true,
        has_field_expiry: false,
    }
}

fn flush_beside(world: &World, shared: &Shared, history: &mut History) {
    let asker = flushing(Path::Direct);
    let began = shared.clock.now();
    match &world.upstream {
        Upstream::Cluster(cluster) => {
            let primaries = (0..cluster.addresses().len()).filter(|&node| cluster.is_primary(node));
            primaries.for_each(|node| assert_eq!(cluster.node(node).client().call("FLUSHALL"), "+OK\r\n"));
        }
        Upstream::Server { server, .. } => assert_eq!(server.client().call("FLUSHALL"), "+OK\r\n"),
    }
    let reply = nearside_tests::Reply(b"+OK\r\n".to_vec());
    Plan::flush().note(&shared.keys, asker, (began, shared.clock.now()), &[reply], history);
}

/// Nobody reaches Redis while this goes on.
fn in_silence(shared: &Shared, keys: Vec<Key>, history: &mut History, during: impl FnOnce()) {
    let from = shared.clock.now();
    during();
    history.silences.push(Silence { keys, from, until: shared.clock.now() });
}

/// Delays grow, and end; `delay` sets one at the relays.
fn delay_for_a_while<'a>(relays: impl Iterator<Item = &'a Relay> + Clone, delay: impl Fn(&Relay, Duration)) {
    for late in [SPELL / 20, SPELL / 5] {
        relays.clone().for_each(|relay| delay(relay, late));
        std::thread::sleep(SPELL);
    }
    relays.for_each(|relay| delay(relay, Duration::ZERO));
}

fn kill_loaders(client: &mut Client) {
    for id in client.ids_of("nearside-loader") {
        client.call(&format!("CLIENT KILL ID {id}"));
    }
}

fn overflow_tracking(client: &mut Client) {
    assert_eq!(client.call("CONFIG SET tracking-table-max-keys 4"), "+OK\r\n");
}

fn widen_tracking(client: &mut Client) {
    assert_eq!(client.call("CONFIG SET tracking-table-max-keys 1000000"), "+OK\r\n");
}

fn shrink_memory(client: &mut Client) {
    let info = client.call("INFO memory");
    let info = String::from_utf8_lossy(&info);
    let used =
        info.lines().find_map(|line| line.strip_prefix("used_memory:")).and_then(|text| text.trim().parse().ok());
    let used: u64 = used.expect("INFO memory says how much is used");
    assert_eq!(client.call("CONFIG SET maxmemory-policy allkeys-lru"), "+OK\r\n");
    assert_eq!(client.call(&format!("CONFIG SET maxmemory {}", used + ROOM)), "+OK\r\n");
}

fn give_memory(client: &mut Client) {
    assert_eq!(client.call("CONFIG SET maxmemory 0"), "+OK\r\n");
    assert_eq!(client.call("CONFIG SET maxmemory-policy noeviction"), "+OK\r\n");
}
