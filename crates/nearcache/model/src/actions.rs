//! What can happen next. Anything may be arbitrarily late: a link that is held, a process that is stopped, a slow server are all
//! of them executions in which time passes and nothing is served or delivered.

use crate::Protocol;
use crate::broken::Broken;
use crate::state::{FIRST, FOREVER, Message, Phase, Proxy, Request, SERVERS, Stage, State, Writing};

/// A step. Numbers are those of proxies, servers and fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A tick passes.
    Tick,
    /// A client reads through the proxy, and is not answered from the cache: `NearCache::lookup` joins a fetch or leads one. To
    /// the second number's server: a session may go by an older topology than the one published.
    Miss(usize, usize),
    /// A client writes through the proxy, and the server carries it out.
    Write(usize),
    /// FLUSHALL through the proxy, likewise.
    Flush(usize),
    /// The answer to the write arrives at the proxy, and goes on to the client: `Effect::apply` in `lanes/written.rs`.
    Acknowledge(usize),
    /// The cache hears of a write too late: only if a rule is broken.
    WroteLate(usize),
    /// Somebody writes to the server beside the proxies.
    WriteBeside(usize),
    /// The same, with a time to live.
    WriteMortalBeside(usize),
    /// FLUSHALL beside the proxies.
    FlushBeside(usize),
    /// The server notices that the key has expired.
    NoticeExpiry(usize),
    /// A lane takes up a fetch, and its lease: `LoaderLane::fetch`.
    BeginFetch(usize, usize),
    /// It looks at the topology, and sends the fetch: the same, from `LoaderLane::serves` on.
    SendFetch(usize, usize),
    /// A lane sends a heartbeat: `LoaderLane::beat`.
    Beat(usize, usize),
    /// The server carries out a lane's oldest command.
    Serve(usize, usize),
    /// The proxy reads the next of what came by a lane: `LoaderLane::pushed` and `replied`.
    Deliver(usize, usize),
    /// The server forgets what a lane has read.
    Evict(usize, usize),
    /// A lane's connection ends, and the proxy does not know it yet.
    Cut(usize, usize),
    /// The proxy sees that a lane's connection has ended, or closes one that it does not want: `LoaderLane::lost`, `check`.
    Lose(usize, usize),
    /// A lane connects: `LoaderLane::connect`. It is used after the answer.
    Connect(usize, usize),
    /// A lane asks for tracking after it was used: only if a rule is broken.
    AskLate(usize, usize),
    /// What the elected server has reaches the other one.
    Replicate,
    /// The replica is elected.
    Promote,
    /// The deposed primary learns of it.
    Demote,
    /// A proxy publishes who was elected: `Shared::publish`, which the control plane calls when it has heard.
    Publish(usize),
    /// And ends the leases of who was deposed: the rest of it.
    Retire(usize),
}

impl Protocol {
    pub(crate) fn offer(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        let servers = if self.bounds.has_failover { SERVERS } else { 1 };
        for (number, proxy) in state.proxies.iter().enumerate() {
            self.offer_clients(state, number, proxy, actions);
            (0..servers).for_each(|server| self.offer_lane((number, proxy), server, actions));
            if proxy.topology != state.elected {
                actions.push(Action::Publish(number));
            }
            if proxy.is_retiring {
                actions.push(Action::Retire(number));
            }
        }
        (0..servers).for_each(|server| self.offer_server(state, server, actions));
        if self.bounds.has_failover {
            Self::offer_failover(state, actions);
        }
    }

    fn offer_clients(&self, state: &State, number: usize, proxy: &Proxy, actions: &mut Vec<Action>) {
        if self.served(proxy).is_none() && self.has_room(proxy) {
            // Sessions that go by an older topology are there for as long as there is a lane that they could use.
            let is_useful = |server: usize| server == proxy.topology || proxy.lanes[server].phase == Phase::Up;
            let last = if self.bounds.has_failover { proxy.topology } else { FIRST };
            actions.extend((0..=last).filter(|server| is_useful(*server)).map(|server| Action::Miss(number, server)));
        }
        for (index, fill) in proxy.fills.iter().enumerate() {
            match fill.as_ref().map(|fill| fill.stage) {
                Some(Stage::Asked(_)) => actions.push(Action::BeginFetch(number, index)),
                Some(Stage::Leased(_)) => actions.push(Action::SendFetch(number, index)),
                Some(Stage::Sent(_)) | None => {}
            }
        }
        match proxy.writing {
            Writing::Nothing => {
                let route = self.route(state, number);
                if self.bounds.has_writes_through && self.may_write(state) && state.servers[route].is_primary {
                    actions.push(Action::Write(number));
                    if self.bounds.has_flushes && !is_flushing(state, route) {
                        actions.push(Action::Flush(number));
                    }
                }
            }
            Writing::Answered(_) | Writing::Flushed(_) => actions.push(Action::Acknowledge(number)),
            Writing::Told => actions.push(Action::WroteLate(number)),
        }
    }

