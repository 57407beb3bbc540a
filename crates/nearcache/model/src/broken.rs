//! The rules of the protocol that can be left out.

/// A rule, named for what happens without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// An invalidation does not drop the entry (it does poison the fetches).
    InvalidationDropsNothing,
    /// An invalidation does not poison the fetches under way (it does drop the entry).
    InvalidationPoisonsNothing,
    /// The server's word that everything has changed ends no lease.
    FlushEndsNoLease,
    /// FLUSHALL through the proxy ends no lease before it is acknowledged.
    OwnFlushEndsNoLease,
    /// A write through the proxy does not drop the entry before it is acknowledged.
    WriteDropsNothing,
    /// A write through the proxy does not poison the fetches under way.
    WritePoisonsNothing,
    /// A write through the proxy is acknowledged first.
    WriteIsToldFirst,
    /// A hit does not ask whether the lease is live.
    LapsedLeaseServes,
    /// A heartbeat renews the lease from when it was answered, not from when it was sent.
    LeaseCountsFromAnswer,
    /// A heartbeat renews the lease whatever the server says of itself and of the key.
    AnyAnswerRenews,
    /// What a lost connection fetched goes on under the lease of the next.
    EntriesSurviveConnection,
    /// Fetches are sent before tracking is on.
    FetchesBeforeTracking,
    /// A fetch whose lease has died stores under the lane's new one.
    DeadLeaseStores,
    /// A fetch takes followers however long ago it was sent.
    FollowersJoinLate,
    /// A poisoned fetch takes followers.
    PoisonedTakesFollowers,
    /// A fetch whose lease has died takes followers.
    DeadLeaseTakesFollowers,
    /// Publishing a topology ends no lease.
    PublicationEndsNoLease,
    /// A heartbeat's answer renews the lease whatever the newest topology says of the node: the thread that publishes it may
    /// stand still before it ends the leases.
    HeartbeatIgnoresTopology,
    /// A lane fetches whatever it is asked for, by a session that may go by an old topology.
    LaneTrustsSessions,
    /// A lane looks at the topology first, and takes its lease then.
    TopologyIsSeenFirst,
    /// An answer that a key is served elsewhere ends no lease.
    MovedEndsNoLease,
    /// A value is served whatever its time to live.
    NoDeadline,
    /// A time to live counts from when it was answered, not from when it was asked for.
    LifeCountsFromAnswer,
    /// Those who joined after the value's end are answered with it.
    LateAreAnswered,
    /// Those who joined are answered although the key has changed since the fetch began: PTTL may have spoken of another value.
    PoisonedTellsFollowers,
    /// A value beside which PTTL says that there is none is stored.
    ExpiringIsStored,
}
