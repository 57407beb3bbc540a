//! What servers do. It stands for no code of ours: it is what Redis was measured, or read, to do (`coherence.md`).

use crate::Protocol;
use crate::state::{FIRST, FOREVER, Message, Request, SECOND, SERVERS, State, Ttl, Value};

impl State {
    /// Somebody writes, on a server that takes writes. Gives the version.
    pub(crate) fn write(&mut self, server: usize, life: u8) -> u8 {
        let version = self.written;
        self.written += 1;
        self.life[usize::from(version)] = life;
        if server != self.elected {
            self.forked |= 1 << version;
        }
        self.hold(server, version);
        // Nothing is staler than what was written just now.
        self.proxies.iter_mut().for_each(|proxy| proxy.ages[usize::from(Value::of(version).0)] = 0);
        version
    }

    fn hold(&mut self, server: usize, version: u8) {
        self.servers[server].holds = version;
        self.servers[server].has_noticed = false;
        self.push_change(server);
    }

    /// Who has read the key since it last changed is told, once.
    fn push_change(&mut self, server: usize) {
        for lane in self.proxies.iter_mut().map(|proxy| &mut proxy.lanes[server]) {
            if std::mem::take(&mut lane.is_tracked) {
                lane.stream.push(Message::Invalidate);
            }
        }
    }

    /// FLUSHALL: everybody who tracks is told, whatever was read. What it leaves counts as a version, which is given.
    pub(crate) fn flush(&mut self, server: usize) -> u8 {
        self.proxies.iter_mut().for_each(|proxy| proxy.lanes[server].is_tracked = false);
        let version = self.write(server, FOREVER);
        for lane in self.proxies.iter_mut().map(|proxy| &mut proxy.lanes[server]).filter(|lane| lane.is_tracking) {
            lane.stream.push(Message::InvalidateAll);
        }
        version
    }

    /// The tracking table is full: the server forgets who has read the key, and tells them that it has changed.
    pub(crate) fn evict(&mut self, proxy: usize, server: usize) {
        let lane = &mut self.proxies[proxy].lanes[server];
        lane.is_tracked = false;
        lane.stream.push(Message::Invalidate);
    }

    /// The key has expired, and the server sees it: by a read, or by its own search.
    pub(crate) fn notice_expiry(&mut self, server: usize) {
        if self.value_at(server).is_absence() && !self.servers[server].has_noticed {
            self.servers[server].has_noticed = true;
            self.push_change(server);
        }
    }

    /// A connection ends, at the server or on the way. What is on the way to the proxy may arrive yet.
    pub(crate) fn cut(&mut self, proxy: usize, server: usize) {
        let lane = &mut self.proxies[proxy].lanes[server];
        lane.is_cut = true;
        lane.is_tracking = false;
        lane.is_tracked = false;
        lane.requests.clear();
    }

    /// The replica takes in what the primary has, at last.
    pub(crate) fn replicate(&mut self) {
        let version = self.servers[self.elected].holds;
        self.hold(SERVERS - 1 - self.elected, version);
    }

    /// The replica is elected, while the primary is cut off from it. The primary goes on as before.
    pub(crate) fn promote(&mut self) {
        self.elected = SECOND;
        self.servers[SECOND].is_primary = true;
        self.forked = (self.servers[SECOND].holds + 1..self.written).fold(0, |mask, version| mask | 1 << version);
    }

    /// The deposed primary learns of it.
    pub(crate) fn demote(&mut self) {
        self.servers[FIRST].is_primary = false;
    }
}

impl Protocol {
    /// Carries out the oldest command of a loader lane.
    pub(crate) fn serve(&self, state: &mut State, proxy: usize, server: usize) {
        let request = state.proxies[proxy].lanes[server].requests.remove(0);
        let is_primary = state.servers[server].is_primary;
        // Of a cluster, who does not serve the key says so. Elsewhere a replica answers like a primary.
        let reads = is_primary || !self.bounds.is_cluster;
        if reads && request != Request::Track {
            state.notice_expiry(server);
        }
        let value = state.value_at(server);
        let ttl = match state.life[usize::from(state.servers[server].holds)] {
            0 => Ttl::Missing,
            FOREVER => Ttl::Persistent,
            left => Ttl::Left(left),
        };
        let answer = match request {
            Request::Track => Message::Tracking { is_primary },
            Request::Get(fill) if reads => Message::Value(fill, value),
            Request::Get(fill) => Message::Moved(fill),
            Request::Ttl(fill) => Message::Ttl(fill, ttl),
            Request::Beat(age) => Message::Beat { age, is_good: is_primary },
        };
        let lane = &mut state.proxies[proxy].lanes[server];
        lane.is_tracking |= request == Request::Track;
        // Reads of the key, PTTL too, have it tracked.
        lane.is_tracked |= lane.is_tracking && reads && request != Request::Track;
        lane.stream.push(answer);
    }
}
