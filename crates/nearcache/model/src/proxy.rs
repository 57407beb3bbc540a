//! What a proxy does: the rules that are checked. Each function names the code that it stands for.

use crate::Protocol;
use crate::broken::Broken;
use crate::state::{
    Entry, FOREVER, Fill, Lane, Message, Phase, Proxy, Read, Request, SERVERS, Stage, State, Ttl, Value, Values,
    Writing,
};

/// How a fetch ends whose last answer is next in its lane's stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) fill: u8,
    pub(crate) value: Value,
    /// Whether the follower is answered, or reads upstream.
    pub(crate) tells_follower: bool,
    /// For how long the value may be kept, if it may.
    left: Option<u8>,
}

impl Protocol {
    /// The server that answers an uncached read through this proxy: the one its topology names, or, of a cluster, the one that
    /// it is sent on to.
    pub(crate) fn route(&self, state: &State, proxy: usize) -> usize {
        let named = state.proxies[proxy].topology;
        if state.servers[named].is_primary || !self.bounds.is_cluster { named } else { state.elected }
    }

    /// What an uncached read through this proxy would be answered with now.
    pub(crate) fn reference(&self, state: &State, proxy: usize) -> Value {
        state.value_at(self.route(state, proxy))
    }

    /// What a client that reads now is answered with from the cache: `NearCache::read`.
    pub(crate) fn served(&self, proxy: &Proxy) -> Option<Value> {
        let entry = proxy.entry.as_ref()?;
        let is_alive = entry.left > 0 || self.lacks(Broken::NoDeadline);
        let is_vouched = proxy.lanes[entry.lane].lease > 0 || self.lacks(Broken::LapsedLeaseServes);
        (is_alive && is_vouched).then_some(entry.value)
    }

    /// A client's read that is no hit joins a fetch, or leads one: `NearCache::lookup`. `server`: where its session sends it.
    pub(crate) fn miss(&self, state: &mut State, proxy: usize, server: usize) {
        let read = self.begin_read(state, proxy);
        let fills = &mut state.proxies[proxy].fills;
        match fills.iter_mut().flatten().find(|fill| self.takes_followers(fill)) {
            Some(fill) => {
                let joined = if self.bounds.life.is_some() { fill.age } else { 0 };
                fill.follower = Some((joined, read));
            }
            None => {
                let free = fills.iter_mut().find(|fill| fill.is_none());
                *free.expect("a miss is offered only if there is room") = Some(Fill {
                    stage: Stage::Asked(server),
                    age: 0,
                    is_poisoned: false,
                    is_lease_dead: false,
                    is_outdated: false,
                    value: None,
                    leader: read,
                    follower: None,
                });
            }
        }
    }

    /// Whether a miss would change anything: it joins, or leads, and does not pass the cache by for want of room.
    pub(crate) fn has_room(&self, proxy: &Proxy) -> bool {
        match proxy.fills.iter().flatten().find(|fill| self.takes_followers(fill)) {
            Some(fill) => self.bounds.has_followers && fill.follower.is_none(),
            None => proxy.fills.iter().flatten().count() < self.bounds.fills,
        }
    }

    /// `Fill::takes_followers`.
    fn takes_followers(&self, fill: &Fill) -> bool {
        (!fill.is_poisoned || self.lacks(Broken::PoisonedTakesFollowers))
            && (fill.age < self.bounds.max_staleness || self.lacks(Broken::FollowersJoinLate))
            && (!fill.is_lease_dead || self.lacks(Broken::DeadLeaseTakesFollowers))
    }

    fn begin_read(&self, state: &State, proxy: usize) -> Read {
        let Proxy { acknowledged, ages, .. } = &state.proxies[proxy];
        let (mut overwritten, mut stale) = (Values::default(), Values::default());
        for value in (0..2 * state.written).map(Value) {
            if value < Value::of(*acknowledged) {
                overwritten.add(value);
            }
            if ages[usize::from(value.0)] >= self.bounds.max_staleness {
                stale.add(value);
            }
        }
        Read { overwritten, stale, expired: state.expired() }
    }

    /// A lane begins a fetch: `LoaderLane::fetch`. With a failover in the model, its two halves are two steps.
    pub(crate) fn begin_fetch(&self, state: &mut State, proxy: usize, fill: usize) {
        let topology = state.proxies[proxy].topology;
        let Some(found) = &mut state.proxies[proxy].fills[fill] else { return };
        let server = found.stage.server();
        if self.lacks(Broken::TopologyIsSeenFirst) && server != topology {
            state.proxies[proxy].fills[fill] = None; // `abandon`: who waits reads upstream
        } else {
            found.stage = Stage::Leased(server);
            if !self.bounds.has_failover {
                self.send_fetch(state, proxy, fill);
            }
        }
    }