    fn offer_lane(&self, (number, proxy): (usize, &Proxy), server: usize, actions: &mut Vec<Action>) {
        let lane = &proxy.lanes[server];
        if !lane.requests.is_empty() {
            actions.push(Action::Serve(number, server));
        }
        if !lane.stream.is_empty() {
            actions.push(Action::Deliver(number, server));
        }
        if lane.phase == Phase::Down {
            if proxy.topology == server {
                actions.push(Action::Connect(number, server));
            }
            return;
        }
        // `LoaderLane::beat_if_needed`: there is something that a heartbeat keeps alive.
        let has_filled = proxy.entry.as_ref().is_some_and(|entry| entry.lane == server);
        let fetches = proxy.fills.iter().flatten().any(|fill| fill.stage == Stage::Sent(server));
        let beats = lane.requests.iter().filter(|request| matches!(request, Request::Beat(_))).count()
            + lane.stream.iter().filter(|message| matches!(message, Message::Beat { .. })).count();
        if lane.phase == Phase::Up && (has_filled || fetches) && !lane.is_cut && beats < self.bounds.beats {
            actions.push(Action::Beat(number, server));
        }
        if lane.is_tracked && self.bounds.has_evictions {
            actions.push(Action::Evict(number, server));
        }
        if !lane.is_cut && self.bounds.has_cuts {
            actions.push(Action::Cut(number, server));
        }
        if lane.is_cut || (proxy.topology != server && !proxy.is_retiring) {
            actions.push(Action::Lose(number, server));
        }
        let asks_late = self.lacks(Broken::FetchesBeforeTracking) && !lane.is_tracking && !lane.is_cut;
        if asks_late && !lane.requests.contains(&Request::Track) {
            actions.push(Action::AskLate(number, server));
        }
    }

    fn offer_server(&self, state: &State, server: usize, actions: &mut Vec<Action>) {
        if !state.servers[server].is_primary {
            return;
        }
        if self.may_write(state) {
            actions.push(Action::WriteBeside(server));
            if self.bounds.life.is_some() {
                actions.push(Action::WriteMortalBeside(server));
            }
            if self.bounds.has_flushes && !is_flushing(state, server) {
                actions.push(Action::FlushBeside(server));
            }
        }
        if state.value_at(server).is_absence() && !state.servers[server].has_noticed {
            actions.push(Action::NoticeExpiry(server));
        }
    }

    fn offer_failover(state: &State, actions: &mut Vec<Action>) {
        let other = SERVERS - 1 - state.elected;
        if !state.servers[other].is_primary && state.servers[other].holds != state.servers[state.elected].holds {
            actions.push(Action::Replicate);
        }
        if state.elected == FIRST {
            actions.push(Action::Promote);
        } else if state.servers[FIRST].is_primary {
            actions.push(Action::Demote);
        }
    }

    fn may_write(&self, state: &State) -> bool {
        state.written < self.bounds.versions
    }

    pub(crate) fn take(&self, state: &mut State, action: Action) {
        match action {
            Action::Tick => self.tick(state),
            Action::Miss(proxy, server) => self.miss(state, proxy, server),
            Action::Write(proxy) => {
                let version = state.write(self.route(state, proxy), FOREVER);
                state.proxies[proxy].writing = Writing::Answered(version);
            }
            Action::Flush(proxy) => {
                let version = state.flush(self.route(state, proxy));
                state.proxies[proxy].writing = Writing::Flushed(version);
            }
            Action::Acknowledge(proxy) => self.acknowledge(state, proxy),
            Action::WroteLate(proxy) => {
                state.proxies[proxy].writing = Writing::Nothing;
                self.wrote(&mut state.proxies[proxy]);
            }
            Action::WriteBeside(server) => _ = state.write(server, FOREVER),
            Action::WriteMortalBeside(server) => _ = state.write(server, self.bounds.life.unwrap_or(FOREVER)),
            Action::FlushBeside(server) => _ = state.flush(server),
            Action::NoticeExpiry(server) => state.notice_expiry(server),
            Action::BeginFetch(proxy, fill) => self.begin_fetch(state, proxy, fill),
            Action::SendFetch(proxy, fill) => self.send_fetch(state, proxy, fill),
            Action::Beat(proxy, server) => state.proxies[proxy].lanes[server].send(Request::Beat(0)),
            Action::Serve(proxy, server) => self.serve(state, proxy, server),
            Action::Deliver(proxy, server) => self.deliver(state, proxy, server),
            Action::Evict(proxy, server) => state.evict(proxy, server),
            Action::Cut(proxy, server) => state.cut(proxy, server),
            Action::Lose(proxy, server) => self.lose(&mut state.proxies[proxy], server),
            Action::Connect(proxy, server) => self.connect(&mut state.proxies[proxy].lanes[server]),
            Action::AskLate(proxy, server) => state.proxies[proxy].lanes[server].send(Request::Track),
            Action::Replicate => state.replicate(),
            Action::Promote => state.promote(),
            Action::Demote => state.demote(),
            Action::Publish(proxy) => self.publish(state, proxy),
            Action::Retire(proxy) => self.retire(state, proxy, FIRST),
        }
        self.settle(state);
    }
}

/// A flush is on its way to a proxy: another would tell it no more.
fn is_flushing(state: &State, server: usize) -> bool {
    state.proxies.iter().any(|proxy| proxy.lanes[server].stream.contains(&Message::InvalidateAll))
}
