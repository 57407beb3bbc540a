//! The list, in the order in which scenarios are run and told.

use super::{Measure, Pace, Point, Scenario};
use crate::figures::Figure::{self, *};
use crate::stage::{Contestant, Kind, Upstream};

const fn contestant(kind: Kind, upstream: Upstream) -> Contestant {
    Contestant { kind, upstream }
}

const REDIS: Contestant = contestant(Kind::Redis, Upstream::One);
const HIT: Contestant = contestant(Kind::Hit, Upstream::One);
const CROWDED: Contestant = contestant(Kind::Crowded, Upstream::One);
const FORWARD: Contestant = contestant(Kind::Forward, Upstream::One);
const HIT_BEFORE: Contestant = contestant(Kind::HitBefore, Upstream::One);
const FORWARD_BEFORE: Contestant = contestant(Kind::ForwardBefore, Upstream::One);
const TWEMPROXY: Contestant = contestant(Kind::Twemproxy, Upstream::One);
const ENVOY: Contestant = contestant(Kind::Envoy, Upstream::One);
const GO: Contestant = contestant(Kind::Go, Upstream::One);
const PYTHON: Contestant = contestant(Kind::Python, Upstream::One);
const OWN_HIT: Contestant = contestant(Kind::Hit, Upstream::Own);
const OWN_FORWARD: Contestant = contestant(Kind::Forward, Upstream::Own);
const OWN_TWEMPROXY: Contestant = contestant(Kind::Twemproxy, Upstream::Own);
const OWN_ENVOY: Contestant = contestant(Kind::Envoy, Upstream::Own);
const OWN_GO: Contestant = contestant(Kind::Go, Upstream::Own);
const OWN_PYTHON: Contestant = contestant(Kind::Python, Upstream::Own);
const DISTANT_REDIS: Contestant = contestant(Kind::Redis, Upstream::Distant);
const DISTANT_HIT: Contestant = contestant(Kind::Hit, Upstream::Distant);
const DISTANT_FORWARD: Contestant = contestant(Kind::Forward, Upstream::Distant);
const CLUSTER_HIT: Contestant = contestant(Kind::Hit, Upstream::Cluster);
const CLUSTER_FORWARD: Contestant = contestant(Kind::Forward, Upstream::Cluster);
const CLUSTER_ENVOY: Contestant = contestant(Kind::Envoy, Upstream::Cluster);

const PROXIES: &[Contestant] = &[REDIS, HIT, FORWARD, TWEMPROXY, ENVOY];
const EVERYBODY: &[Contestant] = &[REDIS, HIT, FORWARD, TWEMPROXY, ENVOY, GO, PYTHON];
/// Where values change, and what one contestant writes would drop what another has cached.
const EVERYBODY_APART: &[Contestant] = &[REDIS, OWN_HIT, OWN_FORWARD, OWN_TWEMPROXY, OWN_ENVOY, OWN_GO, OWN_PYTHON];

/// GET of 10,000 keys with 16-byte values, one at a time over 50 connections.
const GETS: Point = Point {
    name: "",
    mix: "get",
    keys: 10_000,
    spread: "uniform",
    value_len: 16,
    connections: 50,
    idle: 0,
    depth: 1,
    lifetime: None,
    pace: Pace::Closed,
    without: &[],
};

/// The same at three depths.
const DEPTHS: &[Point] = &[
    Point { name: "depth 1, 50 connections", ..GETS },
    Point { name: "depth 16, 50 connections", depth: 16, ..GETS },
    Point { name: "depth 64, 50 connections", depth: 64, ..GETS },
];

/// As they are called beside SETs.
const CHANGED_GETS: &[Point] = &[
    Point { name: "GET, depth 1", ..GETS },
    Point { name: "GET, depth 16", depth: 16, ..GETS },
    Point { name: "GET, depth 64", depth: 64, ..GETS },
];

const ALL_FIGURES: &[Figure] =
    &[CpuUs, UpstreamCpuUs, Throughput, P50Us, P99Us, P999Us, ResidentMb, UpstreamCommands, CoreBusy, LoadBusy];

