//! What a state of the model holds. All times are spans, counted in ticks and cut off where they cease to matter, and versions
//! that nobody can be given any more are forgotten: an execution may go on for ever, and there are finitely many states.

use arrayvec::ArrayVec;

/// A primary, and the replica that may succeed it.
pub const SERVERS: usize = 2;
/// The primary at first.
pub const FIRST: usize = 0;
/// The replica at first.
pub const SECOND: usize = 1;
/// Versions of the one key, the one that is there at first among them.
pub const VERSIONS: usize = 4;
/// No end of a life, or an age that does not matter.
pub const FOREVER: u8 = u8::MAX;

/// What a read of the key is answered with: a version, or nothing once that version has expired. In the order of the writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u8);

impl Value {
    /// As it was written.
    pub fn of(version: u8) -> Self {
        Value(2 * version)
    }

    /// What is left of it once it has expired.
    pub fn absence_of(version: u8) -> Self {
        Value(2 * version + 1)
    }

    /// The version that it is, or was.
    pub fn version(self) -> u8 {
        self.0 / 2
    }

    /// Whether the key was missing.
    pub fn is_absence(self) -> bool {
        self.0 % 2 == 1
    }
}

/// Some values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Values(u16);

impl Values {
    /// Whether it is one of them.
    pub fn has(self, value: Value) -> bool {
        self.0 & (1 << value.0) != 0
    }

    /// The same, numbered anew.
    pub fn renumbered(self, number: impl Fn(Value) -> Value) -> Self {
        let mut renumbered = Values::default();
        (0..16).map(Value).filter(|value| self.has(*value)).for_each(|value| renumbered.add(number(value)));
        renumbered
    }

    /// Adds one.
    pub fn add(&mut self, value: Value) {
        self.0 |= 1 << value.0;
    }

    /// Keeps those that `others` has too.
    pub fn keep(&mut self, others: Values) {
        self.0 &= others.0;
    }

    /// Takes one out.
    pub fn remove(&mut self, value: Value) {
        self.0 &= !(1 << value.0);
    }
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Upstream.
    pub servers: [Server; SERVERS],
    /// Before it.
    pub proxies: ArrayVec<Proxy, 2>,
    /// Which server the cluster has elected.
    pub elected: usize,
    /// Versions that matter yet: the next one's number.
    pub written: u8,
    /// How long each version is still alive; 0: it has expired.
    pub life: [u8; VERSIONS],
    /// Versions that the elected server never had, or has lost: only the deposed one has them.
    pub forked: u8,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// The version it has.
    pub holds: u8,
    /// What it says of itself. One that was deposed may not know it yet.
    pub is_primary: bool,
    /// It has noticed that what it holds has expired.
    pub has_noticed: bool,
}

/// One process of Nearside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// The server that serves the key, by the newest published topology.
    pub topology: usize,
    /// A topology was published, and the leases that it ends have not been ended yet.
    pub is_retiring: bool,
    /// Its loader lanes, by server.
    pub lanes: [Lane; SERVERS],
    /// What is cached. An entry whose lease is dead can never be served again: it is forgotten at once.
    pub entry: Option<Entry>,
    /// Fetches under way.
    pub fills: [Option<Fill>; 2],
    /// A client's write.
    pub writing: Writing,
    /// The newest version whose write through this proxy was acknowledged, but for those that a failover lost.
    pub acknowledged: u8,
    /// For the judge: how long ago an uncached read through this proxy would last have been answered with each value.
    pub ages: [u8; 2 * VERSIONS],
}

/// A write through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writing {
    /// None is under way.
    Nothing,
    /// This version was written, and the answer is on its way.
    Answered(u8),
    /// The same of FLUSHALL.
    Flushed(u8),
    /// The client has been told, and the cache has not: never, unless a rule is broken.
    Told,
}

/// A cached reply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The reply.
    pub value: Value,
    /// The lane that fetched it, and whose lease it has.
    pub lane: usize,
    /// How long it may be served still.
    pub left: u8,
    /// For the judge: its connection is lost, or its node was retired. Never, unless a rule is broken.
    pub is_orphan: bool,
    /// For the judge: its fetch began before an invalidation. Never, unless a rule is broken.
    pub is_resurrected: bool,
}

