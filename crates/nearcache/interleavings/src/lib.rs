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
/// When every world begins. Nothing takes time but [`World::wait`].
pub const NOW: Time = Time(1_000_000_000_000);
/// How much staler than an uncached read a cached one may be.
pub const MAX_STALENESS: Duration = Duration::from_secs(1);
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
    clock: AtomicU64,
    waiting: AtomicU64,
    has_abandoned: AtomicBool,
    fetched: AtomicU64,
}

struct Server {
    /// What the key has held: a value is the number of its version.
    versions: Vec<Version>,
    is_tracked: bool,
    connection: u64,
    stream: Option<Sender<Sent>>,
}

#[derive(Clone, Copy)]
struct Version {
    /// When the next one took its place.
    replaced: Time,
    expires: Time,
}

struct Connection {
    number: u64,
    owner: LeaseOwner,
    /// When the last heartbeat that was answered had been sent.
    vouched: Time,
}

const NEVER: Time = Time(u64::MAX);

/// What the server sends.
enum Sent {
    Invalidation { connection: u64 },
    Answer { connection: u64, ticket: FillTicket, fetched: Fetched },
    Heartbeat { connection: u64, sent_at: Time },
}

/// What GET and PTTL have found.
#[derive(Clone, Copy)]
struct Fetched {
    value: u64,
    ttl: Ttl,
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
        let owner = cache.open_lease(NODE);
        owner.renew(NOW, NOW);
        let versions = vec![Version { replaced: NEVER, expires: NEVER }; 2];
        Arc::new(World {
            cache,
            server: Mutex::new(Server { versions, is_tracked: false, connection: 0, stream: Some(stream) }),
            connection: Mutex::new(Connection { number: 0, owner, vouched: NOW }),
            acknowledged: AtomicU64::new(1),
            clock: AtomicU64::new(NOW.0),
            waiting: AtomicU64::new(0),
            has_abandoned: AtomicBool::new(false),
            fetched: AtomicU64::new(0),
        })
    }

    /// The time.
    pub fn now(&self) -> Time {
        Time(self.clock.load(Ordering::SeqCst))
    }

    /// Time passes.
    pub fn wait(&self, millis: u64) {
        self.clock.fetch_add(millis * 1_000_000, Ordering::SeqCst);
    }

    /// A client reads. What it gets must not be older than what was acknowledged when it began, nor staler than allowed.
    pub fn read(&self, scope: Scope) {
        let (acknowledged, now) = (self.acknowledged.load(Ordering::SeqCst), self.now());
        let waiter = Waiter { worker: 0, session: now.0, sequence: acknowledged };
        if let Read::Hit(value) = self.cache.read(KEY, scope, now, |reply| value_of(&reply)) {
            return self.judge_hit(value, waiter);
        }
        match self.cache.lookup(KEY, scope, now, || waiter) {
            Lookup::Hit(reply) => self.judge_hit(value_of(&reply), waiter),
            Lookup::Follow => _ = self.waiting.fetch_add(1, Ordering::SeqCst),
            Lookup::Lead(ticket) => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.fetch(ticket);
            }
            Lookup::Bypass(Bypass::Churning | Bypass::Rare) => {} // the server is asked, as if there were no cache
            Lookup::Bypass(why) => panic!("nothing here is large or many: {why:?}"),
        }
    }

    fn judge_hit(&self, value: u64, read: Waiter) {
        let version = self.judge(value, read);
        assert!(version.expires.0 > read.session, "a hit beyond its time to live");
    }

    /// The waiter carries what was acknowledged when its read began, and when that was.
    fn judge(&self, value: u64, read: Waiter) -> Version {
        assert!(value >= read.sequence, "older than an acknowledged write");
        let version = locked(&self.server).versions[usize::try_from(value).expect("an index")];
        assert!(version.replaced + MAX_STALENESS > Time(read.session), "staler than allowed");
        version
    }

    /// A fetch is given up before it is sent: those who follow it are left to their own deadlines.
    pub fn abandon(&self, scope: Scope) {
        if let Lookup::Lead(ticket) = self.cache.lookup(KEY, scope, self.now(), || NOBODY) {
            self.has_abandoned.store(true, Ordering::SeqCst);
            drop(ticket);
        }
    }

    /// A client writes through the proxy, and is told so.
    pub fn write(&self) {
        let value = self.write_beside();
        self.cache.wrote(KEY, self.now());
        self.acknowledged.fetch_max(value, Ordering::SeqCst);
    }

    /// Somebody writes to the server directly.
    pub fn write_beside(&self) -> u64 {
        let mut server = locked(&self.server);
        server.write(NEVER, self.now())
    }

    /// Somebody writes to the server directly what is to live so long.
    pub fn write_mortal_beside(&self, millis: u64) -> u64 {
        let mut server = locked(&self.server);
        let now = self.now();
        server.write(now + Duration::from_millis(millis), now)
    }

    /// A client changes everything by a command that sends no invalidation (SWAPDB), and is told so.
    pub fn swap(&self) {
        let value = {
            let mut server = locked(&self.server);
            server.replace(NEVER, self.now())
        };
        self.cache.flush();
        self.acknowledged.fetch_max(value, Ordering::SeqCst);
    }

    /// The key's slot moves to another node, where somebody writes: what the first node tracked is forgotten. The topology
    /// that says so is published, and a client learns of it.
    pub fn migrate(&self) {
        let value = {
            let mut server = locked(&self.server);
            server.is_tracked = false;
            server.replace(NEVER, self.now())
        };
        self.cache.retire(NODE);
        self.acknowledged.fetch_max(value, Ordering::SeqCst);
    }

    /// The connection is lost, with all that was on its way, and another is made.
    pub fn reconnect(&self) {
        let mut connection = locked(&self.connection);
        // The lease first: from here on the server's invalidations go nowhere.
        connection.owner = self.cache.open_lease(NODE);
        let asked_at = self.now();
        let mut server = locked(&self.server);
        server.connection += 1;
        server.is_tracked = false;
        connection.number = server.connection;
        drop(server);
        connection.vouched = asked_at;
        connection.owner.renew(asked_at, self.now());
    }

    /// A heartbeat is sent, and answered in its turn.
    pub fn beat(&self) {
        let connection = locked(&self.connection).number;
        let sent_at = self.now();
        let mut server = locked(&self.server);
        if server.connection == connection {
            server.send(Sent::Heartbeat { connection, sent_at });
        }
    }

    /// A good heartbeat that took no time.
    pub fn renew(&self) {
        locked(&self.connection).owner.renew(NOW, NOW);
    }

    /// Other keys are stored until there is no room for this one.
    pub fn crowd_out(&self, keys: usize) {
        for number in 0..keys {
            let key = format!("other:{number}");
            let now = self.now();
            if let Lookup::Lead(mut ticket) = self.cache.lookup(key.as_bytes(), SCOPES[0], now, || NOBODY) {
                let lease = locked(&self.connection).owner.lease();
                ticket.sent(&lease, now);
                let _ = ticket.complete(Answer::Store { reply: CROWD_REPLY, ttl: Ttl::Persistent }, now);
            }
        }
    }

    /// How many fetches reached the server.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::SeqCst)
    }

    fn fetch(&self, mut ticket: FillTicket) {
        let (connection, lease) = {
            let mut connection = locked(&self.connection);
            if connection.owner.is_dead() {
                connection.owner = self.cache.open_lease(NODE);
                connection.owner.renew(connection.vouched, self.now());
            }
            (connection.number, connection.owner.lease())
        };
        ticket.sent(&lease, self.now());
        // GET and PTTL: the server may do something else between the two, and sends its invalidation before the answer.
        let value = self.get(connection);
        let mut server = locked(&self.server);
        let now = self.now();
        match value {
            Some(value) if connection == server.connection => {
                let newest = server.newest(now);
                server.is_tracked = true;
                let expires = server.versions[usize::try_from(newest).expect("an index")].expires;
                let ttl = if expires == NEVER { Ttl::Persistent } else { Ttl::Millis(millis(expires - now)) };
                let fetched = Fetched { value, ttl };
                server.send(Sent::Answer { connection, ticket, fetched });
            }
            _ => {
                drop(server);
                self.complete(ticket, None);
            }
        }
    }

    fn get(&self, connection: u64) -> Option<u64> {
        let mut server = locked(&self.server);
        (connection == server.connection).then(|| {
            self.fetched.fetch_add(1, Ordering::SeqCst);
            let value = server.newest(self.now());
            server.is_tracked = true;
            value
        })
    }

    fn read_stream(&self, from_server: &Receiver<Sent>) {
        while let Ok(sent) = from_server.recv() {
            let current = locked(&self.server).connection;
            match sent {
                Sent::Invalidation { connection } if connection == current => {
                    _ = self.cache.invalidate(KEY, self.now());
                }
                Sent::Invalidation { .. } => {}
                Sent::Answer { connection, ticket, fetched } => {
                    self.complete(ticket, Some(fetched).filter(|_| connection == current));
                }
                Sent::Heartbeat { connection, sent_at } => {
                    let mut own = locked(&self.connection);
                    if own.number == connection {
                        own.vouched = sent_at;
                        own.owner.renew(sent_at, self.now());
                    }
                }
            }
        }
    }

    fn complete(&self, ticket: FillTicket, fetched: Option<Fetched>) {
        let now = self.now();
        let reply = fetched.map(|fetched| format!("+{}\r\n", fetched.value)).unwrap_or_default();
        let answer = match fetched {
            Some(Fetched { ttl: Ttl::Millis(0), .. }) => Answer::Expiring,
            Some(Fetched { ttl, .. }) => Answer::Store { reply: reply.as_bytes(), ttl },
            None => Answer::Discard,
        };
        let mut waiters = ticket.complete(answer, now);
        // They read upstream, as do all if nothing was fetched.
        let late = waiters.take_late().into_iter().filter(|waiter| *waiter != NOBODY).count();
        self.waiting.fetch_sub(late as u64, Ordering::SeqCst);
        for waiter in waiters.into_iter().filter(|waiter| *waiter != NOBODY) {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            if let Some(Fetched { value, .. }) = fetched {
                let version = self.judge(value, waiter);
                assert!(version.expires.0 > waiter.session, "an answer that had expired when it was asked for");
            }
        }
    }

    fn check_quiet(&self) {
        if !self.has_abandoned.load(Ordering::SeqCst) {
            assert_eq!(self.waiting.load(Ordering::SeqCst), 0, "somebody waits for ever");
        }
        assert_eq!(self.cache.fills(), 0, "a fetch that nobody makes is counted");
        let value = locked(&self.server).versions.len() as u64 - 1;
        for scope in SCOPES {
            if let Some(cached) = self.cached(scope) {
                assert_eq!(cached, value, "an old value came back");
            }
        }
    }

    /// What a hit would give.
    pub fn cached(&self, scope: Scope) -> Option<u64> {
        match self.cache.read(KEY, scope, self.now(), |reply| value_of(&reply)) {
            Read::Hit(value) => Some(value),
            Read::TooLarge | Read::Miss => None,
        }
    }
}