/// Those, and what shows in an open loop, or with many connections.
const WITH_CONNECTIONS: &[Figure] = &[
    CpuUs,
    UpstreamCpuUs,
    Throughput,
    P50Us,
    P99Us,
    P999Us,
    LateUs,
    ResidentMb,
    UpstreamCommands,
    UpstreamConnections,
    CoreBusy,
    LoadBusy,
];

const USUAL: Scenario = Scenario {
    name: "",
    title: "",
    about: "",
    contestants: PROXIES,
    cache: "256MiB",
    // Nearside's default.
    max_age: "60s",
    fill: true,
    measure: Measure::Load,
    points: &[GETS],
    figures: ALL_FIGURES,
    plot: Some(CpuUs),
    in_full: true,
};

/// Every scenario.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "quick",
        title: "A minute or two",
        about: "What `make bench-quick` runs.",
        contestants: &[REDIS, HIT, FORWARD, CLUSTER_HIT, CLUSTER_FORWARD],
        points: DEPTHS,
        figures: &[CpuUs, UpstreamCpuUs, Throughput, P50Us, P99Us, ResidentMb, CoreBusy, LoadBusy],
        in_full: false,
        ..USUAL
    },
    Scenario {
        name: "change",
        title: "Before and after a change: hits",
        about: "What a change costs: this Nearside beside another one. GET of keys that are all in the cache.",
        contestants: &[HIT_BEFORE, HIT],
        points: CHANGED_GETS,
        in_full: false,
        ..USUAL
    },
    Scenario {
        name: "change-writes",
        title: "Before and after a change: writes, cache on",
        about: "By themselves, as keys that are often written are not cached for a while.",
        contestants: &[HIT_BEFORE, HIT],
        points: &[
            Point { name: "SET, depth 1", mix: "set", ..GETS },
            Point { name: "SET, depth 16", mix: "set", depth: 16, ..GETS },
            Point { name: "SET, depth 64", mix: "set", depth: 64, ..GETS },
            Point { name: "half writes, depth 16", mix: "get=50,set=50", depth: 16, ..GETS },
        ],
        in_full: false,
        ..USUAL
    },
    Scenario {
        name: "change-forward",
        title: "Before and after a change: cache off",
        about: "GET, all of them forwarded.",
        contestants: &[FORWARD_BEFORE, FORWARD],
        points: CHANGED_GETS,
        in_full: false,
        ..USUAL
    },
    Scenario {
        name: "depth",
        title: "GET, by pipeline depth",
        about: "GET of 10,000 keys with 16-byte values over 50 connections, all of them in the cache where there is one. At depth 1 the price is that \
                of the system calls; at 16 and 64 what a proxy itself does shows.",
        points: DEPTHS,
        ..USUAL
    },
    Scenario {
        name: "depth-1000",
        title: "GET over 1,000 connections, by pipeline depth",
        about: "The same over 1,000 connections, by processes started anew: what twemproxy has once needed for so many it keeps, and \
                all that follows takes longer.",
        points: &[
            Point { name: "depth 1, 1,000 connections", connections: 1000, ..GETS },
            Point { name: "depth 16, 1,000 connections", connections: 1000, depth: 16, ..GETS },
            Point { name: "depth 64, 1,000 connections", connections: 1000, depth: 64, ..GETS },
        ],
        ..USUAL
    },
    Scenario {
        name: "mix",
        title: "1,000 connections, 70 % GET and 30 % SET, Zipf keys",
        about: "100,000 keys with 16-byte values, asked for by Zipf's law (exponent 0.99). Once in a closed loop, as fast as \
                each can; once in an open loop, at 70 % of what the Go service reached in the closed loop of the same round. \
                A SET through Nearside drops the key, as somebody else may have written too; and a key that changes more often than \
                it is read is passed by for a while, so most reads of keys that are seldom read go upstream, uncached. What the cache \
                spares here is a part of the upstream's commands (upstream cmds/cmd) and the time that they take, not CPU of \
                Nearside, which takes no more with its cache off. Each contestant \
                has an upstream of its own. The reference services keep what was set, and whatever anybody \
                else writes they never see.",
        contestants: EVERYBODY_APART,
        points: &[
            Point {
                name: "closed loop",
                mix: "get=70,set=30",
                keys: 100_000,
                spread: "zipf:0.99",
                connections: 1000,
                ..GETS
            },
            Point {
                name: "open loop, at 70 % of the Go service's peak",
                mix: "get=70,set=30",
                keys: 100_000,
                spread: "zipf:0.99",
                connections: 1000,
                pace: Pace::ShareOfPeak { of: Kind::Go, share: 0.7 },
                // A fifth of that rate is more than it can do.
                without: &[Kind::Python],
                ..GETS
            },
        ],
        figures: WITH_CONNECTIONS,
        ..USUAL
    },
    Scenario {
        name: "distant",
        title: "The upstream is 1 ms away",
        about: "A relay holds everything for half a millisecond each way, between the contestant and its upstream, or between \
                the client and Redis. GET of 100,000 keys by Zipf's law, of which the cache is large enough to answer some 95 %: \
                hits % are commands that were answered sooner than the upstream can be reached, so that hits that themselves waited for long \
                among many others are not counted. Others took one command of the \
                upstream's, or two, GET and PTTL, if the reply was to be cached. max-age is an hour here: over one connection many \
                of the keys are asked for less than once in the 60 s that are the default, and would be misses.",
        contestants: &[DISTANT_REDIS, DISTANT_HIT, DISTANT_FORWARD],
        cache: "10MiB",
        max_age: "1h",
        points: &[
            Point { name: "1 connection", keys: 100_000, spread: "zipf:0.99", connections: 1, ..GETS },
            Point { name: "4 connections", keys: 100_000, spread: "zipf:0.99", connections: 4, ..GETS },
            Point { name: "50 connections", keys: 100_000, spread: "zipf:0.99", connections: 50, ..GETS },
        ],
        figures: &[
            CpuUs,
            UpstreamCpuUs,
            Throughput,
            P50Us,
            P99Us,
            P999Us,
            ResidentMb,
            Hits,
            UpstreamCommands,
            CoreBusy,
            LoadBusy,
        ],
        plot: Some(Throughput),
        ..USUAL
    },
    Scenario {
        name: "values",
        title: "Larger values",
        about: "GET at depth 1 over 50 connections; of the largest, over 8.",
        points: &[
            Point { name: "1 KB values", value_len: 1000, ..GETS },
            Point { name: "16 KB values", value_len: 16_000, keys: 2000, ..GETS },
            Point { name: "1 MB values", value_len: 1_000_000, keys: 64, connections: 8, ..GETS },
        ],
        ..USUAL
    },
    Scenario {
        name: "mget",
        title: "MGET of 100 keys",
        about: "The keys lie in all slots, so before a cluster each command is divided among three nodes and joined again. A \
                command here is one MGET.",
        contestants: &[REDIS, HIT, FORWARD, TWEMPROXY, ENVOY, CLUSTER_HIT, CLUSTER_FORWARD, CLUSTER_ENVOY],
        points: &[Point { name: "MGET of 100 keys, 50 connections", mix: "mget:100", ..GETS }],
        ..USUAL
    },
    Scenario {
        name: "cluster",
        title: "Before a cluster of three",
        about: "GET of 10,000 keys with 16-byte values. Clients of a proxy need to know nothing of the cluster. twemproxy does \
                not know it either, and is missing here.",
        contestants: &[REDIS, HIT, CLUSTER_HIT, FORWARD, CLUSTER_FORWARD, CLUSTER_ENVOY],
        points: DEPTHS,
        ..USUAL
    },
    Scenario {
        name: "crowd",
        title: "Many rules, databases and users",
        about: "GET of 10,000 keys with 16-byte values, all of them in the cache: of a Nearside that has nothing else, and of one with \
                1,000 rules by key pattern, 16 databases and 16 users of the upstream's ACL, all of them in use.",
        contestants: &[HIT, CROWDED],
        points: DEPTHS,
        figures: WITH_CONNECTIONS,
        ..USUAL
    },
    Scenario {
        name: "idle",
        title: "10,000 connections, mostly idle",
        about: "GET over 1,000 busy connections, alone and with 9,000 others that were used once and are kept.",
        contestants: &[REDIS, HIT, FORWARD, TWEMPROXY, ENVOY, GO],
        points: &[
            Point { name: "1,000 busy", connections: 1000, ..GETS },
            Point { name: "1,000 busy, 9,000 idle", connections: 1000, idle: 9000, ..GETS },
        ],
        plot: Some(P99Us),
        ..USUAL
    },
    Scenario {
        name: "churn",
        title: "Connections that come and go",
        about: "Each of 50 clients connects, asks one GET, hangs up, and connects again. A command here has a connection of its \
                own, and its latency begins with connecting.",
        contestants: EVERYBODY,
        points: &[Point { name: "one GET a connection", lifetime: Some(1), ..GETS }],
        ..USUAL
    },
    Scenario {
        name: "start",
        title: "Cold start",
        about: "From starting the process until it accepts a connection, and until it answers a PING, with its upstream there. \
                Memory is that of a process that has done nothing else.",
        contestants: EVERYBODY,
        measure: Measure::Start,
        points: &[Point { name: "cold start", ..GETS }],
        figures: &[ListeningMs, AnsweringMs, ResidentMb, ProgramMb],
        plot: Some(AnsweringMs),
        ..USUAL
    },
    Scenario {
        name: "connection-memory",
        title: "Memory of a connection",
        about: "10,000 connections are opened, answered one PING each, and left alone for some seconds.",
        contestants: EVERYBODY,
        measure: Measure::IdleConnections,
        points: &[Point { name: "10,000 idle connections", connections: 10_000, ..GETS }],
        figures: &[Connections, BytesPerConnection, ResidentMb],
        plot: Some(BytesPerConnection),
        ..USUAL
    },
    Scenario {
        name: "item-memory",
        title: "Memory of a cached item",
        about: "Every key is read once through those who cache, and set in Redis itself. Keys have 16 bytes.",
        contestants: &[REDIS, HIT, GO, PYTHON],
        cache: "1GiB",
        measure: Measure::Items,
        points: &[
            // Which takes the Python service minutes.
            Point {
                name: "1,000,000 items of 100 bytes",
                keys: 1_000_000,
                value_len: 100,
                without: &[Kind::Python],
                ..GETS
            },
            Point { name: "100,000 items of 1 KB", keys: 100_000, value_len: 1 << 10, ..GETS },
        ],
        figures: &[BytesPerItem, ResidentMb],
        plot: Some(BytesPerItem),
        ..USUAL
    },
    Scenario {
        name: "uniform",
        title: "Where a cache loses: uniform reads over 100 times the cache",
        about: "GET of two million keys, all equally often, with a cache of 2 MiB, which holds less than a hundredth of them. Nearly \
                every read is a miss. In a full cache a key is fetched at its second read only, if that comes soon: most reads are \
                forwarded, and cost Nearside a lookup and some bookkeeping besides.",
        contestants: &[FORWARD, HIT, REDIS],
        cache: "2MiB",
        fill: false,
        points: &[
            Point { name: "depth 1, 50 connections", keys: 2_000_000, ..GETS },
            Point { name: "depth 16, 50 connections", keys: 2_000_000, depth: 16, ..GETS },
        ],
        ..USUAL
    },
    Scenario {
        name: "writes",
        title: "Where a cache loses: keys written as often as read",
        about: "GET and SET, half and half, of 10,000 keys. Every SET drops a key from the cache, and keys that change as often as \
                they are read are passed by for a while: nearly every read goes upstream and is not cached, as the upstream's \
                commands show.",
        contestants: &[OWN_FORWARD, OWN_HIT, REDIS],
        points: &[
            Point { name: "depth 1, 50 connections", mix: "get=50,set=50", ..GETS },
            Point { name: "depth 16, 50 connections", mix: "get=50,set=50", depth: 16, ..GETS },
        ],
        ..USUAL
    },
];
