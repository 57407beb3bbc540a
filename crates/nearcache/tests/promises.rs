//! The promises of a cached read, against any order of events in a small world with a clock.
//!
//! A server with two keys, two connections to it, and clients. The server executes what was sent to it when the generated
//! order says so; what it sends arrives, in order, when that says so; connections are lost with all that was on its way.
//! Every value is a version, so that each answer can be judged: not older than an acknowledged write, not staler than
//! allowed, not beyond its time to live.

mod fixture;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use fixture::*;
use nearside_nearcache::{
    Answer, Bypass, FillTicket, LeaseOwner, Lookup, NearCache, Read, Scope, Settings, Time, Ttl, Waiter,
};
use proptest::prelude::*;

const KEYS: [&[u8]; 2] = [b"a", b"b"];
const LANES: usize = 2;
const FOREVER: Time = Time(u64::MAX);

/// What happens next. Indexes are taken modulo what there is.
#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    Read {
        key: usize,
        user: u16,
    },
    /// The oldest ticket is sent on a lane.
    Send {
        lane: usize,
    },
    Heartbeat {
        lane: usize,
    },
    /// The server executes the lane's oldest requests.
    Execute {
        lane: usize,
        count: usize,
    },
    /// The proxy takes in the oldest things that the server sent on the lane.
    Receive {
        lane: usize,
        count: usize,
    },
    WriteBeside {
        key: usize,
        ttl: Option<u64>,
    },
    Write {
        key: usize,
        ttl: Option<u64>,
    },
    /// The reply to the oldest write arrives.
    Acknowledge,
    /// SWAPDB through the proxy: it sends no invalidation.
    Swap,
    Lose {
        lane: usize,
    },
    /// All slots move, and their keys change at the other nodes; the topology that says so is published.
    Migrate,
    Abandon,
    Sweep,
}

fn event() -> impl Strategy<Value = Event> {
    let (key, lane) = (0..KEYS.len(), 0..LANES);
    let ttl = prop::option::weighted(0.3, 1..2000_u64);
    let some = || (0..LANES, 1..8_usize);
    prop_oneof![
        12 => (1..400_u64).prop_map(Event::Wait),
        64 => (key.clone(), 0..2_u16).prop_map(|(key, user)| Event::Read { key, user }),
        32 => lane.clone().prop_map(|lane| Event::Send { lane }),
        32 => lane.clone().prop_map(|lane| Event::Heartbeat { lane }),
        40 => some().prop_map(|(lane, count)| Event::Execute { lane, count }),
        40 => some().prop_map(|(lane, count)| Event::Receive { lane, count }),
        5 => (key.clone(), ttl.clone()).prop_map(|(key, ttl)| Event::WriteBeside { key, ttl }),
        5 => (key, ttl).prop_map(|(key, ttl)| Event::Write { key, ttl }),
        8 => Just(Event::Acknowledge),
        1 => Just(Event::Swap),
        1 => Just(Event::Migrate),
        2 => lane.prop_map(|lane| Event::Lose { lane }),
        1 => Just(Event::Abandon),
        3 => Just(Event::Sweep),
    ]
}

/// A value that a key had.
struct Version {
    expires: Time,
    /// When the next version took its place.
    replaced: Time,
}

#[derive(Default)]
struct Key {
    versions: Vec<Version>,
    acknowledged: usize,
}

enum Request {
    Get {
        ticket: FillTicket,
        key: usize,
    },
    /// The other half of the fetch, after a GET that found this version.
    Pttl {
        ticket: FillTicket,
        key: usize,
        version: usize,
    },
    Heartbeat {
        sent_at: Time,
    },
}

enum FromServer {
    Invalidation {
        key: usize,
    },
    /// `is_whole`: value and time to live are of one version.
    Fetched {
        ticket: FillTicket,
        key: usize,
        version: usize,
        ttl: Ttl,
        is_whole: bool,
    },
    Heartbeat {
        sent_at: Time,
    },
}

struct Lane {
    owner: LeaseOwner,
    requests: VecDeque<Request>,
    stream: VecDeque<FromServer>,
    tracked: HashSet<usize>,
}

/// A read that waits, with what its answer will be judged by.
struct Waiting {
    acknowledged: usize,
    since: Time,
}

