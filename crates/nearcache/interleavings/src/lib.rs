//! A small world to explore the near-cache's races in: one key, one server that tracks it, one connection to it.
//!
//! Everything runs under shuttle, which decides at each lock and each atomic who goes on. A failure prints its seed;
//! `SHUTTLE_RANDOM_SEED=… cargo test -p nearside-nearcache-interleavings --release NAME` replays it.
//!
//! The server writes answers and invalidations into the connection's one stream in the order in which things happened, and
//! the connection's reader is one thread that takes them out in that order: that much the cache is promised. Everything else
//! may happen in any order.

use std::sync::Arc;
use std::time::Duration;

use nearside_nearcache::{
    Answer, Bypass, FillTicket, LeaseOwner, Lookup, NearCache, Read, Scope, Settings, Time, Ttl, Waiter,
};
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::thread;

/// The one key.
pub const KEY: &[u8] = b"k";
/// The group of leases of the one server.
pub const NODE: u64 = 0;
/// Nothing in this world takes time.
pub const NOW: Time = Time(1_000_000_000);
/// One who looks without waiting.
pub const NOBODY: Waiter = Waiter { worker: u32::MAX, session: 0, sequence: 0 };
/// Two readers' scopes.
pub const SCOPES: [Scope; 2] =
    [Scope { user: 0, db: 0, command: 0, arguments: b"" }, Scope { user: 0, db: 1, command: 0, arguments: b"" }];

/// Explores `world` in as many interleavings, at random, and a third of that by a scheduler that favours rare orders.
pub fn explore(world: impl Fn() + Send + Sync + Clone + 'static, interleavings: usize) {
    shuttle::check_random(world.clone(), interleavings);
    shuttle::check_pct(world, interleavings / 3, 3);
}

/// The cache, and what surrounds it.
pub struct World {
    /// What is explored.
    pub cache: Arc<NearCache>,
    server: Mutex<Server>,
    connection: Mutex<Connection>,
    /// The newest value whose write was acknowledged to a client.
    acknowledged: AtomicU64,
    waiting: AtomicU64,
    has_abandoned: AtomicBool,
    fetched: AtomicU64,
}

/// The key's value counts the writes.
struct Server {
    value: u64,
    is_tracked: bool,
    connection: u64,
    stream: Option<Sender<Sent>>,
}

struct Connection {
    number: u64,
    owner: LeaseOwner,
}

/// What the server sends.
enum Sent {
    Invalidation { connection: u64 },
    Answer { connection: u64, ticket: FillTicket, value: u64 },
}

/// What a thread of the world does.
pub type Actor = Box<dyn FnOnce(&World) + Send>;

impl World {
    /// Runs the actors, a thread each, until all they began has ended; then checks that nothing old is left in the cache,
    /// and that nobody was forgotten.
    pub fn run(actors: impl IntoIterator<Item = Actor>) -> Arc<World> {
        let (stream, from_server) = channel();
        let world = World::new(stream);
        let reader = {
            let world = world.clone();
            thread::spawn(move || world.read_stream(&from_server))
        };
        let actors: Vec<_> = actors
            .into_iter()
            .map(|actor| {
                let world = world.clone();
                thread::spawn(move || actor(&world))
            })
            .collect();
        for actor in actors {
            actor.join().expect("an actor panicked");
        }
        locked(&world.server).stream = None;
        reader.join().expect("the reader panicked");
        world.check_quiet();
        world
    }

    fn new(stream: Sender<Sent>) -> Arc<World> {
        let cache = small_cache();
        let owner = open_renewed(&cache);
        Arc::new(World {
            cache,
            server: Mutex::new(Server { value: 1, is_tracked: false, connection: 0, stream: Some(stream) }),
            connection: Mutex::new(Connection { number: 0, owner }),
            acknowledged: AtomicU64::new(1),
            waiting: AtomicU64::new(0),
            has_abandoned: AtomicBool::new(false),
            fetched: AtomicU64::new(0),
        })
    }