/// A fetch under way: the ticket, and those who wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fill {
    /// How far it is.
    pub stage: Stage,
    /// How long ago it was sent; or, before, began.
    pub age: u8,
    /// It must not be stored.
    pub is_poisoned: bool,
    /// The lease it was sent under has ended.
    pub is_lease_dead: bool,
    /// For the judge: the key has changed since it began, and the proxy has heard of it.
    pub is_outdated: bool,
    /// GET was answered, PTTL was not.
    pub value: Option<Value>,
    /// Who asked first.
    pub leader: Read,
    /// Who joined, and how long after the fetch was sent.
    pub follower: Option<(u8, Read)>,
}

/// How far a fetch is, and the server it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// On its way to the lane.
    Asked(usize),
    /// The lane has taken its lease, and has not looked at the topology yet.
    Leased(usize),
    /// It has been written.
    Sent(usize),
}

impl Stage {
    /// The server it is for.
    pub fn server(self) -> usize {
        let (Stage::Asked(server) | Stage::Leased(server) | Stage::Sent(server)) = self;
        server
    }
}

/// For the judge: what a waiting read must not be answered with, fixed when it begins. What an uncached read would be answered
/// with while it waits is taken out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Read {
    /// Older than a write that was acknowledged through this proxy.
    pub overwritten: Values,
    /// Staler than is allowed.
    pub stale: Values,
    /// Beyond their time to live.
    pub expired: Values,
}

/// A loader lane: its connection, with both ends of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lane {
    /// As the proxy sees it.
    pub phase: Phase,
    /// The server has lost it, and the proxy may not know.
    pub is_cut: bool,
    /// The server has tracking on for it.
    pub is_tracking: bool,
    /// The server will push the next change of the key.
    pub is_tracked: bool,
    /// On their way to the server.
    pub requests: ArrayVec<Request, 6>,
    /// On their way to the proxy, replies and pushes in the order in which things happened.
    pub stream: ArrayVec<Message, 12>,
    /// For how long its lease is live still.
    pub lease: u8,
    /// For the judge: for how long a heartbeat of this connection proves what was fetched on it. The same, unless a rule is broken.
    pub proven: u8,
}

/// What the proxy thinks of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// There is none.
    #[default]
    Down,
    /// Tracking has been asked for.
    Asking,
    /// It may be used.
    Up,
}

/// What a lane sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// The handshake: `CLIENT TRACKING ON`, and `HELLO` for the role.
    Track,
    /// `GET` of a fetch.
    Get(u8),
    /// `PTTL` of a fetch.
    Ttl(u8),
    /// A heartbeat, sent this long ago.
    Beat(u8),
}

/// What a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Tracking is on, and this is a primary.
    Tracking {
        /// It says so.
        is_primary: bool,
    },
    /// The answer to `GET`.
    Value(u8, Value),
    /// The answer to `PTTL`; and, for the judge, whether it is about the value that `GET` was answered with.
    Ttl(u8, Ttl),
    /// The key is served elsewhere.
    Moved(u8),
    /// The answer to a heartbeat that was sent this long ago.
    Beat {
        /// When it was sent.
        age: u8,
        /// It is a primary, and the key could be read.
        is_good: bool,
    },
    /// The key has changed.
    Invalidate,
    /// All keys have.
    InvalidateAll,
}

/// What `PTTL` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// −1.
    Persistent,
    /// This long.
    Left(u8),
    /// −2.
    Missing,
}

impl Lane {
    /// Sends what never arrives if the connection has been lost.
    pub fn send(&mut self, request: Request) {
        if !self.is_cut {
            self.requests.push(request);
        }
    }
}

impl Proxy {
    /// A fetch under way.
    pub fn fill(&self, number: u8) -> Option<&Fill> {
        self.fills[usize::from(number)].as_ref()
    }
}

impl State {
    /// What a server answers to a read, now.
    pub fn value_at(&self, server: usize) -> Value {
        let version = self.servers[server].holds;
        if self.life[usize::from(version)] == 0 { Value::absence_of(version) } else { Value::of(version) }
    }

    /// The values that have expired.
    pub fn expired(&self) -> Values {
        let mut expired = Values::default();
        (0..self.written)
            .filter(|version| self.life[usize::from(*version)] == 0)
            .for_each(|v| expired.add(Value::of(v)));
        expired
    }
}