struct World {
    cache: Arc<NearCache>,
    now: Time,
    keys: [Key; 2],
    lanes: [Lane; LANES],
    unsent: VecDeque<(FillTicket, usize)>,
    unacknowledged: VecDeque<(usize, usize)>,
    waiting: Vec<Waiting>,
    hits: usize,
}

impl World {
    fn new() -> Self {
        // Else the keys that change most, with which most can go wrong, would seldom be fetched.
        let cache = NearCache::new(Settings { fetch_churning: true, ..settings() }).expect("64 KiB fits 8 MiB");
        let lanes = std::array::from_fn(|lane| Lane::new(&cache, lane));
        let keys =
            [(); 2].map(|()| Key { versions: vec![Version { expires: FOREVER, replaced: FOREVER }], acknowledged: 0 });
        let (unsent, unacknowledged, waiting) = Default::default();
        Self { cache, now: START, keys, lanes, unsent, unacknowledged, waiting, hits: 0 }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wait(millis) => self.now = self.now + ms(millis),
            Event::Read { key, user } => self.read(key, Scope { user, ..GET }),
            Event::Send { lane } => self.send(lane),
            Event::Heartbeat { lane } => {
                self.lanes[lane].requests.push_back(Request::Heartbeat { sent_at: self.now });
            }
            Event::Execute { lane, count } => (0..count).for_each(|_| self.execute(lane)),
            Event::Receive { lane, count } => (0..count).for_each(|_| self.receive(lane)),
            Event::WriteBeside { key, ttl } => _ = self.write(key, ttl),
            Event::Write { key, ttl } => {
                let version = self.write(key, ttl);
                self.unacknowledged.push_back((key, version));
            }
            Event::Acknowledge => self.acknowledge(),
            Event::Swap => self.swap(),
            Event::Lose { lane } => self.lanes[lane] = Lane::new(&self.cache, lane),
            Event::Migrate => self.migrate(),
            Event::Abandon => drop(self.unsent.pop_front()),
            Event::Sweep => _ = self.cache.sweep(self.now),
        }
    }

    fn read(&mut self, key: usize, scope: Scope) {
        let waiting = Waiting { acknowledged: self.keys[key].acknowledged, since: self.now };
        let waiter = Waiter { worker: 0, session: 0, sequence: self.waiting.len() as u64 };
        if let Read::Hit(version) = self.cache.read(KEYS[key], scope, self.now, |reply| version_of(&reply)) {
            self.judge(key, version, &waiting);
            assert!(self.keys[key].versions[version].expires > self.now, "a hit beyond its time to live");
            self.hits += 1;
            return;
        }
        match self.cache.lookup(KEYS[key], scope, self.now, || waiter) {
            Lookup::Hit(reply) => panic!("the read before missed {reply:?}"),
            Lookup::Follow => self.waiting.push(waiting),
            Lookup::Lead(ticket) => {
                self.waiting.push(waiting);
                self.unsent.push_back((ticket, key));
            }
            Lookup::Bypass(Bypass::Rare) => {} // the server is asked, as if there were no cache
            Lookup::Bypass(why) => panic!("nothing here is large or many: {why:?}"),
        }
    }

    fn judge(&self, key: usize, version: usize, waiting: &Waiting) {
        assert!(version >= waiting.acknowledged, "older than an acknowledged write");
        let replaced = self.keys[key].versions[version].replaced;
        assert!(replaced + MAX_STALENESS > waiting.since, "staler than allowed");
    }

    fn send(&mut self, lane: usize) {
        if let Some((mut ticket, key)) = self.unsent.pop_front() {
            if self.lanes[lane].owner.is_dead() {
                self.lanes[lane].owner = self.cache.open_lease(lane as u64);
            }
            ticket.sent(&self.lanes[lane].owner.lease(), self.now);
            self.lanes[lane].requests.push_back(Request::Get { ticket, key });
        }
    }

    fn execute(&mut self, lane: usize) {
        match self.lanes[lane].requests.pop_front() {
            None => {}
            Some(Request::Heartbeat { sent_at }) => {
                self.lanes[lane].stream.push_back(FromServer::Heartbeat { sent_at });
            }
            Some(Request::Get { ticket, key }) => {
                let version = self.newest(key);
                self.lanes[lane].tracked.insert(key);
                self.lanes[lane].requests.push_front(Request::Pttl { ticket, key, version });
            }
            Some(Request::Pttl { ticket, key, version }) => {
                let newest = self.newest(key);
                let ttl = match self.keys[key].versions[newest].expires {
                    FOREVER => Ttl::Persistent,
                    expires => Ttl::Millis(u64::try_from((expires - self.now).as_millis()).expect("seconds")),
                };
                self.lanes[lane].tracked.insert(key);
                let is_whole = newest == version;
                self.lanes[lane].stream.push_back(FromServer::Fetched { ticket, key, version, ttl, is_whole });
            }
        }
    }

    /// The version that the server finds, after it has noticed that the one before has expired.
    fn newest(&mut self, key: usize) -> usize {
        let newest = self.keys[key].versions.len() - 1;
        if self.keys[key].versions[newest].expires > self.now { newest } else { self.write(key, None) }
    }

    fn receive(&mut self, lane: usize) {
        match self.lanes[lane].stream.pop_front() {
            None => {}
            Some(FromServer::Heartbeat { sent_at }) => _ = self.lanes[lane].owner.renew(sent_at, self.now),
            Some(FromServer::Invalidation { key }) => _ = self.cache.invalidate(KEYS[key], self.now),
            Some(FromServer::Fetched { ticket, key, version, ttl, is_whole }) => {
                let reply = format!("+{version}\r\n");
                let mut waiters = ticket.complete(Answer::Store { reply: reply.as_bytes(), ttl }, self.now);
                // Their reads go upstream.
                let _ = waiters.take_late();
                for waiter in waiters {
                    let waiting = &self.waiting[usize::try_from(waiter.sequence).expect("an index")];
                    self.judge(key, version, waiting);
                    // Else the time to live is not this version's.
                    if is_whole {
                        let expires = self.keys[key].versions[version].expires;
                        assert!(expires > waiting.since, "an answer that had expired before it was asked for");
                    }
                }
            }
        }
    }

    fn write(&mut self, key: usize, ttl: Option<u64>) -> usize {
        let expires = ttl.map_or(FOREVER, |millis| self.now + ms(millis));
        self.replace(key, expires);
        for lane in &mut self.lanes {
            if lane.tracked.remove(&key) {
                lane.stream.push_back(FromServer::Invalidation { key });
            }
        }
        self.keys[key].versions.len() - 1
    }

    fn replace(&mut self, key: usize, expires: Time) {
        let versions = &mut self.keys[key].versions;
        versions.last_mut().expect("a key always has a value").replaced = self.now;
        versions.push(Version { expires, replaced: FOREVER });
    }

    fn acknowledge(&mut self) {
        if let Some((key, version)) = self.unacknowledged.pop_front() {
            self.cache.wrote(KEYS[key], self.now);
            let acknowledged = &mut self.keys[key].acknowledged;
            *acknowledged = version.max(*acknowledged);
        }
    }

    fn swap(&mut self) {
        self.change_all_unnoticed();
        self.cache.flush();
    }

    fn migrate(&mut self) {
        self.change_all_unnoticed();
        (0..LANES).for_each(|lane| self.cache.retire(lane as u64));
    }

    fn change_all_unnoticed(&mut self) {
        for key in 0..KEYS.len() {
            self.replace(key, FOREVER);
            self.keys[key].acknowledged = self.keys[key].versions.len() - 1;
        }
    }
}

impl Lane {
    fn new(cache: &Arc<NearCache>, lane: usize) -> Self {
        let (requests, stream, tracked) = Default::default();
        Self { owner: cache.open_lease(lane as u64), requests, stream, tracked }
    }
}

fn version_of(reply: &[u8]) -> usize {
    let digits = std::str::from_utf8(&reply[1..reply.len() - 2]).expect("decimal digits");
    digits.parse().expect("decimal digits")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn no_order_of_events_breaks_a_promise(events in prop::collection::vec(event(), 1..300)) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
    }
}

#[test]
fn the_generated_worlds_hit_often_enough_to_mean_something() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let events = prop::collection::vec(event(), 250);
    let hits: usize = (0..200)
        .map(|_| {
            let mut world = World::new();
            let events = events.new_tree(&mut runner).expect("nothing is filtered out").current();
            events.into_iter().for_each(|event| world.happen(event));
            world.hits
        })
        .sum();
    assert!(hits > 1000, "{hits} hits in 200 worlds");
}
