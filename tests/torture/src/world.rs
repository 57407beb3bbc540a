//! What is tortured: two proxies before one Redis, a cluster or a server of its own.

use std::time::Duration;

use nearside_tests::{Nearside, RedisCluster, RedisServer, Relay};

use crate::client::{RESTRICTED_PASSWORD, RESTRICTED_USER, Redis};
use crate::keyspace::OPEN;

/// What the proxies promise.
pub const MAX_STALENESS: Duration = Duration::from_millis(500);
/// Nodes of a cluster that hear nothing of one for so long think it dead.
pub const NODE_TIMEOUT: Duration = Duration::from_millis(2000);
/// How many proxies there are.
pub const PROXIES: usize = 2;
/// Databases that are used of a server of its own.
pub const DBS: u16 = 2;
const PRIMARIES: usize = 3;

/// Redis and the proxies before it.
#[derive(Debug)]
pub struct World {
    /// What is behind the proxies.
    pub upstream: Upstream,
    /// What is tortured.
    pub proxies: Vec<Nearside>,
}

/// What is behind the proxies.
#[derive(Debug)]
pub enum Upstream {
    /// Primaries with a replica each, every node behind relays.
    Cluster(RedisCluster),
    /// One server, which writes everything to a file before it says so.
    Server {
        /// The server.
        server: RedisServer,
        /// What everybody reaches it through.
        relay: Relay,
    },
}

impl World {
    /// A cluster.
    #[must_use]
    pub fn cluster() -> Self {
        let timeout = NODE_TIMEOUT.as_millis().to_string();
        let user = restricted_user();
        let mut args = vec!["--cluster-node-timeout", &timeout];
        args.extend(user.iter().map(String::as_str));
        let cluster = RedisCluster::behind_relays(PRIMARIES, 1, &args);
        let url = cluster.url();
        Self { upstream: Upstream::Cluster(cluster), proxies: proxies(&url) }
    }

    /// A server.
    #[must_use]
    pub fn server() -> Self {
        let user = restricted_user();
        let mut args = vec!["--appendonly", "yes", "--appendfsync", "no"];
        args.extend(user.iter().map(String::as_str));
        let server = RedisServer::with(&args);
        let relay = Relay::to(&server.address());
        let url = relay.address().url();
        Self { upstream: Upstream::Server { server, relay }, proxies: proxies(&url) }
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.upstream {
            Upstream::Cluster(_) => "cluster",
            Upstream::Server { .. } => "server",
        }
    }

    /// How many databases its keys are in.
    #[must_use]
    pub fn dbs(&self) -> u16 {
        match self.upstream {
            Upstream::Cluster(_) => 1,
            Upstream::Server { .. } => DBS,
        }
    }

    /// A client with nothing in between but the relays.
    #[must_use]
    pub fn redis(&self, db: u16) -> Redis {
        match &self.upstream {
            Upstream::Cluster(cluster) => {
                Redis::Cluster(cluster.client().with_node_timeout(crate::client::NODE_TIMEOUT))
            }
            Upstream::Server { relay, .. } => Redis::Server { address: relay.address().clone(), db, client: None },
        }
    }

    /// Whether this Redis knows fields that expire by themselves, as it says itself.
    #[must_use]
    pub fn has_field_expiry(&self) -> bool {
        let mut client = match &self.upstream {
            Upstream::Cluster(cluster) => cluster.node(0).client(),
            Upstream::Server { server, .. } => server.client(),
        };
        // Of a command that it does not know it tells nothing.
        client.call("COMMAND INFO hpexpire").elements().iter().any(|told| !told.elements().is_empty())
    }

    /// How many reads the proxies have answered from their caches so far.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.proxies.iter().map(|proxy| proxy.hits() as u64).sum()
    }

    /// Empties the databases, so that rounds do not pile up.
    pub fn clear(&self) {
        match &self.upstream {
            Upstream::Cluster(cluster) => {
                let primaries = (0..2 * PRIMARIES).filter(|&node| cluster.is_primary(node));
                primaries.for_each(|node| drop(cluster.node(node).client().call("FLUSHALL")));
            }
            Upstream::Server { server, .. } => drop(server.client().call("FLUSHALL")),
        }
    }
}

/// The proxy that has fences for scripts.
pub const FENCED: usize = 0;

fn proxies(url: &str) -> Vec<Nearside> {
    let staleness = format!("{}ms", MAX_STALENESS.as_millis());
    let args = [
        "--max-staleness",
        &staleness,
        "--upstream-timeout",
        "1s",
        "--connect-timeout",
        "500ms",
        "--workers",
        "2",
        "--log",
        "warn",
        // Keys that change all the time are those that something can go wrong with.
        "--cache-churning",
        "yes",
    ];
    let fenced = |proxy| ["--script-fence", if proxy == FENCED { "yes" } else { "no" }];
    let start = |proxy| Nearside::with_url(url, &[&args[..], &fenced(proxy)].concat());
    let proxies: Vec<_> = (0..PROXIES).map(start).collect();
    proxies.iter().for_each(Nearside::wait_until_ready);
    proxies
}

/// As the server takes it at its start, so that it is there also after a restart.
fn restricted_user() -> Vec<String> {
    let password = format!(">{RESTRICTED_PASSWORD}");
    let pattern = format!("~*{OPEN}*");
    ["--user", RESTRICTED_USER, "on", &password, &pattern, "+@all"].map(str::to_owned).to_vec()
}
