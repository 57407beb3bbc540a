//! Worlds small enough to be explored whole. Each has what its rules need, and little else: what is in none of them together is
//! not explored together.
//!
//! One has two proxies. The others have one: proxies meet nowhere but in what they write, and whoever writes beside does that
//! too. Two of them and a failover are more states than a test should take.

use crate::Bounds;

impl Bounds {
    /// One proxy before one server, and writers beside it.
    const SMALLEST: Bounds = Bounds {
        proxies: 1,
        max_staleness: 2,
        versions: 2,
        life: None,
        has_writes_through: true,
        fills: 1,
        has_followers: false,
        beats: 1,
        has_cuts: false,
        has_evictions: false,
        has_flushes: false,
        has_failover: false,
        is_cluster: true,
    };

    /// Reads join a fetch, connections are lost, the server flushes and evicts.
    pub const ONE_PROXY: Bounds = Bounds {
        versions: 3,
        has_followers: true,
        has_cuts: true,
        has_evictions: true,
        has_flushes: true,
        ..Self::SMALLEST
    };

    /// Two fetches under way at once.
    pub const TWO_FETCHES: Bounds = Bounds { fills: 2, has_followers: true, has_flushes: true, ..Self::SMALLEST };

    /// A longer lease, and two heartbeats under way at once.
    pub const LONG_LEASE: Bounds =
        Bounds { max_staleness: 3, beats: 2, versions: 3, has_followers: true, ..Self::SMALLEST };

    /// Values with a time to live, which fetches ask for.
    pub const EXPIRY: Bounds = Bounds { versions: 3, life: Some(1), has_followers: true, ..Self::SMALLEST };

    /// The same with a life that is longer than the lease.
    pub const LONG_LIFE: Bounds = Bounds { life: Some(3), has_followers: true, has_cuts: true, ..Self::SMALLEST };

    /// Two proxies, and a writer beside them.
    pub const TWO_PROXIES: Bounds = Bounds { proxies: 2, ..Self::SMALLEST };

    /// The primary is cut off and goes on, the replica is elected, and the proxy hears of it at any time.
    pub const FAILOVER: Bounds = Bounds { has_failover: true, ..Self::SMALLEST };

    /// The same with as many versions as it takes for both servers to have been written to after they parted.
    pub const SPLIT: Bounds = Bounds { versions: 3, has_writes_through: false, has_failover: true, ..Self::SMALLEST };

    /// The same outside a cluster, where the deposed primary answers reads also when it has become a replica.
    pub const MONITORED: Bounds = Bounds { is_cluster: false, ..Self::FAILOVER };
}