    /// A client reads. What it gets must not be older than what was acknowledged when it began.
    pub fn read(&self, scope: Scope) {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let waiter = || Waiter { worker: 0, session: 0, sequence: acknowledged };
        let judge = |value| assert!(value >= acknowledged, "a hit older than an acknowledged write");
        if let Read::Hit(value) = self.cache.read(KEY, scope, NOW, |reply| value_of(&reply)) {
            return judge(value);
        }
        match self.cache.lookup(KEY, scope, NOW, waiter) {
            Lookup::Hit(reply) => judge(value_of(&reply)),
            Lookup::Follow => _ = self.waiting.fetch_add(1, Ordering::SeqCst),
            Lookup::Lead(ticket) => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.fetch(ticket);
            }
            Lookup::Bypass(Bypass::Churning) => {} // the server is asked, as if there were no cache
            Lookup::Bypass(why) => panic!("nothing here is large or many: {why:?}"),
        }
    }

    /// A fetch is given up before it is sent: those who follow it are left to their own deadlines.
    pub fn abandon(&self, scope: Scope) {
        if let Lookup::Lead(ticket) = self.cache.lookup(KEY, scope, NOW, || NOBODY) {
            self.has_abandoned.store(true, Ordering::SeqCst);
            drop(ticket);
        }
    }

    /// A client writes through the proxy, and is told so.
    pub fn write(&self) {
        let value = self.write_beside();
        self.cache.wrote(KEY, NOW);
        self.acknowledged.fetch_max(value, Ordering::SeqCst);
    }

    /// Somebody writes to the server directly.
    pub fn write_beside(&self) -> u64 {
        let mut server = locked(&self.server);
        server.value += 1;
        if std::mem::take(&mut server.is_tracked) {
            let connection = server.connection;
            server.send(Sent::Invalidation { connection });
        }
        server.value
    }

    /// A client changes everything by a command that sends no invalidation (SWAPDB), and is told so.
    pub fn swap(&self) {
        let value = {
            let mut server = locked(&self.server);
            server.value += 1;
            server.value
        };
        self.cache.flush();
        self.acknowledged.fetch_max(value, Ordering::SeqCst);
    }

    /// The key's slot moves to another node, where somebody writes: what the first node tracked is forgotten. The topology
    /// that says so is published, and a client learns of it.
    pub fn migrate(&self) {
        let value = {
            let mut server = locked(&self.server);
            server.value += 1;
            server.is_tracked = false;
            server.value
        };
        self.cache.retire(NODE);
        self.acknowledged.fetch_max(value, Ordering::SeqCst);
    }

    /// The connection is lost, with all that was on its way, and another is made.
    pub fn reconnect(&self) {
        let mut connection = locked(&self.connection);
        // The lease first: from here on the server's invalidations go nowhere.
        connection.owner = self.cache.open_lease(NODE);
        let mut server = locked(&self.server);
        server.connection += 1;
        server.is_tracked = false;
        connection.number = server.connection;
        drop(server);
        connection.owner.renew(NOW, NOW);
    }

    /// A good heartbeat.
    pub fn renew(&self) {
        locked(&self.connection).owner.renew(NOW, NOW);
    }

    /// How many fetches reached the server.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::SeqCst)
    }

    fn fetch(&self, mut ticket: FillTicket) {
        let (connection, lease) = {
            let mut connection = locked(&self.connection);
            if connection.owner.is_dead() {
                connection.owner = open_renewed(&self.cache);
            }
            (connection.number, connection.owner.lease())
        };
        ticket.sent(&lease, NOW);
        // GET and PTTL: the server may do something else between the two, and sends its invalidation before the answer.
        let value = self.get(connection);
        let mut server = locked(&self.server);
        match value {
            Some(value) if connection == server.connection => {
                server.is_tracked = true;
                server.send(Sent::Answer { connection, ticket, value });
            }
            _ => {
                drop(server);
                self.complete(ticket, Answer::Discard, u64::MAX);
            }
        }
    }

    fn get(&self, connection: u64) -> Option<u64> {
        let mut server = locked(&self.server);
        (connection == server.connection).then(|| {
            self.fetched.fetch_add(1, Ordering::SeqCst);
            server.is_tracked = true;
            server.value
        })
    }

    fn read_stream(&self, from_server: &Receiver<Sent>) {
        while let Ok(sent) = from_server.recv() {
            let current = locked(&self.server).connection;
            match sent {
                Sent::Invalidation { connection } if connection == current => _ = self.cache.invalidate(KEY, NOW),
                Sent::Invalidation { .. } => {}
                Sent::Answer { connection, ticket, value } if connection == current => {
                    let reply = format!("+{value}\r\n");
                    let answer = Answer::Store { reply: reply.as_bytes(), ttl: Ttl::Persistent };
                    self.complete(ticket, answer, value);
                }
                Sent::Answer { ticket, .. } => self.complete(ticket, Answer::Discard, u64::MAX),
            }
        }
    }

    fn complete(&self, ticket: FillTicket, answer: Answer<'_>, value: u64) {
        for waiter in ticket.complete(answer, NOW).into_iter().filter(|waiter| *waiter != NOBODY) {
            assert!(value >= waiter.sequence, "an answer older than an acknowledged write");
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn check_quiet(&self) {
        if !self.has_abandoned.load(Ordering::SeqCst) {
            assert_eq!(self.waiting.load(Ordering::SeqCst), 0, "somebody waits for ever");
        }
        assert_eq!(self.cache.fills(), 0, "a fetch that nobody makes is counted");
        let value = locked(&self.server).value;
        for scope in SCOPES {
            if let Some(cached) = self.cached(scope) {
                assert_eq!(cached, value, "an old value came back");
            }
        }
    }

    /// What a hit would give.
    pub fn cached(&self, scope: Scope) -> Option<u64> {
        match self.cache.read(KEY, scope, NOW, |reply| value_of(&reply)) {
            Read::Hit(value) => Some(value),
            Read::TooLarge | Read::Miss => None,
        }
    }
}

impl Server {
    fn send(&mut self, sent: Sent) {
        let stream = self.stream.as_ref().expect("the stream is closed after the last actor");
        assert!(stream.send(sent).is_ok(), "the reader goes on until the stream is closed");
    }
}

/// An empty cache.
pub fn small_cache() -> Arc<NearCache> {
    let settings = Settings {
        capacity: 1 << 20,
        max_item: 1 << 10,
        max_age: Duration::from_secs(60),
        max_staleness: Duration::from_secs(1),
        workers: 1,
        max_fills: 100,
        max_waiters: 100,
    };
    NearCache::new(settings).expect("1 KiB fits 1 MiB")
}

fn open_renewed(cache: &Arc<NearCache>) -> LeaseOwner {
    let owner = cache.open_lease(NODE);
    owner.renew(NOW, NOW);
    owner
}

fn value_of(reply: &[u8]) -> u64 {
    let digits = std::str::from_utf8(&reply[1..reply.len() - 2]).expect("decimal digits");
    digits.parse().expect("decimal digits")
}

fn locked<T>(mutex: &Mutex<T>) -> shuttle::sync::MutexGuard<'_, T> {
    mutex.lock().expect("a panic elsewhere has failed the run already")
}