    /// The second half: the lane looks at the topology, and writes the fetch.
    pub(crate) fn send_fetch(&self, state: &mut State, proxy: usize, fill: usize) {
        let proxy = &mut state.proxies[proxy];
        let Some(found) = &mut proxy.fills[fill] else { return };
        let server = found.stage.server();
        let looked = self.lacks(Broken::LaneTrustsSessions) || self.lacks(Broken::TopologyIsSeenFirst);
        if proxy.lanes[server].phase != Phase::Up || (server != proxy.topology && !looked) {
            proxy.fills[fill] = None;
            return;
        }
        found.stage = Stage::Sent(server);
        found.age = 0;
        if let Some((joined, _)) = &mut found.follower {
            *joined = 0;
        }
        let number = u8::try_from(fill).expect("they are two at most");
        proxy.lanes[server].send(Request::Get(number));
        if self.bounds.life.is_some() {
            proxy.lanes[server].send(Request::Ttl(number));
        }
    }

    /// What the next message of a lane completes: `LoaderLane::fetched`, `Waiters::part_late`.
    pub(crate) fn completion(&self, proxy: &Proxy, server: usize) -> Option<Completion> {
        let (fill, value, ttl) = match *proxy.lanes[server].stream.first()? {
            Message::Value(fill, value) if self.bounds.life.is_none() => (fill, value, Ttl::Persistent),
            Message::Ttl(fill, ttl) => (fill, proxy.fill(fill)?.value?, ttl),
            _ => return None,
        };
        let found = proxy.fill(fill)?;
        let is_expiring = !value.is_absence() && ttl == Ttl::Missing;
        let end = match ttl {
            Ttl::Left(left) => left,
            Ttl::Missing if is_expiring => 0,
            Ttl::Persistent | Ttl::Missing => FOREVER,
        };
        let joined = found.follower.as_ref().map_or(0, |(joined, _)| *joined);
        let left = match ttl {
            Ttl::Left(left) if self.lacks(Broken::LifeCountsFromAnswer) => left,
            Ttl::Left(left) => left.saturating_sub(found.age),
            Ttl::Missing if is_expiring && !self.lacks(Broken::ExpiringIsStored) => 0,
            // `answer`: it has come to be since.
            Ttl::Persistent if value.is_absence() && self.bounds.life.is_some() => 0,
            Ttl::Persistent | Ttl::Missing => FOREVER,
        };
        let is_kept = !found.is_poisoned && (!found.is_lease_dead || self.lacks(Broken::DeadLeaseStores));
        let is_in_time = joined < end || self.lacks(Broken::LateAreAnswered);
        let tells_follower = is_in_time && (!found.is_poisoned || self.lacks(Broken::PoisonedTellsFollowers));
        let left = Some(left).filter(|left| is_kept && *left > 0);
        Some(Completion { fill, value, tells_follower, left })
    }

    /// The proxy reads the next message of a lane: `LoaderLane::take_in`.
    pub(crate) fn deliver(&self, state: &mut State, proxy: usize, server: usize) {
        let proxy = &mut state.proxies[proxy];
        let completion = self.completion(proxy, server);
        match proxy.lanes[server].stream.remove(0) {
            Message::Tracking { is_primary: true } => proxy.lanes[server].phase = Phase::Up,
            Message::Tracking { is_primary: false } => self.lose(proxy, server),
            Message::Value(fill, value) if completion.is_none() => {
                if let Some(found) = &mut proxy.fills[usize::from(fill)] {
                    found.value = Some(value);
                }
            }
            Message::Value(..) | Message::Ttl(..) => {}
            Message::Moved(fill) => self.moved(proxy, server, fill),
            Message::Beat { age, is_good } => self.beat_answered(proxy, server, age, is_good),
            Message::Invalidate => self.invalidate(proxy),
            Message::InvalidateAll => self.end_lease(proxy, server, self.lacks(Broken::FlushEndsNoLease)),
        }
        if let Some(completion) = completion {
            complete(proxy, server, completion);
        }
    }

    /// `LoaderLane::beat_answered`, `LeaseOwner::renew`.
    fn beat_answered(&self, proxy: &mut Proxy, server: usize, age: u8, is_good: bool) {
        if !is_good && !self.lacks(Broken::AnyAnswerRenews) {
            return self.lose(proxy, server);
        }
        if proxy.topology != server && !self.lacks(Broken::HeartbeatIgnoresTopology) {
            return;
        }
        let proven = self.bounds.max_staleness.saturating_sub(age);
        let lane = &mut proxy.lanes[server];
        if is_good {
            lane.proven = lane.proven.max(proven);
        }
        let renewed = if self.lacks(Broken::LeaseCountsFromAnswer) { self.bounds.max_staleness } else { proven };
        lane.lease = lane.lease.max(renewed);
    }