impl Server {
    /// What the key holds, after it has been noticed that what was there has expired.
    fn newest(&mut self, now: Time) -> u64 {
        let newest = self.versions.len() - 1;
        if self.versions[newest].expires > now { newest as u64 } else { self.write(NEVER, now) }
    }

    fn write(&mut self, expires: Time, now: Time) -> u64 {
        let value = self.replace(expires, now);
        if std::mem::take(&mut self.is_tracked) {
            let connection = self.connection;
            self.send(Sent::Invalidation { connection });
        }
        value
    }

    fn replace(&mut self, expires: Time, now: Time) -> u64 {
        self.versions.last_mut().expect("the key has always held something").replaced = now;
        self.versions.push(Version { replaced: NEVER, expires });
        self.versions.len() as u64 - 1
    }

    fn send(&mut self, sent: Sent) {
        let stream = self.stream.as_ref().expect("the stream is closed after the last actor");
        assert!(stream.send(sent).is_ok(), "the reader goes on until the stream is closed");
    }
}

/// An empty cache, with room for a few dozen keys.
pub fn small_cache() -> Arc<NearCache> {
    let settings = Settings {
        capacity: 16 << 10,
        max_item: 128,
        max_age: Duration::from_secs(60),
        max_staleness: MAX_STALENESS,
        workers: 1,
        max_fills: 100,
        max_waiters: 100,
        fetch_churning: true,
        hash_seed: Some(1), // which keys share a shard decides the interleaving, and a seed has to replay it
    };
    NearCache::new(settings).expect("128 bytes fit 16 KiB")
}

/// Of the other keys that [`World::crowd_out`] stores.
const CROWD_REPLY: &[u8] = &[b'+'; 120];

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).expect("seconds")
}

fn value_of(reply: &[u8]) -> u64 {
    let digits = std::str::from_utf8(&reply[1..reply.len() - 2]).expect("decimal digits");
    digits.parse().expect("decimal digits")
}

fn locked<T>(mutex: &Mutex<T>) -> shuttle::sync::MutexGuard<'_, T> {
    mutex.lock().expect("a panic elsewhere has failed the run already")
}