    /// `LoaderLane::is_redirected`, `Shared::lost_slot`: it is news if the topology still says otherwise.
    fn moved(&self, proxy: &mut Proxy, server: usize, fill: u8) {
        proxy.fills[usize::from(fill)] = None;
        if proxy.topology == server && !self.lacks(Broken::MovedEndsNoLease) {
            self.end_lease(proxy, server, false);
            proxy.lanes[server].lease = 0;
            proxy.lanes[server].proven = 0;
        }
    }

    /// `NearCache::invalidate`.
    fn invalidate(&self, proxy: &mut Proxy) {
        if !self.lacks(Broken::InvalidationDropsNothing) {
            proxy.entry = None;
        }
        poison(proxy, !self.lacks(Broken::InvalidationPoisonsNothing));
    }

    /// The answer to a client's write has arrived: `Effect::apply`, then the acknowledgement.
    pub(crate) fn acknowledge(&self, state: &mut State, proxy: usize) {
        let (forked, elected) = (state.forked, state.elected);
        let proxy = &mut state.proxies[proxy];
        let writing = std::mem::replace(&mut proxy.writing, Writing::Nothing);
        let (Writing::Answered(version) | Writing::Flushed(version)) = writing else { return };
        match writing {
            // `NearCache::flush`.
            Writing::Flushed(_) => {
                (0..SERVERS).for_each(|server| self.end_lease(proxy, server, self.lacks(Broken::OwnFlushEndsNoLease)));
            }
            _ if self.lacks(Broken::WriteIsToldFirst) => proxy.writing = Writing::Told,
            _ => self.wrote(proxy),
        }
        if forked & (1 << version) == 0 || proxy.topology != elected {
            proxy.acknowledged = proxy.acknowledged.max(version);
        }
    }

    /// `NearCache::wrote`.
    pub(crate) fn wrote(&self, proxy: &mut Proxy) {
        if !self.lacks(Broken::WriteDropsNothing) {
            proxy.entry = None;
        }
        poison(proxy, !self.lacks(Broken::WritePoisonsNothing));
    }

    /// What a lane has fetched dies, and so do the fetches that it has sent: `Leases::kill_group`, or the lane's dropping of its
    /// lease. `is_ignored`: a rule is broken, and nothing happens.
    fn end_lease(&self, proxy: &mut Proxy, server: usize, is_ignored: bool) {
        if let Some(entry) = proxy.entry.as_mut().filter(|entry| entry.lane == server) {
            entry.is_orphan = true;
            if !is_ignored {
                proxy.entry = None;
            }
        }
        for fill in proxy.fills.iter_mut().flatten() {
            let has_lease = match fill.stage {
                Stage::Asked(_) => false,
                Stage::Leased(on) => on == server && !self.lacks(Broken::TopologyIsSeenFirst),
                Stage::Sent(on) => on == server,
            };
            fill.is_outdated |= has_lease;
            fill.is_lease_dead |= has_lease && !is_ignored;
        }
    }

    /// The lane has lost its connection: `LoaderLane::lost`.
    pub(crate) fn lose(&self, proxy: &mut Proxy, server: usize) {
        self.end_lease(proxy, server, self.lacks(Broken::EntriesSurviveConnection));
        for fill in &mut proxy.fills {
            // What was not sent meets a lane that is down.
            if fill.as_ref().is_some_and(|fill| matches!(fill.stage, Stage::Sent(on) if on == server)) {
                *fill = None;
            }
        }
        proxy.lanes[server] = Lane::default();
    }

    /// `LoaderLane::connect`. Who may not use the lane before the handshake is answered sends it first of all.
    pub(crate) fn connect(&self, lane: &mut Lane) {
        if self.lacks(Broken::FetchesBeforeTracking) {
            lane.phase = Phase::Up;
        } else {
            lane.phase = Phase::Asking;
            lane.send(Request::Track);
        }
    }

    /// `Shared::publish`, its first half: the topology that counts is the newest.
    pub(crate) fn publish(&self, state: &mut State, proxy: usize) {
        state.proxies[proxy].topology = state.elected;
        state.proxies[proxy].is_retiring = true;
    }

    /// The second: the leases of the node that has lost its slots end.
    pub(crate) fn retire(&self, state: &mut State, proxy: usize, server: usize) {
        state.proxies[proxy].is_retiring = false;
        self.end_lease(&mut state.proxies[proxy], server, self.lacks(Broken::PublicationEndsNoLease));
    }
}

/// `NearCache::complete`.
fn complete(proxy: &mut Proxy, server: usize, completion: Completion) {
    let Some(fill) = proxy.fills[usize::from(completion.fill)].take() else { return };
    if let Some(left) = completion.left {
        let is_resurrected = fill.is_outdated;
        proxy.entry = Some(Entry { value: completion.value, lane: server, left, is_orphan: false, is_resurrected });
    }
}

fn poison(proxy: &mut Proxy, does_poison: bool) {
    for fill in proxy.fills.iter_mut().flatten() {
        fill.is_outdated = true;
        fill.is_poisoned |= does_poison;
    }
}
